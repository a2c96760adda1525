"""The workload's resources: the set a user writes and the tree the server makes of it.

Identity is stored, never parsed from a name: each child knows its set, copy, group, group replica, clique and index.
A pod points at a shared, content-hashed PodTemplate; the full Kubernetes shape is built when it is shown.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from grove_server.resources.containers import ContainerStatus
from grove_server.resources.gang_parts import LevelConstraint, PodGroup, TopologyGroup
from grove_server.resources.manifest import (
    AutoScalingConfig,
    PodCliqueSetSpec,
    TopologyConstraint,
)
from grove_server.resources.meta import SCHEMA, Condition, Kind, Metadata, empty_map
from grove_server.resources.reference import TemplateReference
from grove_server.resources.rollout import CliqueUpdate, GroupUpdate, UpdateProgress

PREEMPT_LOWER: Final = "PreemptLowerPriority"
NO_GROUP_REPLICA: Final = -1

# Why a pod with a node does not serve, where both those who decide and those who run pods have to know.
WAITING_FOR_PARENTS: Final = "WaitingForParents"
CRASH_LOOP_BACK_OFF: Final = "CrashLoopBackOff"
NODE_NOT_READY: Final = "NodeNotReady"


class ScaleOwner(enum.StrEnum):
    """Who set the live size of a target last."""

    SPEC = "spec"
    USER = "user"
    AUTOSCALER = "autoscaler"


class PodPhase(enum.StrEnum):
    """Kubernetes pod phases."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class GangPhase(enum.StrEnum):
    """Grove's gang phases; here they are true."""

    PENDING = "Pending"
    STARTING = "Starting"
    RUNNING = "Running"
    FAILED = "Failed"
    SUCCEEDED = "Succeeded"


class SetPhase(enum.StrEnum):
    """Where a set stands as a whole."""

    PENDING = "Pending"
    STARTING = "Starting"
    RUNNING = "Running"
    SCALING = "Scaling"
    DEGRADED = "Degraded"
    IDLE = "Idle"
    DELETING = "Deleting"


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """The template a set currently wants: one hash for all cliques and one per clique."""

    __pydantic_config__: ClassVar[Any] = SCHEMA

    hash: str = ""
    clique_hashes: Mapping[str, str] = field(default_factory=empty_map)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recycle:
    """A gang termination that happened: to which scope ("Copy" or "GroupReplica"), why, and which one in a row."""

    __pydantic_config__: ClassVar[Any] = SCHEMA

    at: float
    scope: str
    group_replica: int = NO_GROUP_REPLICA
    message: str
    count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class GangSummary:
    """One gang as shown in the status of its set."""

    __pydantic_config__: ClassVar[Any] = SCHEMA

    name: str
    phase: GangPhase
    reason: str = ""
    conditions: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PodCliqueSetStatus:
    """What is true of a set; ``pod_gang_statuses`` is bounded, ``pod_gang_phase_counts`` counts all.

    ``current_generation_hash`` is the revision that copies are led to, ``current_clique_hashes`` its parts; they follow
    the set's revision when an update begins.
    """

    __pydantic_config__: ClassVar[Any] = SCHEMA

    observed_generation: int = 0
    phase: SetPhase = SetPhase.PENDING
    conditions: tuple[Condition, ...] = ()
    replicas: int = 0
    available_replicas: int = 0
    updated_replicas: int = 0
    hpa_pod_selector: str = ""
    current_generation_hash: str = ""
    current_clique_hashes: Mapping[str, str] = field(default_factory=empty_map)
    update_progress: UpdateProgress | None = None
    pod_gang_statuses: tuple[GangSummary, ...] = ()
    pod_gang_phase_counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PodCliqueSet:
    """A whole serving system; ``spec`` is fully defaulted.

    ``applied_replicas`` maps scale targets (``""`` the set, ``group/x``, ``clique/x``) to the value the last applied
    manifest gave, None if it left it out: applying the same value again must not undo a scale call. ``revised_at`` is
    when the revision last changed and ``paused_at`` since when updates rest, ``resumed_at`` when they last
    stopped resting, in epoch seconds; ``rolled_back_from`` is the revision that was left because its update was stuck.
    """

    __pydantic_config__: ClassVar[Any] = SCHEMA
    kind: ClassVar[Kind] = Kind.POD_CLIQUE_SET

    metadata: Metadata
    resource_version: int = 0
    spec: PodCliqueSetSpec
    revision: Revision = field(default_factory=Revision)
    revised_at: float = 0.0
    paused_at: float | None = None
    resumed_at: float | None = None
    rolled_back_from: str = ""
    applied_replicas: Mapping[str, int | None] = field(default_factory=dict)
    scale_owner: ScaleOwner = ScaleOwner.SPEC
    status: PodCliqueSetStatus = field(default_factory=PodCliqueSetStatus)


