"""Gangs of higher priority in the running loops: who leaves, what is kept meanwhile, what becomes of the victims."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from grove_server.control import evictions
from grove_server.control.pace import Pace
from grove_server.lifecycle.removal import StopReason
from grove_server.placement.making_room import RoomPlan, room_steps
from grove_server.placement.steps import Steps
from grove_server.placement.waiting import WAITING_FOR_VICTIMS
from grove_server.resources.cluster import Event, Node
from grove_server.resources.gang_parts import PodGroup
from grove_server.resources.meta import Metadata, find_condition
from grove_server.resources.priority import PriorityClass
from grove_server.resources.workload import Pod, PodCliqueSet, PodGang
from grove_server.store.interface import Notice
from tests.lifecycle_cases import Json, admitted, clique, manifest
from tests.planes import Plane, gang_key, worker

LOW, HIGH, NEVER = "low", "high", "never"


def classes() -> list[PriorityClass]:
    """Return a low, a high, and a high class that preempts nobody."""
    return [
        PriorityClass(metadata=Metadata(name=LOW, uid="class-low"), value=10),
        PriorityClass(metadata=Metadata(name=HIGH, uid="class-high"), value=1000),
        PriorityClass(metadata=Metadata(name=NEVER, uid="class-never"), value=1000, preemption_policy="Never"),
    ]


def wanted(name: str, priority: str, size: int, minimum: int | None = None) -> Json:
    """Return a set of one clique with a priority class."""
    return manifest([clique("a", size, minimum)], name=name, priorityClassName=priority)


async def filled(plane: Plane, nodes: int, size: int, minimum: int | None = None) -> None:
    """Fill some nodes with a set of low priority."""
    await plane.put(*classes(), *(worker(i) for i in range(nodes)))
    await plane.apply(wanted("s", LOW, size, minimum), uid="low-uid")
    await plane.until_ready(nodes)
    await plane.until_quiet()


def of_set(plane: Plane, name: str) -> list[Pod]:
    """Return the active pods of a set."""
    return [pod for pod in plane.pods() if pod.identity.set_name == name]


def events(plane: Plane, gang: str) -> set[str]:
    """Return the reasons of a gang's events."""
    return {event.reason for event in plane.all(Event) if event.involved_name == gang}


def reason(plane: Plane, gang: str) -> str:
    """Return why a gang waits."""
    found = plane.get(PodGang, gang)
    return "" if found is None else found.status.reason


async def until_runs(plane: Plane, name: str, count: int) -> None:
    """Wait until so many pods of a set serve and nothing happens any more."""
    await plane.until(lambda: sum(pod.is_ready for pod in of_set(plane, name)) == count, f"{count} of {name} run")
    await plane.until_quiet()


async def with_router(plane: Plane, name: str = "s") -> None:
    """Let a router serve a set, so that its pods drain before they stop."""
    await plane.control.routers.renew("default", name, "r")


async def acknowledge(plane: Plane) -> None:
    """Let the router leave all draining pods."""
    await plane.put(*(replace(pod, drain_acks=("r",)) for pod in plane.all(Pod) if pod.is_draining))


async def test_surplus_gives_way_first(plane: Plane) -> None:
    """One surplus pod of a lower priority leaves for a gang that needs one node; its gang stays whole."""
    await filled(plane, 4, 4, 2)
    await plane.apply(wanted("t", HIGH, 1), uid="high-uid")
    await until_runs(plane, "t", 1)
    assert sum(1 for pod in of_set(plane, "s") if pod.node) == 3
    assert plane.one(PodGang, "s-0").status.scheduled_at is not None
    await plane.until(lambda: {"Preempting", "Placed"} <= events(plane, "t-0"), "the gang is told")
    assert "Preempted" in events(plane, "s-0")


