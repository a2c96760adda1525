"""Grove's own topology and gang cases, as far as placement alone decides them; and the order of preferences."""

from __future__ import annotations

from dataclasses import replace

import pytest

from grove_server.placement import (
    GPU_RESOURCE,
    Budget,
    CliqueRequest,
    Cluster,
    GangRequest,
    GroupRequest,
    InvalidRequestError,
    NodeState,
    Placement,
    PodShape,
    Taint,
    VerdictCode,
    place,
)
from grove_server.placement.violations import violations
from tests.placement_cases import (
    BLOCK,
    HOST,
    MIB,
    RACK,
    TOPOLOGY,
    ZONE,
    clique,
    gang,
    gpu_node,
    gpus,
    nodes_of,
    placed,
    refused,
    worker,
    workers,
)

SMALL = PodShape(requests=(("memory", 30 * MIB),))


def _labels(cluster: Cluster, result: Placement, key: str, *cliques: str) -> set[str]:
    return {cluster.node(node).labels[key] for name in cliques for node in nodes_of(result, name)}


def test_tas2_each_clique_in_its_own_level() -> None:
    """Three pods share a rack, four pods share a block."""
    cluster = workers()
    request = gang(clique("rack", 3, required=RACK), clique("block", 4, required=BLOCK))
    result = placed(place(cluster, request))
    assert violations(cluster, request, result) == []
    assert len(_labels(cluster, result, RACK, "rack")) == 1
    assert len(_labels(cluster, result, BLOCK, "block")) == 1


def test_tas3_the_whole_set_in_one_rack() -> None:
    """Two group replicas of one worker and two routers share the rack that the set asks for."""
    cluster = workers()
    request = gang(
        GroupRequest(name="w-0", members=(clique("w-0-a", 1),)),
        GroupRequest(name="w-1", members=(clique("w-1-a", 1),)),
        clique("router", 2),
        required=RACK,
    )
    result = placed(place(cluster, request))
    assert len(_labels(cluster, result, RACK, "w-0-a", "w-1-a", "router")) == 1
    assert [(each.scope, each.level, each.value) for each in result.domains] == [("gang", RACK, "rack-0")]


def test_tas4_each_group_replica_in_one_rack() -> None:
    """Only the groups are bound; the router goes where there is room."""
    cluster = workers()
    groups = [GroupRequest(name=f"w-{i}", required=RACK, members=(clique(f"w-{i}-a", 4),)) for i in range(2)]
    request = gang(*groups, clique("router", 2))
    result = placed(place(cluster, request))
    assert violations(cluster, request, result) == []
    assert {each.scope for each in result.domains} == {"w-0", "w-1"}


def test_tas5_two_pods_on_one_host() -> None:
    """The host level is a level like others."""
    cluster = workers()
    result = placed(place(cluster, gang(clique("worker", 2, SMALL, required=HOST))))
    assert len(set(nodes_of(result, "worker"))) == 1


def test_tas6_one_zone() -> None:
    """A broad level still packs: four pods on four hosts of one rack."""
    cluster = workers()
    result = placed(place(cluster, gang(clique("worker", 4), required=ZONE)))
    assert len(_labels(cluster, result, RACK, "worker")) == 1


def test_tas7_no_constraint_at_all() -> None:
    """Without constraints the pods are packed all the same."""
    cluster = workers()
    request = gang(clique("a", 2), clique("b", 2))
    result = placed(place(cluster, request))
    assert violations(cluster, request, result) == []
    assert result.domains == ()


