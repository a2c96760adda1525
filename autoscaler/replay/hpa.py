"""A port of the Kubernetes HorizontalPodAutoscaler v2: replicas from metrics, tolerance, windows and rate policies.

Source: kubernetes/kubernetes, `pkg/controller/podautoscaler/{replica_calculator,horizontal}.go`, and KEP-4951 for a
tolerance by direction. Here for comparison only; what we ship is `autoscaler.shaping`, which shares no code with this.
The controller runs every 15 s. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

PERIOD_S: Final = 15.0
TOLERANCE: Final = 0.1
DOWN_WINDOW_S: Final = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """A policy of `behavior`: at most `value` pods, or percent, in `period_s`."""

    kind: Literal["pods", "percent"]
    value: int
    period_s: float = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Direction:
    """The rules of one direction; `select` is of which policy the change is taken."""

    window_s: float
    rates: tuple[Rate, ...]
    select: Literal["max", "min", "disabled"] = "max"
    tolerance: float = TOLERANCE


UP: Final = Direction(window_s=0.0, rates=(Rate(kind="percent", value=100), Rate(kind="pods", value=4)))
DOWN: Final = Direction(window_s=DOWN_WINDOW_S, rates=(Rate(kind="percent", value=100),))


@dataclass(frozen=True, slots=True, kw_only=True)
class Behavior:
    """`spec.behavior`, with the API's defaults."""

    up: Direction = UP
    down: Direction = DOWN


def _within(ratio: float, behavior: Behavior) -> bool:
    return 1 - behavior.down.tolerance <= ratio <= 1 + behavior.up.tolerance


def pods_metric(
    values: Mapping[str, float],
    target: float,
    replicas: int,
    *,
    unready: Sequence[str] = (),
    missing: Sequence[str] = (),
    behavior: Behavior | None = None,
) -> int:
    """Return replicas for a metric with one value a pod and a target for their average.

    `values` are those of ready pods; `unready` pods count as 0 when the metric asks for more, and `missing` ones as 0
    then and as the target when it asks for less. ValueError without any value, or with a target of 0.
    """
    behavior = behavior or Behavior()
    if not values or target <= 0:
        raise ValueError("no metrics returned")
    ratio = sum(values.values()) / len(values) / target
    if not missing and (not unready or ratio <= 1):
        return replicas if _within(ratio, behavior) else math.ceil(round(ratio * len(values), 9))
    filled = dict(values)
    for pod in missing:
        filled[pod] = target if ratio < 1 else 0.0
    if ratio > 1:
        filled |= dict.fromkeys(unready, 0.0)
    again = sum(filled.values()) / len(filled) / target
    if _within(again, behavior) or (ratio < 1) != (again < 1):
        return replicas
    proposed = math.ceil(round(again * len(filled), 9))
    if (again < 1 and proposed > replicas) or (again > 1 and proposed < replicas):
        return replicas
    return proposed


def value_metric(value: float, target: float, replicas: int, ready: int, behavior: Behavior | None = None) -> int:
    """Return replicas for an object or external metric with a target value: its ratio, times the ready pods."""
    ratio = value / target
    if not replicas:
        return math.ceil(round(ratio, 9))
    return replicas if _within(ratio, behavior or Behavior()) else math.ceil(round(ratio * ready, 9))


def average_value_metric(value: float, target: float, replicas: int, behavior: Behavior | None = None) -> int:
    """Return replicas for an object or external metric with a target per pod; unready pods are not looked at."""
    if replicas and _within(value / (target * replicas), behavior or Behavior()):
        return replicas
    return math.ceil(round(value / target, 9))


def combined(proposals: Sequence[int | None], replicas: int) -> int | None:
    """Return the largest proposal, as the controller takes it; None in `proposals` is a metric that failed.

    None: no change, because all failed, or some did and the others want less than there is.
    """
    known = [proposal for proposal in proposals if proposal is not None]
    if not known or (len(known) < len(proposals) and max(known) < replicas):
        return None
    return max(known)


@dataclass(slots=True, kw_only=True)
class Controller:
    """The controller's memory for one target, which a restart forgets: recommendations and scale events."""

    behavior: Behavior = field(default_factory=Behavior)
    replicas_min: int = 1
    replicas_max: int = 1
    _recommended: list[tuple[float, int]] = field(default_factory=list)
    _ups: list[tuple[float, int]] = field(default_factory=list)
    _downs: list[tuple[float, int]] = field(default_factory=list)

    def decide(self, now_s: float, replicas: int, desired: int) -> int:
        """Return the size for a proposal: stabilised, then limited in rate, then inside the bounds; remember it."""
        behavior = self.behavior
        settled = self._stabilised(now_s, replicas, desired)
        if settled > replicas:
            limit = max(self._up_limit(now_s, replicas), replicas)
            size = min(settled, limit, self.replicas_max)
        else:
            limit = min(self._down_limit(now_s, replicas), replicas)
            size = max(settled, limit, self.replicas_min)
        size = min(max(size, self.replicas_min), self.replicas_max)
        if size > replicas:
            self._ups = _recent(self._ups, now_s, _longest(behavior.up))
            self._ups.append((now_s, size - replicas))
        elif size < replicas:
            self._downs = _recent(self._downs, now_s, _longest(behavior.down))
            self._downs.append((now_s, replicas - size))
        return size

    def _stabilised(self, now_s: float, replicas: int, desired: int) -> int:
        behavior = self.behavior
        if not self._recommended:
            # The size found at the first look counts as a recommendation, so that the window holds from the start.
            self._recommended.append((now_s, replicas))
        up = down = desired
        for at_s, before in self._recommended:
            if at_s > now_s - behavior.up.window_s:
                up = min(up, before)
            if at_s > now_s - behavior.down.window_s:
                down = max(down, before)
        longest_s = max(behavior.up.window_s, behavior.down.window_s)
        self._recommended = _recent(self._recommended, now_s, longest_s)
        # The unstabilised proposal is what is remembered.
        self._recommended.append((now_s, desired))
        return min(max(replicas, up), down)

    def _up_limit(self, now_s: float, replicas: int) -> int:
        rules = self.behavior.up
        if rules.select == "disabled":
            return replicas
        limits = []
        for rate in rules.rates:
            start = self._start(now_s, replicas, rate)
            grown = start + rate.value if rate.kind == "pods" else math.ceil(start * (1 + rate.value / 100))
            limits.append(grown)
        return max(limits) if rules.select == "max" else min(limits)

    def _down_limit(self, now_s: float, replicas: int) -> int:
        rules = self.behavior.down
        if rules.select == "disabled":
            return replicas
        limits = []
        for rate in rules.rates:
            start = self._start(now_s, replicas, rate)
            shrunk = start - rate.value if rate.kind == "pods" else int(start * (1 - rate.value / 100))
            limits.append(shrunk)
        # The largest change is the smallest size.
        return min(limits) if rules.select == "max" else max(limits)

    def _start(self, now_s: float, replicas: int, rate: Rate) -> int:
        """Return the size at the start of a rate's period."""
        added = sum(count for at_s, count in self._ups if at_s > now_s - rate.period_s)
        removed = sum(count for at_s, count in self._downs if at_s > now_s - rate.period_s)
        return replicas - added + removed


def _longest(direction: Direction) -> float:
    return max((rate.period_s for rate in direction.rates), default=0.0)


def _recent(events: list[tuple[float, int]], now_s: float, period_s: float) -> list[tuple[float, int]]:
    return [(at_s, count) for at_s, count in events if at_s > now_s - period_s]
