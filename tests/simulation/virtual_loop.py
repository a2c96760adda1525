"""An event loop on virtual time: no files, no threads, no waiting; the same seed gives the same order of everything.

Rules:

* Ready callbacks run first in, first out, as asyncio promises; nothing is shuffled that real loops keep in order.
* Time stands still while callbacks run. Whoever drives the loop moves it on, to the next timer or the next fault.
* Everything a real loop could wait for (sockets, threads, processes, signals) raises, as the abstract loop has it or
  because it is overridden here. A loop that is asked to turn for ever at one instant is a livelock and raises, too.
* ``kill`` is what a power cut is to a process: nothing scheduled on the loop ever runs again, no clean-up either.

Several loops may share one ``VirtualTime``: each start of the simulated server has a loop of its own.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, Final, NoReturn, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

# A step of the server takes tens of callbacks; this many at one instant are a loop that feeds itself.
CALLBACKS_PER_INSTANT_MAX: Final = 20_000


class LivelockError(AssertionError):
    """Callbacks keep scheduling callbacks and time does not move on."""


class ThreadUsedError(AssertionError):
    """Something wants a thread, whose timing no seed decides."""


class VirtualTime:
    """Seconds since the start of the simulation."""

    __slots__ = ("now_s",)

    def __init__(self) -> None:
        self.now_s = 0.0


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs what is ready and what is due when it is told to; ``problems`` collects what nobody handled."""

    def __init__(self, time: VirtualTime) -> None:
        # Asked for while the parent is made.
        self._is_dead = self._is_turning = False
        super().__init__()
        self._time = time
        self._now: deque[asyncio.Handle] = deque()
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._sequence = 0
        self._tasks: dict[asyncio.Future[Any], None] = {}
        self.callback_count = 0
        self.problems: list[str] = []

    # What asyncio asks of a loop.

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self._time.now_s

    def get_debug(self) -> bool:
        """Return False: debugging aids read the real clock."""
        return False

    def is_running(self) -> bool:
        """Return whether callbacks run just now."""
        return self._is_turning

    def is_closed(self) -> bool:
        """Return whether the loop was killed."""
        return self._is_dead

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """Queue *callback* behind what is ready."""
        handle = asyncio.Handle(callback, args, self, context)
        if not self._is_dead:
            self._now.append(handle)
        return handle

    def call_later(
        self, delay: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Queue *callback* for *delay* seconds from now."""
        return self.call_at(self._time.now_s + max(0.0, delay), callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Queue *callback* for a time; among equals the first queued comes first."""
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        if not self._is_dead:
            self._sequence += 1
            heapq.heappush(self._timers, (when, self._sequence, handle))
        return handle

    def call_soon_threadsafe(self, callback: object, *_args: object, context: Context | None = None) -> NoReturn:
        """Refuse: there are no threads."""
        raise ThreadUsedError(f"{callback!r} is called from a thread, in {context}")

    def run_in_executor(self, executor: object, func: object, *_args: object) -> NoReturn:
        """Refuse: there are no threads."""
        raise ThreadUsedError(f"{func!r} wants a thread of {executor}")

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Leave a cancelled timer where it is: it is dropped when it comes up."""

    def create_future(self) -> asyncio.Future[Any]:
        """Return a future of this loop."""
        return asyncio.Future(loop=self)

    def create_task(
        self,
        coro: Coroutine[Any, Any, T],  # type: ignore[override]  # awaitable generators are no part of this code base
        *,
        name: object = None,
        context: Context | None = None,
    ) -> asyncio.Task[T]:
        """Start *coro* at the next turn."""
        task: asyncio.Task[T] = asyncio.Task(coro, loop=self, name=None if name is None else str(name), context=context)
        self._tasks[task] = None
        task.add_done_callback(self._forget)
        return task

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Note what nobody handled."""
        if not self._is_dead:
            self.problems.append(f"{context.get('message')}: {context.get('exception')!r}")

    # What the simulation does with it.

    def run_ready(self) -> None:
        """Run what is ready and due until there is nothing more to do at this instant. Raises LivelockError."""
        if self._is_dead:
            return
        asyncio._set_running_loop(self)
        self._is_turning = True
        turns = 0
        try:
            while True:
                self._take_due()
                if not self._now:
                    return
                while self._now:
                    handle = self._now.popleft()
                    turns += 1
                    if not handle.cancelled():
                        handle._run()
                    if self.is_closed():
                        return
                    if turns > CALLBACKS_PER_INSTANT_MAX:
                        raise LivelockError(f"more than {turns} callbacks at {self._time.now_s:.6f} s, now {handle!r}")
        finally:
            self.callback_count += turns
            self._is_turning = False
            asyncio._set_running_loop(None)

    def next_at(self) -> float | None:
        """Return when something is due next; None if nothing is."""
        if self._now:
            return self._time.now_s
        while self._timers and self._timers[0][2].cancelled():
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    async def pause(self, duration_s: float) -> None:
        """Return after so many virtual seconds."""
        done = self.create_future()
        timer = self.call_later(duration_s, _wake, done)
        try:
            await done
        finally:
            timer.cancel()

    def kill(self) -> None:
        """Stop for ever, in the middle of everything."""
        self._is_dead = True
        self._now.clear()
        self._timers.clear()

    def bury(self) -> None:
        """Take apart what a killed loop left suspended, so that it does not complain when it is collected."""
        tasks, self._tasks = self._tasks, {}
        for task in tasks:
            coroutine = task.get_coro() if isinstance(task, asyncio.Task) else None
            if coroutine is None or task.done():
                continue
            try:
                coroutine.close()
            except RuntimeError:
                # It waits for something in its clean-up; a process that lost its power does not clean up either.
                continue

    def _take_due(self) -> None:
        now_s = self._time.now_s
        timers = self._timers
        while timers and timers[0][0] <= now_s:
            handle = heapq.heappop(timers)[2]
            if not handle.cancelled():
                self._now.append(handle)

    def _forget(self, task: asyncio.Future[Any]) -> None:
        self._tasks.pop(task, None)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
