"""Cluster files: what they describe, and what is said when they are wrong."""

from __future__ import annotations

from collections import Counter

import pytest

from grove_server.resources.cluster import Node, Taint
from grove_server.runtime.cluster_file import (
    ClusterFileError,
    default_cluster_text,
    parse_cluster,
)
from grove_server.runtime.cluster_objects import VALUES_MAX
from grove_server.runtime.fields import PROBLEMS_MAX

POOL = """
apiVersion: grove.io/v1alpha1
kind: NodePool
metadata: {name: gpu}
spec:
"""


def problems(text: str) -> list[str]:
    """Return what is wrong with a file, one line each."""
    with pytest.raises(ClusterFileError) as caught:
        parse_cluster(text)
    return [str(problem) for problem in caught.value.problems]


def domains(nodes: tuple[Node, ...], key: str) -> list[str]:
    """Return the value of a label on each node."""
    return [node.metadata.labels[key] for node in nodes]


def test_the_default_cluster_is_a_tree_of_64_nodes() -> None:
    """The built-in file describes 64 nodes of 8 GPUs, 4 to a rack, 4 racks to a block, 2 blocks to a zone."""
    cluster = parse_cluster(default_cluster_text())
    assert len(cluster.nodes) == 64
    assert {node.allocatable["nvidia.com/gpu"] for node in cluster.nodes} == {"8"}
    for key, count in (("topology.kubernetes.io/zone", 2), ("topology.grove.io/block", 4)):
        assert set(Counter(domains(cluster.nodes, key)).values()) == {64 // count}
    assert domains(cluster.nodes, "topology.grove.io/rack") == [f"rack-{index // 4}" for index in range(64)]
    assert domains(cluster.nodes, "kubernetes.io/hostname") == [f"gpu-{index}" for index in range(64)]
    assert len({node.address for node in cluster.nodes}) == 64
    (binding,) = cluster.bindings
    assert [level.domain for level in binding.spec.levels] == ["zone", "block", "rack", "host"]
    assert all(level.key in cluster.nodes[0].metadata.labels for level in binding.spec.levels)


def test_a_pool_gives_its_nodes_everything_it_says() -> None:
    """Names, labels, taints and resources of a pool are those of each node; the number of pods has a default."""
    cluster = parse_cluster(
        POOL
        + """
  count: 2
  namePrefix: big
  allocatable: {cpu: 64, memory: 1.5Ti, example.com/fpga: "2"}
  labels: {tier: "1"}
  taints: [{key: gpu, effect: NoSchedule}, {key: a/b, value: c, effect: NoExecute}]
"""
    )
    first, second = cluster.nodes
    assert (first.metadata.name, second.metadata.name) == ("big0", "big1")
    assert first.metadata.labels == {"tier": "1", "kubernetes.io/hostname": "big0"}
    assert first.allocatable == {"cpu": "64", "memory": "1.5Ti", "example.com/fpga": "2", "pods": "110"}
    assert first.capacity == first.allocatable
    assert first.taints == (Taint(key="gpu", effect="NoSchedule"), Taint(key="a/b", value="c", effect="NoExecute"))
    assert (first.ready, first.unschedulable) == (True, False)


def test_uneven_numbers_leave_racks_that_differ_by_one() -> None:
    """Nodes that do not divide into the racks are spread as evenly as possible, in order."""
    cluster = parse_cluster(
        POOL
        + """
  count: 10
  allocatable: {cpu: "1"}
  topology: [{key: zone, count: 1}, {key: rack, perParent: 4, namePrefix: r}]
"""
    )
    assert domains(cluster.nodes, "rack") == ["r0", "r0", "r0", "r1", "r1", "r2", "r2", "r2", "r3", "r3"]
    assert set(domains(cluster.nodes, "zone")) == {"zone-0"}


def test_nodes_of_a_real_cluster_are_read_as_they_are() -> None:
    """A v1 List as kubectl prints it gives its nodes; what the server does not use is ignored."""
    cluster = parse_cluster(
        """
apiVersion: v1
kind: List
metadata: {resourceVersion: ""}
items:
- apiVersion: v1
  kind: Node
  metadata:
    name: ip-10-1-2-3.ec2.internal
    uid: 1f0c
    creationTimestamp: 2026-01-01T00:00:00Z
    labels: {topology.kubernetes.io/zone: a, kubernetes.io/hostname: ip-10-1-2-3}
    annotations: {note: "two words"}
    managedFields: [{manager: kubelet}]
  spec:
    podCIDR: 10.2.0.0/24
    unschedulable: true
    taints: [{effect: NoExecute, key: node.kubernetes.io/unreachable, timeAdded: 2026-01-01T00:00:00Z}]
  status:
    capacity: {cpu: "8", memory: 32Gi, pods: "58"}
    allocatable: {cpu: 7910m, memory: 30Gi, pods: "58"}
    addresses: [{type: Hostname, address: x}, {type: InternalIP, address: 10.1.2.3}]
    conditions: [{type: DiskPressure, status: "False"}, {type: Ready, status: Unknown}]
    images: [{names: [a, b], sizeBytes: 5}]
- apiVersion: v1
  kind: Node
  metadata: {name: plain}
  status: {capacity: {cpu: "4"}}
"""
    )
    first, second = cluster.nodes
    assert first.metadata.labels["kubernetes.io/hostname"] == "ip-10-1-2-3"
    assert first.metadata.annotations == {"note": "two words"}
    assert (first.ready, first.unschedulable, first.address) == (False, True, "10.1.2.3")
    assert (first.allocatable["cpu"], first.capacity["cpu"]) == ("7910m", "8")
    assert first.taints == (Taint(key="node.kubernetes.io/unreachable", effect="NoExecute"),)
    assert second.metadata.labels == {"kubernetes.io/hostname": "plain"}
    assert second.allocatable == {"cpu": "4", "pods": "110"}
    assert (second.ready, second.address) == (True, "172.16.0.2")


def test_everything_that_is_wrong_is_said_at_once() -> None:
    """All problems of all documents are reported, each with its document and path."""
    text = """
apiVersion: grove.io/v1alpha1
kind: NodePool
metadata: {name: gpu}
spec: {count: 0, allocatable: {cpu: lots, memory: -1Gi}, labels: {zone: 1}, size: 3}
---
---
apiVersion: v1
kind: Node
metadata: {name: up_per}
spec: {taints: [{key: a, effect: Sometimes}, 5]}
---
apiVersion: grove.io/v1alpha1
kind: ClusterTopologyBinding
metadata: {name: t}
spec: {levels: [{domain: rack}]}
---
apiVersion: v1
kind: Pod
"""
    expected = [
        "document 1: spec.size: unknown field; known are count, namePrefix, allocatable, labels, annotations, ",
        "document 1: spec.count: must be a whole number from 1 to 200000, got 0",
        "document 1: spec.allocatable[cpu]: must be a number with an optional suffix",
        'document 1: spec.allocatable[memory]: must not be negative, got "-1Gi"',
        "document 1: spec.labels[zone]: must be a text (put it in quotes), got 1",
        'document 2: metadata.name: the node name "up_per" must be lower case letters',
        "document 2: status.allocatable: is required: what pods can use of the node",
        'document 2: spec.taints[0].effect: must be one of NoSchedule, PreferNoSchedule, NoExecute, got "Sometimes"',
        "document 2: spec.taints[1]: must be a mapping, got 5",
        "document 3: spec.levels[0].key: is required",
        "document 4: kind: must be Node or List of v1, NodePool, ClusterTopologyBinding or Queue of grove.io/v1alpha1",
    ]
    found = problems(text)
    assert [problem[: len(start)] for problem, start in zip(found, expected, strict=True)] == expected


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        pytest.param("{}", "spec.count: is required, a whole number from 1 to 200000", id="no count"),
        pytest.param("{count: 200001}", "spec.count: must be a whole number", id="too many nodes"),
        pytest.param("{count: true}", "spec.count: must be a whole number", id="a flag for a number"),
        pytest.param("{count: 1}", "spec.allocatable: is required", id="no resources"),
        pytest.param("{count: 1, allocatable: [1]}", "spec.allocatable: must be a mapping, got a list", id="a list"),
        pytest.param("{count: 1, taints: 5}", "spec.taints: must be a list, got 5", id="no list"),
        pytest.param("{count: 1, namePrefix: a_}", 'spec.namePrefix: the node name "a_0"', id="bad prefix"),
        pytest.param(
            "{count: 1, labels: {kubernetes.io/hostname: x}}",
            "spec.labels[kubernetes.io/hostname]: must not be given",
            id="hostname label",
        ),
        pytest.param("{count: 1, labels: {a b: x}}", "spec.labels[a b]: the name part", id="bad label key"),
        pytest.param("{count: 1, labels: {a: x y}}", "spec.labels[a]: must consist of", id="bad label value"),
        pytest.param(
            "{count: 1, topology: [{key: kubernetes.io/hostname, count: 1}]}",
            "spec.topology[0].key: must not be a level",
            id="hostname level",
        ),
        pytest.param(
            "{count: 9, topology: [{key: z, count: 3}, {key: r, perParent: 4}]}",
            "spec.topology[1].perParent: makes 12 domains, more than the 9 nodes of the pool",
            id="more racks than nodes",
        ),
        pytest.param(
            "{count: 9, topology: [{key: z, perParent: 3}]}",
            "spec.topology[0].count: is required",
            id="the broadest level has no parent",
        ),
        pytest.param(
            "{count: 9, topology: [{key: z, count: 1}, {key: r, count: 3}]}",
            "spec.topology[1].count: unknown field; known are key, perParent, namePrefix",
            id="a count below the broadest level",
        ),
        pytest.param(
            "{count: 9, topology: [{key: z, count: 1}, {key: z, perParent: 1}]}",
            'spec.topology[1].key: the label "z" is given twice',
            id="a level twice",
        ),
        pytest.param(
            "{count: 9, labels: {z: x}, topology: [{key: z, count: 1}]}",
            'spec.topology[0].key: the label "z" is given under labels as well',
            id="a level that is a label",
        ),
        pytest.param(
            "{count: 1, topology: [{key: z, count: 1, namePrefix: a b}]}",
            'spec.topology[0].namePrefix: the domain name "a b0"',
            id="bad domain name",
        ),
    ],
)
def test_a_wrong_pool_is_refused_with_the_path(spec: str, expected: str) -> None:
    """Each rule of a pool has a message that names the field."""
    text = f"apiVersion: grove.io/v1alpha1\nkind: NodePool\nmetadata: {{name: gpu}}\nspec: {spec}\n"
    assert any(problem.startswith(f"document 1: {expected}") for problem in problems(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", "document 1: the file describes no node", id="empty"),
        pytest.param("a: [", "document 1: line 2: is not valid YAML", id="no YAML"),
        pytest.param("a: 1\na: 2", 'document 1: line 2: is not valid YAML: the key "a" is given twice', id="twice"),
        pytest.param("- 5", "document 1: must be a mapping, got a list", id="no mapping"),
        pytest.param("{}", "document 1: kind: must be Node or List", id="no kind"),
        pytest.param("&a [*a]", "document 1: must be a mapping, got a list", id="a list in itself"),
        pytest.param("[" * 100_000, "document 1: the file must not be nested deeper", id="deep"),
    ],
)
def test_a_file_that_is_no_cluster_is_refused(text: str, expected: str) -> None:
    """Whatever the text is, the answer is a sentence."""
    assert problems(text)[0].startswith(expected)


