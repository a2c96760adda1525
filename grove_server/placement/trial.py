"""What would happen to gangs that are not there yet: planned, then placed one after the other on a copy of the cluster.

Rules: the same passes make the gangs as in the workload loop, the same scenes, questions, queues and `place` answer
them, so a trial cannot promise what the server would not do. Minimums come first, surplus pods after all of them. The
copy of the cluster (and of who sits where) belongs to the trial and is changed by it; nothing else is. A gang that does
not fit and may preempt or take back says who would have to go; its victims are gone for the gangs after it.

Not here: where sets and nodes come from (`moment`), limits and lines (`admittance`), the exact solver.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

from grove_server.placement.admittance import Admittance, Queueing
from grove_server.placement.allowances import amounts_of_pod, surplus_of, without_surplus
from grove_server.placement.cluster import ClusterError
from grove_server.placement.earmarks import Earmark, place_around
from grove_server.placement.gang_facts import facts_of
from grove_server.placement.gangs import (
    Ask,
    GangScene,
    ask_minimum,
    ask_surplus,
    is_complete,
    is_placed,
    split_pods,
)
from grove_server.placement.making_room import BudgetsOf, QueueBounds, is_open, plan_room
from grove_server.placement.occupancy import Occupancy, Seat
from grove_server.placement.old_places import taken
from grove_server.placement.place import DEFAULT_BUDGET
from grove_server.placement.planned import Held, PlannedGang, seat_of
from grove_server.placement.preemption import Preemption, PreemptionPolicy, noted
from grove_server.placement.reclaim import amounts_of
from grove_server.placement.requests import Budget, GangRequest, minimum_of
from grove_server.placement.results import Placement, Verdict
from grove_server.placement.stage import Stage
from grove_server.placement.turns import placement_order
from grove_server.placement.waiting import QUEUE_LIMIT, TOPOLOGY_UNAVAILABLE, WAITING_FOR_BASE, WAITING_FOR_PODS
from grove_server.placement.wake_ups import renamed, signature_of
from grove_server.resources.workload import Pod, PodCliqueSet, PodGang

EVICTIONS_MAX: Final = 32
"""Gangs of one trial for which evictions are planned; the others only hear that they do not fit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialPart:
    """One question of a gang and the answer."""

    request: GangRequest
    outcome: Placement | Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialAnswer:
    """What would happen to one gang.

    `parts`: the minimum, or what of it was lost; for a gang whose minimum stands, its surplus. A reason says why the
    gang, or the part of it in `refused`, was not asked for at all. `eviction` is who would have to go so that the first
    part that does not fit gets places, None if nobody could. `surplus_count`: pods beyond the minimum that wait,
    `surplus_placed`: those of them that get places after all minimums.
    """

    planned: PlannedGang
    parts: tuple[TrialPart, ...] = ()
    waiting_reason: str = ""
    waiting_message: str = ""
    refused: GangRequest | None = None
    eviction: Preemption | None = None
    surplus_count: int = 0
    surplus_placed: int = 0

    @property
    def telling(self) -> TrialPart | None:
        """Return the part to explain: the first that does not fit, else the first."""
        return next((part for part in self.parts if isinstance(part.outcome, Verdict)), next(iter(self.parts), None))

    @property
    def fits(self) -> bool:
        """Return whether all that was asked for has its places, without evictions; surplus of new gangs apart."""
        return not self.waiting_reason and all(isinstance(part.outcome, Placement) for part in self.parts)


def no_budgets(_gang: str) -> tuple[tuple[str, int], ...]:
    """Return that a gang's surplus may go without bounds, where nothing is known of its set."""
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What bounds a trial beside nodes and pods. `owner_of`: a gang's set, `budgets_of`: what its surplus spares."""

    owner_of: Callable[[PodGang], PodCliqueSet | None]
    queueing: Queueing = field(default_factory=Queueing)
    earmarks: Sequence[Earmark] = ()
    budgets_of: BudgetsOf = no_budgets


