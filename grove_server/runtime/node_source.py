"""Nodes from a cluster file: Kubernetes Node manifests, and the NodePool short form that stands for many alike. Pure.

A Node manifest is read as a cluster prints it: what the server does not use is ignored, so that the nodes of a real
cluster can be replayed. A NodePool is our own form and read strictly.

Not here: where the documents come from and what else may stand in the file (``cluster_file``), and keeping the store's
nodes equal to it (``cluster_seed``).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from grove_server.resources.cluster import Node, Taint
from grove_server.resources.gpu_annotations import GpuAnnotationError, parse_gpu_islands
from grove_server.resources.labels import GPU_ISLANDS, label_key_problem, label_value_problem
from grove_server.resources.meta import Metadata
from grove_server.resources.names import dns_label_problem, dns_subdomain_problem
from grove_server.resources.violations import quoted
from grove_server.runtime.fields import Fields

NODES_MAX: Final = 200_000
LEVELS_MAX: Final = 16
HOSTNAME_KEY: Final = "kubernetes.io/hostname"
TAINT_EFFECTS: Final = ("NoSchedule", "PreferNoSchedule", "NoExecute")
# The kubelet's default for the number of pods on a node.
PODS_DEFAULT: Final = "110"

# Nodes without an address of their own get one from 172.16.0.0/12, in the order of the file; it holds 2^20, more than
# NODES_MAX.
_FIRST_ADDRESS: Final = int(ipaddress.IPv4Address("172.16.0.1"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """One topology level of a pool: the label, and how many domains each domain above is divided into."""

    key: str
    fan_out: int
    name_prefix: str


def node_address(ordinal: int) -> str:
    """Return the address of the file's node number *ordinal*, counted from 0."""
    number = _FIRST_ADDRESS + ordinal
    return f"{number >> 24}.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


def read_node(document: Fields, ordinal: int, *, needs_amounts: bool = True) -> Node:
    """Return the node of a v1 Node manifest, the file's node number *ordinal*; it may have to say what there is."""
    metadata = document.child("metadata", is_required=True)
    name = metadata.text("name")
    _check_node_name(metadata, name)
    spec = document.child("spec")
    status = document.child("status")
    capacity = status.quantities("capacity")
    allocatable = status.quantities("allocatable") or capacity
    if not allocatable and needs_amounts:
        status.complain("allocatable", "is required: what pods can use of the node")
    return Node(
        metadata=Metadata(
            name=name,
            labels={HOSTNAME_KEY: name, **metadata.labels("labels")},
            annotations=_read_annotations(metadata),
        ),
        unschedulable=spec.flag("unschedulable"),
        taints=_read_taints(spec),
        allocatable=_with_pods(allocatable),
        capacity=_with_pods(capacity or allocatable),
        ready=_is_ready(status),
        address=_internal_address(status) or node_address(ordinal),
    )


def read_pool(document: Fields, first_ordinal: int, nodes_max: int) -> list[Node]:
    """Return the nodes of a NodePool, at most *nodes_max*; they are the file's from number *first_ordinal* on."""
    document.refuse_others(("apiVersion", "kind", "metadata", "spec"))
    metadata = document.child("metadata", is_required=True)
    metadata.refuse_others(("name",))
    pool = metadata.text("name")
    spec = document.child("spec", is_required=True)
    spec.refuse_others(("count", "namePrefix", "allocatable", "labels", "annotations", "taints", "topology"))
    count = spec.number("count", least=1, most=max(nodes_max, 1))
    prefix = spec.text("namePrefix", default=f"{pool}-")
    _check_node_name(spec if "namePrefix" in spec.values else metadata, f"{prefix}{count - 1}", of_pool=True)
    allocatable = spec.quantities("allocatable")
    if not allocatable:
        spec.complain("allocatable", "is required: what pods can use of each node")
    labels = spec.labels("labels")
    levels = tuple(_read_levels(spec, labels, count))
    if HOSTNAME_KEY in labels:
        spec.complain(f"labels[{HOSTNAME_KEY}]", "must not be given: each node gets its own name")
    annotations = _read_annotations(spec)
    taints = _read_taints(spec)
    resources = _with_pods(allocatable)
    return [
        Node(
            metadata=Metadata(
                name=f"{prefix}{index}",
                labels={**labels, **_domains(levels, index, count), HOSTNAME_KEY: f"{prefix}{index}"},
                annotations=annotations,
            ),
            taints=taints,
            allocatable=resources,
            capacity=resources,
            address=node_address(first_ordinal + index),
        )
        for index in range(count)
    ]


