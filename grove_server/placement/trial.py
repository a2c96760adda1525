"""What would happen to gangs that are not there yet: planned, then placed one after the other on a copy of the cluster.

Rules: the same passes make the gangs as in the workload loop, the same questions and the same `place` answer them, so a
trial cannot promise what the server would not do. The copy of the cluster (and of who sits where) belongs to the trial
and is changed by it; nothing else is. A gang that does not fit and may preempt says who would have to go; its victims
are gone for the gangs after it.

Not here: where sets and nodes come from, the order of gangs of other sets, queues.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from grove_server.lifecycle.blueprint import TopologyLevels, draw_blueprint
from grove_server.lifecycle.copy import CopyView
from grove_server.lifecycle.copy_pass import plan_copy
from grove_server.lifecycle.set_pass import pod_template
from grove_server.placement.cluster import Cluster, UnknownNodeError
from grove_server.placement.gangs import Ask, GangScene, ask_minimum, ask_surplus, is_placed, split_pods
from grove_server.placement.occupancy import Occupancy
from grove_server.placement.place import DEFAULT_BUDGET, place
from grove_server.placement.preemption import Preemption, PreemptionPolicy, plan_preemption
from grove_server.placement.requests import Budget, GangRequest, minimum_of
from grove_server.placement.results import Placement, Verdict
from grove_server.placement.shapes import shape_of
from grove_server.placement.waiting import TOPOLOGY_UNAVAILABLE, WAITING_FOR_BASE
from grove_server.resources.priority import PriorityClass
from grove_server.resources.workload import Pod, PodCliqueSet, PodGang

EVICTIONS_MAX: Final = 32
"""Gangs of one trial for which evictions are planned; the others only hear that they do not fit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedGang:
    """One gang with its pods, those with a node included; `copy_bound` are the bound pods of its whole copy."""

    gang: PodGang
    pods: Sequence[Pod]
    copy_bound: Sequence[Pod] = ()

    @property
    def name(self) -> str:
        """Return namespace and name, as gangs are called in an occupancy."""
        return f"{self.gang.metadata.namespace}/{self.gang.metadata.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialPart:
    """One question of a gang and the answer."""

    request: GangRequest
    outcome: Placement | Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialAnswer:
    """What would happen to one gang. `parts` is empty for a gang that was not asked for; then a reason says why.

    `eviction` is who would have to go so that the first part that does not fit gets places, None if nobody could.
    """

    planned: PlannedGang
    parts: tuple[TrialPart, ...] = ()
    waiting_reason: str = ""
    waiting_message: str = ""
    eviction: Preemption | None = None

    @property
    def telling(self) -> TrialPart | None:
        """Return the part to explain: the first that does not fit, else the first."""
        return next((part for part in self.parts if isinstance(part.outcome, Verdict)), next(iter(self.parts), None))

    @property
    def fits(self) -> bool:
        """Return whether all that was asked for as a minimum has its places, without evictions."""
        return not self.waiting_reason and all(isinstance(part.outcome, Placement) for part in self.parts)


def planned_gangs(
    owner: PodCliqueSet, copy: int, levels: TopologyLevels, classes: Mapping[str, PriorityClass], now: float
) -> list[PlannedGang]:
    """Return the gangs and pods that a fresh copy of a set would have, base gang first."""
    templates = {clique.name: pod_template(owner, clique, now) for clique in owner.spec.template.cliques}
    plan, _ = plan_copy(draw_blueprint(owner, templates, levels, classes), CopyView(copy=copy), now=now)
    pods: dict[str, list[Pod]] = {}
    for resource in plan.creates:
        if isinstance(resource, Pod):
            pods.setdefault(resource.identity.gang, []).append(resource)
    return [
        PlannedGang(gang=each, pods=tuple(pods.get(each.metadata.name, ())))
        for each in plan.creates
        if isinstance(each, PodGang)
    ]


def gang_count(owner: PodCliqueSet) -> int:
    """Return the number of gangs of a set: per copy one, and one for each group replica beyond the minimum."""
    groups = owner.spec.template.pod_clique_scaling_groups
    scaled = sum(max(0, (group.replicas or 0) - (group.min_available or 0)) for group in groups)
    return (owner.spec.replicas or 0) * (1 + scaled)


