"""Two lines that no autoscaler can be asked for: the oracle, which knows the future, and the best static fleet.

The oracle sizes each half minute by the work that will arrive in it, with the true service times, and orders one cold
start ahead. How full replicas may be is chosen with hindsight: of a ladder, the cheapest run that reaches a target. The
static fleet has the sizes of one quantile of the same needs, likewise chosen with hindsight.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from autoscaler.replay.outcome import Outcome
from autoscaler.replay.plant import Setting
from autoscaler.replay.readings import Reading, RoleSizes, Sizes
from autoscaler.replay.running import PERIOD_S, Static, run
from autoscaler.replay.service_times import ServiceTimes, Slo
from autoscaler.replay.traces import Floats, Ints, Trace

WINDOW_S: Final = 30.0
TARGET: Final = 0.99
# From lavish to full; a run at each is what the oracle's front is made of.
LADDER: Final = (0.35, 0.5, 0.65, 0.8, 0.95)
QUANTILES: Final = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.995, 1.0)
_STATIC_UTILIZATION: Final = 0.8


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Needs:
    """The least replicas for each half minute of a trace."""

    prefill: Ints
    decode: Ints

    def at(self, quantile: float) -> Sizes:
        """Return sizes that are enough for a share of the time."""
        return Sizes(
            prefill=max(int(np.quantile(self.prefill, quantile, method="higher")), 1),
            decode=max(int(np.quantile(self.decode, quantile, method="higher")), 1),
        )


def needs(trace: Trace, times: ServiceTimes, slo: Slo, utilization: float) -> Needs:
    """Return what a trace's work needs, with replicas as full as `utilization` says, 0 to 1."""
    windows = max(math.ceil(trace.duration_s / WINDOW_S), 1)
    which = np.minimum((trace.arrival_s / WINDOW_S).astype(np.int64), windows - 1)

    def summed(values: Floats) -> Floats:
        return np.bincount(which, weights=values, minlength=windows).astype(np.float64)

    counts = np.maximum(summed(np.ones(len(trace))), 1)
    prompts = trace.uncached_tokens.astype(np.float64)
    prefill_s = summed(times.prefill_base_s + times.prefill_per_token_s * prompts)
    outputs = summed(trace.output_tokens.astype(np.float64))
    context = (summed(trace.prompt_tokens.astype(np.float64)) + outputs / 2) / counts
    room = times.kv_tokens / np.maximum(context + outputs / counts / 2, 1)
    sequences = (slo.itl_s - times.step_base_s) / (times.step_per_sequence_s + times.step_per_kv_token_s * context)
    sequences = np.clip(np.minimum(sequences, room), 1.0, times.sequences_max)
    step_s = times.step_base_s + sequences * (times.step_per_sequence_s + times.step_per_kv_token_s * context)
    return Needs(
        prefill=np.maximum(np.ceil(prefill_s / (WINDOW_S * utilization)), 1).astype(np.int64),
        decode=np.maximum(np.ceil(outputs / (sequences / step_s * WINDOW_S * utilization)), 1).astype(np.int64),
    )


class OraclePolicy:
    """Sets what the next cold start's time will need."""

    scrape_s = 3_600.0
    period_s = PERIOD_S

    def __init__(self, ahead: Needs, cold_start_s: float) -> None:
        # The slowest of the cold starts, and the window in which the work arrives.
        self._lead = math.ceil(1.3 * cold_start_s / WINDOW_S) + 1
        self._needs = ahead

    def observe(self, now_s: float, reading: Reading | None) -> None:
        """Look at nothing."""

    def decide(self, now_s: float, prefill: RoleSizes, decode: RoleSizes) -> Sizes:  # noqa: ARG002 -- the protocol's
        """Return the largest need from now until what is ordered now is ready."""
        first = max(int(now_s / WINDOW_S) - 1, 0)
        ahead = slice(first, first + self._lead + 2)
        return Sizes(prefill=int(self._needs.prefill[ahead].max()), decode=int(self._needs.decode[ahead].max()))


def oracle(trace: Trace, setting: Setting, ladder: Sequence[float] = LADDER) -> list[Outcome]:
    """Return a run of the oracle for each rung."""
    outcomes = []
    for utilization in ladder:
        ahead = needs(trace, setting.truth, setting.slo, utilization)
        start = Sizes(prefill=int(ahead.prefill[:6].max()), decode=int(ahead.decode[:6].max()))
        policy = OraclePolicy(ahead, setting.cold_start_s)
        outcomes.append(run(trace, replace(setting, start=start), policy)[0])
    return outcomes


def static_best(trace: Trace, setting: Setting) -> tuple[Sizes, Outcome]:
    """Return the cheapest static fleet of the quantiles that reaches the target, or the best one if none does."""
    ahead = needs(trace, setting.truth, setting.slo, _STATIC_UTILIZATION)

    def tried(quantile: float) -> tuple[Sizes, Outcome]:
        sizes = ahead.at(quantile)
        sizes = Sizes(
            prefill=min(sizes.prefill, setting.sizes_max.prefill), decode=min(sizes.decode, setting.sizes_max.decode)
        )
        return sizes, run(trace, replace(setting, start=sizes), Static())[0]

    return _cheapest(QUANTILES, tried)


def _cheapest(quantiles: Sequence[float], tried: Callable[[float], tuple[Sizes, Outcome]]) -> tuple[Sizes, Outcome]:
    """Return the first of rising quantiles that reaches the target, found by halving; else the last."""
    low, high = 0, len(quantiles) - 1
    best = tried(quantiles[high])
    while low < high:
        middle = (low + high) // 2
        found = tried(quantiles[middle])
        if found[1].slo_attainment >= TARGET:
            best, high = found, middle
        else:
            low = middle + 1
    return best


def cheapest(outcomes: Sequence[Outcome]) -> Outcome:
    """Return the cheapest outcome that reaches the target, or the one that comes nearest."""
    reaching = [outcome for outcome in outcomes if outcome.slo_attainment >= TARGET]
    if reaching:
        return min(reaching, key=lambda outcome: outcome.gpu_hours)
    return max(outcomes, key=lambda outcome: outcome.slo_attainment)
