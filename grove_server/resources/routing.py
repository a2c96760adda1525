"""Who routes requests to a set, as far as the server has to remember it.

A registration says that a router serves a set and is waited for when pods drain. How long it is believed to live is not
stored: leases are renewed every few seconds, and after a restart of the server each is counted anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from grove_server.resources.meta import SCHEMA, Key, Kind, Metadata


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterRegistration:
    """A router of one set, or with an empty ``set_name`` of every set in its namespace."""

    __pydantic_config__: ClassVar[Any] = SCHEMA
    kind: ClassVar[Kind] = Kind.ROUTER_REGISTRATION

    metadata: Metadata
    resource_version: int = 0
    router: str
    set_name: str = ""


def registration_key(namespace: str, set_name: str, router: str) -> Key:
    """Return the key of a registration; no name of a set or a router has a slash."""
    return Key(Kind.ROUTER_REGISTRATION, namespace, f"{set_name}/{router}")