def test_tas8_three_levels_nest() -> None:
    """Set in one block, group replica in one rack, clique on one host."""
    cluster = workers()
    groups = [
        GroupRequest(
            name=f"g-{i}",
            required=RACK,
            members=(
                clique(f"prefill-{i}", 2, SMALL, required=HOST),
                clique(f"decode-{i}", 2, SMALL, required=HOST),
            ),
        )
        for i in range(2)
    ]
    request = gang(*groups, required=BLOCK)
    result = placed(place(cluster, request))
    assert violations(cluster, request, result) == []
    assert result.pod_count == 8
    levels = {each.scope: each.level for each in result.domains}
    assert levels["gang"] == BLOCK
    assert levels["g-1"] == RACK
    assert levels["decode-1"] == HOST


def test_tas13_ten_pods_never_fit_a_rack_of_seven() -> None:
    """Nothing is placed, and the verdict says what would help."""
    verdict = refused(place(workers(), gang(clique("worker", 10), required=RACK)))
    assert verdict.proof
    assert verdict.code == VerdictCode.DOMAIN_TOO_SMALL
    assert "best rack rack-0 fits 7 of 10" in verdict.sentence()


def test_tas17_two_topologies_lie_over_one_cluster() -> None:
    """The same domain word means another label in each half, and each workload is packed in its own half."""
    halves = [gpu_node(f"h100-{i}", rack=f"r{i // 2}") for i in range(4)]
    for i in range(4):
        node = gpu_node(f"gb200-{i}", gpu_count=4)
        halves.append(
            NodeState(
                name=node.name,
                labels={HOST: node.name, "example.com/nvl-block": f"nvl-{i // 2}"},
                allocatable=node.allocatable,
            )
        )
    cluster = Cluster(halves)
    for key, topology, expected in [
        (RACK, (RACK, HOST), {"h100-0", "h100-1"}),
        ("example.com/nvl-block", ("example.com/nvl-block", HOST), {"gb200-0", "gb200-1"}),
    ]:
        members = (CliqueRequest(name="w", shape=gpus(4), minimum=2 if key != RACK else 4),)
        request = GangRequest(name="g", members=members, topology=topology, required=key)
        result = placed(place(cluster, request))
        cluster.reserve(result)
        assert set(nodes_of(result, "w")) == expected


def _workload1() -> GangRequest:
    groups = [GroupRequest(name=f"x-{i}", members=(clique(f"x-{i}-b", 1), clique(f"x-{i}-c", 3))) for i in range(2)]
    return gang(clique("a", 2), *groups)


def test_gs1_ten_pods_wait_for_the_tenth_node() -> None:
    """Nine free nodes place nothing; uncordoning one places all ten on ten nodes."""
    cluster = workers(10, cordoned=1)
    verdict = refused(place(cluster, _workload1()))
    assert verdict.proof
    assert any(remedy.nodes == ("worker-00",) for remedy in verdict.remedies)
    cluster.set_schedulable(["worker-00"], schedulable=True)
    assert cluster.may_help(_workload1(), verdict.generation)
    result = placed(place(cluster, _workload1()))
    assert len({node for each in result.cliques for node, _ in each.bindings}) == 10


def test_gs5_minimum_first_surplus_after() -> None:
    """Two free nodes are not enough for three minimums; with three nodes exactly the minimums are placed."""
    cluster = workers(10, cordoned=8)
    request = gang(
        clique("a", 1, optional=1), GroupRequest(name="x-0", members=(clique("b", 1), clique("c", 1, optional=2)))
    )
    refused(place(cluster, request))
    cluster.set_schedulable(["worker-07"], schedulable=True)
    result = placed(place(cluster, request))
    assert [(each.name, len(each.bindings), each.optional_unplaced) for each in result.cliques] == [
        ("a", 1, 1),
        ("b", 1, 0),
        ("c", 1, 2),
    ]
    cluster.reserve(result)
    surplus = gang(clique("a", 0, optional=1), clique("c", 0, optional=2))
    assert refused(place(cluster, surplus)).proof
    cluster.set_schedulable(["worker-00", "worker-01"], schedulable=True)
    assert placed(place(cluster, surplus)).pod_count == 2


