"""What is told while a decision rests waits for it: in order, whatever happens to the decision, and not for long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

import pytest

from grove_server.control.holding_back import HoldingBack
from grove_server.control.pace import Pace
from grove_server.placement.steps import Steps

STEPS = 20


class Watch:
    """A stopwatch that moves so much at each look that every step is over at once."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Return the time."""
        self.now += 0.05
        return self.now


def decision(told: Callable[[int], None]) -> Steps[str]:
    """Return a decision during each step of which something is told."""
    for step in range(STEPS):
        told(step)
        yield
    return "done"


async def test_what_is_told_is_taken_in_afterwards_and_in_order() -> None:
    """Until the decision rests for the first time changes are made at once; one that fails costs no other."""
    back, made = HoldingBack(Pace(lambda: False, Watch())), list[int]()

    def change(step: int) -> None:
        assert step != 5, "a fault"
        made.append(step)

    def told(step: int) -> None:
        back.take(partial(change, step))
        assert made == [0]

    assert await back.finish(decision(told)) == "done"
    assert made == [step for step in range(STEPS) if step != 5]
    assert not back.is_resting


async def test_a_decision_that_is_broken_off_lets_in_what_waited() -> None:
    """Changes are not lost with the decision they waited for."""
    back, made = HoldingBack(Pace(lambda: False, Watch())), list[int]()
    task = asyncio.create_task(back.finish(decision(lambda step: back.take(lambda: made.append(step)))))
    await asyncio.sleep(0)
    rested = [back.is_resting]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert made
    assert [*rested, back.is_resting] == [True, False]
    back.take(lambda: made.append(-1))
    assert made[-1] == -1


async def test_calls_go_first_only_while_little_waits() -> None:
    """Calls that never end could otherwise have changes pile up for as long as they like."""
    told, made = list[int](), list[int]()
    waiting_when_calls_went_first = set[int]()

    def busy() -> bool:
        waiting_when_calls_went_first.add(len(told) - len(made))
        return True

    back = HoldingBack(Pace(busy, Watch()), held_max=8)

    def tell(step: int) -> None:
        told.append(step)
        back.take(lambda: made.append(step))

    assert await back.finish(decision(tell)) == "done"
    assert made == list(range(STEPS))
    assert waiting_when_calls_went_first == set(range(8))
