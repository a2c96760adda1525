"""Prometheus's text format, as far as we need it: the samples of some metrics on a page. Pure.

A page of an engine has a thousand lines of which a few dozen matter, so lines are picked by one pattern over the whole
page and only those are taken apart. A line that matters and cannot be read fails the page: half a page would look like
less load. NaN and infinity are left out: they mean that nothing is known.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

SAMPLES_MAX: Final = 20_000

_LABEL: Final = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*"((?:[^"\\]|\\.)*)"\s*,?')
_ESCAPES: Final = {r"\\": "\\", r"\"": '"', r"\n": "\n"}
_ESCAPE: Final = re.compile(r"\\[\\\"n]")
# A value and perhaps a time in milliseconds (seconds with a fraction in OpenMetrics); an exemplar may follow.
_END: Final = re.compile(r"[ \t]+([^ \t#]+)(?:[ \t]+(-?[0-9.]+))?[ \t]*(?:#.*)?$")


class Sample(NamedTuple):
    """One line: labels as they stand, a finite value, and the sample's own time in epoch seconds if it has one."""

    name: str
    labels: Mapping[str, str]
    value: float
    time: float | None


class ExpositionError(ValueError):
    """A page is not what Prometheus could read; the message says where."""


def picker(names: Iterable[str]) -> re.Pattern[str]:
    """Return the pattern that picks the lines of some metrics from a page."""
    # Longest first, so that a name is not taken for the beginning of another.
    alternatives = "|".join(map(re.escape, sorted(names, key=lambda name: (-len(name), name))))
    return re.compile(rf"^({alternatives})(?=[ \t{{])(.*)$", re.MULTILINE)


def samples(page: bytes, pattern: re.Pattern[str]) -> Iterator[Sample]:
    """Yield the samples of the metrics that *pattern* picks; ExpositionError."""
    try:
        text = page.decode("utf-8")
    except UnicodeDecodeError:
        raise ExpositionError("the page is not text") from None
    for count, found in enumerate(pattern.finditer(text)):
        if count >= SAMPLES_MAX:
            raise ExpositionError(f"the page has more than {SAMPLES_MAX} samples")
        sample = _sample(found[1], found[2].rstrip("\r"))
        if math.isfinite(sample.value):
            yield sample


def _sample(name: str, rest: str) -> Sample:
    labels: dict[str, str] = {}
    place = 0
    rest = rest.lstrip(" \t") if rest.lstrip(" \t").startswith("{") else rest
    if rest.startswith("{"):
        place = 1
        while (label := _LABEL.match(rest, place)) is not None:
            value = label[2]
            labels[label[1]] = _ESCAPE.sub(lambda mark: _ESCAPES[mark[0]], value) if "\\" in value else value
            place = label.end()
        if rest[place : place + 1] != "}":
            raise ExpositionError(f"the labels of {name} cannot be read")
        place += 1
        if rest[place : place + 1] not in (" ", "\t"):
            rest = f"{rest[:place]} {rest[place:]}"
    end = _END.match(rest, place)
    if end is None:
        raise ExpositionError(f"the value of {name} cannot be read")
    try:
        value_of = float(end[1])
        stamp = None if end[2] is None else float(end[2])
    except ValueError:
        raise ExpositionError(f"the value of {name} cannot be read") from None
    if stamp is not None and "." not in end[2]:
        stamp /= 1000
    return Sample(name, labels, value_of, stamp)
