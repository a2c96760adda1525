"""Unique ids that are derived, not drawn: a retried plan makes the same objects, and a test can say which."""

from __future__ import annotations

import hashlib


def derive_uid(parent_uid: str, name: str, distinguisher: str) -> str:
    """Return a UUID-shaped id for the child *name* of *parent_uid*.

    *distinguisher* separates successive children of one name (a serial, or the time of creation).
    """
    digest = hashlib.blake2b(f"{parent_uid}/{name}/{distinguisher}".encode(), digest_size=16).hexdigest()
    # Version 8 of RFC 9562: the content is the application's own.
    return f"{digest[:8]}-{digest[8:12]}-8{digest[13:16]}-a{digest[17:20]}-{digest[20:]}"
