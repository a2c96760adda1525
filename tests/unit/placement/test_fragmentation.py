"""Fragmentation and the largest gang, counted by hand on small clusters."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from grove_server.placement import Cluster, GangRequest, Mix, Placement, PodShape, place
from grove_server.placement.fragmentation import LevelUse, fragmentation, largest_gangs, probe
from tests.placement_cases import BLOCK, HOST, RACK, TOPOLOGY, ZONE, clique, clusters, gpu_node, gpus, shapes


def small() -> Cluster:
    """Return four nodes of 8 GPUs in two racks: one full, one with 3 free, two empty."""
    cluster = Cluster(gpu_node(f"n{i}", zone="z", block="b", rack=f"r{i // 2}") for i in range(4))
    cluster.bind_pod("n0", gpus(8))
    cluster.bind_pod("n1", gpus(5))
    return cluster


def test_nodes_and_domains_are_sorted_by_use() -> None:
    """Empty, partly used and full are told apart for nodes and for every level above them."""
    figures = fragmentation(small(), TOPOLOGY)
    assert (figures.gpu_milli, figures.allocated_milli, figures.idle_milli) == (32_000, 13_000, 19_000)
    assert figures.allocation_ratio == 13 / 32
    assert figures.levels == (
        LevelUse(level=ZONE, empty=0, partly_used=1, full=0),
        LevelUse(level=BLOCK, empty=0, partly_used=1, full=0),
        LevelUse(level=RACK, empty=1, partly_used=1, full=0),
        LevelUse(level="", empty=2, partly_used=1, full=1),
    )
    assert figures.node_fragmentation_ratio == 0.25


def test_free_gpus_that_no_usual_pod_can_have_are_unusable() -> None:
    """For pods of 4 GPUs the 3 free ones of a node are lost; for pods of 1 none are; a mix is between."""
    cluster = small()
    four, one = probe(4), probe(1)
    assert fragmentation(cluster, (), Mix(shapes=((four, 1),))).unusable_milli == 3_000
    assert fragmentation(cluster, (), Mix(shapes=((one, 1),))).unusable_milli == 0
    assert fragmentation(cluster, (), Mix(shapes=((four, 1), (one, 2)))).unusable_milli == 1_000
    assert fragmentation(cluster, ()).unusable_milli is None


def test_a_rest_of_a_gpu_is_unusable_for_whole_ones() -> None:
    """A pod with a share leaves a rest that only shares can use."""
    cluster = Cluster([gpu_node("n0", gpu_count=2)])
    cluster.bind_pod("n0", PodShape(gpu_milli=300))
    assert fragmentation(cluster, (), Mix(shapes=((probe(1), 1),))).unusable_milli == 700
    assert fragmentation(cluster, (), Mix(shapes=((PodShape(gpu_milli=700), 1),))).unusable_milli == 0
    assert fragmentation(cluster, (), Mix(shapes=((PodShape(gpu_milli=800), 1),))).unusable_milli == 700


def test_a_cluster_of_nothing_has_figures() -> None:
    """No nodes and no GPUs are no error."""
    assert fragmentation(Cluster(), TOPOLOGY).allocation_ratio == 0.0
    assert largest_gangs(Cluster(), TOPOLOGY, [probe(1)]) == ()


def test_the_largest_gang_is_told_level_by_level() -> None:
    """Pods of 2 GPUs: 9 in the cluster, 8 in the empty rack, 4 on an empty node."""
    found = [(each.level, each.domain, each.pod_count) for each in largest_gangs(small(), TOPOLOGY, [gpus(2)])]
    assert found == [("", "", 9), (ZONE, "z", 9), (BLOCK, "b", 9), (RACK, "r1", 8), (HOST, "n2", 4)]


@settings(max_examples=60, deadline=None)
@given(cluster=clusters(nodes_max=6), shape=shapes(), level=st.integers(0, 3))
def test_the_largest_gang_fits_and_one_pod_more_does_not(cluster: Cluster, shape: PodShape, level: int) -> None:
    """What is told as the most is what `place` accepts, at every level."""
    key = TOPOLOGY[level]
    each = next((each for each in largest_gangs(cluster, TOPOLOGY, [shape]) if each.level == key), None)
    if each is None or each.pod_count > 1_000:
        return
    for count, fits in ((each.pod_count, True), (each.pod_count + 1, False)):
        if count:
            request = GangRequest(name="g", members=(clique("c", count, shape),), topology=TOPOLOGY, required=key)
            assert isinstance(place(cluster, request), Placement) is fits
