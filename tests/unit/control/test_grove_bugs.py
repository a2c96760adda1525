"""Faults that users of Grove reported, on the loops as they run; docs/grove-bugs.md lists them all."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from grove_server.control.workkeys import WorkKey
from grove_server.lifecycle.pod_manifest import pod_spec
from grove_server.resources.meta import Resource
from grove_server.resources.workload import PodClique, PodGang
from grove_server.store.interface import Put
from tests.lifecycle_cases import clique, condition, deleted, group, manifest
from tests.planes import Plane, worker


async def test_a_member_that_is_scaled_up_is_placed_at_once_847(plane: Plane) -> None:
    """#847: more pods of a group's member run without a timer or a resync having to come round."""
    await plane.put(*(worker(index) for index in range(4)))
    await plane.apply(manifest([clique("a"), clique("m", 1, 1)], [group("g", ["m"])]))
    await plane.until_ready(2)
    began_at = plane.clock.now()
    await plane.scale_clique("s-0-g-0-m", 3)
    await plane.until_ready(3, "s-0-g-0-m")
    await plane.until_quiet()
    assert plane.clock.now() - began_at < 30, "the clock was never moved on"
    assert plane.one(PodGang, "s-0").pod_groups[1].min_replicas == 1


async def test_no_status_is_left_behind_by_a_lost_race_711_747(plane: Plane) -> None:
    """#711, #747: whatever is written while a status is on its way to the disk, statuses are true in the end."""
    await plane.put(*(worker(index) for index in range(4)))
    await plane.apply(manifest([clique("a", 3, 1)]))
    await plane.until_ready(3)
    for size in (2, 4, 1, 3):
        plane.journal.hold()
        victim = plane.pods("s-0-a")[0]
        changes: list[Resource] = [
            deleted(victim, plane.clock.now()),
            replace(plane.one(PodClique, "s-0-a"), replicas=size),
        ]
        in_flight = [plane.store.commit_soon([Put(change)], cause="test") for change in changes]
        plane.control.workload.book.queue.add(WorkKey("default", "s", "set-uid", 0))
        plane.control.workload.book.wake.set()
        await asyncio.sleep(0)
        plane.journal.release()
        await asyncio.wait(in_flight)
        await plane.until_ready(size)
        await plane.until_quiet()
        status = plane.one(PodClique, "s-0-a").status
        assert (status.replicas, status.ready_replicas, status.terminating_replicas) == (size, size, 0)
        # A set's status follows at an interval.
        await plane.until(lambda: plane.status().available_replicas == 1, "the set's status is true")
        assert condition(plane.one(PodClique, "s-0-a"), "MinAvailableBreached").status == "False"


async def test_the_order_of_containers_is_kept_830(plane: Plane) -> None:
    """#830: containers and init containers of a pod stand in the order of the template."""
    spec = {
        "initContainers": [{"name": name, "image": "i"} for name in ("fetch", "check", "a-last")],
        "containers": [{"name": name, "image": "i"} for name in ("main", "a-sidecar")],
    }
    await plane.put(worker(0))
    await plane.apply(manifest([clique("a", podSpec=spec)]))
    await plane.until_ready(1)
    shown = pod_spec(plane.pods()[0])
    for key, containers in spec.items():
        assert [each["name"] for each in shown[key]] == [each["name"] for each in containers]
