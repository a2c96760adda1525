"""Rules between pods, closeness and tiers of nodes: which places are taken, and what is said of refusals."""

from __future__ import annotations

from grove_server.placement import (
    Cluster,
    ExclusionKind,
    GroupRequest,
    NodeState,
    Operator,
    PodRule,
    PodShape,
    Preference,
    RemedyKind,
    Requirement,
    RuleKind,
    SelectorTerm,
    Taint,
    VerdictCode,
    place,
)
from grove_server.placement.matching import score_tiers, tier_count
from grove_server.placement.violations import violations
from tests.placement_cases import (
    BLOCK,
    HOST,
    RACK,
    WORKER,
    clique,
    gang,
    gpu_node,
    gpus,
    nodes_of,
    placed,
    refused,
    workers,
)

SIDE = "example.com/side"


def _apart(*cliques: str, key: str = RACK, **more: object) -> PodRule:
    given = {"others": cliques, "text": "pods of app=x", **more}
    return PodRule(kind=RuleKind.APART, key=key, cliques=cliques, **given)  # type: ignore[arg-type]  # passed on as given


def _together(*cliques: str, key: str = RACK, **more: object) -> PodRule:
    given = {"others": cliques, "text": "pods of app=x", **more}
    return PodRule(kind=RuleKind.TOGETHER, key=key, cliques=cliques, **given)  # type: ignore[arg-type]  # passed on as given


def _racks(cluster: Cluster, nodes: list[str], key: str = RACK) -> list[str]:
    return sorted(cluster.node(node).labels[key] for node in nodes)


def _prefers(*terms: tuple[int, str, str]) -> tuple[Preference, ...]:
    return tuple(
        Preference(
            weight=weight,
            term=SelectorTerm(match_expressions=(Requirement(key=key, operator=Operator.IN, values=(value,)),)),
        )
        for weight, key, value in terms
    )


# -- tiers -------------------------------------------------------------------------------------------------------------


def test_preferred_node_affinity_takes_nodes_by_the_sum_of_weights() -> None:
    """Nodes that match more weight fill up first, then those of the next tier, and the rest last."""
    cluster = Cluster(
        NodeState(name=name, labels=labels, allocatable={"cpu": 1, "pods": 9})
        for name, labels in {
            "a": {},
            "b": {"disk": "ssd"},
            "c": {"disk": "ssd", "net": "fast"},
            "d": {"net": "fast"},
        }.items()
    )
    shape = PodShape(requests=(("cpu", 1),), preferences=_prefers((10, "disk", "ssd"), (90, "net", "fast")))
    order = []
    for number in range(4):
        result = placed(place(cluster, gang(clique("w", 1, shape), name=f"g{number}", topology=())))
        order += nodes_of(result, "w")
        cluster.reserve(result)
    assert order == ["c", "d", "b", "a"]


def test_preferences_never_refuse_and_follow_changed_labels() -> None:
    """A gang larger than the preferred nodes spills over; a node that gets the label later is taken first then."""
    cluster = workers(4, memory_mib=90)
    shape = PodShape(requests=WORKER.requests, preferences=_prefers((1, "disk", "ssd")))
    assert len(nodes_of(placed(place(cluster, gang(clique("w", 4, shape)))), "w")) == 4
    node = cluster.node("worker-02")
    cluster.upsert_node(
        NodeState(
            name=node.name, labels={**node.labels, "disk": "ssd"}, allocatable=node.allocatable, taints=node.taints
        )
    )
    assert nodes_of(placed(place(cluster, gang(clique("w", 1, shape)))), "w") == ["worker-02"]


def test_a_node_to_avoid_comes_after_those_that_match_nothing() -> None:
    """PreferNoSchedule outweighs every preference, and a pod without GPUs leaves GPU nodes alone among equals."""
    soft = Taint(key="spot", effect="PreferNoSchedule")
    amounts = {"cpu": 1, "pods": 9}
    cluster = Cluster(
        [
            NodeState(name="a", labels={"disk": "ssd"}, allocatable=amounts, taints=(soft,)),
            NodeState(name="b", labels={"disk": "ssd"}, allocatable={**amounts, "nvidia.com/gpu": 1}),
            NodeState(name="c", labels={"disk": "ssd"}, allocatable=amounts),
            NodeState(name="d", allocatable=amounts),
        ]
    )
    shape = PodShape(requests=(("cpu", 1),), preferences=_prefers((1, "disk", "ssd")))
    order = []
    for number in range(4):
        result = placed(place(cluster, gang(clique("w", 1, shape), name=f"g{number}", topology=())))
        order += nodes_of(result, "w")
        cluster.reserve(result)
    assert order == ["c", "b", "d", "a"]


