"""A real store, a clock that stands still, and runtimes over them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from grove_server.lifecycle.plan import Note
from grove_server.resources import codec
from grove_server.runtime.fake import FakeRuntime
from grove_server.store import SqliteStore
from grove_server.store.interface import Store
from tests.unit.runtime.simulated import SteppedClock, node, put, template

StartRuntime = Callable[[], Awaitable[FakeRuntime]]


@pytest.fixture
def clock() -> SteppedClock:
    """Return a clock that stands still."""
    return SteppedClock()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    """Return a store with one node and one pod template."""
    made = SqliteStore(tmp_path / "grove.db", codec)
    await made.open()
    await put(made, template(), node())
    yield made
    await made.close()


@pytest.fixture
def notes() -> list[Note]:
    """Return what the runtimes of this test wanted people to know, in order."""
    return []


@pytest.fixture
async def start_runtime(store: Store, clock: SteppedClock, notes: list[Note]) -> AsyncIterator[StartRuntime]:
    """Return how to start a runtime; those that were started are stopped after the test."""
    started: list[FakeRuntime] = []

    async def start() -> FakeRuntime:
        runtime = FakeRuntime(store, clock, note=notes.extend)
        await runtime.start()
        started.append(runtime)
        return runtime

    yield start
    for runtime in started:
        await runtime.stop()
