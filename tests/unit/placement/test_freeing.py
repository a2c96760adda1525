"""The smallest change that would let a gang in: what to free, where, and when only new nodes would do."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from grove_server.placement import (
    GPU_RESOURCE,
    Cluster,
    ExclusionKind,
    Remedy,
    RemedyKind,
    Verdict,
    VerdictCode,
    place,
)
from grove_server.placement.earmarks import Earmark, place_around
from grove_server.placement.fragmentation import fragmentation
from tests.placement_cases import RACK, clique, gang, gpu_node, gpus, placed, refused


def _cluster(node_count: int, *, taken: int, racks: int = 4) -> Cluster:
    """Return nodes of 8 GPUs in racks, of each so many GPUs taken."""
    per_rack = node_count // racks
    cluster = Cluster(
        gpu_node(f"gpu-{i:02}", zone="z", block="b", rack=f"rack-{i // per_rack}") for i in range(node_count)
    )
    for i in range(node_count):
        if taken:
            cluster.bind_pod(f"gpu-{i:02}", gpus(taken, cpu=0))
    return cluster


def _freed(verdict: Verdict) -> Remedy:
    (found,) = [each for each in verdict.remedies if each.kind == RemedyKind.FREE_RESOURCES]
    return found


@pytest.mark.parametrize(
    ("pods", "size", "required", "gpu_count", "words"),
    [
        (1, 8, None, 5, "5 nvidia.com/gpu more free on gpu-00"),
        (
            3,
            4,
            RACK,
            3,
            "3 nvidia.com/gpu more free in rack rack-0 (1 nvidia.com/gpu on each of gpu-00, gpu-01, gpu-02)",
        ),
        (18, 2, None, 2, "2 nvidia.com/gpu more free in the cluster (1 nvidia.com/gpu on each of gpu-00, gpu-01)"),
        (20, 2, None, 4, "4 nvidia.com/gpu more free in the cluster (1 nvidia.com/gpu on each of gpu-00, gpu-01, "),
        (16, 8, None, 80, "80 nvidia.com/gpu more free in the cluster (5 nvidia.com/gpu on each of gpu-00, gpu-01"),
    ],
)
def test_what_is_free_already_counts(pods: int, size: int, required: str | None, gpu_count: int, words: str) -> None:
    """Pieces that are free on a node need not be freed again, and the places to free are named."""
    verdict = refused(place(_cluster(16, taken=5), gang(clique("w", pods, gpus(size)), required=required)))
    freed = _freed(verdict)
    assert freed.amounts == ((GPU_RESOURCE, gpu_count),)
    assert freed.is_certain
    assert words in freed.sentence()
    assert "at least" not in freed.sentence()


def test_a_gang_that_the_whole_cluster_cannot_hold_needs_nodes() -> None:
    """17 pods of a node each on 16 nodes never fit: the verdict says so, and how many nodes more it takes."""
    verdict = refused(place(_cluster(16, taken=5), gang(clique("w", 17, gpus(8)))))
    assert verdict.code == VerdictCode.CLUSTER_TOO_SMALL
    assert [each.kind for each in verdict.remedies if each.kind == RemedyKind.FREE_RESOURCES] == []
    assert "the whole cluster, were it empty, would hold 16 of 17 pods" in verdict.sentence()
    assert "at least 1 more node of 8 nvidia.com/gpu" in verdict.sentence()


def test_a_cordon_does_not_make_a_cluster_too_small() -> None:
    """What uncordoning would cure is no matter of size."""
    cluster = _cluster(16, taken=0)
    cluster.set_schedulable(["gpu-00"], schedulable=False)
    verdict = refused(place(cluster, gang(clique("w", 16, gpus(8)))))
    assert verdict.code != VerdictCode.CLUSTER_TOO_SMALL
    assert [each.kind for each in verdict.remedies if each.kind == RemedyKind.UNCORDON]


def test_several_shapes_are_told_a_bound() -> None:
    """For gangs of several shapes only a bound is known, and the sentence says that it is one."""
    request = gang(clique("a", 1, gpus(8)), clique("b", 1, gpus(1)), required=RACK)
    freed = _freed(refused(place(_cluster(4, taken=5), request)))
    assert not freed.is_certain
    assert freed.sentence().startswith("at least ")


def _set_aside(cluster: Cluster, gang_name: str, racks: Sequence[str], request_pods: int, size: int) -> Verdict:
    earmarks = [Earmark(gang=gang_name, path=((RACK, rack),), priority=5) for rack in racks]
    return refused(place_around(cluster, gang(clique("w", request_pods, gpus(size))), earmarks, priority=5))


def test_nodes_that_are_set_aside_are_not_called_full() -> None:
    """An earmarked node is excluded as such, and what would help is asked of the other nodes alone."""
    cluster = _cluster(8, taken=0, racks=2)
    for i in range(4):
        cluster.bind_pod(f"gpu-{i:02}", gpus(8, cpu=0))
    verdict = _set_aside(cluster, "default/big", ["rack-1"], 2, 8)
    assert [(each.kind, each.detail, each.node_count) for each in verdict.exclusions] == [
        (ExclusionKind.SET_ASIDE, "default/big", 4),
        (ExclusionKind.FULL, GPU_RESOURCE, 4),
    ]
    assert "4 set aside for default/big" in verdict.sentence()
    cluster = _cluster(8, taken=5, racks=2)
    verdict = _set_aside(cluster, "default/big", ["rack-1"], 2, 8)
    freed = _freed(verdict)
    assert freed.amounts == ((GPU_RESOURCE, 10),)
    assert freed.sentence().endswith("(5 nvidia.com/gpu on each of gpu-00, gpu-01)")


def test_no_room_is_promised_on_nodes_that_are_set_aside() -> None:
    """Where the rest of the cluster is too small, nothing is told that would only help on nodes of others."""
    verdict = _set_aside(_cluster(8, taken=5, racks=2), "default/big", ["rack-1"], 5, 8)
    assert not [each for each in verdict.remedies if each.kind == RemedyKind.FREE_RESOURCES]


def test_nodes_without_the_label_are_no_domain() -> None:
    """Reasons and figures count the racks that there are, not the nodes that are in none."""
    cluster = _cluster(6, taken=0, racks=3)
    cluster.upsert_node(gpu_node("loose", zone="z", block="b"))
    found = placed(place(cluster, gang(clique("w", 2, gpus(4)), required=RACK)))
    assert (found.reasons[0].domains_considered, found.reasons[0].domains_fitting) == (3, 3)
    several = gang(clique("a", 1, gpus(4)), clique("b", 1, gpus(2)), required=RACK)
    assert placed(place(cluster, several)).reasons[0].domains_considered == 3
    use = next(each for each in fragmentation(cluster, (RACK,)).levels if each.level == RACK)
    assert use.empty + use.partly_used + use.full == 3
