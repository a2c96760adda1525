"""Queues: named shares of the cluster in a tree, and which queue a set is in.

The queue ``default`` takes the sets that name none. It has no guarantee, no limit and weight 1 unless somebody says
otherwise, is always there, and has no queues below it. Sets are in leaves; what holds for a queue holds for all below.
KAI's label and annotation are understood, so that manifests written for it are in the queues they name.

Not here: what is fair and who gives way (``placement.queues`` and its neighbours).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from grove_server.resources.manifest import CliqueTemplate
from grove_server.resources.meta import SCHEMA, Condition, Kind, Metadata, empty_map
from grove_server.resources.workload import PodCliqueSet

DEFAULT_QUEUE: Final = "default"
QUEUE: Final = "grove.io/queue"
KAI_QUEUE: Final = "kai.scheduler/queue"
QUEUE_KEYS: Final = (QUEUE, KAI_QUEUE)

SKIP_AHEAD: Final = "SkipAhead"
STRICT: Final = "Strict"
BLOCKINGS: Final = (SKIP_AHEAD, STRICT)
EARMARK_NEVER: Final = "never"
EARMARK_AFTER_DEFAULT: Final = "5m0s"
DEPTH_MAX: Final = 16
QUEUES_MAX: Final = 10_000

# Why a gang waits whatever the capacity.
QUEUE_UNKNOWN: Final = "QueueUnknown"
QUEUE_NOT_LEAF: Final = "QueueNotLeaf"


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSpec:
    """What a queue may use: quantities as canonical strings ("8", "512Gi"), by resource.

    ``weight`` is its part of what guarantees leave over, 0 for a queue that never borrows. ``earmark_after`` is how
    long a gang waits until a domain is set aside for it, a canonical duration or "never".
    """

    __pydantic_config__: ClassVar[Any] = SCHEMA

    parent: str = ""
    guarantee: Mapping[str, str] = field(default_factory=empty_map)
    limit: Mapping[str, str] = field(default_factory=empty_map)
    weight: float = 1.0
    priority: int = 0
    blocking: str = SKIP_AHEAD
    earmark_after: str = EARMARK_AFTER_DEFAULT


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueStatus:
    """How a queue stands, all queues below it included; quantities as canonical strings, by resource."""

    __pydantic_config__: ClassVar[Any] = SCHEMA

    observed_generation: int = 0
    used: Mapping[str, str] = field(default_factory=empty_map)
    fair_share: Mapping[str, str] = field(default_factory=empty_map)
    running_gangs: int = 0
    pending_gangs: int = 0
    conditions: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """A named share of the cluster."""

    __pydantic_config__: ClassVar[Any] = SCHEMA
    kind: ClassVar[Kind] = Kind.QUEUE

    metadata: Metadata
    resource_version: int = 0
    spec: QueueSpec = field(default_factory=QueueSpec)
    status: QueueStatus = field(default_factory=QueueStatus)


BUILT_IN_QUEUE: Final = Queue(metadata=Metadata(name=DEFAULT_QUEUE))


def queue_of(owner: PodCliqueSet) -> str:
    """Return the name of the queue that a set is in."""
    metadata = owner.metadata
    return named_queue(metadata.labels, metadata.annotations, owner.spec.template.cliques)


def named_queue(
    labels: Mapping[str, str] | None, annotations: Mapping[str, str] | None, cliques: Iterable[CliqueTemplate]
) -> str:
    """Return the queue that the labels and annotations of a set name, else those of its cliques, else the default.

    A label counts before an annotation, our key before KAI's. An empty name counts as none.
    """
    found = queue_named_by(labels, annotations)
    if found:
        return found
    for clique in cliques:
        found = queue_named_by(clique.labels, clique.annotations)
        if found:
            return found
    return DEFAULT_QUEUE


def queue_named_by(labels: Mapping[str, str] | None, annotations: Mapping[str, str] | None) -> str:
    """Return the queue that one object names, empty if it names none."""
    for key in QUEUE_KEYS:
        for entries in (labels, annotations):
            if entries and entries.get(key):
                return entries[key]
    return ""


def queue_problem(name: str, specs: Mapping[str, QueueSpec]) -> tuple[str, str] | None:
    """Return reason and sentence why no gang can run in the queue *name*, None if gangs can.

    *specs* are the queues that are stored, by name; a queue of which no way leads to the top counts as unknown.
    """
    if name == DEFAULT_QUEUE:
        return None
    if name not in specs:
        return QUEUE_UNKNOWN, f"there is no queue {name}"
    if lineage(name, specs) is None:
        return QUEUE_UNKNOWN, f"queue {name} is below one that does not exist, or in a circle"
    if any(spec.parent == name for spec in specs.values()):
        return QUEUE_NOT_LEAF, f"queue {name} has queues below it; sets are in one of those"
    return None


def lineage(name: str, specs: Mapping[str, QueueSpec]) -> tuple[str, ...] | None:
    """Return the queue *name* and those above it, from the queue up.

    None if one of them does not exist, if they are a circle, or if they are more than DEPTH_MAX.
    """
    names: list[str] = []
    while name:
        if name not in specs or len(names) == DEPTH_MAX:
            return None
        names.append(name)
        name = specs[name].parent
    return tuple(names)


def sound_queues(specs: Mapping[str, QueueSpec]) -> dict[str, QueueSpec]:
    """Return the queues that make a tree, the default one among them, by name.

    Admission lets nothing else in, but two changes at the same moment can make a circle or an orphan.
    """
    sound = {name: spec for name, spec in sorted(specs.items()) if lineage(name, specs) is not None}
    return {DEFAULT_QUEUE: BUILT_IN_QUEUE.spec} | sound
