"""Consolidation in the running loops: it drains first, breaks no minimum, and does nothing when it is off."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from grove_server.control.consolidator import LOOK_EVERY_S, PATIENCE_S
from grove_server.placement import GPU_RESOURCE
from grove_server.resources.cluster import Node
from grove_server.resources.workload import Pod
from tests.lifecycle_cases import Json, manifest
from tests.lifecycle_cases import clique as clique_template
from tests.planes import Plane, worker
from tests.unit.control.test_preemption import acknowledge, of_set, until_runs, with_router

MakePlane = Callable[[int], Plane]

STEP_S = 10.0
"""Shorter than a router's lease, which is renewed after each step."""


@pytest.fixture
async def made(tmp_path: Path) -> AsyncIterator[MakePlane]:
    """Give a function that returns a plane, not started yet, on which so many pods may move in an hour."""
    planes: list[Plane] = []

    def make(moves_per_hour: int) -> Plane:
        planes.append(Plane(tmp_path / "grove.db", moves_per_hour=moves_per_hour))
        return planes[-1]

    yield make
    for plane in planes:
        await plane.stop()


def _node(index: int) -> Node:
    node = worker(index, pods=9)
    return replace(node, allocatable={**node.allocatable, GPU_RESOURCE: "2"})


def _set(name: str, replicas: int, minimum: int, *, gpus: int = 1) -> Json:
    container = {"name": "main", "image": "i", "resources": {"limits": {GPU_RESOURCE: str(gpus)}}}
    return manifest([clique_template("c", replicas, minimum, podSpec={"containers": [container]})], name=name)


async def half_used(plane: Plane, *, minimum: int) -> None:
    """Start with two nodes of two GPUs, each half used by one pod of a set, and a gang that needs a whole node."""
    await plane.start()
    await plane.put(_node(0), _node(1))
    for name, other in (("n0", "n1"), ("n1", "n0")):
        await plane.set_nodes(name, unschedulable=False)
        await plane.set_nodes(other, unschedulable=True)
        await plane.apply(_set(f"at-{name}", 1, 1), uid=name)
        await until_runs(plane, f"at-{name}", 1)
    await plane.set_nodes("n0", "n1", unschedulable=False)
    await plane.apply(_set("small", 2, minimum), uid="small")
    await plane.until_ready(4)
    await plane.delete_set("at-n0")
    await plane.delete_set("at-n1")
    await plane.until_ready(2)
    await plane.until_quiet()
    assert sorted(pod.node for pod in of_set(plane, "small")) == ["n0", "n1"]
    await plane.apply(_set("big", 1, 1, gpus=2), uid="big")
    await plane.until(lambda: len(of_set(plane, "big")) == 1, "it waits")
    await plane.until_quiet()


async def look(plane: Plane, times: int) -> None:
    """Let so many looks pass."""
    plane.clock.advance(PATIENCE_S)
    for _ in range(times):
        plane.clock.advance(LOOK_EVERY_S)
        await plane.until_quiet()


async def test_what_moves_is_drained_first(made: MakePlane) -> None:
    """A router leaves the pod that moves before it stops; its place is kept for the gang until then."""
    plane = made(5)
    await half_used(plane, minimum=1)
    for _ in range(int((PATIENCE_S + 2 * LOOK_EVERY_S) / STEP_S)):
        await with_router(plane, "small")
        if any(pod.is_draining for pod in plane.all(Pod)):
            break
        plane.clock.advance(STEP_S)
        await plane.until(lambda: plane.is_quiet or any(pod.is_draining for pod in plane.all(Pod)), "it settles")
    await plane.until(lambda: any(pod.is_draining for pod in plane.all(Pod)), "the pod drains")
    assert [pod.node for pod in of_set(plane, "big")] == [""]
    await acknowledge(plane)
    await plane.until(lambda: any(pod.is_ready for pod in of_set(plane, "big")), "the gang runs")


async def test_a_minimum_never_moves(made: MakePlane) -> None:
    """If both pods are a gang's minimum nothing moves, however long the other waits."""
    plane = made(5)
    await half_used(plane, minimum=2)
    before = {pod.metadata.uid: pod.node for pod in of_set(plane, "small")}
    await look(plane, 4)
    assert {pod.metadata.uid: pod.node for pod in of_set(plane, "small")} == before
    assert [pod.node for pod in of_set(plane, "big")] == [""]


async def test_off_moves_nothing(made: MakePlane) -> None:
    """Without moves allowed surplus stays where it is."""
    plane = made(0)
    await half_used(plane, minimum=1)
    before = {pod.metadata.uid: pod.node for pod in of_set(plane, "small")}
    await look(plane, 4)
    assert {pod.metadata.uid: pod.node for pod in of_set(plane, "small")} == before
