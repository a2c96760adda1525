"""The loops together: from a set to running pods and back to nothing, whatever happens on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from grove_server.control.workkeys import WorkKey
from grove_server.control.workload_loop import WorkloadLoop
from grove_server.resources.meta import Resource, find_condition
from grove_server.resources.workload import (
    GangPhase,
    Pod,
    PodClique,
    PodCliqueSet,
    PodGang,
    PodPhase,
    PodTemplate,
    SetPhase,
)
from grove_server.store.interface import ChangeType, Notice, Put
from tests.lifecycle_cases import Json, admitted, clique, deleted, group, manifest
from tests.planes import Plane, worker

GROUPED = manifest([clique("a", 2), clique("b"), clique("c", 2, 1)], [group("g", ["b", "c"], 2, 1)])


def one_clique(replicas: int = 1, *, size: int = 1, name: str = "s", **fields: Any) -> Json:  # noqa: ANN401 -- any field
    """Return a set of one clique whose minimum is one pod."""
    return manifest([clique("a", size, 1, **fields)], replicas=replicas, name=name)


async def test_a_set_comes_and_goes(plane: Plane) -> None:
    """A set runs with true statuses; after its deletion nothing is left, in the store or in memory."""
    await plane.put(*(worker(i) for i in range(10)))
    await plane.apply(GROUPED)
    await plane.until_ready(8)
    await plane.until(lambda: plane.status().phase is SetPhase.RUNNING, "the set runs")
    assert len({pod.node for pod in plane.all(Pod)}) == 8
    assert {gang.status.phase for gang in plane.all(PodGang)} == {GangPhase.RUNNING}
    assert plane.status().available_replicas == 1
    assert plane.one(PodClique, "s-0-a").status.ready_replicas == 2
    await plane.delete_set()
    await plane.until(lambda: plane.get(PodCliqueSet, "s") is None, "the set is gone")
    await plane.until_quiet()
    plane.check_nothing_is_left()


async def test_sizes_follow_at_every_level(plane: Plane) -> None:
    """Copies, group replicas and pods come and go as they are scaled, to zero and back."""
    await plane.put(*(worker(i, pods=20) for i in range(2)))
    await plane.apply(GROUPED)
    await plane.until_ready(8)
    await plane.scale_group("s-0-g", 4)
    await plane.until_ready(14)
    await plane.scale_clique("s-0-a", 5)
    await plane.until_ready(17)
    await plane.scale_group("s-0-g", 0)
    await plane.scale_clique("s-0-a", 0)
    await plane.until(lambda: not plane.all(Pod), "all pods are gone")
    await plane.until_quiet()
    await plane.scale_group("s-0-g", 1)
    await plane.until_ready(3)
    await plane.apply(GROUPED | {"spec": GROUPED["spec"] | {"replicas": 0}})
    await plane.until(lambda: plane.status().phase is SetPhase.IDLE and not plane.all(Pod), "the set is idle")
    await plane.delete_set()
    await plane.until(lambda: plane.get(PodCliqueSet, "s") is None, "the set is gone")
    await plane.until_quiet()
    plane.check_nothing_is_left()


async def test_every_copy_follows_an_edit_even_if_one_was_first(plane: Plane) -> None:
    """A copy that is looked at before its set after an edit does not keep the others from following."""
    await plane.put(*(worker(i, pods=10) for i in range(2)))
    await plane.apply(one_clique(3))
    await plane.until_ready(3)
    await plane.until_quiet()
    # One change: the clique's notice comes before the set's, so its copy's pass sees the new set first.
    edited = admitted(one_clique(3, size=2), plane.one(PodCliqueSet, "s"))
    await plane.put(plane.one(PodClique, "s-0-a"), edited)
    await plane.until_ready(6)


async def test_waiting_for_pods_to_stop_costs_no_passes(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the pods of an unwanted copy take their time to stop, nobody looks at it again and again."""
    await plane.put(*(worker(i, pods=10) for i in range(2)))
    slow: Json = {"annotations": {"fake.grove.io/stop-delay": "20s"}}
    await plane.apply(one_clique(2, **slow))
    await plane.until_ready(2)
    await plane.until_quiet()
    passes = []
    work = WorkloadLoop._work

    def counted(loop: WorkloadLoop, key: object) -> None:
        passes.append(key)
        work(loop, key)  # type: ignore[arg-type]  # passed on as given

    monkeypatch.setattr(WorkloadLoop, "_work", counted)
    await plane.apply(one_clique(1, **slow))
    await plane.until(lambda: len(plane.pods()) == 1, "one pod stops")
    plane.clock.advance(1)
    await plane.until_quiet()
    before = len(passes)
    for _ in range(20):
        plane.clock.advance(0.5)
        await asyncio.sleep(0)
    await plane.until_quiet()
    assert len(passes) - before <= 2, passes[before:]
    plane.clock.advance(20)
    await plane.until(lambda: len(plane.all(Pod)) == 1, "the pod is gone")


