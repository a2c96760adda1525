"""The ids that pods know GPUs by, and a machine that has none."""

from __future__ import annotations

from pathlib import Path

from grove_server.runtime.process.gpus import GpuWatch, islands_of, roster_of
from grove_server.runtime.process.nvml import Device


async def test_a_machine_without_the_library_has_no_gpus(tmp_path: Path) -> None:
    """A library that is missing is no error."""
    watch = GpuWatch(str(tmp_path / "libnvidia-ml.so.1"))
    assert (await watch.start(())).gpus == ()
    assert not watch.is_there
    await watch.stop()


def test_new_gpus_come_behind_known_ones() -> None:
    """A GPU that was never seen gets an id that nobody had."""
    devices = [Device(uuid=uuid, model="m", memory_bytes=1, is_partitioned=False) for uuid in ("new", "old")]
    assert roster_of(devices, ["gone", "old"]).uuids == ("gone", "old", "new")


def test_islands_follow_chains_of_links() -> None:
    """GPUs belong together also when a third one links them."""
    assert islands_of(5, [(3, 4), (0, 2), (2, 3)]) == ((0, 2, 3, 4), (1,))
