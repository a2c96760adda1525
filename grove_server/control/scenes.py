"""Gathers what placement needs to know of one gang from the store, with the round's own decisions on top."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from grove_server.control.drafts import CopyDraft
from grove_server.control.indexes import PODS_BY_COPY, PODS_BY_GANG
from grove_server.control.set_state import topology_levels
from grove_server.placement.cluster import Cluster
from grove_server.placement.gangs import GangScene, split_pods
from grove_server.placement.peers import PeerBook
from grove_server.placement.requests import Counted, PodRule, PodShape
from grove_server.placement.stage import Stage
from grove_server.placement.standing import Standing, is_constrained, standing_of
from grove_server.resources.reference import SharedTemplate
from grove_server.resources.workload import Pod, PodCliqueSet, PodGang
from grove_server.store.interface import Store


class Scenes:
    """Builds scenes; reads topologies from the store when they are needed and changed."""

    def __init__(self, store: Store, cluster: Cluster) -> None:
        self._store = store
        self._at = Stage(cluster)
        self._is_stale = True

    @property
    def peers(self) -> PeerBook:
        """All pods with nodes, for rules between pods."""
        return self._at.peers

    def scene(self, gang: PodGang, draft: CopyDraft) -> GangScene:
        """Return the scene of *gang* as it is after *draft*."""
        reader = self._store.read()
        overlay = draft.pods
        pods = reader.indexed(PODS_BY_GANG, (gang.metadata.namespace, gang.metadata.name))
        owner = reader.get(PodCliqueSet, gang.metadata.namespace, gang.set_name)
        of_copy = (gang.set_uid, gang.copy)
        return self._stage.scene(
            gang,
            split_pods(_with(overlay, pods)),
            owner,
            lambda: _with(overlay, reader.indexed(PODS_BY_COPY, of_copy)),
        )

    def standing(self, gang: PodGang, nodes: Mapping[str, Sequence[str]]) -> Standing | None:
        """Return where *gang* stands with pods on *nodes*, by pod group; None if its topology is not there."""
        level_names = self.level_names(gang.topology_name)
        if not level_names and is_constrained(gang):
            return None
        return standing_of(gang, nodes, level_names, self._at.labels_of)

    def shape_of(self, template: SharedTemplate) -> PodShape:
        """Return the request class of a template's pods."""
        return self._at.shape_of(template)

    def counted(self, rule: PodRule) -> Mapping[str, Counted]:
        """Return the pods with nodes, by full name, whom a rule between pods counts."""
        return self._at.counted(rule)

    def level_names(self, topology_name: str) -> Mapping[str, str]:
        """Return the domain name of each level key."""
        return self._stage.level_names(topology_name)

    def any_levels(self) -> tuple[str, ...]:
        """Return levels by which a gang that asks for none finds what is near a place: those of the first binding."""
        return self._stage.any_levels()

    def forget_topologies(self) -> None:
        """Read the bindings again when they are needed next."""
        self._is_stale = True

    @property
    def _stage(self) -> Stage:
        if self._is_stale:
            self._is_stale = False
            self._at.levels = topology_levels(self._store.read())
        return self._at


def _with(overlay: Mapping[str, Pod], pods: Iterable[Pod]) -> list[Pod]:
    return [overlay.get(pod.metadata.name, pod) for pod in pods] if overlay else list(pods)
