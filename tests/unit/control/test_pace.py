"""Pace: steps are short, and calls go first for a while."""

from __future__ import annotations

import asyncio

from grove_server.control.pace import STEP_S, YIELD_MAX_S, Pace


class Watch:
    """A stopwatch that moves when told, or a little at each look."""

    def __init__(self, tick_s: float = 0.0) -> None:
        self.now_s = 0.0
        self._tick_s = tick_s

    def __call__(self) -> float:
        """Return the time."""
        self.now_s += self._tick_s
        return self.now_s


async def test_a_step_ends_after_its_time() -> None:
    """A step is used up after STEP_S, and a breath starts a new one after letting others run."""
    watch = Watch()
    pace = Pace(lambda: False, watch)
    pace.begin()
    due = [pace.is_due]
    watch.now_s += STEP_S
    due.append(pace.is_due)
    assert due == [False, True]
    others: list[str] = []
    asyncio.get_running_loop().call_soon(others.append, "ran")
    await pace.breathe()
    assert others == ["ran"]
    assert not pace.is_due


async def test_calls_go_first() -> None:
    """While calls are in flight a breath lasts, and ends when they have been answered."""
    busy = [True, True, True]
    pace = Pace(lambda: bool(busy) and busy.pop(), Watch())
    await pace.breathe()
    assert busy == []


async def test_work_does_not_starve() -> None:
    """However busy the calls, a breath ends after YIELD_MAX_S."""
    watch = Watch(tick_s=YIELD_MAX_S / 4)
    await Pace(lambda: True, watch).breathe()
    assert watch.now_s <= 2 * YIELD_MAX_S
