"""How the loops share the one event loop: short steps, and calls go first.

A loop works for at most STEP_S, then lets everybody else run. While calls are being served it steps aside further, up
to YIELD_MAX_S in a row, so that a burst of calls is answered before the work it caused is done, and the work still
cannot starve.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

STEP_S: Final = 0.003
YIELD_MAX_S: Final = 0.1
_YIELD_PAUSE_S: Final = 0.002


class Pace:
    """One loop's sense of how long it has been at it. *busy* says whether calls are in flight.

    *stopwatch* gives seconds that only differences are taken of; a simulation hands in its own, so that how fast the
    machine is decides nothing.
    """

    def __init__(self, busy: Callable[[], bool], stopwatch: Callable[[], float] = time.perf_counter) -> None:
        self._busy = busy
        self.stopwatch = stopwatch
        self._step_ends_at = 0.0

    def begin(self) -> None:
        """Start a step."""
        self._step_ends_at = self.stopwatch() + STEP_S

    @property
    def is_due(self) -> bool:
        """Whether the step is used up."""
        return self.stopwatch() >= self._step_ends_at

    async def breathe(self, *, calls_first: bool = True) -> None:
        """Let others run, calls first unless told otherwise; then start a new step."""
        await asyncio.sleep(0)
        if calls_first and self._busy():
            give_up_at = self.stopwatch() + YIELD_MAX_S
            # No event: the calls would have to set and clear it at each turn, and they are what must be fast.
            while self._busy() and self.stopwatch() < give_up_at:  # noqa: ASYNC110 -- see above
                await asyncio.sleep(_YIELD_PAUSE_S)
        self.begin()
