"""The command line of Grove Server."""
