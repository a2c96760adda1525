"""The service: the loop that observes, decides, acts and records, and what others can ask of it."""
