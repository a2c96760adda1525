"""Rules between pods over generated clusters and gangs: promises kept, refusals compared with brute force."""

from __future__ import annotations

import itertools
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from grove_server.control.solver_worker import solve
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
from grove_server.placement.solver_model import solved_placement, solver_model
from grove_server.placement.solver_program import SolverOutcome
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


@settings(max_examples=150, deadline=None)
@given(_clusters(), _gangs(cliques_max=3))
def test_the_solver_decides_exactly_under_rules_between_pods(cluster: Cluster, request: GangRequest) -> None:
    """Asked about gangs that rules bind, the program has a point exactly if brute force finds a way, and it holds."""
    model = solver_model(cluster, request)
    if model is None:
        return
    answer = solve(model.question, 60)
    is_possible = _is_possible(cluster, request)
    if answer.outcome is not SolverOutcome.FOUND:
        assert not is_possible or not model.question.covers_all
        return
    assert is_possible
    placement = solved_placement(cluster, model, answer)
    assert placement is not None
    assert violations(cluster, request, placement) == []


def test_what_the_search_misses_under_rules_the_solver_finds() -> None:
    """Of gangs that a straight pass does not place the solver places some, and none that was proven impossible."""
    found = 0
    for seed in range(150):
        cluster, request = tangled(seed)
        if isinstance(place(cluster, request, budget=Budget(steps_max=0)), Placement):
            continue
        verdict, model = place(cluster, request), solver_model(cluster, request)
        answer = None if model is None else solve(model.question, 60)
        if model is None or answer is None or answer.outcome is not SolverOutcome.FOUND:
            continue
        assert isinstance(verdict, Placement) or not verdict.proof, f"seed {seed}"
        placement = solved_placement(cluster, model, answer)
        assert placement is not None, f"seed {seed}"
        assert violations(cluster, request, placement) == []
        found += 1
    assert found > 0


def test_others_that_are_still_to_come_open_domains() -> None:
    """Pods that go with their own kind or with others of the gang may be in several domains; no proof denies it."""
    cluster, request = tangled(24)
    result, model = place(cluster, request), solver_model(cluster, request)
    assert isinstance(result, Placement) or not result.proof, result.sentence()
    assert model is not None
    assert solved_placement(cluster, model, solve(model.question, 60)) is not None


def tangled(seed: int) -> tuple[Cluster, GangRequest]:
    """Return a gang of three cliques that keep apart from each other crosswise, on few nodes, by seed."""
    chance = random.Random(seed)
    nodes = [
        NodeState(
            name=f"n{at}",
            labels={HOST: f"n{at}", RACK: str(at // 2), ZONE: "0", SIDE: str(chance.randint(0, 2))},
            allocatable={"cpu": chance.randint(1, 3), "pods": 4},
        )
        for at in range(6)
    ]
    names = ["c0", "c1", "c2"]
    members = tuple(
        CliqueRequest(name=n, shape=PodShape(requests=(("cpu", chance.randint(1, 2)),)), minimum=2) for n in names
    )
    rules = tuple(
        PodRule(
            kind=chance.choice([RuleKind.APART, RuleKind.APART, RuleKind.TOGETHER]),
            key=chance.choice([HOST, RACK, SIDE]),
            cliques=(chance.choice(names),),
            others=tuple(sorted(chance.sample(names, chance.randint(1, 2)))),
            text="app=x",
        )
        for _ in range(2)
    )
    return Cluster(nodes), GangRequest(name="gang", members=members, topology=LEVELS, rules=rules)
