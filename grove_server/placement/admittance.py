"""Queues in a what-if: who comes first, what limits and strict lines let in, what is fair; kept up as a trial goes on.

Rules: those of the running loop, on the same functions. What the trial's gangs got, and what is kept for them, counts
as used from then on; what is promised to others counts too, and pods that leave count until they are gone. What gangs
that wait want counts for what is fair, and in a strict queue they stand before those that come later.

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
from grove_server.placement.gang_facts import full_name
from grove_server.placement.lines import InLine, Lines, Rank, rank
from grove_server.placement.occupancy import Occupancy
from grove_server.placement.reclaim import amounts_of
from grove_server.placement.requests import GangRequest, PodShape
from grove_server.placement.turns import OrderKey, WaitingGang, order_gangs
from grove_server.placement.waiting import QUEUE_BLOCKED, QUEUE_LIMIT
from grove_server.resources.queues import DEFAULT_QUEUE
from grove_server.resources.workload import PodGang


class Waiting(NamedTuple):
    """A gang that waits on the server, by full name, its place in the order of its queue, and what it was refused."""

    name: str
    queue: str
    rank: Rank
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
        self._waiting: dict[str, tuple[str, GangRequest]] = {}
        self._lines = Lines(cluster)
        self._fair: dict[str, dict[str, float]] | None = None
        for each in queueing.waiting:
            self._wait(each.name, each.queue, each.rank, each.request)
        self._used: dict[str, Counter[str]] = {}
        self._kept = {queue: Counter(amounts) for queue, amounts in queueing.kept.items()}
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
            name = full_name(gang.metadata.namespace, gang.metadata.name)
            # Surplus comes after all minimums, whatever their priority.
            before = None if is_surplus else rank(gang)
            blocker = self._lines.blocker(self.allowances.tree, queue, name, before, request)
            if blocker:
                own = blocker.rpartition("/")[2]
                return QUEUE_BLOCKED, f"gang {own} is before it in queue {queue}, which is strict, and has no room"
        text = self.allowances.over_limit(queue, amounts_of(request), self._used)
        return (QUEUE_LIMIT, text) if text else None

    def within_limit(self, gang: PodGang, shape: PodShape, wanted: int) -> int:
        """Return how many of some surplus pods the limits of a gang's queue leave room for."""
        return self.allowances.within_limit(self.queue_of(gang), shape, wanted, self._used)

    def begin_round(self) -> None:
        """Forget what was fair."""
        self._fair = None

    def wait(self, gang: PodGang, name: str, request: GangRequest) -> None:
        """Note that a gang of the trial found no room."""
        self._wait(name, self.queue_of(gang), rank(gang), request)

    def wait_no_more(self, name: str) -> bool:
        """Note that a gang has its places, or will have them; return whether others waited behind it."""
        self._waiting.pop(name, None)
        return self._lines.leave(name)

    def take(self, queue: str, shape: PodShape, count: int) -> None:
        """Count pods that came to a queue, or with a negative count left it."""
        if self.allowances.is_in_use:
            used = self._used.setdefault(queue, Counter())
            for resource, amount in amounts_of_pod(shape).items():
                used[resource] += amount * count

    def keep(self, queue: str, shape: PodShape, count: int) -> None:
        """Count places that are kept for a queue's gangs, or with a negative count are no more; they are used, too."""
        self.take(queue, shape, count)
        if self.allowances.is_in_use:
            kept = self._kept.setdefault(queue, Counter())
            for resource, amount in amounts_of_pod(shape).items():
                kept[resource] += amount * count

    def limit_on_arrival(self, gang: PodGang, request: GangRequest) -> str:
        """Return which limits a gang would exceed that takes the places kept for it now; "" if none."""
        if not self.allowances.has_limits:
            return ""
        held = {queue: Counter(amounts) for queue, amounts in self._used.items()}
        for queue, kept in self._kept.items():
            held.setdefault(queue, Counter()).subtract(kept)
        return self.allowances.over_limit(self.queue_of(gang), amounts_of(request), held)

    def used(self) -> Mapping[str, Mapping[str, int]]:
        """Return what each queue has now, what is kept for its gangs included, by resource."""
        return self._used

    def fair(self) -> dict[str, dict[str, float]]:
        """Return what is fair for each queue now, by resource; worked out once a round, as in the loop."""
        if self._fair is None:
            ledger = self._cluster.ledger
            capacity = {name: int(ledger.allocatable[row].sum()) for name, row in ledger.rows.items()}
            wanted = {name: Counter(amounts) for name, amounts in self._used.items()}
            for queue, request in self._waiting.values():
                wanted.setdefault(queue, Counter()).update(amounts_of(request))
            self._fair = fair_shares(self.allowances.tree, capacity, wanted)
        return self._fair

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

    def _wait(self, name: str, queue: str, place: Rank, request: GangRequest) -> None:
        if self.allowances.is_strict(queue):
            self._lines.wait(queue, InLine(place, name, request))
        if self.allowances.has_several:
            self._waiting[name] = (queue, request)
            self._fair = None
