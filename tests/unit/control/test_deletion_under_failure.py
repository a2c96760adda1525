"""Copies and sets that go while nodes under their pods are down or gone: each policy for pods that cannot stop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from grove_server.lifecycle.orders import STUCK_TERMINATING_S
from grove_server.lifecycle.stuck import GRACE_PERIOD_S
from grove_server.resources.cluster import Node
from grove_server.resources.labels import DRAIN_TIMEOUT
from grove_server.resources.workload import Pod, PodCliqueSet
from tests.lifecycle_cases import Json, clique, group, manifest
from tests.planes import Plane, worker

POLICY = "grove.io/stuck-terminating-policy"
STUCK_S = GRACE_PERIOD_S + STUCK_TERMINATING_S

Act = Callable[[Plane, str], Awaitable[None]]


def document(replicas: int, policy: str) -> Json:
    """Return a set of which each copy has a pod of a clique and one of a group replica; both take long to stop."""
    slow = {"fake.grove.io/stop-delay": "20s"}
    made = manifest(
        [clique("a", annotations=slow), clique("b", annotations=slow)], [group("g", ["b"])], replicas=replicas
    )
    made["metadata"]["annotations"] = {POLICY: policy, DRAIN_TIMEOUT: "10s"}
    return made


async def running(plane: Plane, policy: str, *, routers: bool = False) -> list[str]:
    """Run two copies on nodes that hold one pod each; return the nodes of the second copy."""
    await plane.put(*(worker(index) for index in range(4)))
    if routers:
        await plane.control.routers.renew("default", "s", "r")
    await plane.apply(document(2, policy))
    await plane.until_ready(4)
    await plane.until_quiet()
    return sorted(pod.node for pod in plane.pods() if pod.identity.copy == 1)


async def fail(plane: Plane, names: list[str]) -> None:
    """Let nodes fail."""
    now = plane.clock.now()
    await plane.put(*(replace(plane.one(Node, name), ready=False, ready_changed_at=now) for name in names))


async def lose(plane: Plane, names: list[str]) -> None:
    """Take nodes away."""
    await plane.remove(*(plane.one(Node, name) for name in names))


def left(plane: Plane) -> int:
    """Return how many pods of the second copy are left."""
    return sum(pod.identity.copy == 1 for pod in plane.all(Pod))


async def shrink(plane: Plane, policy: str) -> None:
    """Take the second copy away."""
    await plane.apply(document(1, policy))


async def delete(plane: Plane, policy: str) -> None:
    """Delete the set, with its policy as it is."""
    assert plane.one(PodCliqueSet, "s").metadata.annotations[POLICY] == policy
    await plane.delete_set()


def is_over(plane: Plane, goes: object) -> bool:
    """Return whether nothing of the second copy, or of the set, is left."""
    if goes is delete:
        return plane.child_count() == 0 and not plane.all(PodCliqueSet)
    return left(plane) == 0 and plane.status().replicas == 1


@pytest.mark.parametrize("goes", [shrink, delete])
@pytest.mark.parametrize("policy", ["Force", "Wait"])
@pytest.mark.parametrize("is_first", [True, False])
async def test_a_node_that_is_down(plane: Plane, goes: Act, policy: str, *, is_first: bool) -> None:
    """Force gives up what is on a node that is down after its time; Wait keeps it until the node is removed."""
    nodes = await running(plane, policy)
    if is_first:
        await fail(plane, nodes)
    await goes(plane, policy)
    await plane.until(lambda: all(p.is_terminating for p in plane.all(Pod) if p.node in nodes), "they are to stop")
    if not is_first:
        await fail(plane, nodes)
    await plane.until_quiet()
    assert left(plane) == 2
    plane.clock.advance(STUCK_S - 1)
    await plane.until_quiet()
    assert left(plane) == 2
    plane.clock.advance(1)
    if policy == "Wait":
        await plane.until_quiet()
        assert left(plane) == 2
        await lose(plane, nodes)
    await plane.until(lambda: is_over(plane, goes), "it is gone")


@pytest.mark.parametrize("goes", [shrink, delete])
@pytest.mark.parametrize("policy", ["Force", "Wait"])
@pytest.mark.parametrize("order", ["lost first", "lost last", "lost while away"])
async def test_a_node_that_is_gone(plane: Plane, goes: Act, policy: str, order: str) -> None:
    """What was on a node that is removed holds nothing up, whatever the policy and whenever that happens."""
    nodes = await running(plane, policy)
    if order == "lost first":
        await lose(plane, nodes)
        await goes(plane, policy)
    else:
        await fail(plane, nodes)
        await goes(plane, policy)
        await plane.until_quiet()
        assert left(plane) == 2
        if order == "lost while away":
            await plane.runtime.stop()
            await lose(plane, nodes)
            await plane.restart()
        else:
            await lose(plane, nodes)
    await plane.until(lambda: left(plane) == 0, "nothing is left on the nodes that are gone")
    await plane.until_quiet()
    # The pods of the other copy take their time.
    plane.clock.advance(20)
    await plane.until(lambda: is_over(plane, goes), "it is gone")


@pytest.mark.parametrize("policy", ["Force", "Wait"])
async def test_a_node_that_fails_under_a_drain(plane: Plane, policy: str) -> None:
    """A pod that drains when its node fails is waited for no longer, then it is stuck like any other."""
    nodes = await running(plane, policy, routers=True)
    with plane.control.routers.watching("default", "s", "r"):
        await shrink(plane, policy)
        await plane.until(lambda: sum(pod.is_draining for pod in plane.all(Pod)) == 2, "the copy drains")
        await fail(plane, nodes)
        await plane.until(lambda: all(p.is_terminating for p in plane.all(Pod) if p.node in nodes), "the drain is over")
        plane.clock.advance(STUCK_S)
        if policy == "Wait":
            await plane.until_quiet()
            assert left(plane) == 2
            await lose(plane, nodes)
        await plane.until(lambda: is_over(plane, shrink), "it is gone")
