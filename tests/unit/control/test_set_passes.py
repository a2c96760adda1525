"""Which copies a set's own pass queues when the size changes."""

from __future__ import annotations

from dataclasses import replace

from grove_server.control.events import EventRecorder
from grove_server.control.indexes import store_indexes
from grove_server.control.set_passes import SetPasses
from grove_server.control.work_book import WorkBook
from grove_server.control.workkeys import SET_PASS, WorkKey, set_key
from grove_server.lifecycle.copy import CopySummary
from grove_server.resources.workload import PodCliqueSet
from grove_server.store import VolatileStore
from grove_server.store.interface import Put
from tests.lifecycle_cases import NOW, admitted, clique, manifest
from tests.unit.control.test_work_watch import StillClock


def taken(book: WorkBook) -> set[int]:
    """Return the copies that wait, and take them."""
    copies = set()
    while (key := book.queue.take(NOW)) is not None:
        copies.add(key.copy)
        book.queue.done(key)
    return copies - {SET_PASS}


async def test_a_size_that_came_and_went_between_two_looks() -> None:
    """A copy whose pass saw it unwanted is queued again when the set's pass finds it wanted, as it did before."""
    store = VolatileStore(indexes=store_indexes())
    await store.open()
    owner = admitted(manifest([clique("a")], replicas=2))
    await store.commit([Put(owner)], cause="test")
    clock, book = StillClock(), WorkBook(store)
    passes = SetPasses(store, clock, EventRecorder(store, clock), book, clock.steady)
    key = set_key(owner)
    passes.run(key)
    assert taken(book) == {0, 1}
    passes.follow(WorkKey(key.namespace, key.set_name, key.set_uid, 0), CopySummary(copy=0, exists=True))
    passes.run(key)
    assert taken(book) == set()
    passes.follow(WorkKey(key.namespace, key.set_name, key.set_uid, 1), CopySummary(copy=1, exists=False))
    stored = store.read().get(PodCliqueSet, "default", "s")
    assert stored is not None
    await store.commit([Put(replace(stored, metadata=replace(stored.metadata, generation=9)))], cause="test")
    passes.run(key)
    assert taken(book) == {1}
    await store.close()
