"""What is told while a decision rests: kept in order, and taken in once the decision is made.

Rules: a plan of evictions takes longer than a step of the event loop may, so it rests and lets others run. What it
reads must not change under it; changes are held back instead, so that it is right as of the moment at which it began,
as if it had been made in one step. They wait as long as the decision takes; nothing is dropped. While many wait, calls
do not go before it, so that it comes to its end: it has every other turn then.

Not here: what the changes do (``placement_loop``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, TypeVar

from grove_server.control.pace import Pace
from grove_server.placement.steps import Steps
from grove_server.telemetry import metrics
from grove_server.telemetry.logs import get_logger

T = TypeVar("T")

HELD_MAX: Final = 1_000
"""Most changes that may wait before the decision lets calls go first no more, so that it comes to its end."""

_log = get_logger("control")


class HoldingBack:
    """The changes of one loop that wait for its decision."""

    def __init__(self, pace: Pace, *, held_max: int = HELD_MAX) -> None:
        self._pace = pace
        self._held_max = held_max
        self._held: deque[Callable[[], None]] | None = None

    @property
    def is_resting(self) -> bool:
        """Whether a decision rests."""
        return self._held is not None

    def take(self, change: Callable[[], None]) -> None:
        """Make a change now, or after the decision that rests."""
        if self._held is None:
            change()
        else:
            self._held.append(change)

    async def finish(self, steps: Steps[T]) -> T:
        """Make a decision and return it; let others run while it rests, and then take in what they told."""
        try:
            while True:
                try:
                    next(steps)
                except StopIteration as done:
                    result: T = done.value
                    return result
                if self._pace.is_due:
                    if self._held is None:
                        self._held = deque()
                    await self._breathe()
        finally:
            await self._let_in()

    async def _let_in(self) -> None:
        while self._held:
            change = self._held.popleft()
            try:
                change()
            except Exception:  # noqa: BLE001 -- a supervised loop: one change's fault must not cost the others
                metrics.INTERNAL_ERRORS.labels("placement").inc()
                _log.exception("change_failed")
            if self._held and self._pace.is_due:
                await self._breathe()
        self._held = None

    async def _breathe(self) -> None:
        await self._pace.breathe(calls_first=self._held is None or len(self._held) < self._held_max)
