"""One start of the simulated server: the real store, loops and runtime on a loop of their own, wired as ``app`` does.

Not here: gRPC, the metrics page, signals. Calls are coroutines on the server's loop, as a servicer's method would be.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from grove_server.admission.context import Limits
from grove_server.api.changes import Changes
from grove_server.api.gathering import Gathering
from grove_server.control.clock import SystemClock
from grove_server.control.indexes import store_indexes
from grove_server.control.plane import ControlPlane
from grove_server.runtime.cluster_file import ClusterFile
from grove_server.runtime.cluster_seed import seed_cluster
from grove_server.runtime.fake import FakeRuntime
from grove_server.store.errors import StoreUnavailableError
from grove_server.store.interface import Notice
from grove_server.store.watch.hub import WatchLimits
from tests.simulation.books import Books
from tests.simulation.disk import Auditor, Disk, DiskMood, SimJournal
from tests.simulation.follower import Follower
from tests.simulation.services import Services
from tests.simulation.unreliable import LateReports, NoticeMood, RuntimeMood, TalkativeStore
from tests.simulation.virtual_loop import VirtualLoop, VirtualTime

# Small, so that runs of a few thousand changes compact, overflow and expire.
WATCH_LIMITS: Final = WatchLimits(window_changes=400, pending_max=60, watches_max=50, bookmark_interval_s=20.0)


class Stopwatch:
    """The machine's counter as the server reads it: each reading comes a drawn while after the last."""

    def __init__(self, time: VirtualTime, rng: random.Random) -> None:
        self._time = time
        self._rng = rng
        self._spent_s = 0.0
        # Upper end of what is drawn; a slow machine takes more.
        self.step_s = 0.0002

    def read(self) -> float:
        """Return seconds that never go back."""
        self._spent_s += self._rng.random() * self.step_s
        return self._time.now_s + self._spent_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What outlives a start of the server."""

    time: VirtualTime
    epoch_now: Callable[[], float]
    disk: Disk
    disk_mood: DiskMood
    runtime_mood: RuntimeMood
    notice_mood: NoticeMood
    auditor: Auditor
    books: Books
    stopwatch: Stopwatch
    new_uid: Callable[[], str]
    steps_aside_for_calls: bool
    # Called with each server that begins to serve.
    on_serving: list[Callable[[SimServer], None]]


class SimServer:
    """A server that is starting, serving or gone."""

    def __init__(self, around: Surroundings, rng: random.Random) -> None:
        self._around = around
        self._rng = rng
        self.loop = VirtualLoop(around.time)
        self.is_serving = False
        self._gave_up = False
        self.calls = 0
        clock = SystemClock(around.epoch_now, self.loop.time)
        journal = SimJournal(around.disk, around.disk_mood, around.auditor, self.loop, rng)
        self.store = TalkativeStore(
            journal,
            indexes=store_indexes(),
            watch_limits=WATCH_LIMITS,
            mood=around.notice_mood,
            rng=rng,
            rested_on=around.books.rested_on,
        )
        self.plane = ControlPlane(self.store, clock, self._is_busy, around.stopwatch.read)
        self.reports = LateReports(self.store, self.loop, around.runtime_mood, rng)
        self.runtime = FakeRuntime(self.reports, clock, note=self.plane.events.note, breathe=self._breathe)
        self.changes = Changes(
            self.store,
            limits=Limits(),
            now=around.epoch_now,
            new_uid=around.new_uid,
            gathering=Gathering(lambda: self.calls),
            stopwatch=around.stopwatch.read,
        )
        self.services = Services(self.store, self.plane, self.changes, around.epoch_now, self.loop.time)

    def start(self, cluster: ClusterFile, followers: Sequence[Follower]) -> None:
        """Begin to start; serving comes when the loop has run."""
        self._watch_over(self._start(cluster, followers), "start")

    @property
    def gave_up(self) -> bool:
        """Whether the disk let the server not even start; whoever supervises it starts it again."""
        return self._gave_up

    def call(self, call: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Serve one call."""
        self.calls += 1
        self._watch_over(self._serve(call), "call")

    def crash(self) -> None:
        """Lose power."""
        self.is_serving = False
        self.loop.kill()

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is being decided, served or written; timers may wait."""
        return (
            self.is_serving
            and not self.calls
            and self.plane.is_idle
            and not self.reports.held_count
            and not self.runtime.health().backlog_count
            and self.store.health().ok
            and not self.store.health().queued_changes
        )

    async def _start(self, cluster: ClusterFile, followers: Sequence[Follower]) -> None:
        around = self._around
        await self.store.open()
        around.books.forget_seen(self.store.read().version)
        self.store.subscribe_once(self._see)
        try:
            await seed_cluster(self.store, cluster, now=around.epoch_now(), new_uid=around.new_uid)
        except StoreUnavailableError:
            self._gave_up = True
            return
        self.plane.start()
        await self.runtime.start()
        self.is_serving = True
        for follower in followers:
            self._watch_over(follower.follow(self.store, self.loop), "follower")
        for on_serving in self._around.on_serving:
            on_serving(self)

    def run_aside(self, coroutine: Coroutine[Any, Any, None], what: str) -> None:
        """Run something beside the calls, watched over; it dies with the server."""
        self._watch_over(coroutine, what)

    def begin(self, coroutine: Coroutine[Any, Any, None], what: str) -> asyncio.Task[None]:
        """Do the same and return the task, which may be cancelled."""
        task = self.loop.create_task(coroutine, name=what)
        task.add_done_callback(partial(self._check, what))
        return task

    async def _serve(self, call: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await call()
        finally:
            self.calls -= 1

    def _see(self, notices: Sequence[Notice]) -> None:
        newest = notices[-1].version
        if newest > self._around.disk.version:
            self.loop.problems.append(f"version {newest} is visible, the disk is at {self._around.disk.version}")
        self._around.books.see(self._around.time.now_s, newest)

    def _is_busy(self) -> bool:
        return self._around.steps_aside_for_calls and self.calls > 0

    async def _breathe(self) -> None:
        mood = self._around.runtime_mood
        if self._rng.random() < mood.pause_chance:
            await self.loop.pause(self._rng.random() * mood.pause_s)
        else:
            await self.loop.pause(0.0)

    def _watch_over(self, coroutine: Coroutine[Any, Any, None], what: str) -> None:
        self.loop.create_task(coroutine, name=what).add_done_callback(partial(self._check, what))

    def _check(self, what: str, done: asyncio.Future[None]) -> None:
        if not done.cancelled() and done.exception() is not None:
            self.loop.problems.append(f"{what} failed: {done.exception()!r}")