def test_preferred_level_is_tried_narrowest_first_and_falls_back() -> None:
    """Nine pods do not fit a rack of seven, so they get one block, and the answer says so."""
    result = placed(place(workers(), gang(clique("w", 9), preferred=RACK)))
    (choice,) = result.domains
    assert (choice.level, choice.is_required, choice.is_met) == (BLOCK, False, False)
    assert 0 < result.score < 1
    assert placed(place(workers(), gang(clique("w", 7), preferred=RACK))).score == 1.0


def test_required_and_preferred_are_reported_apart() -> None:
    """The required domain binds later pods, the preferred one is only tried first by them."""
    result = placed(place(workers(), gang(clique("w", 3), required=BLOCK, preferred=RACK)))
    assert [(each.level, each.is_required) for each in result.domains] == [(BLOCK, True), (RACK, False)]
    assert result.domains[1].path == ((ZONE, "zone-0"), (BLOCK, "block-0"), (RACK, "rack-0"))


def test_within_is_hard_and_prefer_is_soft() -> None:
    """Later gangs stay in the domain that binds the copy; a preferred one is left when it is full."""
    cluster = workers()
    for count, block in [(7, "block-1"), (7, "block-1")]:
        result = placed(place(cluster, gang(clique("w", count), within=((BLOCK, block),))))
        assert _labels(cluster, result, BLOCK, "w") == {block}
        cluster.reserve(result)
    verdict = refused(place(cluster, gang(clique("w", 1), within=((BLOCK, "block-1"),))))
    assert verdict.proof
    result = placed(place(cluster, gang(clique("w", 1), prefer=((BLOCK, "block-1"),))))
    assert _labels(cluster, result, BLOCK, "w") == {"block-0"}
    result = placed(place(cluster, gang(clique("w", 1), prefer=((BLOCK, "block-0"), (RACK, "rack-1")))))
    assert _labels(cluster, result, RACK, "w") == {"rack-1"}


def test_a_preferred_node_is_found_again() -> None:
    """A replacement goes back to the node it came from, or else to its rack."""
    cluster = workers()
    home = ((RACK, "rack-2"), (HOST, "worker-20"))
    assert nodes_of(placed(place(cluster, gang(clique("w", 1, prefer=home)))), "w") == ["worker-20"]
    cluster.set_schedulable(["worker-20"], schedulable=False)
    (node,) = nodes_of(placed(place(cluster, gang(clique("w", 1, prefer=home)))), "w")
    assert cluster.node(node).labels[RACK] == "rack-2"


def test_consecutive_ranks_share_domains() -> None:
    """Ranks follow the order of the topology."""
    cluster = workers()
    result = placed(place(cluster, gang(clique("w", 20))))
    racks = [cluster.node(node).labels[RACK] for node in nodes_of(result, "w")]
    assert racks == sorted(racks)


def test_tightest_domain_first_then_by_name() -> None:
    """A rack with just enough room is taken before an emptier one; of equals the first by name."""
    cluster = workers()
    assert nodes_of(placed(place(cluster, gang(clique("w", 3), required=RACK))), "w")[0] == "worker-00"
    for node in ("worker-21", "worker-22", "worker-23", "worker-24"):
        cluster.bind_pod(node, clique("x", 1).shape)
    result = placed(place(cluster, gang(clique("w", 3), required=RACK)))
    assert nodes_of(result, "w") == ["worker-25", "worker-26", "worker-27"]
    assert result.reasons[0].domains_fitting == 4


def test_fewest_hosts_come_before_tightness() -> None:
    """Two 4-GPU pods take one empty node rather than halves of two."""
    cluster = Cluster([gpu_node(f"n{i}", rack="r") for i in range(3)])
    for node in ("n0", "n1"):
        cluster.bind_pod(node, gpus(4))
    result = placed(place(cluster, gang(clique("w", 2, gpus(4)))))
    assert nodes_of(result, "w") == ["n2", "n2"]
    assert [each.gpu_ids for each in result.cliques[0].bindings] == [(0, 1, 2, 3), (4, 5, 6, 7)]
    assert nodes_of(placed(place(cluster, gang(clique("w", 1, gpus(4))))), "w") == ["n0"]


