"""What every gang of a cluster is seen against: topologies, nodes' labels, shapes of templates, other pods.

Rules: the loop and what-ifs make their scenes here, so both ask the same. A gang that asks for no topology gets the
levels of the first one by name where it needs some: to find what is near a place, or to keep copies apart. The pods of
its copy are looked up only where they matter.

Not here: where gangs and pods come from (the store's reader, or a `moment`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from grove_server.lifecycle.blueprint import TopologyLevels
from grove_server.placement.cluster import Cluster, UnknownNodeError
from grove_server.placement.gangs import GangPods, GangScene
from grove_server.placement.nearness import wanted_near
from grove_server.placement.peers import PeerBook, Spread
from grove_server.placement.requests import Counted, PodRule, PodShape
from grove_server.placement.shapes import shape_of
from grove_server.resources.labels import SPREAD_COPIES, SPREAD_COPIES_REQUIRED
from grove_server.resources.reference import SharedTemplate
from grove_server.resources.workload import Pod, PodCliqueSet, PodGang

HOSTNAME: Final = "kubernetes.io/hostname"

_SHAPES_MAX: Final = 10_000
"""Shapes are kept per template; past this many the memory starts anew."""


class Stage:
    """One cluster's stage. `levels` are those of each ClusterTopologyBinding by name, `peers` all pods with nodes."""

    def __init__(self, cluster: Cluster, levels: TopologyLevels | None = None) -> None:
        self.cluster = cluster
        self.levels: TopologyLevels = {} if levels is None else levels
        self.peers = PeerBook()
        self._shapes: dict[str, PodShape] = {}

    def scene(
        self, gang: PodGang, pods: GangPods, owner: PodCliqueSet | None, copy_bound: Callable[[], Iterable[Pod]]
    ) -> GangScene:
        """Return a gang's scene; *owner* is its set, *copy_bound* gives the pods of its copy."""
        topology = self.keys(gang.topology_name)
        if not topology and any(pod.previous_node for waiting in pods.unbound.values() for pod in waiting):
            topology = self.any_levels()
        is_near = any(wanted_near(waiting[0]) for waiting in pods.unbound.values())
        spread = self._spread(gang, owner)
        if not topology and (is_near or spread is not None):
            topology = self.any_levels()
        bound: list[Pod] = []
        if gang.topology_constraint is not None or is_near or spread is not None:
            bound = sorted((pod for pod in copy_bound() if pod.node and pod.is_active), key=_name_of)
        return GangScene(
            gang=gang,
            pods=pods,
            copy_bound=bound,
            topology=topology,
            labels_of=self.labels_of,
            shape_of=self.shape_of,
            peers=self.peers,
            spread=spread,
        )

    def shape_of(self, template: SharedTemplate) -> PodShape:
        """Return the request class of a template's pods."""
        uid = template.metadata.uid
        shape = self._shapes.get(uid)
        if shape is None:
            if len(self._shapes) >= _SHAPES_MAX:
                self._shapes.clear()
            shape = self._shapes[uid] = shape_of(template.pod_spec, template.annotations)
        return shape

    def keys(self, topology_name: str) -> tuple[str, ...]:
        """Return the level keys of a topology, broadest first; () if there is none of that name."""
        return tuple(level.key for level in self.levels.get(topology_name, ())) if topology_name else ()

    def level_names(self, topology_name: str) -> Mapping[str, str]:
        """Return the domain name of each level key."""
        return {level.key: level.domain for level in self.levels.get(topology_name, ())}

    def any_levels(self) -> tuple[str, ...]:
        """Return levels by which a gang that asks for none finds what is near a place: those of the first binding."""
        return self.keys(self._any_topology()) or (HOSTNAME,)

    def labels_of(self, node: str) -> Mapping[str, str] | None:
        """Return a node's labels; None if there is no such node."""
        try:
            return self.cluster.node(node).labels
        except UnknownNodeError:
            return None

    def counted(self, rule: PodRule) -> Mapping[str, Counted]:
        """Return the pods that have nodes, by full name, whom a rule counts."""
        return self.peers.counted(rule, self.labels_of)

    def _any_topology(self) -> str:
        return min(self.levels, default="")

    def _spread(self, gang: PodGang, owner: PodCliqueSet | None) -> Spread | None:
        """Return what the gang's set says about spreading its copies, its domain read as a node label."""
        text = None if owner is None else owner.metadata.annotations.get(SPREAD_COPIES)
        if owner is None or text is None:
            return None
        is_required = owner.metadata.annotations.get(SPREAD_COPIES_REQUIRED) == "true"
        names = self.level_names(gang.topology_name or self._any_topology())
        key = next((key for key, domain in names.items() if domain == text), text)
        return Spread(key, is_required)


def _name_of(pod: Pod) -> str:
    return pod.metadata.name
