"""Who has to leave so that a gang without room gets places: asks placement, and turns its plan into changes.

Rules: asked only if somebody is there who could give way, once per state for gangs that ask for the same, and a bounded
number of times a round. All who leave are told in one commit with the nomination of the gang they leave for; those on
their way out already are told nothing.

Not here: the plan (``placement.making_room``), keeping the places (``nominations``).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from grove_server.control.indexes import PODS_BY_GANG
from grove_server.control.patience import Patience
from grove_server.control.precedence import Precedence
from grove_server.control.queue_book import QueueBook
from grove_server.control.seats import Seats, key_of_name
from grove_server.lifecycle.orders import NO_ORDERS, CopyOrders
from grove_server.lifecycle.removal import StopReason, stopped
from grove_server.placement.cluster import Cluster
from grove_server.placement.earmarks import Earmark
from grove_server.placement.gang_facts import NO_BOUNDS, Spare, surplus_budgets
from grove_server.placement.lines import rank
from grove_server.placement.making_room import (
    ASKED_AGAIN_MAX,
    PLANS_MAX,
    QueueBounds,
    is_open,
    nobody_leaves,
    room_steps,
)
from grove_server.placement.preemption import Preemption, PreemptionPolicy, VictimKind, noted
from grove_server.placement.reclaim import amounts_of
from grove_server.placement.relief import Relief
from grove_server.placement.requests import GangRequest
from grove_server.placement.results import Verdict
from grove_server.placement.steps import Steps
from grove_server.placement.wake_ups import signature_of
from grove_server.resources.meta import Key, Kind, key_of
from grove_server.resources.workload import Pod, PodClique, PodCliqueSet, PodGang
from grove_server.store.interface import Store

_ANSWERS_MAX: Final = 10_000

OrdersOf = Callable[[str, str], CopyOrders]
"""Returns what holds for the pods of a set, by namespace and name: routers to ask, how long to wait for them."""


def no_orders(_namespace: str, _set_name: str) -> CopyOrders:
    """Return the orders of a server without routers."""
    return NO_ORDERS


@dataclass(frozen=True, slots=True, kw_only=True)
class Eviction:
    """What happens for a gang: ``stops`` are its victims' pods on their way out, ``going`` all it waits for.

    ``queue`` is the one that takes back, "" if none does.
    """

    plan: Preemption
    why: StopReason
    stops: tuple[Pod, ...]
    going: tuple[Key, ...]
    queue: str = ""

    def told(self, key: Key) -> str:
        """Return for victims for whom they leave, and by what right."""
        taker = f", by which queue {self.queue} takes back what it is guaranteed" if self.queue else ""
        return f"gang {key.namespace}/{key.name}{taker}"

    @property
    def whole_gangs(self) -> tuple[Key, ...]:
        """The gangs of which everything goes; nothing is placed for them until they are told."""
        gangs = (victim.gang for victim in self.plan.victims if victim.kind is VictimKind.GANG)
        return tuple(key_of_name(gang, Kind.POD_GANG) for gang in gangs)


class Evictions:
    """Plans evictions on one cluster."""

    def __init__(
        self,
        store: Store,
        cluster: Cluster,
        seats: Seats,
        queues: QueueBook,
        *,
        precedence: Precedence,
        orders_of: OrdersOf,
        patience: Patience,
    ) -> None:
        self._patience = patience
        self._store = store
        self._cluster = cluster
        self._seats = seats
        self._queues = queues
        self._precedence = precedence
        self._orders_of = orders_of
        self._left = PLANS_MAX
        self._answers: dict[Hashable, tuple[tuple[int, int], str]] = {}
        self._askers: dict[Hashable, dict[Key, tuple[object, ...]]] = {}
        self._asked: dict[Key, Hashable] = {}
        self._asked_at = (0, 0)
        self.postponed: dict[Key, None] = {}
        self._stalled: dict[Key, None] = {}
        self._reliefs: dict[Key, Relief] = {}

    def relieve(self, key: Key, relief: Relief) -> None:
        """Have a gang take a plan of consolidation when it is decided next; one that does not hold then is dropped."""
        self._reliefs[key] = relief

    def forget_answers(self) -> None:
        """Ask again whoever had nobody to make room."""
        self._answers.clear()

    def take_stalled(self) -> dict[Key, None]:
        """Return the gangs whose plan waits for something on its way to the disk, once."""
        stalled, self._stalled = self._stalled, {}
        return stalled

    @property
    def state(self) -> tuple[int, int]:
        """Changes whenever a plan may come out otherwise."""
        return self._cluster.generation, self._seats.version

    @property
    def may_answer_otherwise(self) -> bool:
        """Whether something changed since those were asked again for whom nobody could make room."""
        return bool(self._askers) and self._asked_at != self.state

    def take_askers(self) -> list[Key]:
        """Return some of the gangs for which nobody could make room: the first of those that ask for the same."""
        self._asked_at = self.state
        found = []
        for shared in list(self._askers)[:ASKED_AGAIN_MAX]:
            members = self._askers[shared] = self._askers.pop(shared)
            found.append(min((order, key) for key, order in members.items())[1])
        return found

    def forget(self, key: Key) -> None:
        """Drop a gang that has its places or is gone."""
        self._patience.drop(key)
        shared = self._asked.pop(key, None)
        if shared is not None:
            members = self._askers[shared]
            del members[key]
            if not members:
                del self._askers[shared]

    def _refused(self, key: Key, gang: PodGang, shared: Hashable) -> None:
        """Note that a gang is to be asked again when a plan may come out otherwise."""
        self.forget(key)
        self._asked[key] = shared
        self._askers.setdefault(shared, {})[key] = rank(gang)

    def begin_round(self) -> dict[Key, None]:
        """Allow so many plans again; return the gangs that the last round did not come to."""
        self._left = PLANS_MAX
        postponed, self.postponed = self.postponed, {}
        return postponed

    def plan(
        self, key: Key, gang: PodGang, request: GangRequest, verdict: Verdict, earmarks: Sequence[Earmark], now: float
    ) -> Steps[Eviction | Verdict]:
        """Return who leaves for a gang that has no room as *verdict* says, or the verdict with why nobody does.

        Nothing that it reads may change while it rests.
        """
        relieved = self._relieved(key, gang, request, earmarks, now) if self._reliefs else None
        if relieved is not None:
            return relieved
        queue = self._queues.name_of(gang)
        if not self._may_find(gang, request, queue):
            return nobody_leaves(verdict, gang, queue, self._queues.tree) if self._seats.is_on else verdict
        if self._patience.left_s(gang, now):
            return noted(verdict, "others leave for it only after the preemption delay of its queue")
        shared = (signature_of(request), gang.priority, gang.preemption_policy, queue)
        answer = self._answers.get(shared)
        if answer is not None and answer[0] == self.state:
            self._refused(key, gang, shared)
            return noted(verdict, answer[1]) if answer[1] else verdict
        if self._left <= 0 or not self._is_ready():
            self.postponed[key] = None
            return verdict
        self._left -= 1
        found, is_taken_back = yield from room_steps(
            self._cluster,
            self._seats.occupancy,
            request,
            gang=gang,
            queue=queue,
            bounds=QueueBounds(
                self._queues.tree,
                self._precedence.used,
                self._precedence.fair,
                self._precedence.held(gang, amounts_of(request), earmarks),
            ),
            budgets_of=self._budgets_of,
        )
        name = f"{key.namespace}/{key.name}"
        if isinstance(found, Preemption) and not is_open(self._cluster, found, earmarks, name, gang.priority):
            found = noted(verdict, "evictions would make room only where nodes are set aside for another gang")
        if isinstance(found, Preemption):
            eviction = self._carried_out(found, StopReason.RECLAIMED if is_taken_back else StopReason.PREEMPTED, now)
            if eviction is None:
                # A place of theirs is on its way to the disk; they can be told once it is there.
                self._stalled[key] = None
                return verdict
            return replace(eviction, queue=queue) if is_taken_back else eviction
        if len(self._answers) >= _ANSWERS_MAX:
            self._answers.clear()
        added = found.detail.removeprefix(verdict.detail).removeprefix("; ")
        self._answers[shared] = (self.state, added)
        self._refused(key, gang, shared)
        return found

    # Inside.

    def _relieved(
        self, key: Key, gang: PodGang, request: GangRequest, earmarks: Sequence[Earmark], now: float
    ) -> Eviction | None:
        relief = self._reliefs.pop(key, None)
        if relief is None or relief.request != request or not self._holds(relief):
            return None
        if not is_open(self._cluster, relief.plan, earmarks, f"{key.namespace}/{key.name}", gang.priority):
            return None
        return self._carried_out(relief.plan, StopReason.CONSOLIDATED, now)

    def _holds(self, relief: Relief) -> bool:
        return relief.still_holds(self._cluster, self._seats.occupancy.counting)

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
        return queue in tree.numbers and tree.is_within_guarantee(queue, amounts_of(request), self._precedence.used())

    def _is_ready(self) -> bool:
        """Return whether the occupancy is up to date, or can be at once."""
        seats = self._seats
        if not seats.is_current:
            seats.take_in()
        for _ in range(2):
            if not seats.is_current:
                seats.take_in()
        return seats.is_current

    def _budgets_of(self, name: str) -> Spare:
        """Return what a gang can spare without the pods that a commit on its way tells to leave."""
        reader = self._store.read()
        namespace, own = key_of_name(name, Kind.POD_GANG)[1:]
        gang = reader.get(PodGang, namespace, own)
        if gang is None:
            return NO_BOUNDS
        return surplus_budgets(
            gang,
            reader.get(PodCliqueSet, namespace, gang.set_name),
            lambda clique: reader.get(PodClique, namespace, clique),
            (pod for pod in reader.indexed(PODS_BY_GANG, (namespace, own)) if key_of(pod) not in self._seats.leaving),
        )

    def _carried_out(self, plan: Preemption, why: StopReason, now: float) -> Eviction | None:
        """Return the plan with its victims' pods on their way out; None if one of them cannot be told yet."""
        reader = self._store.read()
        going = {key_of_name(name, Kind.POD): None for name in plan.pods}
        for victim in plan.victims:
            if victim.kind is VictimKind.GANG:
                # Also those that no account knows, as on a node that is gone: a gang leaves as a whole.
                pods = reader.indexed(PODS_BY_GANG, tuple(key_of_name(victim.gang, Kind.POD_GANG)[1:]))
                going |= dict.fromkeys(sorted(key_of(pod) for pod in pods if pod.node and pod.is_active))
        stops: list[Pod] = []
        for key in going:
            pod = reader.get(Pod, key.namespace, key.name)
            if pod is None or not pod.node or (pod.is_active and key in self._seats.leaving):
                # Its place, or what another gang asks of it, is not on the disk yet.
                return None
            if pod.is_active:
                stops.append(stopped(pod, why, self._orders_of(key.namespace, pod.identity.set_name), now))
        return Eviction(plan=plan, why=why, stops=tuple(stops), going=tuple(going))
