"""One worker process that solves what the search gave up on, so that the event loop never waits for a solver.

Rules: the process starts with the first question, in a fresh interpreter and a session of its own (a Ctrl-C of the
server is not its affair), and lives until `close`. It has one question at a time; a few may wait, more are answered
BUDGET at once. Every question has an answer, never an error: time up is BUDGET, a process killed in mid-search, a
broken line and a failed start are LOST, and the next question starts a new process. Answers are advice: whoever asked
checks them against the state as it is then (`solved_placement`), for the cluster went on meanwhile.

Not here: the question (`placement.solver_model`), the solver (`solver_worker`).
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from importlib.util import find_spec
from typing import Final, Literal

from grove_server.control.solver_worker import answer_of, question_line
from grove_server.placement.solver_program import SolverAnswer, SolverOutcome, SolverQuestion
from grove_server.telemetry.logs import get_logger

SECONDS_MAX: Final = 2.0
"""Time for one question; the longest of 72 hosts in the project's notes took 2.5 s, the median 0.05 s."""

WAITING_MAX: Final = 16
"""Questions that may wait for their turn."""

# A worker first has to import numpy and the solver; on a busy machine that takes seconds.
_START_S: Final = 20.0
# The solver looks at its clock between two nodes of its search; past this it is believed to be stuck.
_GRACE_S: Final = 1.0
_LINE_BYTES_MAX: Final = 16 << 20
_BUDGET: Final = SolverAnswer(outcome=SolverOutcome.BUDGET)
_LOST: Final = SolverAnswer(outcome=SolverOutcome.LOST)

_log = get_logger("solver")

SolverMode = Literal["off", "auto"]


def is_available() -> bool:
    """Return whether the extra `solver` is installed."""
    return find_spec("highspy") is not None


def open_solver(mode: SolverMode) -> SolverPool | None:
    """Return the pool for a setting; None if it is off, or if the extra is not installed, which is logged."""
    if mode == "off":
        return None
    if not is_available():
        _log.info("solver_not_available", extra="solver", consequence="gangs that the search gives up on wait")
        return None
    return SolverPool()


class SolverPool:
    """The worker process and who waits for it. Use it from one event loop."""

    def __init__(self, *, seconds_max: float = SECONDS_MAX) -> None:
        self.starts = 0
        """Times a worker was started; more than 1 says that one was lost."""
        self._seconds_max = seconds_max
        self._worker: asyncio.subprocess.Process | None = None
        self._is_warm = False
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._is_closed = False

    @property
    def pid(self) -> int | None:
        """Return the process id of the worker; None if none runs."""
        return None if self._worker is None else self._worker.pid

    async def ask(self, question: SolverQuestion) -> SolverAnswer:
        """Return the answer, after at most the time for one question per question that waits before it."""
        if self._waiting >= WAITING_MAX or self._is_closed:
            return _BUDGET
        self._waiting += 1
        try:
            async with self._turn:
                return await self._ask(question)
        finally:
            self._waiting -= 1

    async def close(self) -> None:
        """End the worker; what is being asked is answered BUDGET."""
        self._is_closed = True
        await self._end_worker()

    async def _ask(self, question: SolverQuestion) -> SolverAnswer:
        if self._is_closed:
            return _BUDGET
        try:
            worker = self._worker if self._worker is not None else await self._start_worker()
            limit_s = self._seconds_max + _GRACE_S + (0.0 if self._is_warm else _START_S)
            async with asyncio.timeout(limit_s):
                line = await _exchange(worker, question_line(question, self._seconds_max))
            self._is_warm = True
            return answer_of(line)
        except (OSError, EOFError, ValueError, KeyError) as error:  # TimeoutError is an OSError.
            _log.warning("solver_lost", pid=self.pid, error=f"{type(error).__name__}: {error}")
            await self._end_worker()
            return _BUDGET if isinstance(error, TimeoutError) or self._is_closed else _LOST
        except asyncio.CancelledError:
            # The answer to a question that nobody waits for any more would be taken for that to the next one.
            await self._end_worker()
            raise

    async def _start_worker(self) -> asyncio.subprocess.Process:
        self.starts += 1
        self._is_warm = False
        self._worker = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "grove_server.control.solver_worker",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            limit=_LINE_BYTES_MAX,
            start_new_session=True,
        )
        _log.info("solver_started", pid=self._worker.pid)
        return self._worker

    async def _end_worker(self) -> None:
        worker, self._worker = self._worker, None
        if worker is None:
            return
        with suppress(ProcessLookupError):
            worker.kill()
        await worker.wait()


async def _exchange(worker: asyncio.subprocess.Process, line: bytes) -> bytes:
    """Return the worker's line for ours; EOFError or OSError if it went away."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write(line)
    await worker.stdin.drain()
    answer = await worker.stdout.readline()
    if not answer.endswith(b"\n"):
        raise EOFError("the worker went away")
    return answer
