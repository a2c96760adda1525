"""What one pod's pages say over time: gauges as they are, counters as rates over a window. Pure.

Each page is reduced to one number per measure (and bucket). A counter that falls was reset, and what it shows since
then counts; a series that comes up later counts from zero, as it was made by what it counts. A rate needs two pages,
and the last one has to have the counter; else it is not known. Of the sources of a measure the first one that the page
has counts, page by page.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from autoscaler.engines.dialect import Dialect, Form, Match, Measure, Source, Within, series_names
from autoscaler.signals.edges import edge_of
from autoscaler.signals.exposition import Sample

# More pages than this within a window are thinned out by dropping the one before the last.
PAGES_MAX: Final = 64

# A measure and a part of it: "" for the whole, "sum" and "count" of a mean, or the edge of a bucket.
Part = tuple[str, str | float]
_SeriesKey = tuple[str, tuple[tuple[str, str], ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Page:
    at: float
    gauges: Mapping[str, float]
    totals: Mapping[Part, float]
    said: frozenset[str]


@dataclass(slots=True, kw_only=True)
class PodHistory:
    """What is remembered of one pod: the last value of each counter, and totals at each page of the window."""

    window_s: float
    last: dict[_SeriesKey, float] = field(default_factory=dict)
    totals: dict[Part, float] = field(default_factory=dict)
    pages: deque[_Page] = field(default_factory=deque)
    sources: dict[str, str] = field(default_factory=dict)

    def take(self, samples: Iterable[Sample], dialects: Iterable[Dialect], at: float) -> bool:
        """Take in a page read at *at*; return whether it said anything. A page older than the last is left out."""
        by_name: dict[str, list[Sample]] = {}
        for sample in samples:
            by_name.setdefault(sample.name, []).append(sample)
        if self.pages and at <= self.pages[-1].at:
            return bool(by_name)
        gauges: dict[str, float] = {}
        seen: dict[_SeriesKey, float] = {}
        done: set[str] = set()
        for dialect in dialects:
            for name, measure in dialect.measures.items():
                if name in done:
                    continue
                for source in measure.sources:
                    if self._take_source(name, measure, source, by_name, gauges, seen):
                        self.sources[name] = source.name
                        done.add(name)
                        break
        self.last = seen
        self.pages.append(_Page(at=at, gauges=gauges, totals=dict(self.totals), said=frozenset(done)))
        # The last page before the window stays, so that a rate spans all of it.
        while len(self.pages) > 2 and self.pages[1].at <= at - self.window_s:  # noqa: PLR2004 -- a rate needs two
            self.pages.popleft()
        if len(self.pages) > PAGES_MAX:
            del self.pages[-2]
        return bool(by_name)

    def value(self, name: str, form: Form) -> float:
        """Return a measure as of the last page; NaN if it is not known. Not for BUCKETS."""
        last = self.pages[-1]
        first = self.pages[0]
        elapsed_s = last.at - first.at
        match form:
            case Form.GAUGE:
                return last.gauges.get(name, math.nan)
            case Form.SLOPE:
                if elapsed_s <= 0 or name not in first.gauges or name not in last.gauges:
                    return math.nan
                return (last.gauges[name] - first.gauges[name]) / elapsed_s
            case Form.RATE:
                return self._rate((name, ""), elapsed_s)
            case Form.MEAN:
                count = self._rate((name, "count"), elapsed_s)
                return self._rate((name, "sum"), elapsed_s) / count if count > 0 else math.nan
            case Form.BUCKETS:
                return math.nan

    def buckets(self, name: str) -> dict[float, float]:
        """Return the rates of a histogram by upper edge."""
        elapsed_s = self.pages[-1].at - self.pages[0].at
        return {
            part: rate
            for of, part in self.pages[-1].totals
            if of == name and isinstance(part, float) and not math.isnan(rate := self._rate((of, part), elapsed_s))
        }

    def _rate(self, part: Part, elapsed_s: float) -> float:
        total = self.pages[-1].totals.get(part)
        if total is None or elapsed_s <= 0 or part[0] not in self.pages[-1].said:
            return math.nan
        return (total - self.pages[0].totals.get(part, 0.0)) / elapsed_s

    def _take_source(
        self,
        name: str,
        measure: Measure,
        source: Source,
        by_name: Mapping[str, list[Sample]],
        gauges: dict[str, float],
        seen: dict[_SeriesKey, float],
    ) -> bool:
        names = series_names(measure.form, source)
        found = [sample for each in names for sample in by_name.get(each, ()) if matches(sample.labels, source.where)]
        if not found:
            return False
        if measure.form in (Form.GAUGE, Form.SLOPE):
            gauges[name] = _within([sample.value for sample in found], measure.within) * source.scale
            return True
        for sample in found:
            part = _part(name, measure.form, sample)
            if part is not None:
                self.totals[part] = self.totals.get(part, 0.0) + self._increase(sample, seen) * source.scale
        return True

    def _increase(self, sample: Sample, seen: dict[_SeriesKey, float]) -> float:
        key = (sample.name, tuple(sorted(sample.labels.items())))
        before = self.last.get(key)
        seen[key] = sample.value
        if before is None:
            return sample.value if self.pages else 0.0
        return sample.value - before if sample.value >= before else sample.value


def matches(labels: Mapping[str, str], where: Iterable[Match]) -> bool:
    """Return whether labels fulfil all conditions, as PromQL has them."""
    for match in where:
        value = labels.get(match.label, "")
        is_pattern = match.operator.endswith("~")
        holds = re.fullmatch(match.value, value) is not None if is_pattern else value == match.value
        if holds is match.operator.startswith("!"):
            return False
    return True


def _within(values: list[float], within: Within) -> float:
    match within:
        case Within.SUM:
            return sum(values)
        case Within.MAX:
            return max(values)
        case Within.MEAN:
            return sum(values) / len(values)


def _part(name: str, form: Form, sample: Sample) -> Part | None:
    match form:
        case Form.MEAN:
            return name, "count" if sample.name.endswith("_count") else "sum"
        case Form.BUCKETS:
            edge = edge_of(sample.labels.get("le", ""))
            return None if edge is None else (name, edge)
        case _:
            return name, ""
