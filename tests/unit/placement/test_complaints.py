"""What users of other schedulers complained of, as far as placement alone decides it (docs/placement-complaints.md)."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace

from grove_server.placement import (
    GPU_RESOURCE,
    Cluster,
    GangRequest,
    GroupRequest,
    NodeState,
    Placement,
    Taint,
    Verdict,
    VerdictCode,
    place,
)
from grove_server.placement.occupancy import GangFacts, Occupancy, Seat
from grove_server.placement.preemption import plan_preemption
from grove_server.placement.wake_ups import WakeUps
from tests.placement_cases import BLOCK, HOST, RACK, ZONE, clique, gang, gpu_node, gpus, nodes_of, placed, refused


def _racks(count: int, hosts: int, *, gpu_count: int = 8) -> Cluster:
    """Return racks r0, r1, … of GPU servers in one block."""
    return Cluster(
        gpu_node(f"r{rack}-n{host}", zone="z", block="b", rack=f"r{rack}", gpu_count=gpu_count)
        for rack in range(count)
        for host in range(hosts)
    )


def _rack_of(node: str) -> str:
    return node.partition("-")[0]


def _taken(cluster: Cluster, request: GangRequest) -> Placement:
    result = placed(place(cluster, request))
    cluster.reserve(result)
    return result


def test_a_sum_over_nodes_admits_and_displaces_nobody_4329_5243() -> None:
    """Eight GPUs free on eight nodes are not room for a pod of eight; nothing is evicted where that would not help."""
    cluster, occupancy = _racks(1, 8), Occupancy()
    occupancy.set_gang(GangFacts(name="low", priority=0, is_preemptible=False))
    for index, node in enumerate(cluster.node_names()):
        gpu_ids = cluster.bind_pod(node, gpus(7))
        seat = Seat(pod=f"p{index}", gang="low", clique="c", index=index, node=node, shape=gpus(7), gpu_ids=gpu_ids)
        occupancy.add_pods([seat])
    request = gang(clique("big", 1, gpus(8)))
    verdict = refused(place(cluster, request))
    assert verdict.code is VerdictCode.FRAGMENTED
    assert verdict.proof
    assert isinstance(plan_preemption(cluster, occupancy, request, priority=9), Verdict)


def test_ninety_nine_nodes_need_not_wait_for_the_last_6214() -> None:
    """A gang whose minimum is there starts with what there is; who needs all hundred holds none of the 99."""
    cluster = _racks(11, 9)
    whole = refused(place(cluster, gang(clique("w", 100, gpus(8)))))
    assert whole.proof
    result = _taken(cluster, gang(clique("w", 90, gpus(8), optional=10)))
    assert (result.pod_count, result.cliques[0].optional_unplaced) == (99, 1)


def test_a_required_domain_does_not_open_the_emptiest_hosts_3887_14850() -> None:
    """Inside its rack a small gang fills the host with the least room and leaves whole ones whole."""
    cluster = _racks(1, 4)
    cluster.bind_pod("r0-n2", gpus(6))
    result = _taken(cluster, gang(clique("w", 2, gpus(1)), required=RACK))
    assert nodes_of(result, "w") == ["r0-n2", "r0-n2"]


def test_single_gpus_do_not_nibble_at_whole_racks_10406_4368() -> None:
    """Single-GPU pods one after the other fill one rack before they touch the next; large gangs find whole racks."""
    cluster = _racks(4, 4)
    for index in range(32):
        result = _taken(cluster, gang(clique("w", 1, gpus(1)), name=f"small-{index}", preferred=RACK))
        assert _rack_of(nodes_of(result, "w")[0]) == "r0"
    for index in range(3):
        _taken(cluster, gang(clique("w", 4, gpus(8)), name=f"large-{index}", required=RACK))


def test_single_gpus_without_any_level_leave_racks_whole_too() -> None:
    """Gangs that ask for no level fill node by node in the order of racks."""
    cluster = _racks(4, 4)
    used = {nodes_of(_taken(cluster, gang(clique("w", 1, gpus(1)))), "w")[0] for _ in range(32)}
    assert len(used) == 4
    assert len({_rack_of(node) for node in used}) == 1


def test_a_refusal_is_one_decision_with_the_real_predicate_1094_2357_2930_4116() -> None:
    """A gang that misses by one node is refused by proof, and the reason names taint, label and the amount short."""
    cluster = _racks(2, 4)
    tainted = cluster.node("r0-n0")
    cluster.upsert_node(replace(tainted, taints=(Taint(key="dedicated", value="train"),)))
    cluster.bind_pod("r0-n1", gpus(1))
    verdict = refused(place(cluster, gang(clique("w", 7, gpus(8)))))
    assert verdict.proof
    assert "fits 6 of 7" in verdict.sentence()
    assert "1 tainted dedicated=train:NoSchedule" in verdict.sentence()


def test_no_part_of_a_gang_starts_alone_500_713_703() -> None:
    """If one sub-group lacks a single pod nothing is placed and nothing is held; freeing that one places all."""
    cluster = _racks(2, 5)
    cluster.bind_pod("r1-n4", gpus(1))
    before = {name: cluster.free_of(name) for name in cluster.node_names()}
    groups = tuple(
        GroupRequest(name=f"g{i}", members=(clique(f"g{i}-w", 5, gpus(8)),), required=RACK) for i in range(2)
    )
    request = gang(*groups)
    refused(place(cluster, request))
    assert {name: cluster.free_of(name) for name in cluster.node_names()} == before
    cluster.release_pod("r1-n4", gpus(1), (0,))
    assert _taken(cluster, request).pod_count == 10


def test_two_gangs_never_hold_half_of_what_both_need_114_117_872() -> None:
    """Of two gangs that each need more than half one runs, whichever comes first, and the other holds nothing."""
    for order in (("a", "b"), ("b", "a")):
        cluster = _racks(1, 10)
        first, second = (gang(clique("w", 6, gpus(8)), name=name) for name in order)
        _taken(cluster, first)
        refused(place(cluster, second))
        assert sum(cluster.free_of(name)[GPU_RESOURCE] for name in cluster.node_names()) == 32


def test_equal_pending_gangs_are_asked_once_1660_1850() -> None:
    """Of a thousand equal gangs on a full cluster one is asked; the others share its verdict under their own names."""
    cluster, asked = _racks(1, 1), 0
    wake_ups: WakeUps[int] = WakeUps(cluster)
    cluster.bind_pod("r0-n0", gpus(8))
    for key in range(1_000):
        request = gang(clique(f"w-{key}", 2, gpus(1)), name=f"gang-{key}", required=RACK)
        verdict = wake_ups.known(request)
        if verdict is None:
            asked += 1
            verdict = refused(place(cluster, request))
        assert f"w-{key}" in verdict.sentence() or f"gang-{key}" in verdict.sentence()
        wake_ups.file(key, [(request, verdict)], order=(key,))
    assert (asked, wake_ups.record_count) == (1, 1)
    generation = cluster.generation
    cluster.release_pod("r0-n0", gpus(8), tuple(range(8)))
    assert wake_ups.woken(generation) == [0, 1, 2, 3]


def test_consecutive_ranks_share_racks_2077_4233() -> None:
    """Pods come in the order of their ranks, rack by rack, so that neighbours in rank are neighbours in the network."""
    result = _taken(_racks(4, 4), gang(clique("w", 48, gpus(2)), preferred=RACK))
    racks = [_rack_of(node) for node in nodes_of(result, "w")]
    assert len([1 for one, other in itertools.pairwise(racks) if one != other]) == len(set(racks)) - 1


def test_a_preferred_level_that_is_too_small_spreads_over_the_fewest_4343() -> None:
    """A gang larger than a rack takes whole racks and one part of another, not a bit of each under their ancestor."""
    cluster = _racks(6, 4)
    result = _taken(cluster, gang(clique("w", 9, gpus(8)), preferred=RACK))
    assert sorted(Counter(map(_rack_of, nodes_of(result, "w"))).values()) == [1, 4, 4]


def test_a_scaled_gang_stays_in_the_block_of_its_base_648() -> None:
    """A later gang of a copy that is bound to a block waits for that block, though another one has room."""
    cluster = Cluster(gpu_node(f"{b}-n{i}", zone="z", block=b, rack=f"{b}-r") for b in ("b0", "b1") for i in range(4))
    base = _taken(cluster, gang(clique("w", 3, gpus(8)), required=BLOCK))
    (chosen,) = [each.path for each in base.domains if each.level == BLOCK]
    later = gang(clique("w", 2, gpus(8)), name="scaled", required=BLOCK, within=chosen)
    assert "outside" in refused(place(cluster, later)).sentence()
    _taken(cluster, replace(later, members=(clique("w", 1, gpus(8)),)))


# -- bad input ---------------------------------------------------------------------------------------------------------


def test_a_label_that_half_of_the_nodes_lack() -> None:
    """Nodes without the label of a level serve gangs that ask for none; the others' reason counts them."""
    nodes = [
        gpu_node(f"n{i}", zone="z", block="b", **({"rack": "r"} if i % 2 else {}))  # type: ignore[arg-type]  # labels
        for i in range(8)
    ]
    cluster = Cluster(nodes)
    verdict = refused(place(cluster, gang(clique("w", 5, gpus(8)), required=RACK)))
    assert f"4 without label {RACK}" in verdict.sentence()
    assert _taken(cluster, gang(clique("w", 8, gpus(8)))).pod_count == 8


