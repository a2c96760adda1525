"""Preemption for gangs that rules between pods bind: what goes makes the rules hold, and nothing goes for nothing."""

from __future__ import annotations

import random
from collections import Counter as Tally
from collections.abc import Mapping
from dataclasses import dataclass, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from grove_server.placement import CliqueRequest, Cluster, GangRequest, NodeState, PodRule, PodShape, RuleKind
from grove_server.placement.consolidation import ConsolidationLimits
from grove_server.placement.occupancy import GangFacts, Occupancy, Seat
from grove_server.placement.place import place
from grove_server.placement.preemption import Preemption, plan_preemption, without_optional
from grove_server.placement.relief import Relief, plan_relief
from grove_server.placement.requests import Counted
from grove_server.placement.results import Placement
from grove_server.placement.violations import violations
from tests.eviction_cases import Running, fits_by_number
from tests.placement_cases import HOST, RACK, ZONE
from tests.property.test_preemption import assert_rights, top_units

LEVELS = (ZONE, RACK, HOST)


@dataclass
class Ruled:
    """A cluster on which each gang's pods have one label, and the gang that is asked for."""

    running: Running
    labels: Mapping[str, str]
    request: GangRequest

    def counted(self, rule: PodRule) -> dict[str, Counted]:
        """Return whom a rule counts: `origin` is the label that it is about, and whether gangs count as one each."""
        label, by_gang = str(rule.origin).split("/")
        found = {}
        for pod, seat in self.running.seats.items():
            value = self.running.cluster.node(seat.node).labels.get(rule.key)
            if value is not None and self.labels[seat.gang] == label:
                found[pod] = Counted(value, seat.gang if by_gang == "gangs" else pod)
        return found

    def asked(self, gone: set[str]) -> GangRequest:
        """Return the request as it is once some pods are gone."""
        rules = []
        for rule in self.request.rules:
            left = {each for pod, each in self.counted(rule).items() if pod not in gone}
            counts = Tally(each.value for each in left)
            rules.append(replace(rule, counts=tuple(sorted(counts.items()))))
        return replace(self.request, rules=tuple(rules))


def ruled(seed: int) -> Ruled:
    """Return a crowded cluster and a gang with a rule or two, by seed."""
    chance = random.Random(seed)
    nodes = []
    for at in range(chance.randint(2, 5)):
        labels = {HOST: f"n{at}", ZONE: str(at % 2)} | ({RACK: str(at // 2)} if chance.random() < 0.9 else {})
        nodes.append(NodeState(name=f"n{at}", labels=labels, allocatable={"cpu": chance.randint(1, 4), "pods": 6}))
    running = Running(Cluster(nodes))
    found = Ruled(running, {}, GangRequest(name="none", members=()))
    running.occupancy = Occupancy(found.counted)
    labels = {}
    for number in range(chance.randint(2, 9)):
        name = f"g{number}"
        shape = PodShape(requests=(("cpu", 1),))
        clique = CliqueRequest(name="c0", shape=shape, minimum=chance.randint(1, 2), optional=chance.choice([0, 0, 1]))
        labels[name] = chance.choice(["x", "y"])
        bases = [each for each, facts in running.facts.items() if not facts.base_gang]
        running.start(
            GangRequest(name=name, members=(clique,), topology=LEVELS),
            GangFacts(
                name=name,
                minimums=(("c0", clique.minimum),),
                priority=chance.randint(0, 3),
                base_gang=chance.choice(bases) if bases and chance.random() < 0.2 else "",
                started_at_s=float(number),
                is_preemptible=chance.random() < 0.9,
            ),
        )
    found.labels = labels
    names = [f"c{at}" for at in range(chance.choice([1, 1, 2]))]
    members = tuple(
        CliqueRequest(name=name, shape=PodShape(requests=(("cpu", 1),)), minimum=chance.randint(1, 2)) for name in names
    )
    rules = tuple(
        PodRule(
            kind=chance.choice(list(RuleKind)),
            key=chance.choice([HOST, RACK, ZONE]),
            cliques=tuple(sorted(chance.sample(names, chance.randint(1, len(names))))),
            others=tuple(sorted(chance.sample(names, chance.randint(0, len(names))))),
            weight=chance.choice([0, 0, 0, 5]),
            text="rule",
            origin=f"{chance.choice(['x', 'y'])}/{chance.choice(['pods', 'gangs'])}",
        )
        for _ in range(chance.choice([1, 1, 2]))
    )
    found.request = GangRequest(
        name="late", members=members, topology=LEVELS, required=chance.choice([None, None, ZONE]), rules=rules
    )
    found.request = found.asked(set())
    return found


@settings(max_examples=400, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 4))
def test_rules_hold_once_the_victims_are_gone_and_each_of_them_had_to_go(seed: int, priority: int) -> None:
    """After a plan the places are free and keep all rules; with any one unit back they are not, or do not."""
    case = ruled(seed)
    running = case.running
    plan = plan_preemption(running.cluster, running.occupancy, case.request, priority=priority)
    if not isinstance(plan, Preemption):
        assert plan.sentence()
        return
    gone = set(plan.pods)
    assert violations(running.without(gone), without_optional(case.asked(gone)), plan.placement) == []
    assert_rights(running, plan)
    for unit in top_units(running, plan):
        back = running.without(gone - unit)
        is_free = fits_by_number(back, plan.placement)
        assert not is_free or violations(back, without_optional(case.asked(gone - unit)), plan.placement)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32))
