"""The schema users write: PodCliqueSet and ClusterTopologyBinding, field by field as Grove publishes them.

These are plain frozen dataclasses. ``parse_*`` reads JSON bytes strictly (``schema``): unknown fields and wrong types
are errors with their path, all of them at once. Optional counts are ``None`` when the manifest leaves them out, because
"left out" and "zero" mean different things on a second apply. Meaning (defaults, rules between fields) lives in
``admission``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from grove_server.resources.meta import SCHEMA, empty_map

STARTUP_ANY_ORDER: Final = "CliqueStartupTypeAnyOrder"
STARTUP_IN_ORDER: Final = "CliqueStartupTypeInOrder"
STARTUP_EXPLICIT: Final = "CliqueStartupTypeExplicit"
STARTUP_TYPES: Final = (STARTUP_ANY_ORDER, STARTUP_IN_ORDER, STARTUP_EXPLICIT)
ROLLING_RECREATE: Final = "RollingRecreate"
ON_DELETE: Final = "OnDelete"
COHERENT: Final = "Coherent"
UPDATE_STRATEGIES: Final = (ROLLING_RECREATE, ON_DELETE, COHERENT)
SHARING_SCOPES: Final = ("AllReplicas", "PerReplica")
TERMINATION_NEVER: Final = "never"


@dataclass(frozen=True, slots=True, kw_only=True)
class PackConstraint:
    """Topology domains to pack into: ``required`` is strict, ``preferred`` is tried first."""

    __pydantic_config__: ClassVar[Any] = SCHEMA

    required: str | None = None
    preferred: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TopologyConstraint:
    """Where the pods of a scope must or should stay together; ``pack_domain`` is the deprecated form of required."""

    __pydantic_config__: ClassVar[Any] = SCHEMA

    topology_name: str | None = None
    pack: PackConstraint | None = None
    pack_domain: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SharingFilter:
    """Which children of the scope take part in a shared resource claim."""

    __pydantic_config__: ClassVar[Any] = SCHEMA

    child_clique_names: tuple[str, ...] = ()
    child_scaling_group_names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceSharing:
    """A resource claim shared by the pods of a scope (acted on by Kubernetes only)."""

    __pydantic_config__: ClassVar[Any] = SCHEMA

    name: str
    namespace: str | None = None
    scope: str
    filter: SharingFilter | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceClaimTemplate:
    """A named claim template inside a set (acted on by Kubernetes only)."""

    __pydantic_config__: ClassVar[Any] = SCHEMA

    name: str
    template_spec: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoScalingConfig:
    """Bounds and metrics for scaling a clique or group automatically."""

    __pydantic_config__: ClassVar[Any] = SCHEMA

    min_replicas: int | None = None
    max_replicas: int | None = None
    metrics: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PodCliqueSpec:
    """What one clique runs and how many; ``pod_spec`` is a Kubernetes PodSpec kept as given."""

    __pydantic_config__: ClassVar[Any] = SCHEMA

    role_name: str | None = None
    pod_spec: Mapping[str, Any]
    replicas: int | None = None
    min_available: int | None = None
    starts_after: tuple[str, ...] = ()
    auto_scaling_config: AutoScalingConfig | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitBudget:
    """How many units (pods or group replicas) an update may take or add at a time: a number, or a share like "25%"."""

    __pydantic_config__: ClassVar[Any] = SCHEMA

    max_unavailable: int | str | None = None
    max_surge: int | str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CliqueTemplate:
    """One clique of a set."""

    __pydantic_config__: ClassVar[Any] = SCHEMA

    name: str
    labels: Mapping[str, str] = field(default_factory=empty_map)
    annotations: Mapping[str, str] = field(default_factory=empty_map)
    topology_constraint: TopologyConstraint | None = None
    resource_sharing: tuple[ResourceSharing, ...] = ()
    rolling_update: UnitBudget | None = None
    spec: PodCliqueSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingGroupTemplate:
    """Cliques that scale together as one unit."""

    __pydantic_config__: ClassVar[Any] = SCHEMA

    name: str
    clique_names: tuple[str, ...]
    annotations: Mapping[str, str] = field(default_factory=empty_map)
    replicas: int | None = None
    min_available: int | None = None
    scale_config: AutoScalingConfig | None = None
    resource_sharing: tuple[ResourceSharing, ...] = ()
    topology_constraint: TopologyConstraint | None = None
    rolling_update: UnitBudget | None = None
    termination_delay: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadlessServiceConfig:
    """Settings of the per-copy headless service."""

    __pydantic_config__: ClassVar[Any] = SCHEMA

    publish_not_ready_addresses: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class RollingUpdate:
    """Budgets for cliques and groups that give none, and when an update counts as stuck."""

    __pydantic_config__: ClassVar[Any] = SCHEMA

    max_unavailable: int | str | None = None
    max_surge: int | str | None = None
    progress_deadline: str | None = None
    auto_rollback: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateStrategy:
    """How a template change reaches running pods."""

    __pydantic_config__: ClassVar[Any] = SCHEMA

    type: str | None = None
    rolling_update: RollingUpdate | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PodCliqueSetTemplate:
    """One copy of the serving system."""

    __pydantic_config__: ClassVar[Any] = SCHEMA

    cliques: tuple[CliqueTemplate, ...]
    clique_startup_type: str | None = None
    priority_class_name: str | None = None
    headless_service_config: HeadlessServiceConfig | None = None
    topology_constraint: TopologyConstraint | None = None
    termination_delay: str | None = None
    resource_claim_templates: tuple[ResourceClaimTemplate, ...] = ()
    resource_sharing: tuple[ResourceSharing, ...] = ()
    pod_clique_scaling_groups: tuple[ScalingGroupTemplate, ...] = ()

    def clique(self, name: str) -> CliqueTemplate | None:
        """Return the clique template called *name*."""
        return next((c for c in self.cliques if c.name == name), None)

    def group_of(self, clique: str) -> ScalingGroupTemplate | None:
        """Return the scaling group that *clique* belongs to, or None if it is standalone."""
        return next((g for g in self.pod_clique_scaling_groups if clique in g.clique_names), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class PodCliqueSetSpec:
    """A whole serving system: how many copies, and what one copy is."""

    __pydantic_config__: ClassVar[Any] = SCHEMA

    replicas: int | None = None
    update_strategy: UpdateStrategy | None = None
    template: PodCliqueSetTemplate


@dataclass(frozen=True, slots=True, kw_only=True)
class TopologyLevel:
    """One level of a topology: an abstract domain and the node label that holds its instances."""

    __pydantic_config__: ClassVar[Any] = SCHEMA

    domain: str
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerTopologyBinding:
    """A scheduler's own topology object that these levels are compared with."""

    __pydantic_config__: ClassVar[Any] = SCHEMA

    scheduler_name: str
    topology_reference: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterTopologyBindingSpec:
    """Levels, broadest first."""

    __pydantic_config__: ClassVar[Any] = SCHEMA

    levels: tuple[TopologyLevel, ...]
    scheduler_topology_bindings: tuple[SchedulerTopologyBinding, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestMetadata:
    """The metadata a manifest may carry; fields the server owns are accepted, so that printed output can be applied."""

    __pydantic_config__: ClassVar[Any] = SCHEMA

    name: str
    namespace: str | None = None
    labels: Mapping[str, str] | None = None
    annotations: Mapping[str, str] | None = None
    resource_version: str | None = None
    uid: str | None = None
    generation: int | None = None
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    owner_references: tuple[Mapping[str, Any], ...] | None = None
    finalizers: tuple[str, ...] | None = None
    managed_fields: tuple[Mapping[str, Any], ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PodCliqueSetManifest:
    """A PodCliqueSet document; ``status`` is accepted and ignored."""

    __pydantic_config__: ClassVar[Any] = SCHEMA

    api_version: str
    kind: str
    metadata: ManifestMetadata
    spec: PodCliqueSetSpec
    status: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterTopologyBindingManifest:
    """A ClusterTopologyBinding document; ``status`` is accepted and ignored."""

    __pydantic_config__: ClassVar[Any] = SCHEMA

    api_version: str
    kind: str
    metadata: ManifestMetadata
    spec: ClusterTopologyBindingSpec
    status: Mapping[str, Any] | None = None
