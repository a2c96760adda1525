"""The cluster's resources: nodes, topology bindings, events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from grove_server.resources.manifest import ClusterTopologyBindingSpec
from grove_server.resources.meta import SCHEMA, Condition, Kind, Metadata


@dataclass(frozen=True, slots=True, kw_only=True)
class Taint:
    """A node's refusal of pods that do not tolerate it."""

    __pydantic_config__: ClassVar[Any] = SCHEMA

    key: str
    value: str = ""
    effect: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A machine that can run pods; quantities are Kubernetes strings ("64", "512Gi").

    ``ready_changed_at`` is when readiness last changed. ``draining_since`` is when people asked for the node to be
    emptied, None if nobody did. ``broken_gpus`` are the ids of GPUs that are out of service: they count in
    ``capacity`` and not in ``allocatable``. ``conditions`` is what the runtime says of the machine beyond readiness.
    """

    __pydantic_config__: ClassVar[Any] = SCHEMA
    kind: ClassVar[Kind] = Kind.NODE

    metadata: Metadata
    resource_version: int = 0
    unschedulable: bool = False
    taints: tuple[Taint, ...] = ()
    allocatable: Mapping[str, str] = field(default_factory=dict)
    capacity: Mapping[str, str] = field(default_factory=dict)
    ready: bool = True
    ready_changed_at: float = 0.0
    draining_since: float | None = None
    address: str = ""
    broken_gpus: tuple[int, ...] = ()
    conditions: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterTopologyBindingStatus:
    """What is true of a topology binding."""

    __pydantic_config__: ClassVar[Any] = SCHEMA

    observed_generation: int = 0
    conditions: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterTopologyBinding:
    """Maps abstract domains (zone, block, rack, host) to node label keys, broadest first."""

    __pydantic_config__: ClassVar[Any] = SCHEMA
    kind: ClassVar[Kind] = Kind.CLUSTER_TOPOLOGY_BINDING

    metadata: Metadata
    resource_version: int = 0
    spec: ClusterTopologyBindingSpec
    status: ClusterTopologyBindingStatus = field(default_factory=ClusterTopologyBindingStatus)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened to a resource, for people; equal ones are counted, not repeated."""

    __pydantic_config__: ClassVar[Any] = SCHEMA
    kind: ClassVar[Kind] = Kind.EVENT

    metadata: Metadata
    resource_version: int = 0
    involved_kind: Kind
    involved_name: str
    involved_uid: str = ""
    type: str = "Normal"
    reason: str
    message: str
    count: int = 1
    first_at: float
    last_at: float
