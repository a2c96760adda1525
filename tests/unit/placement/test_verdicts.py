"""What a refusal says: code, levels, exclusions, remedies, and one sentence."""

from __future__ import annotations

from dataclasses import replace

import pytest

from grove_server.placement import (
    GPU_RESOURCE,
    Budget,
    Cluster,
    ExclusionKind,
    GangRequest,
    GroupRequest,
    NodeState,
    PodShape,
    Remedy,
    RemedyKind,
    Requirement,
    ScopeKind,
    SelectorTerm,
    Taint,
    Verdict,
    VerdictCode,
    place,
)
from grove_server.placement.preemption import noted
from grove_server.placement.requests import Operator
from tests.placement_cases import (
    BLOCK,
    HOST,
    MIB,
    RACK,
    WORKER,
    ZONE,
    clique,
    gang,
    gpu_node,
    gpus,
    placed,
    refused,
    worker,
    workers,
)


def _remedy(verdict: Verdict, kind: RemedyKind) -> Remedy:
    (found,) = [each for each in verdict.remedies if each.kind == kind]
    return found


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (gang(clique("w", 1), required=RACK, topology=()), VerdictCode.TOPOLOGY_UNAVAILABLE),
        (gang(clique("w", 1), preferred="numa"), VerdictCode.LEVEL_MISSING),
        (gang(clique("w", 1, within=(("numa", "0"),))), VerdictCode.LEVEL_MISSING),
        (gang(clique("w", 1), within=((RACK, "rack-9"),)), VerdictCode.DOMAIN_GONE),
        (gang(clique("w", 1, PodShape(node_selector=(("gpu", "h100"),)))), VerdictCode.NO_NODE_MATCHES),
        (gang(clique("w", 1, PodShape(requests=(("memory", 200 * MIB),)))), VerdictCode.POD_TOO_LARGE),
        (gang(clique("w", 1, gpus(1))), VerdictCode.POD_TOO_LARGE),
        (gang(clique("w", 1, PodShape(requests=(("example.com/fpga", 1),)))), VerdictCode.POD_TOO_LARGE),
        (gang(clique("w", 8), required=RACK), VerdictCode.DOMAIN_TOO_SMALL),
        (gang(clique("w", 29)), VerdictCode.CLUSTER_TOO_SMALL),
        (gang(clique("w", 20), clique("v", 20)), VerdictCode.CLUSTER_TOO_SMALL),
    ],
)
def test_the_code_says_why(request_: GangRequest, code: VerdictCode) -> None:
    """Each kind of failure has its code, and all of these are proofs."""
    verdict = refused(place(workers(), request_))
    assert verdict.code == code
    assert verdict.proof
    assert verdict.sentence()


def test_enough_in_sum_but_in_no_domain_is_fragmented() -> None:
    """Room in two half-full racks is no rack."""
    cluster = workers(14)
    for i in (0, 1, 2, 3, 7, 8, 9, 10):
        cluster.bind_pod(f"worker-{i:02}", WORKER)
    verdict = refused(place(cluster, gang(clique("w", 5), required=RACK)))
    assert verdict.code == VerdictCode.FRAGMENTED
    assert [(each.level, each.domains_considered, each.domains_fitting) for each in verdict.levels] == [
        (RACK, 2, 0),
        (BLOCK, 1, 1),
        (ZONE, 1, 1),
        ("", 1, 1),
    ]
    best = verdict.levels[0].best
    assert best is not None
    assert (best.value, best.pods_fit, best.pods_needed) == ("rack-0", 3, 5)
    assert _remedy(verdict, RemedyKind.FEWER_PODS).count == 2
    assert _remedy(verdict, RemedyKind.RELAX_LEVEL).target == BLOCK
    assert _remedy(verdict, RemedyKind.FREE_RESOURCES).amounts == (("memory", 20 * MIB),)
    assert verdict.exclusions[0].kind == ExclusionKind.FULL
    assert verdict.exclusions[0].node_count == 8
    assert verdict.sentence() == (
        "gang gang needs 5 pods in one rack; best rack rack-0 fits 3 of 5; 14 nodes: 8 full (memory); "
        "would fit with 2 pods fewer, or the level relaxed to block, or 20Mi memory more free in rack rack-0 "
        "(10Mi memory on each of worker-00, worker-01)"
    )


