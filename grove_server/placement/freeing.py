"""The least that has to be freed so that pods of one shape fit into one domain, and on which nodes.

Rules: what is free on a node already counts: the next pod costs what is missing to one pod, each further one a whole
pod, and none more than the node could hold when empty. Costs per node never fall from pod to pod, resource by resource,
so taking the cheapest next pod again and again is optimal; GPUs come first, then the other resources by name. Domains
are looked at in the order of what they cost at least. With shares of GPUs the amount is a bound, because pieces of
different GPUs do not add up.

Not here: which of the pods that run would have to go (`preemption`), sentences (`results`).
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from grove_server.placement.cluster import Cluster
from grove_server.placement.counts import RequestClass
from grove_server.placement.ledger import GPU_ROW, PODS_ROW, Ledger
from grove_server.placement.requests import GPU_SHARE
from grove_server.placement.topology import BoolArray, IntArray, Layout
from grove_server.resources.gpu_annotations import GPU_MILLI

DOMAINS_MAX: Final = 32
"""Domains that are worked out in full; further ones could only be better in a resource that is not asked for first."""

CELLS_MAX: Final = 1 << 18
"""Most (node, pod) pairs that one domain is worked out with."""

SPOTS_MAX: Final = 100
"""Most nodes that an answer names."""

_LARGE: Final = 1 << 60
# More than any amount that is missing to one pod; domains for which it counts can hold the pods in no way.


class Freeing(NamedTuple):
    """What to free in a domain of a level: (resource, amount) in all, and by node; `spot_count` nodes, the first named.

    `is_exact` is False if the amounts are only what it takes at least.
    """

    level: int
    domain: int
    pods: int
    amounts: tuple[tuple[str, int], ...]
    spots: tuple[tuple[str, tuple[tuple[str, int], ...]], ...]
    spot_count: int
    is_exact: bool


class _Found(NamedTuple):
    """Positions of nodes, each once, with what to free there: int64[resources, nodes]."""

    total: tuple[int, ...]
    positions: IntArray
    amounts: IntArray


def room_when_empty(ledger: Ledger, request_class: RequestClass, slots: IntArray) -> IntArray:
    """Return by position how many pods of a class a node would hold if nothing else ran there, whoever may use it."""
    if request_class.costs is None:
        return np.zeros(len(slots), dtype=np.int64)
    (row, amount), *others = request_class.costs
    empty: IntArray = ledger.allocatable[row][slots] // amount
    for row, amount in others:
        np.minimum(empty, ledger.allocatable[row][slots] // amount, out=empty)
    if request_class.shape.gpu_milli:
        per_gpu = GPU_MILLI // request_class.shape.gpu_milli
        np.minimum(empty, ledger.allocatable[GPU_ROW][slots] * per_gpu, out=empty)
    return empty


def least_to_free(
    cluster: Cluster, layout: Layout, request_class: RequestClass, pods: int, level: int, open_to: BoolArray
) -> Freeing | None:
    """Return the least to free so that `pods` pods fit one domain of a level, on nodes bool[positions] that are open.

    None if they fit already, or if no domain could hold them even then.
    """
    if request_class.costs is None:
        return None
    task = _Task(cluster, layout, request_class, open_to)
    starts = layout.levels[level].starts
    missing = pods - np.add.reduceat(task.now, starts[:-1])
    can_hold = np.add.reduceat(task.headroom, starts[:-1]) >= missing
    if bool(((missing <= 0) & layout.levels[level].is_named).any()):
        return None
    domains = np.flatnonzero(can_hold & layout.levels[level].is_named)
    least = task.at_least(starts, missing)[domains]
    best: tuple[_Found, int] | None = None
    for number in np.argsort(least, kind="stable")[:DOMAINS_MAX].tolist():
        domain, bound = int(domains[number]), int(least[number])
        if best is not None and (bound, *[0] * (len(task.rows) - 1)) >= best[0].total:
            break
        found = task.within(int(starts[domain]), int(starts[domain + 1]), int(missing[domain]))
        if found is not None and (best is None or found.total < best[0].total):
            best = found, domain
    if best is None:
        return None
    return task.told(best[0], level, best[1], int(missing[best[1]]))


class _Task:
    """One shape on one layout: what fits now, what else could, and what that costs."""

    def __init__(self, cluster: Cluster, layout: Layout, request_class: RequestClass, open_to: BoolArray) -> None:
        self.cluster = cluster
        self.layout = layout
        ledger = cluster.ledger
        self.milli = request_class.shape.gpu_milli
        names = {row: resource for resource, row in ledger.rows.items()}
        costs = dict(request_class.costs or ())
        order = sorted(costs, key=lambda row: (row != GPU_ROW, row == PODS_ROW, names[row]))
        self.rows = [GPU_SHARE, *(names[row] for row in order)] if self.milli else [names[row] for row in order]
        self.amounts = {names[row]: amount for row, amount in costs.items()}
        usable = request_class.eligible & open_to
        self.now = request_class.everywhere[-1] * usable
        self.headroom = np.maximum(room_when_empty(ledger, request_class, layout.slots) - self.now, 0) * usable
        self.free = {names[row]: ledger.free[row][layout.slots] for row in costs}
        self.held = ledger.shares_fitting(layout.slots, self.milli) if self.milli else self.now
        self.share_costs = _share_costs(ledger, layout.slots, self.milli) if self.milli else None

    def at_least(self, starts: IntArray, missing: IntArray) -> IntArray:
        """Return by domain a bound of what its missing pods cost in the first resource: one per node, then others."""
        every = np.arange(len(self.now))
        first = self.costs(self.rows[0], 1, every)
        second = self.costs(self.rows[0], 2, every) - first
        has_room = self.headroom > 0
        cheap = np.minimum.reduceat(np.where(has_room, first, _LARGE), starts[:-1])
        dear = np.minimum.reduceat(np.where(self.headroom > 1, second, _LARGE), starts[:-1])
        ones = np.minimum(np.add.reduceat(has_room, starts[:-1], dtype=np.int64), missing)
        bounds: IntArray = ones * cheap + (missing - ones) * dear
        return bounds

    def costs(self, resource: str, nth: int, at: IntArray) -> IntArray:
        """Return what the `nth` more pods cost together in a resource at some positions: int64[positions]."""
        if self.share_costs is not None and resource == GPU_SHARE:
            more = np.maximum(self.now[at] + nth - self.held[at], 0)
            last = self.share_costs.shape[1] - 1
            at_open: IntArray = self.share_costs[at, np.minimum(more, last)]
            shares: IntArray = at_open + np.maximum(more - last, 0) * self.milli
            return shares
        amount = self.amounts[resource]
        costs: IntArray = np.maximum((self.now[at] + nth) * amount - self.free[resource][at], 0)
        return costs

    def within(self, start: int, end: int, missing: int) -> _Found | None:
        """Return the cheapest `missing` more pods on positions start .. end - 1; None if that is too much work."""
        pools: list[IntArray] = []
        count = cells = 0
        for nth in range(1, int(self.headroom[start:end].max()) + 1):
            at = start + np.flatnonzero(self.headroom[start:end] >= nth)
            steps = np.array([self.costs(row, nth, at) for row in self.rows])
            if nth > 1:
                steps -= np.array([self.costs(row, nth - 1, at) for row in self.rows])
            if nth > 1 and count >= missing and _is_enough(pools, missing, int(steps[0].min())):
                break
            pools.append(np.vstack([steps, at, np.full(len(at), nth)]))
            count, cells = count + len(at), cells + len(at)
            if cells > CELLS_MAX:
                return None
        pool = np.hstack(pools)
        # Ties go to the first node, and on it to the nearer pod.
        chosen = pool[:, np.lexsort((pool[-1], pool[-2], *pool[-3::-1]))[:missing]]
        positions, where = np.unique(chosen[-2], return_inverse=True)
        amounts = np.zeros((len(self.rows), len(positions)), dtype=np.int64)
        for row in range(len(self.rows)):
            np.add.at(amounts[row], where, chosen[row])
        return _Found(tuple(amounts.sum(axis=1).tolist()), positions, amounts)

    def told(self, found: _Found, level: int, domain: int, pods: int) -> Freeing:
        """Return what was found by names."""
        states = self.cluster.rules.states
        hit = np.flatnonzero(found.amounts.any(axis=0))
        spots = []
        for column in hit[:SPOTS_MAX].tolist():
            state = states[int(self.layout.slots[found.positions[column]])]
            assert state is not None, "only nodes that are there have room"
            spots.append((state.name, self._named(found.amounts[:, column].tolist())))
        return Freeing(
            level=level,
            domain=domain,
            pods=pods,
            amounts=self._named(list(found.total)),
            spots=() if self.milli else tuple(spots),
            spot_count=len(hit),
            is_exact=not self.milli,
        )

    def _named(self, amounts: list[int]) -> tuple[tuple[str, int], ...]:
        return tuple((row, amount) for row, amount in zip(self.rows, amounts, strict=True) if amount)


def _share_costs(ledger: Ledger, slots: IntArray, milli: int) -> IntArray:
    """Return by position what 0, 1, 2 ... more shares cost on partly used GPUs, the cheapest first: int64[slots, n]."""
    left = ledger.shares.rows(slots).astype(np.int64)
    has_room = (left > 0) & ((left // milli + 1) * milli <= GPU_MILLI)
    each = np.sort(np.where(has_room, milli - left % milli, milli), axis=1)
    return np.concatenate([np.zeros((len(slots), 1), dtype=np.int64), each.cumsum(axis=1)], axis=1)


def _is_enough(pools: list[IntArray], missing: int, next_least: int) -> bool:
    """Return whether no further pod of a node could be among the `missing` cheapest.

    Where all that is chosen costs nothing but the first resource, a tie in that is as good.
    """
    pool = np.hstack(pools)
    last = int(np.partition(pool[0], missing - 1)[missing - 1])
    if last != next_least:
        return last < next_least
    return int(np.count_nonzero((pool[0] <= last) & ~pool[1:-2].any(axis=0))) >= missing