def test_tiers_of_preferences_are_bounded() -> None:
    """However many terms there are, the best and the worst nodes have a tier of their own and there are four in all."""
    tiers = score_tiers(tuple(range(1, 9)))
    assert tiers[36] == 0
    assert [score for score, tier in tiers.items() if tier == 3] == [0]
    assert set(tiers.values()) == {0, 1, 2, 3}
    assert tier_count(PodShape(preferences=_prefers(*((w, "k", "v") for w in range(1, 9))))) == 9


# -- apart -------------------------------------------------------------------------------------------------------------


def test_pods_that_keep_apart_lie_in_domains_of_their_own() -> None:
    """With anti-affinity on the rack each pod has a rack to itself, and one more than there are racks is refused."""
    cluster = workers(28)
    request = gang(clique("w", 4), rules=(_apart("w"),))
    assert _racks(cluster, nodes_of(placed(place(cluster, request)), "w")) == [f"rack-{i}" for i in range(4)]
    verdict = refused(place(cluster, gang(clique("w", 5), rules=(_apart("w"),))))
    assert verdict.proof
    assert "fits 4 of 5" in verdict.sentence()
    assert [each.kind for each in verdict.remedies] == [RemedyKind.FEWER_PODS, RemedyKind.DROP_RULE]
    assert all(each.is_certain for each in verdict.remedies)
    assert "keeps its pods apart from pods of app=x (anti-affinity on rack)" in verdict.sentence()


def test_domains_with_pods_outside_are_closed_and_the_verdict_counts_their_nodes() -> None:
    """Racks that have a pod to keep apart from are closed; the refusal says how many nodes that is, and of what."""
    cluster = workers(14)
    rule = _apart("w", others=(), counts=(("rack-0", 2),))
    assert _racks(cluster, nodes_of(placed(place(cluster, gang(clique("w", 2), rules=(rule,)))), "w")) == ["rack-1"] * 2
    verdict = refused(place(cluster, gang(clique("w", 8), rules=(rule,))))
    assert verdict.proof
    [line] = [each for each in verdict.exclusions if each.kind == ExclusionKind.POD_ANTI_AFFINITY]
    assert (line.node_count, line.detail) == (7, "pods of app=x (anti-affinity on rack)")
    assert "7 closed by pods of app=x (anti-affinity on rack)" in verdict.sentence()


def test_apart_on_a_label_that_cuts_across_the_topology_is_exact() -> None:
    """In one block that spans two sides two pods fit, however the sides lie, and three do not: by proof."""
    cluster = Cluster(gpu_node(f"n{i}", block="b", rack=f"r{i // 2}") for i in range(6))
    for i in range(6):
        node = cluster.node(f"n{i}")
        cluster.upsert_node(
            NodeState(name=node.name, labels={**node.labels, SIDE: str(i % 2)}, allocatable=node.allocatable)
        )
    for pods, fits in ((2, True), (3, False)):
        request = gang(
            clique("w", pods, gpus(1)), topology=(BLOCK, RACK, HOST), required=BLOCK, rules=(_apart("w", key=SIDE),)
        )
        result = place(cluster, request)
        assert violations(cluster, request, result) == []
        assert bool(placed(result) if fits else refused(result).proof)


def test_two_cliques_keep_apart_but_each_may_be_dense() -> None:
    """A clique that keeps apart from another one shares no rack with it, but may put all of its own into one."""
    cluster = workers(14)
    rule = PodRule(kind=RuleKind.APART, key=RACK, cliques=("a",), others=("b",), text="pods of app=b")
    result = placed(place(cluster, gang(clique("a", 6), clique("b", 6), rules=(rule,))))
    assert not set(_racks(cluster, nodes_of(result, "a"))) & set(_racks(cluster, nodes_of(result, "b")))
    assert len(set(_racks(cluster, nodes_of(result, "a")))) == 1


