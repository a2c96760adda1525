"""Deciding commits, and what becomes visible when."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from grove_server.resources.meta import Kind
from grove_server.store import SqliteStore, VolatileStore
from grove_server.store.engine import SLICE_CHANGES
from grove_server.store.errors import StoreClosedError
from grove_server.store.interface import (
    Applied,
    ChangeType,
    Conflict,
    Delete,
    Exists,
    Missing,
    Notice,
    Outcome,
    Put,
    Skipped,
)
from tests.unit.store.sample import INDEXES, SAMPLE_CODEC, OtherSample, Sample, key, sample


def version_of(outcome: Outcome) -> int:
    """Return the version of an applied change."""
    assert isinstance(outcome, Applied)
    return outcome.version


async def test_a_write_is_read_back_with_its_version(store: SqliteStore) -> None:
    """What was committed is in the view, at the version of its outcome."""
    (outcome,) = await store.commit([Put(sample("a", 7))])
    found = store.read().get(Sample, "default", "a")
    assert found is not None
    assert (found.size, found.resource_version) == (7, 1)
    assert outcome == Applied(key("a"), 1, found)
    assert store.read().version == 1


async def test_nothing_is_visible_before_it_is_durable(store: SqliteStore) -> None:
    """The view does not show what was only decided."""
    future = store.commit_soon([Put(sample("a"))])
    assert store.read().get(Kind.POD, "default", "a") is None
    await future
    assert store.read().get(Kind.POD, "default", "a") is not None


async def test_every_precondition_has_its_outcome(store: SqliteStore) -> None:
    """Each way to lose is told apart."""
    (made,) = await store.commit([Put(sample("a"), expected=0)])
    current = version_of(made)
    outcomes = await store.commit(
        [
            Put(sample("a"), expected=0),
            Put(sample("a"), expected=current + 5),
            Put(sample("a", uid="another"), expected=None),
            Put(sample("b"), expected=3),
            Delete(key("b")),
            Delete(key("a"), expected=current + 5),
            Put(sample("a", 2), expected=current),
        ],
        atomic=False,
    )
    assert outcomes[:6] == (
        Exists(key("a")),
        Conflict(key("a"), current),
        Exists(key("a")),
        Missing(key("b")),
        Missing(key("b")),
        Conflict(key("a"), current),
    )
    assert version_of(outcomes[6]) == current + 1


async def test_an_atomic_commit_is_made_whole_or_not_at_all(store: SqliteStore) -> None:
    """One failing change skips the others, and each says what happened to it."""
    await store.commit([Put(sample("a"))])
    outcomes = await store.commit([Put(sample("b")), Put(sample("a"), expected=0), Delete(key("c"))])
    assert outcomes == (Skipped(key("b")), Exists(key("a")), Missing(key("c")))
    assert store.read().count(Kind.POD) == 1


async def test_changes_of_one_commit_see_each_other(store: SqliteStore) -> None:
    """A commit may create, delete and create again under one name."""
    outcomes = await store.commit(
        [Put(sample("a"), expected=0), Delete(key("a")), Put(sample("a", uid="second"), expected=0)]
    )
    assert [version_of(outcome) for outcome in outcomes] == [1, 2, 3]
    found = store.read().get(Sample, "default", "a")
    assert found is not None
    assert found.metadata.uid == "second"


async def test_conflicts_are_decided_against_the_queue(store: SqliteStore) -> None:
    """A second writer of a state that is not durable yet loses, and hears of it when the winner is visible."""
    await store.commit([Put(sample("a"))])
    first = store.commit_soon([Put(sample("a", 1), expected=1)])
    second = store.commit_soon([Put(sample("a", 2), expected=1)])
    assert not second.done()
    assert await second == (Conflict(key("a"), 2),)
    assert first.done()
    found = store.read().get(Sample, "default", "a")
    assert found is not None
    assert found.size == 1


async def test_a_refusal_by_the_visible_state_needs_no_disk(store: SqliteStore) -> None:
    """What rests on durable facts alone is answered at once."""
    assert store.commit_soon([Delete(key("a"))]).done()


async def test_indexes_follow_every_change(store: SqliteStore) -> None:
    """An index shows additions, moves and deletions."""
    await store.commit([Put(sample("a", 1)), Put(sample("b", 1))])
    await store.commit([Put(sample("a", 2))])
    reader = store.read()
    assert [each.metadata.name for each in reader.indexed("by-size", 1)] == ["b"]
    assert [each.metadata.name for each in reader.indexed("by-size", 2)] == ["a"]
    await store.commit([Delete(key("a"))])
    assert [*reader.indexed("by-size", 2)] == []
    with pytest.raises(KeyError):
        reader.indexed("by-colour", 1)


async def test_lists_by_namespace_and_in_order(store: SqliteStore) -> None:
    """Lists can be narrowed to a namespace and sorted by namespace and name."""
    await store.commit([Put(sample(name, namespace=ns)) for ns, name in (("y", "b"), ("x", "c"), ("y", "a"))])
    reader = store.read()
    assert [each.metadata.name for each in reader.sorted_list(Sample)] == ["c", "a", "b"]
    assert {each.metadata.name for each in reader.list(Sample, "y")} == {"a", "b"}
    assert reader.list(Sample, "z") == []
    assert reader.count(Kind.POD) == 3
    assert reader.count(Kind.NODE) == 0


async def test_listeners_hear_of_visible_changes_only(store: SqliteStore) -> None:
    """A listener finds in the view what it is told, with the state before."""
    heard: list[Notice] = []

    def listener(notices: Sequence[Notice]) -> None:
        for notice in notices:
            found = store.read().get(Sample, "default", notice.resource.metadata.name)
            assert (found is None) == (notice.kind is ChangeType.DELETED)
        heard.extend(notices)

    stop = store.subscribe(listener)
    await store.commit([Put(sample("a", 1))])
    await store.commit([Put(sample("a", 2))])
    await store.commit([Delete(key("a"))])
    stop()
    await store.commit([Put(sample("b"))])
    assert [(each.kind, each.version) for each in heard] == [("ADDED", 1), ("MODIFIED", 2), ("DELETED", 3)]
    assert heard[0].previous is None
    assert heard[1].previous is heard[0].resource
    assert heard[2].resource is heard[1].resource


async def test_a_failing_listener_does_not_stop_the_others(store: SqliteStore) -> None:
    """An exception of a listener goes to the loop's handler, and the commit is answered all the same."""
    reported: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: reported.append(context))
    heard: list[Notice] = []

    def failing(_notices: Sequence[Notice]) -> None:
        raise ZeroDivisionError

    store.subscribe(failing)
    store.subscribe(heard.extend)
    await store.commit([Put(sample("a"))])
    assert len(heard) == 1
    assert [type(each["exception"]) for each in reported] == [ZeroDivisionError]


