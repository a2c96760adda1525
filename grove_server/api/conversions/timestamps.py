"""Times of the contract: RFC 3339 in UTC with milliseconds."""

from __future__ import annotations

import datetime as dt
from functools import lru_cache


@lru_cache(maxsize=1024)
def _second(epoch_s: int) -> str:
    return dt.datetime.fromtimestamp(epoch_s, dt.UTC).strftime("%Y-%m-%dT%H:%M:%S")


def rfc3339(epoch_s: float) -> str:
    """Return a time (epoch seconds) such as "2026-01-02T15:04:05.678Z"."""
    milliseconds = round(epoch_s * 1000)
    return f"{_second(milliseconds // 1000)}.{milliseconds % 1000:03d}Z"


def optional_rfc3339(epoch_s: float | None) -> str:
    """Return the same, or "" for a time that is not known."""
    return "" if epoch_s is None else rfc3339(epoch_s)


def epoch_seconds(text: str) -> float:
    """Return the epoch seconds of an RFC 3339 time with an offset. Raises ValueError."""
    moment = dt.datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text} has no offset from UTC")
    return moment.timestamp()
