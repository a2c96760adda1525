"""A disk that remembers what was synced, and a journal on it whose every delay and failure comes from the seed.

The disk keeps rows as the resources they were written from; a start of the server reads them through the real codec,
so that what does not survive encoding is lost here as it would be in a database.

A batch goes through three moments: taken from the queue, synced, reported. A crash before the sync loses it, a crash
after it keeps it although nobody was told. Between sync and report each commit is shown to the auditor, in order: that
is the only order in which commits ever become visible.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeVar

from grove_server.resources import codec
from grove_server.resources.meta import Key, Kind, Resource
from grove_server.store.journal import Commit, DurableBatch, JournalEvents, Loaded
from grove_server.store.state import Write, versioned
from tests.simulation.virtual_loop import VirtualLoop

_R = TypeVar("_R")

RETRY_INTERVAL_S: Final = 1.0
_BATCH_COMMITS_MAX: Final = 200


class Auditor(Protocol):
    """Whoever looks at each commit at the moment it is durable."""

    def audit(self, commit: Commit, previous: dict[Key, Resource | None]) -> None:
        """Look at a commit; *previous* holds what each of its keys was before it."""


@dataclass(slots=True)
class Disk:
    """What survives a crash."""

    epoch: int
    version: int = 0
    deleted_version: int = 0
    rows: dict[Key, Resource] = field(default_factory=dict)

    def sync(self, writes: Sequence[Write]) -> dict[Key, Resource | None]:
        """Make the writes of one commit durable; return what was there before."""
        previous: dict[Key, Resource | None] = {}
        rows = self.rows
        for key, resource, version in writes:
            previous.setdefault(key, rows.get(key))
            if resource is None:
                rows.pop(key, None)
                self.deleted_version = version
            else:
                rows[key] = resource
            self.version = version
        return previous

    def load(self) -> Loaded:
        """Read everything, through the codec, in a fixed order."""
        by_kind: dict[Kind, list[tuple[Key, Resource]]] = {kind: [] for kind in codec.DECODE_ORDER}
        for key, resource in self.rows.items():
            by_kind[key.kind].append((key, resource))
        loaded = Loaded(epoch=self.epoch, version=self.version, deleted_version=self.deleted_version)
        templates: dict[str, Resource] = {}
        for kind in codec.DECODE_ORDER:
            for key, resource in sorted(by_kind[kind]):
                payload = codec.encode(resource)
                row = versioned(codec.decode(kind, payload, templates.__getitem__), resource.resource_version)  # type: ignore[arg-type]  # as the real journal does
                assert codec.encode(row) == payload, f"{key} does not survive its encoding"
                if kind is Kind.POD_TEMPLATE:
                    templates[f"{key.namespace}/{key.name}"] = row
                loaded.resources.append(row)
                self.rows[key] = row
        return loaded


@dataclass(slots=True, kw_only=True)
class DiskMood:
    """How the disk behaves now. Latencies are seconds; ``sync_s`` and ``report_s`` are upper ends of what is drawn."""

    is_full: bool = False
    sync_s: float = 0.004
    report_s: float = 0.001
    # Called between sync and report, with True, and before the sync, with False: a crash may be armed for either.
    at_sync: Callable[[bool], None] | None = None


class SimJournal:
    """The journal of one start of the server. Timers sit on the server's loop and die with it."""

    def __init__(self, disk: Disk, mood: DiskMood, auditor: Auditor, loop: VirtualLoop, rng: random.Random) -> None:
        self._disk = disk
        self._mood = mood
        self._auditor = auditor
        self._loop = loop
        self._rng = rng
        self._queue: deque[Commit] = deque()
        self._is_writing = False
        self._is_halted = False
        self._reported_at_s = 0.0

    async def open(self, events: JournalEvents) -> Loaded:
        """Read the disk."""
        self._events = events
        return self._disk.load()

    def submit(self, commits: Sequence[Commit]) -> None:
        """Queue commits."""
        self._queue.extend(commits)
        self._begin()

    def reset(self) -> None:
        """Forget what is queued and try again until the disk takes writes."""
        self._queue.clear()
        self._loop.call_later(RETRY_INTERVAL_S, self._try_again)

    async def close(self) -> None:
        """Do nothing: the store closes a journal only when it has nothing left."""

    def _begin(self) -> None:
        if self._is_writing or self._is_halted or not self._queue:
            return
        self._is_writing = True
        self._loop.call_later(self._rng.random() * self._mood.sync_s, self._sync)

    def _sync(self) -> None:
        """Make a batch durable: some of what is queued, or all. The next is written while this one is reported."""
        self._is_writing = False
        if self._mood.is_full:
            self._is_halted = True
            self._post(self._events.failed, "the simulated disk is full")
            return
        if self._is_cut(is_synced=False):
            return
        count = min(len(self._queue), self._rng.choice((1, 2, 8, _BATCH_COMMITS_MAX)))
        batch = [self._queue.popleft() for _ in range(count)]
        for commit in batch:
            self._auditor.audit(commit, self._disk.sync(commit.writes))
        if self._is_cut(is_synced=True):
            return
        rows = sum(len(commit.writes) for commit in batch)
        self._post(self._events.durable, DurableBatch(commits=batch, rows=rows, payload_bytes=0, duration_s=0.0))
        self._begin()

    def _is_cut(self, *, is_synced: bool) -> bool:
        """Let a crash happen that was armed for this moment; return whether it did."""
        if self._mood.at_sync is not None:
            self._mood.at_sync(is_synced)
        return self._loop.is_closed()

    def _post(self, report: Callable[[_R], None], argument: _R) -> None:
        """Report to the server after a while, and after everything reported before."""
        self._reported_at_s = max(self._reported_at_s, self._loop.time() + self._rng.random() * self._mood.report_s)
        self._loop.call_at(self._reported_at_s, report, argument)

    def _try_again(self) -> None:
        if self._mood.is_full:
            self._loop.call_later(RETRY_INTERVAL_S, self._try_again)
            return
        self._is_halted = False
        self._events.recovered()
