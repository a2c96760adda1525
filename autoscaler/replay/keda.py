"""A port of KEDA's part of scaling: what its scaler hands to the HPA, fallback, and 0 to 1 and back.

Source: kedacore/keda, `pkg/scalers/prometheus_scaler.go`, `pkg/fallback/fallback.go`, `pkg/scaling/executor`. From 1
to N KEDA is an HPA over external metrics with a target per pod (`hpa`). Here for comparison only. Pure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

POLLING_S: Final = 30.0
COOLDOWN_S: Final = 300.0


class ScalerError(Exception):
    """The scaler gives no value."""


class FallbackBehavior(StrEnum):
    """Which replicas a failing trigger stands for."""

    STATIC = "static"
    CURRENT = "currentReplicas"
    CURRENT_IF_HIGHER = "currentReplicasIfHigher"
    CURRENT_IF_LOWER = "currentReplicasIfLower"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fallback:
    """`spec.fallback`."""

    failure_threshold: int
    replicas: int
    behavior: FallbackBehavior = FallbackBehavior.STATIC


def query_value(result: list[float] | None, *, ignores_null: bool = True) -> float:
    """Return the value of a query's result; None is a query that failed.

    ScalerError for that, for several series, and for none, NaN or Inf when those are not ignored.
    """
    if result is None:
        raise ScalerError("the query failed")
    if len(result) > 1:
        raise ScalerError(f"{len(result)} elements where one is expected")
    if not result or not math.isfinite(result[0]):
        if ignores_null:
            return 0.0
        raise ScalerError("empty result, or not a number")
    return result[0]


@dataclass(slots=True, kw_only=True)
class Trigger:
    """One trigger with a target per pod; counts its failures in a row."""

    target: float
    ignores_null: bool = True
    fallback: Fallback | None = None
    _failures: int = field(default=0)

    def metric(self, result: list[float] | None, replicas: int) -> float:
        """Return the metric that the HPA is given; None as a result is a query that failed.

        ScalerError when there is neither a value nor a fallback that has come into force.
        """
        try:
            value = query_value(result, ignores_null=self.ignores_null)
        except ScalerError:
            self._failures += 1
            if self.fallback is None or self._failures <= self.fallback.failure_threshold:
                raise
            return self.target * _standing_for(self.fallback, replicas)
        self._failures = 0
        return value


def _standing_for(fallback: Fallback, replicas: int) -> int:
    match fallback.behavior:
        case FallbackBehavior.STATIC:
            return fallback.replicas
        case FallbackBehavior.CURRENT:
            return replicas
        case FallbackBehavior.CURRENT_IF_HIGHER:
            return max(replicas, fallback.replicas)
        case FallbackBehavior.CURRENT_IF_LOWER:
            return min(replicas, fallback.replicas)


@dataclass(slots=True, kw_only=True)
class Activation:
    """From 0 to 1 and back, which KEDA does itself at each poll."""

    threshold: float = 0.0
    cooldown_s: float = COOLDOWN_S
    replicas_min: int = 0
    _active_s: float = field(default=-math.inf)

    def decide(self, now_s: float, replicas: int, value: float) -> int | None:
        """Return the size to set, or None to leave it to the HPA."""
        if value > self.threshold:
            self._active_s = now_s
            return max(1, self.replicas_min) if replicas == 0 else None
        if self.replicas_min == 0 and replicas > 0 and now_s - self._active_s >= self.cooldown_s:
            return 0
        return None
