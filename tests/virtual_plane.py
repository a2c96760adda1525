"""The loops over the real store core and the fake runtime on virtual time: no thread, no file, the same in every run.

A calm world, unlike `tests.simulation`: the disk takes all that waits at once, machines take no time to think, and
nothing fails. So what a server decides depends on what it is asked alone, and can be compared with what it said it
would do. What the server gives to threads is done at once.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, TypeVar

from grove_server.control.clock import SystemClock
from grove_server.control.indexes import store_indexes
from grove_server.control.plane import ControlPlane
from grove_server.resources.meta import CLUSTER_SCOPED, Resource
from grove_server.runtime.fake import FakeRuntime
from grove_server.store.engine import EmbeddedStore
from grove_server.store.interface import Applied, Put
from grove_server.store.journal import Commit, DurableBatch, JournalEvents, Loaded
from tests.planes import EPOCH_S
from tests.simulation.virtual_loop import VirtualLoop, VirtualTime

T = TypeVar("T")
R = TypeVar("R", bound=Resource)

SYNC_S: Final = 0.001
CALM_S: Final = 20.0
"""A server that has done nothing for so long has nothing to do but what has a timer further off."""

_TURNS_MAX: Final = 20_000


class UnthreadedLoop(VirtualLoop):
    """Does at once what is meant for a thread."""

    def run_in_executor(self, executor: object, func: Callable[..., Any], *args: object) -> Any:  # type: ignore[override]  # noqa: ANN401 -- the loop of the simulation refuses, this one does it
        """Call *func* now."""
        del executor
        done = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 -- whoever awaits the thread gets what it raised
            done.set_exception(error)
        return done


class CalmJournal:
    """Makes durable all that waits, a moment after the first of it was submitted."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._queue: list[Commit] = []

    async def open(self, events: JournalEvents) -> Loaded:
        """Begin with nothing."""
        self._events = events
        return Loaded(epoch=1, version=0, deleted_version=0)

    def submit(self, commits: Sequence[Commit]) -> None:
        """Take commits."""
        if not self._queue:
            self._loop.call_later(SYNC_S, self._sync)
        self._queue.extend(commits)

    def reset(self) -> None:
        """Do nothing: this disk never fails."""

    async def close(self) -> None:
        """Do nothing."""

    def _sync(self) -> None:
        batch, self._queue = self._queue, []
        rows = sum(len(commit.writes) for commit in batch)
        self._events.durable(DurableBatch(commits=batch, rows=rows, payload_bytes=0, duration_s=0.0))


class VirtualPlane:
    """A started server; whoever holds it runs it."""

    def __init__(self) -> None:
        self.time = VirtualTime()
        self.loop = UnthreadedLoop(self.time)
        self.clock = SystemClock(lambda: EPOCH_S + self.time.now_s, lambda: self.time.now_s)
        self.store = EmbeddedStore(CalmJournal(self.loop), indexes=store_indexes())
        # A counter that stands still: no round is cut short because a machine was slow.
        self.control = ControlPlane(self.store, self.clock, lambda: False, lambda: 0.0, update_settle_s=0.0)
        self.runtime = FakeRuntime(self.store, self.clock, note=self.control.events.note)
        self.run(self._start())

    async def _start(self) -> None:
        await self.store.open()
        self.control.start()
        await self.runtime.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run until something is done."""
        task = self.loop.create_task(coroutine)
        self._turn(task.done, "a call ends")
        return task.result()

    def until_calm(self) -> None:
        """Run until nothing has happened, and nothing was due, for a while."""
        for _ in range(_TURNS_MAX):
            self.loop.run_ready()
            due_at = self.loop.next_at()
            is_far = due_at is None or due_at > self.time.now_s + CALM_S
            if is_far and self.is_quiet:
                return
            assert due_at is not None, "the server is not quiet and waits for nothing"
            self.time.now_s = max(self.time.now_s, due_at)
        raise AssertionError("the server never comes to rest")

    def pass_time(self, duration_s: float) -> None:
        """Let time pass, with all that comes up meanwhile."""
        self.run(self.loop.pause(duration_s))
        self.until_calm()

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is being decided and nothing is on its way to the disk."""
        return (
            self.control.is_idle and not self.runtime.health().backlog_count and not self.store.health().queued_changes
        )

    def put(self, *resources: Resource) -> None:
        """Write resources, whatever is there, as one change, and let the server come to rest."""
        outcomes = self.run(self.store.commit([Put(resource) for resource in resources], cause="test"))
        assert all(isinstance(outcome, Applied) for outcome in outcomes), outcomes
        self.until_calm()

    def get(self, kind: type[R], name: str) -> R | None:
        """Return a resource, if it is there."""
        return self.store.read().get(kind, "" if kind.kind in CLUSTER_SCOPED else "default", name)

    def all(self, kind: type[R]) -> list[R]:
        """Return all resources of a kind by name."""
        return list(self.store.read().sorted_list(kind))

    def end(self) -> None:
        """Leave it, with everything that still waits."""
        self.loop.kill()
        self.loop.bury()

    def _turn(self, is_done: Callable[[], bool], what: str) -> None:
        for _ in range(_TURNS_MAX):
            self.loop.run_ready()
            if is_done():
                return
            due_at = self.loop.next_at()
            assert due_at is not None, f"never: {what}"
            self.time.now_s = max(self.time.now_s, due_at)
        raise AssertionError(f"too long: {what}")
