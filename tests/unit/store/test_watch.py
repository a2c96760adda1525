"""Watches: the first list, resuming, filters, coalescing, slow readers, bookmarks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from grove_server.resources.meta import Kind
from grove_server.store import SqliteStore, VolatileStore, WatchLimits, tokens
from grove_server.store.engine import SLICE_CHANGES
from grove_server.store.errors import (
    StoreClosedError,
    TokenExpiredError,
    TokenInvalidError,
    WatchLimitError,
    WatchTooSlowError,
)
from grove_server.store.interface import Delete, EventType, LabelsEqual, Notice, Put, Watch, WatchEvent
from grove_server.store.watch.channel import LOG_EVENTS_MAX
from tests.unit.store.sample import SAMPLE_CODEC, OtherSample, key, sample

BLUE = {"colour": "blue"}
ONLY_BLUE = LabelsEqual(frozenset(BLUE.items()))


@asynccontextmanager
async def opened(**limits: float) -> AsyncIterator[VolatileStore]:
    """Open a store without a disk, with these limits."""
    store = VolatileStore(watch_limits=WatchLimits(**limits))  # type: ignore[arg-type]  # floats are for the interval
    await store.open()
    yield store
    await store.close()


def told(events: Sequence[WatchEvent]) -> list[tuple[str, str]]:
    """Return type and object name of each event."""
    return [(event.type.value, "" if event.resource is None else event.resource.metadata.name) for event in events]


async def drained(watch: Watch) -> list[WatchEvent]:
    """Return what the watch has to tell without waiting."""
    events: list[WatchEvent] = []
    while True:
        task = asyncio.ensure_future(watch.batch())
        for _ in range(3):
            await asyncio.sleep(0)
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            return events
        events.extend(task.result())


async def synced(watch: Watch) -> list[WatchEvent]:
    """Return the events up to and with SYNCED."""
    events: list[WatchEvent] = []
    while not events or events[-1].type is not EventType.SYNCED:
        events.extend(await watch.batch())
    return events


async def test_a_watch_tells_the_state_then_the_changes() -> None:
    """The current state comes as ADDED, then SYNCED, then each change in its order."""
    async with opened() as store:
        await store.commit([Put(sample("a")), Put(sample("b"))])
        watch = store.watch(Kind.POD)
        assert sorted(told(await synced(watch))[:-1]) == [("ADDED", "a"), ("ADDED", "b")]
        await store.commit([Put(sample("a", 1))])
        await store.commit([Delete(key("b"))])
        await store.commit([Put(sample("c"))])
        assert told(await drained(watch)) == [("MODIFIED", "a"), ("DELETED", "b"), ("ADDED", "c")]


async def test_changes_during_the_first_list_come_after_it() -> None:
    """What changes while the first list is read is told after SYNCED, once."""
    async with opened() as store:
        await store.commit([Put(sample(f"pod-{number:03}")) for number in range(600)])
        watch = store.watch(Kind.POD)
        first = [*await watch.batch(256)]
        await store.commit([Put(sample("pod-000", 1)), Put(sample("late")), Delete(key("pod-599"))])
        first += await synced(watch)
        assert len(first) == 601
        assert {event.resource.resource_version for event in first if event.resource} == set(range(1, 601))
        assert told(await drained(watch)) == [("MODIFIED", "pod-000"), ("ADDED", "late"), ("DELETED", "pod-599")]


async def test_a_slow_reader_gets_the_newest_state_and_every_deletion() -> None:
    """Intermediate states are skipped; a deleted and recreated object is told as both, with the right uids."""
    async with opened() as store:
        await store.commit([Put(sample("a", uid="first"))])
        watch = store.watch(Kind.POD)
        await synced(watch)
        for size in range(1, 4):
            await store.commit([Put(sample("b", size))])
        await store.commit([Delete(key("a"))])
        await store.commit([Put(sample("a", uid="second"))])
        await store.commit([Put(sample("a", 9, uid="second"))])
        events = await drained(watch)
        assert told(events) == [("ADDED", "b"), ("DELETED", "a"), ("ADDED", "a")]
        assert [event.resource.metadata.uid for event in events if event.resource] == ["uid-b", "first", "second"]
        assert [event.version for event in events] == [4, 5, 7]


async def test_a_token_taken_half_way_through_resumes_without_a_gap() -> None:
    """Whatever a coalescing reader took last, a watch from its token tells all the rest."""
    async with opened() as store:
        watch = store.watch(Kind.POD)
        await synced(watch)
        for size in range(3):
            for name in ("a", "b", "c"):
                await store.commit([Put(sample(name, size))])
            await store.commit([Put(sample("a", size))])
        (only,) = await watch.batch(1)
        resumed = store.watch(Kind.POD, token=only.token)
        assert told([only, *await synced(resumed)]) == [
            ("ADDED", "b"),
            ("MODIFIED", "c"),
            ("MODIFIED", "a"),
            ("SYNCED", ""),
        ]


async def test_a_token_from_before_synced_lists_again() -> None:
    """A list that was cut off cannot be continued, so it is told anew."""
    async with opened() as store:
        await store.commit([Put(sample("a")), Put(sample("b"))])
        watch = store.watch(Kind.POD)
        (event,) = await watch.batch(1)
        assert event.token == ""
        assert len(await synced(store.watch(Kind.POD, token=watch.token))) == 3


async def test_a_list_can_be_followed_by_a_watch() -> None:
    """The store's token belongs to the visible state: a watch from it tells what came after, and nothing else."""
    async with opened() as store:
        await store.commit([Put(sample("a"))])
        token = store.token()
        await store.commit([Put(sample("b"))])
        assert told(await synced(store.watch(Kind.POD, token=token))) == [("ADDED", "b"), ("SYNCED", "")]
        assert told(await synced(store.watch(Kind.POD, token=store.token()))) == [("SYNCED", "")]


