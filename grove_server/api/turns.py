"""A few changing calls in each step of the event loop, so that a burst of them does not hold up everything else.

Deciding a change takes about a millisecond of the loop. The transport hands over a burst of calls in one step; without
turns the step would take as long as all of them together, and watches, probes and the loops would wait for it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

TURNS_PER_STEP: Final = 4


class Turns:
    """First come, first served, TURNS_PER_STEP in a step of the loop. Owned by the event loop."""

    def __init__(self, per_step: int = TURNS_PER_STEP) -> None:
        self._per_step = per_step
        self._taken = 0
        self._is_ending = False
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def take(self) -> None:
        """Return when it is the caller's turn."""
        loop = asyncio.get_running_loop()
        if not self._is_ending:
            self._is_ending = True
            loop.call_soon(self._end_step, loop)
        if self._taken < self._per_step and not self._waiting:
            self._taken += 1
            return
        turn: asyncio.Future[None] = loop.create_future()
        self._waiting.append(turn)
        await turn

    def _end_step(self, loop: asyncio.AbstractEventLoop) -> None:
        self._is_ending = False
        self._taken = 0
        while self._waiting and self._taken < self._per_step:
            turn = self._waiting.popleft()
            # A caller that gave up needs no turn.
            if not turn.done():
                turn.set_result(None)
                self._taken += 1
        if self._waiting:
            self._is_ending = True
            loop.call_soon(self._end_step, loop)