def test_pods_without_gpus_leave_gpu_nodes_alone_while_others_fit() -> None:
    """CPU pods go to CPU nodes first and to GPU nodes only when those are full."""
    cluster = Cluster([gpu_node("gpu-0"), worker(0), worker(1)])
    result = placed(place(cluster, gang(clique("router", 2))))
    assert nodes_of(result, "router") == ["worker-00", "worker-01"]
    cluster.reserve(result)
    assert nodes_of(placed(place(cluster, gang(clique("router", 1)))), "router") == ["gpu-0"]


def test_prefer_no_schedule_is_avoided_while_others_fit() -> None:
    """A soft taint sends pods elsewhere, but not away."""
    soft = Taint(key="spot", effect="PreferNoSchedule")
    cluster = Cluster([NodeState(name=name, allocatable={"pods": 1}, taints=(soft,) * (name == "a")) for name in "abc"])
    assert nodes_of(placed(place(cluster, gang(clique("w", 2, PodShape())))), "w") == ["b", "c"]
    assert nodes_of(placed(place(cluster, gang(clique("w", 3, PodShape())))), "w") == ["a", "b", "c"]


def test_gpu_ids_are_unique_across_the_cliques_of_a_gang() -> None:
    """Cliques that meet on a node share its GPUs without sharing a GPU."""
    cluster = Cluster([gpu_node("n0")])
    request = gang(clique("a", 1, gpus(3)), clique("b", 2, gpus(2)), clique("c", 1, gpus(1)))
    result = placed(place(cluster, request))
    assert violations(cluster, request, result) == []
    ids = [gpu_id for each in result.cliques for _, gpu_ids in each.bindings for gpu_id in gpu_ids]
    assert sorted(ids) == list(range(8))


def test_zero_request_pods_cost_a_pod_slot() -> None:
    """A pod that asks for nothing still counts against the node's pods."""
    cluster = Cluster([NodeState(name="n", allocatable={"pods": 2})])
    assert placed(place(cluster, gang(clique("w", 2, PodShape())))).pod_count == 2
    assert refused(place(cluster, gang(clique("w", 3, PodShape())))).proof


def test_nodes_without_labels_serve_unconstrained_gangs_only() -> None:
    """A node that lacks the level's label is excluded with a reason, and used when nothing is asked."""
    cluster = Cluster([NodeState(name="bare", allocatable={"pods": 10})])
    assert nodes_of(placed(place(cluster, gang(clique("w", 1, PodShape())))), "w") == ["bare"]
    verdict = refused(place(cluster, gang(clique("w", 1, PodShape()), required=RACK)))
    assert verdict.code == VerdictCode.LEVEL_MISSING
    assert [(each.detail, each.node_count) for each in verdict.exclusions] == [(ZONE, 1)]


def test_twins_that_need_a_domain_each_are_refused_by_proof() -> None:
    """Five replicas of a rack's worth do not fit four racks; that takes no search."""
    groups = [GroupRequest(name=f"g-{i}", required=RACK, members=(clique(f"c-{i}", 7),)) for i in range(5)]
    verdict = refused(place(workers(35, cordoned=7), gang(*groups, required=ZONE)))
    assert verdict.proof
    assert placed(place(workers(28), gang(*groups[:4], required=ZONE))).pod_count == 28


