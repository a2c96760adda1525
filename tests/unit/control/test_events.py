"""Events: counted, bounded in number, length and age, and written in the background."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from grove_server.control import events as events_module
from grove_server.control.events import MESSAGE_LENGTH_MAX, RETENTION_S, EventRecorder
from grove_server.lifecycle.plan import EVENT_WARNING, Note
from grove_server.resources.cluster import Event
from grove_server.resources.meta import Kind
from grove_server.store.engine import EmbeddedStore
from tests.planes import GatedJournal, MovableClock
from tests.waiting import until


@pytest.fixture
def clock() -> MovableClock:
    """Return a clock that can be moved on."""
    return MovableClock()


@pytest.fixture
async def gate(tmp_path: Path) -> GatedJournal:
    """Return a journal that can be held."""
    return GatedJournal(tmp_path / "grove.db")


@pytest.fixture
async def store(gate: GatedJournal) -> AsyncIterator[EmbeddedStore]:
    """Return an open store."""
    made = EmbeddedStore(gate)
    await made.open()
    yield made
    await made.close()


@pytest.fixture
async def recorder(
    store: EmbeddedStore, clock: MovableClock, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[EventRecorder]:
    """Return a recorder that writes almost at once."""
    monkeypatch.setattr(events_module, "_FLUSH_DELAY_S", 0.001)
    made = EventRecorder(store, clock)
    made.adopt()
    yield made
    made.close()


def note(name: str = "s-0", message: str = "no room", reason: str = "Unschedulable", **fields: str) -> Note:
    """Return a warning about a gang."""
    return Note(
        kind=Kind.POD_GANG,
        namespace=fields.pop("namespace", "default"),
        name=name,
        uid=f"uid-{name}",
        reason=reason,
        message=message,
        type=EVENT_WARNING,
    )


def written(store: EmbeddedStore) -> dict[str, Event]:
    """Return the stored events by the name of what they are about."""
    return {event.involved_name: event for event in store.read().list(Event)}


async def test_equal_events_are_counted(store: EmbeddedStore, recorder: EventRecorder, clock: MovableClock) -> None:
    """An event that repeats is one object with a count, its first and last time, and the newest message."""
    recorder.note([note()])
    await until(lambda: bool(written(store)), "the event is written")
    first = written(store)["s-0"]
    assert (first.count, first.type, first.reason, first.message) == (1, "Warning", "Unschedulable", "no room")
    clock.advance(60)
    recorder.note([note(message="still no room"), note(message="still none")])
    await until(lambda: written(store)["s-0"].count == 3, "the repetitions are written")
    last = written(store)["s-0"]
    assert (last.first_at, last.message) == (first.first_at, "still none")
    assert last.last_at >= first.last_at + 60


async def test_repetitions_while_the_write_is_on_its_way_are_counted(
    store: EmbeddedStore, recorder: EventRecorder, gate: GatedJournal
) -> None:
    """What is not durable yet counts too."""
    gate.hold()
    recorder.note([note()])
    await until(lambda: store.health().queued_changes == 1, "the event is on its way")
    recorder.note([note()])
    await until(lambda: store.health().queued_changes == 2, "the repetition is on its way")
    gate.release()
    await until(lambda: "s-0" in written(store) and not store.health().queued_changes, "both are durable")
    assert written(store)["s-0"].count == 2


async def test_different_events_stand_side_by_side(store: EmbeddedStore, recorder: EventRecorder) -> None:
    """Another object or another reason is another event; what has no namespace is told in the default one."""
    recorder.note([note("a"), note("b"), note("b", reason="Placed"), note("n0", namespace="")])
    await until(lambda: len(store.read().list(Event)) == 4, "all are written")
    assert {event.metadata.namespace for event in store.read().list(Event)} == {"default"}


async def test_messages_are_bounded(store: EmbeddedStore, recorder: EventRecorder) -> None:
    """A message is cut at its longest length."""
    recorder.note([note(message="x" * 10_000)])
    await until(lambda: bool(written(store)), "the event is written")
    assert len(written(store)["s-0"].message) == MESSAGE_LENGTH_MAX


async def test_old_events_go_by_themselves(
    store: EmbeddedStore, recorder: EventRecorder, clock: MovableClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event is removed when its time is over, even if nothing else is ever noted."""
    monkeypatch.setattr(events_module, "_PRUNE_INTERVAL_MAX_S", 0.005)
    recorder.note([note("old")])
    await until(lambda: bool(written(store)), "the event is written")
    clock.advance(RETENTION_S / 2)
    recorder.note([note("young")])
    await until(lambda: len(written(store)) == 2, "both are written")
    clock.advance(RETENTION_S / 2 + 1)
    await until(lambda: list(written(store)) == ["young"], "the old one is gone")
    clock.advance(RETENTION_S / 2 + 1)
    await until(lambda: not written(store), "the young one is gone too")


async def test_the_oldest_go_when_there_are_too_many(
    store: EmbeddedStore, recorder: EventRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There are never more events than the most allowed, for longer than a moment."""
    monkeypatch.setattr(events_module, "EVENTS_MAX", 10)
    for index in range(12):
        recorder.note([note(f"g{index:02}")])
        await until(lambda name=f"g{index:02}": name in written(store), "it is written")  # type: ignore[misc]  # a default binds the loop's value
    await until(lambda: len(written(store)) == 10, "the first two are gone")
    assert min(written(store)) == "g02"


async def test_a_flood_is_dropped_and_counted(
    store: EmbeddedStore, recorder: EventRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More events than can wait are dropped, and that is counted; those that wait are written."""
    monkeypatch.setattr(events_module, "EVENTS_MAX", 10)
    recorder.note([note(f"g{index:02}") for index in range(15)])
    assert recorder.dropped_count == 5
    await until(lambda: len(written(store)) == 10, "those that waited are written")


async def test_closing_writes_everything(store: EmbeddedStore, clock: MovableClock) -> None:
    """However many wait, none is lost at the end, and no timer stays behind."""
    recorder = EventRecorder(store, clock)
    recorder.note([note(f"g{index:04}") for index in range(1_200)])
    recorder.close()
    await until(lambda: len(store.read().list(Event)) == 1_200, "all are written")
    recorder.note([note("late")])
    assert recorder._timer is None


async def test_events_of_an_earlier_run_grow_old_too(
    store: EmbeddedStore, clock: MovableClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a recorder finds at its start is its to remove."""
    monkeypatch.setattr(events_module, "_PRUNE_INTERVAL_MAX_S", 0.005)
    first = EventRecorder(store, clock)
    first.note([note()])
    first.close()
    await until(lambda: bool(written(store)), "the event is written")
    second = EventRecorder(store, clock)
    second.adopt()
    clock.advance(RETENTION_S + 1)
    await until(lambda: not written(store), "the event is gone")
    second.close()


async def test_a_full_disk_loses_events_alone(
    store: EmbeddedStore, recorder: EventRecorder, gate: GatedJournal
) -> None:
    """A write that fails is forgotten; later events are written again."""
    gate.fail()
    recorder.note([note("lost")])
    await until(lambda: not store.health().ok and not recorder._pending, "the write has failed")
    gate.mend()
    recorder.note([note("kept")])
    await until(lambda: list(written(store)) == ["kept"], "the next one is written")
    await until(lambda: recorder._sent == {}, "nothing is on its way")
