"""What turns: the loops between store, lifecycle, placement and runtime."""
