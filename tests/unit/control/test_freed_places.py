"""Replacements prefer the place that their predecessor left: the same node, then the same rack."""

from __future__ import annotations

from dataclasses import replace

import pytest

from grove_server.resources.cluster import Node
from grove_server.resources.workload import Pod
from tests.lifecycle_cases import Json, clique, deleted, group, manifest, pack, ready, world
from tests.planes import Plane, binding, worker


async def on_nodes(plane: Plane, *wanted: str, constraint: bool) -> None:
    """Run a set of one clique on exactly these of eight nodes, two to a rack, with room for one pod each."""
    nodes = [worker(index) for index in range(8)]
    await plane.put(binding(), *(replace(n, unschedulable=n.metadata.name not in wanted) for n in nodes))
    topology: Json = {"topologyConstraint": pack(required="zone")} if constraint else {}
    await plane.apply(manifest([clique("a", len(wanted), 1)], **topology))
    await plane.until_ready(len(wanted))
    await plane.set_nodes(*(n.metadata.name for n in nodes), unschedulable=False)
    await plane.until_quiet()


def on(plane: Plane, node: str) -> Pod:
    """Return the active pod on a node."""
    return next(pod for pod in plane.pods() if pod.node == node)


@pytest.mark.parametrize("constraint", [False, True])
async def test_a_replacement_takes_the_node_of_its_predecessor(plane: Plane, constraint: bool) -> None:
    """Deleted pods come back where they were, though other racks are tighter."""
    await on_nodes(plane, "n5", "n6", constraint=constraint)
    gone = on(plane, "n5")
    await plane.put(deleted(gone, plane.clock.now()))
    await plane.until(lambda: plane.get(Pod, gone.metadata.name) is None, "the pod is gone")
    await plane.until_ready(2)
    assert {pod.node for pod in plane.pods()} == {"n5", "n6"}


async def test_a_replacement_stays_in_the_rack_of_a_lost_node(plane: Plane) -> None:
    """When the node cannot be had, its rack is next: n4, not n7 beside the other pod."""
    await on_nodes(plane, "n5", "n6", constraint=False)
    now = plane.clock.now()
    await plane.put(replace(plane.one(Node, "n5"), ready=False, ready_changed_at=now))
    await plane.until(lambda: plane.ready_count() == 1, "the pod is not ready")
    await plane.until_quiet()
    plane.clock.advance(300)
    await plane.until_ready(2)
    assert {pod.node for pod in plane.pods()} == {"n4", "n6"}


async def test_a_taken_place_is_no_obstacle(plane: Plane) -> None:
    """If node and rack are taken, the replacement goes where there is room."""
    await on_nodes(plane, "n4", "n5", constraint=False)
    await plane.set_nodes("n4", "n5", unschedulable=True)
    await plane.put(deleted(on(plane, "n5"), plane.clock.now()))
    await plane.until(
        lambda: plane.ready_count() == 2 and "n5" not in {p.node for p in plane.pods()}, "it runs elsewhere"
    )


def test_pods_know_where_their_predecessors_ran() -> None:
    """Whether deleted or recycled, the successor at an index knows the node; a pod that is new knows none."""
    made = world([clique("a", 2)], [], terminationDelay="10s")
    made.settle()
    made.change_pods(lambda pod: ready(replace(pod, node=f"n{pod.index}")))
    made.settle()
    made.change_pods(deleted, made.pods()[1:])
    made.settle()
    assert [(p.index, p.previous_node) for p in made.pods()] == [(0, ""), (1, "n1")]
    made.now += 10
    made.settle()
    assert [(p.index, p.previous_node) for p in made.pods()] == [(0, "n0"), (1, "n1")]
    made.scale_clique("s-0-a", 3)
    made.settle()
    assert [p.previous_node for p in made.pods()] == ["n0", "n1", ""]


def test_a_place_that_was_scaled_in_is_forgotten() -> None:
    """A pod that comes with a later scale-out replaces nobody."""
    made = world([clique("a", 2, 1)])
    made.settle()
    made.run()
    made.scale_clique("s-0-a", 1)
    made.settle()
    made.scale_clique("s-0-a", 2)
    made.settle()
    assert [p.previous_node for p in made.pods()] == ["", ""]


@pytest.mark.parametrize("constraint", [False, True])
async def test_a_recycled_unit_goes_home_around_a_lost_node(plane: Plane, constraint: bool) -> None:
    """Only the pod of the lost node moves, into the same block; its healthy companions come back to their nodes.

    Another block is the tighter one.
    """
    nodes = [worker(index) for index in (*range(3), *range(4, 8))]
    homes = ("n5", "n6", "n7")
    await plane.put(binding(), *(replace(n, unschedulable=n.metadata.name not in homes) for n in nodes))
    topology: Json = {"topologyConstraint": pack(required="block")} if constraint else {}
    cliques = [clique("l"), clique("w", 2, 2)]
    await plane.apply(manifest(cliques, [group("g", ["l", "w"], **topology)], terminationDelay="30s"))
    await plane.until_ready(3)
    await plane.set_nodes(*(n.metadata.name for n in nodes), unschedulable=False)
    await plane.until_quiet()
    (leader,) = plane.pods("s-0-g-0-l")
    workers = {pod.index: pod.node for pod in plane.pods("s-0-g-0-w")}
    before = {pod.metadata.uid for pod in plane.pods()}
    now = plane.clock.now()
    await plane.put(replace(plane.one(Node, leader.node), ready=False, ready_changed_at=now))
    await plane.until(lambda: plane.ready_count() == 2, "the leader is not ready")
    await plane.until_quiet()
    plane.clock.advance(30)
    await plane.until(lambda: not before & {pod.metadata.uid for pod in plane.pods()}, "all were recycled")
    await plane.until_ready(3)
    assert {pod.index: pod.node for pod in plane.pods("s-0-g-0-w")} == workers
    assert [pod.node for pod in plane.pods("s-0-g-0-l")] == ["n4"]


async def test_nobody_waits_long_for_a_place(plane: Plane) -> None:
    """A predecessor that takes its time keeps its place; the successor goes elsewhere."""
    await on_nodes(plane, "n4", "n5", constraint=False)
    await plane.runtime.stop()
    gone = on(plane, "n5")
    await plane.put(deleted(gone, plane.clock.now()))
    await plane.until(lambda: len([pod for pod in plane.pods() if pod.node]) == 2, "the successor has a node")
    assert plane.one(Pod, gone.metadata.name).node == "n5"
    assert {pod.node for pod in plane.pods()} > {"n4"}
    assert not plane.control.placement.desk.put_off
