"""The clock of the machine may be set at any time; what the loops do next must not wait for it to catch up."""

from dataclasses import replace

import pytest

from grove_server.resources.cluster import Node
from grove_server.resources.meta import find_condition
from grove_server.resources.workload import Pod, PodClique, PodCliqueSet
from tests.lifecycle_cases import Json, clique, manifest
from tests.planes import Plane, worker

HOUR_S = 3_600.0


@pytest.mark.parametrize("step_s", [-3_600.0, 3_600.0])
async def test_a_clock_that_is_set_delays_nothing(plane: Plane, step_s: float) -> None:
    """After a step of an hour either way, a set grows, tells its status and goes as promptly as before."""
    await plane.put(*(worker(index) for index in range(3)))
    await plane.apply(manifest([clique("a")]))
    await plane.until(lambda: plane.status().available_replicas == 1, "the set is available")
    plane.clock.set_by(step_s)
    await plane.scale_clique("s-0-a", 3)
    await plane.until(lambda: len(plane.pods()) == 3, "the clique has grown")
    await plane.delete_set()
    await plane.until(lambda: plane.child_count() == 0 and not plane.all(PodCliqueSet), "the set is gone")


async def fail(plane: Plane, name: str) -> None:
    """Let a node fail."""
    await plane.put(replace(plane.one(Node, name), ready=False, ready_changed_at=plane.clock.now()))
    await plane.until_quiet()


async def passes(plane: Plane, duration_s: float) -> None:
    """Let time pass and everything react."""
    plane.clock.advance(duration_s)
    queue = plane.control.workload.book.queue

    def is_done() -> bool:
        due_at = queue.next_due_at()
        return plane.is_quiet and (due_at is None or due_at > plane.clock.steady())

    await plane.until(is_done, "everything that was due is done")


@pytest.mark.parametrize("step_s", [-HOUR_S, HOUR_S])
async def test_a_lost_node_is_given_up_on_time(plane: Plane, step_s: float) -> None:
    """What a node's failure lasts is measured in steady time: a step of the clock changes nothing."""
    await plane.put(worker(0), worker(1))
    await plane.apply(manifest([clique("a")]))
    await plane.until_ready(1)
    lost = plane.pods()[0].node
    await fail(plane, lost)
    await passes(plane, 200)
    plane.clock.set_by(step_s)
    await passes(plane, 90)
    # Another change of the node must not make anybody forget how long it has been away.
    await plane.put(replace(plane.one(Node, lost), unschedulable=True))
    await plane.until_quiet()
    assert [pod.node for pod in plane.pods()] == [lost]
    await passes(plane, 11)
    await plane.until(lambda: [pod.node for pod in plane.pods()] != [lost], "the pod runs elsewhere")


async def test_a_stuck_pod_is_removed_although_the_clock_was_set_back(plane: Plane) -> None:
    """The failure of its node counts for a stop that lies ahead, so the pod goes as if the clock had not been set."""
    await plane.put(worker(0))
    await plane.apply(manifest([clique("a")]))
    await plane.until_ready(1)
    await fail(plane, "n0")
    await plane.delete_set()
    await plane.until_quiet()
    await passes(plane, 45)
    plane.clock.set_by(-HOUR_S)
    await passes(plane, 40)
    assert len(plane.all(Pod)) == 1
    await passes(plane, 10)
    await plane.until(lambda: plane.child_count() == 0, "nothing is left")


async def test_a_broken_copy_is_recycled_although_the_clock_was_set_back(plane: Plane) -> None:
    """The clock of a breach starts anew at most once."""
    await plane.put(worker(0), worker(1))
    await plane.apply(manifest([clique("a", 2)], terminationDelay="60s"))
    await plane.until_ready(2)

    def is_broken() -> bool:
        condition = find_condition(plane.one(PodClique, "s-0-a").status.conditions, "MinAvailableBreached")
        return condition is not None and condition.status == "True"

    await plane.until(lambda: not is_broken(), "the clique says that it is whole")
    kept = plane.pods()[0].metadata.uid
    await plane.remove(plane.one(Node, plane.pods()[1].node))
    await plane.until(is_broken, "the clique is broken")
    await passes(plane, 30)
    plane.clock.set_by(-HOUR_S)
    await passes(plane, 31)
    assert kept in {pod.metadata.uid for pod in plane.pods()}
    await passes(plane, 60)
    await plane.until(lambda: kept not in {pod.metadata.uid for pod in plane.pods()}, "the copy is recycled")


def updating(image: str, annotations: dict[str, str]) -> Json:
    """Return a set whose update may take a minute."""
    spec: Json = {"podSpec": {"containers": [{"name": "main", "image": image}]}}
    made = manifest([clique("a", annotations=annotations, **spec)])
    made["spec"]["updateStrategy"] = {"rollingUpdate": {"progressDeadline": "60s"}}
    return made


@pytest.mark.parametrize("is_resumed", [False, True])
async def test_an_update_is_stuck_although_the_clock_was_set_back(plane: Plane, *, is_resumed: bool) -> None:
    """The progress deadline starts anew at most once, whether it counts from progress or from the end of a pause."""
    await plane.put(worker(0))
    await plane.apply(updating("registry.example/app:1", {}))
    await plane.until(lambda: plane.status().available_replicas == 1, "the set is available")
    await plane.apply(updating("registry.example/app:2", {"fake.grove.io/ready-delay": "24h"}))
    await plane.until(lambda: plane.status().update_progress is not None, "the update is under way")
    await plane.until_quiet()
    if is_resumed:
        await plane.put(replace(plane.one(PodCliqueSet, "s"), resumed_at=plane.clock.now()))
    await passes(plane, 30)
    plane.clock.set_by(-HOUR_S)
    await passes(plane, 31)

    def is_stuck() -> bool:
        condition = find_condition(plane.status().conditions, "Progressing")
        return condition is not None and condition.reason == "ProgressDeadlineExceeded"

    assert not is_stuck()
    await passes(plane, 60)
    await plane.until(is_stuck, "the update is stuck")


async def test_a_drain_ends_although_the_clock_was_set_back(plane: Plane) -> None:
    """A drain has its whole time again at the most."""
    await plane.put(worker(0))
    await plane.control.routers.renew("default", "s", "r")
    await plane.apply(manifest([clique("a")]))
    await plane.until_ready(1)
    with plane.control.routers.watching("default", "s", "r"):
        await plane.delete_set()
        await plane.until(lambda: any(pod.is_draining for pod in plane.all(Pod)), "the pod drains")
        await plane.until_quiet()
        await passes(plane, 20)
        plane.clock.set_by(-HOUR_S)
        await passes(plane, 11)
        await passes(plane, 30)
        await plane.until(lambda: plane.child_count() == 0, "nothing is left")
