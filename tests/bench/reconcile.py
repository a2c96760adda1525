"""What it costs the event loop to look at a set of 1,000 pods, and at one event in it.

Figures are processor time of the loop's thread for everything that the server does about it: reading, planning,
committing, telling watchers and listeners, the set's status. Waiting for the disk is not in them.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from grove_server.app import Server
from grove_server.control.clock import SystemClock
from grove_server.control.workkeys import WorkKey, set_key
from grove_server.resources.workload import Pod, PodCliqueSet
from grove_server.store.interface import Applied, Put
from tests.bench.figures import Figure, Target, figure
from tests.bench.hosted import NAMESPACE, Json, apply, hosted, manifest, until_available
from tests.waiting import until

_ROUNDS: Final = 50
_SOON_S: Final = 5.0
_RECONCILE_MS_MAX: Final = 20.0
_EVENT_MS_MAX: Final = 2.0


def grouped(name: str) -> Json:
    """Return a set of 10 copies of 100 pods: a router, two prefill replicas of 16 pods, four of decode with 16."""
    found = manifest(name, copies=10, pods=4)
    (router,) = found["spec"]["template"]["cliques"]
    cliques = [{**router, "name": "router"}]
    groups = []
    for role, replicas in (("prefill", 2), ("decode", 4)):
        for member, pods in (("leader", 1), ("worker", 15)):
            spec = {**router["spec"], "roleName": f"{role}-{member}", "replicas": pods, "minAvailable": pods}
            cliques.append({"name": f"{role}-{member}", "spec": spec})
        names = [f"{role}-leader", f"{role}-worker"]
        groups.append({"name": role, "cliqueNames": names, "replicas": replicas, "minAvailable": 1})
    found["spec"]["template"] = {"cliques": cliques, "podCliqueScalingGroups": groups}
    return found


async def _quiet(server: Server) -> None:
    """Return when nothing is left to do, nor will be soon; timers that are hours away, or over, do not count."""
    clock = SystemClock()

    def is_quiet() -> bool:
        plane = server.plane
        due_at = plane.workload.book.queue.next_due_at()
        return (
            plane.is_idle
            and (due_at is None or due_at > clock.steady() + _SOON_S)
            and not server.store.health().queued_changes
            and not server.runtime.health().backlog_count
        )

    await until(is_quiet, "nothing happens any more")


async def _cost_s(server: Server, disturb: Callable[[], None]) -> float:
    """Return the seconds that the loop's thread works because of *disturb*, without what it does while idle."""
    await _quiet(server)
    idle_s = time.thread_time()
    await _quiet(server)
    idle_s = time.thread_time() - idle_s
    began_s = time.thread_time()
    disturb()
    await _quiet(server)
    return max(0.0, time.thread_time() - began_s - idle_s)


async def _reconcile_ms(server: Server) -> float:
    """Return how long a look at every copy of the set and at the set takes when nothing has to change."""
    (owner,) = server.store.read().list(PodCliqueSet)
    key = set_key(owner)

    def look_at_everything() -> None:
        book = server.plane.workload.book
        for copy in range(owner.spec.replicas or 0):
            book.queue.add(WorkKey(key.namespace, key.set_name, key.set_uid, copy))
        book.queue.add(key)
        book.wake.set()

    return statistics.median([await _cost_s(server, look_at_everything) for _ in range(_ROUNDS)]) * 1_000


def _one_event(server: Server) -> Callable[[], None]:
    """Return a change of one pod: it stops to serve, or serves again."""
    (name,) = (pod.metadata.name for pod in server.store.read().list(Pod) if pod.index == 0 and pod.identity.copy == 0)

    def change() -> None:
        pod = server.store.read().get(Pod, NAMESPACE, name)
        assert pod is not None
        now = time.time()
        fields = {"ready_at": None, "unready_at": now} if pod.is_ready else {"ready_at": now}
        future = server.store.commit_soon([Put(replace(pod, **fields), pod.resource_version)], cause="runtime")
        future.add_done_callback(lambda done: done.result())

    return change


async def _burst_s(server: Server) -> float:
    """Return the cost of one event when all pods have one at the same time, each in a commit of its own."""
    pods = [*server.store.read().list(Pod)]
    futures = []

    def change_all() -> None:
        now = time.time()
        for pod in pods:
            changed = replace(pod, ready_at=now + 1.0)
            futures.append(server.store.commit_soon([Put(changed, pod.resource_version)], cause="runtime"))

    cost_s = await _cost_s(server, change_all)
    assert all(isinstance(outcome, Applied) for future in futures for outcome in future.result())
    return cost_s / len(pods)


async def _all() -> list[Figure]:
    figures = []
    async with hosted() as server:
        await apply(server, [manifest("one", copies=1, pods=1_000)])
        await until_available(server)
        target = Target(bound=_RECONCILE_MS_MAX)
        figures.append(
            figure("life.reconcile1000", await _reconcile_ms(server), "ms p50", better="lower", target=target)
        )
        events = [await _cost_s(server, _one_event(server)) for _ in range(_ROUNDS)]
        burst = [await _burst_s(server) for _ in range(5)]
        figures += [
            figure(
                "life.event1000",
                statistics.median(burst) * 1_000,
                "ms/event",
                better="lower",
                target=Target(bound=_EVENT_MS_MAX),
            ),
            figure("life.event1000.alone", statistics.median(events) * 1_000, "ms p50", better="lower"),
        ]
    async with hosted() as server:
        await apply(server, [grouped("groups")])
        await until_available(server)
        figures.append(
            figure("life.reconcile1000.groups", await _reconcile_ms(server), "ms p50", better="lower", target=target)
        )
    return figures


def run() -> list[Figure]:
    """Measure a copy of 1,000 pods, and 10 copies of 100 pods in groups."""
    return asyncio.run(_all())
