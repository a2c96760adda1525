"""Moves over generated clusters: every moved pod has its place, no gang lacks its minimum, domains really come free."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from grove_server.placement import Cluster, GangRequest
from grove_server.placement.clearing import plan_clearing
from grove_server.placement.consolidation import ConsolidationLimits, Move, Moves, plan_consolidation
from grove_server.placement.gang_facts import Spare
from grove_server.placement.preemption import VictimKind, without_optional
from grove_server.placement.relief import Relief, plan_relief
from grove_server.placement.violations import violations
from tests.eviction_cases import Running, crowded, crowded_request
from tests.placement_cases import HOST, TOPOLOGY, ZONE


def _carried_out(running: Running, plan: Moves, target: GangRequest | None) -> Cluster:
    """Make all moves, the target's places first, and return the cluster; fail if one of them has no place."""
    after = running.without(pod for move in plan.moves for pod in move.pods)
    if plan.target is not None and target is not None:
        assert violations(after, target, plan.target) == []
        after.reserve(plan.target)
    for move in sorted(plan.moves, key=lambda move: move.gang):
        _assert_rights(running, plan, move)
        after.reserve(move.placement)
    return after


def _assert_rights(running: Running, plan: Moves, move: Move) -> None:
    """Fail if a move takes part of a minimum, or leaves a scaled gang behind, or pods without new places."""
    facts, gone = running.facts[move.gang], set(move.pods)
    own = [seat for seat in running.seats.values() if seat.gang == move.gang]
    assert facts.is_preemptible
    assert move.placement.pod_count == len(move.pods)
    if move.kind == VictimKind.GANG:
        assert gone == {seat.pod for seat in own}
        moved = {each.gang for each in plan.moves}
        with_pods = {seat.gang for seat in running.seats.values()}
        assert {each.name for each in running.facts.values() if each.base_gang == facts.name} & with_pods <= moved
    else:
        for clique, minimum in facts.minimums:
            assert sum(seat.clique == clique and seat.pod not in gone for seat in own) >= minimum


SEEDS = st.integers(0, 2**32)


@settings(max_examples=150, deadline=None)
@given(SEEDS)
def test_moves_make_room_and_everything_has_its_place(seed: int) -> None:
    """After all moves the target and all that moved are placed, within every promise; no budget is exceeded."""
    running = crowded(seed, departures=0.4)
    target = crowded_request(random.Random(seed), "target", gpus_max=4)
    limits = ConsolidationLimits(pods_max=6, gangs_max=3)
    plan = plan_consolidation(running.cluster, running.occupancy, target, request_of=running.request_of, limits=limits)
    if not isinstance(plan, Moves):
        assert plan.sentence()
        return
    assert sum(len(move.pods) for move in plan.moves) <= 6
    assert len(plan.moves) <= 3
    _carried_out(running, plan, without_optional(target))
    assert plan.sentence()


@settings(max_examples=150, deadline=None)
@given(SEEDS, st.sampled_from([HOST, ZONE]), st.sampled_from([None, 1]))
def test_cleared_domains_are_empty_and_no_empty_one_is_used(seed: int, level: str, domains_max: int | None) -> None:
    """Domains said to come free hold no pod afterwards, and those that were empty are so still."""
    running = crowded(seed, nodes=6, departures=0.6)
    plan = plan_clearing(
        running.cluster,
        running.occupancy,
        TOPOLOGY,
        level,
        request_of=running.request_of,
        domains_max=domains_max,
    )
    _carried_out(running, plan, None)
    before = {_domain(running, seat.node, level) for seat in running.seats.values()}
    gone = {pod for move in plan.moves for pod in move.pods}
    nodes = [seat.node for seat in running.seats.values() if seat.pod not in gone]
    nodes += [each.node for move in plan.moves for clique in move.placement.cliques for each in clique.bindings]
    after = {_domain(running, node, level) for node in nodes}
    assert after <= before
    assert before - after == set(plan.freed)
    assert (not plan.moves) or plan.freed


def _domain(running: Running, node: str, level: str) -> str:
    return running.cluster.node(node).labels[level]


@settings(max_examples=200, deadline=None)
@given(SEEDS)
def test_relief_moves_nothing_of_a_minimum_and_keeps_to_budgets(seed: int) -> None:
    """In the background only surplus moves, of each clique what may be missing, and all have places at the end."""
    running = crowded(seed, departures=0.4)
    chance = random.Random(seed)
    for name, facts in list(running.facts.items()):
        cliques = sorted({seat.clique for seat in running.seats.values() if seat.gang == name})
        budgets = tuple((clique, chance.randint(0, 2)) for clique in cliques if chance.random() < 0.9)
        running.facts[name] = replace(facts, evictable_surplus=budgets)
        running.occupancy.set_gang(running.facts[name])
    target = crowded_request(chance, "target", gpus_max=4)
    limits = ConsolidationLimits(pods_max=4)
    found = plan_relief(
        running.cluster,
        running.occupancy,
        target,
        request_of=running.request_of,
        budgets_of=lambda name: Spare(running.facts[name].evictable_surplus),
        limits=limits,
    )
    if not isinstance(found, Relief):
        assert found.sentence()
        return
    assert found.still_holds(running.cluster)
    assert {seat.pod for seat in found.seats} == set(found.plan.pods)
    assert len(found.seats) <= 4
    for victim in found.plan.victims:
        moved = Counter(running.seats[pod].clique for pod in victim.pods)
        facts = running.facts[victim.gang]
        assert all(count <= dict(facts.evictable_surplus).get(clique, 0) for clique, count in moved.items())
        left = Counter(each.clique for each in running.seats.values() if each.gang == victim.gang)
        assert all(left[clique] - moved[clique] >= minimum for clique, minimum in facts.minimums)
    after = running.without(found.plan.pods)
    assert violations(after, without_optional(target), found.plan.placement) == []
