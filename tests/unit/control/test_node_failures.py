"""Nodes that fail, come back, are drained and go, in the running loops."""

from __future__ import annotations

from dataclasses import replace

from grove_server.resources.cluster import Node
from grove_server.resources.workload import Pod
from tests.lifecycle_cases import Json, clique, manifest
from tests.planes import Plane, worker


async def with_pods(plane: Plane, nodes: int, pods: int) -> None:
    """Run a set of one clique on nodes that hold one pod each."""
    await plane.put(*(worker(index) for index in range(nodes)))
    await plane.apply(document(pods))
    await plane.until_ready(pods)


def document(pods: int, annotations: dict[str, str] | None = None) -> Json:
    """Return the manifest of a set of one clique."""
    made = manifest([clique("a", pods)])
    made["metadata"]["annotations"] = annotations or {}
    return made


async def fail(plane: Plane, *names: str, ready: bool = False) -> None:
    """Let nodes fail, or bring them back."""
    now = plane.clock.now()
    await plane.put(*(replace(plane.one(Node, name), ready=ready, ready_changed_at=now) for name in names))


async def drain(plane: Plane, *names: str) -> None:
    """Ask for nodes to be emptied."""
    now = plane.clock.now()
    await plane.put(*(replace(plane.one(Node, n), unschedulable=True, draining_since=now) for n in names))


def nodes_of(plane: Plane) -> set[str]:
    """Return the nodes of active pods."""
    return {pod.node for pod in plane.pods()}


async def test_pods_of_a_lost_node_run_elsewhere(plane: Plane) -> None:
    """#434: five minutes after a node stopped to answer, its pods run elsewhere; when it is removed they are gone."""
    await with_pods(plane, 3, 2)
    lost = min(nodes_of(plane))
    await fail(plane, lost)
    await plane.until(lambda: plane.ready_count() == 1, "the pod is not ready")
    await plane.until_quiet()
    plane.clock.advance(299)
    await plane.until_quiet()
    assert lost in nodes_of(plane)
    plane.clock.advance(1)
    await plane.until_ready(2)
    assert lost not in nodes_of(plane)
    assert [pod.stop_reason for pod in plane.all(Pod) if pod.node == lost] == ["NodeLost"]
    await plane.remove(plane.one(Node, lost))
    await plane.until(lambda: len(plane.all(Pod)) == 2, "the lost pod is gone")


async def test_a_node_that_comes_back_keeps_its_pods(plane: Plane) -> None:
    """A pod goes on without a restart when its node is back before it was given up."""
    await with_pods(plane, 2, 1)
    (before,) = plane.pods()
    for _ in range(3):
        await fail(plane, before.node)
        await plane.until(lambda: plane.ready_count() == 0, "the pod is not ready")
        plane.clock.advance(200)
        await fail(plane, before.node, ready=True)
        await plane.until_ready(1)
    (after,) = plane.pods()
    assert (after.metadata.uid, after.restart_count) == (before.metadata.uid, 0)


async def test_a_stuck_pod_gives_its_place_back(plane: Plane) -> None:
    """#401, #466: the row of a pod that cannot stop is removed, and the room on its node is free when it is back."""
    await with_pods(plane, 1, 1)
    await fail(plane, "n0")
    await plane.delete_set()
    await plane.until_quiet()
    assert len(plane.all(Pod)) == 1
    plane.clock.advance(90)
    await plane.until(lambda: plane.child_count() == 0, "nothing is left")
    await fail(plane, "n0", ready=True)
    await plane.apply(document(1), uid="next")
    await plane.until_ready(1)


async def test_a_set_may_wait_for_its_stuck_pods(plane: Plane) -> None:
    """With the policy Wait a stopping pod stays until its node says that it ended."""
    await plane.put(worker(0))
    await plane.apply(document(1, {"grove.io/stuck-terminating-policy": "Wait"}))
    await plane.until_ready(1)
    await fail(plane, "n0")
    await plane.delete_set()
    await plane.until_quiet()
    plane.clock.advance(100_000)
    await plane.until_quiet()
    assert len(plane.all(Pod)) == 1
    await fail(plane, "n0", ready=True)
    await plane.until(lambda: plane.child_count() == 0, "nothing is left")


async def test_a_drained_node_is_emptied_within_the_budget(plane: Plane) -> None:
    """Never more than one pod of a clique is missing while nodes are emptied, and all run elsewhere in the end."""
    await plane.put(*(worker(index) for index in range(6)))
    await plane.apply(document(3))
    await plane.until_ready(3)
    lowest = 3

    def watch(_: object) -> None:
        nonlocal lowest
        lowest = min(lowest, plane.ready_count())

    plane.store.subscribe(watch)
    before = nodes_of(plane)
    await drain(plane, *before)
    await plane.until(lambda: not nodes_of(plane) & before and plane.ready_count() == 3, "the nodes are empty")
    assert lowest == 2


async def test_a_drain_goes_on_after_a_restart(plane: Plane) -> None:
    """What asks for a node to be emptied is stored with it."""
    await with_pods(plane, 2, 2)
    await drain(plane, "n0", "n1")
    await plane.until(lambda: plane.ready_count() == 1, "the first pod has left")
    await plane.restart()
    await plane.until_quiet()
    assert plane.ready_count() == 1
    await plane.put(worker(2), worker(3))
    await plane.until(lambda: nodes_of(plane) == {"n2", "n3"} and plane.ready_count() == 2, "the nodes are empty")
