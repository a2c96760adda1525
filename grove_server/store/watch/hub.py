"""The hub: one pass over each batch of changes serves every watch, however many there are.

It keeps the window of changes that resume tokens can start from, finds the channels a change concerns by kind,
namespace and name, wakes watchers a slice at a time, and offers bookmarks to the idle.

Resuming. The window holds the last ``window_changes`` changes since the start of the server (references only: the
resources of the window stay in memory). A token from before the start still works while nothing was deleted since it
was given: then the state's own versions tell what changed. What changed before the start comes as ADDED, because
whether the reader knew the object is not recorded; for a filter by labels, what does not match comes as DELETED.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, cast

from grove_server.resources.meta import Kind, Resource
from grove_server.store import tokens
from grove_server.store.errors import StoreClosedError, TokenExpiredError, WatchLimitError
from grove_server.store.interface import ChangeType, EventType, Notice, Selector, StoreObserver, Watch, WatchEvent
from grove_server.store.state import State
from grove_server.store.watch.channel import Channel, Filter
from grove_server.store.watch.stream import Stream, folded, identity_of

# Waking a watcher makes its task ready; with about 40 µs for a stream write, a slice is 5 ms of the loop.
WAKES_PER_STEP: Final = 128
# Bookmarks are looked for this often per interval, so one is at most an eighth late.
_TICKS_PER_INTERVAL: Final = 8

_FilterKey = tuple[Kind, str | None, str | None, Selector | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchLimits:
    """Bounds of watches.

    ``pending_max`` counts objects with unread changes per watch, ``watches_max`` open watches, ``window_changes`` the
    changes that can be resumed over.
    """

    window_changes: int = 10_000
    pending_max: int = 10_000
    watches_max: int = 20_000
    bookmark_interval_s: float = 30.0


class WatchHub:
    """All watches of one store. Lives on the event loop."""

    def __init__(
        self,
        state: State,
        *,
        epoch: int,
        deleted_version: int,
        limits: WatchLimits,
        observer: StoreObserver,
    ) -> None:
        """Start at the state as loaded; ``deleted_version`` is that of the newest deletion before the start."""
        self._state = state
        self._epoch = epoch
        self._limits = limits
        self._observer = observer
        self._loop = asyncio.get_running_loop()
        # Version of the newest change that was fanned out.
        self.version = state.version
        self._start_version = state.version
        self._deleted_version = deleted_version
        self._window: deque[Notice] = deque()
        self._channels: dict[_FilterKey, Channel] = {}
        # Channels by what they name, so that a thousand watches of single objects cost the others nothing.
        self._routes: dict[Kind, dict[tuple[str | None, str | None], list[Channel]]] = {}
        self._streams: dict[Stream, None] = {}
        self._to_wake: deque[Stream] = deque()
        self._is_waking = False
        self._ticker: asyncio.TimerHandle | None = None
        self._start_token = tokens.mint(epoch, tokens.START)

    @property
    def oldest_version(self) -> int:
        """The oldest version that can be resumed from."""
        return self._deleted_version

    def watch(
        self, kind: Kind, *, namespace: str | None, name: str | None, labels: Selector | None, token: str | None
    ) -> Watch:
        """Start a watch. Raises TokenInvalidError, TokenExpiredError or WatchLimitError."""
        if len(self._streams) >= self._limits.watches_max:
            raise WatchLimitError(self._limits.watches_max)
        since = tokens.START if token is None else self._resumed_version(token)
        key = (kind, namespace, name, labels)
        channel = self._channels.get(key)
        filter_ = Filter(kind, namespace, name, labels) if channel is None else channel.filter
        # While the notices of a large commit are still on their way, the state is ahead of what was fanned out. A list
        # is of the state, so those notices add nothing to it; what changed since a token is known as far as they went.
        if since == tokens.START:
            floor = self._state.version
            first, token = self._whole(filter_, floor), self._start_token
        else:
            floor = max(since, self.version)
            first, token = iter(self._since(filter_, since, floor)), tokens.mint(self._epoch, since)
        if channel is None:
            channel = self._channels[key] = Channel(filter_, self._observer, self._loop)
            self._routes.setdefault(kind, {}).setdefault((namespace, name), []).append(channel)
        stream = Stream(
            channel,
            first=first,
            token=token,
            floor=floor,
            pending_max=self._limits.pending_max,
            now_s=self._loop.time(),
            ended=self._ended,
        )
        channel.streams[stream] = None
        self._streams[stream] = None
        self._observer.watches(len(self._streams))
        if self._ticker is None:
            self._tick_later()
        return stream

    def publish(self, notices: Sequence[Notice]) -> None:
        """Take in changes that became visible."""
        window = self._window
        window.extend(notices)
        for _ in range(len(window) - self._limits.window_changes):
            self._deleted_version = window.popleft().version
            self._start_version = 0
        for notice in notices:
            routes = self._routes.get(notice.resource.kind)
            if routes:
                self._route(notice, routes)
        self.version = notices[-1].version
        self._wake_soon()

    def close(self) -> None:
        """End all watches."""
        for stream in [*self._streams]:
            stream.end(StoreClosedError("the store is closed"))
        if self._ticker is not None:
            self._ticker.cancel()
            self._ticker = None

    def _route(self, notice: Notice, routes: dict[tuple[str | None, str | None], list[Channel]]) -> None:
        metadata = notice.resource.metadata
        namespace, name = metadata.namespace, metadata.name
        events: dict[EventType, WatchEvent] = {}
        for where in ((None, None), (namespace, None), (namespace, name), (None, name)):
            for channel in routes.get(where, ()):
                type_ = channel.filter.event_type(notice)
                if type_ is None:
                    continue
                event = events.get(type_)
                if event is None:
                    event = events[type_] = self._event(type_, notice.resource, notice.version)
                channel.append(event)
                if channel.waiting:
                    self._to_wake.extend(channel.waiting)
                    channel.waiting.clear()

    def _event(self, type_: EventType, resource: Resource | None, version: int) -> WatchEvent:
        return WatchEvent(type_, resource, version, tokens.mint(self._epoch, version))

    def _wake_soon(self) -> None:
        if self._to_wake and not self._is_waking:
            self._is_waking = True
            self._loop.call_soon(self._wake_some)

    def _wake_some(self) -> None:
        self._is_waking = False
        to_wake = self._to_wake
        for _ in range(min(WAKES_PER_STEP, len(to_wake))):
            to_wake.popleft().wake()
        self._wake_soon()

    def _ended(self, stream: Stream) -> None:
        channel = stream.channel
        self._streams.pop(stream, None)
        channel.streams.pop(stream, None)
        channel.waiting.pop(stream, None)
        self._observer.watches(len(self._streams))
        if channel.streams:
            return
        filter_ = channel.filter
        self._channels.pop((filter_.kind, filter_.namespace, filter_.name, filter_.labels), None)
        routes = self._routes[filter_.kind]
        where = (filter_.namespace, filter_.name)
        routes[where].remove(channel)
        if not routes[where]:
            del routes[where]

    # First events: the whole state, or what changed since a token.

    def _resumed_version(self, token: str) -> int:
        epoch, version = tokens.parse(token)
        if epoch != self._epoch:
            raise TokenExpiredError("the token is of another database, or from before a restore", self.oldest_version)
        if version == tokens.START:
            return version
        if version > self._state.version:
            raise TokenExpiredError("the token is newer than the database", self.oldest_version)
        if version < self.oldest_version:
            raise TokenExpiredError("the token is older than the changes kept", self.oldest_version)
        return version

    def _whole(self, filter_: Filter, floor: int) -> Iterator[WatchEvent]:
        """Yield the state as of now; only references are taken now, events are made as they are read."""
        if filter_.name is not None and filter_.namespace is not None:
            one = self._state.get(filter_.kind, filter_.namespace, filter_.name)
            resources: Sequence[Resource] = [] if one is None else [one]
        else:
            resources = self._state.list(filter_.kind, filter_.namespace)
        return self._whole_events(filter_, resources, floor)

    def _whole_events(self, filter_: Filter, resources: Sequence[Resource], floor: int) -> Iterator[WatchEvent]:
        added = EventType.ADDED
        for resource in resources:
            metadata = resource.metadata
            if filter_.name is not None and metadata.name != filter_.name:
                continue
            if filter_.labels is None or filter_.labels.matches(metadata.labels):
                # No token: from the middle of the state there is no way to go on but to hear it all again.
                yield WatchEvent(added, resource, resource.resource_version, "")
        yield self._event(EventType.SYNCED, None, floor)

    def _since(self, filter_: Filter, version: int, floor: int) -> list[WatchEvent]:
        """Return what changed after *version*, folded per object, in the order of versions, and SYNCED."""
        found: dict[tuple[str, str, str], WatchEvent] = {}
        for event in self._events_since(filter_, version, floor):
            identity = identity_of(cast("Resource", event.resource))
            earlier = found.pop(identity, None)
            found[identity] = event if earlier is None else folded(earlier, event)
        return [*found.values(), self._event(EventType.SYNCED, None, floor)]

    def _events_since(self, filter_: Filter, version: int, floor: int) -> Iterator[WatchEvent]:
        recent: list[Notice] = []
        for notice in reversed(self._window):
            if notice.version <= version:
                break
            if filter_.covers(notice):
                recent.append(notice)
        is_from_before = version < self._start_version
        if is_from_before:
            yield from self._events_from_state(filter_, version, floor, recent)
            return
        for notice in reversed(recent):
            type_ = filter_.event_type(notice)
            if type_ is not None:
                yield self._event(type_, notice.resource, notice.version)

    def _events_from_state(
        self, filter_: Filter, version: int, floor: int, recent: list[Notice]
    ) -> Iterator[WatchEvent]:
        """Yield what the state's versions and the deletions since the start tell, in the order of versions."""
        changed = [
            (resource.resource_version, ChangeType.ADDED, resource)
            for resource in self._state.list(filter_.kind, filter_.namespace)
            if version < resource.resource_version <= floor
            and (filter_.name is None or resource.metadata.name == filter_.name)
        ]
        changed.extend(
            (notice.version, notice.kind, notice.resource) for notice in recent if notice.kind is ChangeType.DELETED
        )
        changed.sort(key=lambda change: change[0])
        for changed_version, kind, resource in changed:
            is_gone = kind is ChangeType.DELETED or not (
                filter_.labels is None or filter_.labels.matches(resource.metadata.labels)
            )
            yield self._event(EventType.DELETED if is_gone else EventType.ADDED, resource, changed_version)

    # Bookmarks.

    def _tick_later(self) -> None:
        self._ticker = self._loop.call_later(self._limits.bookmark_interval_s / _TICKS_PER_INTERVAL, self._tick)

    def _tick(self) -> None:
        """Offer a bookmark to all who got nothing for almost an interval."""
        self._ticker = None
        if not self._streams:
            return
        due_s = self._loop.time() - self._limits.bookmark_interval_s * (1 - 1 / _TICKS_PER_INTERVAL)
        idle = [stream for stream in self._streams if stream.sent_at_s <= due_s]
        if idle:
            self._offer(self._event(EventType.BOOKMARK, None, self.version), idle)
        self._tick_later()

    def _offer(self, bookmark: WatchEvent, idle: list[Stream]) -> None:
        for stream in idle[:WAKES_PER_STEP]:
            stream.offer_bookmark(bookmark)
        if len(idle) > WAKES_PER_STEP:
            self._loop.call_soon(self._offer, bookmark, idle[WAKES_PER_STEP:])
