"""What every resource has: a kind, a key, and metadata.

Timestamps are epoch seconds (float, UTC) inside the server; they become RFC 3339 strings only at the API.
``resource_version`` lives on each resource, not here, because the store alone assigns it at commit.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, NamedTuple, Protocol

from pydantic import ConfigDict
from pydantic.alias_generators import to_camel

GROVE_API_VERSION: Final = "grove.io/v1alpha1"
SCHEDULER_API_VERSION: Final = "scheduler.grove.io/v1alpha1"
CORE_API_VERSION: Final = "v1"
PRIORITY_API_VERSION: Final = "scheduling.k8s.io/v1"

# One configuration for all schema types: manifests are camelCase, unknown fields are errors, nothing is coerced.
SCHEMA: Final = ConfigDict(extra="forbid", alias_generator=to_camel, strict=True)

# Shared empties: thousands of objects have no annotations, and none of them is ever mutated.
EMPTY_MAP: Final[Mapping[str, str]] = {}


def empty_map() -> Mapping[str, str]:
    """Return the shared empty mapping (a default factory that allocates nothing)."""
    return EMPTY_MAP


class Kind(enum.StrEnum):
    """Every kind of resource the store holds."""

    POD_CLIQUE_SET = "PodCliqueSet"
    POD_CLIQUE = "PodClique"
    POD_CLIQUE_SCALING_GROUP = "PodCliqueScalingGroup"
    POD_GANG = "PodGang"
    POD = "Pod"
    NODE = "Node"
    CLUSTER_TOPOLOGY_BINDING = "ClusterTopologyBinding"
    POD_TEMPLATE = "PodTemplate"
    EVENT = "Event"
    ROUTER_REGISTRATION = "RouterRegistration"
    SET_REVISION = "SetRevision"
    PRIORITY_CLASS = "PriorityClass"
    QUEUE = "Queue"
    SCALING_POLICY = "ScalingPolicy"
    AUTOSCALER_ROSTER = "AutoscalerRoster"


CLUSTER_SCOPED: Final = frozenset(
    {Kind.NODE, Kind.CLUSTER_TOPOLOGY_BINDING, Kind.PRIORITY_CLASS, Kind.QUEUE, Kind.AUTOSCALER_ROSTER}
)

API_VERSIONS: Final[Mapping[Kind, str]] = {
    Kind.POD_CLIQUE_SET: GROVE_API_VERSION,
    Kind.POD_CLIQUE: GROVE_API_VERSION,
    Kind.POD_CLIQUE_SCALING_GROUP: GROVE_API_VERSION,
    Kind.POD_GANG: SCHEDULER_API_VERSION,
    Kind.POD: CORE_API_VERSION,
    Kind.NODE: CORE_API_VERSION,
    Kind.CLUSTER_TOPOLOGY_BINDING: GROVE_API_VERSION,
    Kind.POD_TEMPLATE: GROVE_API_VERSION,
    Kind.EVENT: CORE_API_VERSION,
    Kind.ROUTER_REGISTRATION: GROVE_API_VERSION,
    Kind.SET_REVISION: GROVE_API_VERSION,
    Kind.PRIORITY_CLASS: PRIORITY_API_VERSION,
    Kind.QUEUE: GROVE_API_VERSION,
    Kind.SCALING_POLICY: GROVE_API_VERSION,
    Kind.AUTOSCALER_ROSTER: GROVE_API_VERSION,
}


class Key(NamedTuple):
    """What names one resource; ``namespace`` is empty for cluster-scoped kinds."""

    kind: Kind
    namespace: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """Identity and bookkeeping of one resource."""

    __pydantic_config__: ClassVar[Any] = SCHEMA

    name: str
    namespace: str = ""
    uid: str = ""
    generation: int = 1
    created_at: float = 0.0
    deleted_at: float | None = None
    labels: Mapping[str, str] = field(default_factory=empty_map)
    annotations: Mapping[str, str] = field(default_factory=empty_map)
    owner_uid: str = ""


class Resource(Protocol):
    """What the store and the watches need to know of a resource."""

    kind: ClassVar[Kind]

    @property
    def metadata(self) -> Metadata:
        """Identity and bookkeeping."""

    @property
    def resource_version(self) -> int:
        """The store's version of this state; 0 before the first commit."""


def key_of(resource: Resource) -> Key:
    """Return the key that names *resource*."""
    metadata = resource.metadata
    return Key(resource.kind, metadata.namespace, metadata.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One observed aspect of a resource, in the Kubernetes form.

    ``last_transition_at`` changes only when ``status`` does.
    """

    __pydantic_config__: ClassVar[Any] = SCHEMA

    type: str
    status: str
    reason: str
    message: str = ""
    last_transition_at: float = 0.0
    observed_generation: int = 0


def find_condition(conditions: tuple[Condition, ...], type_: str) -> Condition | None:
    """Return the condition of the given type, if it was ever set."""
    for condition in conditions:
        if condition.type == type_:
            return condition
    return None


def with_condition(conditions: tuple[Condition, ...], new: Condition) -> tuple[Condition, ...]:
    """Return *conditions* with *new* in place of its type, keeping the transition time while the status stays.

    A time that is still to come, because the clock was set back, becomes that of *new*: what is counted from it would
    otherwise begin only when the clock has caught up.
    """
    old = find_condition(conditions, new.type)
    if old is None:
        return (*conditions, new)
    if old.status == new.status:
        new = Condition(
            type=new.type,
            status=new.status,
            reason=new.reason,
            message=new.message,
            last_transition_at=min(old.last_transition_at, new.last_transition_at),
            observed_generation=new.observed_generation,
        )
    if new == old:
        return conditions
    return tuple(new if c.type == new.type else c for c in conditions)
