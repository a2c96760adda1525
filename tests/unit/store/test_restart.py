"""What a database keeps, and how it refuses."""

from __future__ import annotations

from pathlib import Path

from grove_server.resources.meta import Kind
from grove_server.store import SqliteStore
from grove_server.store.interface import Delete, Put
from tests.unit.store.sample import INDEXES, SAMPLE_CODEC, Sample, key, sample


async def test_a_restart_finds_everything(database: Path) -> None:
    """Resources, versions, indexes and the counter survive; versions of deleted resources are not given out again."""
    store = SqliteStore(database, SAMPLE_CODEC, indexes=INDEXES)
    await store.open()
    await store.commit([Put(sample(f"pod-{number}", number)) for number in range(2_000)])
    await store.commit([Put(sample("pod-0", 5, padding="x"))])
    await store.commit([Delete(key("pod-1"))])
    before = store.read().sorted_list(Sample)
    await store.close()

    store = SqliteStore(database, SAMPLE_CODEC, indexes=INDEXES)
    await store.open()
    assert store.read().sorted_list(Sample) == before
    assert store.read().version == 2_002
    assert {each.metadata.name for each in store.read().indexed("by-size", 5)} == {"pod-0", "pod-5"}
    await store.commit([Put(sample("new"))])
    assert store.read().version == 2_003
    assert store.read().count(Kind.POD) == 2_000
    await store.close()
