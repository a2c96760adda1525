"""Priority classes, and what the class of a gang stands for.

The rules are Kubernetes' (admission plugin Priority): two classes are built in; a class never changes its value or its
preemption policy; one class may be the default of those that name none, and if a race made two, that of the lower value
is. One thing is different: Kubernetes refuses a pod whose class does not exist, here its gang has the priority 0 until
the class is there, since manifests come in any order. A class that is gone leaves its gangs the priority they have.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from grove_server.resources.meta import SCHEMA, Kind, Metadata
from grove_server.resources.workload import PREEMPT_LOWER, PodGang

PREEMPT_NEVER: Final = "Never"
PREEMPTION_POLICIES: Final = (PREEMPT_LOWER, PREEMPT_NEVER)

VALUE_MIN: Final = -(2**31)
USER_VALUE_MAX: Final = 1_000_000_000
SYSTEM_PREFIX: Final = "system-"


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorityClass:
    """A priority with a name."""

    __pydantic_config__: ClassVar[Any] = SCHEMA
    kind: ClassVar[Kind] = Kind.PRIORITY_CLASS

    metadata: Metadata
    resource_version: int = 0
    value: int
    global_default: bool = False
    description: str = ""
    preemption_policy: str = PREEMPT_LOWER


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedPriority:
    """What a class stands for; ``name`` is empty without one, ``is_known`` False if the one named does not exist."""

    value: int = 0
    name: str = ""
    preemption_policy: str = PREEMPT_LOWER
    is_known: bool = True

    @property
    def may_preempt(self) -> bool:
        """Whether gangs of lower priority may have to leave for one of this priority."""
        return self.preemption_policy != PREEMPT_NEVER


NO_PRIORITY: Final = ResolvedPriority()

BUILT_IN_CLASSES: Final = (
    PriorityClass(
        metadata=Metadata(name="system-cluster-critical"),
        value=2_000_000_000,
        description="For what the cluster cannot do without, wherever it runs.",
    ),
    PriorityClass(
        metadata=Metadata(name="system-node-critical"),
        value=2_000_001_000,
        description="For what a node cannot do without: the highest priority there is.",
    ),
)
_BUILT_IN: Final = {each.metadata.name: each for each in BUILT_IN_CLASSES}


def is_built_in_class(name: str) -> bool:
    """Return whether a class of this name is part of the server."""
    return name in _BUILT_IN


def default_class(classes: Iterable[PriorityClass]) -> PriorityClass | None:
    """Return the class of those that name none, None if there is no such class."""
    defaults = [each for each in classes if each.global_default]
    return min(defaults, key=lambda each: (each.value, each.metadata.name), default=None)


def resolve_priority(class_name: str, classes: Mapping[str, PriorityClass]) -> ResolvedPriority:
    """Return what a class name stands for; *classes* are those that are stored, by name. Empty means the default."""
    found = classes.get(class_name) or _BUILT_IN.get(class_name) if class_name else default_class(classes.values())
    if found is None:
        return ResolvedPriority(name=class_name, is_known=not class_name)
    return ResolvedPriority(
        value=found.value, name=found.metadata.name, preemption_policy=found.preemption_policy or PREEMPT_LOWER
    )


def priority_of(gang: PodGang, classes: Mapping[str, PriorityClass]) -> ResolvedPriority:
    """Return the priority of *gang*: what its class stands for, or what it has if its class is gone."""
    resolved = resolve_priority(gang.priority_class_name, classes)
    if resolved.is_known:
        return resolved
    return ResolvedPriority(
        value=gang.priority, name=resolved.name, preemption_policy=gang.preemption_policy, is_known=False
    )
