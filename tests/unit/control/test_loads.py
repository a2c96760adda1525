"""Reports of load hold for a while, add up, are bounded, and decide whom scale-in takes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from grove_server.control import loads as loads_module
from grove_server.control.loads import LOAD_MAX, LOAD_TTL_S
from grove_server.resources.cluster import Node
from tests.lifecycle_cases import clique, manifest
from tests.planes import Plane, worker


async def served(plane: Plane, pods: int = 3) -> list[str]:
    """Run a set of one clique; return its pods by name."""
    await plane.put(worker(0, pods=10))
    await plane.apply(manifest([clique("a", pods, 1)]))
    await plane.until_ready(pods)
    assert plane.all(Node)
    return [pod.metadata.name for pod in plane.pods()]


def known(plane: Plane) -> dict[str, float]:
    """Return the loads that hold for the set."""
    return dict(plane.control.orders.for_set("default", "s").loads)


async def test_a_report_replaces_the_last_and_expires(plane: Plane) -> None:
    """Setting the clock changes nothing; each router's word ends by itself."""
    first, second, _ = await served(plane)
    loads = plane.control.loads
    assert known(plane) == {}
    assert loads.report("default", "s", "r1", {first: 5, second: -1, "none": 3}) == 2
    loads.report("default", "s", "r2", {first: 2 * LOAD_MAX})
    assert known(plane) == {first: LOAD_MAX + 5, second: 0}
    plane.clock.set_by(3_600)
    plane.clock.advance(LOAD_TTL_S * 0.6)
    loads.report("default", "s", "r1", {first: 7})
    plane.clock.advance(LOAD_TTL_S * 0.6)
    assert known(plane) == {first: 7}
    assert len(plane.control.orders.for_set("default", "s").loads) == 1
    plane.clock.advance(LOAD_TTL_S)
    assert known(plane) == {}
    assert loads.report("default", "s", "r1", {"none": 1}) == 0
    assert loads._words == {}


async def test_sets_and_namespaces_are_apart(plane: Plane) -> None:
    """Nobody speaks of pods of another set."""
    first, *_ = await served(plane)
    loads = plane.control.loads
    assert loads.report("other", "s", "r1", {first: 5}) == loads.report("default", "t", "r1", {first: 5}) == 0
    loads.report("default", "s", "r1", {first: 5})
    assert loads.of_set("default", "t").get(first, 0.0) == 0.0
    assert dict(loads.of_set("default", "t")) == {}


async def test_what_is_remembered_is_bounded(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest words go: of routers on one pod, and of pods."""
    monkeypatch.setattr(loads_module, "ROUTERS_PER_POD_MAX", 2)
    monkeypatch.setattr(loads_module, "WORDS_MAX", 3)
    first, second, third = await served(plane)
    loads = plane.control.loads
    for router, load in (("r1", 1), ("r2", 10), ("r3", 100)):
        loads.report("default", "s", router, {first: load})
        plane.clock.advance(0.001)
    assert known(plane) == {first: 110}
    loads.report("default", "s", "r1", {second: 1, third: 1})
    assert known(plane) == {second: 1, third: 1}
    assert loads._count == 2


async def test_scale_in_takes_the_least_loaded(plane: Plane) -> None:
    """The pod that is not reported goes first, then the one with the smallest sum, then any whose words expired."""
    idle, busy, quiet = _rotated(await served(plane))
    loads = plane.control.loads
    loads.report("default", "s", "r1", {busy: 9, quiet: 4})
    loads.report("default", "s", "r2", {busy: 9})
    await plane.scale_clique("s-0-a", 2)
    await plane.until_ready(2)
    assert idle not in {pod.metadata.name for pod in plane.pods()}
    await plane.scale_clique("s-0-a", 1)
    await plane.until_ready(1)
    assert [pod.metadata.name for pod in plane.pods()] == [busy]


def _rotated(names: list[str]) -> Iterator[str]:
    """Return the pods so that names alone would take the wrong one first: the last, the first, the others."""
    return iter([names[-1], *names[:-1]])
