"""What is decided above a copy and holds for one pass over it: routers to ask, nodes in trouble, the update's turn.

Everything here is data that the control loop gathers; a pass without orders behaves as if nobody routed to the set, all
nodes were well, and no update was under way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from grove_server.resources.manifest import COHERENT, ON_DELETE, RollingUpdate

DRAIN_TIMEOUT_S: Final = 30.0
# Kubernetes gives a node that does not answer five minutes, too (its default toleration of not-ready nodes).
NODE_EVICTION_DELAY_S: Final = 300.0
STUCK_TERMINATING_S: Final = 60.0


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
class UpdateOrder:
    """The copy takes the current template; unless the strategy is OnDelete, it has its turn and replaces old pods.

    ``changed`` are the clique templates that differ from what ran before; ``budget`` holds for cliques and groups that
    give none of their own.
    """

    strategy: str
    changed: frozenset[str] = frozenset()
    budget: RollingUpdate | None = None

    @property
    def rolls(self) -> bool:
        """Whether old pods are replaced, and not only followed by new ones when they go."""
        return self.strategy != ON_DELETE

    @property
    def is_coherent(self) -> bool:
        """Whether changed cliques and groups move together in their ratio."""
        return self.strategy == COHERENT


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyOrders:
    """Orders for one pass.

    ``routers`` are the leases of routers that serve the set, by name; ``nodes`` holds only nodes in trouble. ``loads``
    are the requests in flight that routers report, by pod name: scale-in takes idle pods first. Without ``update`` the
    copy stays at the revision it has, in replacements too. Pods leave a node that was not ready for
    ``node_eviction_delay_s``; the row of a stopping pod there is removed ``stuck_terminating_s`` after its grace
    period, if the set ``removes_stuck`` pods at all. ``freed`` are the nodes of pods that are gone, by the uid of their
    clique and their index.
    """

    routers: tuple[RouterLease, ...] = ()
    nodes: Mapping[str, NodeTrouble] = field(default_factory=dict)
    drain_timeout_s: float = DRAIN_TIMEOUT_S
    node_eviction_delay_s: float = NODE_EVICTION_DELAY_S
    stuck_terminating_s: float = STUCK_TERMINATING_S
    removes_stuck: bool = True
    loads: Mapping[str, float] = field(default_factory=dict)
    update: UpdateOrder | None = None
    freed: Mapping[tuple[str, int], str] = field(default_factory=dict)


NO_ORDERS: Final = CopyOrders()
