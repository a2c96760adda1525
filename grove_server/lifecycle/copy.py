"""What one copy's objects are now, and what a pass over them found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from grove_server.lifecycle.availability import PodCounts
from grove_server.resources.workload import GangSummary, Pod, PodClique, PodCliqueScalingGroup, PodGang


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyView:
    """Everything that belongs to one copy of a set.

    ``cliques``, ``gangs`` and ``pods`` are keyed by object name (pods by that of their clique), ``groups`` by the
    name of the group template.
    """

    copy: int
    cliques: Mapping[str, PodClique] = field(default_factory=dict)
    groups: Mapping[str, PodCliqueScalingGroup] = field(default_factory=dict)
    gangs: Mapping[str, PodGang] = field(default_factory=dict)
    pods: Mapping[str, Sequence[Pod]] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        """Whether nothing of the copy is left."""
        return not (self.cliques or self.groups or self.gangs or self.pods)


@dataclass(frozen=True, slots=True, kw_only=True)
class CliqueState:
    """A clique after planning: its new state, its active pods in index order, and their counts."""

    clique: PodClique
    pods: tuple[Pod, ...]
    counts: PodCounts

    @property
    def minimum(self) -> int:
        """Pods that must be there; 0 for a clique at size 0, which is absent."""
        return min(self.clique.min_available, self.clique.replicas)

    @property
    def is_scheduled(self) -> bool:
        """Whether the minimum has nodes."""
        return self.counts.scheduled >= self.minimum

    @property
    def is_available(self) -> bool:
        """Whether the minimum serves."""
        return self.counts.ready >= self.minimum

    @property
    def is_updated(self) -> bool:
        """Whether there are all pods, and all of them run the current template."""
        return self.clique.replicas <= self.counts.updated == self.counts.active


@dataclass(frozen=True, slots=True, kw_only=True)
class CopySummary:
    """What the set's own pass needs to know of one copy.

    ``has_served``: it was available once, and has been there since.
    ``revision`` is the set's revision that the summary was made against. ``is_behind``: a clique's template is an older
    one; ``has_old``: or a pod's is. ``has_surge``: the update keeps group replicas above the size. ``is_placed``: a pod
    has a node. ``reached`` counts pods of the revision, and again those that are ready. ``updated_cliques`` are
    standalone cliques and ``updated_groups`` groups wholly of it. ``sizes`` holds (wanted, ready) for each ("clique",
    template name) in pods and each ("group", template name) in group replicas.
    """

    copy: int
    exists: bool
    available: bool = False
    has_served: bool = False
    updated: bool = False
    revision: str = ""
    is_behind: bool = False
    has_old: bool = False
    has_surge: bool = False
    is_placed: bool = False
    reached: int = 0
    updated_cliques: int = 0
    updated_groups: int = 0
    gangs: tuple[GangSummary, ...] = ()
    sizes: Mapping[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
