"""Launchers over a data directory of the test's own; whatever they started is killed after it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from grove_server.runtime.process.launching import Launcher
from tests.unit.runtime.process.containers import Ends

StartLauncher = Callable[[], Awaitable[Launcher]]


@pytest.fixture
def ends() -> Ends:
    """Return the ends that the launchers of this test report."""
    return Ends()


@pytest.fixture
async def start_launcher(tmp_path: Path, ends: Ends) -> AsyncIterator[StartLauncher]:
    """Return how to start a launcher over the test's data directory; one after the other, as servers are."""

    async def start() -> Launcher:
        launcher = Launcher(tmp_path, on_end=ends)
        await launcher.start()
        started.append(launcher)
        return launcher

    started: list[Launcher] = []
    yield start
    for launcher in started:
        await launcher.stop()
    last = Launcher(tmp_path)
    await last.start()
    await asyncio.gather(*(last.kill(run) for run in last.adopt()))
    await last.stop()


@pytest.fixture
async def launcher(start_launcher: StartLauncher) -> Launcher:
    """Return a launcher that has been started."""
    return await start_launcher()
