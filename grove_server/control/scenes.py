"""Gathers what placement needs to know of one gang from the store, with the round's own decisions on top."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from grove_server.control.drafts import CopyDraft
from grove_server.control.indexes import PODS_BY_COPY, PODS_BY_GANG
from grove_server.placement.cluster import Cluster, UnknownNodeError
from grove_server.placement.gangs import GangScene, split_pods
from grove_server.placement.nearness import wanted_near
from grove_server.placement.peers import PeerBook, Spread
from grove_server.placement.requests import PodShape
from grove_server.placement.shapes import shape_of
from grove_server.placement.standing import Standing, is_constrained, standing_of
from grove_server.resources.cluster import ClusterTopologyBinding
from grove_server.resources.labels import SPREAD_COPIES, SPREAD_COPIES_REQUIRED
from grove_server.resources.reference import SharedTemplate
from grove_server.resources.workload import Pod, PodCliqueSet, PodGang
from grove_server.store.interface import Store

HOSTNAME: Final = "kubernetes.io/hostname"

# Shapes are kept per template; past this many the memory starts anew.
_SHAPES_MAX: Final = 10_000


class Scenes:
    """Builds scenes; remembers shapes of templates and levels of topologies."""

    def __init__(self, store: Store, cluster: Cluster) -> None:
        self._store = store
        self._cluster = cluster
        self.peers = PeerBook()
        self._shapes: dict[str, PodShape] = {}
        self._topologies: dict[str, ClusterTopologyBinding] | None = None

    def scene(self, gang: PodGang, draft: CopyDraft) -> GangScene:
        """Return the scene of *gang* as it is after *draft*."""
        reader = self._store.read()
        overlay = draft.pods
        pods = reader.indexed(PODS_BY_GANG, (gang.metadata.namespace, gang.metadata.name))
        split = split_pods(_with(overlay, pods))
        topology = self._keys(gang.topology_name)
        if not topology and any(pod.previous_node for waiting in split.unbound.values() for pod in waiting):
            topology = self.any_levels()
        waiting = [pods[0] for pods in split.unbound.values()]
        is_near = any(map(wanted_near, waiting))
        spread = self._spread(gang)
        if not topology and (is_near or spread is not None):
            topology = self.any_levels()
        copy_bound: list[Pod] = []
        if gang.topology_constraint is not None or is_near or spread is not None:
            of_copy = reader.indexed(PODS_BY_COPY, (gang.set_uid, gang.copy))
            copy_bound = [pod for pod in _with(overlay, of_copy) if pod.node and pod.is_active]
            copy_bound.sort(key=lambda pod: pod.metadata.name)
        return GangScene(
            gang=gang,
            pods=split,
            copy_bound=copy_bound,
            topology=topology,
            labels_of=self._labels_of,
            shape_of=self.shape_of,
            peers=self.peers,
            spread=spread,
        )

    def _spread(self, gang: PodGang) -> Spread | None:
        """Return what the gang's set says about spreading its copies, its domain read as a node label."""
        owner = self._store.read().get(PodCliqueSet, gang.metadata.namespace, gang.set_name)
        text = None if owner is None else owner.metadata.annotations.get(SPREAD_COPIES)
        if owner is None or text is None:
            return None
        is_required = owner.metadata.annotations.get(SPREAD_COPIES_REQUIRED) == "true"
        names = self.level_names(gang.topology_name or self._any_topology())
        key = next((key for key, domain in names.items() if domain == text), text)
        return Spread(key, is_required)

    def standing(self, gang: PodGang, nodes: Mapping[str, Sequence[str]]) -> Standing | None:
        """Return where *gang* stands with pods on *nodes*, by pod group; None if its topology is not there."""
        level_names = self.level_names(gang.topology_name)
        if not level_names and is_constrained(gang):
            return None
        return standing_of(gang, nodes, level_names, self._labels_of)

    def shape_of(self, template: SharedTemplate) -> PodShape:
        """Return the request class of a template's pods."""
        uid = template.metadata.uid
        shape = self._shapes.get(uid)
        if shape is None:
            if len(self._shapes) >= _SHAPES_MAX:
                self._shapes.clear()
            shape = self._shapes[uid] = shape_of(template.pod_spec, template.annotations)
        return shape

    def level_names(self, topology_name: str) -> Mapping[str, str]:
        """Return the domain name of each level key."""
        binding = self._bindings().get(topology_name)
        return {} if binding is None else {level.key: level.domain for level in binding.spec.levels}

    def any_levels(self) -> tuple[str, ...]:
        """Return levels by which a gang that asks for none finds what is near a place: those of the first binding."""
        return self._keys(self._any_topology()) or (HOSTNAME,)

    def _any_topology(self) -> str:
        return min(self._bindings(), default="")

    def forget_topologies(self) -> None:
        """Read the bindings again when they are needed next."""
        self._topologies = None

    def _keys(self, topology_name: str) -> tuple[str, ...]:
        binding = self._bindings().get(topology_name) if topology_name else None
        return () if binding is None else tuple(level.key for level in binding.spec.levels)

    def _bindings(self) -> dict[str, ClusterTopologyBinding]:
        if self._topologies is None:
            self._topologies = {b.metadata.name: b for b in self._store.read().list(ClusterTopologyBinding)}
        return self._topologies

    def _labels_of(self, node: str) -> Mapping[str, str] | None:
        try:
            return self._cluster.node(node).labels
        except UnknownNodeError:
            return None


def _with(overlay: Mapping[str, Pod], pods: Iterable[Pod]) -> list[Pod]:
    return [overlay.get(pod.metadata.name, pod) for pod in pods] if overlay else list(pods)
