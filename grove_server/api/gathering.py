"""Many changes at a time go to the store together: fewer transactions, so fewer waits for the disk.

The store commits whatever is there when its writer is free. With a fast disk and many callers that is one or two
changes per transaction, and the disk works as often as there are calls. While several changes are in flight, each
waits for a moment that is short against what it waits for anyway, and then all of them are decided in one step of the
event loop. A lone caller never waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

# From so many changes in flight on it pays to wait.
CROWD: Final = 8
# About what admitting one set costs, so that the others in flight can arrive.
WAIT_PER_CHANGE_S: Final = 0.0003
WAIT_S_MAX: Final = 0.020


class Gathering:
    """Holds changes back until the moment all of them go."""

    def __init__(self, in_flight: Callable[[], int]) -> None:
        self._in_flight = in_flight
        self._departure: asyncio.Event | None = None

    async def wait(self) -> None:
        """Return at once, or together with the other changes in flight."""
        crowd = self._in_flight()
        if crowd < CROWD:
            return
        departure = self._departure
        if departure is None:
            departure = self._departure = asyncio.Event()
            wait_s = min(crowd * WAIT_PER_CHANGE_S, WAIT_S_MAX)
            asyncio.get_running_loop().call_later(wait_s, self._depart)
        await departure.wait()

    def _depart(self) -> None:
        departure, self._departure = self._departure, None
        if departure is not None:
            departure.set()
