"""The columns of each kind: Grove's printer columns, NAME first and AGE last, and what `-o wide` adds.

As with kubectl, a printer column of Grove whose field is not there is blank; columns of core kinds, and those that
are ours, say "<none>".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Final, Generic, NamedTuple, TypeVar, cast

from google.protobuf.message import Message

from grove.v1.cluster_topology_binding_pb2 import ClusterTopologyBinding
from grove.v1.event_pb2 import Event
from grove.v1.meta_pb2 import Condition
from grove.v1.node_pb2 import Node
from grove.v1.pod_clique_pb2 import PodClique
from grove.v1.pod_clique_scaling_group_pb2 import PodCliqueScalingGroup
from grove.v1.pod_clique_set_pb2 import PodCliqueSet
from grove.v1.pod_gang_pb2 import PodGang
from grove.v1.pod_pb2 import Pod
from grove.v1.priority_class_pb2 import PriorityClass
from grove.v1.queue_pb2 import Queue
from grove.v1.scaling_policy_pb2 import ScalingPolicy, ScalingRoleStatus
from grove.v1.topology_pb2 import ChosenDomain
from grove_client.watching import Resource
from grovectl.ages import age
from grovectl.kinds import KindInfo
from grovectl.table import BLANK, NONE, UNKNOWN

R = TypeVar("R")

GPU: Final = "nvidia.com/gpu"
GPU_IDS: Final = "grove.io/gpu-ids"
# What a container says that waits for its turn, which is no reason of its own.
_INITIALIZING: Final = "PodInitializing"
_ROLE_PREFIX: Final = "node-role.kubernetes.io/"


class Column(NamedTuple, Generic[R]):
    """One column: its title, what it shows, and whether only `-o wide` shows it."""

    title: str
    cell: Callable[[R], str]
    wide: bool = False


def count(message: Message, field: str) -> str:
    """Return an optional count, blank if the server does not give it."""
    return str(getattr(message, field)) if message.HasField(field) else BLANK


def condition_status(conditions: Iterable[Condition], kind: str, *, missing: str = NONE) -> str:
    """Return the status of the condition of type *kind*, *missing* if there is none."""
    return next((condition.status for condition in conditions if condition.type == kind), missing)


def min_breached(conditions: Iterable[Condition]) -> str:
    """Return whether fewer than the minimum are available, blank if that is not known."""
    return condition_status(conditions, "MinAvailableBreached", missing=BLANK)


def domains(chosen: Iterable[ChosenDomain], scope: str | None = None) -> str:
    """Return the chosen domains as "rack=r7,block=b1"; those of one *scope*, or each once."""
    texts = [f"{d.level or d.key}={d.domain}" for d in chosen if scope is None or d.scope == scope]
    return ",".join(dict.fromkeys(texts)) or NONE


def gang_domains(chosen: Iterable[ChosenDomain], gang: str) -> str:
    """Return the domains of the whole gang; those of its parts if it has none itself."""
    chosen = list(chosen)
    own = domains(chosen, gang)
    return domains(chosen) if own == NONE else own


def amounts(quantities: Mapping[str, str]) -> str:
    """Return quantities as "cpu=8,nvidia.com/gpu=64", sorted by resource."""
    return ",".join(f"{resource}={quantities[resource]}" for resource in sorted(quantities)) or NONE


def pod_ready(pod: Pod) -> str:
    """Return ready containers of all, as "1/2"; sidecars count, other init containers do not."""
    statuses = pod.status.container_statuses
    total = len(statuses)
    if "containers" in pod.spec.fields:
        total = len(pod.spec.fields["containers"].list_value.values)
    sidecars = _sidecars(pod)
    ready = sum(each.ready for each in pod.status.init_container_statuses if each.name in sidecars and each.started)
    return f"{sum(status.ready for status in statuses) + ready}/{total + len(sidecars)}"


def pod_restarts(pod: Pod) -> str:
    """Return the restarts that tell most, as kubectl: of all init containers until these are done, then of the rest."""
    inits = pod.status.init_container_statuses
    if _init_word(pod):
        return str(sum(status.restart_count for status in inits))
    sidecars = _sidecars(pod)
    kept = [status for status in inits if status.name in sidecars]
    return str(sum(status.restart_count for status in (*kept, *pod.status.container_statuses)))


def _sidecars(pod: Pod) -> set[str]:
    """Return the names of the init containers that go on running."""
    if "initContainers" not in pod.spec.fields:
        return set()
    listed = [value.struct_value.fields for value in pod.spec.fields["initContainers"].list_value.values]
    return {
        each["name"].string_value
        for each in listed
        if "name" in each and "restartPolicy" in each and each["restartPolicy"].string_value == "Always"
    }


def _init_word(pod: Pod) -> str:
    """Return how far the init containers are, as kubectl: "Init:1/2", "Init:CrashLoopBackOff"; empty when done."""
    if condition_status(pod.status.conditions, "Initialized") == "True":
        return ""
    sidecars = _sidecars(pod)
    statuses = pod.status.init_container_statuses
    for index, status in enumerate(statuses):
        state = status.state
        if state.HasField("terminated"):
            if state.terminated.exit_code == 0:
                continue
            return f"Init:{state.terminated.reason or f'ExitCode:{state.terminated.exit_code}'}"
        if status.name in sidecars and status.started:
            continue
        if state.waiting.reason and state.waiting.reason != _INITIALIZING:
            return f"Init:{state.waiting.reason}"
        return f"Init:{index}/{len(statuses)}"
    return ""


def pod_status(pod: Pod) -> str:
    """Return one word for the state of a pod, as kubectl does: the most telling reason, else the phase."""
    if pod.metadata.deletion_timestamp:
        return "Terminating"
    if any(condition.type == "Draining" and condition.status == "True" for condition in pod.status.conditions):
        return "Draining"
    if pod.status.reason:
        return pod.status.reason
    return _init_word(pod) or _container_word(pod) or pod.status.phase or UNKNOWN


def _container_word(pod: Pod) -> str:
    for status in pod.status.container_statuses:
        if status.state.waiting.reason:
            return status.state.waiting.reason
        if status.state.terminated.reason:
            return status.state.terminated.reason
    for condition in pod.status.conditions:
        if condition.type == "PodScheduled" and condition.reason == "SchedulingGated":
            return condition.reason
    return ""


def pod_waits(pod: Pod) -> str:
    """Return why the pod has no node, "<none>" if it has one."""
    waiting = [c.reason for c in pod.status.conditions if c.type == "PodScheduled" and c.status == "False"]
    return (waiting[0] if waiting else "") or NONE


def pod_node(pod: Pod) -> str:
    """Return the pod's node, "<none>" while it has none."""
    return (pod.spec.fields["nodeName"].string_value if "nodeName" in pod.spec.fields else "") or NONE


