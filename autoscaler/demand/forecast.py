"""Demand at the time when what is started now can serve. Pure.

Holt's linear trend with damping (Gardner and McKenzie, 1985), for observations that are not equally far apart. A trend
counts upwards only, the forecast is never below what is asked now, and a quantile of how far past forecasts of the same
lead were off is added. For shrinking, the highest demand of the last while is kept as a floor that fades, because
bursts come again; one sample alone is no burst.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from autoscaler.demand.season import ahead_of_season, with_season
from autoscaler.memory import DemandMemory, Mark
from autoscaler.policy import Policy, Tuning
from grove_server.resources.scaling_policy import FORECAST_NONE, FORECAST_SEASONAL

_DUE_MAX: Final = 12
_ERRORS_MIN: Final = 8
_PEAKS_MAX: Final = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """Demand now, ``ahead`` by the lead, and ``low``: what must still be served after shrinking."""

    now: float
    ahead: float
    low: float
    burst: float = 0.0
    margin: float = 0.0


def look_ahead(
    policy: Policy, memory: DemandMemory, value: float, *, now: float, lead_s: float, burst_memory_s: float
) -> tuple[Outlook, DemandMemory]:
    """Return what is expected of a stream of demand that is at *value* now, and what to remember of it."""
    tuning = policy.tuning
    level, trend = _followed(tuning, memory, value, now)
    peaks = _with_peak(memory.peaks, min(value, memory.last), now, burst_memory_s)
    burst = _burst(peaks, now, burst_memory_s, tuning.burst_decay)
    if policy.forecast == FORECAST_NONE:
        kept = DemandMemory(at=now, last=value, level=level, trend=trend, peaks=peaks)
        return Outlook(now=value, ahead=value, low=max(value, level, burst), burst=burst), kept
    ahead = max(value, level + max(0.0, trend) * _damped(lead_s, tuning.damping_s))
    season, season_from = memory.season, memory.season_from
    if policy.forecast == FORECAST_SEASONAL:
        season, season_from = with_season(memory, value, now, policy.season_s)
        ahead = max(
            ahead, ahead_of_season(season, season_from, level, now=now, lead_s=lead_s, period_s=policy.season_s)
        )
    errors = memory.errors
    if memory.due and memory.due[0][0] <= now:
        came = tuple(value / forecast for at, forecast in memory.due if at <= now and forecast > 0)
        errors = (*errors, *came)[-tuning.errors_kept :]
    due = tuple(mark for mark in memory.due if mark[0] > now)
    if len(due) < _DUE_MAX and (not due or now + lead_s - due[-1][0] >= lead_s / _DUE_MAX):
        due = (*due, (now + lead_s, ahead))
    margin = min(tuning.margin_max, max(0.0, _quantile(errors, policy.forecast_quantile) - 1.0))
    raised = ahead * (1.0 + margin)
    kept = DemandMemory(
        at=now,
        last=value,
        level=level,
        trend=trend,
        due=due,
        errors=errors,
        peaks=peaks,
        season=season,
        season_from=season_from,
    )
    return Outlook(now=value, ahead=raised, low=max(raised, burst), burst=burst, margin=margin), kept


def _followed(tuning: Tuning, memory: DemandMemory, value: float, now: float) -> tuple[float, float]:
    """Return level and trend (per second) after one more observation."""
    elapsed_s = now - memory.at
    if memory.at <= 0 or elapsed_s <= 0:
        return (value, 0.0) if memory.at <= 0 else (memory.level, memory.trend)
    expected = memory.level + memory.trend * _damped(elapsed_s, tuning.damping_s)
    level = expected + (1.0 - math.exp(-elapsed_s / tuning.level_s)) * (value - expected)
    slope = (level - memory.level) / elapsed_s
    return max(0.0, level), memory.trend + (1.0 - math.exp(-elapsed_s / tuning.trend_s)) * (slope - memory.trend)


def _damped(lead_s: float, damping_s: float) -> float:
    """Return the seconds that a trend counts for over a lead."""
    return damping_s * (1.0 - math.exp(-lead_s / damping_s))


def _quantile(errors: tuple[float, ...], share: float) -> float:
    if len(errors) < _ERRORS_MIN:
        return 1.0
    ordered = sorted(errors)
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]


def _with_peak(peaks: tuple[Mark, ...], value: float, now: float, memory_s: float) -> tuple[Mark, ...]:
    """Return the highest demand of each bucket of time; a bucket is named by its beginning."""
    if memory_s <= 0:
        return ()
    width_s = memory_s / _PEAKS_MAX
    if not peaks or now - peaks[-1][0] >= width_s:
        oldest = now - memory_s - width_s
        return (*(mark for mark in peaks if mark[0] > oldest), (now, value))[-_PEAKS_MAX - 1 :]
    return (*peaks[:-1], (peaks[-1][0], value)) if value > peaks[-1][1] else peaks


def _burst(peaks: tuple[Mark, ...], now: float, memory_s: float, decay: float) -> float:
    """Return the highest peak; a peak counts whole until the part *decay* of the memory and fades from then on."""
    highest = 0.0
    whole_s, fading_s = decay * memory_s, max(1e-9, (1.0 - decay) * memory_s)
    for at, value in peaks:
        weight = min(1.0, 1.0 - (now - at - whole_s) / fading_s)
        highest = max(highest, value * weight)
    return highest