class Trial:
    """One what-if, gang after gang on the same copy.

    With an `occupancy` (in step with the cluster, the trial's own) gangs preempt and take back.
    """

    def __init__(
        self, stage: Stage, occupancy: Occupancy | None, around: Surroundings, *, budget: Budget = DEFAULT_BUDGET
    ) -> None:
        self.stage = stage
        self.occupancy = occupancy
        self.budget = budget
        self.queues = Admittance(stage.cluster, occupancy, around.queueing)
        self._around = around
        self._pods: dict[str, dict[str, Pod]] = {}
        self._bound: dict[tuple[str, int], list[Pod]] = {}
        self._placed: set[tuple[str, str]] = set()
        self._evictions = 0
        self._known: dict[Hashable, tuple[GangRequest, Verdict]] = {}

    # -- questions ---------------------------------------------------------------------------------------------------

    def in_order(self, planned: Sequence[PlannedGang]) -> list[PlannedGang]:
        """Return gangs in the order in which the loop would take them."""
        by_name = {each.name: each for each in planned}
        names = self.queues.in_order(
            (each.name, each.gang, placement_order(each.gang), partial(self._needed, each)) for each in planned
        )
        return [by_name[name] for name in names]

    def ask(self, planned: PlannedGang) -> TrialAnswer:
        """Place one gang's minimum, or what of it has no node, if that can be; say what happened.

        A gang whose minimum stands is asked about with `ask_surplus`.
        """
        gang = planned.gang
        self._pods[planned.name] = {pod.metadata.name: pod for pod in planned.pods}
        self._bound.setdefault((gang.set_uid, gang.copy), list(planned.copy_bound))
        scene = self._scene(planned)
        if is_placed(gang, scene.pods) and any(scene.pods.bound.values()):
            self._placed.add((gang.set_uid, gang.metadata.name))
            return TrialAnswer(planned=planned)
        reason, message = self._obstacle(planned, scene)
        if reason:
            return TrialAnswer(planned=planned, waiting_reason=reason, waiting_message=message)
        with contextlib.suppress(ClusterError):
            # What is kept for it, if anything is, is its own.
            self.stage.cluster.withdraw(planned.name)
        return self._ask_parts(planned)

    def ask_surplus(self, answer: TrialAnswer) -> TrialAnswer:
        """Place what a gang has beyond its minimum, after the minimums of all; return the answer with it."""
        planned = answer.planned
        if not answer.fits or (planned.gang.set_uid, planned.gang.metadata.name) not in self._placed:
            return answer
        count = sum(map(len, self._scene(planned).pods.unbound.values()))
        if not count:
            return answer
        parts = []
        if not planned.gang.topology_error:
            for ask in ask_surplus(self._scene(planned)):
                parts += self._ask_more(planned, ask)
        left = sum(map(len, self._scene(planned).pods.unbound.values()))
        found = replace(answer, surplus_count=count, surplus_placed=count - left)
        if answer.parts:
            return found
        if not parts and left:
            return replace(found, waiting_reason=QUEUE_LIMIT, waiting_message="its queue's limit leaves no room for it")
        return replace(found, parts=tuple(parts))

    # -- inside ------------------------------------------------------------------------------------------------------

    def _obstacle(self, planned: PlannedGang, scene: GangScene) -> tuple[str, str]:
        """Return what keeps a gang from being asked for at all: reason and sentence, empty if nothing does."""
        gang = planned.gang
        if gang.topology_error:
            return TOPOLOGY_UNAVAILABLE, gang.topology_error
        if not is_complete(gang, scene.pods):
            return WAITING_FOR_PODS, "not all pods of its minimum exist yet"
        # A gang that runs in part has had its base.
        is_new = (gang.set_uid, gang.base_gang) not in self._placed and not any(scene.pods.bound.values())
        if gang.base_gang and is_new:
            return WAITING_FOR_BASE, f"its base gang {gang.base_gang} would not be placed"
        return self.queues.obstacle(gang) or ("", "")

    def _ask_parts(self, planned: PlannedGang) -> TrialAnswer:
        """Ask part by part; a part without room holds nothing back from the others, as in the loop."""
        gang = planned.gang
        answer = TrialAnswer(planned=planned)
        parts: list[TrialPart] = []
        tried: set[tuple[str, ...]] = set()
        while True:
            ask = next((each for each in ask_minimum(self._scene(planned)) if tuple(each.pods) not in tried), None)
            if ask is None or not minimum_of(ask.request):
                break
            tried.add(tuple(ask.pods))
            refusal = self.queues.refusal(gang, ask.request, is_whole=ask.is_whole)
            if refusal is not None:
                if not answer.waiting_reason:
                    answer = replace(answer, waiting_reason=refusal[0], waiting_message=refusal[1], refused=ask.request)
                continue
            earmarks = self._around.earmarks if ask.is_whole else ()
            outcome = self._place(planned, ask, earmarks)
            if isinstance(outcome, Verdict):
                self.queues.wait(gang, planned.name, ask.request)
                found = self._evict(planned, ask, outcome, earmarks)
                outcome = outcome if isinstance(found, Preemption) else found
                if isinstance(found, Preemption) and answer.eviction is None:
                    answer = replace(answer, eviction=found)
            else:
                self._take(planned, ask, outcome)
            parts.append(TrialPart(request=ask.request, outcome=outcome))
        answer = replace(answer, parts=tuple(parts))
        if is_placed(gang, self._scene(planned).pods):
            self._placed.add((gang.set_uid, gang.metadata.name))
        return answer

    def _ask_more(self, planned: PlannedGang, ask: Ask) -> list[TrialPart]:
        """Ask for surplus pods of one clique, as many as limits allow; nothing is returned if they allow none."""
        shape, wanted = surplus_of(ask.request.members)
        within = self.queues.within_limit(planned.gang, shape, wanted)
        request = ask.request if within == wanted else without_surplus(ask.request, within)
        if not within or self.queues.refusal(planned.gang, request, is_whole=False, is_surplus=True) is not None:
            return []
        ask = replace(ask, request=request)
        outcome = self._place(planned, ask, self._around.earmarks)
        if isinstance(outcome, Placement):
            self._take(planned, ask, outcome)
        return [TrialPart(request=request, outcome=outcome)]

    def _place(self, planned: PlannedGang, ask: Ask, earmarks: Sequence[Earmark]) -> Placement | Verdict:
        key = (signature_of(ask.request), self.stage.cluster.generation)
        known = None if earmarks else self._known.get(key)
        if known is not None:
            return renamed(known[1], known[0], ask.request)
        outcome = place_around(
            self.stage.cluster,
            ask.request,
            earmarks,
            priority=planned.gang.priority,
            gang=planned.name,
            budget=self.budget,
        )
        if isinstance(outcome, Verdict) and not earmarks:
            # Of many equal gangs that do not fit one is decided, as in the loop; only the latest state is of use.
            self._known = {key: (ask.request, outcome)}
        return outcome

    def _scene(self, planned: PlannedGang) -> GangScene:
        gang = planned.gang
        pods = split_pods(list(self._pods[planned.name].values()))
        bound = self._bound.get((gang.set_uid, gang.copy), [])
        return self.stage.scene(gang, pods, self._around.owner_of(gang), lambda: bound)

    def _needed(self, planned: PlannedGang) -> Mapping[str, int]:
        """Return what the minimum of a gang without places needs."""
        total: Counter[str] = Counter()
        if planned.gang.status.scheduled_at is not None:
            return total
        pods = {pod.identity.name: pod for pod in planned.pods}
        for group in planned.gang.pod_groups:
            if group.name in pods:
                shape = self.stage.shape_of(pods[group.name].template)
                for resource, amount in amounts_of_pod(shape).items():
                    total[resource] += amount * group.min_replicas
        return total

    def _take(self, planned: PlannedGang, ask: Ask, placement: Placement) -> None:
        """Take the places of one part: as many of each clique as are meant to be taken now."""
        gang = planned.gang
        part = taken(self.stage.cluster, ask, placement)
        self.stage.cluster.reserve(part)
        facts = facts_of(gang, self.queues.queue_of(gang))
        seats = []
        bound = (
            (pod, binding, clique.shape)
            for clique in part.cliques
            for pod, binding in zip(ask.pods[clique.name], clique.bindings, strict=False)
        )
        for pod, binding, shape in bound:
            placed = replace(pod, node=binding.node, gpu_ids=binding.gpu_ids)
            self._pods[planned.name][pod.metadata.name] = placed
            self._bound[gang.set_uid, gang.copy].append(placed)
            self.stage.peers.note(placed)
            self.queues.take(facts.queue, shape, 1)
            seats.append(seat_of(placed, facts.name, Held(binding.node, shape, binding.gpu_ids)))
        if self.occupancy is not None and seats:
            self.occupancy.set_gang(facts)
            self.occupancy.add_pods(seats)

    def _evict(
        self, planned: PlannedGang, ask: Ask, verdict: Verdict, earmarks: Sequence[Earmark]
    ) -> Preemption | Verdict:
        """Plan who would have to go for a part that does not fit, and let them go; the verdict with why if nobody."""
        occupancy, gang, queues = self.occupancy, planned.gang, self.queues
        if occupancy is None or not self._may_evict(occupancy, gang, ask.request):
            return verdict
        if self._evictions >= EVICTIONS_MAX:
            return noted(verdict, f"who would have to go was asked for {EVICTIONS_MAX} gangs, and no further")
        self._evictions += 1
        found, _ = plan_room(
            self.stage.cluster,
            occupancy,
            ask.request,
            gang=gang,
            queue=queues.queue_of(gang),
            bounds=QueueBounds(queues.allowances.tree, queues.used, queues.fair),
            budgets_of=self._around.budgets_of,
        )
        if isinstance(found, Verdict):
            return found
        if not is_open(self.stage.cluster, found, earmarks, planned.name, gang.priority):
            return noted(verdict, "evictions would make room only where nodes are set aside for another gang")
        for pod in found.pods:
            self._let_go(occupancy, occupancy.seat(occupancy.pods[pod]))
        occupancy.remove_pods(found.pods)
        self._take(planned, ask, found.placement)
        return found

    def _may_evict(self, occupancy: Occupancy, gang: PodGang, request: GangRequest) -> bool:
        """Return whether anybody is there who might have to give way; cheap, since most gangs have nobody."""
        if gang.preemption_policy != PreemptionPolicy.NEVER and bool(
            (occupancy.is_present & occupancy.is_preemptible & (occupancy.priority < gang.priority)).any()
        ):
            return True
        queue, tree = self.queues.queue_of(gang), self.queues.allowances.tree
        return (
            self.queues.allowances.has_several
            and queue in tree.numbers
            and tree.is_within_guarantee(queue, amounts_of(request), self.queues.used())
        )

    def _let_go(self, occupancy: Occupancy, seat: Seat) -> None:
        self.stage.cluster.release_pod(seat.node, seat.shape, seat.gpu_ids)
        namespace, _, name = seat.pod.partition("/")
        self.stage.peers.release(namespace, name)
        self.queues.take(occupancy.gang(occupancy.gangs[seat.gang]).queue, seat.shape, -1)
