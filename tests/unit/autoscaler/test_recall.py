"""The core's memory in a file: what is read back decides as what was written, and what is of no use is not used."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from autoscaler.memory import Memory, encode
from autoscaler.service.recall import EVERY_S, OLDEST_S, Recall
from tests.scaling_cases import START, World


def remembered(requests_per_s: float = 30.0) -> World:
    """Return a world that has grown and shrunk, so that every part of its memory holds something."""
    world = World()
    for load in (requests_per_s, 3 * requests_per_s, requests_per_s):
        world.run(load, 60)
    return world


async def test_what_is_read_back_decides_as_what_was_written(tmp_path: Path) -> None:
    """A core that goes on with the memory of the file gives the same sizes, tick by tick, as one that never stopped."""
    world, file = remembered(), tmp_path / "state.json"
    await Recall(file).keep(world.memory, world.at)
    memory = await Recall(file).load(world.at + 1.0)
    assert memory == world.memory
    again = replace(world, memory=memory, sizes=dict(world.sizes), history=[])
    for load in (90.0, 90.0, 5.0, 5.0, 5.0):
        world.run(load, 20)
        again.run(load, 20)
        assert again.sizes == world.sizes


async def test_memory_is_written_once_in_a_while_and_whole(tmp_path: Path) -> None:
    """A file is replaced once its time is over, never written in place, and nothing is left beside it."""
    file, recall = tmp_path / "state.json", Recall(tmp_path / "state.json")
    first, later = remembered(10.0).memory, remembered(20.0).memory
    await recall.keep(first, START)
    await recall.keep(later, START + EVERY_S - 1.0)
    assert file.read_bytes() == encode(first)
    await recall.keep(later, START + EVERY_S)
    assert file.read_bytes() == encode(later)
    assert [each.name for each in tmp_path.iterdir()] == ["state.json"]


@pytest.mark.parametrize("data", [b"", b"{", b'{"version": 99, "scopes": {}}', b'{"version": 1, "scopes": {"a": 1}}'])
async def test_a_file_that_holds_no_memory_is_not_used(tmp_path: Path, data: bytes) -> None:
    """What is torn, of another version or of another shape is no memory, and ends nothing."""
    file = tmp_path / "state.json"
    file.write_bytes(data)
    assert await Recall(file).load(START) == Memory()


async def test_old_scopes_and_missing_files_are_no_memory(tmp_path: Path) -> None:
    """Scopes seen too long ago, or in the future, are left out; a folder that cannot be written ends nothing."""
    world, file = remembered(), tmp_path / "state.json"
    assert await Recall(file).load(world.at) == Memory()
    await Recall(file).keep(world.memory, world.at)
    assert not (await Recall(file).load(world.at + OLDEST_S + 1.0)).scopes
    assert not (await Recall(file).load(world.at - 1.0)).scopes
    assert (await Recall(file).load(world.at + OLDEST_S)).scopes
    nowhere = tmp_path / "nowhere" / "state.json"
    await Recall(nowhere).keep(world.memory, world.at)
    assert await Recall(nowhere).load(world.at) == Memory()
    assert await Recall(None).load(world.at) == Memory()
