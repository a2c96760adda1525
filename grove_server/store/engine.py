"""The embedded store: decides on the event loop, becomes durable in a journal, then becomes visible.

    commit_soon ─ decide ─▶ outbox ─ one flush per loop step ─▶ journal (group commit, one fsync)
                                                                   │ durable, in order
    futures ◀─ listeners ◀─ watches ◀─ state, in slices ◀──────────┘

Slices. Durable commits become visible in steps of about SLICE_CHANGES changes, with the loop free in between. A slice
holds whole commits; only when the single next commit is larger is it alone in its slice: its changes enter the state
in **one** step (about 2 µs each), so no reader ever sees half of it, and its notices follow in further steps
before anything else becomes visible. Its future resolves after the last of them.

Failure. When a batch cannot be made durable, it and everything decided after it fail with StoreUnavailableError, the
overlay is dropped, and changes are refused until the journal reports that writing works again. What became durable
before the failure becomes visible as usual.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from grove_server.resources.meta import Kind
from grove_server.store import tokens
from grove_server.store.decision import Decider
from grove_server.store.errors import (
    StoreClosedError,
    StoreOverloadedError,
    StoreUnavailableError,
)
from grove_server.store.interface import (
    NO_ORIGIN,
    Change,
    Health,
    Index,
    Listener,
    Notice,
    Origin,
    Outcome,
    Reader,
    Selector,
    SilentObserver,
    StoreObserver,
    Watch,
)
from grove_server.store.journal import Commit, DurableBatch, Journal
from grove_server.store.state import State
from grove_server.store.watch.hub import WatchHub, WatchLimits

# A step of 256 changes costs about 1 ms for state, watches and two listeners: well below the loop's 10 ms.
SLICE_CHANGES: Final = 256
# About 150 MB of queued resources at 700 bytes; a disk that is this far behind is broken.
QUEUED_CHANGES_MAX: Final = 200_000
# How many exceptions of one listener in a row are survived is not bounded: the store must not die of its readers.


class EmbeddedStore:
    """Store over a journal. One event loop owns it; only the journal may know threads."""

    def __init__(
        self,
        journal: Journal,
        *,
        indexes: Mapping[str, Index] | None = None,
        observer: StoreObserver | None = None,
        watch_limits: WatchLimits | None = None,
        slice_changes: int = SLICE_CHANGES,
        queued_changes_max: int = QUEUED_CHANGES_MAX,
    ) -> None:
        """Put the parts together; ``open`` starts them."""
        self._journal = journal
        self._observer: StoreObserver = observer if observer is not None else SilentObserver()
        self._watch_limits = watch_limits if watch_limits is not None else WatchLimits()
        self._slice_changes = slice_changes
        self._queued_changes_max = queued_changes_max
        self._state = State(indexes)
        self._decider = Decider(self._state)
        self._listeners: list[Listener] = []
        self._outbox: list[Commit] = []
        # Everything submitted and not yet visible, in order; what fails together when the journal fails.
        self._inflight: deque[Commit] = deque()
        self._queued_changes = 0
        # Durable commits on their way into the state; a string is the journal's report of a failure.
        self._durable: deque[Commit | str] = deque()
        self._pump_scheduled = False
        self._undelivered: deque[Sequence[Notice]] = deque()
        self._finishing: list[Commit] = []
        self._refusal: StoreUnavailableError | None = StoreClosedError("the store is not open")
        self._drained: asyncio.Future[None] | None = None

    @property
    def atomic(self) -> bool:
        """A commit is one transaction."""
        return True

    async def open(self) -> None:
        """Load what the journal holds. Raises StoreError subclasses."""
        self._loop = asyncio.get_running_loop()
        loaded = await self._journal.open(self)
        state = self._state
        for resource in loaded.resources:
            state.load(resource)
        state.version = loaded.version
        self._decider.version = loaded.version
        self._epoch = loaded.epoch
        self._hub = WatchHub(
            state,
            epoch=loaded.epoch,
            deleted_version=loaded.deleted_version,
            limits=self._watch_limits,
            observer=self._observer,
        )
        self._refusal = None

    async def close(self) -> None:
        """Finish what was accepted, then release everything."""
        if isinstance(self._refusal, StoreClosedError):
            return
        self._refusal = StoreClosedError("the store is closed")
        self._flush()
        if self._inflight:
            self._drained = self._loop.create_future()
            await self._drained
        self._hub.close()
        await self._journal.close()

    def read(self) -> Reader:
        """Return the live view."""
        return self._state

    async def commit(
        self, changes: Sequence[Change], *, atomic: bool = True, cause: str = "", origin: Origin = NO_ORIGIN
    ) -> tuple[Outcome, ...]:
        """Commit and wait until it is durable and visible."""
        return await self.commit_soon(changes, atomic=atomic, cause=cause, origin=origin)

    def commit_soon(
        self, changes: Sequence[Change], *, atomic: bool = True, cause: str = "", origin: Origin = NO_ORIGIN
    ) -> asyncio.Future[tuple[Outcome, ...]]:
        """Decide now; see Store."""
        future: asyncio.Future[tuple[Outcome, ...]] = self._loop.create_future()
        if self._refusal is not None:
            future.set_exception(self._refusal)
            return future
        if self._queued_changes + len(changes) > self._queued_changes_max:
            future.set_exception(StoreOverloadedError(f"{self._queued_changes} changes wait for the disk"))
            return future
        decision = self._decider.decide(changes, atomic=atomic)
        if not decision.writes and not decision.rests_on_waiting:
            future.set_result(decision.outcomes)
            return future
        # A refusal that rests on a waiting change waits for it too: answered earlier, its caller would read
        # the old state, try again, and be refused again, for as long as the disk takes.
        if not self._outbox:
            self._loop.call_soon(self._flush)
        commit = Commit(decision.writes, decision.outcomes, future, cause, self._loop.time(), origin)
        self._outbox.append(commit)
        self._inflight.append(commit)
        self._queued_changes += len(decision.writes)
        return future

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call *listener* with what becomes visible."""
        self._listeners.append(listener)

        def unsubscribe() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return unsubscribe

    def watch(
        self,
        kind: Kind,
        *,
        namespace: str | None = None,
        name: str | None = None,
        labels: Selector | None = None,
        token: str | None = None,
    ) -> Watch:
        """Start a watch; see Store."""
        if isinstance(self._refusal, StoreClosedError):
            raise self._refusal
        return self._hub.watch(kind, namespace=namespace, name=name, labels=labels, token=token)

    def token(self) -> str:
        """Return the token of the visible state."""
        return tokens.mint(self._epoch, self._hub.version)

    def health(self) -> Health:
        """Return whether changes are accepted."""
        if self._refusal is None:
            return Health(ok=True, queued_changes=self._queued_changes)
        return Health(ok=False, reason=str(self._refusal), queued_changes=self._queued_changes)

    # What the journal reports (JournalEvents).

    def durable(self, batch: DurableBatch) -> None:
        """Let the batch become visible."""
        self._observer.batch_durable(
            commits=len(batch.commits),
            changes=sum(len(commit.writes) for commit in batch.commits),
            rows=batch.rows,
            payload_bytes=batch.payload_bytes,
            duration_s=batch.duration_s,
        )
        self._durable.extend(batch.commits)
        self._pump_soon()

    def failed(self, reason: str) -> None:
        """Refuse changes at once; what was queued fails when everything durable before it is visible."""
        if self._refusal is None:
            self._refusal = StoreUnavailableError(reason)
        self._observer.degraded(reason)
        self._durable.append(reason)
        self._pump_soon()

    def recovered(self) -> None:
        """Accept changes again."""
        if not isinstance(self._refusal, StoreClosedError):
            self._refusal = None
            self._observer.recovered()

    def _flush(self) -> None:
        """Hand one loop step's commits to the journal together: fewer wakes, larger batches."""
        if self._outbox:
            outbox, self._outbox = self._outbox, []
            self._journal.submit(outbox)

    def _pump_soon(self) -> None:
        if not self._pump_scheduled:
            self._pump_scheduled = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        """Make the next slice visible."""
        self._pump_scheduled = False
        if self._undelivered:
            self._deliver(self._undelivered.popleft())
        elif self._durable:
            if isinstance(self._durable[0], str):
                self._fail(str(self._durable.popleft()))
            else:
                self._show(self._next_slice())
        if not self._undelivered:
            self._finish()
        if self._undelivered or self._durable:
            self._pump_soon()
        elif self._drained is not None and not self._inflight and not self._drained.done():
            self._drained.set_result(None)

    def _next_slice(self) -> list[Commit]:
        """Take whole commits up to the size of a slice, at least one."""
        taken: list[Commit] = []
        changes = 0
        while self._durable:
            head = self._durable[0]
            if isinstance(head, str):
                break
            changes += len(head.writes)
            if taken and changes > self._slice_changes:
                break
            taken.append(head)
            self._durable.popleft()
        return taken

    def _show(self, commits: list[Commit]) -> None:
        apply = self._state.apply
        notices: list[Notice] = []
        for commit in commits:
            for write in commit.writes:
                notice = apply(write)
                if notice is not None:
                    notice.cause = commit.cause
                    notice.origin = commit.origin
                    notices.append(notice)
            self._decider.settle(commit.writes)
        self._finishing = commits
        size = self._slice_changes
        if len(notices) <= size:
            self._deliver(notices)
        else:
            self._undelivered.extend(notices[start : start + size] for start in range(0, len(notices), size))

    def _deliver(self, notices: Sequence[Notice]) -> None:
        if not notices:
            return
        self._hub.publish(notices)
        for listener in [*self._listeners]:
            try:
                listener(notices)
            except Exception as error:  # noqa: BLE001 -- a supervised loop: one listener must not stop the others
                self._loop.call_exception_handler(
                    {"message": "a store listener failed", "exception": error, "listener": listener}
                )

    def _finish(self) -> None:
        """Answer the commits of the slice."""
        now_s = self._loop.time()
        for commit in self._finishing:
            self._inflight.popleft()
            self._queued_changes -= len(commit.writes)
            self._observer.commit_visible(
                cause=commit.cause, changes=len(commit.writes), latency_s=now_s - commit.decided_at_s
            )
            if not commit.future.done():
                commit.future.set_result(commit.outcomes)
        self._finishing = []

    def _fail(self, reason: str) -> None:
        """Fail everything that waits: the failed batch and what was decided on top of it."""
        failed, self._inflight = self._inflight, deque()
        self._outbox.clear()
        self._queued_changes = 0
        self._decider.forget()
        for commit in failed:
            if not commit.future.done():
                commit.future.set_exception(StoreUnavailableError(reason))
        self._journal.reset()
