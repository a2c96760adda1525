"""Nodes of a real cluster, and the topology that their labels tell.

Rules: a node is read like one of a cluster file. What is wrong with a part of it (a quantity, a label) is a finding,
and the node stays without that part, which never makes it look larger than it is. Without a ClusterTopologyBinding the
topology is guessed: of the labels that tools commonly put on nodes those that are there, broadest first, as far as each
is inside the one before; the guess is said.

Not here: pods (`pods`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from grove_server.placement.nodes import NodeState, problem_of
from grove_server.placement.requests import GPU_RESOURCE
from grove_server.placement.shapes import node_state
from grove_server.replay.objects import Findings, Json
from grove_server.resources.cluster import Node
from grove_server.resources.manifest import TopologyLevel
from grove_server.runtime.fields import Fields, Problems
from grove_server.runtime.node_source import HOSTNAME_KEY, read_node

KNOWN_LEVELS: Final[Sequence[tuple[str, Sequence[str]]]] = (
    ("region", ("topology.kubernetes.io/region",)),
    ("zone", ("topology.kubernetes.io/zone", "kubernetes.io/zone", "topology.grove.io/zone")),
    (
        "block",
        (
            "topology.grove.io/block",
            "topology.kubernetes.io/block",
            "kubernetes.io/block",
            "network.topology.nvidia.com/spine",
            "cloud.google.com/gce-topology-block",
            "topology.k8s.aws/network-node-layer-2",
        ),
    ),
    (
        "rack",
        (
            "topology.grove.io/rack",
            "topology.kubernetes.io/rack",
            "kubernetes.io/rack",
            "nvidia.com/gpu.clique",
            "network.topology.nvidia.com/leaf",
            "cloud.google.com/gce-topology-subblock",
            "topology.k8s.aws/network-node-layer-3",
        ),
    ),
    ("host", (HOSTNAME_KEY,)),
)
"""Domain names, broadest first, with the labels that tools put on nodes for them; the first one found is taken."""

_COMMON_SHARE: Final = 0.5
"""A label that fewer of the nodes carry tells no topology."""


def read_nodes(items: Sequence[Json], findings: Findings) -> list[NodeState]:
    """Return the nodes that can be used, in the order of the file."""
    states: dict[str, NodeState] = {}
    for number, item in enumerate(items):
        state = _read(item, number, findings)
        if state is None:
            continue
        if state.name in states:
            findings.add("nodes are there twice; the first is taken", state.name)
            continue
        states[state.name] = state
    return list(states.values())


def _read(item: Json, number: int, findings: Findings) -> NodeState | None:
    problems = Problems()
    name = (
        str((item.get("metadata") or {}).get("name") or f"items[{number}]") if _is_named(item) else f"items[{number}]"
    )
    try:
        node = read_node(Fields(item, number + 1, "", problems), number)
        state = node_state(_without_odd_gpus(node))
    except (ValueError, TypeError) as error:
        findings.add("nodes cannot be read and are left out", f"{name}: {error}")
        return None
    for problem in problems.listed:
        findings.add("fields of nodes are left out", f"{name}: {problem.path}: {problem.message}")
    problem_found = problem_of(state) or ("" if state.name else "has no name")
    if problem_found:
        findings.add("nodes cannot be read and are left out", f"{name}: {problem_found}")
        return None
    return state


def _is_named(item: Json) -> bool:
    return isinstance(item.get("metadata"), Mapping)


def _without_odd_gpus(node: Node) -> Node:
    """Return a node; one that says it has a part of a GPU is refused, for rounding up would invent one."""
    text = node.allocatable.get(GPU_RESOURCE, "0")
    if not text.isdecimal():
        raise ValueError(f"allocatable[{GPU_RESOURCE}] must be a whole number, got {text}")
    return node


def guess_topology(states: Sequence[NodeState], findings: Findings) -> tuple[TopologyLevel, ...]:
    """Return the levels that labels tell; those of the hosts alone if they tell nothing else."""
    levels: list[TopologyLevel] = []
    for domain, keys in KNOWN_LEVELS:
        key = next((each for each in keys if _share(states, each) >= _COMMON_SHARE), None)
        if key is None:
            continue
        if levels and domain != "host" and not _is_inside(states, key, levels[-1].key):
            findings.add("labels tell no level, as their domains cross those of broader ones", key)
            continue
        levels.append(TopologyLevel(domain=domain, key=key))
    return tuple(levels) or (TopologyLevel(domain="host", key=HOSTNAME_KEY),)


def check_topology(states: Sequence[NodeState], keys: Sequence[str], findings: Findings) -> None:
    """Note the nodes that lack a label of the topology."""
    for key in keys:
        for state in states:
            if key not in state.labels:
                findings.add(f"nodes lack the label {key}; gangs that ask for the level are not put there", state.name)


def _share(states: Sequence[NodeState], key: str) -> float:
    return sum(key in state.labels for state in states) / len(states) if states else 0.0


def _is_inside(states: Sequence[NodeState], key: str, broader: str) -> bool:
    """Return whether each value of a label is mostly inside one value of a broader one."""
    parents: dict[str, dict[str, int]] = {}
    for state in states:
        if key in state.labels:
            counts = parents.setdefault(state.labels[key], {})
            parent = state.labels.get(broader, "")
            counts[parent] = counts.get(parent, 0) + 1
    in_one = sum(max(counts.values()) for counts in parents.values())
    return in_one >= _COMMON_SHARE * sum(sum(counts.values()) for counts in parents.values())
