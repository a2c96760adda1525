"""How to see: metrics and logs. Imported by rooms that do input and output, by no pure one."""
