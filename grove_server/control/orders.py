"""Gathers what the set's level and the cluster say to one copy: the orders that its pass follows."""

from __future__ import annotations

from dataclasses import dataclass

from grove_server.control.freed_places import FreedPlaces
from grove_server.control.loads import Loads
from grove_server.control.node_troubles import NodeTroubles
from grove_server.control.routers import Routers
from grove_server.lifecycle.orders import DRAIN_TIMEOUT_S, NODE_EVICTION_DELAY_S, STUCK_TERMINATING_S, CopyOrders
from grove_server.lifecycle.removal import drain_timeout_s
from grove_server.lifecycle.rollout.progress import update_order
from grove_server.resources.labels import STUCK_TERMINATING_POLICY, STUCK_WAIT
from grove_server.resources.replacing import replace
from grove_server.resources.workload import PodCliqueSet
from grove_server.store.interface import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long the server waits, in seconds: for routers, for nodes that are not ready, for pods that do not stop.

    ``drain_timeout_s`` holds for sets that do not give their own.
    """

    drain_timeout_s: float = DRAIN_TIMEOUT_S
    node_eviction_delay_s: float = NODE_EVICTION_DELAY_S
    stuck_terminating_s: float = STUCK_TERMINATING_S


class OrdersDesk:
    """Writes orders."""

    def __init__(
        self,
        store: Store,
        routers: Routers,
        loads: Loads,
        nodes: NodeTroubles,
        freed: FreedPlaces,
        patience: Patience,
    ) -> None:
        self._store = store
        self._routers = routers
        self._loads = loads
        self.nodes = nodes
        self._freed = freed
        self._patience = patience

    def for_set(self, namespace: str, set_name: str) -> CopyOrders:
        """Return what holds for every copy of a set, whether or not the set still exists."""
        owner = self._store.read().get(PodCliqueSet, namespace, set_name)
        patience = self._patience
        annotations = {} if owner is None else owner.metadata.annotations
        timeout_s = patience.drain_timeout_s
        if annotations:
            timeout_s = drain_timeout_s(annotations, timeout_s)
        return CopyOrders(
            routers=self._routers.leases(namespace, set_name),
            nodes=self.nodes.by_name,
            freed=self._freed.by_place,
            loads=self._loads.of_set(namespace, set_name),
            drain_timeout_s=timeout_s,
            node_eviction_delay_s=patience.node_eviction_delay_s,
            stuck_terminating_s=patience.stuck_terminating_s,
            removes_stuck=annotations.get(STUCK_TERMINATING_POLICY) != STUCK_WAIT,
        )

    def for_copy(self, namespace: str, set_name: str, copy: int) -> CopyOrders:
        """Return the orders for one copy: those for every copy, and whether it has its turn in an update."""
        orders = self.for_set(namespace, set_name)
        owner = self._store.read().get(PodCliqueSet, namespace, set_name)
        order = None if owner is None else update_order(owner, copy)
        return orders if order is None else replace(orders, update=order)