async def test_a_copy_that_is_wanted_again_while_it_stops(plane: Plane) -> None:
    """Scaling out again does not wait for the old pods to stop."""
    await plane.put(*(worker(i, pods=10) for i in range(2)))
    slow: Json = {"annotations": {"fake.grove.io/stop-delay": "20s"}}
    await plane.apply(one_clique(2, **slow))
    await plane.until_ready(2)
    await plane.apply(one_clique(1, **slow))
    await plane.until(lambda: len(plane.pods()) == 1, "one pod stops")
    await plane.until_quiet()
    await plane.apply(one_clique(2, **slow))
    await plane.until_ready(2)
    assert len(plane.all(Pod)) == 3
    await plane.until(lambda: plane.status().available_replicas == 2, "both copies serve")


async def test_a_set_is_deleted_while_its_pods_start(plane: Plane) -> None:
    """Deletion needs no pod to be ready: whatever state they are in, they go."""
    await plane.put(*(worker(i) for i in range(3)))
    await plane.apply(one_clique(4, annotations={"fake.grove.io/start-delay": "60s"}))
    await plane.until(lambda: sum(1 for pod in plane.all(Pod) if pod.node) == 3, "three pods are starting")
    await plane.delete_set()
    await plane.until(lambda: plane.get(PodCliqueSet, "s") is None, "the set is gone")
    await plane.until_quiet()
    plane.check_nothing_is_left()


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 5, 8, 13, 30])
async def test_a_set_is_deleted_at_any_moment(plane: Plane, steps: int) -> None:
    """However far the loops have come, a deletion leaves nothing behind."""
    await plane.put(*(worker(i, pods=3) for i in range(3)))
    await plane.apply(GROUPED)
    for _ in range(steps):
        await asyncio.sleep(0)
    await plane.delete_set()
    await plane.until(lambda: plane.get(PodCliqueSet, "s") is None, "the set is gone")
    await plane.until_quiet()
    plane.check_nothing_is_left()


async def test_a_set_is_made_anew_under_its_old_name(plane: Plane) -> None:
    """A set of the same name can follow at once; it is another one, and its pods too."""
    await plane.put(*(worker(i, pods=5) for i in range(2)))
    await plane.apply(GROUPED, uid="first")
    await plane.until_ready(8)
    old = {pod.metadata.uid for pod in plane.all(Pod)}
    await plane.delete_set()
    await plane.until(lambda: plane.get(PodCliqueSet, "s") is None, "the set is gone")
    await plane.apply(GROUPED, uid="second")
    await plane.until_ready(8)
    assert not old & {pod.metadata.uid for pod in plane.all(Pod)}
    assert {pod.identity.set_uid for pod in plane.all(Pod)} == {"second"}
    plane.check_templates()
    assert {template.metadata.owner_uid for template in plane.all(PodTemplate)} == {"second"}


