"""Where it runs: the cluster as arrays, the gang solver, its verdicts. Pure."""
