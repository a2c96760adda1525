"""What the inventory keeps of sets, cliques, groups, pods and policies, read from the server's messages.

A record holds only what deciding needs, read once when it changes: ten thousand pods are watched. Not here: how records
make up roles (``inventory``).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

import orjson
from pydantic import TypeAdapter, ValidationError

from autoscaler.policy import Policy, PolicyError, compile_policy
from grove.v1.meta_pb2 import Condition
from grove.v1.pod_clique_pb2 import PodClique
from grove.v1.pod_clique_scaling_group_pb2 import PodCliqueScalingGroup
from grove.v1.pod_clique_set_pb2 import PodCliqueSet
from grove.v1.pod_pb2 import Pod
from grove.v1.scaling_policy_pb2 import ScalingPolicy, ScalingPolicyStatus
from grove_client import to_object
from grove_client.objects import from_struct
from grove_server.resources import labels
from grove_server.resources.gpu_annotations import GPU_MILLI, GpuAnnotationError, parse_gpu_fraction
from grove_server.resources.quantity import QuantityError, parse_quantity
from grove_server.resources.scaling_policy import ScalingPolicySpec

CLIQUE: Final = "PodClique"
GROUP: Final = "PodCliqueScalingGroup"
NO_INDEX: Final = -1
_SPEC: Final = TypeAdapter(ScalingPolicySpec)
_PAGE_ANNOTATIONS: Final = "prometheus.io/"


@dataclass(frozen=True, slots=True, kw_only=True)
class CliqueShape:
    """A clique in a set's template: pods of one replica of its group (or of itself), and GPUs of one pod."""

    pods: int
    min_available: int
    gpus_per_pod: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SetSeen:
    """A set: its copies, its cliques, its groups with their cliques. ``message`` is what placement is asked with."""

    namespace: str
    name: str
    copies: int
    cliques: Mapping[str, CliqueShape]
    groups: Mapping[str, tuple[str, ...]]
    message: PodCliqueSet


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetSeen:
    """A clique or group that can be scaled. ``generation`` grows with every change of its size."""

    kind: str
    namespace: str
    name: str
    uid: str
    generation: int
    replicas: int
    min_available: int
    owner: str
    is_leaving: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PodRecord:
    """A pod. Times are epoch seconds; ``cold_start_s`` is from its place to its first readiness, None if not known."""

    namespace: str
    name: str
    set_name: str
    copy: int
    clique: str
    group: str
    group_replica: int
    is_ready: bool
    is_placed: bool
    is_leaving: bool
    has_failed: bool
    created_at: float
    cold_start_s: float | None
    ip: str
    annotations: Mapping[str, str]
    ports: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySeen:
    """A policy as the core computes with it; ``problem`` says why it cannot, ``policy`` is None then.

    ``is_stored`` is False for what a set's own configuration asks for: there is no status to write it into.
    """

    namespace: str
    name: str
    generation: int
    spec: ScalingPolicySpec | None
    policy: Policy | None
    problem: str = ""
    is_stored: bool = True
    status: ScalingPolicyStatus = field(default_factory=ScalingPolicyStatus)

    @property
    def key(self) -> str:
        """What names it in the core."""
        return f"{self.namespace}/{self.name}"


def set_of(message: PodCliqueSet) -> SetSeen:
    """Return the record of a set."""
    cliques = {}
    for clique in message.spec.template.cliques:
        pods = clique.spec.replicas
        least = clique.spec.min_available if clique.spec.HasField("min_available") else pods
        cliques[clique.name] = CliqueShape(
            pods=pods,
            min_available=min(least, pods) or 1,
            gpus_per_pod=_gpus(from_struct(clique.spec.pod_spec), clique.annotations),
        )
    return SetSeen(
        namespace=message.metadata.namespace,
        name=message.metadata.name,
        copies=0 if message.metadata.deletion_timestamp else message.spec.replicas,
        cliques=cliques,
        groups={each.name: tuple(each.clique_names) for each in message.spec.template.pod_clique_scaling_groups},
        message=message,
    )


def target_of(message: PodClique | PodCliqueScalingGroup) -> TargetSeen:
    """Return the record of a clique or group."""
    return TargetSeen(
        kind=CLIQUE if isinstance(message, PodClique) else GROUP,
        namespace=message.metadata.namespace,
        name=message.metadata.name,
        uid=message.metadata.uid,
        generation=message.metadata.generation,
        replicas=message.spec.replicas,
        min_available=message.spec.min_available,
        owner=message.status.scale_owner,
        is_leaving=bool(message.metadata.deletion_timestamp),
    )


