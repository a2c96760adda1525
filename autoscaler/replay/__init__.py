"""What scaling policies would have done with a trace: a plant, traces, baselines, the oracle, and their comparison."""
