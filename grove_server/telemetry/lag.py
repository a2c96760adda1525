"""How late the event loop is: a timer every few milliseconds that compares when it ran with when it should have.

A long step hides the samples that would have been taken during it. They are filled in (each one interval shorter), so
that one step of 100 ms weighs as much as it held others up: the correction for coordinated omission of HdrHistogram.
A sample costs about 2 µs, 200 samples a second about 0.05 % of a core, and waking up for them 2 % where nothing else
happens; so an idle server may sample less often, and sees the typical lag as well.

No long step is missed for that: `StepSelector` times each step, which is what the loop does between two waits for
something to happen. That costs about 0.3 µs a step, and nothing while the loop waits.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Callable
from typing import Final

from grove_server.telemetry import metrics
from grove_server.telemetry.logs import get_logger

INTERVAL_S: Final = 0.005
# A suspended machine must not cost thousands of observations.
FILLED_MAX: Final = 500
# Steps this long are reported: something did not slice its work.
REPORTED_LAG_S: Final = 0.25
# At most one report in this time, with the number of those left out.
REPORT_INTERVAL_S: Final = 10.0

# The house's own limit of a step.
LONG_STEP_S: Final = 0.01

_log = get_logger("event-loop")


class StepSelector(selectors.DefaultSelector):
    """A selector that counts the steps of its loop that were long."""

    def __init__(self, *, now: Callable[[], float] = time.perf_counter) -> None:
        super().__init__()
        self._now = now
        self._woke_s = now()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait; the step that ends here is counted if it was long."""
        if self._now() - self._woke_s > LONG_STEP_S:
            metrics.LOOP_LONG_STEPS.inc()
        found = super().select(timeout)
        self._woke_s = self._now()
        return found


def open_loop() -> asyncio.AbstractEventLoop:
    """Return an event loop whose long steps are counted."""
    return asyncio.SelectorEventLoop(StepSelector())


class LagWatch:
    """Samples the lag of the running loop from `start` until `stop`."""

    def __init__(self, interval_s: float = INTERVAL_S) -> None:
        self._interval_s = interval_s
        self._timer: asyncio.TimerHandle | None = None
        self._due_s = 0.0
        self._reported_s = float("-inf")
        self._suppressed_count = 0

    def start(self) -> None:
        """Begin to sample on the running loop."""
        self.stop()
        self._arm(asyncio.get_running_loop())

    def stop(self) -> None:
        """End sampling; stopping twice is fine."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        self._due_s = loop.time() + self._interval_s
        self._timer = loop.call_at(self._due_s, self._sample, loop)

    def _sample(self, loop: asyncio.AbstractEventLoop) -> None:
        lag_s = max(0.0, loop.time() - self._due_s)
        observe(lag_s, self._interval_s)
        if lag_s >= REPORTED_LAG_S:
            self._report(lag_s, loop.time())
        self._arm(loop)

    def _report(self, lag_s: float, now_s: float) -> None:
        if now_s - self._reported_s < REPORT_INTERVAL_S:
            self._suppressed_count += 1
            return
        _log.warning("event_loop_was_held_up", lag_s=round(lag_s, 3), suppressed_count=self._suppressed_count)
        self._reported_s = now_s
        self._suppressed_count = 0


def observe(lag_s: float, interval_s: float) -> int:
    """Record one lag and the samples it hid; return how many were recorded."""
    recorded = 0
    while recorded <= FILLED_MAX:
        metrics.LOOP_LAG_SECONDS.observe(lag_s)
        recorded += 1
        lag_s -= interval_s
        if lag_s < interval_s:
            break
    return recorded
