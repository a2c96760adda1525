"""One watcher: its place in the channel's log, and what it has not read yet.

A reader that keeps up takes events straight from the shared log. One that falls behind gets them folded into its own
map: the newest event of each object, in the order of their versions. So the token of each event is true: everything
not yet read is newer.

Folding two events of one object: a deletion always stays to be seen, unless the same object (same uid) came back;
ADDED and a later change are ADDED. An object of another uid under the same name is another object.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from grove_server.resources.meta import Resource
from grove_server.store.errors import StoreClosedError, StoreError, WatchTooSlowError
from grove_server.store.interface import EventType, WatchEvent

if TYPE_CHECKING:
    from grove_server.store.watch.channel import Channel

_Identity = tuple[str, str, str]


def identity_of(resource: Resource) -> _Identity:
    """Return what makes an object the same object: namespace, name and uid."""
    metadata = resource.metadata
    return (metadata.namespace, metadata.name, metadata.uid)


def folded(earlier: WatchEvent, later: WatchEvent) -> WatchEvent:
    """Return the one event that tells what both told of the same object."""
    if earlier.type is EventType.ADDED and later.type is EventType.MODIFIED:
        return WatchEvent(EventType.ADDED, later.resource, later.version, later.token)
    return later


class Stream:
    """A running watch; satisfies Watch. Only its hub and its reader touch it, on the event loop."""

    __slots__ = (
        "_bookmark",
        "_closed",
        "_ended",
        "_error",
        "_first",
        "_pending",
        "_pending_max",
        "_token",
        "_waiter",
        "channel",
        "cursor",
        "floor",
        "sent_at_s",
    )

    def __init__(
        self,
        channel: Channel,
        *,
        first: Iterator[WatchEvent],
        token: str,
        floor: int,
        pending_max: int,
        now_s: float,
        ended: Callable[[Stream], None],
    ) -> None:
        """Start at the end of the channel's log; *first* is read before it, and ends with SYNCED."""
        self.channel = channel
        self._first: Iterator[WatchEvent] | None = first
        self._token = token
        self._pending: OrderedDict[_Identity, WatchEvent] = OrderedDict()
        self._pending_max = pending_max
        self._waiter: asyncio.Future[None] | None = None
        self._error: StoreError | None = None
        self._bookmark: WatchEvent | None = None
        self._closed = False
        self._ended = ended
        self.cursor = channel.end
        # Events up to this version are part of *first*.
        self.floor = floor
        self.sent_at_s = now_s

    @property
    def token(self) -> str:
        """Resumes after the last event that was taken."""
        return self._token

    async def batch(self, count_max: int = 256) -> Sequence[WatchEvent]:
        """Return the next events, waiting for at least one; see Watch. One reader at a time."""
        if self._waiter is not None:
            raise RuntimeError("two tasks read one watch")
        while True:
            events = self._take(count_max)
            if events:
                self._token = events[-1].token or self._token
                self.sent_at_s = self.channel.loop.time()
                return events
            self._waiter = waiter = self.channel.loop.create_future()
            self.channel.waiting[self] = None
            try:
                await waiter
            finally:
                self._waiter = None

    def close(self) -> None:
        """End the watch."""
        self.end(StoreClosedError("the watch is closed"))

    def end(self, error: StoreError) -> None:
        """End the watch; its reader gets *error* from now on."""
        if self._closed:
            return
        self._closed = True
        self._error = error
        self._first = None
        self._pending.clear()
        self._ended(self)
        self.wake()

    def wake(self) -> None:
        """Let the reader look again."""
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def offer_bookmark(self, bookmark: WatchEvent) -> None:
        """Give the reader *bookmark* if it has nothing else to read."""
        if self._waiter is not None:
            self._bookmark = bookmark
            self.wake()

    def fold(self) -> None:
        """Take the rest of the log over into the own map, and end the watch if that grows too large."""
        pending = self._pending
        for event in self.channel.since(self.cursor):
            if event.version <= self.floor or event.resource is None:
                continue
            identity = identity_of(event.resource)
            earlier = pending.pop(identity, None)
            pending[identity] = event if earlier is None else folded(earlier, event)
        self.cursor = self.channel.end
        if len(pending) > self._pending_max:
            self.channel.observer.watch_too_slow()
            self.end(WatchTooSlowError(self._token, self._pending_max))

    def _take(self, count_max: int) -> Sequence[WatchEvent]:
        if self._error is not None:
            raise self._error
        if self._first is not None:
            events = [*islice(self._first, count_max)]
            if events:
                return events
            self._first = None
        fresh = self.channel.end - self.cursor
        if fresh == 1 and not self._pending:
            # The usual case: the reader keeps up, and shares the event with all others.
            event = self.channel.last
            self.cursor += 1
            if event.version > self.floor:
                self._bookmark = None
                return (event,)
        elif fresh:
            self.fold()
            if self._error is not None:
                raise self._error
        if self._pending:
            self._bookmark = None
            popitem = self._pending.popitem
            return [popitem(last=False)[1] for _ in range(min(count_max, len(self._pending)))]
        bookmark, self._bookmark = self._bookmark, None
        return () if bookmark is None else (bookmark,)
