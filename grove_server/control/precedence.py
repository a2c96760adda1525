"""Who comes before whom: the order of a round, what queues let in, and who holds back whom.

Rules: of two queues the one that has less of its fair share comes first; within a queue the higher priority, then
Grove's order. A queue that would exceed its limit, or one above it, lets a gang wait whatever the capacity. Gangs that
are behind a waiting one in a strict queue wait too, if they could use the same nodes. Where nobody made queues all of
this is one sort. What is fair is worked out once a round, since it changes with every gang.

Not here: whose turn it is by fair share (``placement.turns``), who has to leave (``evictions``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from grove_server.control.decisions import Decision
from grove_server.control.nominations import Nominations
from grove_server.control.queue_book import QueueBook
from grove_server.control.seats import Seats, key_of_name
from grove_server.placement.allowances import amounts_of_pod, surplus_of
from grove_server.placement.cluster import Cluster
from grove_server.placement.earmarks import Earmark
from grove_server.placement.fair_share import fair_shares
from grove_server.placement.gang_facts import full_name
from grove_server.placement.headroom import Asker, held_from
from grove_server.placement.lines import InLine, Lines, rank
from grove_server.placement.queues import NOTHING, QueueTree
from grove_server.placement.reclaim import amounts_of
from grove_server.placement.requests import GangRequest, PodShape, minimum_of
from grove_server.placement.results import Verdict
from grove_server.placement.steps import Steps
from grove_server.placement.thresholds import Way, ways_within_guarantee, ways_within_limits
from grove_server.placement.topology import IntArray
from grove_server.placement.turns import WaitingGang, order_steps, placement_order
from grove_server.placement.waiting import QUEUE_BLOCKED, QUEUE_LIMIT
from grove_server.resources.meta import Key, Kind, key_of
from grove_server.resources.reference import SharedTemplate
from grove_server.resources.workload import Pod, PodGang
from grove_server.store.interface import Store

_GANGS_AT_ONCE: Final = 250

Amounts = Mapping[str, int]


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
        self._lines = Lines(cluster)
        self._fair: dict[str, dict[str, float]] | None = None
        self._waiting: dict[Key, tuple[str, GangRequest]] = {}
        self._totals: tuple[tuple[int, int, QueueTree], IntArray] | None = None

    # A round.

    def begin_round(self) -> None:
        """Forget what was fair."""
        self._fair = None

    def in_order(self, gangs: Sequence[PodGang]) -> Steps[list[PodGang]]:
        """Return gangs in the order in which they are asked for; what queues have must not change meanwhile."""
        ranked = []
        for number, gang in enumerate(gangs, start=1):
            ranked.append((rank(gang), number, gang))
            if number % _GANGS_AT_ONCE == 0:
                yield
        ranked.sort()
        ordered = [gang for _, _, gang in ranked]
        if len(ordered) <= 1 or len(self._queues.tree.specs) == 1:
            return ordered
        yield
        by_name = {_name_of(gang): gang for gang in ordered}
        waiting = []
        for number, (name, gang) in enumerate(by_name.items(), start=1):
            waiting.append(
                WaitingGang(
                    name=name,
                    queue=self._queues.name_of(gang),
                    priority=gang.priority,
                    order=placement_order(gang),
                    amounts=self._needed(gang),
                )
            )
            if number % _GANGS_AT_ONCE == 0:
                yield
        turns = yield from order_steps(self._queues.tree, self.fair(), self.used(), waiting)
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

    def held_by_pods(self) -> dict[str, Counter[str]]:
        """Return what the pods of each queue hold, until they are gone, without what is kept for its gangs."""
        return self._seats.used()

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

    def ways(self, gang: PodGang, decision: Decision, earmarks: Sequence[Earmark] = ()) -> list[Way]:
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
                found += ways_within_limits(tree, queue, amounts, self.held(gang, amounts, earmarks))
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
        self,
        gang: PodGang,
        request: GangRequest,
        *,
        is_surplus: bool = False,
        is_whole: bool = True,
        earmarks: Sequence[Earmark] = (),
    ) -> Decision | None:
        """Return why a gang may not have what it asks for yet: a limit, or a gang before it; None if it may.

        Not `is_whole`: it asks for a part of itself that it lost; nobody holds that back. `earmarks`: what is set
        aside, and binds what is asked.
        """
        queue = self._queues.name_of(gang)
        blocker = self._blocker(gang, queue, request, is_surplus=is_surplus) if is_whole else ""
        if blocker:
            return Decision(
                request=request,
                waiting_reason=QUEUE_BLOCKED,
                waiting_message=f"gang {blocker} is before it in queue {queue}, which is strict, and has no room",
            )
        return self._over_limit(gang, request, amounts_of(request), earmarks)

    def limit_reached(
        self, gang: PodGang, request: GangRequest, shape: PodShape, earmarks: Sequence[Earmark] = ()
    ) -> Decision | None:
        """Return that the limit of a gang's queue has no room for one more surplus pod; None if it has."""
        return self._over_limit(gang, request, amounts_of_pod(shape), earmarks)

    def held(self, gang: PodGang, amounts: Amounts, earmarks: Sequence[Earmark]) -> Mapping[str, Amounts]:
        """Return by queue what is held under limits for other gangs and binds one that asks for some amounts."""
        if not earmarks:
            return NOTHING
        asker = Asker(gang=_name_of(gang), queue=self._queues.name_of(gang), priority=gang.priority, amounts=amounts)
        return held_from(asker, earmarks, self._queues.tree, self.used())

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

    def _over_limit(
        self, gang: PodGang, request: GangRequest, amounts: Amounts, earmarks: Sequence[Earmark]
    ) -> Decision | None:
        allowances = self._queues.allowances
        if not allowances.has_limits:
            return None
        held = self.held(gang, amounts, earmarks)
        text = allowances.over_limit(self._queues.name_of(gang), amounts, self.used(), held)
        return Decision(request=request, waiting_reason=QUEUE_LIMIT, waiting_message=text) if text else None

    def surplus_within_limit(
        self, gang: PodGang, shape: PodShape, wanted: int, earmarks: Sequence[Earmark] = ()
    ) -> int:
        """Return how many of some surplus pods the limits of a gang's queue leave room for."""
        allowances = self._queues.allowances
        if not allowances.has_limits:
            return wanted
        held = self.held(gang, amounts_of_pod(shape), earmarks)
        return allowances.within_limit(self._queues.name_of(gang), shape, wanted, self.used(), held)

    def wait(self, gang: PodGang, request: GangRequest) -> None:
        """Note that a gang found no room: others of a strict queue wait behind it, and its queue wants more."""
        key, queue, name = key_of(gang), self._queues.name_of(gang), _name_of(gang)
        self._lines.leave(name)
        if self._queues.allowances.is_strict(queue):
            self._lines.wait(queue, InLine(rank(gang), name, request))
        if len(self._queues.tree.specs) > 1:
            self._waiting[key] = (queue, request)
            self._fair = None

    def wait_no_more(self, key: Key) -> bool:
        """Note that a gang has its places or is gone; return whether others waited behind it."""
        self._waiting.pop(key, None)
        return self._lines.leave(full_name(key.namespace, key.name))

    def waiting(self) -> list[tuple[Key, str, GangRequest]]:
        """Return which gangs found no room, their queues and what they asked for; only where there are several queues.

        With a single queue nobody counts them but a strict line.
        """
        found = {key: (key, queue, request) for key, (queue, request) in self._waiting.items()}
        for queue, place in self._lines:
            key = key_of_name(place.name, Kind.POD_GANG)
            found[key] = (key, queue, place.request)
        return list(found.values())

    # Inside.

    def _blocker(self, gang: PodGang, queue: str, request: GangRequest, *, is_surplus: bool) -> str:
        """Return the gang before this one that waits for nodes which it could use too; surplus comes after all."""
        if not self._queues.allowances.is_strict(queue):
            return ""
        before = None if is_surplus else rank(gang)
        blocker = self._lines.blocker(self._queues.tree, queue, _name_of(gang), before, request)
        return key_of_name(blocker, Kind.POD_GANG).name if blocker else ""

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


def _name_of(gang: PodGang) -> str:
    return full_name(gang.metadata.namespace, gang.metadata.name)
