"""Turns: a burst of calls is spread over steps of the event loop."""

import asyncio

from grove_server.api.turns import Turns


async def test_burst_is_spread_over_steps() -> None:
    """Of ten calls that arrive in one step, two run in each."""
    turns = Turns(per_step=2)
    steps: list[int] = []
    step = 0

    async def call() -> None:
        await turns.take()
        steps.append(step)

    calls = [asyncio.create_task(call()) for _ in range(10)]
    while not all(each.done() for each in calls):
        await asyncio.sleep(0)
        step += 1
    counts = [steps.count(each) for each in sorted(set(steps))]
    assert sum(counts) == 10
    assert max(counts) <= 2


async def test_turns_come_in_order_of_arrival() -> None:
    """Nobody overtakes, however many wait."""
    turns = Turns(per_step=1)
    order: list[int] = []

    async def call(number: int) -> None:
        await turns.take()
        order.append(number)

    await asyncio.gather(*(call(number) for number in range(20)))
    assert order == list(range(20))


async def test_caller_that_gives_up_costs_no_turn() -> None:
    """A cancelled caller's turn goes to the next one."""
    turns = Turns(per_step=1)
    served, given_up, waiting = (asyncio.create_task(turns.take()) for _ in range(3))
    await asyncio.sleep(0)
    assert not given_up.done()
    given_up.cancel()
    await asyncio.wait_for(waiting, timeout=5)
    assert served.done()
    assert given_up.cancelled()
