"""Rules between pods over generated clusters and gangs: promises kept, refusals compared with brute force."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from grove_server.placement import (
    Budget,
    CliquePlacement,
    CliqueRequest,
    Cluster,
    GangRequest,
    GroupRequest,
    NodeState,
    Placement,
    PodBinding,
    PodRule,
    PodShape,
    RuleKind,
    Verdict,
    place,
)
from grove_server.placement.violations import violations
from tests.placement_cases import HOST, RACK, ZONE

LEVELS = (ZONE, RACK, HOST)
SIDE = "example.com/side"
"""A label that cuts across the topology."""


@st.composite
def _clusters(draw: st.DrawFn) -> Cluster:
    nodes = []
    for index in range(draw(st.integers(2, 6))):
        labels = {HOST: f"n{index}"}
        for key in (ZONE, RACK, SIDE):
            value = draw(st.sampled_from(["0", "1", "2", "3", None]))
            if value is not None:
                labels[key] = value
        amounts = {"cpu": draw(st.sampled_from([0, 2, 4, 4])), "pods": 4}
        nodes.append(NodeState(name=f"n{index}", labels=labels, allocatable=amounts))
    return Cluster(nodes)


@st.composite
def _rules(draw: st.DrawFn, names: list[str]) -> PodRule:
    some = st.lists(st.sampled_from(names), min_size=1, max_size=2, unique=True)
    counts = st.lists(st.tuples(st.sampled_from(["0", "n1", "gone"]), st.integers(0, 1)), max_size=1)
    return PodRule(
        kind=draw(st.sampled_from(list(RuleKind))),
        key=draw(st.sampled_from([ZONE, RACK, SIDE, HOST])),
        cliques=tuple(draw(some)),
        others=tuple(draw(st.one_of(st.just([]), some))),
        counts=tuple(draw(counts)),
        weight=draw(st.sampled_from([0, 0, 10])),
        needs_key=draw(st.sampled_from([False, False, True])),
        text="app=x",
    )


@st.composite
def _gangs(draw: st.DrawFn, *, cliques_max: int, optional_max: int = 0) -> GangRequest:
    names = [f"c{i}" for i in range(draw(st.integers(1, cliques_max)))]
    level = st.sampled_from([None, None, None, ZONE])
    members: list[CliqueRequest | GroupRequest] = [
        CliqueRequest(
            name=name,
            shape=PodShape(requests=(("cpu", draw(st.sampled_from([0, 1, 1]))),)),
            minimum=draw(st.integers(1, 2 if len(names) > 1 else 4)),
            optional=draw(st.integers(0, optional_max)),
            required=draw(level),
            near=tuple(draw(st.lists(st.sampled_from(names), max_size=1))),
        )
        for name in names
    ]
    if draw(st.booleans()):
        members = [GroupRequest(name="g", members=tuple(members), required=draw(level))]
    rules = draw(st.lists(_rules(names), min_size=1, max_size=2))
    return GangRequest(name="gang", members=tuple(members), topology=LEVELS, required=draw(level), rules=tuple(rules))


def _cliques(request: GangRequest | GroupRequest) -> list[CliqueRequest]:
    found: list[CliqueRequest] = []
    for member in request.members:
        found += [member] if isinstance(member, CliqueRequest) else _cliques(member)
    return found


def _is_possible(cluster: Cluster, request: GangRequest) -> bool:
    """Return whether any way to put all minimums on nodes breaks no promise."""
    cliques = _cliques(request)
    ways = [itertools.combinations_with_replacement(cluster.node_names(), clique.minimum) for clique in cliques]
    return any(not violations(cluster, request, _as_placement(cliques, nodes)) for nodes in itertools.product(*ways))


def _as_placement(cliques: list[CliqueRequest], nodes: tuple[tuple[str, ...], ...]) -> Placement:
    return Placement(
        gang="gang",
        cliques=tuple(
            CliquePlacement(
                name=clique.name,
                shape=clique.shape,
                minimum=clique.minimum,
                bindings=tuple(PodBinding(node, ()) for node in mine),
                optional_unplaced=clique.optional,
            )
            for clique, mine in zip(cliques, nodes, strict=True)
        ),
        domains=(),
        score=1.0,
        reasons=(),
        generation=0,
    )


@settings(max_examples=300, deadline=None)
@given(_clusters(), _gangs(cliques_max=3, optional_max=2))
def test_answers_keep_every_rule_between_pods(cluster: Cluster, request: GangRequest) -> None:
    """Whatever is placed keeps to all required rules, surplus pods included, and deciding changes nothing."""
    before = {name: cluster.free_of(name) for name in cluster.node_names()}
    result = place(cluster, request)
    assert violations(cluster, request, result) == []
    assert {name: cluster.free_of(name) for name in cluster.node_names()} == before
    assert place(cluster, request) == result
    if isinstance(result, Placement):
        cluster.reserve(result)
    else:
        assert result.sentence()


@settings(max_examples=200, deadline=None)
@given(_clusters(), _gangs(cliques_max=3))
def test_proofs_under_rules_between_pods_agree_with_brute_force(cluster: Cluster, request: GangRequest) -> None:
    """What is proven impossible is impossible."""
    result = place(cluster, request, budget=Budget(steps_max=500))
    if isinstance(result, Verdict) and result.proof:
        assert not _is_possible(cluster, request), result.sentence()


@settings(max_examples=200, deadline=None)
@given(st.data(), _clusters(), _gangs(cliques_max=1))
def test_one_clique_under_one_rule_is_decided_exactly(
    data: st.DataObject, cluster: Cluster, plain: GangRequest
) -> None:
    """A clique under one rule, on whatever label, is placed if there is any way, and else refused by proof."""
    rule = data.draw(_rules(["c0"]))
    request = GangRequest(name="gang", members=plain.members, topology=LEVELS, required=plain.required, rules=(rule,))
    result = place(cluster, request)
    if isinstance(result, Verdict):
        assert result.proof
        assert not _is_possible(cluster, request), result.sentence()
