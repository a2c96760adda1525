"""Measures of all pods from Prometheus: at each tick one query per measure, all for one and the same moment.

Rules: what moves slowly is asked every few ticks and ages in between. Heartbeats give each pod's samples their age, by
Prometheus's own stamps. A query that fails makes its measure unknown and a problem, and nothing else. Answers are taken
apart one query after the other, so that the event loop is free between two of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import orjson

from autoscaler.engines import dialect as d
from autoscaler.engines.dialect import Dialect, Form
from autoscaler.signals.census import Census, Flags, Floats
from autoscaler.signals.edges import edge_of, edges_around
from autoscaler.signals.failures import SourceError
from autoscaler.signals.probe import Probe, probe
from autoscaler.signals.prometheus import Prometheus, TextVector
from autoscaler.signals.queries import heartbeat_query, measure_query
from autoscaler.signals.vectors import Measured, PodVector, Problem

# A whole histogram per pod is only asked for where there are few pods.
PROMPT_BUCKET_PODS_MAX: Final = 256
# Labels of series that are remembered for each dialect; beyond that they are learned anew.
LABELS_KEPT_MAX: Final = 1_000_000
# The key of a measure that is one vector and no histogram.
_WHOLE: Final = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PrometheusSettings:
    """``window_s`` of rates should hold at least four scrapes. ``slow_every_s`` is for what moves slowly.

    With ticks of 15 s that is every other one, so that what is kept stays younger than the usual limit of 45 s.

    What should be there and is not is looked for every ``probe_again_s``, the rest every ``probe_every_s``.
    """

    window_s: float = 60.0
    slow_every_s: float = 25.0
    probe_every_s: float = 300.0
    probe_again_s: float = 30.0
    queries_at_once: int = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    """The last answer for a slow measure: when it was asked, for which census, and what came."""

    at: float
    census: Census
    vectors: Mapping[float, PodVector]


@dataclass(slots=True, kw_only=True)
class _Tick:
    """One tick under way."""

    at: float
    deadline_s: float
    census: Census
    vectors: dict[str, PodVector] = field(default_factory=dict)
    buckets: dict[str, dict[float, PodVector]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    strangers: int = 0

    @property
    def left_s(self) -> float:
        """What is left of the tick's time; never 0, so that what is asked last fails by itself."""
        return max(0.001, self.deadline_s - asyncio.get_running_loop().time())

    def note(self, of: str, what: str, error: SourceError) -> None:
        """Remember why something is not known."""
        self.problems.append(Problem(of=of, what=what, failure=error.failure, message=str(error)))

    def add(self, name: str, vectors: Mapping[float, PodVector], *, is_histogram: bool) -> None:
        """Take in a measure; what an earlier dialect said of a pod stays."""
        if not is_histogram:
            vector = vectors[_WHOLE]
            known = self.vectors.get(name)
            self.vectors[name] = vector if known is None else known.or_else(vector)
            return
        of_measure = self.buckets.setdefault(name, {})
        for edge, vector in vectors.items():
            known = of_measure.get(edge)
            of_measure[edge] = vector if known is None else known.or_else(vector)


