"""Whole deployments through gRPC on a durable server process: deploy, memory, loop lag, delete, restart.

The client counts a set as deployed when its status says that all copies are available: its pods are all Ready then
(minAvailable equals replicas). The server's pods are fake and start without delay, so the figures are the control
plane's.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import grpc
import psutil

from grove.v1 import (
    pod_clique_set_pb2,
    pod_clique_set_pb2_grpc,
    pod_pb2,
    pod_pb2_grpc,
)
from tests.bench.figures import Figure, Target, figure
from tests.server import ServerProcess
from tests.tidy.sources import ROOT

CLUSTER: Final = """\
apiVersion: grove.io/v1alpha1
kind: NodePool
metadata: {name: bench}
spec:
  count: %d
  allocatable: {cpu: "128", memory: 2Ti, pods: "110"}
"""
_IN_FLIGHT: Final = 64
_DEADLINE_S: Final = 300.0


def manifest(name: str, *, copies: int, pods: int) -> pod_clique_set_pb2.PodCliqueSet:
    """Return a set of *copies* copies of one clique of *pods* pods, all of them needed."""
    found = pod_clique_set_pb2.PodCliqueSet(api_version="grove.io/v1alpha1", kind="PodCliqueSet")
    found.metadata.name = name
    found.metadata.namespace = "default"
    found.spec.replicas = copies
    clique = found.spec.template.cliques.add(name="worker")
    clique.spec.role_name = "worker"
    clique.spec.replicas = pods
    clique.spec.min_available = pods
    requests = {"cpu": "100m", "memory": "80Mi"}
    clique.spec.pod_spec.update(
        {"containers": [{"name": "main", "image": "bench", "resources": {"requests": requests}}]}
    )
    return found


async def wait_until(
    stub: pod_clique_set_pb2_grpc.PodCliqueSetServiceAsyncStub,
    is_done: Callable[[dict[str, pod_clique_set_pb2.PodCliqueSet]], bool],
) -> None:
    """Follow all sets until *is_done* says so of what is known of them by name."""
    known: dict[str, pod_clique_set_pb2.PodCliqueSet] = {}
    request = pod_clique_set_pb2.PodCliqueSetServiceWatchRequest(namespace="default")
    synced = False
    async for response in stub.Watch(request, timeout=_DEADLINE_S):
        if response.type == "SYNCED":
            synced = True
        elif response.type == "DELETED":
            known.pop(response.object.metadata.name, None)
        elif response.type in ("ADDED", "MODIFIED"):
            known[response.object.metadata.name] = response.object
        if synced and is_done(known):
            return


async def apply_all(
    stub: pod_clique_set_pb2_grpc.PodCliqueSetServiceAsyncStub, sets: Iterable[pod_clique_set_pb2.PodCliqueSet]
) -> None:
    """Apply *sets*, at most 64 at the same time."""
    gate = asyncio.Semaphore(_IN_FLIGHT)

    async def apply(item: pod_clique_set_pb2.PodCliqueSet) -> None:
        async with gate:
            request = pod_clique_set_pb2.PodCliqueSetServiceApplyRequest(pod_clique_set=item)
            await stub.Apply(request, timeout=60)

    await asyncio.gather(*(apply(item) for item in sets))


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096


def lag_buckets(url: str) -> dict[float, float]:
    """Return the cumulative buckets of the event-loop lag, by upper bound in seconds."""
    prefix = 'grove_event_loop_lag_seconds_bucket{le="'
    with urllib.request.urlopen(url, timeout=10) as page:  # noqa: S310 -- the URL is our own server's
        lines = page.read().decode().splitlines()
    found = (line[len(prefix) :].split('"} ') for line in lines if line.startswith(prefix))
    return {float(bound): float(count) for bound, count in found}


def quantile(before: dict[float, float], after: dict[float, float], share: float) -> float:
    """Return the upper bound of the bucket that holds the quantile of what came between two readings."""
    counts = {bound: after[bound] - before[bound] for bound in sorted(after)}
    total = max(counts.values())
    return next(bound for bound, count in counts.items() if count >= share * total)


@asynccontextmanager
async def server(
    *, nodes: int = 200
) -> AsyncIterator[tuple[ServerProcess, pod_clique_set_pb2_grpc.PodCliqueSetServiceAsyncStub]]:
    """Run a durable server with room for everything, and a channel to it."""
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=_scratch()))
    try:
        cluster = folder / "cluster.yaml"
        cluster.write_text(CLUSTER % nodes, encoding="utf-8")
        with ServerProcess(folder / "data", cluster=cluster) as process:
            async with grpc.aio.insecure_channel(process.address) as channel:
                yield process, pod_clique_set_pb2_grpc.PodCliqueSetServiceStub(channel)
    finally:
        shutil.rmtree(folder)


def _scratch() -> Path:
    # Not the system's temporary folder: that may be memory, and fsync would then be free.
    folder = ROOT / "build"
    folder.mkdir(exist_ok=True)
    return folder


async def _deploy(
    stub: pod_clique_set_pb2_grpc.PodCliqueSetServiceAsyncStub,
    sets: list[pod_clique_set_pb2.PodCliqueSet],
) -> float:
    """Apply *sets* and return the seconds until every pod is Ready."""
    copies = {item.metadata.name: item.spec.replicas for item in sets}
    done = asyncio.create_task(
        wait_until(
            stub,
            lambda known: (
                len(known) == len(copies)
                and all(item.status.available_replicas == copies[name] for name, item in known.items())
            ),
        )
    )
    started_s = time.perf_counter()
    await apply_all(stub, sets)
    await done
    return time.perf_counter() - started_s


async def _delete(stub: pod_clique_set_pb2_grpc.PodCliqueSetServiceAsyncStub, names: list[str]) -> float:
    """Delete the sets and return the seconds until nothing is left of them."""
    done = asyncio.create_task(wait_until(stub, lambda known: not known))
    started_s = time.perf_counter()
    for start in range(0, len(names), 50):
        request = pod_clique_set_pb2.PodCliqueSetServiceDeleteRequest(
            namespace="default", names=names[start : start + 50]
        )
        await stub.Delete(request, timeout=60)
    await done
    return time.perf_counter() - started_s


async def _ten_thousand() -> list[Figure]:
    sets = [manifest(f"set-{number}", copies=1, pods=100) for number in range(100)]
    pods = 10_000
    figures = []
    async with server() as (process, stub):
        idle_bytes = resident_bytes(process.pid)
        before = lag_buckets(process.metrics_url)
        deploy_s = await _deploy(stub, sets)
        after = lag_buckets(process.metrics_url)
        memory_kib = (resident_bytes(process.pid) - idle_bytes) / pods / 1024
        figures += [
            figure("deploy.10k", pods / deploy_s, "pods/s", better="higher", target=Target(bound=2_000)),
            figure("deploy.10k.mem", memory_kib, "KiB/pod", better="lower", target=Target(bound=8)),
            figure("loop.lag", quantile(before, after, 0.99) * 1000, "ms p99", better="lower", target=Target(bound=20)),
        ]
        figures.append(await _restart(process))
        async with grpc.aio.insecure_channel(process.address) as channel:
            again = pod_clique_set_pb2_grpc.PodCliqueSetServiceStub(channel)
            delete_s = await _delete(again, [item.metadata.name for item in sets])
        figures.append(figure("delete.10k", pods / delete_s, "pods/s", better="higher", target=Target(bound=4_000)))
    async with server() as (process, stub):
        one_s = await _deploy(stub, [manifest("one", copies=5_000, pods=2)])
        figures.append(
            figure(
                "deploy.oneset",
                pods / one_s,
                "pods/s",
                better="higher",
                baseline=pods / deploy_s,
                target=Target(bound=0.8, of="ratio"),
            )
        )
    return figures


async def _eighty_thousand() -> list[Figure]:
    """Restart with 80,000 pods in the store: wall and CPU until it serves."""
    sets = [manifest(f"set-{number}", copies=1, pods=100) for number in range(800)]
    async with server(nodes=1_000) as (process, stub):
        await _deploy(stub, sets)
        process.kill()
        started_s = time.perf_counter()
        process.start(within_s=_DEADLINE_S)
        ready_s = time.perf_counter() - started_s
        times = psutil.Process(process.pid).cpu_times()
    return [
        figure("restart.80k", ready_s, "s", better="lower"),
        figure("restart.80k.cpu", times.user + times.system, "s CPU", better="lower"),
    ]


def restart_80k() -> list[Figure]:
    """Measure how long a start takes with a large store."""
    return asyncio.run(_eighty_thousand())


async def _restart(process: ServerProcess) -> Figure:
    """Kill the server with 10,000 pods in the store and return how long a new one takes until it answers for them."""
    process.kill()
    started_s = time.perf_counter()
    process.start()
    async with grpc.aio.insecure_channel(process.address) as channel:
        answer = await pod_pb2_grpc.PodServiceStub(channel).List(
            pod_pb2.PodServiceListRequest(namespace="default", page_size=1), timeout=10
        )
    took_s = time.perf_counter() - started_s
    assert answer.items, "the pods are gone"
    return figure("restart.10k", took_s, "s", better="lower", target=Target(bound=2))


def run() -> list[Figure]:
    """Measure it all."""
    return asyncio.run(_ten_thousand())
