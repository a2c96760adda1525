"""HPA's stabilisation windows and rate policies, to the replica. Pure.

Written from the published behaviour of kubernetes/pkg/controller/podautoscaler/horizontal.go: first stabilise, then
limit the rate, then the bounds. Of past wishes only those are kept that can still be a window's extreme, which gives
the same answers.
"""

from __future__ import annotations

import math

from autoscaler.policy import Rate, Rules
from grove_server.resources.scaling_policy import SELECT_DISABLED, SELECT_MIN

# A time in epoch seconds and a number of replicas.
Past = tuple[tuple[float, int], ...]


def stabilised(
    *, desired: int, current: int, lows: Past, highs: Past, up_window_s: float, down_window_s: float, now: float
) -> int:
    """Return the wish that has held over the window: the least one going up, the most going down."""
    up = min((value for at, value in lows if at > now - up_window_s), default=desired)
    down = max((value for at, value in highs if at > now - down_window_s), default=desired)
    return min(max(current, min(up, desired)), max(down, desired))


def with_low(lows: Past, value: int, now: float, window_s: float) -> Past:
    """Return past wishes with one more, without those that can no longer be the least of a window."""
    if window_s <= 0:
        return ()
    return (*((at, old) for at, old in lows if old < value and at > now - window_s), (now, value))


def with_high(highs: Past, value: int, now: float, window_s: float) -> Past:
    """Return past wishes with one more, without those that can no longer be the most of a window."""
    if window_s <= 0:
        return ()
    return (*((at, old) for at, old in highs if old > value and at > now - window_s), (now, value))


def up_limit(current: int, ups: Past, downs: Past, rules: Rules, now: float) -> int:
    """Return the largest size that growth may lead to now; at least *current*."""
    if rules.select == SELECT_DISABLED:
        return current
    limits = []
    for rate in rules.rates:
        start = _start(current, ups, downs, rate, now)
        limits.append(math.ceil(start * (1 + rate.value / 100)) if rate.is_percent else start + rate.value)
    limit = min(limits) if rules.select == SELECT_MIN else max(limits)
    return max(limit, current)


def down_limit(current: int, ups: Past, downs: Past, rules: Rules, now: float) -> int:
    """Return the smallest size that shrinking may lead to now; at most *current*."""
    if rules.select == SELECT_DISABLED:
        return current
    limits = []
    for rate in rules.rates:
        start = _start(current, ups, downs, rate, now)
        limits.append(int(start * (1 - rate.value / 100)) if rate.is_percent else start - rate.value)
    # The smallest change leaves the largest size.
    limit = max(limits) if rules.select == SELECT_MIN else min(limits)
    return min(limit, current)


def with_change(past: Past, at: float, change: int, now: float, period_s: float) -> Past:
    """Return past changes with one more, without those that are older than *period_s*."""
    return (*((then, by) for then, by in past if then > now - period_s), (at, change))


def longest_period_s(*rules: Rules) -> float:
    """Return how long changes of size have to be remembered."""
    return max((rate.period_s for each in rules for rate in each.rates), default=0.0)


def _start(current: int, ups: Past, downs: Past, rate: Rate, now: float) -> int:
    cutoff = now - rate.period_s
    added = sum(by for at, by in ups if at > cutoff)
    removed = sum(by for at, by in downs if at > cutoff)
    return current - added + removed
