"""What is next: expansion of a set, sizes, gangs, states and statuses. Pure; plans are data."""