def test_names_are_given_once() -> None:
    """Two nodes, or two bindings, of one name are refused."""
    pool = POOL + "  {count: 1, namePrefix: n, allocatable: {cpu: 1}}\n"
    node = "apiVersion: v1\nkind: Node\nmetadata: {name: n0}\nstatus: {allocatable: {cpu: 1}}\n"
    binding = """
apiVersion: grove.io/v1alpha1
kind: ClusterTopologyBinding
metadata: {name: t}
spec: {levels: [{domain: rack, key: r}]}
"""
    assert problems(f"{pool}---\n{node}---\n{binding}---\n{binding}") == [
        'document 2: metadata.name: there are two Nodes called "n0"',
        'document 4: metadata.name: there are two ClusterTopologyBindings called "t"',
    ]


def test_a_file_of_aliases_does_not_expand() -> None:
    """A binding that aliases blow up is refused without being written out."""
    bomb = "\n".join(f"  l{depth}: &l{depth} [{', '.join([f'*l{depth - 1}'] * 9)}]" for depth in range(1, 12))
    text = f"apiVersion: grove.io/v1alpha1\nkind: ClusterTopologyBinding\nmetadata:\n  l0: &l0 x\n{bomb}\nspec: {{}}\n"
    assert problems(text) == [f"document 1: must have at most {VALUES_MAX} values"]


