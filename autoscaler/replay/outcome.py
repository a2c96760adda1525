"""What came of a run: attainment, latencies, GPU-hours, scale actions and reversals.

A request that had no last token by the end of the run, or was aborted, met nothing. GPU time counts from scheduling
until gone: cold starts and drains too. A reversal is a scale action against the direction of the role's last one
within ten minutes.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np

from autoscaler.replay.plant import Plant
from autoscaler.replay.replicas import Role
from autoscaler.replay.traces import Floats

REVERSAL_S: Final = 600.0
_WORST_S: Final = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One run. Attainments are shares of all requests, 0 to 1."""

    requests: int
    slo_attainment: float
    ttft_attainment: float
    tpot_attainment: float
    worst_5min_attainment: float
    ttft_p50_s: float
    ttft_p95_s: float
    ttft_p99_s: float
    gpu_hours: float
    scale_actions: int
    reversals: int
    aborted_requests: int

    def document(self) -> dict[str, float | int]:
        """Return it for JSON; a latency that is not finite is -1, because JSON has no infinity."""
        return {
            name: (round(value, 6) if math.isfinite(value) else -1.0) if isinstance(value, float) else value
            for name, value in asdict(self).items()
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """A size that was changed."""

    at_s: float
    role: Role
    before: int
    after: int


def reversals(actions: list[Action]) -> int:
    """Return how many actions went against the last one of their role within ten minutes."""
    last: dict[Role, Action] = {}
    count = 0
    for action in actions:
        before = last.get(action.role)
        if before is not None and action.at_s - before.at_s <= REVERSAL_S:
            count += (before.after > before.before) != (action.after > action.before)
        last[action.role] = action
    return count


def gpu_hours(plant: Plant, end_s: float) -> float:
    """Return the GPU time of all replicas until `end_s`."""
    total_s = sum(
        max(min(replica.gone_s, end_s) - replica.scheduled_s, 0.0)
        for replica in plant.replicas
        if replica.scheduled_s < math.inf
    )
    return total_s * plant.setting.gpus_per_replica / 3_600


def outcome(plant: Plant, actions: list[Action], end_s: float) -> Outcome:
    """Return what came of a plant that has run until after `end_s`."""
    trace, slo = plant.trace, plant.setting.slo
    first_s = np.frombuffer(plant.decode.first_s)
    finish_s = np.frombuffer(plant.decode.finish_s)
    ttft_s = first_s - trace.arrival_s
    # Of a request that never ended, inf - inf: it is not good, whatever comes out.
    with np.errstate(invalid="ignore"):
        per_token_s = (finish_s - first_s) / np.maximum(trace.output_tokens - 1, 1)
    is_first_good = ttft_s <= slo.ttft_s + slo.ttft_per_1k_tokens_s * trace.prompt_tokens / 1_000
    is_pace_good = per_token_s <= slo.itl_s
    is_good = is_first_good & is_pace_good
    p50, p95, p99 = (_percentile(ttft_s, percent) for percent in (50, 95, 99))
    return Outcome(
        requests=len(trace),
        slo_attainment=_mean(is_good),
        ttft_attainment=_mean(is_first_good),
        tpot_attainment=_mean(is_pace_good),
        worst_5min_attainment=_worst(trace.arrival_s, is_good),
        ttft_p50_s=p50,
        ttft_p95_s=p95,
        ttft_p99_s=p99,
        gpu_hours=gpu_hours(plant, end_s),
        scale_actions=len(actions),
        reversals=reversals(actions),
        aborted_requests=plant.decode.aborted,
    )


def _mean(good: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> float:
    return float(good.mean()) if len(good) else 1.0


def _percentile(values_s: Floats, percent: float) -> float:
    if not len(values_s):
        return 0.0
    return float(np.percentile(values_s, percent, method="higher"))


def _worst(arrival_s: Floats, good: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> float:
    """Return the worst share of five minutes, of those with ten requests at least."""
    if not len(arrival_s):
        return 1.0
    which = (arrival_s // _WORST_S).astype(np.int64)
    counts = np.bincount(which)
    shares = np.bincount(which, weights=good)[counts >= 10] / counts[counts >= 10]  # noqa: PLR2004 -- as the docstring
    return float(shares.min()) if len(shares) else 1.0
