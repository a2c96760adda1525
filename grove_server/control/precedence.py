"""Who comes before whom: the order of a round, what queues let in, and who holds back whom.

Rules: of two queues the one that has less of its fair share comes first; within a queue the higher priority, then
Grove's order. A queue that would exceed its limit, or one above it, lets a gang wait whatever the capacity. Gangs that
are behind a waiting one in a strict queue wait too, if they could use the same nodes. Where nobody made queues all of
this is one sort. What is fair is worked out once a round, since it changes with every gang.

Not here: whose turn it is by fair share (``placement.turns``), who has to leave (``evictions``).
"""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import NamedTuple

from grove_server.control.decisions import Decision
from grove_server.control.nominations import Nominations
from grove_server.control.queue_book import QueueBook
from grove_server.control.seats import Seats
from grove_server.placement.allowances import amounts_of_pod, surplus_of
from grove_server.placement.cluster import Cluster
from grove_server.placement.fair_share import fair_shares
from grove_server.placement.gang_facts import full_name
from grove_server.placement.queues import QueueTree
from grove_server.placement.reclaim import amounts_of
from grove_server.placement.requests import GangRequest, PodShape, minimum_of
from grove_server.placement.results import Verdict
from grove_server.placement.thresholds import Way, ways_within_guarantee, ways_within_limits
from grove_server.placement.topology import IntArray
from grove_server.placement.turns import HeadsOfLine, WaitingGang, order_gangs, placement_order
from grove_server.placement.waiting import QUEUE_BLOCKED, QUEUE_LIMIT
from grove_server.placement.wake_ups import signature_of
from grove_server.resources.meta import Key, key_of
from grove_server.resources.reference import SharedTemplate
from grove_server.resources.workload import Pod, PodGang
from grove_server.store.interface import Store

Amounts = Mapping[str, int]
Rank = tuple[int, tuple[bool | float | str | int, ...]]


