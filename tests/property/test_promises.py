"""Promised capacity under random events: nobody else takes it, nothing of it is lost, and it can be kept in the end."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from grove_server.placement import Cluster, GangRequest, Placement, StalePlacementError, place
from grove_server.placement.preemption import Preemption, plan_preemption, without_optional
from grove_server.placement.violations import violations
from tests.eviction_cases import Running, dense_requests, scenes


def _amounts(cluster: Cluster) -> dict[str, object]:
    return {
        name: (cluster.free_of(name), cluster.gpus_free_of(name), cluster.gpu_shares_of(name))
        for name in cluster.node_names()
    }


@settings(max_examples=200, deadline=None)
@given(scenes(), dense_requests("late"), st.lists(dense_requests("thief"), max_size=3), st.data())
def test_a_promise_is_kept_when_the_last_victim_is_gone(
    running: Running, request: GangRequest, thieves: list[GangRequest], data: st.DataObject
) -> None:
    """While victims leave one by one others are placed around the promise, and it is kept no sooner than at the end."""
    cluster = running.cluster
    plan = plan_preemption(cluster, running.occupancy, request, priority=4)
    if not isinstance(plan, Preemption):
        return
    cluster.promise(plan.placement)
    waiting: list[str] = list(data.draw(st.permutations(plan.pods)))
    while waiting:
        seat = running.seats[waiting.pop()]
        cluster.release_pod(seat.node, seat.shape, seat.gpu_ids)
        for thief in thieves:
            result = place(cluster, thief)
            if isinstance(result, Placement):
                assert violations(cluster, thief, result) == []
                cluster.reserve(result)
        if waiting and data.draw(st.sampled_from(["early", ""])):
            _try_early(cluster, plan)
    before = cluster.fork()
    before.withdraw(plan.gang)
    assert violations(before, without_optional(request), plan.placement) == []
    assert cluster.broken_promises() == {}
    assert cluster.keep(plan.gang) == plan.placement
    before.reserve(plan.placement)
    assert _amounts(cluster) == _amounts(before)


def _try_early(cluster: Cluster, plan: Preemption) -> None:
    """Try to keep a promise before all victims are gone: it is refused, and nothing changes."""
    state = _amounts(cluster)
    try:
        cluster.fork().keep(plan.gang)
    except StalePlacementError:
        pass
    else:
        # Every victim is needed, so only pods that go along with another one can be left.
        free = cluster.fork()
        free.withdraw(plan.gang)
        free.reserve(plan.placement)
    assert _amounts(cluster) == state


@settings(max_examples=100, deadline=None)
@given(scenes(), dense_requests("late"))
def test_a_promise_that_is_withdrawn_leaves_no_trace(running: Running, request: GangRequest) -> None:
    """Free amounts, GPUs and answers are those from before."""
    cluster = running.cluster
    plan = plan_preemption(cluster, running.occupancy, request, priority=4)
    if not isinstance(plan, Preemption):
        return
    before = _amounts(cluster)
    cluster.promise(plan.placement)
    assert cluster.withdraw(plan.gang) == plan.placement
    assert _amounts(cluster) == before
    again = plan_preemption(cluster, running.occupancy, request, priority=4)
    assert isinstance(again, Preemption)
    assert (again.victims, again.placement.cliques) == (plan.victims, plan.placement.cliques)