async def test_a_plan_lets_others_run_and_sees_nothing_of_it(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a plan rests calls are served; what they change is taken in when it is made, and it is carried out."""
    await filled(plane, 4, 4, 2)
    cluster, seen, steps_of = plane.control.placement.cluster, list[tuple[bool, bool]](), room_steps

    def watched(*args: Any, **more: Any) -> Steps[RoomPlan]:  # noqa: ANN401 -- passed on as given
        before, call = cluster.generation, asyncio.ensure_future(plane.put(worker(9, unschedulable=True)))
        while not call.done():
            yield
        seen.append((plane.get(Node, "n9") is not None, cluster.generation == before))
        return (yield from steps_of(*args, **more))

    monkeypatch.setattr(evictions, "room_steps", watched)
    monkeypatch.setattr(Pace, "is_due", property(lambda _: True))
    await plane.apply(wanted("t", HIGH, 1), uid="high-uid")
    await until_runs(plane, "t", 1)
    assert seen == [(True, True)]
    assert "n9" in cluster.node_names()
    assert sum(1 for pod in of_set(plane, "s") if pod.node) == 3


async def test_plans_of_one_round_keep_a_budget_together(plane: Plane) -> None:
    """Two gangs that come at once do not both take a surplus pod of a clique that can spare one."""
    await plane.put(*classes(), *(worker(i) for i in range(6)))
    for name in ("s", "v"):
        await plane.apply(wanted(name, LOW, 3, 1), uid=f"{name}-uid")
        await plane.until(lambda n=name: sum(pod.is_ready for pod in of_set(plane, n)) == 3, "it runs")  # type: ignore[misc]  # the name of now
    await plane.until_quiet()
    high = [admitted(wanted(name, HIGH, 1), None, uid=name, now=plane.clock.now()) for name in ("t", "u")]
    await plane.put(*high)
    await until_runs(plane, "t", 1)
    await until_runs(plane, "u", 1)
    assert [sum(1 for pod in of_set(plane, name) if pod.node) for name in ("s", "v")] == [2, 2]


async def test_a_successor_without_a_node_raises_no_budget(plane: Plane) -> None:
    """A clique of which a pod waits has nothing to spare: another one gives a surplus pod, although it runs longer."""
    await plane.put(*classes(), *(worker(i) for i in range(4)))
    await plane.apply(wanted("v", LOW, 2, 1), uid="v-uid")
    await until_runs(plane, "v", 2)
    await plane.apply(wanted("s", LOW, 3, 1), uid="s-uid")
    await until_runs(plane, "s", 2)
    await plane.apply(wanted("t", HIGH, 1), uid="high-uid")
    await until_runs(plane, "t", 1)
    assert [sum(1 for pod in of_set(plane, name) if pod.node) for name in ("s", "v")] == [2, 1]


async def test_a_pod_that_does_not_serve_makes_no_other_spare(plane: Plane) -> None:
    """Beside a pod that is not ready none that serves is taken; that one may go."""
    await plane.put(*classes(), *(worker(i) for i in range(5)))
    await plane.apply(wanted("v", LOW, 2, 1), uid="v-uid")
    await until_runs(plane, "v", 2)
    document = wanted("s", LOW, 3, 1)
    await plane.apply(document, uid="s-uid")
    await until_runs(plane, "s", 3)
    slow = next(pod for pod in of_set(plane, "s") if pod.index == 1)
    await plane.runtime.stop()
    await plane.put(replace(slow, ready_at=None))
    high = [admitted(wanted(name, HIGH, 1), None, uid=name, now=plane.clock.now()) for name in ("t", "u")]
    await plane.put(*high)
    await plane.until(lambda: len(leaving(plane)) == 2, "two leave")
    await plane.until_quiet()
    assert leaving(plane) == [("s", 1), ("v", 1)]


def leaving(plane: Plane) -> list[tuple[str, int]]:
    """Return by set and index the pods that were told to leave."""
    return sorted((pod.identity.set_name, pod.index) for pod in plane.all(Pod) if not pod.is_active)


async def test_a_whole_gang_gives_way_and_comes_back(plane: Plane) -> None:
    """A gang that cannot spare a pod leaves as a whole, waits, and runs again when the other is gone."""
    await filled(plane, 2, 2)
    await plane.apply(wanted("t", HIGH, 1), uid="high-uid")
    await until_runs(plane, "t", 1)
    assert [pod.node for pod in of_set(plane, "s")] == ["", ""]
    victim = plane.one(PodGang, "s-0")
    target = find_condition(victim.status.conditions, "DisruptionTarget")
    assert target is not None
    assert (target.status, target.reason, target.message) == ("True", "Preempted", "its places go to gang default/t-0")
    await plane.put(replace(plane.one(PodCliqueSet, "t"), metadata=_deleted(plane.one(PodCliqueSet, "t"), plane)))
    await until_runs(plane, "s", 2)
    target = find_condition(plane.one(PodGang, "s-0").status.conditions, "DisruptionTarget")
    assert target is not None
    assert target.status == "False"
    await plane.until(lambda: "Preempted" in events(plane, "s-0"), "that it left is told")
    await plane.until_quiet()
    assert "WaitingForPods" not in events(plane, "s-0")


def _deleted(resource: PodCliqueSet, plane: Plane) -> Metadata:
    return replace(resource.metadata, deleted_at=plane.clock.now())


@pytest.mark.parametrize("priority", [LOW, NEVER])
async def test_equal_priority_and_never_displace_nobody(plane: Plane, priority: str) -> None:
    """A gang of the same priority waits, and so does one of a class that never preempts."""
    await filled(plane, 2, 2)
    before = {pod.metadata.uid for pod in plane.pods()}
    await plane.apply(wanted("t", priority, 1), uid="other-uid")
    await plane.until(lambda: reason(plane, "t-0") == "InsufficientCapacity", "it waits")
    await plane.until_quiet()
    assert {pod.metadata.uid for pod in of_set(plane, "s")} == before
    assert all(pod.node for pod in of_set(plane, "s"))


async def test_victims_drain_first_and_their_places_are_kept(plane: Plane) -> None:
    """While routers still use the victims the gang waits for exactly their places; nobody else gets them."""
    await filled(plane, 2, 2)
    await with_router(plane)
    await plane.apply(wanted("t", HIGH, 2), uid="high-uid")
    await plane.until(lambda: reason(plane, "t-0") == WAITING_FOR_VICTIMS, "it waits for others to leave")
    draining = [pod for pod in plane.all(Pod) if pod.is_draining]
    assert {pod.stop_reason for pod in draining} == {StopReason.PREEMPTED}
    nomination = plane.one(PodGang, "t-0").status.nomination
    assert nomination is not None
    assert {place.node for place in nomination.places} == {pod.node for pod in draining} == {"n0", "n1"}
    await plane.put(worker(2))
    await plane.until_quiet()
    await acknowledge(plane)
    await until_runs(plane, "t", 2)
    assert {pod.node for pod in of_set(plane, "t")} == {"n0", "n1"}
    assert plane.one(PodGang, "t-0").status.nomination is None
    assert [pod.node for pod in of_set(plane, "s")] == ["", ""]


async def test_a_restart_goes_on_with_a_preemption(plane: Plane) -> None:
    """Places that were kept before a restart are kept after it, and only those who left already have to leave."""
    await filled(plane, 3, 3, 1)
    await with_router(plane)
    await plane.apply(wanted("t", HIGH, 1), uid="high-uid")
    await plane.until(lambda: reason(plane, "t-0") == WAITING_FOR_VICTIMS, "it waits for others to leave")
    [leaving] = [pod for pod in plane.all(Pod) if pod.is_draining]
    await plane.restart()
    await plane.until_quiet()
    assert gang_key("t-0") in list(plane.control.placement.room.nominations)
    await acknowledge(plane)
    await until_runs(plane, "t", 1)
    assert [pod.node for pod in of_set(plane, "t")] == [leaving.node]
    assert sum(1 for pod in of_set(plane, "s") if pod.node) == 2


async def test_nothing_is_kept_again_for_a_gang_without_all_its_pods(plane: Plane) -> None:
    """A start meets gangs whose pods are not made anew yet: their places are not asked for, and the start goes on."""
    await filled(plane, 2, 2)
    await with_router(plane)
    await plane.apply(wanted("t", HIGH, 1), uid="high-uid")
    await plane.until(lambda: reason(plane, "t-0") == WAITING_FOR_VICTIMS, "it waits for others to leave")
    gang, room = plane.one(PodGang, "t-0"), plane.control.placement.room
    room.nominations.withdraw(gang_key("t-0"))
    room.restore(replace(gang, pod_groups=(*gang.pod_groups, PodGroup(name="t-0-z", min_replicas=1))))
    assert not room.nominations
    room.restore(gang)
    assert list(room.nominations) == [gang_key("t-0")]


async def test_a_promise_on_a_lost_node_is_made_anew(plane: Plane) -> None:
    """When the node of a kept place goes, the gang finds another, and no more leave than have to."""
    await filled(plane, 3, 3, 1)
    await with_router(plane)
    await plane.apply(wanted("t", HIGH, 1), uid="high-uid")
    await plane.until(lambda: reason(plane, "t-0") == WAITING_FOR_VICTIMS, "it waits for others to leave")
    [leaving] = [pod for pod in plane.all(Pod) if pod.is_draining]
    await plane.remove(plane.one(Node, leaving.node))
    await plane.until(
        lambda: any(pod.is_draining and pod.node != leaving.node for pod in plane.all(Pod)), "another one leaves"
    )
    await acknowledge(plane)
    await until_runs(plane, "t", 1)
    assert of_set(plane, "t")[0].node not in ("", leaving.node)


async def test_a_preemptor_that_goes_gives_its_places_back(plane: Plane) -> None:
    """When the gang is deleted while its victims drain, their successors get the places."""
    await filled(plane, 2, 2)
    await with_router(plane)
    await plane.apply(wanted("t", HIGH, 2), uid="high-uid")
    await plane.until(lambda: reason(plane, "t-0") == WAITING_FOR_VICTIMS, "it waits for others to leave")
    await plane.delete_set("t")
    await plane.until(lambda: plane.get(PodCliqueSet, "t") is None, "it is gone")
    await acknowledge(plane)
    await until_runs(plane, "s", 2)
    assert not plane.control.placement.room.nominations
    await plane.delete_set("s")
    await plane.until(lambda: sum(pod.is_draining for pod in plane.all(Pod)) == 2, "its pods drain")
    await acknowledge(plane)
    await plane.until(lambda: plane.get(PodCliqueSet, "s") is None, "the set is gone")
    await plane.until_quiet()
    plane.check_nothing_is_left()


async def test_many_equal_gangs_ask_once(plane: Plane) -> None:
    """Gangs that ask for the same and find nobody to displace share one answer."""
    await filled(plane, 1, 1)
    plane_of: list[Notice] = []
    plane.store.subscribe(plane_of.extend)
    await plane.apply(manifest([clique("a", 3)], name="t", replicas=30, priorityClassName=HIGH), uid="high-uid")
    await plane.until(lambda: len(plane.control.placement.desk.waiting) == 30, "all wait")
    await plane.until_quiet()
    assert len(plane.control.placement.room.evictions._answers) == 1
    assert [pod.node for pod in of_set(plane, "s")] == ["n0"]


async def test_higher_priority_is_placed_first(plane: Plane) -> None:
    """Of gangs that wait together the one of higher priority gets the room, though its set is younger."""
    await plane.put(*classes(), worker(0, unschedulable=True))
    await plane.apply(wanted("s", LOW, 1), uid="low-uid")
    await plane.apply(wanted("t", HIGH, 1), uid="high-uid")
    await plane.until(lambda: len(plane.control.placement.desk.waiting) == 2, "both wait")
    await plane.set_nodes("n0", unschedulable=False)
    await until_runs(plane, "t", 1)
    assert [pod.node for pod in of_set(plane, "s")] == [""]