def node_status(node: Node) -> str:
    """Return Ready or NotReady, and whether the node is drained or cordoned."""
    ready = condition_status(node.status.conditions, "Ready")
    word = {"True": "Ready", "False": "NotReady"}.get(ready, "Unknown")
    if node.spec.draining_since:
        return f"{word},Draining"
    return f"{word},SchedulingDisabled" if node.spec.unschedulable else word


def node_roles(node: Node) -> str:
    """Return the roles that the node's labels give it."""
    roles = [key.removeprefix(_ROLE_PREFIX) for key in node.metadata.labels if key.startswith(_ROLE_PREFIX)]
    return ",".join(sorted(roles)) or NONE


def node_taints(node: Node) -> str:
    """Return the taints as Kubernetes writes them."""
    taints = [f"{t.key}={t.value}:{t.effect}" if t.value else f"{t.key}:{t.effect}" for t in node.spec.taints]
    return ",".join(taints) or NONE


def _allocatable(resource: str) -> Callable[[Node], str]:
    return lambda node: node.status.allocatable.get(resource, "") or NONE


def event_object(event: Event) -> str:
    """Return what the event is about as kind/name."""
    return f"{event.involved_object.kind.lower()}/{event.involved_object.name}"


def policy_mode(policy: ScalingPolicy) -> str:
    """Return the mode of a policy, and in which direction it rests."""
    paused = policy.spec.paused
    rests = {paused.string_value} if paused.string_value else {"both"} if paused.bool_value else set()
    rests |= {pause.direction for pause in policy.status.pauses}
    return f"{policy.spec.mode},paused={'+'.join(sorted(rests))}" if rests else policy.spec.mode


def role_sizes(policy: ScalingPolicy, size: Callable[[ScalingRoleStatus], int]) -> str:
    """Return sizes as "prefill=4,decode=6", those of all copies added up, in the order of the policy."""
    totals: dict[str, int] = {}
    for role in policy.status.roles:
        totals[role.role] = totals.get(role.role, 0) + size(role)
    order = [role.name for role in policy.spec.roles]
    known = sorted(totals, key=lambda name: (order.index(name) if name in order else len(order), name))
    return ",".join(f"{name}={totals[name]}" for name in known) or NONE


