"""Who has to leave so that a gang without room gets places: asks placement, and turns its plan into changes.

Rules: a gang takes from lower priorities of its own queue, then takes back from queues that use more than their due.
Asked only if somebody is there who could give way, once per state for gangs that ask for the same, and a bounded number
of times a round. A surplus pod goes within the availability budget of its clique, unless that would end a whole gang
instead: a budget is there to keep something serving. All who leave are told in one commit with the nomination of the
gang they leave for; those on their way out already are told nothing.

Not here: the plan (``placement.preemption``, ``placement.reclaim``), keeping the places (``nominations``).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from grove_server.control.indexes import PODS_BY_GANG
from grove_server.control.queue_book import QueueBook
from grove_server.control.seats import Seats, key_of_name
from grove_server.lifecycle.budget import max_unavailable_of, room
from grove_server.lifecycle.orders import NO_ORDERS, CopyOrders
from grove_server.lifecycle.removal import StopReason, stopped
from grove_server.placement.cluster import Cluster
from grove_server.placement.earmarks import Earmark, closed_slots
from grove_server.placement.preemption import Preemption, PreemptionPolicy, VictimKind, noted, plan_preemption
from grove_server.placement.reclaim import amounts_of, plan_reclaim
from grove_server.placement.requests import GangRequest
from grove_server.placement.results import Verdict
from grove_server.placement.wake_ups import signature_of
from grove_server.resources.meta import Key, Kind
from grove_server.resources.workload import Pod, PodClique, PodCliqueSet, PodGang
from grove_server.store.interface import Reader, Store

PLANS_MAX: Final = 16
"""Most plans of one round; who comes later is asked about in the next one."""

_BUDGET_ROUNDS_MAX: Final = 4
_ANSWERS_MAX: Final = 10_000

OrdersOf = Callable[[str, str], CopyOrders]
"""Returns what holds for the pods of a set, by namespace and name: routers to ask, how long to wait for them."""

Due = Callable[[], Mapping[str, Mapping[str, float]]]
"""Returns what is fair for each queue now, by queue and resource."""


def no_orders(_namespace: str, _set_name: str) -> CopyOrders:
    """Return the orders of a server without routers."""
    return NO_ORDERS


@dataclass(frozen=True, slots=True, kw_only=True)
class Eviction:
    """What happens for a gang: ``stops`` are its victims' pods on their way out, ``going`` all it waits for."""

    plan: Preemption
    why: StopReason
    stops: tuple[Pod, ...]
    going: tuple[Key, ...]


