"""The oracle knows the future and the static fleet the best size; both keep to the work there is."""

from dataclasses import replace

import numpy as np
import pytest

from autoscaler.replay.oracle import LADDER, TARGET, cheapest, needs, oracle, static_best
from autoscaler.replay.outcome import Action, Outcome, reversals
from autoscaler.replay.patterns import shifted, synthetic
from autoscaler.replay.plant import Setting
from autoscaler.replay.readings import Sizes
from autoscaler.replay.replicas import Role
from autoscaler.replay.running import Static, run
from autoscaler.replay.service_times import ServiceTimes, Slo
from autoscaler.replay.traces import Trace, trace_of

TRUTH = ServiceTimes()


def rising() -> Trace:
    """Return 40 minutes whose load rises fivefold in the middle."""
    low = synthetic(seed=1, duration_s=2_400.0, per_s=4.0, prompt_tokens=1_500, output_tokens=150)
    high = synthetic(seed=2, duration_s=2_400.0, per_s=20.0, prompt_tokens=1_500, output_tokens=150)
    return shifted(low, high, seed=1, from_s=1_000.0, to_s=1_200.0)


def test_needs_follow_the_work() -> None:
    """A minute with 27.9 s of prefill needs one replica when full, and two at 40 %; decode by tokens at the pace."""
    # Forty prompts of 6,448 tokens take 40 * (0.008 + 0.6899) = 27.9 s in the half minute.
    trace = trace_of("x", 30.0, [(number / 2, 6_448, 300) for number in range(40)])
    assert needs(trace, TRUTH, Slo(), 1.0).prefill.tolist() == [1]
    assert needs(trace, TRUTH, Slo(), 0.4).prefill.tolist() == [3]
    # Context 6,598: (60 - 28.6) / (0.281 + 0.8116) = 28.7 sequences, so 479 tokens/s; 12,000 tokens in 30 s are 400.
    assert needs(trace, TRUTH, Slo(), 0.9).decode.tolist() == [1]
    assert needs(trace, TRUTH, Slo(), 0.8).decode.tolist() == [2]


def test_the_oracle_is_ready_before_the_load() -> None:
    """With room to spare it meets the objectives through a fivefold rise, with less than the peak's static fleet."""
    trace = rising()
    setting = Setting(truth=TRUTH)
    lavish = oracle(trace, setting, LADDER[:1])[0]
    assert lavish.slo_attainment > 0.995
    peak = needs(trace, TRUTH, Slo(), LADDER[0]).at(1.0)
    static, _ = run(trace, replace(setting, start=peak), Static())
    assert lavish.gpu_hours < 0.8 * static.gpu_hours


def test_a_fuller_oracle_is_cheaper() -> None:
    """Each rung costs less than the one before."""
    costs = [outcome.gpu_hours for outcome in oracle(rising(), Setting(truth=TRUTH))]
    assert (np.diff(costs) < 0).all()


def test_the_static_fleet_is_the_cheapest_that_reaches_the_target() -> None:
    """One replica less of either role, and it does not."""
    trace = rising()
    setting = Setting(truth=TRUTH)
    sizes, outcome = static_best(trace, setting)
    assert outcome.slo_attainment >= TARGET
    smaller = Sizes(prefill=max(sizes.prefill // 2, 1), decode=max(sizes.decode // 2, 1))
    assert run(trace, replace(setting, start=smaller), Static())[0].slo_attainment < TARGET


def outcome(attainment: float, gpu_hours: float) -> Outcome:
    """Return an outcome with what is compared."""
    return Outcome(
        requests=100,
        slo_attainment=attainment,
        ttft_attainment=attainment,
        tpot_attainment=attainment,
        worst_5min_attainment=attainment,
        ttft_p50_s=1.0,
        ttft_p95_s=1.0,
        ttft_p99_s=1.0,
        gpu_hours=gpu_hours,
        scale_actions=0,
        reversals=0,
        aborted_requests=0,
    )


def test_the_cheapest_reaches_the_target_or_comes_nearest() -> None:
    """Of those above the target the cheapest counts; with none above it the best."""
    assert cheapest([outcome(0.999, 9), outcome(0.992, 7), outcome(0.98, 5)]).gpu_hours == 7
    assert cheapest([outcome(0.97, 9), outcome(0.96, 7)]).gpu_hours == 9


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([(0, 3), (15, 4), (30, 5)], 0),
        ([(0, 3), (15, 2)], 1),
        ([(0, 3), (601, 2)], 0),
        ([(0, 3), (600, 2), (700, 3)], 2),
    ],
)
def test_reversals_are_turns_within_ten_minutes(sizes: list[tuple[int, int]], expected: int) -> None:
    """Going on is none, turning after more than ten minutes is none, each turn counts."""
    before = 2
    actions = []
    for at_s, after in sizes:
        actions.append(Action(at_s=at_s, role=Role.DECODE, before=before, after=after))
        before = after
    assert reversals(actions) == expected
    assert reversals([*actions[:1], *(replace(each, role=Role.PREFILL) for each in actions[1:2])]) == 0
