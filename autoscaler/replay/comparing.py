"""One trace, all lines: ours, the baselines, the best static fleet and the oracle, over some seeds.

A seed draws the error of the profile that is hidden from ours, cold starts and noise; all lines meet the same. The
document has, for each line, the means over seeds and, of attainment and GPU-hours, the 5th and 95th percentile.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from autoscaler.policy import Policy
from autoscaler.replay.baselines import HpaSettings, KedaSettings, KpaSettings
from autoscaler.replay.lines import CoreSettings, LineSettings, policy_of
from autoscaler.replay.oracle import cheapest, oracle, static_best
from autoscaler.replay.outcome import Outcome
from autoscaler.replay.plant import Setting
from autoscaler.replay.running import run
from autoscaler.replay.service_times import ServiceTimes, drawn
from autoscaler.replay.traces import Trace

OURS: Final = "ours"
BASELINES: Final[Mapping[str, LineSettings]] = {"hpa": HpaSettings(), "keda": KedaSettings(), "kpa": KpaSettings()}
# The order in which lines are shown.
LINES: Final = (OURS, "hpa", "keda", "kpa", "static_best", "oracle")


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What came of each line, one outcome a seed."""

    trace: str
    requests: int
    duration_s: float
    seeds: tuple[int, ...]
    outcomes: Mapping[str, tuple[Outcome, ...]]

    def document(self) -> dict[str, object]:
        """Return it for JSON."""
        return {
            "trace": {"name": self.trace, "requests": self.requests, "duration_s": round(self.duration_s, 3)},
            "seeds": list(self.seeds),
            "policies": {name: summary(outcomes) for name, outcomes in self.outcomes.items()},
        }


def summary(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Return the means of some outcomes, and the spread of what is compared."""
    documents = [outcome.document() for outcome in outcomes]
    means = {name: round(statistics.mean(float(each[name]) for each in documents), 6) for name in documents[0]}
    for name in ("slo_attainment", "gpu_hours"):
        low, high = np.percentile([float(each[name]) for each in documents], (5, 95))
        means |= {f"{name}_p5": round(float(low), 6), f"{name}_p95": round(float(high), 6)}
    return means


def compare(
    trace: Trace,
    setting: Setting,
    policy: Policy,
    *,
    seeds: Sequence[int],
    profile_error: float,
    has_baselines: bool,
) -> Comparison:
    """Run all lines; `setting.truth` is the profile, whose truth is drawn by seed."""
    outcomes: dict[str, list[Outcome]] = {}
    for seed in seeds:
        of_seed = replace(setting, seed=seed, truth=drawn(setting.truth, seed=seed, error=profile_error))
        for name, outcome in _lines(trace, of_seed, policy, has_baselines=has_baselines).items():
            outcomes.setdefault(name, []).append(outcome)
    return Comparison(
        trace=trace.name,
        requests=len(trace),
        duration_s=trace.duration_s,
        seeds=tuple(seeds),
        outcomes={name: tuple(outcomes[name]) for name in LINES if name in outcomes},
    )


def _lines(trace: Trace, setting: Setting, policy: Policy, *, has_baselines: bool) -> dict[str, Outcome]:
    lines: dict[str, LineSettings] = {OURS: CoreSettings(policy=policy)}
    if has_baselines:
        lines |= BASELINES
    outcomes = {name: run(trace, setting, policy_of(line, setting))[0] for name, line in lines.items()}
    if has_baselines:
        outcomes["static_best"] = static_best(trace, setting)[1]
        outcomes["oracle"] = cheapest(oracle(trace, setting))
    return outcomes


def profile_times(policy: Policy) -> ServiceTimes:
    """Return the service times that a policy's profiles tell; what they leave out is the plant's default."""
    times = ServiceTimes()
    for role in policy.roles:
        profile = role.profile
        if profile.prefill_tokens_per_s:
            times = replace(
                times,
                prefill_base_s=profile.prefill_base_s,
                prefill_per_token_s=1 / profile.prefill_tokens_per_s,
            )
        if profile.decode_base_s:
            times = replace(
                times,
                step_base_s=profile.decode_base_s,
                step_per_sequence_s=profile.decode_per_sequence_s,
                step_per_kv_token_s=profile.decode_per_kv_token_s,
                sequences_max=profile.max_sequences,
            )
        if profile.kv_tokens:
            times = replace(times, kv_tokens=profile.kv_tokens)
    return times
