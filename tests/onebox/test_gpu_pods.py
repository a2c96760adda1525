"""Pods with GPUs on one machine: who sees which, and what happens when one is lost. The driver is a library of ours."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

import grove_client
from grove.v1.node_pb2 import Node
from grove.v1.pod_pb2 import Pod
from tests.onebox.box import FLAGS, Box, clique, condition, get, health_probe, tell_to_exit, worker
from tests.onebox.fake_nvml import FakeNvml, eight_gpus
from tests.server import ServerProcess
from tests.waiting import until_seen

pytestmark = pytest.mark.native


@pytest_asyncio.fixture
async def nvml(tmp_path: Path) -> FakeNvml:
    """Return eight GPUs in two islands."""
    folder = tmp_path / "nvml"
    folder.mkdir()
    return FakeNvml(folder, eight_gpus())


@pytest_asyncio.fixture
async def gpu_box(tmp_path: Path, nvml: FakeNvml) -> AsyncIterator[Box]:
    """Run a server on a machine with these GPUs."""
    flags = (*FLAGS, "--pods-on-exit", "stop", "--pods-exit-grace-s", "1")
    process = ServerProcess(tmp_path / "data", flags=flags, environment=nvml.environment)
    await asyncio.to_thread(process.start)
    try:
        async with grove_client.connect(process.address) as grove:
            yield Box(server=process, grove=grove, namespace="gpus")
    finally:
        await asyncio.to_thread(process.stop)


def gpu_worker(journal_path: Path, gpus: int) -> dict[str, Any]:
    """Return a worker with so many GPUs."""
    container = {"readinessProbe": health_probe(), "resources": {"limits": {"nvidia.com/gpu": str(gpus)}}}
    return worker(journal_path, container=container)


async def the_node(box: Box) -> Node:
    """Return the node."""
    nodes = [node async for node in box.grove.nodes.list()]
    assert len(nodes) == 1
    return nodes[0]


async def visible(pod: Pod) -> list[str]:
    """Return the GPUs that a worker sees."""
    found: str = json.loads((await get(pod, "/environment"))[1])["CUDA_VISIBLE_DEVICES"]
    return found.split(",") if found else []


async def test_pods_are_pinned_to_gpus_of_one_island(gpu_box: Box, journal_path: Path) -> None:
    """Each pod sees its own GPUs by UUID, all of one island, and a pod without GPUs sees none."""
    node = await the_node(gpu_box)
    assert node.status.allocatable["nvidia.com/gpu"] == "8"
    assert node.metadata.labels["nvidia.com/gpu.product"] == "NVIDIA-H100-80GB-HBM3"
    none = worker(journal_path, container={"readinessProbe": health_probe()})
    await gpu_box.apply(
        "pinned", clique("worker", gpu_worker(journal_path, 4), replicas=2), clique("router", none, replicas=1)
    )
    pods = await gpu_box.ready(3)
    seen = sorted([await visible(pod) for pod in pods])
    assert seen == [[], [f"GPU-{number}" for number in range(4)], [f"GPU-{number}" for number in range(4, 8)]]


async def test_a_lost_gpu_goes_and_its_pod_is_replaced(gpu_box: Box, nvml: FakeNvml, journal_path: Path) -> None:
    """A lost GPU is no longer offered, with a condition; its pod, once its process ends, makes room for another one."""
    await gpu_box.apply("lost", clique("worker", gpu_worker(journal_path, 4)))
    pods = await gpu_box.ready(1)
    lost = (await visible(pods[0]))[1]
    nvml.set_state(lost, "lost")
    node = await until_seen(
        lambda: the_node(gpu_box),
        lambda node: node.status.allocatable["nvidia.com/gpu"] == "7",
        lambda node: f"seven GPUs are offered, seen {node.status}",
    )
    assert node.status.capacity["nvidia.com/gpu"] == "8"
    states = {each.type: (each.status, each.message) for each in node.status.conditions}
    assert states["GpusInService"][0] == "False"
    assert lost in states["GpusInService"][1]
    told = await gpu_box.see(lambda pods: condition(pods[0], "GpusInService")[0] == "False", "the pod says so")
    assert told[0].metadata.uid == pods[0].metadata.uid
    await tell_to_exit(pods[0], 1)
    after = await gpu_box.see(
        lambda found: (
            len(found) == 1
            and found[0].metadata.uid != pods[0].metadata.uid
            and condition(found[0], "Ready")[0] == "True"
        ),
        "another pod runs",
    )
    assert lost not in await visible(after[0])
    await gpu_box.event("GpuOutOfService", "GPU")
