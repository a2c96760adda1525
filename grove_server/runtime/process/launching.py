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

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from grove_server.runtime.process.runs import (
    Ended,
    ExecOutput,
    ExecResult,
    LaunchError,
    LaunchOrder,
    Run,
    RunKey,
    Shortfall,
)

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


class ExecSession:
    """A command that runs in a container, with its streams."""

    async def read(self) -> ExecOutput | None:
        """Return the next output (at most 32 KiB), or None once all of it has been read. One reader at a time."""
        return None

    async def write(self, data: bytes) -> None:
        """Give input; returns when the command's buffer has taken it. Input after its end is dropped."""

    def close_input(self) -> None:
        """End the input; with a terminal this sends its end-of-file character."""

    def resize(self, *, rows: int, columns: int) -> None:
        """Tell the terminal its size; without a terminal this does nothing."""

    def signal(self, number: int) -> bool:
        """Send a signal to the command's process group; False if it has ended."""
        return number < 0

    async def wait(self) -> int:
        """Return the exit code (128 + signal if a signal ended it)."""
        return 0

    async def close(self) -> None:
        """End the command if it still runs, with all that it started, and give back its streams."""


class Launcher:
    """Starts, watches and ends the processes of containers."""

    def __init__(self, data_dir: Path, *, on_end: Callable[[Run], None] = lambda _: None) -> None:
        self.data_dir = data_dir
        self.on_end = on_end

    async def start(self) -> None:
        """Start the launcher program; raise LaunchError if it cannot be."""

    async def stop(self) -> None:
        """End the launcher program and all execs; keepers and their containers go on."""

    def adopt(self) -> tuple[Run, ...]:
        """Return every run on disk, sorted by key: running, ended, or vanished (Lost)."""
        return ()

    def runs(self) -> tuple[Run, ...]:
        """Return every run this launcher knows of, as last known, sorted by key."""
        return ()

    async def launch(self, order: LaunchOrder) -> Run:
        """Start a container's process; return once it runs (its exec succeeded). Raise LaunchError if it cannot."""
        raise LaunchError("LauncherUnavailable", f"the launcher does not run: {order.container}")

    def signal(self, run: Run, number: int) -> bool:
        """Send a signal to the main process's group; False if the run has ended."""
        return run.ended is None and number < 0

    async def kill(self, run: Run) -> None:
        """End everything of the run at once; return when it has ended."""

    async def execute(
        self, run: Run, argv: Sequence[str], *, timeout_s: float, output_bytes_max: int = 16 * 1024
    ) -> ExecResult:
        """Run a command in a container and return what came of it; raise LaunchError if it cannot be started."""
        raise LaunchError("LauncherUnavailable", f"{run.key} {argv} {timeout_s} {output_bytes_max}")

    async def attach(
        self,
        run: Run,
        argv: Sequence[str],
        *,
        tty: bool,
        stdin: bool = True,
        environment: Mapping[str, str] | None = None,
    ) -> ExecSession:
        """Run a command in a container with streams; *environment* adds to the container's (such as TERM)."""
        raise LaunchError("LauncherUnavailable", f"{run.key} {argv} {tty} {stdin} {environment}")

    def forget(self, pod_uid: str) -> None:
        """Remove the state of a pod's runs; its logs stay until the logs of enough later pods have been forgotten."""

    def log_path(self, pod_uid: str, container: str, attempt: int) -> Path:
        """Return where a run's log is written; rotated files have ``.1`` (the newest) and so on appended."""
        return self.data_dir / "process" / "logs" / pod_uid / container / f"{attempt}.log"
