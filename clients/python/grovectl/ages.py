"""Moments and lengths of time, as kubectl shows and reads them."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

from grovectl.failures import usage
from grovectl.table import UNKNOWN

_MINUTE_S: Final = 60
_HOUR_S: Final = 3600
_DAY_S: Final = 86_400
_YEAR_S: Final = 365 * _DAY_S
_UNITS_S: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
TIMEOUT_MAX_S: Final = 7 * _DAY_S


def age(timestamp: str, now: datetime) -> str:
    """Return how long *timestamp* (RFC 3339) is past at *now*, in kubectl's short form; "<unknown>" if unset."""
    if not timestamp:
        return UNKNOWN
    try:
        then = datetime.fromisoformat(timestamp)
    except ValueError:
        return UNKNOWN
    if then.tzinfo is None:
        then = then.replace(tzinfo=UTC)
    return human(max(0, int((now - then).total_seconds())))


def human(seconds: int) -> str:
    """Return a length of time in kubectl's short form: two units while the second one matters, then one."""
    if seconds < 2 * _MINUTE_S:
        return f"{seconds}s"
    if seconds < 10 * _MINUTE_S:
        return _two(seconds, _MINUTE_S, "m", 1, "s")
    if seconds < 3 * _HOUR_S:
        return f"{seconds // _MINUTE_S}m"
    if seconds < 8 * _HOUR_S:
        return _two(seconds, _HOUR_S, "h", _MINUTE_S, "m")
    if seconds < 2 * _DAY_S:
        return f"{seconds // _HOUR_S}h"
    if seconds < 8 * _DAY_S:
        return _two(seconds, _DAY_S, "d", _HOUR_S, "h")
    if seconds < 2 * _YEAR_S:
        return f"{seconds // _DAY_S}d"
    if seconds < 8 * _YEAR_S:
        return _two(seconds, _YEAR_S, "y", _DAY_S, "d")
    return f"{seconds // _YEAR_S}y"


def duration_s(text: str) -> float:
    """Return the seconds of a duration such as "30s" or "1m30s"; a usage failure for anything else or over 7 days."""
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise usage(f'"{text}" is not a duration such as 30s or 1m30s')
    seconds = sum(float(number) * _UNITS_S[unit] for number, unit in parts)
    if seconds > TIMEOUT_MAX_S:
        raise usage(f'"{text}" is longer than 7 days')
    return seconds


def _two(seconds: int, large_s: int, large: str, small_s: int, small: str) -> str:
    whole, rest = divmod(seconds, large_s)
    rest //= small_s
    return f"{whole}{large}{rest}{small}" if rest else f"{whole}{large}"
