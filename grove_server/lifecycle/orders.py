"""What is decided above a copy and holds for one pass over it: routers to ask, nodes in trouble, the update's turn.

Everything here is data that the control loop gathers; a pass without orders behaves as if nobody routed to the set, all
nodes were well, and no update was under way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

DRAIN_TIMEOUT_S: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterLease:
    """A router that serves the set, and until when it is believed to live (epoch seconds)."""

    router: str
    expires_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeTrouble:
    """What is wrong with a node that pods of the copy run on; times are epoch seconds, None where all is well."""

    not_ready_since: float | None = None
    draining_since: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyOrders:
    """Orders for one pass.

    ``routers`` are the leases of routers that serve the set, by name; ``nodes`` holds only nodes in trouble. ``loads``
    are the requests in flight that routers report, by pod name: scale-in takes idle pods first.
    """

    routers: tuple[RouterLease, ...] = ()
    nodes: Mapping[str, NodeTrouble] = field(default_factory=dict)
    drain_timeout_s: float = DRAIN_TIMEOUT_S
    loads: Mapping[str, float] = field(default_factory=dict)


NO_ORDERS: Final = CopyOrders()
