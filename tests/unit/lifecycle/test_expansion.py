"""A set becomes cliques, groups, gangs and pods: Grove's worked examples and samples, name by name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from grove_server.lifecycle.identifiers import derive_uid
from grove_server.resources.labels import POD_INDEX
from grove_server.resources.names import hostname
from grove_server.resources.workload import Pod, PodClique, PodCliqueScalingGroup, PodGang
from tests.lifecycle_cases import World, clique, group, minimums, world


def simple1(replicas: int = 1) -> World:
    """Return Grove's sample simple1."""
    cliques = [clique("pca", 3), clique("pcb", 2), clique("pcc", 2), clique("pcd", 2)]
    return world(cliques, [group("sga", ["pcb", "pcc"])], name="simple1", replicas=replicas)


def simple3() -> World:
    """Return Grove's sample simple3."""
    cliques = [clique("pca", 3), clique("pcb", 2), clique("pcc", 2), clique("pcd", 2), clique("pce", 2)]
    return world(cliques, [group("sga", ["pcb", "pcc", "pcd"], 3, 2)], name="simple3")


def test_simple1() -> None:
    """The quick start's set is nine pods in four cliques, one group and one gang."""
    made = simple1()
    made.settle()
    assert made.names(PodClique) == ["simple1-0-pca", "simple1-0-pcd", "simple1-0-sga-0-pcb", "simple1-0-sga-0-pcc"]
    assert made.names(PodCliqueScalingGroup) == ["simple1-0-sga"]
    assert made.names(PodGang) == ["simple1-0"]
    assert len(made.pods()) == 9


def test_simple1_scaled_as_the_quick_start_says() -> None:
    """A second group replica makes 13 pods and a scaled gang; a second copy makes 9 more pods and a base gang."""
    made = simple1(replicas=2)
    made.settle()
    made.scale_group("simple1-0-sga", 2)
    made.settle()
    assert made.names(PodGang) == ["simple1-0", "simple1-0-sga-0", "simple1-1"]
    assert len([pod for pod in made.pods() if pod.identity.copy == 0]) == 13
    assert len(made.pods()) == 22


def test_simple3() -> None:
    """23 pods: the base gang holds eight pod groups in Grove's order, the scaled gang those of the third replica."""
    made = simple3()
    made.settle()
    assert len(made.pods()) == 23
    assert list(minimums(made.one(PodGang, "simple3-0"))) == [
        "simple3-0-pca",
        "simple3-0-pce",
        "simple3-0-sga-0-pcb",
        "simple3-0-sga-0-pcc",
        "simple3-0-sga-0-pcd",
        "simple3-0-sga-1-pcb",
        "simple3-0-sga-1-pcc",
        "simple3-0-sga-1-pcd",
    ]
    assert minimums(made.one(PodGang, "simple3-0-sga-0")) == {
        "simple3-0-sga-2-pcb": 2,
        "simple3-0-sga-2-pcc": 2,
        "simple3-0-sga-2-pcd": 2,
    }


SHAPES = [
    pytest.param([clique("model-worker", 2)], [], 2, 1, id="single-node-aggregated"),
    pytest.param([clique("prefill", 3), clique("decode", 2)], [], 5, 1, id="single-node-disaggregated"),
    pytest.param(
        [clique("leader", 1), clique("worker", 3)],
        [group("model-instance", ["leader", "worker"], 2)],
        8,
        2,
        id="multi-node-aggregated",
    ),
    pytest.param(
        [clique("pl", 1), clique("pw", 4), clique("dl", 1), clique("dw", 2)],
        [group("prefill", ["pl", "pw"], 2), group("decode", ["dl", "dw"])],
        13,
        2,
        id="multi-node-disaggregated",
    ),
    pytest.param(
        [
            clique("frontend", 2),
            clique("vision", 1),
            clique("pl", 1),
            clique("pw", 4),
            clique("dl", 1),
            clique("dw", 2),
        ],
        [group("prefill", ["pl", "pw"]), group("decode", ["dl", "dw"])],
        11,
        1,
        id="complete-inference-pipeline",
    ),
    pytest.param(
        [clique("frontend", 2), clique("pl", 1), clique("pw", 3), clique("dl", 1), clique("dw", 2)],
        [group("prefill", ["pl", "pw"], 2), group("decode", ["dl", "dw"])],
        13,
        2,
        id="multi-node-disaggregated-with-frontend",
    ),
    pytest.param([clique("frontend", 2)], [], 2, 1, id="standalone-env-vars"),
    pytest.param(
        [clique("leader", 1), clique("worker", 3)], [group("mi", ["leader", "worker"], 2)], 8, 2, id="pcsg-env-vars"
    ),
    pytest.param(
        [clique("pc-a", 2, 2), clique("pc-b", 1, 1), clique("pc-c", 3, 3)],
        [group("sg-x", ["pc-b", "pc-c"], 2, 2)],
        10,
        1,
        id="workload1",
    ),
    pytest.param(
        [clique("pc-a", 2, 1), clique("pc-b", 1, 1), clique("pc-c", 3, 1)],
        [group("sg-x", ["pc-b", "pc-c"], 2, 1)],
        10,
        2,
        id="workload2",
    ),
    pytest.param([clique("main", 4)], [group("all", ["main"], 3, 3)], 12, 1, id="group-without-scaled-gang"),
]


