"""Shares of one GPU: where they go, what is counted, what is given back, and what is said when there is no room."""

from __future__ import annotations

import numpy as np
import pytest

from grove_server.placement import (
    GPU_RESOURCE,
    Cluster,
    ExclusionKind,
    GpuConflictError,
    InvalidRequestError,
    NodeState,
    Placement,
    PodShape,
    RemedyKind,
    StalePlacementError,
    VerdictCode,
    place,
)
from grove_server.placement.requests import GPU_SHARE
from grove_server.placement.shares import GpuShares, shares_taken
from grove_server.placement.violations import violations
from tests.placement_cases import HOST, RACK, clique, gang, gpu_node, gpus, nodes_of, placed, refused

WHOLE = gpus(1)


def share(milli: int, *, cpu: int = 1000) -> PodShape:
    """Return a pod that wants a share of one GPU."""
    return PodShape(requests=(("cpu", cpu),), gpu_milli=milli)


def ids_of(result: Placement, name: str) -> list[tuple[int, ...]]:
    """Return the GPU ids of a clique's pods in rank order."""
    return [binding.gpu_ids for each in result.cliques if each.name == name for binding in each.bindings]


def one_node(gpu_count: int = 2) -> Cluster:
    """Return a cluster of one GPU server."""
    return Cluster([gpu_node("a", gpu_count=gpu_count)])


def test_a_share_goes_to_the_fullest_gpu_that_holds_it() -> None:
    """Of two partly used GPUs the fuller one is taken while it has room, then the other, then a free one is opened."""
    cluster = one_node(4)
    cluster.bind_pod("a", share(500), (0,))
    cluster.bind_pod("a", share(700), (2,))
    result = placed(place(cluster, gang(clique("c", 4, share(300)))))
    assert ids_of(result, "c") == [(2,), (0,), (1,), (1,)]
    assert violations(cluster, gang(clique("c", 4, share(300))), result) == []


def test_the_last_room_of_partly_used_gpus_is_counted_exactly() -> None:
    """As many shares are placed as the holes hold, and one more is refused with a proof."""
    cluster = one_node(3)
    cluster.bind_pod("a", share(600), (0,))
    assert (
        placed(place(cluster, gang(clique("c", 7, share(300))))).pod_count == 7
    )  # One beside the 600, three on each free GPU.
    assert refused(place(cluster, gang(clique("c", 8, share(300))))).proof


def test_whole_gpus_are_those_that_nobody_has_a_share_of() -> None:
    """A pod of two whole GPUs does not fit a node where one of two is partly used."""
    cluster = one_node(2)
    cluster.bind_pod("a", share(10), (1,))
    assert cluster.gpus_free_of("a") == (0,)
    assert cluster.free_of("a")[GPU_RESOURCE] == 1
    assert cluster.gpu_shares_of("a") == {1: 990}
    assert refused(place(cluster, gang(clique("c", 1, gpus(2))))).code == VerdictCode.INSUFFICIENT_CAPACITY


def test_whole_shared_and_cpu_pods_of_one_gang_fit_together() -> None:
    """A gang of whole GPUs, two sizes of shares and a pod without GPUs uses a node up to the last milli."""
    cluster = one_node(3)
    request = gang(
        clique("small", 2, share(400)), clique("whole", 1, WHOLE), clique("large", 2, share(600)), clique("cpu", 1)
    )
    result = placed(place(cluster, request))
    assert violations(cluster, request, result) == []
    cluster.reserve(result)
    assert cluster.gpus_free_of("a") == ()
    assert set(cluster.gpu_shares_of("a").values()) == {0}


def test_deciding_leaves_partly_used_gpus_as_they_were() -> None:
    """Tentative work is taken back exactly, for gangs that fit and for gangs that do not."""
    cluster = Cluster([gpu_node("a", gpu_count=2, rack="r"), gpu_node("b", gpu_count=2, rack="r")])
    cluster.bind_pod("a", share(250), (0,))
    before = (cluster.ledger.shares.open, cluster.ledger.free.copy())
    for pods in (3, 9):
        place(cluster, gang(clique("x", pods, share(300)), clique("y", 2, share(450)), required=RACK))
        assert cluster.ledger.shares.open == before[0] == {0: (750,)}
        assert np.array_equal(cluster.ledger.free, before[1])
    fresh = Cluster([cluster.node("a"), cluster.node("b")])
    fresh.bind_pod("a", share(250), (0,))
    request = gang(clique("x", 5, share(300)))
    assert ids_of(placed(place(cluster, request)), "x") == ids_of(placed(place(fresh, request)), "x")


