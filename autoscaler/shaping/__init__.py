"""What may be made of a wish: windows, rates, bounds, the ratio of roles, the budget of GPUs."""