async def test_filters_by_namespace_and_name() -> None:
    """A watch tells of its namespace, its object and its kind alone."""
    async with opened() as store:
        in_x = store.watch(Kind.POD, namespace="x")
        named = store.watch(Kind.POD, namespace="x", name="b")
        anywhere = store.watch(Kind.POD, name="b")
        for watch in (in_x, named, anywhere):
            await synced(watch)
        await store.commit([Put(sample(name, namespace=space)) for space in ("x", "y") for name in ("a", "b")])
        await store.commit([Put(OtherSample(metadata=sample("b", namespace="x").metadata))])
        assert told(await drained(in_x)) == [("ADDED", "a"), ("ADDED", "b")]
        assert told(await drained(named)) == [("ADDED", "b")]
        assert told(await drained(anywhere)) == [("ADDED", "b"), ("ADDED", "b")]
        assert told(await synced(store.watch(Kind.POD, namespace="y", name="a"))) == [("ADDED", "a"), ("SYNCED", "")]
        assert told(await synced(store.watch(Kind.POD, name="a"))) == [("ADDED", "a"), ("ADDED", "a"), ("SYNCED", "")]


async def test_an_object_that_stops_matching_is_deleted_to_the_watch() -> None:
    """Labels decide: an object enters as ADDED, leaves as DELETED, and is not told of while outside."""
    async with opened() as store:
        watch = store.watch(Kind.POD, labels=ONLY_BLUE)
        await synced(watch)
        before = store.token()
        steps = [sample("a", 1), sample("a", 2, labels=BLUE), sample("a", 3, labels=BLUE), sample("a", 4)]
        seen: list[WatchEvent] = []
        for step in steps:
            await store.commit([Put(step)])
            seen += await drained(watch)
        await store.commit([Delete(key("a"))])
        seen += await drained(watch)
        assert told(seen) == [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a")]
        assert told(await synced(store.watch(Kind.POD, labels=ONLY_BLUE, token=before)))[0] == ("DELETED", "a")


async def test_watchers_of_one_filter_share_the_events() -> None:
    """A thousand watchers get the same event object, so that it is serialised once."""
    async with opened() as store:
        watches = [store.watch(Kind.POD) for _ in range(1_000)]
        watches.append(store.watch(Kind.POD, namespace="default"))
        for watch in watches:
            await synced(watch)
        readers = [asyncio.ensure_future(watch.batch()) for watch in watches]
        await asyncio.sleep(0)
        await store.commit([Put(sample("a"))])
        events = {event for batch in await asyncio.gather(*readers) for event in batch}
        assert len(events) == 1


async def test_a_reader_that_falls_behind_is_told_so_and_can_resume() -> None:
    """Too many unread objects end the watch with a token from which nothing is lost."""
    async with opened(pending_max=50) as store:
        watch = store.watch(Kind.POD)
        await synced(watch)
        fast = store.watch(Kind.POD)
        await synced(fast)
        for number in range(LOG_EVENTS_MAX + 2):
            await store.commit([Put(sample(f"pod-{number:04}"))])
            await fast.batch()
        with pytest.raises(WatchTooSlowError) as caught:
            await watch.batch()
        resumed = await synced(store.watch(Kind.POD, token=caught.value.token))
        assert len(resumed) == LOG_EVENTS_MAX + 3


async def test_one_busy_object_never_makes_a_reader_too_slow() -> None:
    """The bound counts objects, not changes."""
    async with opened(pending_max=2) as store:
        watch = store.watch(Kind.POD)
        await synced(watch)
        for size in range(LOG_EVENTS_MAX * 3):
            await store.commit([Put(sample("a", size))])
        events = await drained(watch)
        assert told(events) == [("ADDED", "a")]
        assert events[0].version == LOG_EVENTS_MAX * 3


async def test_the_shared_log_stays_short() -> None:
    """Watchers that do not read fold the log into their own maps, so that it can be cut."""
    async with opened() as store:
        watches = [store.watch(Kind.POD) for _ in range(30)]
        for number in range(LOG_EVENTS_MAX * 4):
            await store.commit([Put(sample(f"pod-{number % 100}", number))])
        (channel,) = store._hub._channels.values()
        assert channel.end == LOG_EVENTS_MAX * 4
        assert len(channel._log) <= LOG_EVENTS_MAX + 1
        for watch in watches:
            assert len([event for event in await drained(watch) if event.resource]) == 100


async def test_idle_watches_get_bookmarks() -> None:
    """A bookmark carries a token of the newest change, whatever the watch is about."""
    async with opened(bookmark_interval_s=0.05) as store:
        watch = store.watch(Kind.NODE)
        await synced(watch)
        await store.commit([Put(sample("a"))])
        (event,) = await watch.batch()
        assert event.type is EventType.BOOKMARK
        assert event.token == store.token()


async def test_a_token_outside_the_window_is_refused() -> None:
    """Resuming works over the last changes of the window and is refused beyond, naming the oldest version kept."""
    async with opened(window_changes=10) as store:
        kept: list[str] = []
        for number in range(30):
            await store.commit([Put(sample("a", number))])
            kept.append(store.token())
        assert told(await synced(store.watch(Kind.POD, token=kept[19]))) == [("MODIFIED", "a"), ("SYNCED", "")]
        with pytest.raises(TokenExpiredError) as caught:
            store.watch(Kind.POD, token=kept[18])
        assert caught.value.oldest_version == 20


async def test_tokens_that_are_no_tokens_are_refused() -> None:
    """Garbage is invalid; another database's token and one from the future are expired."""
    async with opened() as store:
        good = store.token()
        for bad in ("", "x", "ä" * len(good), good[:-1] + ("A" if good[-1] != "A" else "B"), "A" * len(good)):
            with pytest.raises(TokenInvalidError):
                store.watch(Kind.POD, token=bad)
        for strange in (tokens.mint(2, 1), tokens.mint(1, 99)):
            with pytest.raises(TokenExpiredError):
                store.watch(Kind.POD, token=strange)


async def test_a_restarted_store_resumes_while_nothing_was_deleted(database: Path) -> None:
    """The versions of the rows tell what changed before the restart; after a deletion, older tokens expire."""
    store = SqliteStore(database, SAMPLE_CODEC)
    await store.open()
    await store.commit([Put(sample("gone"))])
    early = store.token()
    await store.commit([Delete(key("gone"))])
    await store.commit([Put(sample("a", labels=BLUE)), Put(sample("b", labels=BLUE)), Put(sample("c", labels=BLUE))])
    token = store.token()
    await store.commit([Put(sample("a", 1)), Put(sample("b", 1, labels=BLUE))])
    await store.close()

    store = SqliteStore(database, SAMPLE_CODEC)
    await store.open()
    await store.commit([Delete(key("c"))])
    assert told(await synced(store.watch(Kind.POD, token=token))) == [
        ("ADDED", "a"),
        ("ADDED", "b"),
        ("DELETED", "c"),
        ("SYNCED", ""),
    ]
    assert told(await synced(store.watch(Kind.POD, labels=ONLY_BLUE, token=token)))[0] == ("DELETED", "a")
    with pytest.raises(TokenExpiredError):
        store.watch(Kind.POD, token=early)
    await store.close()


async def test_watches_are_bounded_and_free_their_place() -> None:
    """One watch too many is refused; a closed one makes room and leaves nothing behind."""
    async with opened(watches_max=2) as store:
        first, second = store.watch(Kind.POD), store.watch(Kind.POD, name="a")
        with pytest.raises(WatchLimitError):
            store.watch(Kind.POD)
        first.close()
        first.close()
        with pytest.raises(StoreClosedError):
            await first.batch()
        store.watch(Kind.POD).close()
        second.close()
        assert store._hub._channels == {}
        assert store._hub._routes[Kind.POD] == {}


async def test_closing_the_store_ends_its_watches() -> None:
    """A reader that waits is told."""
    async with opened() as store:
        watch = store.watch(Kind.POD)
        await synced(watch)
        reader = asyncio.ensure_future(watch.batch())
        await asyncio.sleep(0)
    with pytest.raises(StoreClosedError):
        await reader


async def test_a_reader_that_gives_up_waiting_loses_nothing() -> None:
    """Cancelling a read leaves the watch as it was."""
    async with opened() as store:
        watch = store.watch(Kind.POD)
        await synced(watch)
        for _ in range(5):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(watch.batch(), 0.001)
        await store.commit([Put(sample("a"))])
        assert told(await watch.batch()) == [("ADDED", "a")]


async def test_watches_that_start_while_a_large_commit_is_told_miss_nothing() -> None:
    """A list and a resume that begin between two slices of one commit see each of its changes exactly once."""
    async with opened() as store:
        await store.commit([Put(sample("first"))])
        token = store.token()
        names = [f"pod-{number:04}" for number in range(SLICE_CHANGES * 3)]
        future = store.commit_soon([Put(sample(name)) for name in names])
        begun: list[Watch] = []

        def listener(_notices: Sequence[Notice]) -> None:
            if not begun:
                begun.extend((store.watch(Kind.POD), store.watch(Kind.POD, token=token)))

        store.subscribe(listener)
        await future
        listed, resumed = [told([*await synced(watch), *await drained(watch)]) for watch in begun]
        assert sorted(listed) == sorted([("SYNCED", ""), ("ADDED", "first"), *(("ADDED", name) for name in names)])
        assert sorted(resumed) == sorted([("SYNCED", ""), *(("ADDED", name) for name in names)])


async def test_a_watch_has_one_reader() -> None:
    """A second task that reads the same watch is told that it must not."""
    async with opened() as store:
        watch = store.watch(Kind.POD)
        await synced(watch)
        reader = asyncio.ensure_future(watch.batch())
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError):
            await watch.batch()
        watch.close()
        with pytest.raises(StoreClosedError):
            await reader