async def test_a_timer_of_a_set_that_is_gone_brings_nothing_back(plane: Plane) -> None:
    """A replacement that waited for its time when the set was deleted leaves no memory of the set."""
    await plane.put(worker(0, pods=10))
    # Gang termination would set a timer of hours whenever a pass happens to see the clique broken.
    await plane.apply(manifest([clique("a")], terminationDelay="never"))
    await plane.until_ready(1)
    for attempt in (1, 2):
        [pod] = plane.pods()
        await plane.put(replace(pod, phase=PodPhase.FAILED, ready_at=None, finished_at=plane.clock.now()))
        if attempt == 1:
            await plane.until(lambda: plane.ready_count() == 1 and plane.pods()[0].attempt == 1, "it is replaced")
    await plane.until_quiet()
    assert not plane.pods()
    await plane.delete_set()
    await plane.until(lambda: plane.get(PodCliqueSet, "s") is None, "the set is gone")
    await plane.until_quiet()
    plane.clock.advance(60)
    await asyncio.sleep(0)
    await plane.until(lambda: plane.control.workload.book.queue.next_due_at() is None, "no timer is left")
    await plane.until_quiet()
    plane.check_nothing_is_left()


async def test_a_pod_that_fails_is_replaced_on_time(plane: Plane) -> None:
    """The loop wakes itself when a back-off ends."""
    await plane.put(worker(0, pods=10))
    await plane.apply(one_clique())
    await plane.until_ready(1)
    [pod] = plane.pods()
    await plane.put(replace(pod, attempt=1, phase=PodPhase.FAILED, ready_at=None, finished_at=plane.clock.now()))
    await plane.until_quiet()
    assert not plane.pods()
    plane.clock.advance(10)
    await plane.until_ready(1)
    assert plane.pods()[0].attempt == 2


async def test_lost_races_are_decided_anew(plane: Plane) -> None:
    """A write between plan and commit wins; the plan is made again on what it left."""
    await plane.put(*(worker(i, pods=10) for i in range(2)))
    await plane.apply(one_clique(size=3))
    await plane.until_ready(3)
    await plane.until_quiet()
    plane.journal.hold()
    changes: list[Resource] = [deleted(pod, plane.clock.now()) for pod in plane.pods()[:2]]
    changes.append(replace(plane.one(PodClique, "s-0-a"), replicas=1))
    in_flight = [plane.store.commit_soon([Put(change)], cause="test") for change in changes]
    # The loop plans on what it sees, while what others have decided is still on its way.
    plane.control.workload.book.queue.add(WorkKey("default", "s", "set-uid", 0))
    plane.control.workload.book.wake.set()
    await asyncio.sleep(0)
    plane.journal.release()
    await asyncio.wait(in_flight)
    await plane.until(lambda: len(plane.all(Pod)) == 1, "one pod is left")
    await plane.until_quiet()
    assert plane.one(PodClique, "s-0-a").replicas == 1
    plane.check_templates()


# Restarts.


async def test_nothing_changes_at_a_restart(plane: Plane) -> None:
    """A server that starts anew adopts what runs: no pod and no status is written, and new work goes on."""
    await plane.put(*(worker(i, pods=10) for i in range(3)))
    await plane.apply(GROUPED)
    await plane.apply(one_clique(3, size=2, name="t"), uid="t-uid")
    await plane.until_ready(14)
    await plane.until(lambda: plane.status().phase is SetPhase.RUNNING is plane.status("t").phase, "both run")
    await plane.until_quiet()
    plane.clock.advance(5)
    await plane.until_quiet()
    await plane.stop()
    seen: list[Notice] = []
    await plane.start(listener=seen.extend)
    await plane.until_quiet()
    plane.clock.advance(5)
    await plane.until_quiet()
    assert [(notice.kind, notice.resource) for notice in seen] == []
    free = [plane.control.placement.cluster.free_of(f"n{i}")["pods"] for i in range(3)]
    assert sum(free) == 30 - 14
    await plane.scale_clique("s-0-a", 4)
    await plane.until_ready(16)
    for name in ("s", "t"):
        await plane.delete_set(name)
    await plane.until(lambda: not plane.all(PodCliqueSet), "both sets are gone")
    await plane.until_quiet()
    plane.check_nothing_is_left()


