"""Events: what happened to a resource, for people. Equal events of one object are counted, not repeated.

Bounded twice: an event lives for RETENTION_S, and there are at most EVENTS_MAX; the oldest go first. Events are
written in the background; losing some in a crash loses no state.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Final

from grove_server.control.clock import Clock
from grove_server.lifecycle.plan import Note
from grove_server.resources.cluster import Event
from grove_server.resources.meta import Key, Kind, Metadata
from grove_server.resources.replacing import replace
from grove_server.store.errors import StoreUnavailableError
from grove_server.store.interface import Change, Delete, Outcome, Put, Store
from grove_server.telemetry import metrics

RETENTION_S: Final = 3600.0
EVENTS_MAX: Final = 5_000
MESSAGE_LENGTH_MAX: Final = 1_024
# Repetitions of an event within this time are absorbed into one write.
_FLUSH_DELAY_S: Final = 0.25
_FLUSH_MAX: Final = 500
# Old events are looked for at least so often while there are any: the clock may be moved on.
_PRUNE_INTERVAL_MAX_S: Final = 60.0


class EventRecorder:
    """Turns notes into Event resources."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._pending: OrderedDict[Key, Event] = OrderedDict()
        self._known: OrderedDict[Key, float] = OrderedDict()
        # On their way to the disk, so that repetitions meanwhile are counted.
        self._sent: dict[Key, Event] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False
        self.dropped_count = 0

    def adopt(self) -> None:
        """Take over the events of an earlier run."""
        events = sorted(self._store.read().list(Event), key=lambda event: event.last_at)
        self._known = OrderedDict((Key(Kind.EVENT, e.metadata.namespace, e.metadata.name), e.last_at) for e in events)
        self._set_timer()

    def note(self, notes: Iterable[Note]) -> None:
        """Record *notes* soon."""
        now = self._clock.now()
        for note in notes:
            key = _key_of_note(note)
            old = (
                self._pending.get(key) or self._sent.get(key) or self._store.read().get(Event, key.namespace, key.name)
            )
            if old is None and len(self._pending) >= EVENTS_MAX:
                self.dropped_count += 1
                metrics.EVENTS_DROPPED.inc()
                continue
            self._pending[key] = _event(note, key, old, now)
        if self._pending:
            self._set_timer()

    def close(self) -> None:
        """Write what waits; call before the store closes."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._pending:
            self._flush()

    def _set_timer(self) -> None:
        """See to it that what waits is written soon, and that old events go when their time is over."""
        if self._is_closed or not (self._pending or self._known):
            return
        if self._pending:
            delay_s = _FLUSH_DELAY_S
        else:
            due_at = next(iter(self._known.values())) + RETENTION_S
            delay_s = min(_PRUNE_INTERVAL_MAX_S, max(_FLUSH_DELAY_S, due_at - self._clock.now()))
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            if self._timer.when() <= loop.time() + delay_s:
                return
            self._timer.cancel()
        self._timer = loop.call_later(delay_s, self._flush)

    def _flush(self) -> None:
        self._timer = None
        changes: list[Change] = []
        sent: dict[Key, Event] = {}
        while self._pending and len(changes) < _FLUSH_MAX:
            key, event = self._pending.popitem(last=False)
            changes.append(Put(event))
            sent[key] = event
            self._known[key] = event.last_at
            self._known.move_to_end(key)
        too_old = self._clock.now() - RETENTION_S
        while self._known and len(changes) < 2 * _FLUSH_MAX:
            key, last_at = next(iter(self._known.items()))
            if last_at >= too_old and len(self._known) <= EVENTS_MAX:
                break
            del self._known[key]
            changes.append(Delete(key))
        if changes:
            self._sent.update(sent)
            future = self._store.commit_soon(changes, atomic=False, cause="events")
            future.add_done_callback(lambda done: self._settle(sent, done))
        self._set_timer()

    def _settle(self, sent: Mapping[Key, Event], future: asyncio.Future[tuple[Outcome, ...]]) -> None:
        for key, event in sent.items():
            if self._sent.get(key) is event:
                del self._sent[key]
        # Events that a full disk refused are forgotten: the store reports that by itself.
        if (error := future.exception()) is not None and not isinstance(error, StoreUnavailableError):
            raise error


def _key_of_note(note: Note) -> Key:
    digest = hashlib.blake2b(
        f"{note.kind}/{note.name}/{note.uid}/{note.reason}/{note.type}".encode(), digest_size=6
    ).hexdigest()
    return Key(Kind.EVENT, note.namespace or "default", f"{note.name}.{digest}")


def _event(note: Note, key: Key, old: Event | None, now: float) -> Event:
    message = note.message[:MESSAGE_LENGTH_MAX]
    if old is not None:
        return replace(old, message=message, count=old.count + 1, last_at=now)
    return Event(
        metadata=Metadata(name=key.name, namespace=key.namespace, uid=f"{key.namespace}/{key.name}", created_at=now),
        involved_kind=note.kind,
        involved_name=note.name,
        involved_uid=note.uid,
        type=note.type,
        reason=note.reason,
        message=message,
        first_at=now,
        last_at=now,
    )
