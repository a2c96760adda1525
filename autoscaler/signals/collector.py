"""One observation of everything: measures of pods, a policy's own signals, who is stuck; all of one moment.

The service makes one collector, hands it a census at every tick and puts what comes back beside its inventory. It never
raises for what a source does: a source that is down leaves readings out, and says why in ``problems``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

import numpy as np

from autoscaler.observation import Fault, Reading
from autoscaler.signals.census import NO_ROLE, Census, Flags, ScopeSeen
from autoscaler.signals.custom import age_query, failed, read_signal
from autoscaler.signals.failures import SourceError
from autoscaler.signals.movement import Movement
from autoscaler.signals.prometheus import Prometheus, Vector
from autoscaler.signals.readings import ScopeReadings, read
from autoscaler.signals.vectors import Measured, Problem
from grove_server.resources.scaling_policy import SignalSpec

QUERIES_AT_ONCE: Final = 4
PROBLEMS_MAX: Final = 256
# With so many of a role's pods standing still it is rather the metric that stands still.
FROZEN_PART: Final = 0.5


class Source(Protocol):
    """What measures pods: `PrometheusSource` or `ScrapeSource`."""

    async def measure(self, census: Census, *, at: float, timeout_s: float) -> Measured:
        """Return all that is known at *at*; what fails is a problem, never an exception."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What one tick saw: readings in the order of the census's scopes; ``stuck`` are pods by scope and role.

    ``strangers`` counts series of pods that no policy has.
    """

    at: float
    scopes: Sequence[ScopeReadings]
    stuck: Sequence[Mapping[str, tuple[str, ...]]]
    problems: Sequence[Problem] = ()
    strangers: int = 0


@dataclass(slots=True, kw_only=True)
class _Question:
    """A signal's query as several scopes ask it."""

    spec: SignalSpec
    answer: Vector | SourceError | None = None
    stamps: Vector | None = None
    asked_by: list[tuple[int, str]] = field(default_factory=list)


class Collector:
    """Observes through one source of measures and, for signals of policies, through one Prometheus."""

    def __init__(self, source: Source, prometheus: Prometheus | None = None) -> None:
        """Without *prometheus* the signals that policies define are unknown."""
        self._source = source
        self._prometheus = prometheus
        self._movement = Movement()
        self._slots = asyncio.Semaphore(QUERIES_AT_ONCE)

    async def observe(self, census: Census, *, at: float, timeout_s: float) -> Observed:
        """Return what is known of every scope at *at* (epoch seconds), within *timeout_s*."""
        questions = _questions(census)
        give_up_at_s = asyncio.get_running_loop().time() + timeout_s
        async with asyncio.TaskGroup() as group:
            measuring = group.create_task(self._source.measure(census, at=at, timeout_s=timeout_s))
            for question in questions:
                group.create_task(self._ask(question, at, give_up_at_s))
        measured = measuring.result()
        problems = [*measured.problems]
        stuck = self._movement.update(measured)
        # Some 50 ms for 10,000 pods, which the event loop must not be held for; the function is pure.
        scopes = [*await asyncio.to_thread(read, measured)]
        copies = _copies(census)
        for question in questions:
            _add(question, scopes, census, copies, at)
            if isinstance(question.answer, SourceError):
                problems.append(
                    Problem(
                        of="prometheus",
                        what=question.spec.query,
                        failure=question.answer.failure,
                        message=str(question.answer),
                    )
                )
        by_role = _stuck_by_role(census, stuck)
        return Observed(
            at=at,
            scopes=tuple(_without_frozen(readings, names) for readings, names in zip(scopes, by_role, strict=True)),
            stuck=by_role,
            problems=tuple(problems[:PROBLEMS_MAX]),
            strangers=measured.strangers,
        )

    async def _ask(self, question: _Question, at: float, give_up_at_s: float) -> None:
        if self._prometheus is None:
            return
        async with self._slots:
            try:
                question.answer = await self._instant(question.spec.query, at, give_up_at_s)
                stamps = age_query(question.spec)
                if stamps:
                    question.stamps = await self._instant(stamps, at, give_up_at_s)
            except SourceError as error:
                question.answer = error

    async def _instant(self, query: str, at: float, give_up_at_s: float) -> Vector:
        assert self._prometheus is not None, "asked only where there is one"
        left_s = give_up_at_s - asyncio.get_running_loop().time()
        return await self._prometheus.instant(query, at=at, timeout_s=max(0.001, left_s))


def _questions(census: Census) -> list[_Question]:
    """Return each signal that differs once, with the scopes that want it."""
    found: dict[SignalSpec, _Question] = {}
    for number, scope in enumerate(census.scopes):
        for name, spec in scope.signals.items():
            found.setdefault(spec, _Question(spec=spec)).asked_by.append((number, name))
    return list(found.values())


def _copies(census: Census) -> Mapping[str, int]:
    counts: dict[str, int] = {}
    for scope in census.scopes:
        counts[scope.key] = counts.get(scope.key, 0) + 1
    return counts


def _add(
    question: _Question, scopes: list[ScopeReadings], census: Census, copies: Mapping[str, int], at: float
) -> None:
    for number, name in question.asked_by:
        scope = census.scopes[number]
        readings = _readings(question, scope, copies[scope.key], at)
        roles = {role: dict(known) for role, known in scopes[number].roles.items()}
        of_scope = dict(scopes[number].scope)
        for role, reading in readings.items():
            (roles.setdefault(role, {}) if role else of_scope)[name] = reading
        scopes[number] = ScopeReadings(scope=of_scope, roles=roles)


def _readings(question: _Question, scope: ScopeSeen, copies: int, at: float) -> Mapping[str, Reading]:
    match question.answer:
        case None:
            return failed(question.spec, scope, "a signal with a query needs Prometheus")
        case SourceError() as error:
            return failed(question.spec, scope, str(error))
        case Vector() as answer:
            return read_signal(question.spec, scope, copies, answer, question.stamps, at)


def _stuck_by_role(census: Census, stuck: Flags) -> list[dict[str, tuple[str, ...]]]:
    found: list[dict[str, tuple[str, ...]]] = [{} for _ in census.scopes]
    for pod in np.flatnonzero(stuck & (census.role_of != NO_ROLE)):
        scope, role, _ = census.roles[int(census.role_of[pod])]
        found[scope][role] = (*found[scope].get(role, ()), census.names[pod])
    return found


def _without_frozen(readings: ScopeReadings, stuck: Mapping[str, tuple[str, ...]]) -> ScopeReadings:
    """Mark the readings of roles most of whose pods stand still: what they say may be of another time."""
    roles: dict[str, Mapping[str, Reading]] = dict(readings.roles)
    for role, names in stuck.items():
        message = f"{len(names)} pods have requests and make no tokens, e.g. {names[0]}"
        roles[role] = {
            signal: replace(reading, fault=Fault.FROZEN, message=message)
            if reading.fault is Fault.NONE and len(names) >= reading.expected * FROZEN_PART
            else reading
            for signal, reading in roles.get(role, {}).items()
        }
    return ScopeReadings(scope=readings.scope, roles=roles)