def policy_reason(policy: ScalingPolicy) -> str:
    """Return why sizes are what they are: of roles that are to change first, each reason once."""
    roles = sorted(policy.status.roles, key=lambda role: role.desired == role.current)
    reasons = [role.reason for role in roles if role.reason]
    return ",".join(dict.fromkeys(reasons[:2])) or NONE


_SET: Final[tuple[Column[PodCliqueSet], ...]] = (
    Column("REPLICAS", lambda o: count(o.spec, "replicas")),
    Column("AVAILABLE", lambda o: count(o.status, "available_replicas")),
    Column("UPDATED", lambda o: count(o.status, "updated_replicas")),
    Column("PCLQS-UPDATED", lambda o: count(o.status.update_progress, "updated_pod_cliques_count")),
    Column("PCLQS-TOTAL", lambda o: count(o.status.update_progress, "total_pod_cliques_count")),
    Column("PCSGS-UPDATED", lambda o: count(o.status.update_progress, "updated_pod_clique_scaling_groups_count")),
    Column("PCSGS-TOTAL", lambda o: count(o.status.update_progress, "total_pod_clique_scaling_groups_count")),
    Column("PHASE", lambda o: o.status.phase or NONE, wide=True),
    Column("SCALE-OWNER", lambda o: o.status.scale_owner or NONE, wide=True),
)
_CLIQUE: Final[tuple[Column[PodClique], ...]] = (
    Column("MINAVAIL", lambda o: count(o.spec, "min_available")),
    Column("REPLICAS", lambda o: count(o.spec, "replicas")),
    Column("READY", lambda o: count(o.status, "ready_replicas")),
    Column("SCHEDULED", lambda o: count(o.status, "scheduled_replicas")),
    Column("UPDATED", lambda o: count(o.status, "updated_replicas")),
    Column("GATED", lambda o: count(o.status, "schedule_gated_replicas"), wide=True),
    Column("MINBREACHED", lambda o: min_breached(o.status.conditions), wide=True),
)
_GROUP: Final[tuple[Column[PodCliqueScalingGroup], ...]] = (
    Column("MINAVAIL", lambda o: count(o.spec, "min_available")),
    Column("REPLICAS", lambda o: count(o.spec, "replicas")),
    Column("AVAILABLE", lambda o: count(o.status, "available_replicas")),
    Column("SCHEDULED", lambda o: count(o.status, "scheduled_replicas")),
    Column("UPDATED", lambda o: count(o.status, "updated_replicas")),
    Column("PCLQS-UPDATED", lambda o: count(o.status.update_progress, "updated_pod_cliques_count")),
    Column("PCLQS-TOTAL", lambda o: count(o.status.update_progress, "total_pod_cliques_count")),
    Column("MINBREACHED", lambda o: min_breached(o.status.conditions), wide=True),
)
_GANG: Final[tuple[Column[PodGang], ...]] = (
    Column("PHASE", lambda o: o.status.phase or BLANK),
    Column("READY", lambda o: condition_status(o.status.conditions, "Ready"), wide=True),
    Column("PODS", lambda o: str(sum(len(group.pod_references) for group in o.spec.podgroups)), wide=True),
    Column("REASON", lambda o: o.status.reason or NONE, wide=True),
    Column(
        "SCORE",
        lambda o: f"{o.status.placement_score:.2f}" if o.status.HasField("placement_score") else NONE,
        wide=True,
    ),
    Column("PRIORITY", lambda o: count(o.spec, "priority"), wide=True),
    Column("TOPOLOGY", lambda o: gang_domains(o.status.topology, o.metadata.name), wide=True),
)
_POD: Final[tuple[Column[Pod], ...]] = (
    Column("READY", pod_ready),
    Column("STATUS", pod_status),
    Column("RESTARTS", pod_restarts),
    Column("IP", lambda o: o.status.pod_ip or NONE, wide=True),
    Column("NODE", pod_node, wide=True),
    Column("GPUS", lambda o: o.metadata.annotations.get(GPU_IDS, "") or NONE, wide=True),
    Column("REASON", pod_waits, wide=True),
)
_NODE: Final[tuple[Column[Node], ...]] = (
    Column("STATUS", node_status),
    Column("ROLES", node_roles),
    Column("GPUS", _allocatable(GPU)),
    Column("CPU", _allocatable("cpu"), wide=True),
    Column("MEMORY", _allocatable("memory"), wide=True),
    Column("TAINTS", node_taints, wide=True),
)
_BINDING: Final[tuple[Column[ClusterTopologyBinding], ...]] = (
    Column("DOMAINS", lambda o: ",".join(level.domain for level in o.spec.levels) or NONE),
    Column("KEYS", lambda o: ",".join(level.key for level in o.spec.levels) or NONE, wide=True),
)
_PRIORITY_CLASS: Final[tuple[Column[PriorityClass], ...]] = (
    Column("VALUE", lambda o: count(o, "value")),
    Column("GLOBAL-DEFAULT", lambda o: str(o.global_default).lower()),
    Column("PREEMPTION", lambda o: o.preemption_policy or NONE),
    Column("DESCRIPTION", lambda o: " ".join(o.description.split()) or NONE, wide=True),
)
_QUEUE: Final[tuple[Column[Queue], ...]] = (
    Column("PARENT", lambda o: o.spec.parent or NONE),
    Column("GUARANTEE", lambda o: amounts(o.spec.guarantee)),
    Column("LIMIT", lambda o: amounts(o.spec.limit)),
    Column("USED", lambda o: amounts(o.status.used)),
    Column("PENDING", lambda o: count(o.status, "pending_gang_count")),
    Column("RUNNING", lambda o: count(o.status, "running_gang_count"), wide=True),
    Column("FAIR-SHARE", lambda o: amounts(o.status.fair_share), wide=True),
    Column("WEIGHT", lambda o: f"{o.spec.weight:g}" if o.spec.HasField("weight") else NONE, wide=True),
    Column("PRIORITY", lambda o: count(o.spec, "priority"), wide=True),
    Column("BLOCKING", lambda o: o.spec.blocking or NONE, wide=True),
    Column("EARMARK-AFTER", lambda o: o.spec.earmark_after or NONE, wide=True),
)
_POLICY: Final[tuple[Column[ScalingPolicy], ...]] = (
    Column("SET", lambda o: o.spec.pod_clique_set or NONE),
    Column("MODE", policy_mode),
    Column("CURRENT", lambda o: role_sizes(o, lambda role: role.current)),
    Column("DESIRED", lambda o: role_sizes(o, lambda role: role.desired)),
    Column("REASON", policy_reason),
    Column("ENGINE", lambda o: o.spec.engine or NONE, wide=True),
    Column("ROLES", lambda o: ",".join(role.name for role in o.spec.roles) or NONE, wide=True),
    Column("GPUS-MAX", lambda o: count(o.spec.budget, "gpus") or NONE, wide=True),
    Column("AUTOSCALER", lambda o: o.status.autoscaler or NONE, wide=True),
)
_EVENT: Final[tuple[Column[Event], ...]] = (
    Column("TYPE", lambda o: o.type or NONE),
    Column("REASON", lambda o: o.reason or NONE),
    Column("OBJECT", event_object),
    Column("COUNT", lambda o: count(o, "count") or "1"),
    Column("MESSAGE", lambda o: " ".join(o.message.split()) or NONE, wide=True),
)
_COLUMNS: Final = {
    "PodCliqueSet": _SET,
    "PodClique": _CLIQUE,
    "PodCliqueScalingGroup": _GROUP,
    "PodGang": _GANG,
    "Pod": _POD,
    "Node": _NODE,
    "ClusterTopologyBinding": _BINDING,
    "PriorityClass": _PRIORITY_CLASS,
    "Queue": _QUEUE,
    "ScalingPolicy": _POLICY,
    "Event": _EVENT,
}


class Layout:
    """The table of one kind: which columns it has, and the cells of a resource."""

    def __init__(self, info: KindInfo, *, wide: bool, all_namespaces: bool, qualified: bool = False) -> None:
        columns = cast("tuple[Column[Resource], ...]", _COLUMNS[info.kind])
        self._columns = [column for column in columns if wide or not column.wide]
        self._with_namespace = all_namespaces and info.is_namespaced
        self._prefix = f"{info.qualified}/" if qualified else ""
        namespace = ("NAMESPACE",) if self._with_namespace else ()
        self.titles = (*namespace, "NAME", *(column.title for column in self._columns), "AGE")

    def row(self, resource: Resource, now: datetime) -> list[str]:
        """Return the cells of one resource at *now*."""
        metadata = resource.metadata
        cells = [metadata.namespace] if self._with_namespace else []
        cells.append(self._prefix + metadata.name)
        cells.extend(column.cell(resource) for column in self._columns)
        cells.append(age(metadata.creation_timestamp, now))
        return cells
