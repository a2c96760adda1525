"""Questions to placement that change nothing: why a gang waits or runs where it does, and what would happen to a set.

What-ifs run the real planner on an independent copy of the cluster: the same passes make the same gangs, and the same
placement answers. Waiting gangs of other sets are left out: the answer is about the capacity that is there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from grove_server.control.clock import Clock
from grove_server.control.decisions import WAITING_FOR_BASE, Decision
from grove_server.control.indexes import PODS_BY_COPY
from grove_server.control.placement_loop import PlacementLoop
from grove_server.control.set_state import topology_levels
from grove_server.lifecycle.blueprint import TopologyLevels, draw_blueprint
from grove_server.lifecycle.copy import CopyView
from grove_server.lifecycle.copy_pass import plan_copy
from grove_server.lifecycle.set_pass import pod_template
from grove_server.placement.cluster import Cluster, UnknownNodeError
from grove_server.placement.gangs import Ask, GangScene, ask_minimum, split_pods
from grove_server.placement.place import place
from grove_server.placement.results import Placement, PodBinding
from grove_server.placement.shapes import shape_of
from grove_server.resources.cluster import ClusterTopologyBinding
from grove_server.resources.meta import Key, Kind
from grove_server.resources.workload import Pod, PodCliqueSet, PodGang
from grove_server.store.interface import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedGang:
    """One gang of a what-if question."""

    namespace: str
    name: str
    set_name: str
    is_base: bool
    decision: Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedSets:
    """The answer to a what-if question; no gangs when there would be more than were allowed."""

    gangs: Sequence[PlannedGang]
    gang_count: int


class Planning:
    """Answers questions; implements the API's PlacementPort."""

    def __init__(self, store: Store, loop: PlacementLoop, clock: Clock) -> None:
        self._store = store
        self._loop = loop
        self._clock = clock

    def explain(self, namespace: str, name: str) -> Decision | None:
        """Return the last decision on a gang; None if there is no such gang.

        A placed gang is explained by its minimum, with what waits beyond it beside. One that was placed before the
        server started has no decision left; then the answer says so.
        """
        gang = self._store.read().get(PodGang, namespace, name)
        if gang is None:
            return None
        key = Key(Kind.POD_GANG, namespace, name)
        decision, placed = self._loop.decision(key), self._loop.placed_decision(key)
        if decision is not None and (decision is placed or gang.status.scheduled_at is None):
            return decision
        level_names = self._loop.scenes.level_names(gang.topology_name)
        placed = placed or Decision(since=gang.status.scheduled_at, level_names=level_names)
        return replace(placed, surplus=decision)

    async def simulate(
        self,
        sets: Sequence[PodCliqueSet],
        bindings: Sequence[ClusterTopologyBinding],
        *,
        gang_count_max: int,
    ) -> PlannedSets:
        """Return what would happen to *sets* on a copy of the cluster as it is; sets that exist are replaced."""
        cluster = self._loop.cluster.fork()
        topologies: dict[str, ClusterTopologyBinding] = {
            b.metadata.name: b for b in (*self._store.read().list(ClusterTopologyBinding), *bindings)
        }
        levels = topology_levels(self._store.read())
        levels.update({b.metadata.name: b.spec.levels for b in bindings})
        planned: list[tuple[PodGang, list[Pod]]] = []
        for owner in sets:
            self._release(owner, cluster)
            for copy in range(owner.spec.replicas or 0):
                planned += _plan(owner, copy, levels, self._clock.now())
                if len(planned) > gang_count_max:
                    return PlannedSets(gangs=(), gang_count=_gang_count(sets))
            await asyncio.sleep(0)
        planned.sort(key=lambda item: bool(item[0].base_gang))
        question = _Question(cluster, topologies, self._clock.now())
        gangs = []
        for gang, pods in planned:
            gangs.append(question.ask(gang, pods))
            await asyncio.sleep(0)
        return PlannedSets(gangs=gangs, gang_count=len(gangs))

    def _release(self, owner: PodCliqueSet, cluster: Cluster) -> None:
        """Take away what the set that is replaced holds."""
        reader = self._store.read()
        known = reader.get(PodCliqueSet, owner.metadata.namespace, owner.metadata.name)
        if known is None:
            return
        for copy in range(max(known.spec.replicas or 0, known.status.replicas)):
            for pod in reader.indexed(PODS_BY_COPY, (known.metadata.uid, copy)):
                if pod.node and pod.is_active:
                    shape = self._loop.scenes.shape_of(pod.template)
                    cluster.release_pods(((shape, (PodBinding(pod.node, pod.gpu_ids),)),))


