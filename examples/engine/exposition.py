"""Metrics in Prometheus's text format, without a library: counters, gauges and histograms with fixed labels."""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping, Sequence
from typing import Final

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


def labelled(name: str, labels: Mapping[str, str]) -> str:
    """Return the name of a series."""
    if not labels:
        return name
    inside = ",".join(f'{key}="{escaped(value)}"' for key, value in sorted(labels.items()))
    return f"{name}{{{inside}}}"


def escaped(value: str) -> str:
    """Return the value of a label as it is written."""
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def family(name: str, kind: str, words: str, series: Mapping[str, float]) -> list[str]:
    """Return the lines of one metric; *series* has values by written series."""
    values = [f"{each} {_number(value)}" for each, value in series.items()]
    return [f"# HELP {name} {words}", f"# TYPE {name} {kind}", *values]


class Histogram:
    """Counts observations by upper edge."""

    def __init__(self, name: str, words: str, edges: Sequence[float]) -> None:
        self.name = name
        self._words = words
        self._edges = (*edges, math.inf)
        self._counts = [0] * len(self._edges)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count one observation."""
        self._counts[bisect.bisect_left(self._edges, value)] += 1
        self._sum += value

    def lines(self, labels: Mapping[str, str]) -> list[str]:
        """Return all lines of the histogram."""
        series: dict[str, float] = {}
        total = 0
        for edge, count in zip(self._edges, self._counts, strict=True):
            total += count
            series[labelled(f"{self.name}_bucket", {**labels, "le": _number(edge)})] = total
        series[labelled(f"{self.name}_sum", labels)] = self._sum
        series[labelled(f"{self.name}_count", labels)] = total
        return family(self.name, "histogram", self._words, series)


def _number(value: float) -> str:
    return "+Inf" if value == math.inf else repr(float(value))
