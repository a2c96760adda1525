"""Preemption over generated clusters: rights kept, nothing evicted for nothing, refusals compared with brute force."""

from __future__ import annotations

import random
from collections import Counter
from typing import Final

from hypothesis import given, settings
from hypothesis import strategies as st

from grove_server.placement import GangRequest, Placement, place
from grove_server.placement.eviction import Disruption
from grove_server.placement.preemption import Preemption, VictimKind, plan_preemption, without_optional
from grove_server.placement.violations import violations
from tests.eviction_cases import Running, crowded, crowded_request, dense_requests, fits_by_number, scenes
from tests.placement_oracle import is_possible

NOBODY: Final = Disruption().order[1]
"""Stands for the priority of gangs where none has to go."""


@settings(max_examples=200, deadline=None)
@given(scenes(), dense_requests(), st.integers(0, 4))
def test_plans_hurt_nobody_they_must_not_and_fit_once_the_victims_are_gone(
    running: Running, request: GangRequest, priority: int
) -> None:
    """Victims are preemptible and of lower priority, no gang is left below its minimum, no budget is overdrawn."""
    plan = plan_preemption(running.cluster, running.occupancy, request, priority=priority)
    if not isinstance(plan, Preemption):
        assert plan.sentence()
        return
    after = running.without(plan.pods)
    assert violations(after, without_optional(request), plan.placement) == []
    after.reserve(plan.placement)
    assert_rights(running, plan)
    for victim in plan.victims:
        assert victim.priority < priority
        assert running.facts[victim.gang].is_preemptible


def assert_rights(running: Running, plan: Preemption) -> None:
    """Fail if a gang is left partly alive below its minimum, without its base gang, or beyond a budget."""
    gone = set(plan.pods)
    broken = {victim.gang for victim in plan.victims if victim.kind == VictimKind.GANG}
    left = Counter((seat.gang, seat.clique) for seat in running.seats.values() if seat.pod not in gone)
    before = Counter((seat.gang, seat.clique) for seat in running.seats.values())
    for facts in running.facts.values():
        budgets = dict(facts.evictable_surplus)
        for clique, minimum in facts.minimums:
            went = before[facts.name, clique] - left[facts.name, clique]
            if facts.name in broken:
                assert left[facts.name, clique] == 0
            elif went:
                assert left[facts.name, clique] >= minimum
                assert went <= budgets.get(clique, went)
        if facts.base_gang in broken:
            assert not any(left[facts.name, clique] for clique, _ in facts.minimums)


@settings(max_examples=200, deadline=None)
@given(scenes(), dense_requests(), st.integers(1, 4))
def test_nothing_is_evicted_for_nothing(running: Running, request: GangRequest, priority: int) -> None:
    """Whichever unit of a plan came back, the places would not be free; a gang that fits evicts nobody."""
    plan = plan_preemption(running.cluster, running.occupancy, request, priority=priority)
    if isinstance(place(running.cluster, without_optional(request)), Placement):
        assert isinstance(plan, Preemption)
        assert plan.victims == ()
    if not isinstance(plan, Preemption):
        return
    assert_all_needed(running, plan)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32))
def test_crowded_clusters_keep_all_of_this(seed: int) -> None:
    """The same holds where much has to give way at once, budgets, scaled gangs and shares of GPUs in it."""
    running, request = crowded(seed), crowded_request(random.Random(seed), "late", gpus_max=4)
    plan = plan_preemption(running.cluster, running.occupancy, request, priority=3)
    if isinstance(plan, Preemption):
        after = running.without(plan.pods)
        assert violations(after, without_optional(request), plan.placement) == []
        after.reserve(plan.placement)
        assert_rights(running, plan)
        assert_all_needed(running, plan)


def assert_all_needed(running: Running, plan: Preemption) -> None:
    """Fail if the places would be free although some unit of the victims stayed."""
    gone = set(plan.pods)
    for unit in top_units(running, plan):
        assert not fits_by_number(running.without(gone - unit), plan.placement)


def top_units(running: Running, plan: Preemption) -> list[set[str]]:
    """Return the pods of each unit that no other victim takes along."""
    broken = {victim.gang for victim in plan.victims if victim.kind == VictimKind.GANG}
    surplus = running.occupancy.is_surplus
    units: list[set[str]] = []
    for victim in plan.victims:
        if running.facts[victim.gang].base_gang in broken:
            continue
        alone = {pod for pod in victim.pods if surplus[running.occupancy.pods[pod]]}
        if victim.kind == VictimKind.SURPLUS:
            units += ({pod} for pod in sorted(alone))
        elif set(victim.pods) - alone:
            units.append(
                set(victim.pods) - alone if not running.facts[victim.gang].evictable_surplus else set(victim.pods)
            )
    return units


@settings(max_examples=150, deadline=None)
@given(scenes(nodes_max=3, gangs_max=5, budgets=False), dense_requests(plain=True), st.integers(1, 4))
def test_one_shape_gangs_get_the_cheapest_tier_there_is(running: Running, request: GangRequest, priority: int) -> None:
    """Brute force finds no way to spare whole gangs, or higher priorities, where a plan does not, nor any way at all
    where there is no plan.
    """
    plan = plan_preemption(running.cluster, running.occupancy, request, priority=priority)
    best = _cheapest(running, without_optional(request), priority)
    assert best == (plan.cost.order[:2] if isinstance(plan, Preemption) else None)


def _cheapest(running: Running, request: GangRequest, priority: int) -> tuple[bool, int] | None:
    """Return (whether whole gangs have to go, the highest priority among them) at the least; None if nothing helps."""
    surplus = running.occupancy.is_surplus
    may_go = {name for name, facts in running.facts.items() if facts.is_preemptible and facts.priority < priority}
    gone = {pod for pod, seat in running.seats.items() if seat.gang in may_go and surplus[running.occupancy.pods[pod]]}
    if is_possible(running.without(gone), request):
        return False, NOBODY
    alive = {seat.gang for seat in running.seats.values()}
    for highest in range(priority):
        breakable = set()
        for name in may_go:
            along = [
                name,
                *(each.name for each in running.facts.values() if each.base_gang == name and each.name in alive),
            ]
            if all(each in may_go and running.facts[each].priority <= highest for each in along):
                breakable.update(along)
        if is_possible(
            running.without(gone | {pod for pod, seat in running.seats.items() if seat.gang in breakable}), request
        ):
            return True, highest
    return None


@settings(max_examples=60, deadline=None)
@given(scenes(), dense_requests(), st.integers(1, 4))
def test_equal_questions_get_equal_plans(running: Running, request: GangRequest, priority: int) -> None:
    """Asking twice, or of an occupancy that was filled in another order, gives the same answer."""
    first = plan_preemption(running.cluster, running.occupancy, request, priority=priority)
    assert plan_preemption(running.cluster, running.occupancy, request, priority=priority) == first
    assert plan_preemption(running.cluster, running.rebuilt(), request, priority=priority) == first
