"""Running a loop for as long as the server lives: a fault is logged, counted and shown, and the loop starts again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from typing import Final

from grove_server.telemetry import metrics
from grove_server.telemetry.logs import get_logger

_RESTART_DELAY_S: Final = 1.0

_log = get_logger("control")


class Supervised:
    """Something with one endless task. ``problem`` is empty while all is well."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.problem = "not started"
        self._task: asyncio.Task[None] | None = None
        self._asides: set[asyncio.Task[None]] = set()

    def run_task(self, body: Callable[[], Awaitable[None]]) -> None:
        """Start the task."""
        self.problem = ""
        self._task = asyncio.create_task(self._supervise(body), name=self.name)

    def run_aside(self, body: Coroutine[None, None, None]) -> None:
        """Run something small beside the task; it ends with it."""
        task = asyncio.ensure_future(body)
        self._asides.add(task)
        task.add_done_callback(self._asides.discard)

    async def stop_task(self) -> None:
        """End the task; harmless if it never ran."""
        for aside in list(self._asides):
            aside.cancel()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        self.problem = "stopped"

    async def _supervise(self, body: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await body()
            except Exception as error:  # noqa: BLE001 -- the supervisor: whatever happens, the server lives on
                metrics.INTERNAL_ERRORS.labels(self.name).inc()
                self.problem = f"failed on {type(error).__name__}, starting again"
                _log.exception("loop_failed", loop=self.name, retry_s=_RESTART_DELAY_S)
            await asyncio.sleep(_RESTART_DELAY_S)
            self.problem = ""