class Evictions:
    """Plans evictions on one cluster."""

    def __init__(
        self, store: Store, cluster: Cluster, seats: Seats, queues: QueueBook, *, due: Due, orders_of: OrdersOf
    ) -> None:
        self._store = store
        self._cluster = cluster
        self._seats = seats
        self._queues = queues
        self._due = due
        self._orders_of = orders_of
        self._left = PLANS_MAX
        self._answers: dict[Hashable, tuple[int, str]] = {}
        self.postponed: dict[Key, None] = {}
        self._stalled: dict[Key, None] = {}

    def forget_answers(self) -> None:
        """Ask again whoever had nobody to make room."""
        self._answers.clear()

    def take_stalled(self) -> dict[Key, None]:
        """Return the gangs whose plan waits for something on its way to the disk, once."""
        stalled, self._stalled = self._stalled, {}
        return stalled

    def begin_round(self) -> dict[Key, None]:
        """Allow so many plans again; return the gangs that the last round did not come to."""
        self._left = PLANS_MAX
        postponed, self.postponed = self.postponed, {}
        return postponed

    def plan(
        self, key: Key, gang: PodGang, request: GangRequest, verdict: Verdict, earmarks: Sequence[Earmark], now: float
    ) -> Eviction | Verdict:
        """Return who leaves for a gang that has no room as *verdict* says, or the verdict with why nobody does."""
        queue = self._queues.name_of(gang)
        if not self._may_find(gang, request, queue):
            return verdict
        shared = (signature_of(request), gang.priority, gang.preemption_policy, queue)
        answer = self._answers.get(shared)
        if answer is not None and answer[0] == self._cluster.generation:
            return noted(verdict, answer[1]) if answer[1] else verdict
        if self._left <= 0 or not self._is_ready():
            self.postponed[key] = None
            return verdict
        self._left -= 1
        found, why = self._ask(gang, request, queue)
        if isinstance(found, Preemption) and not self._is_open(found, earmarks, key, gang.priority):
            found = noted(verdict, "evictions would make room only where nodes are set aside for another gang")
        if isinstance(found, Preemption):
            eviction = self._carried_out(found, why, now)
            if eviction is None:
                # A place of theirs is on its way to the disk; they can be told once it is there.
                self._stalled[key] = None
                return verdict
            return eviction
        if len(self._answers) >= _ANSWERS_MAX:
            self._answers.clear()
        added = found.detail.removeprefix(verdict.detail).removeprefix("; ")
        self._answers[shared] = (self._cluster.generation, added)
        return found

    # Inside.

    def _may_find(self, gang: PodGang, request: GangRequest, queue: str) -> bool:
        """Return whether anybody is there who might have to give way; cheap, since most gangs have nobody."""
        seats = self._seats
        if not seats.is_on:
            return False
        if gang.preemption_policy != PreemptionPolicy.NEVER and (
            seats.has_lower(gang.priority) or not seats.is_current
        ):
            return True
        return len(self._queues.tree.specs) > 1 and self._may_reclaim(request, queue)

    def _may_reclaim(self, request: GangRequest, queue: str) -> bool:
        tree = self._queues.tree
        return queue in tree.numbers and tree.is_within_guarantee(queue, amounts_of(request), self._seats.used())

    def _is_ready(self) -> bool:
        """Return whether the occupancy is up to date, or can be at once."""
        seats = self._seats
        if not seats.is_current:
            seats.take_in()
        for _ in range(2):
            if not seats.is_current:
                seats.take_in()
        return seats.is_current

    def _ask(self, gang: PodGang, request: GangRequest, queue: str) -> tuple[Preemption | Verdict, StopReason]:
        tree = self._queues.tree
        several = len(tree.specs) > 1
        policy = PreemptionPolicy(gang.preemption_policy)

        def preempt() -> Preemption | Verdict:
            return plan_preemption(
                self._cluster,
                self._seats.occupancy,
                request,
                priority=gang.priority,
                policy=policy,
                queue=queue if several else None,
            )

        def reclaim() -> Preemption | Verdict:
            return plan_reclaim(self._cluster, self._seats.occupancy, request, queue=queue, tree=tree, due=self._due())

        found = self._within_budgets(preempt)
        if isinstance(found, Preemption) or not several:
            return found, StopReason.PREEMPTED
        taken_back = self._within_budgets(reclaim)
        if isinstance(taken_back, Preemption):
            return taken_back, StopReason.RECLAIMED
        return noted(found, _last(taken_back.detail)), StopReason.PREEMPTED

    def _within_budgets(self, ask: Callable[[], Preemption | Verdict]) -> Preemption | Verdict:
        """Return the plan that keeps within availability budgets, unless keeping to them would end more gangs."""
        free = found = ask()
        known: set[str] = set()
        for _ in range(_BUDGET_ROUNDS_MAX):
            if isinstance(found, Verdict):
                break
            asked = {v.gang for v in found.victims if v.kind is VictimKind.SURPLUS and not v.gang.startswith("~")}
            if asked <= known:
                break
            known |= asked
            if not self._set_budgets(sorted(asked)):
                break
            found = ask()
        if isinstance(free, Preemption) and (
            isinstance(found, Verdict) or found.cost.gangs_broken > free.cost.gangs_broken
        ):
            return free
        return found

    def _set_budgets(self, gangs: Sequence[str]) -> bool:
        """Tell the occupancy how many surplus pods each clique of some gangs can spare; return whether that is new."""
        occupancy, reader = self._seats.occupancy, self._store.read()
        is_new = False
        for name in gangs:
            facts = occupancy.gang(occupancy.gangs[name])
            gang = reader.get(PodGang, *key_of_name(name, Kind.POD_GANG)[1:])
            budgets = () if gang is None else _budgets(gang, reader)
            if budgets != facts.evictable_surplus:
                occupancy.set_gang(replace(facts, evictable_surplus=budgets))
                is_new = True
        return is_new

    def _is_open(self, plan: Preemption, earmarks: Sequence[Earmark], key: Key, priority: int) -> bool:
        """Return whether no place of a plan is set aside for another gang."""
        if not plan.victims and not earmarks:
            return True
        if not earmarks:
            return True
        closed = closed_slots(self._cluster, earmarks, f"{key.namespace}/{key.name}", priority)
        nodes = {node for clique in plan.placement.cliques for node, _ in clique.bindings}
        return not closed[self._cluster.slots_at(sorted(nodes))].any()

    def _carried_out(self, plan: Preemption, why: StopReason, now: float) -> Eviction | None:
        """Return the plan with its victims' pods on their way out; None if one of them cannot be told yet."""
        reader = self._store.read()
        stops: list[Pod] = []
        going: list[Key] = []
        for name in plan.pods:
            key = key_of_name(name, Kind.POD)
            pod = reader.get(Pod, key.namespace, key.name)
            if pod is None or not pod.node:
                return None
            going.append(key)
            if not self._seats.is_leaving(pod, key):
                stops.append(stopped(pod, why, self._orders_of(key.namespace, pod.identity.set_name), now))
        return Eviction(plan=plan, why=why, stops=tuple(stops), going=tuple(going))


def _last(detail: str) -> str:
    return detail.rpartition("; ")[2]


def _budgets(gang: PodGang, reader: Reader) -> tuple[tuple[str, int], ...]:
    """Return by standalone clique of a gang how many of its pods may be taken now."""
    owner = reader.get(PodCliqueSet, gang.metadata.namespace, gang.set_name)
    if owner is None:
        return ()
    templates = {clique.name: clique for clique in owner.spec.template.cliques}
    pods: dict[str, list[Pod]] = {}
    for pod in reader.indexed(PODS_BY_GANG, (gang.metadata.namespace, gang.metadata.name)):
        if pod.is_active:
            pods.setdefault(pod.identity.name, []).append(pod)
    budgets = []
    for group in gang.pod_groups:
        clique = reader.get(PodClique, gang.metadata.namespace, group.name)
        if clique is None or clique.identity.group:
            continue
        template = templates.get(clique.identity.clique)
        missing = max_unavailable_of(template.rolling_update if template else None, owner.spec, clique.replicas)
        mine = pods.get(group.name, [])
        ready = sum(pod.is_ready for pod in mine)
        spare = room(desired=clique.replicas, available=ready, max_unavailable=missing)
        budgets.append((group.name, spare + len(mine) - ready))
    return tuple(budgets)