def _plan(owner: PodCliqueSet, copy: int, levels: TopologyLevels, now: float) -> list[tuple[PodGang, list[Pod]]]:
    """Return the gangs and pods that a fresh copy would have."""
    templates = {c.name: pod_template(owner, c, now) for c in owner.spec.template.cliques}
    plan, _ = plan_copy(draw_blueprint(owner, templates, levels), CopyView(copy=copy), now=now)
    pods: dict[str, list[Pod]] = {}
    for resource in plan.creates:
        if isinstance(resource, Pod):
            pods.setdefault(resource.identity.gang, []).append(resource)
    return [(r, pods.get(r.metadata.name, [])) for r in plan.creates if isinstance(r, PodGang)]


def _gang_count(sets: Sequence[PodCliqueSet]) -> int:
    """Return the number of gangs of *sets*: per copy one, and one for each group replica beyond the minimum."""
    total = 0
    for owner in sets:
        groups = owner.spec.template.pod_clique_scaling_groups
        scaled = sum(max(0, (g.replicas or 0) - (g.min_available or 0)) for g in groups)
        total += (owner.spec.replicas or 0) * (1 + scaled)
    return total


class _Question:
    """One what-if, gang after gang on the same copy of the cluster."""

    def __init__(self, cluster: Cluster, topologies: Mapping[str, ClusterTopologyBinding], now: float) -> None:
        self._cluster = cluster
        self._topologies = topologies
        self._now = now
        self._bound: dict[tuple[str, int], list[Pod]] = {}
        self._placed: set[tuple[str, str]] = set()

    def ask(self, gang: PodGang, pods: list[Pod]) -> PlannedGang:
        """Place one gang if it can be placed, and say what happened."""
        binding = self._topologies.get(gang.topology_name)
        level_names = {} if binding is None else {level.key: level.domain for level in binding.spec.levels}
        decision = self._decide(gang, pods, tuple(level_names))
        return PlannedGang(
            namespace=gang.metadata.namespace,
            name=gang.metadata.name,
            set_name=gang.set_name,
            is_base=not gang.base_gang,
            decision=replace(decision, level_names=level_names, since=self._now, evaluated_at=self._now),
        )

    def _decide(self, gang: PodGang, pods: list[Pod], topology: tuple[str, ...]) -> Decision:
        if gang.topology_error:
            return Decision(waiting_reason="TopologyUnavailable", waiting_message=gang.topology_error)
        if gang.base_gang and (gang.set_uid, gang.base_gang) not in self._placed:
            return Decision(
                waiting_reason=WAITING_FOR_BASE, waiting_message=f"its base gang {gang.base_gang} would not be placed"
            )
        bound = self._bound.setdefault((gang.set_uid, gang.copy), [])
        scene = GangScene(
            gang=gang,
            pods=split_pods(pods),
            copy_bound=bound,
            topology=topology,
            labels_of=self._labels_of,
            shape_of=lambda template: shape_of(template.pod_spec, template.annotations),
        )
        asks = ask_minimum(scene)
        outcome = place(self._cluster, asks[0].request)
        if isinstance(outcome, Placement):
            self._take(gang, asks[0], outcome, bound)
        return Decision(request=asks[0].request, outcome=outcome)

    def _take(self, gang: PodGang, ask: Ask, placement: Placement, bound: list[Pod]) -> None:
        self._cluster.reserve(placement)
        self._placed.add((gang.set_uid, gang.metadata.name))
        for clique in placement.cliques:
            for pod, binding in zip(ask.pods[clique.name], clique.bindings, strict=False):
                bound.append(replace(pod, node=binding.node))

    def _labels_of(self, node: str) -> Mapping[str, str] | None:
        try:
            return self._cluster.node(node).labels
        except UnknownNodeError:
            return None
