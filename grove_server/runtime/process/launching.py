"""The server's side of starting processes: orders go to the launcher program, ends come back.

One `Launcher` per server and data directory. It runs the launcher program (`program/`), which forks a keeper for each
start of a container; keepers outlive both. What is on disk is enough to take all of it over again: `start()` first
makes sure that no start is half done and clears away what lost runs left, then `adopt()` says what there is.

Rules:

* `launch()` is idempotent by (pod uid, container, attempt): a second call for the same run returns the run.
* A process is always identified by pid and start ticks, or by a pidfd; never by its pid alone.
* `on_end` is called once for each run that ends while this launcher lives, on the event loop. Runs that had ended
  before are in what `adopt()` returns, and are not reported again.
* All methods belong to the event loop that called `start()`.

Not here: when and what to start (the node agent), probes, reading of logs.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from grove_server.runtime.process import identity
from grove_server.runtime.process.exec_session import ExecSession, Streams, exit_code_of
from grove_server.runtime.process.launcher_link import Header, LauncherLink
from grove_server.runtime.process.program import kernel, records
from grove_server.runtime.process.runs import (
    REBOOTED,
    STOPPED,
    Ended,
    ExecOutput,
    ExecResult,
    LaunchError,
    LaunchOrder,
    Run,
    RunKey,
    Shortfall,
    check_argv,
    check_order,
    ended_of,
    header_of,
    run_of,
    unknown_run,
)
from grove_server.telemetry.logs import get_logger

__all__ = [
    "Ended",
    "ExecOutput",
    "ExecResult",
    "ExecSession",
    "LaunchError",
    "LaunchOrder",
    "Launcher",
    "Run",
    "RunKey",
    "Shortfall",
]

# Orders of each kind that the launcher program has at the same time; further callers wait.
LAUNCHES_MAX: Final = 64
EXECS_MAX: Final = 64
SWEEPS_MAX: Final = 16
# Runs that are read from disk in one step of the event loop: some 0.1 ms each.
TAKEN_OVER_AT_ONCE: Final = 20
LAUNCH_TRIES_MAX: Final = 3
# What a launch or an exec may take beyond its own limit before the launcher program counts as stuck.
ANSWER_WAIT_MAX_S: Final = 30.0
RESTART_WAITS_S: Final = (0.0, 0.1, 0.5, 2.0, 5.0)
# A keeper whose main process was killed has so long to write down the end, before it is killed itself.
KILL_WAIT_S: Final = 10.0
FORGOTTEN_LOGS_MAX: Final = 64
TIDY_WAIT_S: Final = 5.0
OUTPUT_BYTES_MAX: Final = 1024 * 1024

_log = get_logger("runtime")


class Launcher:
    """Starts, watches and ends the processes of containers."""

    def __init__(self, data_dir: Path, *, on_end: Callable[[Run], None] = lambda _: None) -> None:
        self.on_end = on_end
        self._data_dir = data_dir.absolute()
        self._runs: dict[RunKey, Run] = {}
        self._keepers: dict[RunKey, int] = {}
        self._ends: dict[RunKey, asyncio.Event] = {}
        self._execs: dict[RunKey, set[int]] = {}
        self._launching: dict[RunKey, asyncio.Event] = {}
        self._link: LauncherLink | None = None
        self._is_open = asyncio.Event()
        self._is_stopping = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._launches = asyncio.Semaphore(LAUNCHES_MAX)
        self._collected = asyncio.Semaphore(EXECS_MAX)
        self._failed_starts = 0
        self._is_reopening = False
        self._tidying: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Start the launcher program and take over what is on disk; raise LaunchError if the program cannot be started.

        Returns once no start of an earlier launcher is half done, and everything that lost runs left has ended.
        """
        self._is_stopping = False
        records.make_folders(str(self._data_dir))
        await self._open_link()
        lost = []
        for number, key in enumerate(records.keys(str(self._data_dir))):
            if key not in self._runs and not self._take_over(key):
                lost.append(key)
            if number % TAKEN_OVER_AT_ONCE == 0:
                await asyncio.sleep(0)
        for first in range(0, len(lost), SWEEPS_MAX):
            await asyncio.gather(*(self._sweep(key, is_news=False) for key in lost[first : first + SWEEPS_MAX]))

    async def stop(self) -> None:
        """End the launcher program and all execs; keepers and their containers go on. Harmless when called twice."""
        self._is_stopping = True
        self._is_open.clear()
        if self._tidying is not None:
            self._tidying.cancel()
            self._tidying = None
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._link is not None:
            await self._link.close()
            self._link = None
        for key in list(self._keepers):
            self._unwatch(key)
        self._runs.clear()

    @property
    def pid(self) -> int:
        """The launcher program's process id; 0 if it does not run."""
        return self._link.pid if self._link is not None else 0

    def adopt(self) -> tuple[Run, ...]:
        """Return every run on disk, sorted by key: running, ended, or vanished (Lost). Call it after `start`."""
        return self.runs()

    def runs(self) -> tuple[Run, ...]:
        """Return every run this launcher knows of, as last known, sorted by key."""
        return tuple(self._runs[key] for key in sorted(self._runs))

    def find(self, key: RunKey) -> Run | None:
        """Return a run this launcher knows of, as last known."""
        return self._runs.get(key)

    async def launch(self, order: LaunchOrder) -> Run:
        """Start a container's process; return once it runs (its exec succeeded). Raise LaunchError if it cannot.

        The run may have ended by then, and `on_end` have been called: `Run.ended` of the answer tells.
        """
        key = (order.pod_uid, order.container, order.attempt)
        check_order(order)
        while key in self._launching:
            await self._launching[key].wait()
        done = self._launching[key] = asyncio.Event()
        try:
            async with self._launches:
                if key not in self._runs:
                    await self._launch(key, order)
        finally:
            del self._launching[key]
            done.set()
        return self._runs[key]

    async def _launch(self, key: RunKey, order: LaunchOrder) -> None:
        for attempt in range(LAUNCH_TRIES_MAX):
            try:
                link = await self._opened()
                async with asyncio.timeout(ANSWER_WAIT_MAX_S):
                    await link.ask(header_of(order))
                break
            except LaunchError as error:
                # The launcher program went while it had the order: what it did of it is undone or on disk.
                if error.reason != "LauncherUnavailable" or attempt == LAUNCH_TRIES_MAX - 1:
                    raise
            except TimeoutError:
                message = f"no answer to a launch within {ANSWER_WAIT_MAX_S:g} s"
                raise LaunchError("LauncherUnavailable", message) from None
        # Without a run in the answer it was started before, by a launch that nobody waited for.
        if key not in self._runs and not self._take_over(key):
            await self._sweep(key, is_news=True)

    def signal(self, run: Run, number: int) -> bool:
        """Send a signal to the main process's group; False if the run has ended."""
        known = self._runs.get(run.key, run)
        if known.ended is not None:
            return False
        return identity.send_signal(known.pid, known.pid_ticks, number, is_group=True)

    async def kill(self, run: Run) -> None:
        """End everything of the run at once; return when it has ended."""
        end = self._ends.get(run.key)
        if end is None:
            return
        # The keeper ends all that is left as soon as the main process has ended.
        self.signal(run, signal.SIGKILL)
        try:
            async with asyncio.timeout(KILL_WAIT_S):
                await end.wait()
        except TimeoutError:
            identity.send_signal(run.keeper_pid, run.keeper_ticks, signal.SIGKILL, is_group=False)
            await end.wait()

    def mark_stopped(self, run: Run) -> None:
        """Write down that the end of a run, which is to follow, is meant: the next server starts its pod anew.

        Where the disk takes nothing, the next server sees an end like others, and counts a restart.
        """
        with contextlib.suppress(OSError):
            records.mark(records.run_dir(str(self._data_dir), run.key), records.STOPPED_FILE)

    async def execute(
        self, run: Run, argv: Sequence[str], *, timeout_s: float, output_bytes_max: int = 16 * 1024
    ) -> ExecResult:
        """Run a command in a container and return what came of it; raise LaunchError if it cannot be tried.

        A command that is not there has exit code 127, one that cannot be run 126, and the output says why.
        """
        check_argv(argv)
        self._check_running(run)
        order = {
            "op": "exec",
            "key": run.key,
            "argv": [*argv],
            "timeout_s": timeout_s,
            "output_bytes_max": min(output_bytes_max, OUTPUT_BYTES_MAX),
        }
        async with self._collected:
            link = await self._opened()
            number = link.number()
            with self._exec_of(run, number):
                try:
                    async with asyncio.timeout(timeout_s + ANSWER_WAIT_MAX_S):
                        header, output = await link.ask_numbered(number, order)
                except (asyncio.CancelledError, TimeoutError) as error:
                    _end_exec(link, number)
                    if isinstance(error, TimeoutError):
                        raise LaunchError("LauncherUnavailable", "no answer to an exec") from None
                    raise
        return ExecResult(
            exit_code=header["exit_code"], output=output, timed_out=header["timed_out"], is_cut=header["is_cut"]
        )

    async def attach(
        self,
        run: Run,
        argv: Sequence[str],
        *,
        tty: bool,
        stdin: bool = True,
        environment: Mapping[str, str] | None = None,
        rows: int = 24,
        columns: int = 80,
    ) -> ExecSession:
        """Run a command in a container with streams; *environment* adds to the container's (such as TERM).

        *rows* and *columns* are the size of its terminal from the first moment on, if it gets one.
        How many sessions there may be is the caller's to bound; each must be closed.
        """
        check_argv(argv)
        self._check_running(run)
        link = await self._opened()
        number = link.number()
        order: Header = {
            "op": "exec",
            "key": run.key,
            "argv": [*argv],
            "tty": tty,
            "environment": {**(environment or {})},
        }
        try:
            streams = Streams(tty=tty, stdin=stdin)
        except OSError as error:
            raise LaunchError("Resources", f"no streams for a command: {error}") from error
        streams.resize(rows=rows, columns=columns)
        # Nothing is awaited from here on: a caller that is cancelled has no session yet, or has it.
        try:
            sent = link.send(number, order, streams.theirs)
        except LaunchError:
            streams.close_ours()
            raise
        finally:
            # The order took duplicates along.
            streams.close_theirs()
        answer = asyncio.ensure_future(exit_code_of(link.answer_to(sent)))
        execs = self._execs.setdefault(run.key, set())
        execs.add(number)
        return ExecSession(
            streams,
            answer,
            lambda signal_number: link.tell({"op": "signal_exec", "exec": number, "number": signal_number}),
            lambda: execs.discard(number),
        )

    def forget(self, pod_uid: str) -> None:
        """Remove the state of a pod's runs; its logs stay until the logs of enough later pods have been forgotten.

        A run that has not ended is left alone: kill it first.
        """
        keys = [key for key in self._runs if key[0] == pod_uid]
        if any(self._runs[key].ended is None for key in keys):
            return
        for key in keys:
            del self._runs[key]
        records.remove_folder(f"{records.pods_dir(str(self._data_dir))}/{pod_uid}")
        if self._tidying is None:
            self._tidying = asyncio.get_running_loop().call_later(TIDY_WAIT_S, self._tidy)

    def _tidy(self) -> None:
        """Remove logs of pods that were forgotten long ago: once for all that are forgotten together."""
        self._tidying = None
        if self._link is not None and self._link.is_open:
            with contextlib.suppress(LaunchError):
                self._link.tell({"op": "tidy", "kept_max": FORGOTTEN_LOGS_MAX})

    def log_path(self, pod_uid: str, container: str, attempt: int) -> Path:
        """Return where a run's log is written; rotated files have ``.1`` (the newest) and so on appended."""
        return Path(records.log_file(str(self._data_dir), (pod_uid, container, attempt)))

    def _check_running(self, run: Run) -> None:
        known = self._runs.get(run.key)
        if known is None or known.ended is not None:
            raise LaunchError("RunEnded", f"container {run.container} of pod {run.pod_name} does not run")

    @contextlib.contextmanager
    def _exec_of(self, run: Run, number: int) -> Iterator[None]:
        """Remember an exec of a run, so that it ends with it."""
        execs = self._execs.setdefault(run.key, set())
        execs.add(number)
        try:
            yield
        finally:
            execs.discard(number)

    async def _opened(self) -> LauncherLink:
        """Return the link once there is one; raise LaunchError if there is none for too long."""
        if self._is_stopping:
            raise LaunchError("LauncherUnavailable", "the launcher was stopped")
        try:
            async with asyncio.timeout(ANSWER_WAIT_MAX_S):
                await self._is_open.wait()
        except TimeoutError:
            raise LaunchError("LauncherUnavailable", "the launcher program does not run") from None
        assert self._link is not None
        return self._link

    async def _open_link(self) -> None:
        link = LauncherLink(self._data_dir, on_answer=self._on_answer, on_gone=self._on_gone)
        self._link = link
        await link.open()
        self._failed_starts = 0
        # It may have ended again before we come to hear that it runs.
        if link.is_open:
            self._is_open.set()

    def _on_gone(self) -> None:
        """See to a launcher program that ended by itself: containers go on, a new one is started."""
        self._is_open.clear()
        if not self._is_stopping:
            _log.warning("launcher_ended", pid=self.pid)
            if not self._is_reopening:
                # One at a time: of two programs the second would wait for the first one's lock.
                self._is_reopening = True
                self._spawn(self._reopen())

    async def _reopen(self) -> None:
        while not self._is_open.is_set():
            link, self._link = self._link, None
            if link is not None:
                await link.close()
            await asyncio.sleep(RESTART_WAITS_S[min(self._failed_starts, len(RESTART_WAITS_S) - 1)])
            self._failed_starts += 1
            try:
                await self._open_link()
            except LaunchError as error:
                _log.warning("launcher_not_started", error=error.message)
            else:
                _log.info("launcher_started", pid=self.pid)
        self._is_reopening = False

    def _on_answer(self, header: Header) -> None:
        if "run" in header:
            # Watched from here on, whether or not the caller of `launch` still waits.
            self._watch(run_of(header["run"]))

    def _take_over(self, key: RunKey) -> bool:
        """Know a run by what is on disk; False if nobody watches over it and its end is not known."""
        folder = records.run_dir(str(self._data_dir), key)
        record = records.read(f"{folder}/{records.RUN_FILE}")
        if record is None:
            return False
        run = run_of(record)
        ended = records.read(f"{folder}/{records.EXIT_FILE}")
        if ended is not None:
            self._runs[key] = replace(run, interrupted=_interruption(folder, record), ended=ended_of(ended))
            return True
        if record["boot_id"] != kernel.boot_id() or not records.is_locked(f"{folder}/{records.LOCK_FILE}"):
            return False
        # It was to be stopped by a server that was killed before it came to that.
        records.unmark(folder, records.STOPPED_FILE)
        self._watch(run)
        return True

    def _watch(self, run: Run) -> None:
        """Hear of the end of a run that is running as far as known."""
        key = run.key
        if key in self._runs:
            return
        self._runs[key] = run
        self._ends[key] = asyncio.Event()
        for older in [known for known in self._runs if known[:2] == key[:2] and known[2] < key[2] - 1]:
            # Its state and log have been removed by the keeper of this one.
            if self._runs[older].ended is not None:
                del self._runs[older]
        loop = asyncio.get_running_loop()
        descriptor = identity.open_process(run.keeper_pid, run.keeper_ticks)
        if descriptor is None:
            loop.call_soon(self._on_keeper_gone, key)
            return
        self._keepers[key] = descriptor
        loop.add_reader(descriptor, self._on_keeper_gone, key)

    def _unwatch(self, key: RunKey) -> None:
        descriptor = self._keepers.pop(key, None)
        if descriptor is None:
            return
        asyncio.get_running_loop().remove_reader(descriptor)
        identity.reap(descriptor)
        os.close(descriptor)

    def _on_keeper_gone(self, key: RunKey) -> None:
        self._unwatch(key)
        if key not in self._ends:
            return
        ended = records.read(f"{records.run_dir(str(self._data_dir), key)}/{records.EXIT_FILE}")
        if ended is not None:
            self._finish(key, ended_of(ended))
        else:
            self._spawn(self._sweep(key, is_news=True))

    async def _sweep(self, key: RunKey, *, is_news: bool) -> None:
        """End what is left of a run whose keeper is gone, and know it as Lost."""
        while True:
            try:
                link = await self._opened()
                header, _ = await link.ask({"op": "sweep", "key": key})
            except LaunchError:
                if self._is_stopping:
                    raise
                continue
            break
        ended = ended_of(header["ended"])
        if key not in self._runs:
            folder = records.run_dir(str(self._data_dir), key)
            record = records.read(f"{folder}/{records.RUN_FILE}")
            known = unknown_run(key, ended) if record is None else run_of(record)
            self._runs[key] = replace(known, interrupted="" if record is None else _interruption(folder, record))
        self._finish(key, ended, is_news=is_news)

    def _finish(self, key: RunKey, ended: Ended, *, is_news: bool = True) -> None:
        run = self._runs[key] = replace(self._runs[key], ended=ended)
        for number in self._execs.pop(key, ()):
            if self._link is not None:
                _end_exec(self._link, number)
        end = self._ends.pop(key, None)
        if end is not None:
            end.set()
        if is_news:
            self.on_end(run)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _interruption(folder: str, record: Mapping[str, Any]) -> str:
    """Return why a run that has ended did so through no fault of its own; empty if nothing says so."""
    if record["boot_id"] != kernel.boot_id():
        return REBOOTED
    return STOPPED if records.is_marked(folder, records.STOPPED_FILE) else ""


def _end_exec(link: LauncherLink, number: int) -> None:
    # A launcher program that is gone has taken its execs with it.
    with contextlib.suppress(LaunchError):
        link.tell({"op": "end_exec", "exec": number})
