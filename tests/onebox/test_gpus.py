"""GPUs of a machine: the real binding against a library that plays NVML, and the ids that pods know them by."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from grove_server.resources.gpu_annotations import parse_gpu_islands
from grove_server.runtime.process.gpus import GpuWatch, islands_text
from tests.onebox.fake_nvml import MEMORY_BYTES, MODEL, FakeGpu, FakeNvml, eight_gpus

pytestmark = pytest.mark.native


@pytest.fixture
def nvml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    """Return a library with eight GPUs, that this process can load."""
    made = FakeNvml(tmp_path, eight_gpus())
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    return made


@pytest.fixture
async def watch(nvml: FakeNvml) -> AsyncIterator[GpuWatch]:
    """Return a watch that was not started."""
    made = GpuWatch(str(nvml.library))
    yield made
    await made.stop()


async def test_gpus_are_found_with_their_islands(watch: GpuWatch) -> None:
    """GPUs are described in the order of the bus, and those that NVLink joins are an island."""
    roster = await watch.start(())
    assert [(gpu.id, gpu.uuid, gpu.model, gpu.memory_bytes) for gpu in roster.gpus[:2]] == [
        (0, "GPU-0", MODEL, MEMORY_BYTES),
        (1, "GPU-1", MODEL, MEMORY_BYTES),
    ]
    assert roster.broken_ids == ()
    assert parse_gpu_islands(islands_text(roster.islands)) == ((0, 1, 2, 3), (4, 5, 6, 7))
    assert roster.visible_devices((1, 6)) == "GPU-1,GPU-6"


async def test_without_links_numa_nodes_are_islands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """GPUs that no NVLink joins belong together by their NUMA nodes."""
    gpus = tuple(FakeGpu(uuid=f"GPU-{number}", numa=number % 2) for number in range(4))
    fake = FakeNvml(tmp_path, gpus)
    monkeypatch.setenv("FAKE_NVML", fake.environment["FAKE_NVML"])
    watch = GpuWatch(str(fake.library))
    assert (await watch.start(())).islands == ((0, 2), (1, 3))
    await watch.stop()


async def test_a_machine_without_a_driver_has_no_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that finds no driver is no error."""
    fake = FakeNvml(tmp_path, ())
    monkeypatch.setenv("FAKE_NVML", str(tmp_path / "nothing"))
    watch = GpuWatch(str(fake.library))
    assert (await watch.start(())).gpus == ()
    assert not watch.is_there
    await watch.stop()


async def test_a_gpu_that_is_lost_goes_out_of_service(nvml: FakeNvml, watch: GpuWatch) -> None:
    """A GPU that stops to answer is out of service with its reason, and the others keep their ids."""
    await watch.start(())
    nvml.set_state("GPU-2", "lost")
    roster = await watch.look()
    assert roster.broken_ids == (2,)
    assert "lost" in roster.gpus[2].problem
    assert roster.visible_devices((3,)) == "GPU-3"


@pytest.mark.parametrize(("xid", "is_broken"), [(79, True), (31, False)])
async def test_critical_errors_take_a_gpu_out(nvml: FakeNvml, watch: GpuWatch, *, xid: int, is_broken: bool) -> None:
    """An XID that means a broken GPU takes it out of service, and stays; one that applications cause does not."""
    await watch.start(())
    nvml.set_state("GPU-5", f"xid:{xid}")
    assert (await watch.look()).broken_ids == ((5,) if is_broken else ())
    nvml.set_state("GPU-5", "ok")
    assert (await watch.look()).broken_ids == ((5,) if is_broken else ())


async def test_a_partitioned_gpu_is_not_offered(nvml: FakeNvml, watch: GpuWatch) -> None:
    """MIG is no whole GPU."""
    nvml.set_state("GPU-0", "mig")
    roster = await watch.start(())
    assert roster.broken_ids == (0,)
    assert "MIG" in roster.gpus[0].problem


async def test_ids_stay_when_a_gpu_is_missing_at_the_start(nvml: FakeNvml, watch: GpuWatch) -> None:
    """A server that starts again without one of its GPUs gives no other GPU that id."""
    known = (await watch.start(())).uuids
    await watch.stop()
    nvml.remove("GPU-1")
    again = GpuWatch(os.fspath(nvml.library))
    roster = await again.start(known)
    await again.stop()
    assert roster.uuids == known
    assert roster.broken_ids == (1,)
    assert roster.gpus[2].uuid == "GPU-2"


async def test_use_is_told_by_id(watch: GpuWatch) -> None:
    """How busy a GPU is, and how much of its memory is taken."""
    await watch.start(())
    use = await watch.use()
    assert sorted(use) == list(range(8))
    assert (use[3].busy_percent, use[3].memory_used_bytes) == (37, MEMORY_BYTES // 4)
