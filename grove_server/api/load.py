"""How many calls are being served, per class; who is refused, and whether the loops should let calls go first.

Reads that never wait are not counted one by one: each is served within one step of the event loop, so what bounds them
is the transport's queue of new calls. Their arrival still counts as traffic.
"""

from __future__ import annotations

import asyncio
import enum
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from grove_server.api.reasons import ApiError, Reason
from grove_server.settings import Settings
from grove_server.telemetry import metrics

# A client with calls in flight sends the next one well within this time after an answer.
TRAFFIC_WINDOW_S: Final = 0.003


class CallClass(enum.StrEnum):
    """Classes of calls, each with its own limit, so that watches cannot starve writes."""

    READ = "read"
    WRITE = "write"
    WATCH = "watch"


class Load:
    """Counts calls in flight. Owned by the event loop."""

    def __init__(self, limits: Mapping[CallClass, int], *, monotonic: Callable[[], float] = time.perf_counter) -> None:
        self._limits = dict(limits)
        self._in_flight = dict.fromkeys(CallClass, 0)
        self._gauges = {each: metrics.RPC_IN_FLIGHT.labels(each) for each in CallClass}
        self._rejected = {each: metrics.RPC_REJECTED.labels(each) for each in CallClass}
        self._monotonic = monotonic
        self._idle: asyncio.Event | None = None
        self.arrived_s = float("-inf")

    @contextmanager
    def slot(self, call_class: CallClass) -> Iterator[None]:
        """Hold one slot of the class. Raises ApiError if it is full."""
        count = self._in_flight[call_class]
        if count >= self._limits[call_class]:
            self._rejected[call_class].inc()
            is_watch = call_class is CallClass.WATCH
            raise ApiError(
                reason=Reason.TOO_MANY_WATCHES if is_watch else Reason.TOO_MANY_CALLS,
                message=f"the server is at its limit of {self._limits[call_class]} {call_class} calls at a time",
                metadata={"limit": str(self._limits[call_class])},
                retry_after_s=1.0,
            )
        self._in_flight[call_class] = count + 1
        self._gauges[call_class].inc()
        try:
            yield
        finally:
            self._in_flight[call_class] -= 1
            self._gauges[call_class].dec()
            if self._idle is not None and not self.total:
                self._idle.set()

    def in_flight(self, call_class: CallClass) -> int:
        """Return how many calls of the class are being served."""
        return self._in_flight[call_class]

    @property
    def total(self) -> int:
        """Return how many calls are being served in all."""
        return sum(self._in_flight.values())

    async def until_idle(self) -> None:
        """Return when no call is being served."""
        if self.total:
            self._idle = asyncio.Event()
            await self._idle.wait()

    def busy(self) -> bool:
        """Return whether calls wait for their answer or came in just now, so that background work should yield."""
        return (
            self._in_flight[CallClass.WRITE] > 0
            or self._in_flight[CallClass.READ] > 0
            or self._monotonic() - self.arrived_s < TRAFFIC_WINDOW_S
        )


def load_of(settings: Settings) -> Load:
    """Return the accounting with the limits that *settings* give."""
    return Load(
        {
            CallClass.READ: settings.reads_max,
            CallClass.WRITE: settings.writes_max,
            CallClass.WATCH: settings.watches_max,
        }
    )