def test_shares_are_given_back() -> None:
    """Releasing a placement frees its GPUs wholly again, and a fork keeps its own account."""
    cluster = one_node(2)
    result = placed(place(cluster, gang(clique("c", 3, share(500)))))
    cluster.reserve(result)
    fork = cluster.fork()
    cluster.release(result)
    assert cluster.gpus_free_of("a") == (0, 1)
    assert cluster.gpu_shares_of("a") == {}
    assert fork.gpus_free_of("a") == ()
    assert fork.gpu_shares_of("a") == {0: 0, 1: 500}


def test_pods_found_running_get_their_shares_back() -> None:
    """After a restart shares are taken with their ids, or without, and never beyond what a GPU has."""
    cluster = one_node(2)
    assert cluster.bind_pod("a", share(600), (1,)) == (1,)
    assert cluster.bind_pod("a", share(300)) == (1,)
    assert cluster.bind_pod("a", share(300)) == (0,)
    for shape, gpu_ids in ((share(200), (1,)), (share(200), (0, 1)), (WHOLE, (0,)), (share(900), ()), (WHOLE, ())):
        with pytest.raises(GpuConflictError):
            cluster.bind_pod("a", shape, gpu_ids)
    assert cluster.gpu_shares_of("a") == {0: 700, 1: 100}


def test_a_whole_gpu_cannot_be_shared_by_a_pod_found_running() -> None:
    """A share of a GPU that a pod has wholly is a conflict."""
    cluster = one_node(1)
    cluster.bind_pod("a", WHOLE, (0,))
    with pytest.raises(GpuConflictError):
        cluster.bind_pod("a", share(1), (0,))


def test_a_gpu_that_breaks_keeps_its_pods_and_takes_no_more() -> None:
    """What a broken GPU has left is not given out; the account is right when it works again, with or without pods."""
    cluster = one_node(1)
    cluster.bind_pod("a", share(400), (0,))
    sound, generation = cluster.node("a"), cluster.generation
    broken = NodeState(name="a", labels=sound.labels, allocatable=sound.allocatable, gpu_busy=frozenset({0}))
    cluster.upsert_node(broken)
    request = gang(clique("c", 1, share(100)))
    assert cluster.gpu_shares_of("a") == {}
    verdict = refused(place(cluster, request))
    assert verdict.proof
    assert not cluster.may_help(request, verdict.generation)
    cluster.upsert_node(sound)
    assert cluster.gpu_shares_of("a") == {0: 600}
    assert cluster.may_help(request, generation)
    cluster.upsert_node(broken)
    cluster.release_pod("a", share(400), (0,))
    assert cluster.gpus_free_of("a") == ()
    cluster.upsert_node(sound)
    assert cluster.gpus_free_of("a") == (0,)


def test_a_removed_node_keeps_the_account_of_shares() -> None:
    """A node that comes back still has its pods' shares taken; once they are released its slot is free for others."""
    cluster = one_node(1)
    state = cluster.node("a")
    cluster.bind_pod("a", share(400), (0,))
    cluster.remove_node("a")
    cluster.upsert_node(state)
    assert cluster.gpu_shares_of("a") == {0: 600}
    cluster.remove_node("a")
    cluster.release_pod("a", share(400), (0,))
    cluster.upsert_node(gpu_node("b", gpu_count=1))
    assert cluster.gpus_free_of("b") == (0,)
    assert len(cluster.rules.states) == 1


def test_a_placement_that_went_stale_is_refused_whole() -> None:
    """A share taken in between, or a whole GPU that a share opened in between, spoils the reservation."""
    cluster = one_node(2)
    cluster.bind_pod("a", share(500), (0,))
    shared = placed(place(cluster, gang(clique("c", 1, share(500)), name="shared")))
    whole = placed(place(cluster, gang(clique("c", 1, WHOLE), name="whole")))
    cluster.bind_pod("a", share(1), (0,))
    with pytest.raises(StalePlacementError):
        cluster.reserve(shared)
    cluster.reserve(whole)
    cluster.release(whole)
    cluster.bind_pod("a", share(999), (1,))
    with pytest.raises(StalePlacementError):
        cluster.reserve(whole)
    assert cluster.gpu_shares_of("a") == {0: 499, 1: 1}


def test_pods_with_shares_stay_on_gpu_nodes_and_others_off_them() -> None:
    """A share is a GPU's work: such pods go to GPU nodes, pods without any to nodes without GPUs."""
    plain = NodeState(name="cpu", labels={HOST: "cpu"}, allocatable={"cpu": 64_000, "pods": 110, "memory": 2**39})
    cluster = Cluster([gpu_node("gpu"), plain])
    result = placed(place(cluster, gang(clique("s", 1, share(500)), clique("c", 1))))
    assert nodes_of(result, "s") == ["gpu"]
    assert nodes_of(result, "c") == ["cpu"]


