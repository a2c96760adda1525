"""Asks the exact solver about gangs that the search gave up on, and keeps its answers until their turn comes.

Rules: one question at a time, the oldest first; a gang is asked about once per state in which it failed. The question
is put on a copy of the cluster in a thread, because making a large one takes longer than a step of the loop may. The
answer is advice: the gang is brought back to its round, and there a place that was found has to hold on the state as it
is then, and "impossible" counts only while nothing grew that could help. What was overtaken is asked again a few times,
then the gang waits for the next growth like any other. If the solver went away, the gang says so, and is asked about
again a few times: a question that ends every worker must not be asked for ever. Without a solver nothing is kept and
gangs wait with the verdict that the search stopped.

Not here: the process (`solver_pool`), the question (`placement.solver_model`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from grove_server.control.notes import solver_lost_note
from grove_server.control.solver_pool import SolverPool
from grove_server.lifecycle.plan import Note
from grove_server.placement.cluster import Cluster
from grove_server.placement.requests import GangRequest
from grove_server.placement.results import Placement, Verdict, VerdictCode
from grove_server.placement.solver_model import SolverModel, solved_placement, solver_model
from grove_server.placement.solver_program import SolverAnswer, SolverOutcome
from grove_server.resources.meta import Key
from grove_server.telemetry import metrics
from grove_server.telemetry.logs import get_logger

WANTED_MAX: Final = 1_000
"""Most gangs that wait for their question; with two seconds each that is half an hour of solving."""

OVERTAKEN_MAX: Final = 3
"""Answers in a row that came too late for one gang, before it waits for growth."""

LOST_MAX: Final = 3
"""Workers in a row that went away while they searched for one gang, before it waits for growth."""

PROVEN: Final = "an exact solver proved that there is no way"

_log = get_logger("solver")


class _Part(NamedTuple):
    """What is asked about: a gang, and which part of it by the name of the request."""

    gang: Key
    name: str


@dataclass(slots=True)
class _Case:
    """One part's story: the verdict it failed with, when it was last asked, and the answer that waits for its turn."""

    request: GangRequest
    verdict: Verdict
    asked_at: int = -1
    overtaken: int = 0
    lost: int = 0
    answer: tuple[SolverModel, SolverAnswer, int] | None = None


class SecondOpinions:
    """Cases by gang and part. *bring_back* has a gang decided anew, *note* tells people."""

    def __init__(
        self,
        cluster: Cluster,
        pool: SolverPool | None,
        bring_back: Callable[[Key], None],
        note: Callable[[Iterable[Note]], None],
    ) -> None:
        self._cluster = cluster
        self._pool = pool
        self._bring_back = bring_back
        self._note = note
        self._cases: dict[_Part, _Case] = {}
        self._parts: dict[Key, dict[str, None]] = {}
        self._wanted: dict[_Part, None] = {}
        self._task: asyncio.Task[None] | None = None

    @property
    def is_idle(self) -> bool:
        """Whether nothing is asked and nothing waits to be."""
        return self._task is None

    def want(self, gang: Key, request: GangRequest, verdict: Verdict) -> None:
        """Note that the search gave up on a request; asks soon, unless that was done on this state already."""
        if self._pool is None or verdict.code is not VerdictCode.BUDGET_EXHAUSTED or verdict.proof:
            return
        part = _Part(gang, request.name)
        case = self._cases.get(part)
        if case is None or case.request != request:
            case = self._cases[part] = _Case(request, verdict)
            self._parts.setdefault(gang, {})[request.name] = None
        if case.asked_at >= verdict.generation or case.overtaken >= OVERTAKEN_MAX:
            return
        case.verdict = verdict
        if part not in self._wanted and len(self._wanted) >= WANTED_MAX:
            metrics.SOLVER_QUESTIONS.labels("refused").inc()
            return
        self._wanted[part] = None
        if self._task is None:
            self._task = asyncio.ensure_future(self._work())

    def take(self, gang: Key, request: GangRequest) -> Placement | Verdict | None:
        """Return what the solver said of a request, if that is so on the present state; None: ask the search."""
        part = _Part(gang, request.name)
        case = self._cases.get(part)
        if case is None or case.answer is None:
            return None
        (model, answer, generation), case.answer = case.answer, None
        if case.request == request:
            if answer.outcome is SolverOutcome.FOUND:
                placement = solved_placement(self._cluster, model, answer)
                if placement is not None:
                    self._drop(part)
                    return placement
            elif not self._cluster.may_help(request, generation):
                return replace(case.verdict, code=VerdictCode.FRAGMENTED, proof=True, detail=PROVEN)
        case.overtaken += 1
        metrics.SOLVER_QUESTIONS.labels("overtaken").inc()
        return None

    def grew(self, gang: Key) -> None:
        """Note that a gang is tried again because something grew: answers may be in time again."""
        for name in self._parts.get(gang, ()):
            self._cases[_Part(gang, name)].overtaken = self._cases[_Part(gang, name)].lost = 0

    def forget(self, gang: Key) -> None:
        """Drop all that is kept of a gang that is gone or waits no more."""
        for name in list(self._parts.get(gang, ())):
            self._drop(_Part(gang, name))

    async def close(self) -> None:
        """Ask no more."""
        task, self._task = self._task, None
        self._pool = None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _drop(self, part: _Part) -> None:
        self._cases.pop(part, None)
        self._wanted.pop(part, None)
        names = self._parts.get(part.gang)
        if names is not None:
            names.pop(part.name, None)
            if not names:
                del self._parts[part.gang]

    async def _work(self) -> None:
        try:
            while self._wanted:
                part = next(iter(self._wanted))
                del self._wanted[part]
                await self._ask(part, self._cases[part])
        except Exception:  # noqa: BLE001 -- one question's fault must not end all later ones
            metrics.INTERNAL_ERRORS.labels("solver").inc()
            _log.exception("question_failed")
        finally:
            self._task = None

    async def _ask(self, part: _Part, case: _Case) -> None:
        pool = self._pool
        if pool is None:
            return
        case.asked_at = generation = self._cluster.generation
        model = await asyncio.to_thread(solver_model, self._cluster.fork(), case.request)
        if model is None:
            metrics.SOLVER_QUESTIONS.labels("unsuitable").inc()
            return
        answer = await pool.ask(model.question)
        metrics.SOLVER_QUESTIONS.labels(answer.outcome.lower()).inc()
        if self._cases.get(part) is not case:
            return
        if answer.outcome is SolverOutcome.LOST:
            case.lost += 1
            if is_again := case.lost < LOST_MAX:
                self._wanted[part] = None
            self._note([solver_lost_note(part.gang, is_again=is_again)])
        elif answer.outcome is not SolverOutcome.BUDGET:
            case.answer = (model, answer, generation)
            self._bring_back(part.gang)
