"""What exists: typed, immutable resources. Pure; imports nothing of the server."""