def test_a_verdict_about_shares_counts_gpus() -> None:
    """It says how many nodes are full or have no GPU, and how much of a GPU is missing."""
    plain = NodeState(name="cpu", allocatable={"cpu": 64_000, "pods": 110})
    cluster = Cluster([gpu_node("gpu", gpu_count=1), plain])
    cluster.bind_pod("gpu", share(700), (0,))
    verdict = refused(place(cluster, gang(clique("c", 1, share(500)))))
    assert verdict.code == VerdictCode.INSUFFICIENT_CAPACITY
    assert [(each.kind, each.detail) for each in verdict.exclusions] == [
        (ExclusionKind.TOO_SMALL, GPU_RESOURCE),
        (ExclusionKind.FULL, "0.5 nvidia.com/gpu"),
    ]
    assert verdict.levels[0].best is not None
    assert verdict.levels[0].best.lacks == ((GPU_SHARE, 200),)
    assert "0.2 nvidia.com/gpu more free" in verdict.sentence()


def test_room_in_pieces_is_called_fragmented() -> None:
    """Half a GPU is free in two pieces: enough by sum, in no GPU."""
    cluster = one_node(2)
    cluster.bind_pod("a", share(700), (0,))
    cluster.bind_pod("a", share(700), (1,))
    assert refused(place(cluster, gang(clique("c", 1, share(500))))).code == VerdictCode.FRAGMENTED


def test_without_any_gpu_a_share_is_too_large() -> None:
    """The verdict is that of a pod no node could ever hold, and the remedy names the GPU."""
    verdict = refused(place(Cluster([gpu_node("a", gpu_count=0)]), gang(clique("c", 1, share(500)))))
    assert verdict.code == VerdictCode.POD_TOO_LARGE
    assert [each.kind for each in verdict.remedies] == [RemedyKind.SMALLER_PODS]
    assert verdict.remedies[0].amounts == ((GPU_SHARE, 0),)


@pytest.mark.parametrize(
    "shape", [share(1000), share(-1), PodShape(requests=((GPU_RESOURCE, 1),), gpu_milli=500)], ids=str
)
def test_unsound_shares_are_refused(shape: PodShape) -> None:
    """A share is less than one GPU, more than none, and stands alone."""
    with pytest.raises(InvalidRequestError):
        place(one_node(), gang(clique("c", 1, shape)))


def test_the_matrix_of_shares_grows_with_slots_and_gpus() -> None:
    """Counts over all slots are those of the single ones, whatever slot or number of GPUs comes next."""
    shares = GpuShares()
    shares.set_open(3, (100, 900))
    shares.set_open(40, tuple(range(100, 130)))
    shares.set_open(3, (400,))
    slots = np.array([0, 3, 40, 90], dtype=np.int64)
    assert shares.fitting(slots, 110).tolist() == [shares.fitting_at(slot, 110) for slot in slots.tolist()]
    assert shares.fitting(slots, 110).tolist() == [0, 3, 20, 0]
    assert shares.sums(slots).tolist() == [0, 400, sum(range(100, 130)), 0]


def test_best_fit_uses_holes_before_it_opens_gpus() -> None:
    """Shares of one size fill the holes from the smallest on; what is used up is forgotten."""
    assert shares_taken((300, 500), 300, 2) == ((200,), 0)
    assert shares_taken((200,), 300, 4) == ((100, 200, 700), 2)
    assert shares_taken((), 500, 3) == ((500,), 2)


def test_a_small_share_joins_a_large_one_that_had_to_open_a_gpu() -> None:
    """Who fits no partly used GPU opens one; a smaller share of the same gang then goes where it fills up most."""
    cluster = one_node(2)
    cluster.bind_pod("a", share(500), (0,))
    request = gang(clique("small", 1, share(300)), clique("large", 1, share(700)))
    result = placed(place(cluster, request))
    assert (ids_of(result, "small"), ids_of(result, "large")) == ([(1,)], [(1,)])
    assert violations(cluster, request, result) == []


def test_what_would_fit_is_said_in_the_words_of_the_manifest() -> None:
    """Where no node takes shares of a GPU, pods without the annotation would fit."""
    cluster = Cluster([gpu_node("a", zone="z", block="b", rack="r", gpu_count=0)])
    sentence = refused(place(cluster, gang(clique("c", 1, share(500))))).sentence()
    assert "pods without grove.io/gpu-fraction" in sentence