@dataclass(slots=True)
class Trial:
    """One what-if, gang after gang on the same copy. `levels` are those of each ClusterTopologyBinding, by name.

    With an `occupancy` (in step with the cluster, the trial's own) gangs of higher priority preempt.
    """

    cluster: Cluster
    levels: TopologyLevels
    occupancy: Occupancy | None = None
    budget: Budget = DEFAULT_BUDGET
    _bound: dict[tuple[str, int], list[Pod]] = field(default_factory=dict)
    _placed: set[tuple[str, str]] = field(default_factory=set)
    _evictions: int = 0

    def ask(self, planned: PlannedGang) -> TrialAnswer:
        """Place one gang, or what of it has no node, if that can be; say what happened."""
        gang = planned.gang
        if gang.topology_error:
            return TrialAnswer(
                planned=planned, waiting_reason=TOPOLOGY_UNAVAILABLE, waiting_message=gang.topology_error
            )
        if self._waits_for_base(planned):
            message = f"its base gang {gang.base_gang} would not be placed"
            return TrialAnswer(planned=planned, waiting_reason=WAITING_FOR_BASE, waiting_message=message)
        parts = []
        eviction = None
        bound = self._bound.setdefault((gang.set_uid, gang.copy), list(planned.copy_bound))
        asks = self._asks(planned, bound)
        for ask in asks:
            outcome = place(self.cluster, ask.request, budget=self.budget)
            parts.append(TrialPart(request=ask.request, outcome=outcome))
            if isinstance(outcome, Verdict):
                eviction = self._evict(planned, ask, bound)
                break
            self._take(ask, outcome, bound)
        else:
            self._placed.add((gang.set_uid, gang.metadata.name))
        return TrialAnswer(planned=planned, parts=tuple(parts), eviction=eviction)

    def _waits_for_base(self, planned: PlannedGang) -> bool:
        gang = planned.gang
        if not gang.base_gang or (gang.set_uid, gang.base_gang) in self._placed:
            return False
        # A gang that runs in part has had its base.
        return not any(pod.node for pod in planned.pods)

    def _asks(self, planned: PlannedGang, bound: Sequence[Pod]) -> list[Ask]:
        topology = tuple(level.key for level in self.levels.get(planned.gang.topology_name, ()))
        scene = GangScene(
            gang=planned.gang,
            pods=split_pods(planned.pods),
            copy_bound=bound,
            topology=topology,
            labels_of=self._labels_of,
            shape_of=lambda template: shape_of(template.pod_spec, template.annotations),
        )
        if not any(scene.pods.unbound.values()):
            return []
        return ask_surplus(scene) if is_placed(planned.gang, scene.pods) else ask_minimum(scene)

    def _take(self, ask: Ask, placement: Placement, bound: list[Pod]) -> None:
        self.cluster.reserve(placement)
        for clique in placement.cliques:
            for pod, binding in zip(ask.pods[clique.name], clique.bindings, strict=False):
                bound.append(replace(pod, node=binding.node))

    def _evict(self, planned: PlannedGang, ask: Ask, bound: list[Pod]) -> Preemption | None:
        """Plan who would have to go for a part that does not fit, and let them go; None if that does not help."""
        occupancy, gang = self.occupancy, planned.gang
        if occupancy is None or self._evictions >= EVICTIONS_MAX or not minimum_of(ask.request):
            return None
        if not (occupancy.is_present & occupancy.is_preemptible & (occupancy.priority < gang.priority)).any():
            return None
        self._evictions += 1
        found = plan_preemption(
            self.cluster,
            occupancy,
            ask.request,
            priority=gang.priority,
            policy=PreemptionPolicy(gang.preemption_policy),
            budget=self.budget,
        )
        if isinstance(found, Verdict):
            return None
        for pod in found.pods:
            seat = occupancy.seat(occupancy.pods[pod])
            self.cluster.release_pod(seat.node, seat.shape, seat.gpu_ids)
        occupancy.remove_pods(found.pods)
        self._take(ask, found.placement, bound)
        self._placed.add((gang.set_uid, gang.metadata.name))
        return found

    def _labels_of(self, node: str) -> Mapping[str, str] | None:
        try:
            return self.cluster.node(node).labels
        except UnknownNodeError:
            return None
