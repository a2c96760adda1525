"""Real containers for tests: orders, a launcher whose ends are remembered, and what is seen of their processes."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path

from grove_server.runtime.process.launching import Launcher, LaunchOrder, Run
from grove_server.runtime.process.program import kernel
from tests.waiting import until

# Tests that run beside each other, and the servers that they start, tell their processes apart by it.
SESSION = os.environ.setdefault("GROVE_TEST_SESSION", uuid.uuid4().hex[:8])
PATH = "/usr/local/bin:/usr/bin:/bin"


def uid_of(name: str) -> str:
    """Return the uid of the pod that a test calls by a short name."""
    return f"{name}-{SESSION}"


def order(
    *argv: str,
    uid: str = "a",
    container: str = "main",
    environment: Mapping[str, str] | None = None,
    **more: object,
) -> LaunchOrder:
    """Return an order for a container of the pod ``pod-UID``, with a PATH."""
    pod_uid = uid_of(uid)
    fields: dict[str, object] = {"attempt": 0, **more}
    return LaunchOrder(
        pod_uid=pod_uid,
        namespace="default",
        pod_name=f"pod-{pod_uid}",
        container=container,
        argv=argv,
        environment={"PATH": PATH, **(environment or {})},
        **fields,  # type: ignore[arg-type]  # whatever a test wants to be different
    )


def shell(script: str, **more: object) -> LaunchOrder:
    """Return an order for a container that runs a script of the shell."""
    return order("sh", "-c", script, **more)  # type: ignore[arg-type]  # whatever a test wants to be different


class Ends:
    """The runs that ended, as a launcher reports them."""

    def __init__(self) -> None:
        self.seen: list[Run] = []

    def __call__(self, run: Run) -> None:
        """Remember the end of a run."""
        self.seen.append(run)

    async def of(self, run: Run) -> Run:
        """Wait until a run has ended and return it as it was reported."""
        await until(lambda: any(end.key == run.key for end in self.seen), f"the end of {run.key}")
        return next(end for end in self.seen if end.key == run.key)


def log_texts(launcher: Launcher, run: Run) -> list[str]:
    """Return the lines of a run's newest log file, without times and streams."""
    path = launcher.log_path(*run.key)
    return [line.split(" ", 3)[3] for line in path.read_text().splitlines()] if path.exists() else []


async def said(launcher: Launcher, run: Run, count: int = 1) -> list[str]:
    """Wait until a container has said so many lines and return all of them."""
    await until(lambda: len(log_texts(launcher, run)) >= count, f"{count} lines of {run.key}")
    return log_texts(launcher, run)


def marked(run: Run) -> list[int]:
    """Return every live process that has the run's marker in its environment."""
    marker = f"GROVE_RUN={run.pod_uid}/{run.container}/{run.attempt}".encode()
    found = []
    for pid in kernel.pids():
        try:
            variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        # A zombie has no environment any more.
        if marker in variables:
            found.append(pid)
    return found


async def runs_once(*runs: Run) -> None:
    """Wait until each run's main process, and nothing else of it, runs: exec shows the environment a moment late."""
    for run in runs:
        await until(lambda run=run: marked(run) == [run.pid], f"{run.key} runs once")  # type: ignore[misc]  # bound now


def record_of(data_dir: Path, run: Run, name: str) -> dict[str, object]:
    """Return a record of a run on disk."""
    text = (data_dir / "process" / "pods" / run.pod_uid / run.container / str(run.attempt) / name).read_text()
    found: dict[str, object] = json.loads(text)
    return found