@dataclass(frozen=True, slots=True, kw_only=True)
class PodTemplate:
    """What one clique's pods run, shared by all pods of the same content; never served by itself.

    ``hash`` is the ``grove.io/pod-template-hash``; ``restart_hash`` covers what cannot change without a restart.
    """

    __pydantic_config__: ClassVar[Any] = SCHEMA
    kind: ClassVar[Kind] = Kind.POD_TEMPLATE

    metadata: Metadata
    resource_version: int = 0
    clique: str
    hash: str
    restart_hash: str = ""
    labels: Mapping[str, str] = field(default_factory=empty_map)
    annotations: Mapping[str, str] = field(default_factory=empty_map)
    pod_spec: Mapping[str, Any]
    priority_class_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CliqueIdentity:
    """Where a clique stands in its set's tree; shared by the clique and all of its pods.

    ``group`` is empty and ``group_replica`` is -1 for a standalone clique. ``gang`` is the gang its pods belong to;
    ``base_gang`` is set only where that is a scaled gang. ``group`` is the template's name and ``group_name`` the
    PodCliqueScalingGroup's; ``group_pod_count`` is the template's number of pods in one group replica and
    ``group_pod_offset`` the number in the cliques listed before this one.
    """

    __pydantic_config__: ClassVar[Any] = SCHEMA

    set_name: str
    set_uid: str
    copy: int
    group: str = ""
    group_name: str = ""
    group_replica: int = NO_GROUP_REPLICA
    clique: str
    name: str
    gang: str
    base_gang: str = ""
    headless_service: str
    group_pod_count: int = 0
    group_pod_offset: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PodCliqueStatus:
    """What is true of a clique; pods that are terminating count nowhere but in ``terminating_replicas``.

    ``current_set_hash`` is the revision of the set, and ``current_pod_template_hash`` the template, that all its pods
    last had; a group's is that of all its cliques.
    ``first_scheduled_at`` is when it first had its minimum on nodes since it was made or recycled. ``recycled_at`` is
    when gang termination last replaced its pods, ``recycle_count`` how often that happened in a row.
    """

    __pydantic_config__: ClassVar[Any] = SCHEMA

    observed_generation: int = 0
    replicas: int = 0
    ready_replicas: int = 0
    updated_replicas: int = 0
    schedule_gated_replicas: int = 0
    scheduled_replicas: int = 0
    terminating_replicas: int = 0
    hpa_pod_selector: str = ""
    conditions: tuple[Condition, ...] = ()
    current_set_hash: str = ""
    current_pod_template_hash: str = ""
    update_progress: CliqueUpdate | None = None
    first_scheduled_at: float | None = None
    recycled_at: float | None = None
    recycle_count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PodClique:
    """Identical pods in one role.

    ``template_replicas`` is the template's size that this clique last followed; ``pod_serial`` counts the pods ever
    created, so that names derived from it never repeat.
    """

    __pydantic_config__: ClassVar[Any] = SCHEMA
    kind: ClassVar[Kind] = Kind.POD_CLIQUE

    metadata: Metadata
    resource_version: int = 0
    identity: CliqueIdentity
    template: TemplateReference
    role_name: str = ""
    replicas: int
    min_available: int
    starts_after: tuple[str, ...] = ()
    auto_scaling_config: AutoScalingConfig | None = None
    topology_constraint: TopologyConstraint | None = None
    scale_owner: ScaleOwner = ScaleOwner.SPEC
    template_replicas: int = 0
    pod_serial: int = 0
    status: PodCliqueStatus = field(default_factory=PodCliqueStatus)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingGroupStatus:
    """What is true of a group, counted in group replicas; ``recycles`` are those of its replicas, newest last."""

    __pydantic_config__: ClassVar[Any] = SCHEMA

    observed_generation: int = 0
    replicas: int = 0
    scheduled_replicas: int = 0
    available_replicas: int = 0
    updated_replicas: int = 0
    selector: str = ""
    conditions: tuple[Condition, ...] = ()
    current_set_hash: str = ""
    update_progress: GroupUpdate | None = None
    first_available_at: float | None = None
    recycles: tuple[Recycle, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PodCliqueScalingGroup:
    """Cliques of one copy that scale together."""

    __pydantic_config__: ClassVar[Any] = SCHEMA
    kind: ClassVar[Kind] = Kind.POD_CLIQUE_SCALING_GROUP

    metadata: Metadata
    resource_version: int = 0
    set_name: str
    set_uid: str
    copy: int
    group: str
    clique_names: tuple[str, ...]
    replicas: int
    min_available: int
    scale_config: AutoScalingConfig | None = None
    topology_constraint: TopologyConstraint | None = None
    scale_owner: ScaleOwner = ScaleOwner.SPEC
    template_replicas: int = 0
    status: ScalingGroupStatus = field(default_factory=ScalingGroupStatus)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenDomain:
    """The domain a scope of a gang was placed in; ``scope`` is the gang, group replica or clique name."""

    __pydantic_config__: ClassVar[Any] = SCHEMA

    scope: str
    level: str
    key: str
    domain: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NominatedPlace:
    """The place that one pod of a pod group is going to have."""

    __pydantic_config__: ClassVar[Any] = SCHEMA

    pod_group: str
    node: str
    gpu_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Nomination:
    """Places that are kept for a gang until those who sit there are gone.

    ``part`` is the part of the gang they are for: its own name, or that of a group replica, group or clique.
    """

    __pydantic_config__: ClassVar[Any] = SCHEMA

    part: str
    at: float
    score: float = 0.0
    places: tuple[NominatedPlace, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PodGangStatus:
    """What is true of a gang. ``reason`` and ``message`` say what it waits for while it is not placed.

    ``first_ready_at`` is when its minimum first served; it stays. ``recycles`` of a base gang are those of its whole
    copy, newest last. ``nomination`` is set while others leave for it.
    """

    __pydantic_config__: ClassVar[Any] = SCHEMA

    phase: GangPhase = GangPhase.PENDING
    conditions: tuple[Condition, ...] = ()
    placement_score: float | None = None
    reason: str = ""
    message: str = ""
    topology: tuple[ChosenDomain, ...] = ()
    scheduled_at: float | None = None
    ready_at: float | None = None
    first_ready_at: float | None = None
    recycles: tuple[Recycle, ...] = ()
    nomination: Nomination | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PodGang:
    """Pods that are placed together: the base gang of a copy, or one scaled gang per group replica beyond the minimum.

    ``topology_error`` is set when a constraint cannot be translated (its binding or level is gone):
    the gang then waits. ``priority`` and ``preemption_policy`` are what its class, or the default one, stands for.
    """

    __pydantic_config__: ClassVar[Any] = SCHEMA
    kind: ClassVar[Kind] = Kind.POD_GANG

    metadata: Metadata
    resource_version: int = 0
    set_name: str
    set_uid: str
    copy: int
    group: str = ""
    group_replica: int = NO_GROUP_REPLICA
    base_gang: str = ""
    set_created_at: float = 0.0
    pod_groups: tuple[PodGroup, ...]
    topology_constraint: LevelConstraint | None = None
    topology_groups: tuple[TopologyGroup, ...] = ()
    topology_name: str = ""
    topology_error: str = ""
    priority_class_name: str = ""
    priority: int = 0
    preemption_policy: str = PREEMPT_LOWER
    status: PodGangStatus = field(default_factory=PodGangStatus)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """One pod.

    ``group_index`` is its number among the pods of its group replica where that is not the template's: the offset of
    its clique and its index. ``scheduled_at`` and ``ready_at`` are when the condition last became true, None while it
    is not; ``unready_at`` is when Ready last became false; ``started_at`` is when its containers last started;
    ``finished_at`` is when it failed or succeeded for good. ``attempt`` counts the predecessors at its index that
    finished one after the other.
    ``is_ordered`` says that its clique starts after others: its containers start only once ``released_at`` is set, and
    whoever runs it takes that back (None) when they ended and have to start again.
    ``draining_at`` is when routers were told to leave it, ``drain_deadline`` when it is stopped although not all of
    them acknowledged; ``stop_reason`` says why it was stopped. ``previous_node`` is where its predecessor at this
    index ran.
    ``host_ip`` is its node's address when its containers last started, empty if that is not known.
    ``waiting_reason`` says why the pod has no node, or, with a node, why it does not serve (CrashLoopBackOff,
    NodeNotReady, WaitingForParents); a pod in phase Running whose ``started_at`` is None waits for its next start.
    ``containers`` are the states of the single containers and ``conditions`` what else its runtime says of it, empty
    where a runtime knows only pods.
    """

    __pydantic_config__: ClassVar[Any] = SCHEMA
    kind: ClassVar[Kind] = Kind.POD

    metadata: Metadata
    resource_version: int = 0
    identity: CliqueIdentity
    index: int
    group_index: int | None = None
    attempt: int = 0
    template: TemplateReference
    node: str = ""
    gpu_ids: tuple[int, ...] = ()
    phase: PodPhase = PodPhase.PENDING
    waiting_reason: str = ""
    waiting_message: str = ""
    scheduled_at: float | None = None
    started_at: float | None = None
    ready_at: float | None = None
    unready_at: float | None = None
    finished_at: float | None = None
    is_ordered: bool = False
    released_at: float | None = None
    draining_at: float | None = None
    drain_deadline: float | None = None
    drain_acks: tuple[str, ...] = ()
    stop_reason: str = ""
    previous_node: str = ""
    pod_ip: str = ""
    host_ip: str = ""
    restart_count: int = 0
    last_exit_code: int | None = None
    containers: tuple[ContainerStatus, ...] = ()
    conditions: tuple[Condition, ...] = ()

    @property
    def is_terminating(self) -> bool:
        """Whether the pod was asked to stop."""
        return self.metadata.deleted_at is not None

    @property
    def is_draining(self) -> bool:
        """Whether routers were told to leave the pod; it still runs."""
        return self.draining_at is not None

    @property
    def is_active(self) -> bool:
        """Whether the pod counts towards its clique: neither draining, stopping nor finished."""
        return (
            self.metadata.deleted_at is None
            and self.draining_at is None
            and self.phase not in (PodPhase.FAILED, PodPhase.SUCCEEDED)
        )

    @property
    def is_scheduled(self) -> bool:
        """Whether the pod has a node."""
        return self.node != ""

    @property
    def is_held(self) -> bool:
        """Whether start order does not let the pod's containers start."""
        return self.is_ordered and self.released_at is None

    @property
    def is_ready(self) -> bool:
        """Whether the pod serves."""
        return self.ready_at is not None
