"""Watches for clients: the hub that fans out, channels that share the work, streams that coalesce."""
