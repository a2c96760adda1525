"""The preemption delay of queues: others leave for a gang only when no room came by itself for a while."""

from __future__ import annotations

from dataclasses import replace

import pytest

from grove_server.placement.waiting import WAITING_FOR_VICTIMS
from grove_server.resources.labels import PREEMPTION_DELAY
from grove_server.resources.meta import Metadata
from grove_server.resources.queues import DEFAULT_QUEUE, Queue
from grove_server.resources.workload import PodGang
from tests.planes import Plane, worker
from tests.unit.control.test_preemption import HIGH, filled, of_set, until_runs, wanted


async def delayed(plane: Plane, delay: str) -> None:
    """Have gangs of the default queue wait before others leave for them."""
    found = plane.store.read().get(Queue, "", DEFAULT_QUEUE)
    annotations = {PREEMPTION_DELAY: delay}
    metadata = Metadata(name=DEFAULT_QUEUE, uid="default-queue") if found is None else found.metadata
    await plane.put(replace(found or Queue(metadata=metadata), metadata=replace(metadata, annotations=annotations)))


async def until_patient(plane: Plane) -> None:
    """Wait until the gang says that it waits for the delay, and nothing happens any more."""

    def says_so() -> bool:
        gang = plane.get(PodGang, "t-0")
        return gang is not None and "preemption delay" in gang.status.message

    await plane.until(says_so, "the gang waits out the delay")
    await plane.until_quiet()


async def test_nobody_leaves_before_the_delay_is_over(plane: Plane) -> None:
    """A gang that could displace others waits first, says why, and displaces them when the time has come."""
    await filled(plane, 2, 2)
    await delayed(plane, "10m")
    await plane.apply(wanted("t", HIGH, 1), uid="high-uid")
    await until_patient(plane)
    assert sum(1 for pod in of_set(plane, "s") if pod.node) == 2
    plane.clock.advance(590)
    await plane.until_quiet()
    assert sum(1 for pod in of_set(plane, "s") if pod.node) == 2
    plane.clock.advance(15)
    await until_runs(plane, "t", 1)
    assert [pod.node for pod in of_set(plane, "s")] == ["", ""]


async def test_a_node_that_comes_meanwhile_spares_everybody(plane: Plane) -> None:
    """Room that comes within the delay is taken, and nobody has to leave afterwards."""
    await filled(plane, 2, 2)
    await delayed(plane, "10m")
    await plane.apply(wanted("t", HIGH, 1), uid="high-uid")
    await until_patient(plane)
    await plane.put(worker(2))
    await until_runs(plane, "t", 1)
    plane.clock.advance(900)
    await plane.until_quiet()
    assert sum(pod.is_ready for pod in of_set(plane, "s")) == 2


@pytest.mark.parametrize("delay", ["0s", "1m"])
async def test_a_shorter_delay_counts_at_once(plane: Plane, delay: str) -> None:
    """When the queue's delay changes, gangs that wait are asked by the new one, from when they began to wait."""
    await filled(plane, 2, 2)
    await delayed(plane, "2h")
    await plane.apply(wanted("t", HIGH, 1), uid="high-uid")
    await until_patient(plane)
    plane.clock.advance(90)
    await plane.until_quiet()
    assert plane.one(PodGang, "t-0").status.reason != WAITING_FOR_VICTIMS
    await delayed(plane, delay)
    await until_runs(plane, "t", 1)
