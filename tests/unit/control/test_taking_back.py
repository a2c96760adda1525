"""Taking back between queues while much happens at once: bounds hold, and whom a change concerns is asked again."""

from __future__ import annotations

from typing import Any

from grove_server.resources.queues import QUEUE
from grove_server.resources.workload import PodGang
from tests.lifecycle_cases import Json, clique, manifest
from tests.planes import Plane
from tests.unit.control.test_queues import gang_reason, queue, workers

SLOW_STOP_S = 20.0


def slow_in_queue(name: str, in_: str, size: int = 1, **template: Any) -> Json:  # noqa: ANN401 -- any field of a template
    """Return a set in a queue whose pods take their time to stop."""
    slow = clique("a", size) | {"annotations": {"fake.grove.io/stop-delay": f"{SLOW_STOP_S:g}s"}}
    document = manifest([slow], name=name, **template)
    return document | {"metadata": {"name": name, "labels": {QUEUE: in_}}}


def running(plane: Plane, prefix: str) -> int:
    """Return how many pods with a node do not leave, of the sets whose names begin like this."""
    return sum(1 for pod in plane.pods() if pod.identity.set_name.startswith(prefix) and pod.node)


async def apply_many(plane: Plane, prefix: str, in_: str, count: int) -> None:
    """Apply sets of one pod, one after the other; each is decided on before the next comes."""
    for number in range(count):
        name = f"{prefix}{number}"
        await plane.apply(slow_in_queue(name, in_), uid=name)
        await plane.until(lambda: plane.get(PodGang, f"{name}-0") is not None, "its gang is there")  # noqa: B023 -- run at once
        await plane.until_quiet()


async def test_what_was_promised_counts_while_victims_stop(plane: Plane) -> None:
    """Many gangs are asked for while the first victims still stop: both queues end with what they are guaranteed."""
    await workers(plane, 8)
    await plane.put(queue("owner", guarantee={"pods": "4"}), queue("borrower", guarantee={"pods": "2"}))
    await apply_many(plane, "b", "borrower", 8)
    await plane.until_ready(8)
    await apply_many(plane, "o", "owner", 8)
    assert running(plane, "b") == 4
    assert sum(gang.status.nomination is not None for gang in plane.all(PodGang)) == 4
    assert gang_reason(plane, "o0-0") == "WaitingForVictims"
    plane.clock.advance(SLOW_STOP_S + 1)
    await plane.until(lambda: running(plane, "o") == 4, "four of the owner run")
    await plane.until_quiet()
    assert (running(plane, "o"), running(plane, "b")) == (4, 4)
