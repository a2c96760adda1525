"""Our core on the plant: it follows load with lead, and the faults of §7.2 neither shrink it nor make it overshoot."""

from dataclasses import replace

import pytest

from autoscaler.replay.faults import Faults
from autoscaler.replay.lines import policy_of
from autoscaler.replay.outcome import Action, Outcome
from autoscaler.replay.patterns import shifted, synthetic
from autoscaler.replay.plant import Setting
from autoscaler.replay.readings import Sizes
from autoscaler.replay.replicas import Role
from autoscaler.replay.running import run
from autoscaler.replay.service_times import ServiceTimes
from autoscaler.replay.traces import Trace
from tests.bench.replay_ours import ours

LOW = synthetic(seed=2, duration_s=4_800.0, per_s=5.0, prompt_tokens=1_500, output_tokens=150)
HIGH = synthetic(seed=1, duration_s=4_800.0, per_s=20.0, prompt_tokens=1_500, output_tokens=150)
# Up from 600 s to 1,800 s; from then on it stays.
RISE = shifted(LOW, HIGH, seed=1, from_s=600.0, to_s=1_800.0)
SETTING = Setting(truth=ServiceTimes(), start=Sizes(prefill=2, decode=2))
LINE = ours()


def ran(trace: Trace = RISE, setting: Setting = SETTING) -> tuple[Outcome, list[Action]]:
    """Run ours."""
    return run(trace, setting, policy_of(LINE, setting))


def shrunk(actions: list[Action], start_s: float, end_s: float) -> list[Action]:
    """Return the scale-ins of a time."""
    return [action for action in actions if start_s <= action.at_s < end_s and action.after < action.before]


def most(actions: list[Action], role: Role) -> int:
    """Return the largest size of a role."""
    return max(action.after for action in actions if action.role is role)


def test_it_follows_a_rise_and_aborts_nothing() -> None:
    """A fourfold rise is met, both roles grow, and what leaves has drained."""
    outcome, actions = ran()
    assert outcome.slo_attainment > 0.98
    assert outcome.aborted_requests == 0
    assert most(actions, Role.PREFILL) >= 5
    assert most(actions, Role.DECODE) >= 4


def test_it_follows_a_fall() -> None:
    """When the load falls to a quarter, GPUs are given back, and the objectives are kept."""
    fall = shifted(HIGH, LOW, seed=1, from_s=600.0, to_s=1_200.0)
    outcome, actions = ran(fall, replace(SETTING, start=Sizes(prefill=7, decode=6)))
    assert outcome.slo_attainment > 0.99
    last = {action.role: action.after for action in actions}
    assert last[Role.PREFILL] <= 4
    assert last[Role.DECODE] <= 4


def test_a_gap_of_fifteen_minutes_costs_at_most_a_point() -> None:
    """Without metrics at the peak nothing shrinks, and attainment stays as without the gap."""
    plain, _ = ran()
    gapped, actions = ran(setting=replace(SETTING, faults=Faults(gaps=((2_400.0, 3_300.0),))))
    assert plain.slo_attainment - gapped.slo_attainment <= 0.01
    assert not shrunk(actions, 2_400.0, 3_300.0)


def test_half_of_the_pods_missing_shrinks_nothing() -> None:
    """What does not answer is neither idle nor gone."""
    _, actions = ran(setting=replace(SETTING, faults=Faults(half=((2_400.0, 3_300.0),))))
    assert not shrunk(actions, 2_415.0, 3_300.0)


def test_a_frozen_gauge_of_removed_pods_neither_shrinks_nor_inflates() -> None:
    """Pods that are gone and still report do not count."""
    plain, before = ran()
    frozen, actions = ran(setting=replace(SETTING, faults=Faults(frozen=((0.0, 4_800.0),))))
    assert frozen.slo_attainment > plain.slo_attainment - 0.01
    for role in Role:
        assert most(actions, role) <= most(before, role) + 1


def test_a_spike_of_one_sample_does_not_overshoot() -> None:
    """Ten times the queue in one scrape grows a role by no more than it may grow at once, and it comes back."""
    setting = replace(SETTING, start=Sizes(prefill=6, decode=5))
    _, before = ran(HIGH, setting)
    _, actions = ran(HIGH, replace(setting, faults=Faults(spikes=((2_400.0, 2_415.0),))))
    at_2400 = {Role.PREFILL: 6, Role.DECODE: 5}
    at_2400 |= {action.role: action.after for action in actions if action.at_s < 2_400.0}
    for role in Role:
        grown = [action.after for action in actions if action.role is role and 2_400.0 <= action.at_s < 2_415.0]
        assert all(size <= 2 * at_2400[role] for size in grown)
        last = [action.after for action in actions if action.role is role][-1:]
        plain = [action.after for action in before if action.role is role][-1:]
        assert (last or [at_2400[role]])[0] <= (plain or [at_2400[role]])[0] + 1


def test_an_unschedulable_role_recovers_by_itself() -> None:
    """Decode replicas without a node for twenty minutes: afterwards it works off what has piled up, within bounds."""
    faults = Faults(unschedulable=((Role.DECODE, (900.0, 2_100.0)),))
    _, actions = ran(setting=replace(SETTING, faults=faults))
    plain = ran()[1]
    last = {action.role: action.after for action in actions}
    assert last[Role.DECODE] >= {action.role: action.after for action in plain}[Role.DECODE] - 1
    # A third of an hour's requests wait for decode by then; they are resident as soon as there is room.
    assert most(actions, Role.DECODE) <= 3 * most(plain, Role.DECODE)


def test_calls_that_fail_are_made_up_for() -> None:
    """One role's calls are refused for ten minutes: it gets there afterwards, and the GPUs are never exceeded."""
    faults = Faults(refused=((Role.PREFILL, (900.0, 1_500.0)),))
    setting = replace(SETTING, faults=faults, gpus=64)
    _, actions = ran(setting=setting)
    last = {action.role: action.after for action in actions}
    assert last[Role.PREFILL] >= 5
    assert last[Role.PREFILL] + last[Role.DECODE] <= 16


def test_roles_that_replay_cannot_play_are_refused() -> None:
    """A policy without a decode role has no place on this plant."""
    policy = replace(LINE.policy, roles=LINE.policy.roles[:1])
    with pytest.raises(ValueError, match="one prefill and one decode"):
        policy_of(replace(LINE, policy=policy), SETTING)


def test_the_same_run_twice_decides_the_same() -> None:
    """Decisions depend on nothing but the trace, the setting and the policy."""
    assert ran()[1] == ran()[1]
