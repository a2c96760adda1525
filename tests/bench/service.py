"""Placement as a service: small gangs through gRPC with durable commits, and what a restart has to rebuild.

`place.service`: sets of one copy of three pods, applied to a server process with 5,000 nodes, 64 calls in flight, from
the first call until a watch said of every gang that its pods have nodes: admission, expansion, the decision and three
durable commits each. The pods take an hour to start, because starting them is not placement's. `.cpu` is by the CPU
time of the server alone, which is what a machine with cores to spare would come to. The best of some rounds counts.

`place.restart` is placement's part of a start: taking over 10,000 nodes and 80,000 bound pods, GPUs by id, until the
first decision is made.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import grpc
import psutil

from grove.v1 import pod_clique_set_pb2, pod_clique_set_pb2_grpc, pod_gang_pb2, pod_gang_pb2_grpc
from grove_server.control.decisions import Holding, Holdings
from grove_server.control.work_book import PATIENCE_S
from grove_server.placement import CliqueRequest, Cluster, Placement, place
from grove_server.resources.cluster import Node
from grove_server.resources.meta import Key, Kind, Metadata
from tests.bench.deploy import apply_all, manifest
from tests.bench.figures import Figure, Target, figure
from tests.bench.placement import ONE_GPU, TOPOLOGY, gang
from tests.server import ServerProcess
from tests.tidy.sources import ROOT
from tests.waiting import until

NODES: Final = """\
apiVersion: grove.io/v1alpha1
kind: NodePool
metadata: {name: bench}
spec:
  count: 5000
  allocatable: {cpu: "128", memory: 2Ti, pods: "110", nvidia.com/gpu: "8"}
"""
_GANGS: Final = 2_000
_ROUNDS: Final = 3
_MARGIN_S: Final = 0.3


def run() -> Iterator[Figure]:
    """Measure both."""
    yield from asyncio.run(_service())
    yield figure("place.restart", _rebuild_s(), "s CPU", better="lower", target=Target(bound=2))


async def _service() -> list[Figure]:
    # Not the system's temporary folder: that may be memory, and fsync would then be free.
    (ROOT / "build").mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=ROOT / "build"))
    try:
        cluster = folder / "cluster.yaml"
        cluster.write_text(NODES, encoding="utf-8")
        with ServerProcess(folder / "data", cluster=cluster) as process:
            async with grpc.aio.insecure_channel(process.address) as channel:
                server = psutil.Process(process.pid)
                rates, cpu_rates = [], []
                for number in range(_ROUNDS):
                    before_s = _cpu_s(server)
                    rates.append(_GANGS / await _deploy_s(channel, f"round-{number}"))
                    await _until_told(process.data_dir)
                    cpu_rates.append(_GANGS / (_cpu_s(server) - before_s))
    finally:
        shutil.rmtree(folder)
    return [
        figure("place.service", max(rates), "gangs/s", better="higher", target=Target(bound=500)),
        figure("place.service.cpu", max(cpu_rates), "gangs/s of CPU", better="higher", target=Target(bound=500)),
    ]


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


async def _deploy_s(channel: grpc.aio.Channel, prefix: str) -> float:
    """Apply one round of gangs and return the seconds until all of them have places."""
    stub = pod_clique_set_pb2_grpc.PodCliqueSetServiceStub(channel)
    gangs = pod_gang_pb2_grpc.PodGangServiceStub(channel)
    names = [f"{prefix}-{number}" for number in range(_GANGS)]
    done = asyncio.create_task(_until_placed(gangs, {f"{name}-0" for name in names}))
    started_s = time.perf_counter()
    await apply_all(stub, map(_slow, names))
    await done
    return time.perf_counter() - started_s


async def _until_placed(stub: pod_gang_pb2_grpc.PodGangServiceAsyncStub, missing: set[str]) -> None:
    async for response in stub.Watch(pod_gang_pb2.PodGangServiceWatchRequest(namespace="default"), timeout=300):
        if response.object.status.scheduled_at:
            missing.discard(response.object.metadata.name)
            if not missing:
                return


async def _until_told(data_dir: Path) -> None:
    """Return when the server has written nothing for longer than any status waits."""

    def is_told() -> bool:
        written_at = max(path.stat().st_mtime for path in data_dir.iterdir())
        return time.time() - written_at > PATIENCE_S + _MARGIN_S

    await until(is_told, "everything is told", within_s=120)


def _slow(name: str) -> pod_clique_set_pb2.PodCliqueSet:
    found = manifest(name, copies=1, pods=3)
    found.spec.template.cliques[0].annotations["fake.grove.io/start-delay"] = "1h"
    return found


def _rebuild_s() -> float:
    """Take over nodes and pods as a start does; the least of some rounds."""
    nodes: dict[str, Node | None] = {f"node-{index:05}": _node(index) for index in range(10_000)}
    pods = [
        (Key(Kind.POD, "default", f"pod-{index}"), Holding(f"node-{index // 8:05}", ONE_GPU, (index % 8,)))
        for index in range(80_000)
    ]
    least = float("inf")
    for _ in range(_ROUNDS):
        start = time.process_time()
        holdings = Holdings(Cluster())
        assert holdings.set_nodes(nodes) == {}
        for key, holding in pods:
            assert holdings.adopt(key, holding)
        holdings.release([pods[0][0]])
        decision = place(holdings.cluster, gang(CliqueRequest(name="worker", shape=ONE_GPU, minimum=1)))
        assert isinstance(decision, Placement)
        least = min(least, time.process_time() - start)
    return least


def _node(index: int) -> Node:
    name = f"node-{index:05}"
    labels = (f"z{index // 2_500}", f"b{index // 320}", f"r{index // 20}", name)
    return Node(
        metadata=Metadata(name=name, uid=name, labels=dict(zip(TOPOLOGY, labels, strict=True))),
        allocatable={"cpu": "128", "memory": "1Ti", "pods": "110", "nvidia.com/gpu": "8"},
    )


if __name__ == "__main__":
    for each in run():
        print(each.name, round(each.value, 3), each.unit, each.target or "", each.met)
