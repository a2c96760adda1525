"""The time the server lives in. Tests give the loops another one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol


class Clock(Protocol):
    """Epoch seconds for what is stored and shown; steady seconds for delays, which no setting of a clock moves."""

    def now(self) -> float:
        """Return the epoch time in seconds."""

    async def sleep_until(self, when_s: float) -> None:
        """Return when ``now()`` has reached *when_s*; at once if it has already."""

    def steady(self) -> float:
        """Return seconds since some moment; they pass as time does, whatever the clock is set to."""

    async def sleep(self, duration_s: float) -> None:
        """Return after so many steady seconds."""


class SystemClock:
    """The machine's clock, or what stands for it."""

    def __init__(
        self, read: Callable[[], float] = time.time, read_steady: Callable[[], float] = time.monotonic
    ) -> None:
        self._read = read
        self._read_steady = read_steady

    def now(self) -> float:
        """Return the epoch time in seconds."""
        return self._read()

    async def sleep_until(self, when_s: float) -> None:
        """Return when the machine's clock has reached *when_s*."""
        # In pieces, because the clock may be set while we wait.
        while (left_s := when_s - self._read()) > 0:  # noqa: ASYNC110 -- time has no event to wait for
            await asyncio.sleep(min(left_s, 60.0))

    def steady(self) -> float:
        """Return seconds that only go forward."""
        return self._read_steady()

    async def sleep(self, duration_s: float) -> None:
        """Return after so many steady seconds."""
        await asyncio.sleep(duration_s)