@pytest.mark.parametrize(("cliques", "groups", "pod_count", "gang_count"), SHAPES)
def test_shapes(cliques: list[Any], groups: list[Any], pod_count: int, gang_count: int) -> None:
    """Each sample has its number of pods and gangs, and a second copy has as many again."""
    made = world(cliques, groups, replicas=2)
    made.settle()
    assert (len(made.pods()), len(made.of(PodGang))) == (2 * pod_count, 2 * gang_count)


def test_a_clique_minimum_below_its_size_lists_all_pods() -> None:
    """A pod group lists the pods above the minimum too."""
    made = world([clique("a", 4, 1)])
    made.settle()
    pod_group = made.one(PodGang, "s-0").pod_groups[0]
    assert (pod_group.min_replicas, len(pod_group.pods)) == (1, 4)


def test_identity_of_a_member_of_a_scaled_gang() -> None:
    """A pod of a scaled gang knows its whole place in the tree, as fields and as labels."""
    made = simple3()
    made.settle()
    pod = made.pods("simple3-0-sga-2-pcc")[1]
    identity = pod.identity
    assert (identity.copy, identity.group, identity.group_replica, identity.clique) == (0, "sga", 2, "pcc")
    assert (identity.gang, identity.base_gang) == ("simple3-0-sga-0", "simple3-0")
    assert (identity.group_pod_count, identity.group_pod_offset) == (6, 2)
    assert hostname(identity.name, pod.index) == "simple3-0-sga-2-pcc-1"
    labels = pod.metadata.labels
    assert labels["grove.io/podgang"] == "simple3-0-sga-0"
    assert labels["grove.io/base-podgang"] == "simple3-0"
    assert labels["grove.io/podcliquescalinggroup-replica-index"] == "2"
    assert labels[POD_INDEX] == "1"
    assert labels["app.kubernetes.io/name"]


def test_members_of_the_base_gang_have_no_base() -> None:
    """Only a scaled gang, and what is in it, names a base gang."""
    made = simple3()
    made.settle()
    assert {pod.identity.base_gang for pod in made.pods() if pod.identity.gang == "simple3-0"} == {""}
    assert made.one(PodGang, "simple3-0").base_gang == ""
    assert made.one(PodGang, "simple3-0-sga-0").base_gang == "simple3-0"
    assert "grove.io/base-podgang" not in made.pods("simple3-0-pca")[0].metadata.labels


def test_ownership_is_that_of_grove() -> None:
    """The set owns standalone cliques, groups and gangs; a group owns its cliques; a clique owns its pods."""
    made = simple1()
    made.settle()
    group_uid = made.one(PodCliqueScalingGroup, "simple1-0-sga").metadata.uid
    assert made.one(PodClique, "simple1-0-pca").metadata.owner_uid == "set-uid"
    assert made.one(PodClique, "simple1-0-sga-0-pcb").metadata.owner_uid == group_uid
    assert made.one(PodGang, "simple1-0").metadata.owner_uid == "set-uid"
    uids = {c.metadata.name: c.metadata.uid for c in made.of(PodClique)}
    assert all(pod.metadata.owner_uid == uids[pod.identity.name] for pod in made.of(Pod))


def test_labels_and_annotations_of_the_set_are_mirrored_on_gangs() -> None:
    """The set's own labels come and go on its gangs; those of grove.io/ are not mirrored."""
    made = simple1()
    made.settle()
    document_labels = {"team": "blue", "grove.io/secret": "x"}
    made.owner = _with_labels(made.owner, document_labels)
    made.settle()
    labels = made.one(PodGang, "simple1-0").metadata.labels
    assert labels["team"] == "blue"
    assert "grove.io/secret" not in labels
    assert made.one(PodGang, "simple1-0").metadata.generation == 1
    made.owner = _with_labels(made.owner, {})
    made.settle()
    assert "team" not in made.one(PodGang, "simple1-0").metadata.labels


def _with_labels(owner: Any, labels: dict[str, str]) -> Any:  # noqa: ANN401 -- a set, either way

    return replace(owner, metadata=replace(owner.metadata, labels=labels))


def test_derived_uids() -> None:
    """A derived uid is a version 8 UUID that follows from its parents alone and differs for each of them."""
    uid = derive_uid("parent", "name", "1")
    assert uid == derive_uid("parent", "name", "1")
    others = {derive_uid("parent", "name", "2"), derive_uid("parent", "other", "1"), derive_uid("other", "name", "1")}
    assert len(others | {uid}) == 4
    assert [len(part) for part in uid.split("-")] == [8, 4, 4, 4, 12]
    assert (uid[14], uid[19]) == ("8", "a")