async def test_a_large_commit_is_seen_whole_and_told_in_slices(store: SqliteStore) -> None:
    """No listener is called with more than a slice, and none ever sees a part of the commit in the view."""
    count = SLICE_CHANGES * 3 + 1
    sizes: list[int] = []

    def listener(notices: Sequence[Notice]) -> None:
        sizes.append(len(notices))
        assert store.read().count(Kind.POD) == count

    store.subscribe(listener)
    future = store.commit_soon([Put(sample(f"pod-{number}")) for number in range(count)])
    future.add_done_callback(lambda _: sizes.append(-1))
    await future
    await asyncio.sleep(0)
    assert sizes == [SLICE_CHANGES] * 3 + [1, -1]


async def test_a_caller_that_gives_up_does_not_undo_its_commit(store: SqliteStore) -> None:
    """Cancelling the wait leaves the change to become visible."""
    future = store.commit_soon([Put(sample("a"))])
    future.cancel()
    await store.commit([Put(sample("b"))])
    assert store.read().count(Kind.POD) == 2


async def test_kinds_do_not_meet(store: SqliteStore) -> None:
    """The same name under two kinds is two resources."""
    node = OtherSample(metadata=sample("a").metadata)
    await store.commit([Put(sample("a")), Put(node)])
    assert [store.read().count(kind) for kind in (Kind.POD, Kind.NODE)] == [1, 1]


async def test_a_closed_store_refuses(database: Path) -> None:
    """Before it is open and after it is closed, a store refuses; what was accepted before is kept."""
    store = SqliteStore(database, SAMPLE_CODEC)
    await store.open()
    accepted = store.commit_soon([Put(sample("a"))])
    await store.close()
    await store.close()
    assert accepted.done()
    with pytest.raises(StoreClosedError):
        await store.commit([Put(sample("b"))])
    assert not store.health().ok


async def test_the_volatile_store_is_the_same_without_a_disk() -> None:
    """A simulation's store decides, shows and tells as the durable one does."""
    store = VolatileStore(indexes=INDEXES)
    await store.open()
    heard: list[Notice] = []
    store.subscribe(heard.extend)
    await store.commit([Put(sample("a", 3))])
    assert [each.metadata.name for each in store.read().indexed("by-size", 3)] == ["a"]
    assert len(heard) == 1
    await store.close()
