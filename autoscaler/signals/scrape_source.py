"""Measures of all pods from their own pages, without a Prometheus: for the embedded server and small fleets.

At each tick every pod with a page is asked once, all at the same time within bounds; a page is taken apart when it has
come, one after the other, so that the event loop is free in between. What a pod said stays, and ages, while its page
cannot be read. Not for large fleets: there Prometheus reads once for everybody.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np

from autoscaler.engines.dialect import Dialect, Form
from autoscaler.engines.presets import PRESETS
from autoscaler.signals.census import Census
from autoscaler.signals.counters import PodHistory
from autoscaler.signals.exposition import ExpositionError, picker, samples
from autoscaler.signals.failures import Failure, SourceError
from autoscaler.signals.transport import Transport
from autoscaler.signals.vectors import Measured, PodVector, Problem

_STATUS_OK: Final = 200
_ACCEPT: Final = {"Accept": "text/plain;version=0.0.4"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ScrapeSettings:
    """Bounds of scraping. Of more pods than ``pages_max`` none is asked and a problem says so: a part would mislead.

    What a pod said is forgotten after ``forget_after_s`` without a page.
    """

    window_s: float = 60.0
    page_timeout_s: float = 3.0
    pages_max: int = 1_000
    forget_after_s: float = 300.0


@dataclass(frozen=True, slots=True)
class _Target:
    pod: int
    key: tuple[str, str]
    url: str
    engine: str


class ScrapeSource:
    """Measures pods by reading their pages."""

    def __init__(self, transport: Transport, settings: ScrapeSettings | None = None) -> None:
        self._transport = transport
        self._settings = settings or ScrapeSettings()
        self._histories: dict[tuple[str, str], PodHistory] = {}
        self._dialects: dict[str, tuple[Dialect, ...]] = {}
        self._pickers: dict[str, re.Pattern[str]] = {}

    async def measure(self, census: Census, *, at: float, timeout_s: float) -> Measured:
        """Return all that is known at *at* (epoch seconds); what fails is a problem, never an exception."""
        targets = _targets(census)
        problems: list[Problem] = []
        if len(targets) > self._settings.pages_max:
            message = f"{len(targets)} pods are more than the {self._settings.pages_max} that are read; use Prometheus"
            problems.append(Problem(of="scrape", what="pages", failure=Failure.TOO_LARGE, message=message))
        else:
            problems += await self._read_all(census, targets, at, timeout_s)
        self._forget({target.key for target in targets}, at)
        vectors, buckets = self._vectors(census, targets, at)
        return Measured(at=at, census=census, vectors=vectors, buckets=buckets, problems=tuple(problems))

    async def _read_all(self, census: Census, targets: Iterable[_Target], at: float, timeout_s: float) -> list[Problem]:
        give_up_at_s = asyncio.get_running_loop().time() + timeout_s
        failed: dict[Failure, list[tuple[str, str]]] = {}
        async with asyncio.TaskGroup() as group:
            reading = [(target, group.create_task(self._read(target, at, give_up_at_s))) for target in targets]
        for target, task in reading:
            error = task.result()
            if error is not None:
                failed.setdefault(error.failure, []).append((census.names[target.pod], str(error)))
        # One problem for each way of failing, with one of the pods that failed so.
        return [
            Problem(
                of="scrape",
                what="pages",
                failure=failure,
                message=f"{len(pods)} of {len(reading)} pages; {min(pods)[0]}: {min(pods)[1]}",
            )
            for failure, pods in sorted(failed.items())
        ]

    async def _read(self, target: _Target, at: float, give_up_at_s: float) -> SourceError | None:
        left_s = give_up_at_s - asyncio.get_running_loop().time()
        timeout_s = max(0.001, min(self._settings.page_timeout_s, left_s))
        try:
            answer = await self._transport.get(target.url, timeout_s=timeout_s, headers=_ACCEPT)
        except SourceError as error:
            return error
        if answer.status in (401, 403):
            return SourceError(Failure.UNAUTHORIZED, f"{target.url} answered {answer.status}")
        if answer.status != _STATUS_OK:
            return SourceError(Failure.REFUSED, f"{target.url} answered {answer.status}")
        return self._take(target, answer.body, at)

    def _take(self, target: _Target, page: bytes, at: float) -> SourceError | None:
        dialects = self._dialects_of(target.engine)
        try:
            found = list(samples(page, self._pickers[target.engine]))
        except ExpositionError as error:
            return SourceError(Failure.MALFORMED, f"{target.url}: {error}")
        if not found:
            hints = "; ".join(dialect.hint for dialect in dialects if dialect.hint)
            return SourceError(Failure.MALFORMED, f"{target.url} has no metric of {target.engine}; {hints}")
        history = self._histories.get(target.key)
        if history is None:
            history = self._histories[target.key] = PodHistory(window_s=self._settings.window_s)
        # Pages that stamp their samples are as old as they say.
        stamps = [sample.time for sample in found if sample.time is not None]
        history.take(found, dialects, min(at, *stamps) if stamps else at)
        return None

    def _dialects_of(self, engine: str) -> tuple[Dialect, ...]:
        """Return the dialects that a pod's own page can be in; what speaks of other pods is not among them."""
        if engine not in self._dialects:
            self._dialects[engine] = tuple(dialect for dialect in PRESETS[engine] if dialect.page)
            names = {name for dialect in self._dialects[engine] for name in dialect.metric_names()}
            self._pickers[engine] = picker(names or {"-"})
        return self._dialects[engine]

    def _forget(self, wanted: set[tuple[str, str]], at: float) -> None:
        for key, history in [*self._histories.items()]:
            if key not in wanted or at - history.pages[-1].at > self._settings.forget_after_s:
                del self._histories[key]

    def _vectors(
        self, census: Census, targets: Iterable[_Target], at: float
    ) -> tuple[dict[str, PodVector], dict[str, dict[float, PodVector]]]:
        ages_s = census.unknown()
        rows: dict[tuple[str, float | None], tuple[np.typing.NDArray[np.float64], np.typing.NDArray[np.bool_]]] = {}
        sources: dict[str, set[str]] = {}
        for target in targets:
            history = self._histories.get(target.key)
            if history is None:
                continue
            ages_s[target.pod] = max(0.0, at - history.pages[-1].at)
            for name, source in history.sources.items():
                measure = next(
                    dialect.measures[name] for dialect in self._dialects_of(target.engine) if name in dialect.measures
                )
                sources.setdefault(name, set()).add(source)
                values: list[tuple[float | None, float]] = (
                    [*history.buckets(name).items()]
                    if measure.form is Form.BUCKETS
                    else [(None, history.value(name, measure.form))]
                )
                for edge, value in values:
                    if (name, edge) not in rows:
                        rows[name, edge] = census.unknown(), np.zeros(len(census), dtype=np.bool_)
                    if measure.low <= value <= measure.high:
                        rows[name, edge][0][target.pod] = value
                    elif not np.isnan(value):
                        rows[name, edge][1][target.pod] = True
        vectors: dict[str, PodVector] = {}
        buckets: dict[str, dict[float, PodVector]] = {}
        for (name, edge), (values_of, faulty) in rows.items():
            source = "+".join(sorted(sources[name]))
            vector = PodVector(values=values_of, ages_s=ages_s, faulty=faulty, source=source)
            if edge is None:
                vectors[name] = vector
            else:
                buckets.setdefault(name, {})[edge] = vector
        return vectors, {name: dict(sorted(edges.items())) for name, edges in buckets.items()}


def _targets(census: Census) -> list[_Target]:
    return [
        _Target(
            pod=number,
            key=(census.namespace_of(number), census.names[number]),
            url=page,
            engine=census.scopes[int(census.scope_of[number])].engine,
        )
        for number, page in enumerate(census.pages)
        if page
    ]
