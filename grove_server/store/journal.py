"""What makes commits durable, as the engine sees it; and the journal that only pretends to.

A journal takes decided commits in order, makes them durable in batches, and reports in the same order, on the event
loop. After a failure it reports once, touches nothing more, and waits for ``reset``: what was queued behind the failed
batch was decided on top of it.

``VolatileJournal`` keeps nothing. It is for simulations on a virtual clock, which must not depend on a thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from grove_server.resources.meta import Resource
from grove_server.store.interface import NO_ORIGIN, Origin, Outcome
from grove_server.store.state import Write


@dataclass(slots=True, eq=False)
class Commit:
    """One decided commit on its way to the disk."""

    writes: list[Write]
    outcomes: tuple[Outcome, ...]
    future: asyncio.Future[tuple[Outcome, ...]]
    cause: str
    decided_at_s: float
    origin: Origin = NO_ORIGIN


@dataclass(frozen=True, slots=True, kw_only=True)
class DurableBatch:
    """Commits that one transaction made durable, and what it took."""

    commits: Sequence[Commit]
    rows: int
    payload_bytes: int
    duration_s: float


@dataclass(slots=True, kw_only=True)
class Loaded:
    """What a journal held when it was opened.

    ``deleted_version`` is the version of the newest deletion: the state alone answers every resume from there on.
    """

    epoch: int
    version: int = 0
    deleted_version: int = 0
    resources: list[Resource] = field(default_factory=list)


class JournalEvents(Protocol):
    """What a journal reports, on the event loop."""

    def durable(self, batch: DurableBatch) -> None:
        """Take note that these commits are durable."""

    def failed(self, reason: str) -> None:
        """Take note that the batch after the last durable one failed."""

    def recovered(self) -> None:
        """Take note that writing works again."""


class Journal(Protocol):
    """Makes commits durable."""

    async def open(self, events: JournalEvents) -> Loaded:
        """Return what is there. Raises StoreError subclasses."""

    def submit(self, commits: Sequence[Commit]) -> None:
        """Queue commits, never split one over two transactions."""

    def reset(self) -> None:
        """Forget what is queued after a failure, and start trying whether writing works again."""

    async def close(self) -> None:
        """Write what is queued and release everything."""


class VolatileJournal:
    """Calls everything durable one loop step later."""

    def __init__(self, epoch: int = 1) -> None:
        """Set the epoch of the tokens."""
        self._epoch = epoch

    async def open(self, events: JournalEvents) -> Loaded:
        """Return an empty store."""
        self._events = events
        self._loop = asyncio.get_running_loop()
        return Loaded(epoch=self._epoch)

    def submit(self, commits: Sequence[Commit]) -> None:
        """Report the commits in the next loop step."""
        rows = sum(len(commit.writes) for commit in commits)
        batch = DurableBatch(commits=commits, rows=rows, payload_bytes=0, duration_s=0.0)
        self._loop.call_soon(self._events.durable, batch)

    def reset(self) -> None:
        """Do nothing: this journal never fails."""

    async def close(self) -> None:
        """Do nothing: there is nothing to release."""