def test_each_node_counts_under_the_first_constraint_that_excludes_it() -> None:
    """Exclusions partition the nodes that take no pod."""
    good = worker(0)
    affinity = (SelectorTerm(match_expressions=(Requirement(key=BLOCK, operator=Operator.IN, values=("block-0",)),)),)
    cluster = Cluster(
        [
            good,
            replace(worker(1), ready=False, unschedulable=True),
            replace(worker(2), unschedulable=True),
            replace(worker(3), taints=(Taint(key="dedicated", value="train"),)),
            replace(worker(4), labels={**worker(4).labels, "pool": "b"}),
            worker(20),
            replace(worker(5), labels={HOST: "worker-05", "pool": "a", BLOCK: "block-0"}),
            replace(worker(8), labels={**worker(8).labels, "pool": "a"}),
            replace(worker(6), allocatable={"memory": MIB, "pods": 10}, labels={**worker(6).labels, "pool": "a"}),
        ]
    )
    cluster.upsert_nodes(
        replace(cluster.node(name), labels={**cluster.node(name).labels, "pool": "a"})
        for name in ("worker-00", "worker-20")
    )
    cluster.bind_pod("worker-00", WORKER)
    shape = PodShape(requests=WORKER.requests, node_selector=(("pool", "a"),), affinity=affinity)
    verdict = refused(place(cluster, gang(clique("w", 1, shape), required=RACK, within=((RACK, "rack-0"),))))
    assert [(each.kind, each.detail, each.node_count) for each in verdict.exclusions] == [
        (ExclusionKind.NOT_READY, "", 1),
        (ExclusionKind.CORDONED, "", 1),
        (ExclusionKind.TAINT, "dedicated=train:NoSchedule", 1),
        (ExclusionKind.NODE_SELECTOR, "pool=a", 1),
        (ExclusionKind.AFFINITY, "", 1),
        (ExclusionKind.MISSING_LABEL, ZONE, 1),
        (ExclusionKind.OUTSIDE_DOMAIN, f"{RACK}=rack-0", 1),
        (ExclusionKind.TOO_SMALL, "memory", 1),
        (ExclusionKind.FULL, "memory", 1),
    ]


def test_uncordoning_names_the_fewest_nodes_of_one_domain() -> None:
    """Of two racks that could do, the one that needs fewer nodes back is named; following the advice works."""
    cluster = workers(14, cordoned=4)
    cluster.set_schedulable(["worker-13", "worker-12"], schedulable=False)
    request = gang(clique("w", 6), required=RACK)
    verdict = refused(place(cluster, request))
    remedy = _remedy(verdict, RemedyKind.UNCORDON)
    assert remedy.nodes == ("worker-12",)
    assert remedy.is_certain
    cluster.set_schedulable(remedy.nodes, schedulable=True)
    placed(place(cluster, request))


def test_tolerating_a_taint_is_advised_if_it_is_enough() -> None:
    """Only taints whose toleration makes room are named."""
    taint, other = Taint(key="dedicated", value="train"), Taint(key="other", effect="NoExecute")
    cluster = Cluster([replace(gpu_node("a"), taints=(taint,)), replace(gpu_node("b", gpu_count=1), taints=(other,))])
    verdict = refused(place(cluster, gang(clique("w", 2, gpus(4)))))
    assert verdict.code == VerdictCode.NO_NODE_MATCHES
    assert _remedy(verdict, RemedyKind.TOLERATE_TAINT).target == "dedicated=train:NoSchedule"


def _kinds(verdict: Verdict) -> list[RemedyKind]:
    return [each.kind for each in verdict.remedies]


def test_only_what_helps_alone_is_advised() -> None:
    """Nodes that a taint and a selector keep out, or a taint and a cordon, gain nothing from one of the two changes."""
    taint = Taint(key="dedicated", value="train")
    selector = replace(gpus(1), node_selector=(("pool", "a"),))
    pool = {"pool": "a"}
    others = [replace(gpu_node(f"n{i:03}"), taints=(taint,)) for i in range(400)]
    both = replace(gpu_node("both"), taints=(taint,), unschedulable=True, labels={**gpu_node("both").labels, **pool})
    down = replace(gpu_node("down"), ready=False, labels={**gpu_node("down").labels, **pool})
    dead = replace(gpu_node("dead"), ready=False)
    cluster = Cluster([*others, both, down, dead])
    request = gang(clique("w", 2, selector))
    verdict = refused(place(cluster, request))
    assert verdict.code == VerdictCode.NO_NODE_MATCHES
    assert _kinds(verdict) == [RemedyKind.READY_AGAIN]
    assert _remedy(verdict, RemedyKind.READY_AGAIN).nodes == ("down",)
    assert verdict.sentence().endswith("would fit with node down ready again")
    cluster.upsert_node(replace(down, ready=True))
    placed(place(cluster, request))


def test_fewest_nodes_that_are_down_are_named_in_one_domain() -> None:
    """Of two racks the one is named that needs fewer nodes back; nodes that are full would not help."""
    cluster = Cluster(replace(worker(i), ready=i not in {0, 1, 13}) for i in range(14))
    request = gang(clique("w", 7), required=RACK)
    remedy = _remedy(refused(place(cluster, request)), RemedyKind.READY_AGAIN)
    assert (remedy.nodes, remedy.is_certain) == (("worker-13",), True)
    small = Cluster(replace(worker(i, memory_mib=10 if i == 13 else 150), ready=i != 13) for i in range(7, 14))
    assert RemedyKind.READY_AGAIN not in _kinds(refused(place(small, request)))


