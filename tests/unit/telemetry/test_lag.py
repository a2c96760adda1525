"""Steps of the event loop that were too long: each of them is counted, however seldom the lag is sampled."""

from __future__ import annotations

import asyncio

from grove_server.telemetry import metrics
from grove_server.telemetry.lag import LONG_STEP_S, StepSelector


class Clock:
    """A clock that goes on when told."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now_s


def long_steps() -> float:
    """Return how many were counted."""
    found = metrics.REGISTRY.get_sample_value("grove_event_loop_long_steps_total")
    assert found is not None
    return found


def test_each_long_step_is_counted() -> None:
    """A step of more than 10 ms counts once, shorter ones and the time between steps do not."""
    clock = Clock()
    loop = asyncio.SelectorEventLoop(StepSelector(now=clock))
    before = long_steps()

    def work(for_s: float) -> None:
        clock.now_s += for_s

    async def main() -> None:
        for for_s in (LONG_STEP_S / 2, LONG_STEP_S * 1.2, LONG_STEP_S / 2, 5.0):
            loop.call_soon(work, for_s)
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    try:
        loop.run_until_complete(main())
    finally:
        loop.close()
    assert long_steps() - before == 2
