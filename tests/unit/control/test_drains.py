"""Drains in the running loops: who stops a pod, and when, while routers come, answer, fall silent and go."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from grove_server.control.routers import LEASE_S
from grove_server.lifecycle.removal import StopReason
from grove_server.resources.cluster import Event
from grove_server.resources.labels import DRAIN_TIMEOUT
from grove_server.resources.meta import Kind
from grove_server.resources.workload import Pod, PodCliqueSet
from grove_server.store.interface import Put
from grove_server.telemetry import metrics
from tests.lifecycle_cases import clique, group, manifest
from tests.planes import Plane, worker

SET = manifest([clique("a", 3, 1), clique("b", 1)], [group("g", ["b"], 2, 1)], replicas=2)


def draining(plane: Plane) -> list[Pod]:
    """Return the pods that drain."""
    return [pod for pod in plane.all(Pod) if pod.is_draining and not pod.is_terminating]


async def served(plane: Plane, *routers: str) -> None:
    """Run the set behind routers."""
    await plane.put(*(worker(i, pods=10) for i in range(2)))
    for router in routers:
        await plane.control.routers.renew("default", "s", router)
    await plane.apply(SET)
    await plane.until_ready(10)
    await plane.until_quiet()


async def acknowledge(plane: Plane, router: str) -> None:
    """Let a router leave all draining pods."""
    await plane.put(*(replace(pod, drain_acks=(*pod.drain_acks, router)) for pod in draining(plane)))


async def shrink_clique(plane: Plane) -> None:
    """Take one pod away."""
    await plane.scale_clique("s-0-a", 2)


async def shrink_group(plane: Plane) -> None:
    """Take one group replica away."""
    await plane.scale_group("s-1-g", 1)


async def shrink_set(plane: Plane) -> None:
    """Take one copy away."""
    await plane.apply(SET | {"spec": SET["spec"] | {"replicas": 1}})


@pytest.mark.parametrize(
    ("act", "count"), [(shrink_clique, 1), (shrink_group, 1), (shrink_set, 5), (Plane.delete_set, 10)]
)
async def test_whatever_takes_pods_away_drains_them(
    plane: Plane, act: Callable[[Plane], Awaitable[None]], count: int
) -> None:
    """Scaling in at every level and deleting the set announce each pod, and stop it when the router has left it."""
    await served(plane, "r1")
    await act(plane)
    await plane.until(lambda: len(draining(plane)) == count, f"{count} pods drain")
    await plane.until_quiet()
    assert len(plane.all(Pod)) == 10
    assert {pod.stop_reason for pod in draining(plane)} == {StopReason.SCALE_IN}
    await acknowledge(plane, "r1")
    await plane.until(lambda: len(plane.all(Pod)) == 10 - count, "they are gone")


async def test_a_silent_router_delays_until_the_set_s_own_deadline(plane: Plane) -> None:
    """The set's annotation says how long its pods wait for a router that watches and never answers."""
    await served(plane, "r1")
    owner = plane.one(PodCliqueSet, "s")
    await plane.put(replace(owner, metadata=replace(owner.metadata, annotations={DRAIN_TIMEOUT: "2m"})))
    with plane.control.routers.watching("default", "s", "r1"):
        await plane.scale_clique("s-0-a", 2)
        await plane.until(lambda: len(draining(plane)) == 1, "a pod drains")
        for _ in range(7):
            plane.clock.advance(LEASE_S)
            await plane.until_quiet()
            assert len(draining(plane)) == 1
        plane.clock.advance(LEASE_S)
        await plane.until(lambda: len(plane.all(Pod)) == 9, "the deadline stops it")


async def test_a_router_that_dies_or_leaves_ends_the_drain(plane: Plane) -> None:
    """Of two routers one leaves and the other's lease runs out: then nobody is waited for any more."""
    await served(plane, "dies", "leaves")
    await plane.scale_clique("s-0-a", 2)
    await plane.until(lambda: len(draining(plane)) == 1, "a pod drains")
    await acknowledge(plane, "dies")
    await plane.until_quiet()
    assert len(draining(plane)) == 1
    await plane.control.routers.end("default", "s", "leaves")
    await plane.until(lambda: len(plane.all(Pod)) == 9, "the last answer that was missing is not needed")
    await plane.scale_clique("s-0-a", 1)
    await plane.until(lambda: len(draining(plane)) == 1, "another one drains")
    plane.clock.advance(LEASE_S)
    await plane.until(lambda: len(plane.all(Pod)) == 8, "a dead router is not waited for")


async def test_a_restart_in_the_middle_of_a_drain(plane: Plane) -> None:
    """The drain goes on: it still waits for the router, whose lease is whole again, and ends with its answer."""
    await served(plane, "r1")
    await plane.scale_clique("s-0-a", 2)
    await plane.until(lambda: len(draining(plane)) == 1, "a pod drains")
    plane.clock.advance(LEASE_S * 0.9)
    (before,) = draining(plane)
    await plane.restart()
    plane.clock.advance(LEASE_S * 0.5)
    await plane.until_quiet()
    (after,) = draining(plane)
    assert (after.metadata.uid, after.drain_deadline) == (before.metadata.uid, before.drain_deadline)
    await acknowledge(plane, "r1")
    await plane.until(lambda: len(plane.all(Pod)) == 9, "it is gone")


async def test_a_deadline_that_passes_while_the_server_is_away(plane: Plane) -> None:
    """A drain whose deadline passed meanwhile ends at the start."""
    await served(plane, "r1")
    await plane.scale_clique("s-0-a", 2)
    await plane.until(lambda: len(draining(plane)) == 1, "a pod drains")
    await plane.stop()
    plane.clock.advance(3_600.0)
    await plane.start()
    await plane.until(lambda: len(plane.all(Pod)) == 9, "it is gone")


async def test_a_plan_that_loses_its_race_counts_nothing(plane: Plane) -> None:
    """Ends of drains, stops and actions are counted, and told as events, when they are committed, not when planned."""
    await served(plane, "r1")
    await plane.scale_clique("s-0-a", 2)
    await plane.until(lambda: len(draining(plane)) == 1, "a pod drains")
    await plane.until_quiet()

    def counted() -> tuple[float | None, ...]:
        read = metrics.REGISTRY.get_sample_value
        return (
            read("grove_drains_total", {"outcome": "deadline"}),
            read("grove_drain_seconds_count"),
            read("grove_pods_stopped_total", {"reason": "ScaleIn"}),
            read("grove_plan_rejected_total", {"cause": "conflict"}),
        )

    before = counted()
    with plane.control.routers.watching("default", "s", "r1"):
        plane.journal.hold()
        (pod,) = draining(plane)
        rival = plane.store.commit_soon([Put(replace(pod, restart_count=7))], cause="test")
        plane.clock.advance(40.0)
        sets = plane.control.workload.book.sets
        await plane.until(lambda: any(s.plans_in_flight for s in sets.values()), "the plan that loses is decided")
        plane.journal.release()
        await rival
        await plane.until(lambda: len(plane.all(Pod)) == 9, "it is gone")
    await plane.until_quiet()
    assert [after - (was or 0) for after, was in zip(counted(), before, strict=True) if after is not None] == [1] * 4
    await plane.until(lambda: any(e.reason == "DrainDeadlinePassed" for e in plane.all(Event)), "the event is written")
    assert [(e.reason, e.count) for e in plane.all(Event) if e.involved_kind is Kind.POD] == [
        ("DrainDeadlinePassed", 1)
    ]
