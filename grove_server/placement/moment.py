"""The cluster with all that runs on it at one moment: what what-ifs are asked of, changed freely, and thrown away.

Rules: it owns its copy of the cluster, and keeps who sits where in step with it. A drained node loses its pods, and the
gangs they belong to ask for new places as they would after a real drain. What a gang that moves has to keep (its
levels, the domains of what stays) is asked for in the same words as anything that comes later.

Not here: planning and placing gangs (`trial`), which gangs should move (`consolidation`, `clearing`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from grove_server.lifecycle.blueprint import TopologyLevels
from grove_server.placement.cluster import Cluster, UnknownNodeError
from grove_server.placement.consolidation import Move
from grove_server.placement.fragmentation import SHAPES_MAX
from grove_server.placement.gangs import Ask, GangScene, ask_minimum, ask_surplus, is_placed, split_pods
from grove_server.placement.occupancy import PRIORITY_MAX, PRIORITY_MIN, GangFacts, Occupancy, Seat
from grove_server.placement.requests import CliqueRequest, GangRequest, GroupRequest, PodShape
from grove_server.placement.results import PodBinding
from grove_server.placement.shapes import shape_of
from grove_server.placement.stranding import Mix
from grove_server.placement.trial import PlannedGang
from grove_server.resources.workload import Pod, PodGang


class Running(NamedTuple):
    """One pod with what it holds in the cluster."""

    pod: Pod
    node: str
    shape: PodShape
    gpu_ids: tuple[int, ...]


class PodMove(NamedTuple):
    """One pod that goes from a node to another, and the GPUs it gets there."""

    pod: str
    from_node: str
    to_node: str
    gpu_ids: tuple[int, ...]


def name_of(resource: Pod | PodGang) -> str:
    """Return namespace and name: pods and gangs of all namespaces lie beside each other."""
    return f"{resource.metadata.namespace}/{resource.metadata.name}"


def _gang_of(pod: Pod) -> str:
    return f"{pod.metadata.namespace}/{pod.identity.gang}"


class Moment:
    """Cluster, gangs and running pods; `levels` are those of each ClusterTopologyBinding by name."""

    def __init__(
        self, cluster: Cluster, gangs: Iterable[PodGang], running: Iterable[Running], levels: TopologyLevels
    ) -> None:
        self.cluster = cluster
        self.levels = levels
        self.gangs = {name_of(gang): gang for gang in gangs}
        self._running: dict[str, Running] = {}
        self._of_gang: dict[str, dict[str, None]] = {}
        for each in sorted(running, key=lambda one: name_of(one.pod)):
            name = name_of(each.pod)
            self._running[name] = each
            self._of_gang.setdefault(_gang_of(each.pod), {})[name] = None

    # -- changes -----------------------------------------------------------------------------------------------------

    def take_away(self, pods: Iterable[str]) -> None:
        """Let pods go; those that are not there already hold nothing."""
        batches: dict[PodShape, list[PodBinding]] = {}
        for name in pods:
            each = self._running.pop(name, None)
            if each is not None:
                del self._of_gang[_gang_of(each.pod)][name]
                batches.setdefault(each.shape, []).append(PodBinding(each.node, each.gpu_ids))
        self.cluster.release_pods(batches.items())

    def remove_set(self, namespace: str, name: str) -> int:
        """Let all pods of a set go, and return how many they were."""
        return self._remove(
            gang for gang, each in self.gangs.items() if (each.metadata.namespace, each.set_name) == (namespace, name)
        )

    def remove_gang(self, namespace: str, name: str) -> int:
        """Let all pods of a gang go, with those of the scaled gangs that depend on it; return how many they were."""
        return self._remove(
            gang
            for gang, each in self.gangs.items()
            if each.metadata.namespace == namespace and name in {each.metadata.name, each.base_gang}
        )

    def drain(self, nodes: Collection[str]) -> list[PlannedGang]:
        """Cordon nodes and let their pods go; return the gangs that ask for new places, base gangs first.

        UnknownNodeError, and nothing changed, if there is no such node.
        """
        self.cluster.set_schedulable(sorted(nodes), schedulable=False)
        gone = [name for name, each in self._running.items() if each.node in nodes]
        displaced = {name: self._running[name].pod for name in gone}
        self.take_away(gone)
        names = dict.fromkeys(_gang_of(pod) for pod in displaced.values() if pod.is_active)
        planned = []
        for name in sorted(names):
            gang = self.gangs.get(name)
            if gang is not None:
                unbound = [_unbound(pod) for pod in displaced.values() if _gang_of(pod) == name and pod.is_active]
                planned.append(PlannedGang(gang=gang, pods=[*self._pods(name), *unbound], copy_bound=self._copy(gang)))
        return sorted(planned, key=lambda each: (bool(each.gang.base_gang), each.gang.set_created_at, each.name))

    # -- views -------------------------------------------------------------------------------------------------------

    def occupancy(self) -> Occupancy:
        """Return who sits where; pods that are leaving already hold their places and are nobody's victims."""
        occupancy = Occupancy()
        seats = [self._seat(name) for name, each in self._running.items() if each.pod.is_active]
        seats = [seat for seat in seats if seat.gang in self.gangs]
        for name in sorted({seat.gang for seat in seats}):
            gang = self.gangs[name]
            base = f"{gang.metadata.namespace}/{gang.base_gang}" if gang.base_gang else ""
            occupancy.set_gang(
                GangFacts(
                    name=name,
                    minimums=tuple((group.name, group.min_replicas) for group in gang.pod_groups),
                    priority=min(max(gang.priority, PRIORITY_MIN), PRIORITY_MAX),
                    base_gang=base,
                    started_at_s=gang.status.scheduled_at or 0.0,
                )
            )
        occupancy.add_pods(seats)
        return occupancy

    def request_of(self, gang: str, seats: tuple[Seat, ...]) -> GangRequest | None:
        """Return what to ask for when some pods of a gang move; None if they cannot be asked for together."""
        found = self.gangs.get(gang)
        if found is None or found.topology_error:
            return None
        moving = {seat.pod for seat in seats}
        pods = [_unbound(self._running[n].pod) if n in moving else self._running[n].pod for n in self._of_gang[gang]]
        scene = self._scene(found, pods, [pod for pod in self._copy(found) if name_of(pod) not in moving])
        if not any(scene.pods.bound.values()):
            asks = ask_minimum(scene)
        elif is_placed(found, scene.pods):
            asks = ask_surplus(scene)
        else:
            return None
        return _whole(gang, asks)

    def without_gang(self, gang: PodGang) -> Cluster:
        """Return a copy of the cluster on which a gang does not run."""
        copy = self.cluster.fork()
        names = self._of_gang.get(name_of(gang), {})
        each = [self._running[name] for name in names]
        copy.release_pods((one.shape, (PodBinding(one.node, one.gpu_ids),)) for one in each)
        return copy

    def pods_on(self, nodes: Collection[str]) -> int:
        """Return how many pods run on some nodes."""
        return sum(each.node in nodes for each in self._running.values())

    def mix(self) -> Mix | None:
        """Return the most common shapes with GPUs among what runs, by number; None if nothing with GPUs does."""
        counts: dict[PodShape, int] = {}
        for each in self._running.values():
            if each.shape.needs_gpu:
                counts[each.shape] = counts.get(each.shape, 0) + 1
        common = sorted(counts.items(), key=lambda item: -item[1])[:SHAPES_MAX]
        return Mix(shapes=tuple(common)) if common else None

    def moved(self, move: Move) -> list[PodMove]:
        """Return where each pod of a move goes; pods of a clique are equal, so they go in the order of their index."""
        by_clique: dict[str, list[str]] = {}
        for name in sorted(move.pods, key=lambda each: (self._running[each].pod.index, each)):
            by_clique.setdefault(self._running[name].pod.identity.name, []).append(name)
        return [
            PodMove(name, self._running[name].node, binding.node, binding.gpu_ids)
            for clique in move.placement.cliques
            for name, binding in zip(by_clique.get(clique.name, ()), clique.bindings, strict=False)
        ]

    # -- inside ------------------------------------------------------------------------------------------------------

    def _remove(self, gangs: Iterable[str]) -> int:
        pods = [pod for gang in gangs for pod in self._of_gang.get(gang, ())]
        self.take_away(pods)
        return len(pods)

    def _pods(self, gang: str) -> list[Pod]:
        return [self._running[name].pod for name in self._of_gang.get(gang, ())]

    def _copy(self, gang: PodGang) -> list[Pod]:
        """Return the bound pods of a gang's copy."""
        of_copy = (
            name
            for name, each in self.gangs.items()
            if (each.set_uid, each.copy, each.metadata.namespace) == (gang.set_uid, gang.copy, gang.metadata.namespace)
        )
        return [pod for name in of_copy for pod in self._pods(name) if pod.is_active]

    def _seat(self, name: str) -> Seat:
        pod, node, shape, gpu_ids = self._running[name]
        return Seat(
            pod=name,
            gang=_gang_of(pod),
            clique=pod.identity.name,
            index=pod.index,
            node=node,
            shape=shape,
            gpu_ids=gpu_ids,
        )

    def _scene(self, gang: PodGang, pods: Sequence[Pod], copy_bound: Sequence[Pod]) -> GangScene:
        return GangScene(
            gang=gang,
            pods=split_pods(pods),
            copy_bound=copy_bound,
            topology=tuple(level.key for level in self.levels.get(gang.topology_name, ())),
            labels_of=self._labels_of,
            shape_of=lambda template: shape_of(template.pod_spec, template.annotations),
        )

    def _labels_of(self, node: str) -> Mapping[str, str] | None:
        try:
            return self.cluster.node(node).labels
        except UnknownNodeError:
            return None


def _unbound(pod: Pod) -> Pod:
    return replace(pod, node="", gpu_ids=())


def _whole(name: str, asks: Sequence[Ask]) -> GangRequest | None:
    """Return one question for all pods of some questions, none of them optional."""
    if not asks:
        return None
    members = tuple(_firm(member) for ask in asks for member in ask.request.members)
    return replace(asks[0].request, name=name, members=members)


def _firm(member: CliqueRequest | GroupRequest) -> CliqueRequest | GroupRequest:
    if isinstance(member, CliqueRequest):
        return replace(member, minimum=member.minimum + member.optional, optional=0)
    return replace(member, members=tuple(_firm(each) for each in member.members))
