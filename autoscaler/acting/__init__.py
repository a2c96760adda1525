"""Acting: what is there (by watch), and changing it: scale calls, room asked for first, conflicts, the lead."""
