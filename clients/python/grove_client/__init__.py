"""Client library of Grove Server."""