def test_a_change_must_help_every_shape() -> None:
    """A toleration that lets one clique in and leaves the other out is no advice."""
    taint = Taint(key="dedicated", value="train")
    tainted = replace(gpu_node("a"), taints=(taint,))
    picky = replace(gpus(1), node_selector=(("pool", "a"),))
    request = gang(GroupRequest(name="g", required=RACK, members=(clique("a", 1, gpus(2)), clique("b", 1, picky))))
    verdict = refused(place(Cluster([tainted]), request))
    assert RemedyKind.TOLERATE_TAINT not in _kinds(verdict)


@pytest.mark.parametrize(
    ("shape", "most", "node", "words"),
    [
        (gpus(16), ((GPU_RESOURCE, 8),), "b", "pods of at most 8 nvidia.com/gpu (the largest matching node, b, has no"),
        (gpus(16, cpu=70_000), (("cpu", 64_000), (GPU_RESOURCE, 8)), "b", "pods of at most 64 cpu, 8 nvidia.com/gpu"),
        (
            PodShape(requests=(("example.com/fpga", 1),)),
            (("example.com/fpga", 0),),
            "a",
            "with pods without example.com/fpga (the",
        ),
    ],
)
def test_a_pod_that_is_too_large_is_told_what_would_not_be(
    shape: PodShape, most: tuple[tuple[str, int], ...], node: str, words: str
) -> None:
    """The remedy names the largest node that matches, whatever runs there, and what it has of what is short."""
    away = replace(gpu_node("c", gpu_count=12), ready=False)
    cluster = Cluster([gpu_node("a", gpu_count=4), gpu_node("b"), away])
    cluster.bind_pod("b", gpus(6))
    verdict = refused(place(cluster, gang(clique("w", 1, shape))))
    assert verdict.code == VerdictCode.POD_TOO_LARGE
    assert _kinds(verdict) == [RemedyKind.SMALLER_PODS]
    remedy = _remedy(verdict, RemedyKind.SMALLER_PODS)
    assert (remedy.amounts, remedy.target) == (most, node)
    assert words in verdict.sentence()


def test_the_narrowest_scope_that_cannot_be_placed_is_blamed() -> None:
    """The clique that is too large for any host is named, not the gang around it."""
    group = GroupRequest(name="g", required=RACK, members=(clique("leader", 1), clique("huge", 2, required=HOST)))
    verdict = refused(place(workers(), gang(group, required=BLOCK)))
    assert (verdict.kind, verdict.scope, verdict.level) == (ScopeKind.CLIQUE, "huge", HOST)


def test_a_search_that_stops_admits_it() -> None:
    """Without a proof the verdict says that the search stopped, and promises no remedy."""
    nodes = [NodeState(name=f"n{i}", labels=gpu_node(f"n{i}", rack="r").labels, allocatable=_odd(i)) for i in range(4)]
    request = gang(
        *(clique(f"c{i}", 2, PodShape(requests=(("cpu", 3 + i), (GPU_RESOURCE, 4 - i)))) for i in range(3)),
        required=RACK,
    )
    verdict = refused(place(Cluster(_labelled(nodes)), request, budget=Budget(steps_max=0)))
    assert verdict.code == VerdictCode.BUDGET_EXHAUSTED
    assert not verdict.proof
    assert verdict.remedies == ()
    assert "without a proof" in verdict.sentence()


def _odd(index: int) -> dict[str, int]:
    return {"cpu": 6 + index % 2, "pods": 9, GPU_RESOURCE: 5 - index % 2}


def _labelled(nodes: list[NodeState]) -> list[NodeState]:
    return [replace(each, labels={**each.labels, ZONE: "z", BLOCK: "b"}) for each in nodes]


def test_nothing_is_noted_twice() -> None:
    """Several things said at once to a verdict that has one of them already add the others alone."""
    verdict = noted(refused(place(workers(), gang(clique("w", 29)))), "nobody leaves")
    again = noted(verdict, "nobody leaves; its queue takes nothing back")
    assert again.detail.endswith("; nobody leaves; its queue takes nothing back")
    assert again.detail.count("nobody leaves") == 1
    assert noted(again, "its queue takes nothing back") is again


def test_an_empty_cluster_is_said_to_be_empty() -> None:
    """No nodes at all has a sentence of its own."""
    verdict = refused(place(Cluster(), gang(clique("w", 1))))
    assert "the cluster has no nodes" in verdict.sentence()


def test_a_mixed_gang_that_lacks_a_resource_names_it() -> None:
    """Two shapes fit each alone but not together: the sum is what is short."""
    cluster = Cluster([replace(gpu_node("a", zone="z"), allocatable={"cpu": 14, "pods": 9, GPU_RESOURCE: 8})])
    cluster.bind_pod("a", PodShape(requests=(("cpu", 4),)))
    cpu, gpu = PodShape(requests=(("cpu", 8),)), PodShape(requests=(("cpu", 6), (GPU_RESOURCE, 1)))
    verdict = refused(place(cluster, gang(clique("a", 1, cpu), clique("b", 1, gpu))))
    assert verdict.proof
    best = verdict.levels[0].best
    assert best is not None
    assert (best.pods_fit, best.lacks) == (1, (("cpu", 4),))
    assert verdict.code == VerdictCode.INSUFFICIENT_CAPACITY