def test_siblings_are_tried_in_another_order_when_one_fails() -> None:
    """The CPU clique must not take the only big node that the GPU clique's leader needs."""
    big = NodeState(
        name="big", labels=gpu_node("big", rack="r").labels, allocatable={"cpu": 10, "pods": 9, GPU_RESOURCE: 1}
    )
    small = NodeState(name="small", labels=gpu_node("small", rack="r").labels, allocatable={"cpu": 4, "pods": 9})
    cluster = Cluster([big, small])
    request = gang(
        clique("cpu", 1, PodShape(requests=(("cpu", 4),))),
        clique("gpu", 1, PodShape(requests=(("cpu", 8), (GPU_RESOURCE, 1)))),
    )
    result = placed(place(cluster, request))
    assert nodes_of(result, "cpu") == ["small"]


def test_an_empty_question_has_an_empty_answer() -> None:
    """A gang whose cliques all ask for nothing is placed at once."""
    assert placed(place(workers(1), gang(clique("w", 0)))).pod_count == 0


@pytest.mark.parametrize(
    "request_",
    [
        gang(),
        gang(clique("a", 1), clique("a", 1)),
        gang(clique("a", -1)),
        gang(clique("a", 1, optional=-1)),
        gang(clique("a", 30_001)),
        gang(clique("a", 1, PodShape(requests=(("cpu", -1),)))),
    ],
)
def test_unsound_requests_are_errors_not_verdicts(request_: GangRequest) -> None:
    """A caller's mistake is never taken for a lack of room."""
    with pytest.raises(InvalidRequestError):
        place(workers(1), request_)


def test_groups_nest_only_so_deep() -> None:
    """The depth of groups is bounded."""
    member: CliqueRequest | GroupRequest = clique("c", 1)
    for i in range(9):
        member = GroupRequest(name=f"g{i}", members=(member,))
    with pytest.raises(InvalidRequestError):
        place(workers(1), gang(member))


def test_topology_without_constraint_matters_not() -> None:
    """A gang without topology is packed by names alone."""
    request = gang(clique("w", 3), topology=())
    assert nodes_of(placed(place(workers(), request)), "w") == ["worker-00", "worker-01", "worker-02"]
    assert TOPOLOGY[0] == ZONE


def test_cliques_of_one_shape_are_placed_as_one() -> None:
    """Leader and workers of one shape share the domain that holds them all, each with consecutive places."""
    cluster = Cluster([gpu_node(f"n{i}", rack=f"r{i}") for i in range(3)])
    cluster.bind_pod("n0", gpus(6))
    request = gang(clique("leader", 1, gpus(1)), clique("worker", 2, gpus(2)), clique("router", 0, gpus(2)))
    assert set(nodes_of(placed(place(cluster, request)), "worker")) == {"n1"}
    request = gang(clique("leader", 1, gpus(2)), GroupRequest(name="g", members=(clique("worker", 3, gpus(2)),)))
    result = placed(place(cluster, request))
    assert violations(cluster, request, result) == []
    assert nodes_of(result, "leader") + nodes_of(result, "worker") == ["n1"] * 4
    assert result.reasons[0].sentence().startswith("gang gang is in node n1: 2 of 3 fitted")


def test_surplus_stays_in_the_domain_it_is_bound_to() -> None:
    """Surplus pods take what the binding domain has, and the answer names that domain."""
    cluster = workers()
    request = gang(clique("w", 0, optional=9), within=((RACK, "rack-1"),))
    result = placed(place(cluster, request))
    assert violations(cluster, request, result) == []
    assert (result.pod_count, result.cliques[0].optional_unplaced) == (7, 2)
    assert [(each.level, each.value, each.is_required) for each in result.domains] == [(RACK, "rack-1", True)]


def test_surplus_goes_near_its_minimum_then_around_it() -> None:
    """A preferred rack does not hold surplus back once it is full; a required one does."""
    cluster = workers()
    free = placed(place(cluster, gang(clique("w", 5, optional=5), preferred=RACK)))
    assert free.pod_count == 10
    held = placed(place(cluster, gang(clique("w", 5, optional=5), required=RACK)))
    assert (held.pod_count, held.cliques[0].optional_unplaced) == (7, 3)


