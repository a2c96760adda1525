"""Durations as Go and Kubernetes spell them: "1m30s", "4h0m0s", "100ms", "1.5h".

Read exactly, in nanoseconds; what does not fit 64 bits (292 years) is refused as in Go.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

TEXT_LENGTH_MAX: Final = 64

_NS_MAX: Final = 2**63 - 1
_UNITS_NS: Final = {
    "ns": 1,
    "us": 1_000,
    "\u00b5s": 1_000,  # The micro sign and the Greek letter mu look the same; Go takes both.
    "\u03bcs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_NS_PER_S: Final = _UNITS_NS["s"]
_PART: Final = re.compile(r"([0-9]*)(?:\.([0-9]*))?(ns|us|\u00b5s|\u03bcs|ms|s|m|h)")


class DurationError(ValueError):
    """A text is no duration; the message says why, without the text."""


@lru_cache(maxsize=1024)
def parse_duration_ns(text: str) -> int:
    """Return the nanoseconds that *text* spells; a fraction of one is cut off, as in Go."""
    if len(text) > TEXT_LENGTH_MAX:
        raise DurationError(f"must have at most {TEXT_LENGTH_MAX} characters, has {len(text)}")
    is_negative = text.startswith("-")
    rest = text[1:] if text[:1] in ("-", "+") else text
    if rest == "0":
        return 0
    total_ns = position = 0
    while position < len(rest) or not rest:
        match = _PART.match(rest, position)
        if match is None or not (match[1] or match[2]):
            raise DurationError("must be numbers with units, such as 1m30s, 4h or 100ms")
        unit_ns = _UNITS_NS[match[3]]
        total_ns += int(match[1] or "0") * unit_ns
        if match[2]:
            total_ns += int(match[2]) * unit_ns // 10 ** len(match[2])
        position = match.end()
    if total_ns > _NS_MAX:
        raise DurationError("must not be longer than 292 years")
    return -total_ns if is_negative else total_ns


def parse_duration(text: str) -> float:
    """Return the seconds that *text* spells; raise DurationError if it spells none."""
    return parse_duration_ns(text) / _NS_PER_S


def format_duration_ns(duration_ns: int) -> str:
    """Return the canonical spelling (Go's ``Duration.String``): "4h0m0s", "1m30s", "1.5s", "100ms", "0s"."""
    sign, left_ns = ("-", -duration_ns) if duration_ns < 0 else ("", duration_ns)
    if left_ns == 0:
        return "0s"
    if left_ns < _NS_PER_S:
        unit = "ms" if left_ns >= _UNITS_NS["ms"] else "us" if left_ns >= _UNITS_NS["us"] else "ns"
        shown = "\u00b5s" if unit == "us" else unit
        return f"{sign}{_decimal(left_ns, _UNITS_NS[unit])}{shown}"
    minutes, seconds_ns = divmod(left_ns, _UNITS_NS["m"])
    seconds = _decimal(seconds_ns, _NS_PER_S)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{sign}{hours}h{minutes}m{seconds}s"
    return f"{sign}{minutes}m{seconds}s" if minutes else f"{sign}{seconds}s"


def format_duration(duration_s: float) -> str:
    """Return the canonical spelling of a number of seconds, to the nanosecond."""
    return format_duration_ns(round(duration_s * _NS_PER_S))


def canonical_duration(text: str) -> str:
    """Return *text* in its canonical spelling; raise DurationError if it is no duration."""
    return format_duration_ns(parse_duration_ns(text))


def _decimal(amount_ns: int, unit_ns: int) -> str:
    whole, rest = divmod(amount_ns, unit_ns)
    if rest == 0:
        return str(whole)
    return f"{whole}.{str(rest).zfill(len(str(unit_ns)) - 1).rstrip('0')}"
