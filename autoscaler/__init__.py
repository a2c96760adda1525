"""The autoscaler: sets the size of each role of a set from what was measured, over the server's public API."""