def pod_of(message: Pod) -> PodRecord:
    """Return the record of a pod."""
    metadata, conditions = message.metadata, {each.type: each for each in message.status.conditions}
    named = metadata.labels
    ready, placed = conditions.get("Ready"), conditions.get("PodScheduled")
    draining = conditions.get("Draining")
    return PodRecord(
        namespace=metadata.namespace,
        name=metadata.name,
        set_name=named.get(labels.PART_OF, ""),
        copy=_index(named.get(labels.SET_REPLICA_INDEX, "")),
        clique=named.get(labels.POD_CLIQUE, ""),
        group=named.get(labels.SCALING_GROUP, ""),
        group_replica=_index(named.get(labels.SCALING_GROUP_REPLICA_INDEX, "")),
        is_ready=_is_true(ready),
        is_placed=_is_true(placed),
        is_leaving=bool(metadata.deletion_timestamp) or _is_true(draining),
        has_failed=message.status.phase == "Failed",
        created_at=epoch_seconds(metadata.creation_timestamp) or 0.0,
        cold_start_s=_cold_start_s(message, placed, ready),
        ip=message.status.pod_ip,
        annotations={key: value for key, value in metadata.annotations.items() if key.startswith(_PAGE_ANNOTATIONS)},
        ports=_ports(message),
    )


def policy_of(message: ScalingPolicy) -> PolicySeen:
    """Return the record of a policy; one that this program cannot read has a problem."""
    namespace, name, generation = message.metadata.namespace, message.metadata.name, message.metadata.generation
    spec: ScalingPolicySpec | None = None
    policy: Policy | None = None
    problem = ""
    try:
        # The schema is strict and tells tuples from lists; of JSON it takes what manifests have.
        spec = _SPEC.validate_json(orjson.dumps(to_object(message.spec)))
        policy = compile_policy(namespace, name, generation, spec)
    except ValidationError as error:
        first = error.errors()[0]
        problem = f"spec.{'.'.join(map(str, first['loc']))}: {first['msg']}"
    except PolicyError as error:
        problem = str(error)
    return PolicySeen(
        namespace=namespace,
        name=name,
        generation=generation,
        spec=spec,
        policy=policy,
        problem=problem,
        status=message.status,
    )


@lru_cache(maxsize=4096)
def epoch_seconds(text: str) -> float | None:
    """Return the epoch seconds of an RFC 3339 time, None for "" or what is none."""
    try:
        return dt.datetime.fromisoformat(text).timestamp() if text else None
    except ValueError:
        return None


def rfc3339(epoch_s: float) -> str:
    """Return a time such as "2026-01-02T15:04:05.678Z"."""
    return dt.datetime.fromtimestamp(epoch_s, dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _index(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else NO_INDEX


def _is_true(condition: Condition | None) -> bool:
    return condition is not None and condition.status == "True"


def _cold_start_s(message: Pod, placed: Condition | None, ready: Condition | None) -> float | None:
    """Return how long the pod took to be ready; a pod that started again says nothing of a first start."""
    if not _is_true(placed) or not _is_true(ready) or placed is None or ready is None:
        return None
    if any(status.restart_count for status in message.status.container_statuses):
        return None
    since, until = epoch_seconds(placed.last_transition_time), epoch_seconds(ready.last_transition_time)
    return None if since is None or until is None else max(0.0, until - since)


def _ports(message: Pod) -> Mapping[str, int]:
    containers = message.spec.fields.get("containers")
    found: dict[str, int] = {}
    for container in containers.list_value.values if containers is not None else ():
        ports = container.struct_value.fields.get("ports")
        for port in ports.list_value.values if ports is not None else ():
            entry = port.struct_value.fields
            if "name" in entry and "containerPort" in entry:
                found[entry["name"].string_value] = int(entry["containerPort"].number_value)
    return found


def _gpus(pod_spec: Mapping[str, object], annotations: Mapping[str, str]) -> float:
    """Return the GPUs of a pod: a share if its annotation says so, else what its containers ask for."""
    try:
        if labels.GPU_FRACTION in annotations:
            return parse_gpu_fraction(annotations[labels.GPU_FRACTION]) / GPU_MILLI
    except GpuAnnotationError:
        return 0.0
    total = 0.0
    containers = pod_spec.get("containers")
    for container in containers if isinstance(containers, list) else ():
        resources = container.get("resources") if isinstance(container, dict) else None
        asked = {**_mapping(resources, "requests"), **_mapping(resources, "limits")}
        for name, amount in asked.items():
            if name.endswith("/gpu"):
                total += _amount(amount)
    return total


def _mapping(value: object, name: str) -> Mapping[str, object]:
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, dict) else {}


def _amount(value: object) -> float:
    try:
        return float(parse_quantity(str(value)).fraction())
    except QuantityError:
        return 0.0
