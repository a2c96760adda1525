"""What is remembered of updates: how far one is, and the revisions that a set can go back to.

The progress is part of the set's status and is all that the server knows of an update under way, besides the pods
themselves: which copies have their turn, since when, and when something last became better.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Final

from grove_server.resources.manifest import CliqueTemplate, PodCliqueSetTemplate
from grove_server.resources.meta import SCHEMA, Kind, Metadata, empty_map

REVISIONS_KEPT: Final = 10
CHANGE_CAUSE: Final = "kubernetes.io/change-cause"
RESTARTED_AT: Final = "kubectl.kubernetes.io/restartedAt"


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdatingCopy:
    """A copy that has its turn; ``was_placed`` says whether any of its pods had a node when the turn began."""

    __pydantic_config__: ClassVar[Any] = SCHEMA

    replica_index: int
    update_started_at: float
    was_placed: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateProgress:
    """The update under way, or the last one; times are epoch seconds.

    ``changed`` are the clique templates that differ from what ran before. ``reached`` counts what became better (pods
    of the new revision, and those of them that are ready), ``progressed_at`` is when it last grew.
    """

    __pydantic_config__: ClassVar[Any] = SCHEMA

    update_started_at: float
    update_ended_at: float | None = None
    changed: tuple[str, ...] = ()
    currently_updating: tuple[UpdatingCopy, ...] = ()
    updated_pod_cliques_count: int = 0
    total_pod_cliques_count: int = 0
    updated_pod_clique_scaling_groups_count: int = 0
    total_pod_clique_scaling_groups_count: int = 0
    reached: int = 0
    progressed_at: float = 0.0

    @property
    def is_active(self) -> bool:
        """Whether the update still goes on."""
        return self.update_ended_at is None


@dataclass(frozen=True, slots=True, kw_only=True)
class CliqueUpdate:
    """The update of one clique, or its last one; times are epoch seconds.

    It leads to the revision ``set_hash`` of the set and to ``template_hash``. ``selected`` are ready pods that were
    stopped for it and are not replaced yet, ``completed`` the last of those that are, ``completed_count`` all of them.
    """

    __pydantic_config__: ClassVar[Any] = SCHEMA

    update_started_at: float
    update_ended_at: float | None = None
    set_hash: str
    template_hash: str
    selected: tuple[str, ...] = ()
    completed: tuple[str, ...] = ()
    completed_count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupUpdate:
    """The update of one group, or its last one; as ``CliqueUpdate``, with indices of group replicas."""

    __pydantic_config__: ClassVar[Any] = SCHEMA

    update_started_at: float
    update_ended_at: float | None = None
    set_hash: str
    updated_cliques: int = 0
    total_cliques: int = 0
    selected: tuple[int, ...] = ()
    completed: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CliqueSnapshot:
    """What one clique ran at a revision."""

    __pydantic_config__: ClassVar[Any] = SCHEMA

    labels: Mapping[str, str] = field(default_factory=empty_map)
    annotations: Mapping[str, str] = field(default_factory=empty_map)
    pod_spec: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class SetRevision:
    """A revision of a set that can be returned to: everything that its hash covers, and nothing of sizes.

    ``number`` grows; a revision that comes back gets the next number. ``worked_at`` is
    when all copies of the set first worked with it. Internal: shown by the history alone.
    """

    __pydantic_config__: ClassVar[Any] = SCHEMA
    kind: ClassVar[Kind] = Kind.SET_REVISION

    metadata: Metadata
    resource_version: int = 0
    set_name: str
    number: int
    hash: str
    change_cause: str = ""
    worked_at: float | None = None
    priority_class_name: str = ""
    cliques: Mapping[str, CliqueSnapshot]


def snapshot(clique: CliqueTemplate) -> CliqueSnapshot:
    """Return what *clique* runs."""
    return CliqueSnapshot(labels=clique.labels, annotations=clique.annotations, pod_spec=clique.spec.pod_spec)


def with_restarts_kept(template: PodCliqueSetTemplate, old: PodCliqueSetTemplate) -> PodCliqueSetTemplate:
    """Return *template* with the times of restarts of *old*, in cliques that name none of their own.

    The time is the server's: who applies a manifest again did not write it and does not ask for another restart.
    """
    kept = {c.name: c.annotations[RESTARTED_AT] for c in old.cliques if RESTARTED_AT in c.annotations}
    if not kept:
        return template
    cliques = tuple(
        replace(clique, annotations={**clique.annotations, RESTARTED_AT: kept[clique.name]})
        if clique.name in kept and RESTARTED_AT not in clique.annotations
        else clique
        for clique in template.cliques
    )
    return replace(template, cliques=cliques)
