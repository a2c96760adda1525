"""Pods of a real cluster, put on their nodes: what runs there now.

Rules: a pod counts from the moment it has a node until it ended. What it holds is its effective request, and the share
of a GPU that it is annotated with. Which GPUs it has is known only where it is annotated (`grove.io/gpu-ids`); the
others get the ones that placement would give. A node that holds more than it has keeps all its pods: it is full, and
that is said; so is one with a pod that cannot be read. Pods of one Grove gang are one gang; every other pod is one by
itself, and those that a node cannot be without (of DaemonSets, static ones) never have to go.

Not here: whether a pod may be where it is: it is there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from grove_server.placement.cluster import Cluster, GpuConflictError, UnknownNodeError
from grove_server.placement.nodes import GPUS_MAX
from grove_server.placement.occupancy import PRIORITY_MAX, PRIORITY_MIN, GangFacts, Occupancy, Seat
from grove_server.placement.peers import Alike, PeerBook
from grove_server.placement.pod_terms import PodTerm, pod_terms
from grove_server.placement.requests import GPU_RESOURCE, Counting, PodShape
from grove_server.placement.shapes import shape_of
from grove_server.replay.objects import Findings, Json
from grove_server.resources.labels import GPU_IDS, PART_OF, POD_CLIQUE, POD_GANG, POD_INDEX

_OVER: Final = frozenset({"Succeeded", "Failed"})
_STATIC_POD: Final = "kubernetes.io/config.mirror"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningPod:
    """One pod on a node, as the file has it.

    `gpu_ids` is () where nobody says which, `set_name` is "" for pods of no set; `terms` are its rules between pods.
    """

    name: str
    namespace: str
    set_name: str
    gang: str
    clique: str
    index: int
    node: str
    shape: PodShape
    gpu_ids: tuple[int, ...]
    priority: int
    is_preemptible: bool
    labels: Mapping[str, str]
    terms: tuple[PodTerm, ...]


@dataclass(slots=True)
class PodCounts:
    """How many pods of the file are what; `unknown_on` are nodes with pods of which nobody knows what they hold."""

    running: int = 0
    pending: int = 0
    over: int = 0
    left_out: int = 0
    priorities: set[int] = field(default_factory=set)
    unknown_on: dict[str, None] = field(default_factory=dict)


def read_pods(items: Sequence[Json], findings: Findings) -> tuple[list[RunningPod], PodCounts]:
    """Return the pods that have a node, and how many there are of which kind."""
    counts = PodCounts()
    shapes: dict[PodShape, PodShape] = {}
    pods: dict[str, RunningPod] = {}
    for number, item in enumerate(items):
        # Files are whatever somebody made; anything in a pod may be of any type.
        try:
            pod = _read(item, counts, shapes)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            counts.left_out += 1
            node = _node_of(item)
            if node:
                counts.unknown_on[node] = None
                heading = "pods cannot be read; as what they hold is unknown, their nodes count as full"
            else:
                heading = "pods cannot be read and are left out"
            findings.add(heading, f"{_name_of(item, number)}: {_trouble(error)}")
            continue
        if pod is None:
            continue
        if pod.name in pods:
            findings.add("pods are there twice; the first is taken", pod.name)
            continue
        pods[pod.name] = pod
    counts.running = len(pods)
    return list(pods.values()), counts


def _trouble(error: Exception) -> str:
    """Return what is wrong with a pod, in words about the file."""
    if isinstance(error, KeyError):
        return f"{error.args[0]} is missing"
    return str(error) if isinstance(error, ValueError) else "a field has another type than pods have there"


def _node_of(item: Json) -> str:
    """Return on which node a pod that cannot be read still is; "" if on none, or if that cannot be read either."""
    spec, status = item.get("spec"), item.get("status")
    if isinstance(status, Mapping) and status.get("phase") in _OVER:
        return ""
    node = spec.get("nodeName") if isinstance(spec, Mapping) else None
    return node if isinstance(node, str) else ""


def fill_up(cluster: Cluster, nodes: Iterable[str]) -> None:
    """Take all that is free on some nodes: nobody knows what else is held there. Nodes that are not there are none."""
    known = set(cluster.node_names())
    for name in sorted(known.intersection(nodes)):
        left = tuple((resource, amount) for resource, amount in sorted(cluster.free_of(name).items()) if amount > 0)
        cluster.bind_pod(name, PodShape(requests=left))


def _name_of(item: Json, number: int) -> str:
    metadata = item.get("metadata")
    if not isinstance(metadata, Mapping):
        return f"items[{number}]"
    return f"{metadata.get('namespace') or 'default'}/{metadata.get('name') or f'items[{number}]'}"


def _read(item: Json, counts: PodCounts, shapes: dict[PodShape, PodShape]) -> RunningPod | None:
    metadata, spec, status = item["metadata"], item["spec"], item.get("status") or {}
    if status.get("phase") in _OVER:
        counts.over += 1
        return None
    if not spec.get("nodeName"):
        counts.pending += 1
        return None
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    namespace = metadata.get("namespace") or "default"
    name = f"{namespace}/{metadata['name']}"
    shape = shape_of(spec, annotations)
    priority = min(max(int(spec.get("priority") or 0), PRIORITY_MIN), PRIORITY_MAX)
    counts.priorities.add(priority)
    index = str(labels.get(POD_INDEX, "0"))
    return RunningPod(
        name=name,
        namespace=namespace,
        set_name=str(labels.get(PART_OF, "")) if labels.get(POD_GANG) else "",
        gang=f"{namespace}/{labels[POD_GANG]}" if labels.get(POD_GANG) else name,
        clique=str(labels.get(POD_CLIQUE) or metadata["name"]),
        index=int(index) if index.isdecimal() else 0,
        node=str(spec["nodeName"]),
        shape=shapes.setdefault(shape, shape),
        gpu_ids=_gpu_ids(annotations.get(GPU_IDS, "")),
        priority=priority,
        labels=labels,
        terms=pod_terms(spec, namespace) if spec.get("affinity") else (),
        is_preemptible=_STATIC_POD not in annotations
        and all(owner.get("kind") not in {"DaemonSet", "Node"} for owner in metadata.get("ownerReferences") or ()),
    )


def _gpu_ids(text: str) -> tuple[int, ...]:
    ids = tuple(int(each) for each in text.split(",")) if text else ()
    if any(not 0 <= each < GPUS_MAX for each in ids) or len(set(ids)) != len(ids):
        raise ValueError(f"annotation {GPU_IDS} must list different GPUs below {GPUS_MAX}, got {text}")
    return ids


def seat_pods(cluster: Cluster, pods: Sequence[RunningPod], findings: Findings, counting: Counting) -> Occupancy:
    """Bind all pods whose nodes are there, and return who sits where; shapes of GPUs without ids come last.

    `counting` tells whom rules between pods count, so that those may have to leave.
    """
    seats: list[Seat] = []
    gangs: dict[str, tuple[int, bool]] = {}
    for pod in sorted(pods, key=_order):
        seat = _seat(cluster, pod, findings)
        if seat is not None:
            seats.append(seat)
            priority, is_preemptible = gangs.get(pod.gang, (pod.priority, True))
            gangs[pod.gang] = max(priority, pod.priority), is_preemptible and pod.is_preemptible
    occupancy = Occupancy(counting)
    sizes: dict[str, dict[str, int]] = {}
    for seat in seats:
        cliques = sizes.setdefault(seat.gang, {})
        cliques[seat.clique] = cliques.get(seat.clique, 0) + 1
    for gang, (priority, is_preemptible) in gangs.items():
        # What a gang's minimum is does not stand in its pods, so all of it is taken as needed.
        minimums = tuple(sorted(sizes[gang].items()))
        occupancy.set_gang(GangFacts(name=gang, minimums=minimums, priority=priority, is_preemptible=is_preemptible))
    occupancy.add_pods(seats)
    _note_overfull(cluster, findings)
    return occupancy


def keep_apart(book: PeerBook, pods: Sequence[RunningPod]) -> None:
    """Enter running pods in the book that rules between pods are judged by; pods that are alike are one entry."""
    alike: dict[tuple[str, frozenset[tuple[str, str]], tuple[PodTerm, ...]], str] = {}
    for pod in pods:
        number = alike.setdefault((pod.namespace, frozenset(pod.labels.items()), pod.terms), str(len(alike)))
        book.enter(
            pod.namespace,
            pod.name.partition("/")[2],
            pod.node,
            Alike(key=(pod.namespace, "", number), labels=pod.labels, terms=pod.terms),
        )


def _order(pod: RunningPod) -> tuple[bool, int, int, str]:
    return not pod.gpu_ids, -pod.shape.amount(GPU_RESOURCE), -pod.shape.gpu_milli, pod.name


def _seat(cluster: Cluster, pod: RunningPod, findings: Findings) -> Seat | None:
    shape, gpu_ids = pod.shape, pod.gpu_ids
    try:
        taken = cluster.bind_pod(pod.node, shape, gpu_ids)
    except UnknownNodeError:
        findings.add("pods run on nodes that are not in the files; they are left out", f"{pod.name}: {pod.node}")
        return None
    except GpuConflictError as error:
        findings.add(
            "pods hold GPUs that are taken or not there; what is free of them is theirs", f"{pod.name}: {error}"
        )
        free = cluster.gpus_free_of(pod.node)
        ids = free[: shape.amount(GPU_RESOURCE)]
        requests = tuple((key, len(ids) if key == GPU_RESOURCE else amount) for key, amount in shape.requests)
        shape = replace(shape, requests=requests, gpu_milli=0)
        taken = cluster.bind_pod(pod.node, shape, ids)
    return Seat(
        pod=pod.name,
        gang=pod.gang,
        clique=pod.clique,
        index=pod.index,
        node=pod.node,
        shape=shape,
        gpu_ids=taken,
    )


def _note_overfull(cluster: Cluster, findings: Findings) -> None:
    for name in cluster.node_names():
        short = {resource: -amount for resource, amount in cluster.free_of(name).items() if amount < 0}
        if short:
            told = ", ".join(f"{amount} {resource}" for resource, amount in short.items())
            findings.add("nodes hold more than they have; they count as full", f"{name}: {told} too much")