def test_a_node_that_lies_about_its_capacity() -> None:
    """A node that turns out smaller than its pods is short, not wrong: nothing more goes there, and all comes back."""
    cluster = _racks(1, 2)
    first = _taken(cluster, gang(clique("w", 2, gpus(8))))
    honest = cluster.node("r0-n0")
    cluster.upsert_node(replace(honest, allocatable={**honest.allocatable, GPU_RESOURCE: 2, "cpu": 500}))
    assert cluster.free_of("r0-n0")["cpu"] < 0
    assert cluster.gpus_free_of("r0-n0") == ()
    refused(place(cluster, gang(clique("w", 1, gpus(1)), name="late")))
    cluster.release(first)
    assert cluster.gpus_free_of("r0-n0") == (0, 1)
    cluster.upsert_node(honest)
    _taken(cluster, gang(clique("w", 2, gpus(8))))


def test_two_topologies_that_disagree() -> None:
    """What is one domain in one topology and two in another is judged by the one that the gang names."""
    power, network = "power/feed", "network/leaf"
    nodes = (
        NodeState(
            name=f"n{i}",
            labels={power: f"f{i % 2}", network: f"l{i // 2}", ZONE: "z", HOST: f"n{i}"},
            allocatable={"cpu": 8_000, "pods": 10, GPU_RESOURCE: 8},
        )
        for i in range(4)
    )
    cluster = Cluster(nodes)
    by_power = gang(clique("w", 2, gpus(8)), topology=(power, HOST), required=power)
    by_network = gang(clique("w", 2, gpus(8)), topology=(network, HOST), required=network)
    assert nodes_of(_taken(cluster, by_power), "w") == ["n0", "n2"]
    assert refused(place(cluster, by_network)).code is VerdictCode.FRAGMENTED
