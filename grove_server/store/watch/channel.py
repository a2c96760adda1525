"""What all watchers of one filter share: the matching, the events, and a short log of them.

The log is a window over the channel's events, numbered from its start. Watchers hold a number. The log is cut when it
is long: watchers far behind fold it into their own maps first, a few per loop step, so neither a thousand stuck
watchers nor a long log holds up the loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

from grove_server.resources.meta import Kind
from grove_server.store.interface import ChangeType, EventType, Notice, Selector, StoreObserver
from grove_server.store.interface import WatchEvent as Event
from grove_server.store.watch.stream import Stream

# Long enough that watchers that keep up never fold, short enough that folding one watcher takes well under 1 ms.
LOG_EVENTS_MAX: Final = 512
_FOLDS_PER_STEP: Final = 8

_TYPES: Final[Mapping[ChangeType, EventType]] = {
    ChangeType.ADDED: EventType.ADDED,
    ChangeType.MODIFIED: EventType.MODIFIED,
    ChangeType.DELETED: EventType.DELETED,
}


class Filter:
    """Which resources a watch is about. Equal filters share a channel."""

    __slots__ = ("kind", "labels", "name", "namespace")

    def __init__(self, kind: Kind, namespace: str | None, name: str | None, labels: Selector | None) -> None:
        """None means any."""
        self.kind = kind
        self.namespace = namespace
        self.name = name
        self.labels = labels

    def covers(self, notice: Notice) -> bool:
        """Return whether the notice's object is within kind, namespace and name."""
        metadata = notice.resource.metadata
        return (
            notice.resource.kind is self.kind
            and (self.namespace is None or self.namespace == metadata.namespace)
            and (self.name is None or self.name == metadata.name)
        )

    def event_type(self, notice: Notice) -> EventType | None:
        """Return what a covered notice is to this filter: an object may start or stop to match by its labels."""
        if self.labels is None:
            return _TYPES[notice.kind]
        previous = notice.previous
        was = previous is not None and self.labels.matches(previous.metadata.labels)
        now = notice.kind is not ChangeType.DELETED and self.labels.matches(notice.resource.metadata.labels)
        if now:
            return EventType.MODIFIED if was else EventType.ADDED
        return EventType.DELETED if was else None


class Channel:
    """The watchers of one filter."""

    def __init__(self, filter_: Filter, observer: StoreObserver, loop: asyncio.AbstractEventLoop) -> None:
        """Start without watchers."""
        self.filter = filter_
        self.observer = observer
        self.loop = loop
        self.streams: dict[Stream, None] = {}
        self.waiting: dict[Stream, None] = {}
        self._log: list[Event] = []
        self._start = 0
        self._is_cutting = False

    @property
    def end(self) -> int:
        """Number of the next event."""
        return self._start + len(self._log)

    @property
    def last(self) -> Event:
        """The newest event."""
        return self._log[-1]

    def since(self, number: int) -> Sequence[Event]:
        """Return the events from *number* on."""
        return self._log[number - self._start :]

    def append(self, event: Event) -> None:
        """Take in one event; the hub wakes the watchers."""
        self._log.append(event)
        if len(self._log) > LOG_EVENTS_MAX and not self._is_cutting:
            self._is_cutting = True
            self.loop.call_soon(self._cut, [*self.streams])

    def _cut(self, behind: list[Stream]) -> None:
        """Let a few watchers fold; when none is behind any more, drop what all have passed."""
        keep_from = self.end - LOG_EVENTS_MAX // 2
        folds = 0
        while behind and folds < _FOLDS_PER_STEP:
            stream = behind.pop()
            if stream in self.streams and stream.cursor < keep_from:
                stream.fold()
                folds += 1
        if behind:
            self.loop.call_soon(self._cut, behind)
            return
        self._is_cutting = False
        start = min((stream.cursor for stream in self.streams), default=self.end)
        del self._log[: start - self._start]
        self._start = start