def test_a_stopped_search_is_repeated_with_more_budget() -> None:
    """The budget changes how long a search goes on, never whether an answer keeps its promises."""
    cluster = Cluster(
        [replace(gpu_node(f"n{i}", rack=f"r{i // 2}", zone="z"), allocatable=_uneven(i)) for i in range(8)]
    )
    cluster.upsert_nodes(
        replace(cluster.node(name), labels={**cluster.node(name).labels, BLOCK: "b"}) for name in cluster.node_names()
    )
    groups = [
        GroupRequest(
            name=f"g{i}",
            required=RACK,
            members=(clique(f"a{i}", 1, gpus(1 + i, cpu=2)), clique(f"b{i}", 1, gpus(4 - i, cpu=3))),
        )
        for i in range(4)
    ]
    for steps in (0, 10, 1_000):
        request = gang(*groups, required=ZONE)
        assert violations(cluster, request, place(cluster, request, budget=Budget(steps_max=steps))) == []


def _uneven(index: int) -> dict[str, int]:
    return {"cpu": 3 + index % 3, "pods": 4, GPU_RESOURCE: 2 + index % 4}


def test_a_failed_order_leaves_nothing_behind() -> None:
    """The flexible pod first takes the only node of the picky one; in the second order both fit."""
    cluster = Cluster(
        [
            NodeState(name="a", allocatable={"cpu": 4, "pods": 9, GPU_RESOURCE: 2}),
            NodeState(name="b", labels={"pool": "b"}, allocatable={"cpu": 2, "pods": 9, GPU_RESOURCE: 1}),
        ]
    )
    picky = PodShape(requests=(("cpu", 2),), node_selector=(("pool", "b"),))
    request = gang(clique("flexible", 1, gpus(1, cpu=1)), clique("picky", 1, picky))
    result = placed(place(cluster, request))
    assert violations(cluster, request, result) == []
    assert nodes_of(result, "picky") == ["b"]
    cluster.reserve(result)
    assert (cluster.free_of("a")["cpu"], cluster.free_of("b")["cpu"]) == (3, 0)


def test_sums_count_the_nodes_of_every_shape() -> None:
    """Two shapes on two disjoint pools need together what no pool has alone."""
    cluster = Cluster(
        NodeState(name=name, labels={"pool": name}, allocatable={"cpu": 4, "pods": 9}) for name in ("a", "b")
    )
    shapes = [PodShape(requests=(("cpu", 4),), node_selector=(("pool", name),)) for name in ("a", "b")]
    assert placed(place(cluster, gang(clique("x", 1, shapes[0]), clique("y", 1, shapes[1])))).pod_count == 2


def test_optional_pods_stay_with_the_minimum_after_a_search_in_depth() -> None:
    """A first try in one rack is forgotten when the search ends in another: optional pods go where their group is."""
    nodes = [(6, 15, "r0"), (7, 6, "r0"), (3, 11, "r0"), (7, 7, "r1"), (5, 20, "r1"), (6, 4, "r1"), (4, 15, "r2")]
    nodes.append((7, 17, "r2"))
    cluster = Cluster(
        NodeState(
            name=f"n{index}",
            labels={ZONE: "z", BLOCK: "b", RACK: rack, HOST: f"n{index}"},
            allocatable={"cpu": cpu, "memory": memory, "pods": 16},
        )
        for index, (cpu, memory, rack) in enumerate(nodes)
    )

    def shape(memory: int) -> PodShape:
        return PodShape(requests=(("cpu", 2), ("memory", memory)))

    alone = GroupRequest(name="alone", members=(clique("a", 4, shape(1)),), required=RACK)
    pair = (clique("b", 3, shape(4)), clique("c", 2, shape(8), optional=2))
    request = gang(alone, GroupRequest(name="pair", members=pair, required=RACK))
    result = placed(place(cluster, request))
    assert violations(cluster, request, result) == []