def _check_node_name(fields: Fields, name: str, *, of_pool: bool = False) -> None:
    if not name:
        return
    # A pool's names are labels too (kubernetes.io/hostname); a real cluster's nodes may be called by their full name.
    problem = dns_label_problem(name) if of_pool else dns_subdomain_problem(name)
    if problem is not None:
        key = "namePrefix" if of_pool and "namePrefix" in fields.values else "name"
        fields.complain(key, f"the node name {quoted(name)} {problem}")


def _read_annotations(fields: Fields) -> dict[str, str]:
    annotations = fields.annotations("annotations")
    if GPU_ISLANDS in annotations:
        try:
            parse_gpu_islands(annotations[GPU_ISLANDS])
        except GpuAnnotationError as error:
            fields.complain(f"annotations[{GPU_ISLANDS}]", str(error))
    return annotations


def _with_pods(resources: Mapping[str, str]) -> Mapping[str, str]:
    return resources if "pods" in resources else {**resources, "pods": PODS_DEFAULT}


def _read_taints(spec: Fields) -> tuple[Taint, ...]:
    taints = []
    for item in spec.children("taints"):
        key = item.text("key")
        value = item.text("value", default="")
        effect = item.text("effect")
        for name, problem in (("key", key and label_key_problem(key)), ("value", label_value_problem(value))):
            if problem:
                item.complain(name, problem)
        if effect and effect not in TAINT_EFFECTS:
            item.complain("effect", f"must be one of {', '.join(TAINT_EFFECTS)}, got {quoted(effect)}")
        taints.append(Taint(key=key, value=value, effect=effect))
    return tuple(taints)


def _is_ready(status: Fields) -> bool:
    """Return what the Ready condition says; a manifest without one describes a node in order."""
    return all(
        condition.values.get("status") == "True"
        for condition in status.children("conditions")
        if condition.values.get("type") == "Ready"
    )


def _internal_address(status: Fields) -> str:
    for item in status.children("addresses"):
        if item.values.get("type") == "InternalIP":
            return item.text("address", default="")
    return ""


def _read_levels(spec: Fields, labels: Mapping[str, str], count: int) -> Iterator[Level]:
    keys: set[str] = set()
    domains = 1
    for depth, item in enumerate(spec.children("topology")):
        if depth == LEVELS_MAX:
            spec.complain("topology", f"must have at most {LEVELS_MAX} levels")
            return
        key = item.text("key")
        problem = label_key_problem(key) if key else None
        if key == HOSTNAME_KEY:
            problem = "must not be a level: each node gets its own name"
        elif key in labels:
            problem = f"the label {quoted(key)} is given under labels as well"
        elif key in keys:
            problem = f"the label {quoted(key)} is given twice"
        if problem is not None:
            item.complain("key", problem)
        keys.add(key)
        fan_out_key = "perParent" if depth else "count"
        item.refuse_others(("key", fan_out_key, "namePrefix"))
        fan_out = item.number(fan_out_key, least=1, most=NODES_MAX)
        domains *= fan_out
        if domains > count:
            item.complain(fan_out_key, f"makes {domains} domains, more than the {count} nodes of the pool")
            return
        prefix = item.text("namePrefix", default=key.rpartition("/")[2] + "-")
        problem = label_value_problem(f"{prefix}{domains - 1}")
        if problem is not None:
            item.complain("namePrefix", f"the domain name {quoted(f'{prefix}{domains - 1}')} {problem}")
        yield Level(key=key, fan_out=fan_out, name_prefix=prefix)


def _domains(levels: tuple[Level, ...], index: int, count: int) -> dict[str, str]:
    """Return the domain of node *index* at each level.

    Nodes fill the narrowest domains in order, contiguous and as evenly as the numbers allow; domains are numbered
    through the whole pool.
    """
    narrowest_count = 1
    for level in levels:
        narrowest_count *= level.fan_out
    domain = index * narrowest_count // count
    found = {}
    for level in reversed(levels):
        found[level.key] = f"{level.name_prefix}{domain}"
        domain //= level.fan_out
    return found
