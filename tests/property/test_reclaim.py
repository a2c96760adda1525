"""Reclaim over generated clusters and queues: no queue loses its due, nothing is evicted for nothing."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from grove_server.placement import GPU_RESOURCE, GangRequest, Placement, place
from grove_server.placement.preemption import Preemption, without_optional
from grove_server.placement.queues import QueueSpec, QueueTree, quota_amounts, scale_of
from grove_server.placement.reclaim import QueueShares, amounts_of, plan_reclaim
from grove_server.placement.violations import violations
from tests.eviction_cases import Running, crowded, crowded_request, dense_requests, fits_by_number, scenes
from tests.property.test_preemption import assert_rights, top_units


@st.composite
def trees(draw: st.DrawFn) -> QueueTree:
    """Draw a tree in which red and blue have queues beside or above them."""

    def spec(name: str, parent: str) -> QueueSpec:
        guarantee = {GPU_RESOURCE: draw(st.integers(0, 16)), "cpu": draw(st.integers(0, 40))}
        kept = draw(st.sampled_from([guarantee, {GPU_RESOURCE: guarantee[GPU_RESOURCE]}, {}]))
        return QueueSpec(name=name, parent=parent, guarantee=kept)

    above = draw(st.sampled_from(["", "top"]))
    specs = [spec("red", above), spec("blue", draw(st.sampled_from(["", above])))]
    return QueueTree([*specs, spec("green", ""), *([spec("top", "")] if above else [])])


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32), trees(), st.sampled_from(["red", "green"]))
def test_no_queue_is_pushed_below_its_due(seed: int, tree: QueueTree, queue: str) -> None:
    """Victims are in other queues; in what is asked for each keeps its guarantee; the places are free afterwards."""
    running, request = crowded(seed), crowded_request(random.Random(seed), "late", gpus_max=4)
    used = running.occupancy.used_by_queue()
    plan = plan_reclaim(running.cluster, running.occupancy, request, queue=queue, tree=tree)
    if not isinstance(plan, Preemption):
        assert plan.sentence()
        return
    asked = amounts_of(without_optional(request))
    assert plan.victims == () or tree.is_within_guarantee(queue, asked, used)
    after = running.without(plan.pods)
    assert violations(after, without_optional(request), plan.placement) == []
    assert_rights(running, plan)
    gone = set(plan.pods)
    for unit in top_units(running, plan):
        assert not fits_by_number(running.without(gone - unit), plan.placement)
    left = running.rebuilt()
    left.remove_pods(plan.pods)
    _assert_dues(tree, queue, asked, used, left.used_by_queue())
    assert all(victim.queue != queue for victim in plan.victims)


def _assert_dues(
    tree: QueueTree,
    queue: str,
    asked: dict[str, int],
    before: dict[str, dict[str, int]],
    after: dict[str, dict[str, int]],
    *,
    others: tuple[str, ...] = (),
) -> None:
    """`others` take back too: what they and those above them lose is asked for by themselves."""
    for name in set(tree.numbers) - {above for each in (queue, *others) for above in tree.lineage(each)}:
        below = [each for each in tree.numbers if name in tree.lineage(each)]
        had, has = (
            sum((Counter(quota_amounts(use.get(each, {}))) for each in below), Counter()) for use in (before, after)
        )
        for resource in quota_amounts(asked):
            due = tree.spec(name).guarantee.get(resource, 0) * scale_of(resource)
            assert has[resource] == had[resource] or has[resource] >= due


@settings(max_examples=60, deadline=None)
@given(scenes(), dense_requests(), trees())
def test_equal_questions_get_equal_plans(running: Running, request: GangRequest, tree: QueueTree) -> None:
    """Asking twice, or of an occupancy that was filled in another order, gives the same answer."""
    first = plan_reclaim(running.cluster, running.occupancy, request, queue="red", tree=tree)
    assert plan_reclaim(running.cluster, running.rebuilt(), request, queue="red", tree=tree) == first
    if isinstance(place(running.cluster, without_optional(request)), Placement):
        assert isinstance(first, Preemption)
        assert first.victims == ()


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 12), st.data())
def test_plans_that_overlap_take_no_more_than_one_after_the_other(seed: int, due: int, data: st.DataObject) -> None:
    """Victims of earlier plans leave or still stop: no queue is left below its due, none takes back beyond its own."""
    running, chance = crowded(seed), random.Random(seed)
    guaranteed = {"red": 16, "green": 16, "blue": due}
    tree = QueueTree(QueueSpec(name=name, guarantee={GPU_RESOURCE: count}) for name, count in guaranteed.items())
    before = running.occupancy.used_by_queue()
    kept: dict[str, Counter[str]] = {name: Counter() for name in tree.numbers}
    asked_by: dict[str, Counter[str]] = {name: Counter() for name in tree.numbers}
    for number in range(6):
        queue = chance.choice(["red", "green"])
        request = without_optional(crowded_request(chance, f"late{number}"))
        held = running.occupancy.used_by_queue()
        used = {name: Counter(held.get(name, {})) + kept[name] for name in tree.numbers}
        shares = QueueShares(used)
        plan = plan_reclaim(running.cluster, running.occupancy, request, queue=queue, tree=tree, shares=shares)
        if not isinstance(plan, Preemption):
            continue
        assert not _wanted(running, plan) or tree.is_within_guarantee(queue, amounts_of(request), used)
        kept[queue].update(amounts_of(request))
        asked_by[queue].update(amounts_of(request))
        running.cluster.promise(plan.placement)
        running.leave(plan.pods)
        if data.draw(st.booleans()):
            running.go()
        staying = running.occupancy.used_by_queue(is_leaving_counted=False)
        for taker in ("red", "green"):
            _assert_dues(tree, taker, dict(asked_by[taker]), before, staying, others=("red", "green"))


def _wanted(running: Running, plan: Preemption) -> bool:
    """Return whether a plan has victims that would not leave anyway."""
    return any(not running.facts[victim.gang].is_leaving for victim in plan.victims)
