"""Queues in a what-if: who comes first, what limits and strict lines let in, what is fair; kept up as a trial goes on.

Rules: those of the running loop, on the same functions. What the trial's gangs got counts as used from then on; what is
promised to others counts too. Gangs that wait on the server are not placed by a what-if, but what they want counts for
what is fair, and in a strict queue those of no lower priority stand before the gangs of the question.

Not here: places and evictions (`trial`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from grove_server.placement.allowances import Allowances, amounts_of_pod
from grove_server.placement.cluster import Cluster
from grove_server.placement.fair_share import fair_shares
from grove_server.placement.occupancy import Occupancy
from grove_server.placement.reclaim import amounts_of
from grove_server.placement.requests import GangRequest, PodShape
from grove_server.placement.turns import HeadsOfLine, OrderKey, WaitingGang, order_gangs
from grove_server.placement.waiting import QUEUE_BLOCKED, QUEUE_LIMIT
from grove_server.resources.queues import DEFAULT_QUEUE
from grove_server.resources.workload import PodGang


class Waiting(NamedTuple):
    """A gang that waits on the server, by full name, and what it was refused."""

    name: str
    queue: str
    priority: int
    request: GangRequest


def default_queue(_gang: PodGang) -> str:
    """Return the queue of a gang where nobody knows of queues."""
    return DEFAULT_QUEUE


@dataclass(frozen=True, slots=True, kw_only=True)
class Queueing:
    """What there is of queues: the tree, who is in which, what is promised by queue, and who waits already."""

    allowances: Allowances = field(default_factory=Allowances)
    queue_of: Callable[[PodGang], str] = default_queue
    kept: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    waiting: Sequence[Waiting] = ()


class Admittance:
    """The queues of one trial."""

    def __init__(self, cluster: Cluster, occupancy: Occupancy | None, queueing: Queueing) -> None:
        self._cluster = cluster
        self.allowances = queueing.allowances
        self.queue_of = queueing.queue_of
        self._waiting = list(queueing.waiting)
        self._lines: dict[tuple[str, int], HeadsOfLine] = {}
        self._used: dict[str, Counter[str]] = {}
        if self.allowances.is_in_use and occupancy is not None:
            for amounts in (occupancy.used_by_queue(), queueing.kept):
                for queue, held in amounts.items():
                    self._used.setdefault(queue, Counter()).update(held)

    def obstacle(self, gang: PodGang) -> tuple[str, str] | None:
        """Return reason and sentence why no gang of this one's queue can run at all."""
        return self.allowances.problem_of(self.queue_of(gang))

    def refusal(
        self, gang: PodGang, request: GangRequest, *, is_whole: bool, is_surplus: bool = False
    ) -> tuple[str, str] | None:
        """Return reason and sentence why a gang may not have what it asks for; None if it may."""
        if not self.allowances.is_in_use and not self.allowances.has_strict:
            return None
        queue = self.queue_of(gang)
        if (is_whole or is_surplus) and self.allowances.is_strict(queue):
            # Surplus comes after all minimums, whatever their priority.
            blocker = self._line(queue, None if is_surplus else gang.priority).blocker_of(queue, request)
            if blocker:
                text = f"gang {blocker} is before it in queue {queue}, which is strict, and has no room"
                return QUEUE_BLOCKED, text
        text = self.allowances.over_limit(queue, amounts_of(request), self._used)
        return (QUEUE_LIMIT, text) if text else None

    def within_limit(self, gang: PodGang, shape: PodShape, wanted: int) -> int:
        """Return how many of some surplus pods the limits of a gang's queue leave room for."""
        return self.allowances.within_limit(self.queue_of(gang), shape, wanted, self._used)

    def wait(self, gang: PodGang, name: str, request: GangRequest) -> None:
        """Note that a gang of the trial found no room."""
        queue = self.queue_of(gang)
        if self.allowances.has_several or self.allowances.is_strict(queue):
            self._waiting.append(Waiting(name, queue, gang.priority, request))
            self._lines.clear()

    def take(self, queue: str, shape: PodShape, count: int) -> None:
        """Count pods that came to a queue, or with a negative count left it."""
        if self.allowances.is_in_use:
            used = self._used.setdefault(queue, Counter())
            for resource, amount in amounts_of_pod(shape).items():
                used[resource] += amount * count

    def used(self) -> Mapping[str, Mapping[str, int]]:
        """Return what each queue has now, what is kept for its gangs included, by resource."""
        return self._used

    def fair(self) -> dict[str, dict[str, float]]:
        """Return what is fair for each queue now, by resource."""
        ledger = self._cluster.ledger
        capacity = {name: int(ledger.allocatable[row].sum()) for name, row in ledger.rows.items()}
        wanted = {name: Counter(amounts) for name, amounts in self._used.items()}
        for each in self._waiting:
            wanted.setdefault(each.queue, Counter()).update(amounts_of(each.request))
        return fair_shares(self.allowances.tree, capacity, wanted)

    def in_order(self, gangs: Iterable[tuple[str, PodGang, OrderKey, Callable[[], Mapping[str, int]]]]) -> list[str]:
        """Return the names of gangs in the order of their turns; each with its order in its queue and what it needs."""
        ordered = sorted(gangs, key=lambda each: (-each[1].priority, each[2]))
        if not self.allowances.has_several or len(ordered) <= 1:
            return [name for name, *_ in ordered]
        waiting = [
            WaitingGang(name=name, queue=self.queue_of(gang), priority=gang.priority, order=order, amounts=needs())
            for name, gang, order, needs in ordered
        ]
        return [each.name for each in order_gangs(self.allowances.tree, self.fair(), self._used, waiting)]

    def _line(self, queue: str, priority: int | None) -> HeadsOfLine:
        """Return who stands before a gang of some priority; before surplus pods (None) everybody does."""
        key = queue, -(2**31) if priority is None else priority
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = HeadsOfLine(self._cluster, self.allowances.tree)
            for each in self._waiting:
                if each.queue == queue and each.priority >= key[1]:
                    line.wait(each.name.rpartition("/")[2], queue, each.request)
        return line
