"""Waiting for a condition: the one place in the tests that lets time pass.

A test names what it waits for and the longest it is willing to wait; it goes on the moment the condition holds. The
limit is a guard against hanging, not a measurement, so it is generous: shared machines pause.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

POLL_INTERVAL_S: Final = 0.005
WAIT_MAX_S: Final = 30.0

T = TypeVar("T")


async def until(condition: Callable[[], bool], what: str, *, within_s: float = WAIT_MAX_S) -> None:
    """Return as soon as *condition* holds; raise AssertionError naming *what* if it does not within the limit."""
    give_up_at_s = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > give_up_at_s:
            message = f"not within {within_s:g} s: {what}"
            raise AssertionError(message)
        await asyncio.sleep(POLL_INTERVAL_S)


def until_blocking(condition: Callable[[], bool], what: str, *, within_s: float = WAIT_MAX_S) -> None:
    """Do the same without an event loop, for tests that drive other processes."""
    give_up_at_s = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > give_up_at_s:
            message = f"not within {within_s:g} s: {what}"
            raise AssertionError(message)
        time.sleep(POLL_INTERVAL_S)


async def until_seen(
    look: Callable[[], Awaitable[T]],
    accepts: Callable[[T], bool],
    what: Callable[[T], str],
    *,
    within_s: float = WAIT_MAX_S,
) -> T:
    """Return the first thing seen that *accepts* accepts; *what* words what was waited for, given the last one seen."""
    give_up_at_s = time.monotonic() + within_s
    while not accepts(seen := await look()):
        if time.monotonic() > give_up_at_s:
            message = f"not within {within_s:g} s: {what(seen)}"
            raise AssertionError(message)
        await asyncio.sleep(POLL_INTERVAL_S)
    return seen
