"""Pods that routers use drain before they are stopped, whatever stops them; and no pod waits longer than it must."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from grove_server.lifecycle.orders import CopyOrders, RouterLease
from grove_server.lifecycle.plan import Plan
from grove_server.lifecycle.removal import (
    DRAIN_DEADLINE_PASSED,
    DrainEnd,
    StopReason,
    continue_drains,
    drain_end,
    drain_timeout_s,
    stop_pod,
)
from grove_server.resources.labels import DRAIN_TIMEOUT
from grove_server.resources.workload import Pod, PodClique
from tests.lifecycle_cases import NOW, World, clique, deleted, group, lost, ready, world

LEASE_S = 15.0


def routed(*routers: str, now: float = NOW, timeout_s: float = 30.0) -> CopyOrders:
    """Return orders with these routers, whose leases are whole."""
    leases = tuple(RouterLease(router=name, expires_at=now + LEASE_S) for name in routers)
    return CopyOrders(routers=leases, drain_timeout_s=timeout_s)


def serving(*, size: int = 3, routers: tuple[str, ...] = ("r1",)) -> World:
    """Return one clique that serves behind routers."""
    made = world([clique("a", size, 1)])
    made.orders = routed(*routers)
    made.step()
    made.run()
    made.step()
    return made


def draining(made: World) -> list[Pod]:
    """Return the pods that drain and were not asked to stop yet."""
    return [pod for pod in made.of(Pod) if pod.is_draining and not pod.is_terminating]


def stopping(made: World) -> list[Pod]:
    """Return the pods that were asked to stop."""
    return [pod for pod in made.of(Pod) if pod.is_terminating]


def acknowledge(made: World, *routers: str) -> None:
    """Let routers say that they left every draining pod."""
    made.change_pods(lambda pod: replace(pod, drain_acks=(*pod.drain_acks, *routers)), draining(made))


def test_a_drain_waits_for_every_router() -> None:
    """A pod is asked to stop when the last of two routers has acknowledged, not before."""
    made = serving(routers=("r1", "r2"))
    made.scale_clique("s-0-a", 2)
    made.step()
    (pod,) = draining(made)
    assert (pod.draining_at, pod.drain_deadline, pod.stop_reason) == (NOW, NOW + 30, StopReason.SCALE_IN)
    acknowledge(made, "r2")
    made.step()
    assert draining(made) != []
    acknowledge(made, "r1")
    made.step()
    (pod,) = stopping(made)
    assert drain_end(pod) is DrainEnd.ACKNOWLEDGED


@pytest.mark.parametrize("why", list(StopReason))
def test_every_reason_to_stop_a_pod_drains_it(why: StopReason) -> None:
    """Whatever stops a ready pod that routers use, it drains first, and remembers why until its end."""
    made = serving()
    (pod, *_) = made.pods()
    plan = Plan()
    stop_pod(plan, pod, why, made.orders, NOW)
    (drained,) = plan.updates
    assert isinstance(drained, Pod)
    assert (drained.is_draining, drained.is_terminating, drained.stop_reason) == (True, False, why)
    plan = Plan()
    stop_pod(plan, drained, StopReason.UPDATE, made.orders, NOW)
    assert plan.updates == []
    assert continue_drains(plan, [replace(drained, drain_acks=("r1",))], made.orders, NOW) == 1
    (stopping_pod,) = plan.updates
    assert isinstance(stopping_pod, Pod)
    assert (stopping_pod.is_terminating, stopping_pod.stop_reason) == (True, why)


def test_a_draining_pod_counts_nowhere() -> None:
    """From the moment it drains, a pod is neither active nor ready for its clique, but shown as terminating."""
    made = serving()
    made.scale_clique("s-0-a", 2)
    made.step()
    status = made.one(PodClique, "s-0-a").status
    assert (status.replicas, status.ready_replicas, status.terminating_replicas) == (2, 2, 1)


def test_a_silent_router_is_waited_for_until_the_deadline() -> None:
    """At the deadline the pod is asked to stop all the same, and a warning names who was silent."""
    made = serving(routers=("r1", "r2"))
    made.scale_clique("s-0-a", 2)
    plan = made.step()
    assert plan.wake_at == NOW + LEASE_S
    acknowledge(made, "r1")
    made.now = NOW + 30
    made.orders = routed("r1", "r2", now=made.now)
    plan, _ = made.plan()
    (note,) = plan.notes
    assert note.reason == DRAIN_DEADLINE_PASSED
    assert note.message.endswith(": r2")
    made.step()
    assert [drain_end(pod) for pod in stopping(made)] == [DrainEnd.DEADLINE]


def test_a_dead_router_is_not_waited_for() -> None:
    """When the only lease runs out the drain is over, without a warning, and the pass asked to be woken then."""
    made = serving()
    made.scale_clique("s-0-a", 2)
    assert made.step().wake_at == NOW + LEASE_S
    made.now = NOW + LEASE_S
    plan, _ = made.plan()
    assert plan.notes == []
    made.step()
    assert [drain_end(pod) for pod in stopping(made)] == [DrainEnd.NO_ROUTERS]


def test_a_router_that_joins_late_is_waited_for() -> None:
    """A router that comes while a pod drains may already send to it, so it has to acknowledge as well."""
    made = serving()
    made.scale_clique("s-0-a", 2)
    made.step()
    made.orders = routed("r1", "late")
    acknowledge(made, "r1")
    made.step()
    assert len(draining(made)) == 1
    acknowledge(made, "late")
    made.step()
    assert len(stopping(made)) == 1


@pytest.mark.parametrize("change", [lambda pod: lost(pod, NOW + 1), deleted])
def test_a_pod_that_serves_nobody_drains_no_longer(change: Callable[[Pod], Pod]) -> None:
    """A draining pod that loses readiness, or is deleted by somebody else, is asked to stop at once."""
    made = serving()
    made.scale_clique("s-0-a", 2)
    made.step()
    made.change_pods(change, draining(made))
    made.step()
    assert draining(made) == []
    assert len(stopping(made)) == 1


def test_without_routers_pods_stop_at_once() -> None:
    """A set that never had a router waits for nothing."""
    made = serving(routers=())
    made.scale_clique("s-0-a", 1)
    plan = made.step()
    assert draining(made) == []
    assert len(stopping(made)) == 2
    assert plan.wake_at is None


def test_a_pod_that_never_served_is_stopped_at_once() -> None:
    """A pod that is not ready has no requests, whoever routes to the others."""
    made = serving()
    (first, *_) = made.pods()
    made.change_pods(lambda pod: replace(pod, ready_at=None), [first])
    made.scale_clique("s-0-a", 2)
    made.step()
    assert [pod.metadata.name for pod in stopping(made)] == [first.metadata.name]


def test_a_clock_set_back_starts_the_drain_anew() -> None:
    """Setting the clock back by a day costs a drain at most one timeout more, not a day."""
    made = serving()
    made.now = NOW + 86_400
    made.orders = routed("r1", now=made.now)
    made.scale_clique("s-0-a", 2)
    made.step()
    made.now = NOW
    made.orders = routed("r1")
    assert made.step().wake_at == NOW + LEASE_S
    (pod,) = draining(made)
    assert pod.drain_deadline == NOW + 30


def test_a_copy_that_goes_drains_first() -> None:
    """Pods of a copy beyond the size drain; clique, group and gangs stay until the last pod is gone."""
    made = world([clique("a", 2), clique("b")], [group("g", ["b"])])
    made.orders = routed("r1")
    made.step()
    made.run()
    made.step()
    made.owner = replace(made.owner, metadata=replace(made.owner.metadata, deleted_at=NOW))
    made.step()
    assert len(draining(made)) == 3
    acknowledge(made, "r1")
    made.step()
    assert len(stopping(made)) == 3
    made.reap()
    made.step()
    assert made.rows == {}


def test_group_replicas_drain_as_a_whole_highest_first() -> None:
    """A group that shrinks drains every pod of its highest replicas, and none of the others."""
    made = world([clique("b", 2)], [group("g", ["b"], 3, 1)])
    made.orders = routed("r1")
    made.step()
    made.run()
    made.step()
    made.scale_group("s-0-g", 1)
    made.step()
    assert sorted((pod.identity.group_replica, pod.index) for pod in draining(made)) == [(1, 0), (1, 1), (2, 0), (2, 1)]


def test_a_group_that_grows_again_does_not_take_draining_pods_back() -> None:
    """A pod whose drain was announced goes; its place is filled by a new one."""
    made = world([clique("b")], [group("g", ["b"], 2, 1)])
    made.orders = routed("r1")
    made.step()
    made.run()
    made.step()
    made.scale_group("s-0-g", 1)
    made.step()
    (gone,) = draining(made)
    made.scale_group("s-0-g", 2)
    made.step()
    names = [pod.metadata.name for pod in made.pods("s-0-g-1-b")]
    assert len(names) == 1
    assert gone.metadata.name not in names
    acknowledge(made, "r1")
    made.step()
    assert [pod.metadata.name for pod in stopping(made)] == [gone.metadata.name]


@pytest.mark.parametrize(
    ("text", "expected_s"), [(None, 30.0), ("90s", 90.0), ("0s", 0.0), ("48h", 86_400.0), ("soon", 30.0)]
)
def test_a_set_says_how_long_its_pods_drain(text: str | None, expected_s: float) -> None:
    """The annotation is a duration within bounds; without it, or with old nonsense, the default holds."""
    annotations = {} if text is None else {DRAIN_TIMEOUT: text}
    assert drain_timeout_s(annotations, 30.0) == expected_s


def test_a_timeout_of_nothing_stops_at_once() -> None:
    """With a drain timeout of zero no pod waits for a router."""
    made = serving()
    made.orders = routed("r1", timeout_s=0.0)
    made.scale_clique("s-0-a", 2)
    made.step()
    assert draining(made) == []
    assert [pod.is_ready for pod in stopping(made)] == [True]
    assert ready(stopping(made)[0]).drain_deadline is None
