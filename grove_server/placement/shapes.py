"""From manifests to placement's own types: what a pod needs, and what a node has.

The effective request of a pod follows Kubernetes: containers add up; init containers run one after the other, so the
largest counts; sidecars (init containers that always restart) stay and add up; overhead comes on top. A limit without a
request is a request. Admission has checked the shapes of everything read here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from grove_server.placement.nodes import NodeState, Taint
from grove_server.placement.requests import (
    GPU_RESOURCE,
    PODS_RESOURCE,
    Operator,
    PodShape,
    Preference,
    Requirement,
    SelectorTerm,
    Toleration,
)
from grove_server.resources.cluster import Node
from grove_server.resources.gpu_annotations import GpuAnnotationError, parse_gpu_fraction, parse_gpu_islands
from grove_server.resources.labels import GPU_FRACTION, GPU_ISLANDS
from grove_server.resources.meta import EMPTY_MAP
from grove_server.resources.quantity import parse_quantity

CPU_RESOURCE = "cpu"


def shape_of(pod_spec: Mapping[str, Any], annotations: Mapping[str, str] = EMPTY_MAP) -> PodShape:
    """Return what placement needs to know of a pod with this (admitted) spec and its template's annotations."""
    node_affinity = (pod_spec.get("affinity") or {}).get("nodeAffinity") or {}
    affinity = node_affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    preferred = node_affinity.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
    return PodShape(
        requests=tuple(sorted(_effective_requests(pod_spec).items())),
        node_selector=tuple(sorted((pod_spec.get("nodeSelector") or {}).items())),
        affinity=None if affinity is None else tuple(_term(t) for t in affinity.get("nodeSelectorTerms") or ()),
        tolerations=tuple(_toleration(t) for t in pod_spec.get("tolerations") or ()),
        gpu_milli=parse_gpu_fraction(annotations[GPU_FRACTION]) if GPU_FRACTION in annotations else 0,
        preferences=tuple(
            Preference(weight=each["weight"], term=_term(each.get("preference") or {})) for each in preferred
        ),
    )


def node_state(node: Node) -> NodeState:
    """Return what placement needs to know of a node; ValueError, which says what is wrong, if it cannot be read."""
    islands = node.metadata.annotations.get(GPU_ISLANDS)
    try:
        gpu_islands = parse_gpu_islands(islands) if islands is not None else ()
    except GpuAnnotationError as error:
        raise ValueError(f"annotation {GPU_ISLANDS} {error}") from error
    allocatable = {name: amount(name, text) for name, text in sorted(node.allocatable.items())}
    if node.broken_gpus:
        # Ids go on past the broken ones, which the node does not offer.
        allocatable[GPU_RESOURCE] = allocatable.get(GPU_RESOURCE, 0) + len(node.broken_gpus)
    return NodeState(
        name=node.metadata.name,
        labels=node.metadata.labels,
        allocatable=allocatable,
        taints=tuple(Taint(key=t.key, value=t.value, effect=t.effect) for t in node.taints),
        unschedulable=node.unschedulable,
        ready=node.ready,
        gpu_busy=frozenset(node.broken_gpus),
        gpu_islands=gpu_islands,
    )


def amount(resource: str, quantity: object) -> int:
    """Return a quantity in placement's unit: thousandths for cpu, whole pieces or bytes for the rest."""
    parsed = parse_quantity(str(quantity))
    return parsed.milli() if resource == CPU_RESOURCE else parsed.whole()


def _effective_requests(pod_spec: Mapping[str, Any]) -> dict[str, int]:
    running: dict[str, int] = {}
    peak: dict[str, int] = {}
    for container in pod_spec.get("initContainers") or ():
        wanted = _requests(container)
        if container.get("restartPolicy") == "Always":
            _add(running, wanted.items())
            wanted = running
        else:
            wanted = {name: value + running.get(name, 0) for name, value in wanted.items()}
        for name, value in wanted.items():
            peak[name] = max(peak.get(name, 0), value)
    for container in pod_spec.get("containers") or ():
        _add(running, _requests(container).items())
    total = {name: max(running.get(name, 0), peak.get(name, 0)) for name in sorted(running.keys() | peak.keys())}
    _add(total, ((name, amount(name, value)) for name, value in (pod_spec.get("overhead") or {}).items()))
    # Every pod costs one of these whatever it says; placement adds it by itself.
    total.pop(PODS_RESOURCE, None)
    return {name: value for name, value in total.items() if value}


def _requests(container: Mapping[str, Any]) -> dict[str, int]:
    resources = container.get("resources") or {}
    merged = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
    return {name: amount(name, value) for name, value in merged.items()}


def _add(total: dict[str, int], more: Iterable[tuple[str, int]]) -> None:
    for name, value in more:
        total[name] = total.get(name, 0) + value


def _term(term: Mapping[str, Any]) -> SelectorTerm:
    return SelectorTerm(
        match_expressions=tuple(_requirement(r) for r in term.get("matchExpressions") or ()),
        match_fields=tuple(_requirement(r) for r in term.get("matchFields") or ()),
    )


def _requirement(requirement: Mapping[str, Any]) -> Requirement:
    return Requirement(
        key=requirement["key"],
        operator=Operator(requirement["operator"]),
        values=tuple(str(value) for value in requirement.get("values") or ()),
    )


def _toleration(toleration: Mapping[str, Any]) -> Toleration:
    return Toleration(
        key=toleration.get("key") or "",
        operator=toleration.get("operator") or "Equal",
        value=toleration.get("value") or "",
        effect=toleration.get("effect") or "",
    )
