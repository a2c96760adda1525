"""Open watch streams: how events reach the transport, and how all streams end politely when the server drains.

Each event is serialized once for all its watchers (in the event's own ``wire`` place). A stream ends with OUT_OF_RANGE
or INVALID_ARGUMENT at its start, RESOURCE_EXHAUSTED when its reader is too slow, UNAVAILABLE when the server drains;
the last two carry the token to go on from. Streams of other things end with the server, too (``drainable``).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

from grove_server.api.conversions.wire import nested, text
from grove_server.api.pipeline import CLIENT_GONE, Call
from grove_server.api.reasons import ApiError, Reason
from grove_server.api.views import Views
from grove_server.store.errors import StoreClosedError, WatchTooSlowError
from grove_server.store.interface import EventType, Watch, WatchEvent
from grove_server.telemetry import metrics

TYPE_FIELD: Final = 1
OBJECT_FIELD: Final = 2
TOKEN_FIELD: Final = 3
LAG_SAMPLING: Final = 16
# The store offers bookmarks to watches without events; those whose events are all left out get theirs here.
QUIET_S_MAX: Final = 10.0

# From an event to the message of the stream, None to leave it out.
Encode = Callable[[WatchEvent], bytes | None]

_TYPES: Final = {each: text(TYPE_FIELD, each.value) for each in EventType}


class Streams:
    """All open watch streams of the server."""

    def __init__(self, views: Views) -> None:
        self._views = views
        self._open: set[Watch] = set()
        self._limits: set[asyncio.Timeout] = set()
        self.is_draining = False
        self._batches = 0
        self._ended = {
            cause: metrics.WATCH_ENDED.labels(cause)
            for cause in ("client_gone", "too_slow", "draining", "over", "error")
        }

    async def serve(
        self,
        watch: Watch,
        call: Call,
        wanted: Callable[[Any], bool] | None = None,
        *,
        encode: Encode | None = None,
        is_over: Callable[[], bool] | None = None,
    ) -> None:
        """Send the events of *watch* until it ends, those that are *wanted*, or what *encode* makes of each.

        *is_over* is asked after each batch whether the reader has all that it waits for.

        Raises ApiError, StoreError, or what a lost client raises.
        """
        cause = "error"
        self._open.add(watch)
        if self.is_draining:
            watch.close()
        try:
            await self._send(watch, call, wanted, encode, is_over)
            cause = "over"
        except StoreClosedError as error:
            cause = "draining"
            raise draining(watch.token) from error
        except WatchTooSlowError:
            cause = "too_slow"
            raise
        except CLIENT_GONE:
            cause = "client_gone"
            raise
        finally:
            self._open.discard(watch)
            watch.close()
            self._ended[cause].inc()

    async def _send(
        self,
        watch: Watch,
        call: Call,
        wanted: Callable[[Any], bool] | None,
        encode: Encode | None,
        is_over: Callable[[], bool] | None,
    ) -> None:
        write, count_sent, next_batch = call.context.write, call.count_sent, watch.batch
        clock = asyncio.get_running_loop().time
        wrote_at_s = clock()
        while True:
            events = await next_batch()
            started_s = self._lag_started_s()
            sent = 0
            for event in events:
                if wanted is not None and event.resource is not None and not wanted(event.resource):
                    continue
                payload = event.wire if encode is None else encode(event)
                if payload is None:
                    if encode is not None:
                        continue
                    payload = self.wire(event)
                await write(payload)
                sent += 1
            if sent:
                wrote_at_s = clock()
            elif clock() - wrote_at_s >= QUIET_S_MAX:
                # All that happens is not for this reader; without a word its token would grow too old.
                await write(_TYPES[EventType.BOOKMARK] + text(TOKEN_FIELD, watch.token))
                wrote_at_s, sent = clock(), 1
            else:
                # Neither reading nor leaving out waits for anything: a large present state would hold the loop.
                await asyncio.sleep(0)
            count_sent(sent)
            if started_s:
                metrics.WATCH_LAG_SECONDS.observe(time.perf_counter() - started_s)
            if is_over is not None and is_over():
                return

    def _lag_started_s(self) -> float:
        """Return the time for one batch in LAG_SAMPLING, else 0: with a thousand streams, all would cost too much."""
        self._batches += 1
        return 0.0 if self._batches % LAG_SAMPLING else time.perf_counter()

    def wire(self, event: WatchEvent) -> bytes:
        """Return the serialized response of *event*, leaving it for the other streams."""
        head = _TYPES[event.type]
        if event.resource is not None:
            head += nested(OBJECT_FIELD, self._views.of(event.resource))
        event.wire = head + text(TOKEN_FIELD, event.token)
        return event.wire

    @property
    def open_count(self) -> int:
        """Return how many streams are open."""
        return len(self._open)

    @asynccontextmanager
    async def drainable(self) -> AsyncIterator[None]:
        """Run a block that the server's end breaks off. Raises ApiError then."""
        limit = asyncio.timeout(None)
        try:
            async with limit:
                self._limits.add(limit)
                if self.is_draining:
                    limit.reschedule(0.0)
                yield
        except TimeoutError as error:
            if limit.expired():
                raise draining("") from error
            raise
        finally:
            self._limits.discard(limit)

    def drain(self) -> None:
        """End all streams, and from now on each new one at once."""
        self.is_draining = True
        for limit in [*self._limits]:
            # A time in the past is now.
            limit.reschedule(0.0)
        for watch in [*self._open]:
            watch.close()


def draining(token: str) -> ApiError:
    """Return the refusal of a server that is going away."""
    return ApiError(
        reason=Reason.SERVER_DRAINING,
        message="the server is stopping; connect again and resume",
        metadata={"resume_token": token} if token else {},
        retry_after_s=0.5,
    )