def test_long_lists_of_problems_are_cut() -> None:
    """A file with more problems than anybody reads lists the first and counts the rest."""
    items = ", ".join(["5"] * (PROBLEMS_MAX + 7))
    with pytest.raises(ClusterFileError, match=r"and 7 more$") as caught:
        parse_cluster(f"{{apiVersion: v1, kind: List, items: [{items}]}}")
    assert len(caught.value.problems) == PROBLEMS_MAX


def test_a_file_holds_a_bounded_number_of_nodes() -> None:
    """Pools that make too many nodes together are refused, before they are made."""
    first = POOL + "  {count: 3, allocatable: {cpu: 1}}\n"
    large = POOL + "  {count: 199998, namePrefix: b, allocatable: {cpu: 1}}\n"
    assert problems(f"{first}---\n{large}") == [
        "document 2: spec.count: must be a whole number from 1 to 199997, got 199998"
    ]


def test_a_topology_binding_is_held_to_the_rules_of_the_api() -> None:
    """A binding that the API would refuse is refused in a file, too, with its path."""
    binding = """
apiVersion: grove.io/v1alpha1
kind: ClusterTopologyBinding
metadata: {name: t}
spec: {levels: [{domain: rack, key: r}, {domain: rack, key: a b}]}
"""
    found = problems(binding)
    assert [problem.split(": ")[:2] for problem in found] == [
        ["document 1", "spec.levels[1].domain"],
        ["document 1", "spec.levels[1].key"],
    ]