class Precedence:
    """The rules of one cluster. *shape_of* gives what one pod of a template asks for."""

    def __init__(
        self,
        store: Store,
        cluster: Cluster,
        queues: QueueBook,
        seats: Seats,
        nominations: Nominations,
        shape_of: Callable[[SharedTemplate], PodShape],
    ) -> None:
        self._store = store
        self._cluster = cluster
        self._queues = queues
        self._seats = seats
        self._nominations = nominations
        self._shape_of = shape_of
        self._lines: dict[str, dict[Hashable, list[_InLine]]] = {}
        self._in_line: dict[Key, tuple[str, Hashable, _InLine]] = {}
        self._fair: dict[str, dict[str, float]] | None = None
        self._waiting: dict[Key, tuple[str, GangRequest]] = {}
        self._totals: tuple[tuple[int, int, QueueTree], IntArray] | None = None

    # A round.

    def begin_round(self) -> None:
        """Forget what was fair."""
        self._fair = None

    def in_order(self, gangs: Iterable[PodGang]) -> list[PodGang]:
        """Return gangs in the order in which they are asked for."""
        ordered = sorted(gangs, key=rank)
        if len(ordered) <= 1 or len(self._queues.tree.specs) == 1:
            return ordered
        by_name = {full_name(g.metadata.namespace, g.metadata.name): g for g in ordered}
        waiting = [
            WaitingGang(
                name=name,
                queue=self._queues.name_of(gang),
                priority=gang.priority,
                order=placement_order(gang),
                amounts=self._needed(gang),
            )
            for name, gang in by_name.items()
        ]
        turns = order_gangs(self._queues.tree, self.fair(), self.used(), waiting)
        return [by_name[each.name] for each in turns]

    # What queues say.

    def used(self) -> dict[str, Counter[str]]:
        """Return what each queue has, what is kept for its gangs included, by resource."""
        held = self._seats.used()
        if not self._nominations:
            return held
        used = {name: Counter(amounts) for name, amounts in held.items()}
        for name, kept in self._nominations.used().items():
            used.setdefault(name, Counter()).update(kept)
        return used

    @property
    def version(self) -> tuple[int, int]:
        """Changes whenever what queues use may have changed."""
        return self._seats.version, self._nominations.version

    def total(self, queue: str, resource: str) -> int:
        """Return what a queue of the tree has now, with all below it, of a resource that some queue bounds."""
        tree = self._queues.tree
        if self._totals is None or self._totals[0] != (*self.version, tree):
            self._totals = (*self.version, tree), tree.totals(self.used(), tree.resources)
        return int(self._totals[1][tree.resources[resource], tree.numbers[queue]])

    def ways(self, gang: PodGang, decision: Decision) -> list[Way]:
        """Return what has to hold of queues' use so that a gang which waits is to be asked again."""
        tree, queue, found = self._queues.tree, self._queues.name_of(gang), list[Way]()
        if queue not in tree.numbers:
            return found
        for each in (decision, *decision.others):
            if each.request is None:
                continue
            is_minimum = minimum_of(each.request) > 0
            is_limited = each.waiting_reason == QUEUE_LIMIT
            amounts = amounts_of(each.request) if is_minimum else amounts_of_pod(surplus_of(each.request.members)[0])
            if is_limited:
                found += ways_within_limits(tree, queue, amounts)
            if is_minimum and (is_limited or isinstance(each.outcome, Verdict)):
                found += ways_within_guarantee(tree, queue, amounts)
        return found

    def fair(self) -> dict[str, dict[str, float]]:
        """Return what is fair for each queue now, by resource."""
        if self._fair is None:
            ledger = self._cluster.ledger
            capacity = {name: int(ledger.allocatable[row].sum()) for name, row in ledger.rows.items()}
            wanted = {name: Counter(amounts) for name, amounts in self.used().items()}
            for queue, request in self._waiting.values():
                wanted.setdefault(queue, Counter()).update(amounts_of(request))
            self._fair = fair_shares(self._queues.tree, capacity, wanted)
        return self._fair

    def obstacle(self, gang: PodGang) -> Decision | None:
        """Return why no gang of this one's queue can run at all."""
        problem = self._queues.problem_of(self._queues.name_of(gang))
        return None if problem is None else Decision(waiting_reason=problem[0], waiting_message=problem[1])

    def refusal(
        self, gang: PodGang, request: GangRequest, *, is_surplus: bool = False, is_whole: bool = True
    ) -> Decision | None:
        """Return why a gang may not have what it asks for yet: a limit, or a gang before it; None if it may.

        Not `is_whole`: it asks for a part of itself that it lost; nobody holds that back.
        """
        queue = self._queues.name_of(gang)
        blocker = self._blocker(gang, queue, request, is_surplus=is_surplus) if is_whole else ""
        if blocker:
            return Decision(
                request=request,
                waiting_reason=QUEUE_BLOCKED,
                waiting_message=f"gang {blocker} is before it in queue {queue}, which is strict, and has no room",
            )
        return self._over_limit(queue, request, amounts_of(request))

    def limit_reached(self, gang: PodGang, request: GangRequest, shape: PodShape) -> Decision | None:
        """Return that the limit of a gang's queue has no room for one more surplus pod; None if it has."""
        return self._over_limit(self._queues.name_of(gang), request, amounts_of_pod(shape))

    def limit_on_arrival(self, gang: PodGang, request: GangRequest) -> str:
        """Return which limits a gang would exceed that takes the places kept for it now; "" if none."""
        allowances = self._queues.allowances
        if not allowances.has_limits:
            return ""
        return allowances.over_limit(self._queues.name_of(gang), amounts_of(request), self._seats.used())

    def is_limit_yielding(self, gang: PodGang) -> bool:
        """Return whether pods leave that a limit of a gang's queue, or of one above it, counts."""
        tree, queue = self._queues.tree, self._queues.name_of(gang)
        if queue not in tree.numbers:
            return False
        return any(
            name in tree.numbers and tree.lineage(name)[-1] == tree.lineage(queue)[-1]
            for name in self._seats.leaving_of()
        )

    def _over_limit(self, queue: str, request: GangRequest, amounts: Amounts) -> Decision | None:
        allowances = self._queues.allowances
        text = allowances.over_limit(queue, amounts, self.used()) if allowances.has_limits else ""
        return Decision(request=request, waiting_reason=QUEUE_LIMIT, waiting_message=text) if text else None

    def surplus_within_limit(self, gang: PodGang, shape: PodShape, wanted: int) -> int:
        """Return how many of some surplus pods the limits of a gang's queue leave room for."""
        allowances = self._queues.allowances
        if not allowances.has_limits:
            return wanted
        return allowances.within_limit(self._queues.name_of(gang), shape, wanted, self.used())

    def wait(self, gang: PodGang, request: GangRequest) -> None:
        """Note that a gang found no room: others of a strict queue wait behind it, and its queue wants more."""
        key, queue = key_of(gang), self._queues.name_of(gang)
        self._leave_line(key)
        if self._queues.allowances.is_strict(queue):
            signature, place = signature_of(request), _InLine(rank(gang), key, request)
            insort(self._lines.setdefault(queue, {}).setdefault(signature, []), place, key=_rank_of)
            self._in_line[key] = (queue, signature, place)
        if len(self._queues.tree.specs) > 1:
            self._waiting[key] = (queue, request)
            self._fair = None

    def wait_no_more(self, key: Key) -> bool:
        """Note that a gang has its places or is gone; return whether others waited behind it."""
        self._waiting.pop(key, None)
        return self._leave_line(key)

    def waiting(self) -> list[tuple[Key, str, GangRequest]]:
        """Return which gangs found no room, their queues and what they asked for; only where there are several queues.

        With a single queue nobody counts them but a strict line.
        """
        found = {key: (key, queue, request) for key, (queue, request) in self._waiting.items()}
        found |= {key: (key, queue, place.request) for key, (queue, _, place) in self._in_line.items()}
        return list(found.values())

    # Inside.

    def _leave_line(self, key: Key) -> bool:
        found = self._in_line.pop(key, None)
        if found is None:
            return False
        queue, signature, place = found
        line = self._lines[queue][signature]
        line.remove(place)
        if not line:
            del self._lines[queue][signature]
        return True

    def _blocker(self, gang: PodGang, queue: str, request: GangRequest, *, is_surplus: bool) -> str:
        """Return the gang before this one that waits for nodes which it could use too; surplus comes after all."""
        lines = self._lines.get(queue)
        if not lines or not self._queues.allowances.is_strict(queue):
            return ""
        heads = HeadsOfLine(self._cluster, self._queues.tree)
        for line in lines.values():
            first = line[0]
            if first.key != key_of(gang) and (is_surplus or first.rank < rank(gang)):
                heads.wait(first.key.name, queue, first.request)
        return heads.blocker_of(queue, request) or ""

    def _needed(self, gang: PodGang) -> Amounts:
        """Return what the minimum of a gang that has no place yet needs; nothing for one that only lacks parts."""
        total: Counter[str] = Counter()
        if gang.status.scheduled_at is not None:
            return total
        reader = self._store.read()
        for group in gang.pod_groups:
            pod = reader.get(Pod, gang.metadata.namespace, group.pods[0]) if group.pods else None
            if pod is not None:
                for resource, amount in amounts_of_pod(self._shape_of(pod.template)).items():
                    total[resource] += amount * group.min_replicas
        return total


class _InLine(NamedTuple):
    """A gang that waits in a strict queue."""

    rank: Rank
    key: Key
    request: GangRequest


def _rank_of(place: _InLine) -> Rank:
    return place.rank


def rank(gang: PodGang) -> Rank:
    """Return the sort key of gangs of one queue: the highest priority first, then Grove's order."""
    return -gang.priority, placement_order(gang)