async def test_a_restart_finishes_what_was_begun(plane: Plane) -> None:
    """A deletion and a scale-out that were written just before the end happen after it."""
    await plane.put(*(worker(i, pods=10) for i in range(3)))
    await plane.apply(GROUPED)
    await plane.apply(one_clique(1, name="t"), uid="t-uid")
    await plane.until_ready(9)
    await plane.control.stop()
    await plane.runtime.stop()
    await plane.delete_set()
    await plane.apply(one_clique(3, name="t"))
    await plane.store.close()
    await plane.start()
    await plane.until(lambda: plane.get(PodCliqueSet, "s") is None, "the set is gone")
    await plane.until_ready(3)
    await plane.until(lambda: plane.status("t").available_replicas == 3, "the other serves")


async def test_children_without_a_set_are_taken_down(plane: Plane) -> None:
    """What is left of a set whose row is gone is removed at the next start, with no memory kept."""
    await plane.put(*(worker(i, pods=10) for i in range(2)))
    await plane.apply(one_clique(2))
    await plane.until_ready(2)
    await plane.control.stop()
    await plane.remove(plane.one(PodCliqueSet, "s"))
    await plane.runtime.stop()
    await plane.store.close()
    await plane.start()
    await plane.until(lambda: not plane.all(Pod) and not plane.all(PodGang), "pods and gangs are gone")
    await plane.until(lambda: plane.control.workload.book.sets == {}, "the set is forgotten")


# A store that refuses.


async def test_a_full_disk_is_waited_out(plane: Plane) -> None:
    """Nothing is lost when commits fail: the loops try again, and reservations are given back meanwhile."""
    await plane.put(*(worker(i) for i in range(8)))
    await plane.apply(manifest([clique("a", 2)]))
    await plane.until_ready(2)
    await plane.until_quiet()
    plane.journal.hold()
    wanted = asyncio.ensure_future(plane.apply(GROUPED | {"metadata": {"name": "t"}}, uid="t-uid"))
    plane.journal.release()
    await wanted
    plane.journal.fail()
    await plane.until(lambda: not plane.store.health().ok, "the store refuses")
    await plane.until(lambda: not plane.store.health().queued_changes, "what was queued has failed")
    plane.clock.advance(1)
    await asyncio.sleep(0)
    plane.journal.mend()
    plane.clock.advance(2)
    await plane.until(lambda: _advanced(plane) and plane.ready_count() == 8, "everything runs")
    plane.check_templates()
    for name in ("s", "t"):
        await plane.delete_set(name)
    await plane.until(lambda: _advanced(plane) and not plane.all(PodCliqueSet), "both sets are gone")
    await plane.until_quiet()
    plane.check_nothing_is_left()


def _advanced(plane: Plane) -> bool:
    """Let retries come due while waiting."""
    plane.clock.advance(0.1)
    return True


async def test_bindings_that_fail_are_given_back(plane: Plane) -> None:
    """Nodes reserved for a commit that failed are free again until it is decided anew."""
    await plane.put(worker(0, pods=4, unschedulable=True))
    await plane.apply(manifest([clique("a", 4)]))
    await plane.until(lambda: len(plane.all(Pod)) == 4, "the pods exist")
    await plane.until_quiet()
    plane.journal.hold()
    uncordon = asyncio.ensure_future(plane.set_nodes("n0", unschedulable=False))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    plane.journal.release()
    await uncordon
    plane.journal.hold()
    await plane.until(lambda: plane.control.placement.cluster.free_of("n0")["pods"] == 0, "the gang is decided")
    assert not any(pod.node for pod in plane.all(Pod))
    plane.journal.fail()
    await plane.until(lambda: plane.control.placement.cluster.free_of("n0")["pods"] == 4, "the node is free again")
    plane.journal.mend()
    await plane.until(lambda: _advanced(plane) and plane.ready_count() == 4, "the gang runs")