def test_a_gang_for_which_all_could_go_but_its_neighbours_finds_places(seed: int) -> None:
    """Where the gang fits without all that may go, its neighbours among them, it gets a plan."""
    case = ruled(seed)
    running = case.running
    may_go = {
        pod
        for pod, seat in running.seats.items()
        if running.facts[seat.gang].is_preemptible and not _holds_up(case, seat)
    }
    all_gone = place(running.without(may_go), without_optional(case.asked(may_go)))
    plan = plan_preemption(running.cluster, running.occupancy, case.request, priority=4)
    assert isinstance(plan, Preemption) >= isinstance(all_gone, Placement)


def _holds_up(case: Ruled, seat: Seat) -> bool:
    """Return whether a gang stays because a scaled gang of it does."""
    facts = case.running.facts
    return any(each.base_gang == seat.gang and not each.is_preemptible for each in facts.values())


def _one(name: str, node: str, priority: int) -> tuple[GangFacts, Seat]:
    facts = GangFacts(name=name, minimums=(("c0", 1),), priority=priority)
    shape = PodShape(requests=(("cpu", 1),))
    return facts, Seat(pod=f"{name}-0", gang=name, clique="c0", index=0, node=node, shape=shape)


def _case(*gangs: tuple[str, str, int], rule: PodRule) -> Ruled:
    """Return two one-pod nodes in two racks, with pods of gangs named after their label, and one pod asked for."""
    nodes = [
        NodeState(name=f"n{at}", labels={HOST: f"n{at}", RACK: str(at), ZONE: "0"}, allocatable={"cpu": 2, "pods": 2})
        for at in range(2)
    ]
    running = Running(Cluster(nodes))
    case = Ruled(running, {name: name[0] for name, _, _ in gangs}, GangRequest(name="none", members=()))
    running.occupancy = Occupancy(case.counted)
    for gang in gangs:
        facts, seat = _one(*gang)
        running.cluster.bind_pod(seat.node, seat.shape)
        running.sit(facts, [seat])
    clique = CliqueRequest(name="c0", shape=PodShape(requests=(("cpu", 1),)), minimum=1)
    case.request = GangRequest(name="late", members=(clique,), topology=LEVELS, rules=(rule,))
    case.request = case.asked(set())
    return case


def _rule(kind: RuleKind, *, others: tuple[str, ...] = ()) -> PodRule:
    return PodRule(kind=kind, key=RACK, cliques=("c0",), others=others, origin="x/pods", text="x")


def test_whom_a_gang_keeps_apart_from_leaves_although_there_is_room() -> None:
    """A pod that would be too near is a victim even where nodes have room beside it."""
    case = _case(("x0", "n0", 0), ("x1", "n1", 5), rule=_rule(RuleKind.APART))
    plan = plan_preemption(case.running.cluster, case.running.occupancy, case.request, priority=3)
    assert isinstance(plan, Preemption)
    assert plan.pods == ("x0-0",)
    assert {each.node for each in plan.placement.cliques[0].bindings} == {"n0"}


def test_nobody_leaves_whom_the_gang_has_to_be_near() -> None:
    """The neighbours that a gang needs stay, and others make room beside them."""
    case = _case(("x0", "n0", 0), ("y0", "n0", 0), ("y1", "n1", 0), rule=_rule(RuleKind.TOGETHER))
    plan = plan_preemption(case.running.cluster, case.running.occupancy, case.request, priority=3)
    assert isinstance(plan, Preemption)
    assert plan.pods == ("y0-0",)


def test_nothing_leaves_for_a_rule_that_fails_all_the_same() -> None:
    """Where the only neighbour would have to make room itself, nobody is evicted."""
    case = _case(("x0", "n0", 0), ("y9", "n0", 9), ("y1", "n1", 0), rule=_rule(RuleKind.TOGETHER))
    plan = plan_preemption(case.running.cluster, case.running.occupancy, case.request, priority=3)
    assert not isinstance(plan, Preemption)


def test_a_plan_of_moves_holds_by_the_rules_as_they_are_after_the_moves() -> None:
    """Surplus that a gang keeps apart from moves to the other rack, and the plan holds with all who are there now."""
    case = _case(("x0", "n0", 0), ("x1", "n1", 0), rule=_rule(RuleKind.APART))
    running = case.running
    for name in ("x0", "x1"):
        running.occupancy.set_gang(replace(running.facts[name], minimums=(("c0", 0),)))
    clique = CliqueRequest(name="c0", shape=PodShape(requests=(("cpu", 1),)), minimum=1)
    relief = plan_relief(
        running.cluster,
        running.occupancy,
        case.request,
        request_of=lambda gang, _: GangRequest(name=gang, members=(clique,)),
        budgets_of=lambda _: (("c0", 1),),
        limits=ConsolidationLimits(),
    )
    assert isinstance(relief, Relief)
    assert [seat.pod for seat in relief.seats] in (["x0-0"], ["x1-0"])
    assert relief.still_holds(running.cluster, case.counted)
    assert not relief.still_holds(running.cluster)
