"""The cluster's state: reservations, nodes that come and go, growth, copies, bounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from grove_server.placement import (
    GPU_RESOURCE,
    Cluster,
    GpuConflictError,
    NodeInvalidError,
    NodeState,
    PodShape,
    StalePlacementError,
    Taint,
    UnknownNodeError,
    place,
)
from tests.placement_cases import RACK, TOPOLOGY, WORKER, clique, gang, gpu_node, gpus, placed, refused, worker, workers


def test_reserve_and_release_are_inverse() -> None:
    """What a placement took comes back whole, GPU ids included."""
    cluster = Cluster([gpu_node("a"), gpu_node("b")])
    before = [(cluster.free_of(name), cluster.gpus_free_of(name)) for name in cluster.node_names()]
    result = placed(place(cluster, gang(clique("w", 4, gpus(3)))))
    cluster.reserve(result)
    assert len(cluster.gpus_free_of("a")) == 2
    cluster.release(result)
    assert [(cluster.free_of(name), cluster.gpus_free_of(name)) for name in cluster.node_names()] == before


def test_a_stale_placement_is_refused_whole() -> None:
    """A placement that was overtaken changes nothing when it does not fit any more."""
    cluster = Cluster([gpu_node("a"), gpu_node("b")])
    request = gang(clique("w", 3, gpus(4)))
    first, second = placed(place(cluster, request)), placed(place(cluster, request))
    cluster.reserve(first)
    free = cluster.gpus_free_of("b")
    with pytest.raises(StalePlacementError):
        cluster.reserve(second)
    assert cluster.gpus_free_of("b") == free
    cluster.release(first)
    cluster.reserve(second)


def test_a_stale_placement_on_a_cordoned_or_lost_node_is_refused() -> None:
    """Eligibility is checked again, not room alone."""
    cluster = workers(2)
    result = placed(place(cluster, gang(clique("w", 2))))
    cluster.set_schedulable(["worker-00"], schedulable=False)
    with pytest.raises(StalePlacementError):
        cluster.reserve(result)
    cluster.set_schedulable(["worker-00"], schedulable=True)
    cluster.remove_node("worker-01")
    with pytest.raises(StalePlacementError):
        cluster.reserve(result)


def test_bound_pods_are_registered_after_a_restart() -> None:
    """Given ids are kept, missing ones chosen, taken ones refused."""
    cluster = Cluster([gpu_node("a")])
    assert cluster.bind_pod("a", gpus(2), (6, 7)) == (6, 7)
    assert cluster.bind_pod("a", gpus(2)) == (4, 5)  # The quad that is broken already.
    with pytest.raises(GpuConflictError):
        cluster.bind_pod("a", gpus(1), (7,))
    with pytest.raises(GpuConflictError):
        cluster.bind_pod("a", gpus(5))
    with pytest.raises(UnknownNodeError):
        cluster.bind_pod("b", gpus(1))
    assert cluster.gpus_free_of("a") == (0, 1, 2, 3)


def test_a_node_that_comes_back_finds_its_pods() -> None:
    """The account of a removed node is kept until its pods are released."""
    cluster = Cluster([gpu_node("a"), gpu_node("b")])
    cluster.bind_pod("a", gpus(2), (0, 1))
    cluster.remove_node("a")
    assert cluster.node_names() == ["b"]
    with pytest.raises(UnknownNodeError):
        cluster.free_of("a")
    cluster.upsert_node(gpu_node("a"))
    assert cluster.gpus_free_of("a") == (2, 3, 4, 5, 6, 7)
    cluster.remove_node("a")
    cluster.release_pod("a", gpus(2), (0, 1))
    with pytest.raises(UnknownNodeError):
        cluster.release_pod("a", gpus(2), (0, 1))
    cluster.upsert_node(gpu_node("c"))
    assert cluster.gpus_free_of("c") == tuple(range(8))


def test_a_node_that_shrinks_under_its_pods_stays_truthful() -> None:
    """Free goes negative, nothing more fits, and releasing brings it back."""
    cluster = Cluster([gpu_node("a")])
    for _ in range(4):
        cluster.bind_pod("a", gpus(2, cpu=20_000))
    cluster.upsert_node(replace(gpu_node("a", gpu_count=4), allocatable={"cpu": 40_000, "pods": 110, GPU_RESOURCE: 4}))
    assert cluster.free_of("a")["cpu"] == -40_000
    assert cluster.gpus_free_of("a") == ()
    assert refused(place(cluster, gang(clique("w", 1, PodShape(requests=(("cpu", 1),)))))).proof
    cluster.release_pod("a", gpus(2, cpu=20_000), (0, 1))
    assert cluster.gpus_free_of("a") == (0, 1)


def test_broken_gpus_are_not_given() -> None:
    """Busy ids are out of the pool, and back in it when they are well again."""
    cluster = Cluster([replace(gpu_node("a"), gpu_busy=frozenset({0, 5}))])
    assert cluster.gpus_free_of("a") == (1, 2, 3, 4, 6, 7)
    generation = cluster.generation
    cluster.upsert_node(gpu_node("a"))
    assert cluster.gpus_free_of("a") == tuple(range(8))
    assert cluster.capacity_grew_since(generation)


def test_several_names_are_one_change() -> None:
    """A cordon of many nodes is one generation, and an unknown name among them changes nothing."""
    cluster = workers(4)
    generation = cluster.generation
    cluster.set_schedulable(["worker-00", "worker-01"], schedulable=False)
    assert cluster.generation == generation + 1
    with pytest.raises(UnknownNodeError):
        cluster.set_schedulable(["worker-00", "nobody"], schedulable=True)
    assert cluster.node("worker-00").unschedulable
    assert cluster.generation == generation + 1


def test_growth_is_told_from_shrinking() -> None:
    """Only events that may let a pod in count as growth."""
    cluster = workers(2)
    pod = (WORKER, "worker-00")
    events: list[tuple[Callable[[], object], bool]] = [
        (lambda: cluster.bind_pod(pod[1], pod[0]), False),
        (lambda: cluster.set_schedulable(["worker-01"], schedulable=False), False),
        (lambda: cluster.release_pod(pod[1], pod[0]), True),
        (lambda: cluster.set_schedulable(["worker-01"], schedulable=True), True),
        (lambda: cluster.upsert_node(worker(0)), False),
        (lambda: cluster.upsert_node(replace(worker(0), taints=(Taint(key="a"),))), False),
        (lambda: cluster.upsert_node(worker(0)), True),
        (lambda: cluster.upsert_node(worker(5)), True),
        (lambda: cluster.remove_node("worker-05"), False),
    ]
    for event, grows in events:
        generation = cluster.generation
        event()
        assert cluster.capacity_grew_since(generation) is grows


def test_growth_that_cannot_help_wakes_nobody() -> None:
    """A new CPU node is no reason to try a GPU gang again."""
    cluster = Cluster([gpu_node("a", gpu_count=1)])
    request = gang(clique("w", 2, gpus(1)))
    verdict = refused(place(cluster, request))
    assert not cluster.may_help(request, verdict.generation)
    cluster.upsert_node(worker(0))
    assert cluster.capacity_grew_since(verdict.generation)
    assert not cluster.may_help(request, verdict.generation)
    cluster.upsert_node(gpu_node("b"))
    assert cluster.may_help(request, verdict.generation)


def test_a_fork_is_independent() -> None:
    """A what-if on a copy leaves the original alone, and the other way round."""
    cluster = workers(7)
    fork = cluster.fork()
    request = gang(clique("w", 7), required=RACK)
    fork.reserve(placed(place(fork, request)))
    assert refused(place(fork, request)).proof
    fork.remove_node("worker-00")
    assert placed(place(cluster, request)).pod_count == 7
    cluster.bind_pod("worker-01", WORKER)
    assert fork.node_names() == [f"worker-{i:02}" for i in range(1, 7)]


def test_a_resource_that_appears_later_is_found() -> None:
    """A class that could not be counted is counted when the first node with its resource joins."""
    cluster = workers(1)
    request = gang(clique("w", 1, PodShape(requests=(("example.com/fpga", 1),))))
    verdict = refused(place(cluster, request))
    cluster.upsert_node(NodeState(name="f", allocatable={"pods": 1, "example.com/fpga": 1}))
    assert cluster.may_help(request, verdict.generation)
    assert placed(place(cluster, request)).pod_count == 1


@pytest.mark.parametrize(
    "state",
    [
        NodeState(name="n", allocatable={"cpu": -1}),
        NodeState(name="n", allocatable={"cpu": 2**61}),
        NodeState(name="n", allocatable={GPU_RESOURCE: 2_000}),
        NodeState(name="n", gpu_busy=frozenset({-1})),
        NodeState(name="n", allocatable={f"example.com/r{i}": 1 for i in range(80)}),
    ],
)
def test_absurd_nodes_are_refused_whole(state: NodeState) -> None:
    """Bounds are checked before anything of a batch is taken in."""
    cluster = workers(1)
    generation = cluster.generation
    with pytest.raises(NodeInvalidError):
        cluster.upsert_nodes([worker(1), state])
    assert cluster.node_names() == ["worker-00"]
    assert cluster.generation == generation


def test_caches_stay_bounded_and_right() -> None:
    """More shapes and topologies than fit the caches are still counted rightly."""
    cluster = workers(8)
    for i in range(300):
        shape = PodShape(requests=(("cpu", 1 + i),))
        assert placed(place(cluster, gang(clique("w", 1, shape), topology=TOPOLOGY[i % 4 :]))).pod_count == 1
    assert len(cluster._classes) <= 256
    for i in range(40):
        cluster.layout((f"label-{i}",))
    assert len(cluster._layouts) <= 16


def test_long_histories_are_caught_up_with() -> None:
    """A class that nobody asked for during many thousand changes is rebuilt when it is asked for."""
    cluster = workers(2)
    request = gang(clique("w", 2), topology=())
    placed(place(cluster, request))
    for _ in range(20_000):
        cluster.bind_pod("worker-00", WORKER)
        cluster.release_pod("worker-00", WORKER)
    cluster.bind_pod("worker-00", WORKER)
    assert refused(place(cluster, request)).proof
    assert cluster.capacity_grew_since(0)


def test_many_changed_nodes_are_counted_as_one_by_one() -> None:
    """The path for many nodes and the one for few give the counts of a cluster built anew."""
    cluster, fresh = workers(112), workers(112)
    shape = clique("w", 1).shape
    kept = cluster.request_class(shape, cluster.layout(TOPOLOGY))
    result = placed(place(cluster, gang(clique("w", 20))))
    cluster.reserve(result)
    fresh.reserve(placed(place(fresh, gang(clique("w", 20)))))
    anew = fresh.fork().request_class(shape, fresh.layout(TOPOLOGY))
    assert cluster.request_class(shape, cluster.layout(TOPOLOGY)) is kept
    assert [level.tolist() for level in kept.everywhere] == [level.tolist() for level in anew.everywhere]