SCHEDULING = (
    POOL
    + """  {count: 1, allocatable: {cpu: 1}}
---
apiVersion: grove.io/v1alpha1
kind: Queue
metadata: {name: child}
spec: {parent: top, guarantee: {nvidia.com/gpu: 8}}
---
apiVersion: grove.io/v1alpha1
kind: Queue
metadata: {name: top}
spec: {limit: {nvidia.com/gpu: 16}}
---
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: high}
value: 1000
globalDefault: true
"""
)


def test_priority_classes_and_queues_may_stand_in_the_file() -> None:
    """A queue may come before its parent; what the file says is read as the API reads it."""
    cluster = parse_cluster(SCHEDULING)
    assert [(each.metadata.name, each.spec.parent) for each in cluster.queues] == [("child", "top"), ("top", "")]
    assert cluster.queues[0].spec.guarantee == {"nvidia.com/gpu": "8"}
    assert [(each.metadata.name, each.value) for each in cluster.priority_classes] == [("high", 1000)]


def test_queues_and_classes_of_a_file_are_held_to_the_rules_of_the_api() -> None:
    """A parent that nobody describes, a circle and a second default are told with document and path."""
    text = SCHEDULING.replace("spec: {limit: {nvidia.com/gpu: 16}}", "spec: {parent: child}")
    text += text[text.index("---\napiVersion: scheduling") :].replace("name: high", "name: higher")
    text += "---\napiVersion: grove.io/v1alpha1\nkind: Queue\nmetadata: {name: lost}\nspec: {parent: nobody}\n"
    assert [problem.rpartition(": ")[0].split(": ")[:2] for problem in problems(text)] == [
        ["document 2", "spec.parent"],
        ["document 3", "spec.parent"],
        ["document 4", "globalDefault"],
        ["document 5", "globalDefault"],
        ["document 6", "spec.parent"],
    ]


def test_annotations_of_a_pool_are_those_of_each_node() -> None:
    """GPU islands may be given for a whole pool, and for a single node."""
    text = """
apiVersion: grove.io/v1alpha1
kind: NodePool
metadata: {name: gpu}
spec: {count: 2, allocatable: {nvidia.com/gpu: 8}, annotations: {grove.io/gpu-islands: "0-3,4-7"}}
"""
    assert [node.metadata.annotations for node in parse_cluster(text).nodes] == [
        {"grove.io/gpu-islands": "0-3,4-7"}
    ] * 2


def test_gpu_islands_that_cannot_be_read_are_a_problem_of_the_file() -> None:
    """The message has the path of the annotation and what is wrong."""
    text = """
apiVersion: v1
kind: Node
metadata: {name: a, annotations: {grove.io/gpu-islands: "0-3;4-7"}}
status: {capacity: {cpu: "4"}}
"""
    (problem,) = problems(text)
    assert problem.startswith("document 1: metadata.annotations[grove.io/gpu-islands]: must list islands of GPU ids")
    assert problem.endswith('got "0-3;4-7"')
