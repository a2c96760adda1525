"""What demand usually is at this time of the period, once two periods were seen. Pure.

A mean for each bucket of the period, newer periods weighing more. Ahead of now it is used as a ratio: as much more as
that time usually has than this time, of what is asked now. So a day that is busier than others stays so.
"""

from __future__ import annotations

from typing import Final

from autoscaler.memory import DemandMemory

BUCKETS: Final = 96
_PERIODS_MIN: Final = 2
_WEIGHT: Final = 0.02
_UNKNOWN: Final = -1.0
# A time of near silence must not make a morning a hundredfold.
_RATIO_MAX: Final = 10.0


def with_season(memory: DemandMemory, value: float, now: float, period_s: float) -> tuple[tuple[float, ...], float]:
    """Return the means with one more observation, and since when there are some."""
    season = memory.season if len(memory.season) == BUCKETS else (_UNKNOWN,) * BUCKETS
    bucket = _bucket(now, period_s)
    old = season[bucket]
    mean = value if old < 0 else old + _WEIGHT * (value - old)
    return (*season[:bucket], mean, *season[bucket + 1 :]), memory.season_from or now


def ahead_of_season(
    season: tuple[float, ...], since: float, level: float, *, now: float, lead_s: float, period_s: float
) -> float:
    """Return the demand that the season has in store between now and *lead_s* ahead; 0 where it cannot say."""
    if now - since < _PERIODS_MIN * period_s:
        return 0.0
    usual_now = season[_bucket(now, period_s)]
    usual_then = season[_bucket(now + lead_s, period_s)]
    if usual_now <= 0 or usual_then <= 0:
        return 0.0
    return level * min(_RATIO_MAX, usual_then / usual_now)


def _bucket(at: float, period_s: float) -> int:
    return int(at % period_s / period_s * BUCKETS) % BUCKETS
