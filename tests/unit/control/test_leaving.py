"""What is removed waits for its pods in the open, and placement does not mistake that for something to place."""

from __future__ import annotations

from grove_server.resources.workload import Pod, PodClique, PodGang
from tests.lifecycle_cases import Json, clique, group, manifest
from tests.planes import Plane, gang_key, worker


async def test_the_gang_of_a_removed_replica_waits_for_its_pods_alone(plane: Plane) -> None:
    """While the pods of a removed replica stop, its gang is marked and waits for no place; then all is gone."""
    slow: Json = {"annotations": {"fake.grove.io/stop-delay": "20s"}}
    await plane.put(*(worker(i, pods=20) for i in range(2)))
    await plane.apply(manifest([clique("b", 2, **slow)], [group("g", ["b"], 2, 1)]))
    await plane.until_ready(4)
    await plane.scale_group("s-0-g", 1)
    await plane.until(lambda: plane.one(PodGang, "s-0-g-0").metadata.deleted_at is not None, "the gang is marked")
    await plane.restart()
    await plane.until_quiet()
    assert plane.one(PodClique, "s-0-g-1-b").metadata.deleted_at is not None
    assert gang_key("s-0-g-0") not in plane.control.placement.desk.waiting
    assert plane.one(PodGang, "s-0-g-0").status.reason == ""
    plane.clock.advance(60.0)
    await plane.until(lambda: plane.get(PodGang, "s-0-g-0") is None, "the gang is gone")
    assert plane.get(PodClique, "s-0-g-1-b") is None
    assert len(plane.all(Pod)) == 2
