"""What would happen to gangs that are not there yet: one decision at a time on a copy of the cluster.

Rules: the same passes make the gangs as in the workload loop, the same scenes, questions, queues and `place` answer
them, so a trial cannot promise what the server would not do. The copy of the cluster (and of who sits where) belongs to
the trial and is changed by it; nothing else is. A gang that does not fit and may preempt or take back is promised its
places; its victims hold theirs until the caller lets them leave, as on the server, and ask for new ones then.

Not here: when which gang is decided (`rounds`), where sets and nodes come from (`moment`), limits and lines
(`admittance`), the exact solver.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from grove_server.placement.admittance import Admittance
from grove_server.placement.allowances import amounts_of_pod, surplus_of, without_surplus
from grove_server.placement.cluster import ClusterError
from grove_server.placement.earmarks import Earmark, place_around
from grove_server.placement.gang_facts import facts_of, full_name
from grove_server.placement.gangs import (
    Ask,
    GangScene,
    ask_minimum,
    ask_surplus,
    is_complete,
    is_placed,
    split_pods,
)
from grove_server.placement.lines import rank
from grove_server.placement.occupancy import Occupancy
from grove_server.placement.old_places import taken
from grove_server.placement.place import DEFAULT_BUDGET
from grove_server.placement.planned import Held, PlannedGang, seat_of
from grove_server.placement.preemption import Preemption
from grove_server.placement.requests import Budget, minimum_of
from grove_server.placement.results import Placement, Verdict
from grove_server.placement.stage import Stage
from grove_server.placement.trial_answer import Surroundings, TrialAnswer, TrialPart
from grove_server.placement.trial_room import TrialRoom
from grove_server.placement.turns import placement_order
from grove_server.placement.waiting import (
    QUEUE_LIMIT,
    TOPOLOGY_UNAVAILABLE,
    WAITING_FOR_BASE,
    WAITING_FOR_PODS,
)
from grove_server.placement.wake_ups import WakeUps
from grove_server.placement.work import Work
from grove_server.resources.workload import Pod, PodGang

SUCCESSOR: Final = "~"
"""What the names of pods end in that would be made in the place of others; no pod is called so."""

_ASK_US: Final = 250
_NODES_PER_US: Final = 25
_POD_US: Final = 6
"""What a decision is charged: at least so much, one microsecond for so many nodes, so much for each pod."""


class Trial:
    """Decisions about gangs, one after the other on the same copy.

    With an `occupancy` (in step with the cluster, the trial's own) gangs preempt and take back.
    """

    def __init__(
        self,
        stage: Stage,
        occupancy: Occupancy | None,
        around: Surroundings,
        *,
        work: Work | None = None,
        budget: Budget = DEFAULT_BUDGET,
    ) -> None:
        self.stage = stage
        self.occupancy = occupancy
        self.budget = budget
        self.work = work
        self.around = around
        self.queues = Admittance(stage.cluster, occupancy, around.queueing)
        self.room = TrialRoom(stage, occupancy, self.queues, around.budgets_of, work)
        self.earmarks = list(around.earmarks)
        self.placed_now: set[str] = set()
        self.has_unblocked = self.has_opened = False
        self._pods: dict[str, dict[str, Pod]] = {}
        self._bound: dict[tuple[str, int], dict[str, Pod]] = {}
        self._placed: set[str] = set()
        self.wake_ups: WakeUps[str] = WakeUps(stage.cluster)

    # -- rounds ------------------------------------------------------------------------------------------------------

    def enter(self, planned: PlannedGang) -> None:
        """Take a gang's pods as they are."""
        self.room.priorities.add(planned.gang.priority)
        self._pods[planned.name] = {pod.metadata.name: pod for pod in planned.pods}
        copy = self._bound.setdefault((planned.gang.set_uid, planned.gang.copy), {})
        for pod in planned.copy_bound:
            if not self.room.leaving.has(_name_of(pod)):
                copy.setdefault(_name_of(pod), pod)

    def in_order(self, planned: Iterable[PlannedGang]) -> list[PlannedGang]:
        """Return gangs in the order in which the loop would take them."""
        by_name = {each.name: each for each in planned}
        names = self.queues.in_order(
            (each.name, each.gang, placement_order(each.gang), partial(self._needed, each)) for each in by_name.values()
        )
        return [by_name[name] for name in names]

    def begin_round(self) -> None:
        """Allow so many plans again, and forget what was fair."""
        self.room.begin_round()
        self.placed_now = set()
        self.has_unblocked = self.has_opened = False
        self.queues.begin_round()

    def tell(self) -> list[str]:
        """Tell those who have to leave, as the commits of a round do; return their gangs, which ask for new places."""
        self._start_fresh()
        gangs: dict[str, None] = {}
        for gang, pod in self.room.leaving.tell():
            gangs[gang] = None
            if gang not in self._pods:
                known = self.around.gang_of(gang)
                if known is None:
                    continue
                self.enter(known)
            name = pod.rpartition("/")[2]
            before = self._pods[gang].pop(name, None)
            if before is not None:
                after = _successor(before)
                self._pods[gang][after.metadata.name] = after
                self._bound[before.identity.set_uid, before.identity.copy].pop(pod, None)
        for gang in gangs:
            if gang in self._pods and not any(pod.node for pod in self._pods[gang].values()):
                self._placed.discard(gang)
        return list(gangs)

    def file(self, answer: TrialAnswer) -> None:
        """Note what a gang lacks, so that it is asked again when that may be there."""
        planned = answer.planned
        failed = [(part.request, part.outcome) for part in answer.parts if isinstance(part.outcome, Verdict)]
        if not self.lacks(planned.name):
            self.wake_ups.drop(planned.name)
        else:
            self.wake_ups.file(planned.name, failed, order=rank(planned.gang), lane=self.lane(planned))

    def enter_waiting(self) -> list[str]:
        """Take in the gangs that wait on the server; return those of which nothing says what they lack."""
        others = []
        for planned in self.around.waiting():
            if planned.name in self._pods:
                continue
            self.enter(planned)
            failed = self.around.refused.get(planned.name, ())
            self.wake_ups.file(planned.name, failed, order=rank(planned.gang), lane=self.lane(planned))
            if not failed:
                others.append(planned.name)
        return others

    def lacks(self, name: str) -> bool:
        """Return whether a gang has pods without nodes."""
        return any(not pod.node and pod.is_active for pod in self._pods[name].values())

    # -- one gang ----------------------------------------------------------------------------------------------------

    def decide_minimum(self, planned: PlannedGang, before: TrialAnswer | None = None) -> TrialAnswer:
        """Place one gang's minimum, or what of it has no node, if that can be; say what happened.

        *before* is what was last said of it. A gang whose minimum stands is asked about with `decide_surplus`.
        """
        if planned.name not in self._pods:
            self.enter(planned)
        gang = planned.gang
        answer = TrialAnswer(planned=planned, surplus_placed=0 if before is None else before.surplus_placed)
        scene = self._scene(planned)
        if is_placed(gang, scene.pods) and any(scene.pods.bound.values()):
            self._placed.add(planned.name)
            return answer if before is None else before
        reason, message = self._obstacle(planned, scene)
        if reason:
            return replace(answer, waiting_reason=reason, waiting_message=message)
        if planned.name not in self.room.kept:
            with contextlib.suppress(ClusterError):
                # What is kept for it, if anything is, is its own.
                self.stage.cluster.withdraw(planned.name)
        return self._ask_parts(planned, answer)

    def decide_surplus(self, answer: TrialAnswer) -> TrialAnswer:
        """Place what a gang has beyond its minimum, after the minimums of all; return the answer with it."""
        planned = answer.planned
        if planned.name not in self._placed:
            return answer
        count = sum(map(len, self._scene(planned).pods.unbound.values()))
        parts = []
        if count and not planned.gang.topology_error:
            for ask in ask_surplus(self._scene(planned)):
                parts += self._ask_more(planned, ask)
        left = sum(map(len, self._scene(planned).pods.unbound.values()))
        if not left:
            self._wait_no_more(planned.name)
        if not count and not answer.surplus_placed:
            return answer
        placed = answer.surplus_placed + count - left
        found = replace(answer, surplus_count=placed + left, surplus_placed=placed)
        if any(minimum_of(part.request) for part in answer.parts):
            return found
        if not parts and left:
            return replace(found, waiting_reason=QUEUE_LIMIT, waiting_message="its queue's limit leaves no room for it")
        return replace(found, parts=tuple(parts) or answer.parts, waiting_reason="", waiting_message="")

    # -- inside ------------------------------------------------------------------------------------------------------

    def _obstacle(self, planned: PlannedGang, scene: GangScene) -> tuple[str, str]:
        """Return what keeps a gang from being asked for at all: reason and sentence, empty if nothing does."""
        gang = planned.gang
        if gang.topology_error:
            return TOPOLOGY_UNAVAILABLE, gang.topology_error
        if not is_complete(gang, scene.pods):
            return WAITING_FOR_PODS, "not all pods of its minimum exist yet"
        if gang.base_gang and not any(scene.pods.bound.values()) and not self._has_base(gang):
            # A gang that runs in part has had its base.
            return WAITING_FOR_BASE, f"its base gang {gang.base_gang} would not be placed"
        return self.queues.obstacle(gang) or ("", "")

    def _has_base(self, gang: PodGang) -> bool:
        """Return whether the base of a scaled gang has its places."""
        name = full_name(gang.metadata.namespace, gang.base_gang)
        if name in self._pods:
            return name in self._placed
        base = self.around.gang_of(name)
        return base is not None and is_placed(base.gang, split_pods(list(base.pods)))

    def _ask_parts(self, planned: PlannedGang, answer: TrialAnswer) -> TrialAnswer:
        """Ask part by part; a part without room holds nothing back from the others, as in the loop."""
        gang = planned.gang
        parts: list[TrialPart] = []
        tried: set[tuple[str, ...]] = set()
        while True:
            ask = next((each for each in ask_minimum(self._scene(planned)) if tuple(each.pods) not in tried), None)
            if ask is None or not minimum_of(ask.request):
                break
            tried.add(tuple(ask.pods))
            kept, part = self.room.take(planned, ask)
            if part is not None:
                self._seat(planned, ask, part)
            if kept is not None:
                answer = replace(answer, eviction=answer.eviction or kept.plan)
                parts.append(TrialPart(request=ask.request, outcome=kept.verdict))
                continue
            refusal = self.queues.refusal(gang, ask.request, is_whole=ask.is_whole)
            if refusal is not None:
                made = self.room.make_within(planned, ask, self.earmarks) if refusal[0] == QUEUE_LIMIT else None
                if made is not None:
                    answer = replace(answer, eviction=answer.eviction or made.plan)
                    parts.append(TrialPart(request=ask.request, outcome=made.verdict))
                elif not answer.waiting_reason:
                    answer = replace(answer, waiting_reason=refusal[0], waiting_message=refusal[1], refused=ask.request)
                continue
            earmarks = self.earmarks if ask.is_whole else ()
            outcome = self._place(planned, ask, earmarks)
            if isinstance(outcome, Verdict):
                self.queues.wait(gang, planned.name, ask.request)
                found = self.room.make(planned, ask, outcome, earmarks)
                outcome = outcome if isinstance(found, Preemption) else found
                if isinstance(found, Preemption) and answer.eviction is None:
                    answer = replace(answer, eviction=found)
            else:
                self._take(planned, ask, taken(self.stage.cluster, ask, outcome))
            parts.append(TrialPart(request=ask.request, outcome=outcome))
        scene = self._scene(planned)
        if is_placed(gang, scene.pods):
            self._placed.add(planned.name)
            self.placed_now.add(planned.name)
            if not scene.pods.unbound:
                self._wait_no_more(planned.name)
        return replace(answer, parts=tuple(parts))

    def _ask_more(self, planned: PlannedGang, ask: Ask) -> list[TrialPart]:
        """Ask for surplus pods of one clique, as many as limits allow; nothing is returned if they allow none."""
        shape, count = surplus_of(ask.request.members)
        within = self.queues.within_limit(planned.gang, shape, count)
        request = ask.request if within == count else without_surplus(ask.request, within)
        if not within or self.queues.refusal(planned.gang, request, is_whole=False, is_surplus=True) is not None:
            return []
        ask = replace(ask, request=request)
        outcome = self._place(planned, ask, self.earmarks)
        if isinstance(outcome, Placement):
            self._take(planned, ask, taken(self.stage.cluster, ask, outcome))
        return [TrialPart(request=request, outcome=outcome)]

    def _place(self, planned: PlannedGang, ask: Ask, earmarks: Sequence[Earmark]) -> Placement | Verdict:
        known = self.wake_ups.known(ask.request, self.lane(planned))
        if known is not None:
            return known
        pods = sum(map(len, ask.pods.values()))
        self._spend(_ASK_US + len(self.stage.cluster.rules.states) // _NODES_PER_US + _POD_US * pods)
        return place_around(
            self.stage.cluster,
            ask.request,
            earmarks,
            priority=planned.gang.priority,
            gang=planned.name,
            budget=self.budget,
        )

    def lane(self, planned: PlannedGang) -> Hashable:
        """Return with whom a gang may share a verdict: its queue's gangs that are bound alike by what is set aside."""
        queue = self.queues.queue_of(planned.gang)
        bound = (each for each in self.earmarks if each.gang != planned.name and planned.gang.priority <= each.priority)
        return queue, tuple((each.path, each.gang) for each in bound)

    def _spend(self, micros: int) -> None:
        if self.work is not None:
            self.work.spend(micros)

    def _scene(self, planned: PlannedGang) -> GangScene:
        gang = planned.gang
        pods = split_pods(list(self._pods[planned.name].values()))
        bound = self._bound.get((gang.set_uid, gang.copy), {})
        return self.stage.scene(gang, pods, self.around.owner_of(gang), bound.values)

    def _needed(self, planned: PlannedGang) -> Mapping[str, int]:
        """Return what the minimum of a gang without places needs."""
        total: Counter[str] = Counter()
        own = self._pods.get(planned.name)
        if any(pod.node for pod in (planned.pods if own is None else own.values())):
            return total
        pods = {pod.identity.name: pod for pod in planned.pods}
        for group in planned.gang.pod_groups:
            if group.name in pods:
                shape = self.stage.shape_of(pods[group.name].template)
                for resource, amount in amounts_of_pod(shape).items():
                    total[resource] += amount * group.min_replicas
        return total

    def _take(self, planned: PlannedGang, ask: Ask, part: Placement) -> None:
        """Take the places of one part."""
        self.stage.cluster.reserve(part)
        for clique in part.cliques:
            self.queues.take(self.queues.queue_of(planned.gang), clique.shape, len(clique.bindings))
        self._seat(planned, ask, part)

    def _seat(self, planned: PlannedGang, ask: Ask, part: Placement) -> None:
        """Let the pods of one part have places that are reserved and counted."""
        gang = planned.gang
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
            self._bound[gang.set_uid, gang.copy][_name_of(placed)] = placed
            self.stage.peers.note(placed)
            self.room.fresh.add(_name_of(placed))
            seats.append(seat_of(placed, facts.name, Held(binding.node, shape, binding.gpu_ids)))
        if self.occupancy is not None and seats:
            self.room.is_stale = True
            self.occupancy.set_gang(facts)
            self.occupancy.add_pods(seats)

    def _start_fresh(self) -> None:
        """Let what was placed in a round count as started now."""
        if self.occupancy is not None:
            seats = (
                self.occupancy.seat(row) for pod in self.room.fresh if (row := self.occupancy.pods.get(pod)) is not None
            )
            for gang in sorted({seat.gang for seat in seats}):
                facts = self.occupancy.gang(self.occupancy.gangs[gang])
                if not facts.started_at_s:
                    self.occupancy.set_gang(replace(facts, started_at_s=self.around.now))
        self.room.fresh.clear()

    def _wait_no_more(self, name: str) -> None:
        """Hold nobody back for a gang that has all its places, and set nothing aside for it."""
        self.has_unblocked |= self.queues.wait_no_more(name)
        left = [each for each in self.earmarks if each.gang != name]
        self.has_opened |= len(left) < len(self.earmarks)
        self.earmarks = left


def _successor(pod: Pod) -> Pod:
    """Return the pod that is made when one was told to leave; its name is not the one that the server will give it."""
    metadata = replace(pod.metadata, name=f"{pod.metadata.name}{SUCCESSOR}")
    return replace(pod, metadata=metadata, node="", gpu_ids=(), previous_node=pod.node, ready_at=None)


def _name_of(pod: Pod) -> str:
    return full_name(pod.metadata.namespace, pod.metadata.name)
