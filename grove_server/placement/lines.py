"""Lines of strict queues: who waits in which, and who therefore has to wait behind whom.

Rules: a gang that found no room stands in the line of its queue, by priority and then in Grove's order. Of gangs that
ask for the same the first stands for all. A gang is held back by one before it that could use the same nodes; surplus
pods come after all minimums, so everybody who waits is before them.

Not here: which queues are strict, when a gang has to ask (the caller knows both).
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Hashable, Iterator
from typing import NamedTuple, TypeAlias

from grove_server.placement.cluster import Cluster
from grove_server.placement.queues import QueueTree
from grove_server.placement.requests import GangRequest
from grove_server.placement.turns import HeadsOfLine, OrderKey, placement_order
from grove_server.placement.wake_ups import signature_of
from grove_server.resources.workload import PodGang

Rank: TypeAlias = tuple[int, OrderKey]


class InLine(NamedTuple):
    """A gang that waits, by full name."""

    rank: Rank
    name: str
    request: GangRequest


class Lines:
    """The lines of one cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._lines: dict[str, dict[Hashable, list[InLine]]] = {}
        self._where: dict[str, tuple[str, Hashable, InLine]] = {}

    def wait(self, queue: str, place: InLine) -> None:
        """Stand in the line of a queue, and in no other."""
        self.leave(place.name)
        signature = signature_of(place.request)
        insort(self._lines.setdefault(queue, {}).setdefault(signature, []), place, key=_order_of)
        self._where[place.name] = (queue, signature, place)

    def leave(self, name: str) -> bool:
        """Stand in no line; return whether the gang stood in one."""
        found = self._where.pop(name, None)
        if found is None:
            return False
        queue, signature, place = found
        line = self._lines[queue][signature]
        line.remove(place)
        if not line:
            del self._lines[queue][signature]
        return True

    def blocker(self, tree: QueueTree, queue: str, name: str, rank: Rank | None, request: GangRequest) -> str:
        """Return who is before a gang of some rank and could use the same nodes; "" if nobody. No rank: surplus."""
        lines = self._lines.get(queue)
        if not lines:
            return ""
        heads = HeadsOfLine(self._cluster, tree)
        for first in (line[0] for line in lines.values()):
            if first.name != name and (rank is None or first.rank < rank):
                heads.wait(first.name, queue, first.request)
        return heads.blocker_of(queue, request) or ""

    def __iter__(self) -> Iterator[tuple[str, InLine]]:
        """Return who stands where."""
        return ((queue, place) for queue, _, place in self._where.values())


def rank(gang: PodGang) -> Rank:
    """Return the sort key of gangs of one queue: the highest priority first, then Grove's order."""
    return -gang.priority, placement_order(gang)


def _order_of(place: InLine) -> Rank:
    return place.rank
