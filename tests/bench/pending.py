"""What waiting gangs cost: 10,000 of them, in memory and in a whole server.

In memory: 100 different requests on a full cluster of 5,000 nodes. In the server: one set of 10,000 copies that lack a
GPU, which share one record.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import suppress

from grove_server.app import Server
from grove_server.placement import GPU_RESOURCE, CliqueRequest, Cluster, PodBinding, PodShape, Verdict, place
from grove_server.placement.wake_ups import WakeUps
from grove_server.resources.cluster import Node
from grove_server.resources.meta import Metadata
from grove_server.resources.workload import PodGang
from grove_server.store.interface import Put
from tests.bench.figures import Figure, Target, figure
from tests.bench.hosted import apply, hosted, manifest
from tests.bench.placement import ONE_GPU, TOPOLOGY, gang, millis_of, percentile, tree_cluster
from tests.waiting import until

PENDING = 10_000
_IDLE_S = 4.0
_EVENTS = 20


def run() -> Iterator[Figure]:
    """Measure both."""
    yield from _in_memory()
    yield from asyncio.run(_in_a_server())


def _full_cluster() -> tuple[Cluster, WakeUps[int]]:
    cluster = tree_cluster(2, 5, 10, 50, used=1.0)
    wake_ups: WakeUps[int] = WakeUps(cluster)
    for key in range(PENDING):
        shape = PodShape(requests=(("cpu", 1_000 + 100 * (key % 10)), (GPU_RESOURCE, 1)))
        clique = CliqueRequest(name="worker", shape=shape, minimum=1 + key // 10 % 10)
        request = gang(clique, required=TOPOLOGY[2])
        verdict = wake_ups.known(request) or place(cluster, request)
        assert isinstance(verdict, Verdict)
        wake_ups.file(key, [(request, verdict)], order=(key,))
    return cluster, wake_ups


def _in_memory() -> Iterator[Figure]:
    """Release one pod after the other, on nodes far from each other, and see who wakes."""
    cluster, wake_ups = _full_cluster()
    looked_at = cluster.generation
    woken = 0
    times = []
    for index in range(_EVENTS):
        cluster.release_pods([(ONE_GPU, [PodBinding(f"node-{index * 249:06}", (0,))])])
        start = time.perf_counter()
        found = wake_ups.woken(looked_at)
        times.append(1_000 * (time.perf_counter() - start))
        looked_at = cluster.generation
        woken = max(woken, len(found))
        cluster.bind_pod(f"node-{index * 249:06}", ONE_GPU, (0,))
    quiet = millis_of(lambda: cluster.capacity_grew_since(looked_at), 100)
    yield figure("place.pending10k", percentile(times, 50), "ms p50", better="lower", target=Target(bound=2))
    yield figure("place.pending10k.woken", woken, "gangs/release", better="lower", target=Target(bound=10))
    yield figure("place.pending10k.quiet", 1_000 * percentile(quiet, 50), "µs/event", better="lower")


async def _in_a_server() -> list[Figure]:
    async with hosted() as server:
        without = await _idle_cpu_percent()
        document = manifest("waiting", copies=PENDING, pods=1)
        container = document["spec"]["template"]["cliques"][0]["spec"]["podSpec"]["containers"][0]
        container["resources"] = {"limits": {GPU_RESOURCE: "1"}}
        await apply(server, [document])
        await until(lambda: _waiting(server) == PENDING, "all gangs wait", within_s=300)
        await until(lambda: server.plane.is_idle, "nothing is left to decide", within_s=300)
        idle = await _idle_cpu_percent()
        times = []
        for index in range(_EVENTS):
            cpu_s = time.process_time()
            await server.store.commit([Put(_node(index))], cause="bench")
            await until(lambda: _waiting(server) == PENDING - index - 1, "one gang runs", within_s=60)  # noqa: B023 -- awaited at once
            await until(lambda: server.plane.is_idle, "nothing is left to decide", within_s=60)
            times.append(1_000 * (time.process_time() - cpu_s))
    return [
        figure("place.pending10k.idle", idle, "% of a core", better="lower", baseline=without),
        figure(
            "place.pending10k.served", percentile(times, 50), "ms CPU/node", better="lower", target=Target(bound=50)
        ),
    ]


async def _idle_cpu_percent() -> float:
    """Return how much of a core the process uses while nothing changes."""
    cpu_s = time.process_time()
    with suppress(TimeoutError):
        await asyncio.wait_for(asyncio.Event().wait(), _IDLE_S)  # Nothing happens: that is what is measured.
    return 100 * (time.process_time() - cpu_s) / _IDLE_S


def _waiting(server: Server) -> int:
    """Return how many gangs are known to wait for room."""
    assert server.store.read().count(PodGang.kind) <= PENDING
    return len(server.plane.placement.desk.wake_ups)


def _node(index: int) -> Node:
    return Node(
        metadata=Metadata(name=f"gpu-{index}", uid=f"gpu-{index}"),
        allocatable={"cpu": "8", "memory": "8Gi", "pods": "10", GPU_RESOURCE: "1"},
    )


if __name__ == "__main__":
    for each in run():
        print(each.name, round(each.value, 3), each.unit, each.target or "", each.met)
