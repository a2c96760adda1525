"""Whose turn it is: the order in which waiting gangs are asked for, and who has to wait behind whom.

Rules: the queue whose dominant share is smallest is served first, level by level down the tree; what a gang would use
counts from then on, so queues take turns. The dominant share is the largest, over resources, of use / fair share; of
equal queues the one of higher priority, then the first by name. Inside a queue the highest priority goes first, then
Grove's order (`placement_order`), which the caller gives as a sort key. A gang of a strict queue holds back the gangs
behind it that compete for the same nodes, and no others: what waits for one kind of GPU does not block another kind.

Not here: the queues themselves (`queues`), places (`place`).
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from grove_server.placement.cluster import Cluster, shapes_of
from grove_server.placement.queues import Blocking, QueueTree, quota_amounts, scale_of
from grove_server.placement.requests import GangRequest
from grove_server.placement.topology import BoolArray
from grove_server.resources.workload import PodGang

OrderKey: TypeAlias = tuple[bool | int | float | str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingGang:
    """A gang that wants places. `order`: Grove's order within one priority; `amounts`: what its minimum needs."""

    name: str
    queue: str
    priority: int
    order: OrderKey
    amounts: Mapping[str, int] = field(default_factory=dict)


def order_gangs(
    tree: QueueTree,
    fair: Mapping[str, Mapping[str, float]],
    used: Mapping[str, Mapping[str, int]],
    gangs: Sequence[WaitingGang],
) -> list[WaitingGang]:
    """Return waiting gangs in the order of their turns; gangs whose queue is not in the tree come last.

    `fair` comes from `fair_share.fair_shares`, `used` by queue as for it. O(gangs x depth x log queues).
    """
    return _Turns(tree, fair, used, gangs).run()


class _Turns:
    """One heap of queues per parent; only the lineage of the queue just served changes its place."""

    def __init__(
        self,
        tree: QueueTree,
        fair: Mapping[str, Mapping[str, float]],
        used: Mapping[str, Mapping[str, int]],
        gangs: Sequence[WaitingGang],
    ) -> None:
        self.tree = tree
        self.fair = fair
        resources = sorted({name for shares in fair.values() for name in shares})
        totals = tree.totals(used, {name: row for row, name in enumerate(resources)})
        scales = np.array([scale_of(name) for name in resources], dtype=np.int64)[:, None]
        rows = (totals / scales).T.tolist()
        self.used: list[dict[str, float]] = [dict(zip(resources, row, strict=True)) for row in rows]
        self.waiting: dict[int, list[WaitingGang]] = {}
        self.others: list[WaitingGang] = []
        for gang in sorted(gangs, key=_place_in_queue, reverse=False):
            number = tree.numbers.get(gang.queue)
            (self.others if number is None else self.waiting.setdefault(number, [])).append(gang)
        for line in self.waiting.values():
            line.reverse()
        self.children: dict[int, list[tuple[float, int, str, int]]] = {}
        for number in self._with_gangs():
            self.children.setdefault(int(tree.parents[number]), []).append(self._entry(number))
        for heap in self.children.values():
            heapq.heapify(heap)

    def run(self) -> list[WaitingGang]:
        result = []
        while self.children.get(-1):
            result.append(self._serve(-1))
        return result + self.others

    def _serve(self, parent: int) -> WaitingGang:
        """Take the next gang from the queues below one, and put the queue it came from back in its new place."""
        _, _, _, number = heapq.heappop(self.children[parent])
        # A queue with queues below it may have gangs of its own; they come first.
        line = self.waiting.get(number)
        gang = line.pop() if line else self._serve(number)
        for resource, amount in quota_amounts(gang.amounts).items():
            self.used[number][resource] = self.used[number].get(resource, 0) + amount / scale_of(resource)
        if self.waiting.get(number) or self.children.get(number):
            heapq.heappush(self.children[parent], self._entry(number))
        return gang

    def _with_gangs(self) -> list[int]:
        found: dict[int, None] = {}
        for number in self.waiting:
            at = number
            while at >= 0 and at not in found:
                found[at] = None
                at = int(self.tree.parents[at])
        return sorted(found)

    def _entry(self, number: int) -> tuple[float, int, str, int]:
        spec = self.tree.specs[number]
        return dominant_share(self.used[number], self.fair.get(spec.name, {})), -spec.priority, spec.name, number


def dominant_share(used: Mapping[str, float], fair: Mapping[str, float]) -> float:
    """Return the largest of use / fair share over resources; what has no fair share counts only if it is used."""
    shares = [used.get(resource, 0) / share if share > 0 else float("inf") for resource, share in fair.items()]
    pairs = zip(fair, shares, strict=True)
    return max((share for resource, share in pairs if used.get(resource, 0) > 0), default=0.0)


def _place_in_queue(gang: WaitingGang) -> tuple[int, OrderKey, str]:
    return -gang.priority, gang.order, gang.name


class HeadsOfLine:
    """Who has to wait behind whom in one round: tell it which gangs found no place, ask before trying the next."""

    def __init__(self, cluster: Cluster, tree: QueueTree) -> None:
        self._cluster = cluster
        self._tree = tree
        self._heads: dict[str, list[tuple[str, BoolArray, BoolArray]]] = {}

    def wait(self, gang: str, queue: str, request: GangRequest) -> None:
        """Note that a gang found no place; of no effect unless its queue blocks strictly."""
        if queue in self._tree.numbers and self._tree.spec(queue).blocking is Blocking.STRICT:
            self._heads.setdefault(queue, []).append((gang, *self._nodes(request)))

    def blocker_of(self, queue: str, request: GangRequest) -> str | None:
        """Return the gang that holds a request of a queue back; None if it may be tried."""
        heads = self._heads.get(queue)
        if not heads:
            return None
        with_gpus, others = self._nodes(request)
        for gang, head_with_gpus, head_others in heads:
            if (with_gpus & head_with_gpus).any() or (others & head_others).any():
                return gang
        return None

    def _nodes(self, request: GangRequest) -> tuple[BoolArray, BoolArray]:
        """Return by slot which nodes pods that need GPUs may use, and which the others may."""
        rules = self._cluster.rules
        nodes = (np.zeros(len(rules.states), dtype=np.bool_), np.zeros(len(rules.states), dtype=np.bool_))
        for shape in shapes_of(request):
            np.logical_or(nodes[not shape.needs_gpu], rules.eligibility(shape)[0], out=nodes[not shape.needs_gpu])
        return nodes


def placement_order(gang: PodGang) -> tuple[bool, float, str, str, int, str, int]:
    """Return the sort key of placement: base gangs first; within, oldest set, lowest copy, lowest group replica."""
    return (
        bool(gang.base_gang),
        gang.set_created_at,
        gang.metadata.namespace,
        gang.set_name,
        gang.copy,
        gang.group,
        gang.group_replica,
    )