class PrometheusSource:
    """Measures pods through one Prometheus."""

    def __init__(self, prometheus: Prometheus, settings: PrometheusSettings | None = None) -> None:
        self._prometheus = prometheus
        self._settings = settings or PrometheusSettings()
        self._probes: dict[str, Probe] = {}
        self._probed_for: tuple[str, ...] = ()
        self._kept: dict[tuple[str, str], _Kept] = {}
        self._known: dict[str, tuple[Census, tuple[str, str] | None, dict[bytes, tuple[int, float]]]] = {}
        self._slots = asyncio.Semaphore(self._settings.queries_at_once)

    @property
    def probes(self) -> Sequence[Probe]:
        """What was found of each dialect, for status and `explain`."""
        return tuple(self._probes.values())

    async def measure(self, census: Census, *, at: float, timeout_s: float) -> Measured:
        """Return all that is known at *at* (epoch seconds); what fails is a problem, never an exception."""
        tick = _Tick(at=at, deadline_s=asyncio.get_running_loop().time() + timeout_s, census=census)
        if len(census):
            dialects = census.dialects()
            await self._probe(tick, dialects)
            for dialect in dialects:
                found = self._probes.get(dialect.name)
                if found is not None and found.is_found:
                    await self._measure_dialect(tick, found)
        return Measured(
            at=at,
            census=census,
            vectors=tick.vectors,
            buckets={name: dict(sorted(edges.items())) for name, edges in tick.buckets.items()},
            problems=tuple(tick.problems),
            strangers=tick.strangers,
        )

    async def _probe(self, tick: _Tick, dialects: Sequence[Dialect]) -> None:
        if self._probed_for != tick.census.namespaces:
            self._probes.clear()
            self._probed_for = tick.census.namespaces
        for dialect in dialects:
            known = self._probes.get(dialect.name)
            is_found = known is not None and known.is_found
            again_s = self._settings.probe_every_s if is_found else self._settings.probe_again_s
            if known is not None and tick.at - known.at < again_s:
                continue
            try:
                self._probes[dialect.name] = await probe(
                    self._prometheus, dialect, tick.census.namespaces, at=tick.at, timeout_s=tick.left_s
                )
            except SourceError as error:
                # What was found before is still the best guess; the queries will tell.
                tick.note(dialect.name, "probe", error)
                if not error.is_passing:
                    continue
                return

    async def _measure_dialect(self, tick: _Tick, found: Probe) -> None:
        questions = {"": heartbeat_query(found.dialect, found.ground(tick.census.namespaces, 0))}
        for name in found.dialect.measures:
            kept = self._kept.get((found.dialect.name, name))
            if kept is None or name not in d.SLOW_MEASURES or tick.at - kept.at >= self._settings.slow_every_s:
                questions[name] = self._question(tick.census, found, name)
        asked: dict[str, asyncio.Task[TextVector | SourceError]] = {}
        async with asyncio.TaskGroup() as group:
            for name, query in questions.items():
                if query:
                    asked[name] = group.create_task(self._ask(query, tick))
        ages_s = self._ages(tick, found, await asked.pop("")) if "" in asked else tick.census.unknown()
        for name, task in asked.items():
            answer = await task
            if isinstance(answer, SourceError):
                tick.note(found.dialect.name, name, answer)
                # An earlier answer is better than none; it says how old it is.
                if (found.dialect.name, name) in self._kept:
                    self._reuse(tick, found.dialect, name)
            else:
                self._take(tick, found, name, answer, ages_s)
            # Each answer may be a step of some milliseconds.
            await asyncio.sleep(0)
        for name in found.dialect.measures.keys() - questions.keys():
            self._reuse(tick, found.dialect, name)

    def _question(self, census: Census, found: Probe, name: str) -> str:
        """Return the query for a measure, "" if there is nothing to ask."""
        measure = found.dialect.measures[name]
        ground = found.ground(census.namespaces, self._settings.window_s)
        if measure.form is not Form.BUCKETS:
            return measure_query(measure, ground)
        if name == d.PROMPT_BUCKETS:
            return measure_query(measure, ground) if len(census) <= PROMPT_BUCKET_PODS_MAX else ""
        known = found.edges.get(name, {})
        edges = [known[edge] for edge in edges_around(tuple(known), _wanted_edges(census, name))]
        return measure_query(measure, ground, edges=edges) if edges else ""

    async def _ask(self, query: str, tick: _Tick) -> TextVector | SourceError:
        async with self._slots:
            try:
                return await self._prometheus.instant_texts(query, at=tick.at, timeout_s=tick.left_s)
            except SourceError as error:
                return error

    def _ages(self, tick: _Tick, found: Probe, answer: TextVector | SourceError) -> Floats:
        """Return how old each pod's samples are; not known is NaN, which counts as too old."""
        if isinstance(answer, SourceError):
            tick.note(found.dialect.name, "heartbeat", answer)
            return tick.census.unknown()
        stamps, _ = self._spread(tick, found, answer, low=0.0, high=np.inf)
        return np.maximum(0.0, tick.at - stamps[_WHOLE])

    def _take(self, tick: _Tick, found: Probe, name: str, answer: TextVector, ages_s: Floats) -> None:
        measure = found.dialect.measures[name]
        values, faulty = self._spread(tick, found, answer, low=measure.low, high=measure.high)
        source = "+".join(found.sources(name))
        vectors = {
            edge: PodVector(values=values[edge], ages_s=ages_s, faulty=faulty[edge], source=source)
            for edge in values
            if edge != _WHOLE or measure.form is not Form.BUCKETS
        }
        if name in d.SLOW_MEASURES:
            self._kept[found.dialect.name, name] = _Kept(at=tick.at, census=tick.census, vectors=vectors)
        tick.add(name, vectors, is_histogram=measure.form is Form.BUCKETS)

    def _reuse(self, tick: _Tick, dialect: Dialect, name: str) -> None:
        kept = self._kept[dialect.name, name]
        positions = None if kept.census is tick.census else tick.census.positions_in(kept.census)
        vectors = {edge: vector.aged(tick.at - kept.at, positions) for edge, vector in kept.vectors.items()}
        tick.add(name, vectors, is_histogram=dialect.measures[name].form is Form.BUCKETS)

    def _spread(
        self, tick: _Tick, found: Probe, answer: TextVector, *, low: float, high: float
    ) -> tuple[dict[float, Floats], dict[float, Flags]]:
        """Return values by pod and edge, and who said something impossible; series of unknown pods are counted."""
        places = self._places(tick.census, found)
        values: dict[float, Floats] = {_WHOLE: tick.census.unknown()}
        faulty: dict[float, Flags] = {_WHOLE: np.zeros(len(tick.census), dtype=np.bool_)}
        for labels, value in zip(answer.labels, answer.values, strict=True):
            known = places.get(labels) or places.setdefault(labels, _place(labels, tick.census, found))
            place, edge = known
            if place < 0:
                tick.strangers += 1
                continue
            if edge not in values:
                values[edge], faulty[edge] = tick.census.unknown(), np.zeros(len(tick.census), dtype=np.bool_)
            if low <= value <= high:
                values[edge][place] = value
            else:
                faulty[edge][place] = True
        return values, faulty

    def _places(self, census: Census, found: Probe) -> dict[bytes, tuple[int, float]]:
        """Return whose series labels are, as far as they were seen: they are the same at every tick."""
        known = self._known.get(found.dialect.name)
        if known is None or known[0] is not census or known[1] != found.labels or len(known[2]) > LABELS_KEPT_MAX:
            known = self._known[found.dialect.name] = census, found.labels, {}
        return known[2]


def _place(labels: bytes, census: Census, found: Probe) -> tuple[int, float]:
    """Return the pod's number (-1 for a stranger) and the bucket's edge that some labels mean."""
    assert found.labels is not None, "only what was found is asked"
    namespace_label, pod_label = found.labels
    known = orjson.loads(labels)
    place = census.index.get(known.get(namespace_label, ""), {}).get(known.get(pod_label, ""), -1)
    edge = edge_of(known["le"]) if "le" in known else _WHOLE
    return (-1, _WHOLE) if edge is None else (place, edge)


def _wanted_edges(census: Census, name: str) -> tuple[float, ...]:
    """Return the targets of all scopes that a histogram is to be compared with."""
    is_first = name in (d.TTFT_BUCKETS, d.FRONT_TTFT_BUCKETS)
    targets = {scope.ttft_s if is_first else scope.itl_s for scope in census.scopes}
    return tuple(sorted(target for target in targets if target is not None))
