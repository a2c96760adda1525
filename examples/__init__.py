"""Programs that stand for a user's own in the examples: an engine and a router. Nothing of the server needs them."""
