"""Gathers what the set's level and the cluster say to one copy: the orders that its pass follows."""

from __future__ import annotations

from dataclasses import replace

from grove_server.control.routers import Routers
from grove_server.lifecycle.orders import CopyOrders
from grove_server.lifecycle.removal import drain_timeout_s
from grove_server.lifecycle.rollout.progress import update_order
from grove_server.resources.workload import PodCliqueSet
from grove_server.store.interface import Store


class OrdersDesk:
    """Writes orders. *drain_timeout_s* holds for sets that do not give their own."""

    def __init__(self, store: Store, routers: Routers, drain_timeout_s: float) -> None:
        self._store = store
        self._routers = routers
        self._drain_timeout_s = drain_timeout_s

    def for_set(self, namespace: str, set_name: str) -> CopyOrders:
        """Return what holds for every copy of a set, whether or not the set still exists."""
        owner = self._store.read().get(PodCliqueSet, namespace, set_name)
        timeout_s = self._drain_timeout_s
        if owner is not None and owner.metadata.annotations:
            timeout_s = drain_timeout_s(owner.metadata.annotations, timeout_s)
        return CopyOrders(routers=self._routers.leases(namespace, set_name), drain_timeout_s=timeout_s)

    def for_copy(self, namespace: str, set_name: str, copy: int) -> CopyOrders:
        """Return the orders for one copy: those for every copy, and whether it has its turn in an update."""
        orders = self.for_set(namespace, set_name)
        owner = self._store.read().get(PodCliqueSet, namespace, set_name)
        return orders if owner is None else replace(orders, update=update_order(owner, copy))
