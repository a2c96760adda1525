"""Pods on the GPUs of this machine, with the real driver: `make test-gpu`, on a machine that has some.

What a pod may use is not only what its environment says: its process asks the CUDA driver itself, through ctypes, so
that nothing has to be installed but the driver.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio

import grove_client
from grove.v1.pod_pb2 import Pod
from grove_server.runtime.process.gpus import GpuRoster, GpuWatch
from grove_server.runtime.process.nvml import Nvml, NvmlAbsentError
from tests.onebox.box import FLAGS, Box, clique
from tests.server import ServerProcess
from tests.waiting import until_seen

pytestmark = pytest.mark.gpu

# Makes a context on each GPU that it sees, writes down their UUIDs, and stays.
CUDA_PROGRAM: Final = """
import ctypes, json, os, signal, sys
cuda, count = ctypes.CDLL("libcuda.so.1"), ctypes.c_int()
def call(name, *arguments):
    code = getattr(cuda, name)(*arguments)
    if code and not (name == "cuInit" and code == 100):
        sys.exit(f"{name}: {code}")
    return code
uuids = []
if call("cuInit", 0) == 0:
    call("cuDeviceGetCount", ctypes.byref(count))
for number in range(count.value):
    device, uuid, context = ctypes.c_int(), (ctypes.c_ubyte * 16)(), ctypes.c_void_p()
    call("cuDeviceGet", ctypes.byref(device), number)
    call("cuDeviceGetUuid", ctypes.byref(uuid), device)
    call("cuCtxCreate_v2", ctypes.byref(context), 0, device)
    text = bytes(uuid).hex()
    uuids.append("GPU-" + "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:])))
with open(sys.argv[1] + ".new", "w") as file:
    json.dump(uuids, file)
os.replace(sys.argv[1] + ".new", sys.argv[1])
signal.pause()
"""


@pytest.fixture(autouse=True, scope="module")
def driver() -> None:
    """Fail, rather than skip, on a machine without a GPU."""
    try:
        library = Nvml()
    except NvmlAbsentError as error:
        pytest.fail(f"these tests need a machine with an NVIDIA GPU and its driver: {error}", pytrace=False)
    library.close()


@pytest_asyncio.fixture
async def roster() -> GpuRoster:
    """Return the GPUs of this machine."""
    watch = GpuWatch()
    found = await watch.start(())
    await watch.stop()
    assert found.gpus, "the driver knows no GPU"
    assert found.broken_ids == (), f"these tests need GPUs that are in service, not {found.gpus}"
    return found


@pytest_asyncio.fixture
async def gpu_box(tmp_path: Path, driver: None) -> AsyncIterator[Box]:  # noqa: ARG001 -- first say that there is none
    """Run a server on this machine, with its GPUs."""
    process = ServerProcess(tmp_path / "data", flags=(*FLAGS, "--pods-on-exit", "stop", "--pods-exit-grace-s", "0"))
    await asyncio.to_thread(process.start)
    try:
        async with grove_client.connect(process.address) as grove:
            yield Box(server=process, grove=grove, namespace="gpus")
    finally:
        await asyncio.to_thread(process.stop)


def cuda_user(folder: Path, gpus: int) -> dict[str, Any]:
    """Return a container that writes the UUIDs of the GPUs that it can use into a file called after its pod."""
    return {
        "name": "main",
        "image": "x",
        "command": [sys.executable, "-c", CUDA_PROGRAM, f"{folder}/$(GROVE_PCLQ_NAME)-$(GROVE_PCLQ_POD_INDEX)"],
        # Where the driver is in an unusual place; the server hands that variable to nobody.
        "env": [{"name": "LD_LIBRARY_PATH", "value": os.environ.get("LD_LIBRARY_PATH", "")}],
        **({"resources": {"limits": {"nvidia.com/gpu": str(gpus)}}} if gpus else {}),
    }


async def used_by(folder: Path, pod: Pod) -> list[str]:
    """Wait for what a pod wrote down, and return it."""
    file = folder / pod.metadata.name

    async def look() -> str:
        return await asyncio.to_thread(lambda: file.read_text(encoding="ascii") if file.exists() else "")

    found: list[str] = json.loads(
        await until_seen(look, bool, lambda _: f"{pod.metadata.name} has asked the CUDA driver", within_s=60.0)
    )
    return found


async def test_the_node_has_the_gpus_of_the_machine(gpu_box: Box, roster: GpuRoster) -> None:
    """All GPUs that NVML knows are offered, with their model."""
    nodes = [node async for node in gpu_box.grove.nodes.list()]
    assert nodes[0].status.allocatable["nvidia.com/gpu"] == str(len(roster.gpus))
    assert nodes[0].metadata.labels["nvidia.com/gpu.product"] == roster.gpus[0].model.replace(" ", "-")


async def test_each_pod_uses_its_own_gpu_and_no_other(gpu_box: Box, roster: GpuRoster, tmp_path: Path) -> None:
    """CUDA shows each pod the one GPU that it was given, and none to a pod without; NVML sees a process on each."""
    count = len(roster.gpus)
    await gpu_box.apply(
        "pinned",
        clique("worker", cuda_user(tmp_path, 1), replicas=count),
        clique("router", cuda_user(tmp_path, 0)),
    )
    pods = await gpu_box.ready(count + 1)
    seen = {pod.metadata.name: await used_by(tmp_path, pod) for pod in pods}
    assert seen.pop("pinned-0-router-0") == []
    assert sorted(uuid for uuids in seen.values() for uuid in uuids) == sorted(roster.uuids)
    assert all(len(uuids) == 1 for uuids in seen.values())
    watch = GpuWatch()
    await watch.start(roster.uuids)
    try:
        use = await watch.use()
    finally:
        await watch.stop()
    # A process of another namespace of process ids may be known to the driver by another number: so only that it is.
    assert all(use[gpu.id].memory_by_pid or use[gpu.id].memory_used_bytes > 0 for gpu in roster.gpus)