# Templates.


def version(number: int) -> Json:
    """Return the set at one of its revisions."""
    return one_clique(2, size=2, labels={"v": str(number)})


async def test_templates_that_nothing_needs_are_removed(plane: Plane) -> None:
    """A template goes when the last pod that was made from it has taken another or is gone."""
    await plane.put(*(worker(i, pods=10) for i in range(2)))
    await plane.apply(version(1))
    await plane.until_ready(4)
    await plane.apply(version(2))
    await plane.until(lambda: {t.labels["v"] for t in plane.all(PodTemplate)} == {"2"}, "the first is gone")
    plane.check_templates()
    await plane.apply(version(3))
    await plane.until(lambda: {t.labels["v"] for t in plane.all(PodTemplate)} == {"3"}, "the second is gone")
    plane.check_templates()
    await plane.until_ready(4)


@pytest.mark.parametrize("steps", range(0, 24, 2))
async def test_no_pod_outlives_its_template(tmp_path: Path, steps: int) -> None:
    """Edits back and forth while templates are on their way in and out: the database can be read again."""
    plane = Plane(tmp_path / "grove.db")
    await plane.start()
    await plane.put(*(worker(i, pods=20) for i in range(2)))
    await plane.apply(version(1))
    await plane.until_ready(4)
    seen: list[str] = []
    plane.store.subscribe(lambda notices: seen.extend(_missing_templates(plane, notices)))
    for number in (2, 3, 1, 2, 1, 3, 2, 1):
        await plane.apply(version(number))
        for _ in range(steps):
            await asyncio.sleep(0)
        await plane.scale_clique("s-0-a", 2 + number % 2)
        for pod in plane.pods("s-1-a")[:1]:
            # On the row that was seen, as a call does it: a pod that is gone by now is not made anew.
            gone = Put(deleted(pod, plane.clock.now()), pod.resource_version)
            await plane.store.commit([gone], cause="test")
    await plane.until_quiet()
    assert seen == []
    plane.check_templates()
    await plane.stop()
    await plane.start()
    plane.check_templates()
    await plane.until(
        lambda: {c.template.labels["v"] for c in plane.all(PodClique)} == {"1"}, "all follow the last edit"
    )
    await plane.stop()


def _missing_templates(plane: Plane, notices: Sequence[Notice]) -> list[str]:
    """Return the pods and cliques of these changes whose template is not stored."""
    found = []
    for notice in notices:
        resource = notice.resource
        if isinstance(resource, Pod | PodClique) and notice.kind is not ChangeType.DELETED:
            name = resource.template.metadata.name
            current = plane.get(type(resource), resource.metadata.name)
            if current is not None and current.template.metadata.name == name and plane.get(PodTemplate, name) is None:
                found.append(f"{resource.metadata.name} needs {name}")
    return found


async def test_a_deleted_set_takes_a_template_on_its_way_along(plane: Plane) -> None:
    """A set without copies that is edited and deleted in one breath leaves no template behind."""
    await plane.apply(one_clique(0, labels={"v": "1"}))
    await plane.until_quiet()
    plane.journal.hold()
    edit = asyncio.ensure_future(plane.apply(one_clique(0, labels={"v": "2"})))
    await asyncio.sleep(0)
    plane.journal.release()
    await edit
    await plane.delete_set()
    await plane.until(lambda: plane.get(PodCliqueSet, "s") is None, "the set is gone")
    await plane.until_quiet()
    plane.check_nothing_is_left()


async def test_the_available_condition_is_there(plane: Plane) -> None:
    """Even a set without room says what it lacks."""
    await plane.apply(one_clique())
    await plane.until(lambda: bool(plane.status().conditions), "the status is written")
    condition = find_condition(plane.status().conditions, "Available")
    assert condition is not None
    assert condition.status == "False"