def test_preferred_anti_affinity_spreads_while_it_can() -> None:
    """A wish spreads pods over racks and hosts while there are any, and never refuses."""
    cluster = workers(28, memory_mib=900)
    wish = _apart("w", weight=100)
    assert len(set(_racks(cluster, nodes_of(placed(place(cluster, gang(clique("w", 4), rules=(wish,)))), "w")))) == 4
    assert len(nodes_of(placed(place(cluster, gang(clique("w", 40), rules=(wish,)))), "w")) == 40
    least = _apart("w", others=(), counts=(("rack-0", 2), ("rack-1", 1), ("rack-3", 1)), weight=1)
    assert (
        _racks(cluster, nodes_of(placed(place(cluster, gang(clique("w", 2), rules=(least,)))), "w")) == ["rack-2"] * 2
    )


# -- together ----------------------------------------------------------------------------------------------------------


def test_pods_that_keep_together_go_where_those_are() -> None:
    """With affinity to pods outside only their racks are open; without any such pod nothing is."""
    cluster = workers(28)
    rule = _together("w", others=(), counts=(("rack-2", 1),))
    assert set(_racks(cluster, nodes_of(placed(place(cluster, gang(clique("w", 3), rules=(rule,)))), "w"))) == {
        "rack-2"
    }
    verdict = refused(place(cluster, gang(clique("w", 1), rules=(_together("w", others=()),))))
    assert (verdict.proof, verdict.code) == (True, VerdictCode.NO_NODE_MATCHES)
    assert "28 far from pods of app=x (affinity on rack)" in verdict.sentence()


def test_the_first_pods_of_their_kind_start_in_one_domain() -> None:
    """Pods with affinity to themselves, of which there are none, share one rack; too many for one are refused."""
    cluster = workers(28)
    result = placed(place(cluster, gang(clique("w", 7), rules=(_together("w"),))))
    assert len(set(_racks(cluster, nodes_of(result, "w")))) == 1
    assert refused(place(cluster, gang(clique("w", 8), rules=(_together("w"),)))).proof


def test_followers_are_placed_after_those_they_have_to_be_near() -> None:
    """The smaller clique that the larger one must be near is placed first, so that both find their rack."""
    cluster = workers(28)
    rule = PodRule(kind=RuleKind.TOGETHER, key=RACK, cliques=("a",), others=("b",), text="pods of app=b")
    result = placed(place(cluster, gang(clique("a", 5), clique("b", 1), rules=(rule,))))
    assert set(_racks(cluster, nodes_of(result, "a"))) == set(_racks(cluster, nodes_of(result, "b")))


# -- near --------------------------------------------------------------------------------------------------------------


def test_a_clique_near_another_is_tried_in_its_narrowest_domain_first() -> None:
    """Pods near a clique share its rack if there is room, else its block, and are never refused for it."""
    cluster = workers(28)
    for name in [*(f"worker-{i:02}" for i in range(7, 12)), *(f"worker-{i:02}" for i in range(14, 21))]:
        cluster.set_schedulable([name], schedulable=False)
    group = GroupRequest(name="g", members=(clique("leader", 2),), required=RACK)
    result = placed(place(cluster, gang(clique("w", 2, near=("leader",)), group)))
    assert _racks(cluster, nodes_of(result, "leader")) == ["rack-1"] * 2
    assert _racks(cluster, nodes_of(result, "w"), BLOCK) == ["block-0"] * 2
    assert len(nodes_of(placed(place(cluster, gang(clique("w", 12, near=("leader",)), group))), "w")) == 12


# -- waking ------------------------------------------------------------------------------------------------------------


def test_a_pod_that_goes_wakes_those_that_wait_for_its_domain() -> None:
    """A gang that keeps apart is asked again when a pod leaves its rack, though the node it leaves has no room."""
    cluster = workers(7)
    small = PodShape(requests=(("memory", 1),))
    cluster.bind_pod("worker-00", WORKER)
    cluster.bind_pod("worker-00", small)
    request = gang(clique("w", 1), rules=(_apart("w", others=(), counts=(("rack-0", 1),)),))
    verdict = refused(place(cluster, request))
    assert not cluster.may_help(request, cluster.generation)
    cluster.release_pod("worker-00", small)
    assert cluster.may_help(request, verdict.generation)
