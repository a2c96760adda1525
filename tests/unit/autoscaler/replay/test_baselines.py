"""Baselines on the plant: they follow load, and fall into their known traps."""

from dataclasses import replace

import pytest

from autoscaler.replay.baselines import HpaSettings, KedaSettings, KpaSettings
from autoscaler.replay.faults import Faults
from autoscaler.replay.lines import LineSettings, policy_of
from autoscaler.replay.outcome import Action, Outcome
from autoscaler.replay.patterns import shifted, synthetic
from autoscaler.replay.plant import Setting
from autoscaler.replay.readings import Sizes
from autoscaler.replay.replicas import Role
from autoscaler.replay.running import run
from autoscaler.replay.service_times import ServiceTimes
from autoscaler.replay.traces import Trace

STEADY = synthetic(seed=1, duration_s=2_400.0, per_s=20.0, prompt_tokens=1_500, output_tokens=150)
SETTING = Setting(truth=ServiceTimes(), start=Sizes(prefill=6, decode=5))


def ran(line: LineSettings, trace: Trace = STEADY, setting: Setting = SETTING) -> tuple[Outcome, list[Action]]:
    """Run a line."""
    return run(trace, setting, policy_of(line, setting))


@pytest.mark.parametrize("line", [HpaSettings(), KedaSettings(), KpaSettings()])
def test_all_follow_a_rise(line: LineSettings) -> None:
    """When the load rises fivefold they end with more of both roles."""
    low = synthetic(seed=2, duration_s=2_400.0, per_s=4.0, prompt_tokens=1_500, output_tokens=150)
    trace = shifted(low, STEADY, seed=1, from_s=600.0, to_s=1_800.0)
    setting = replace(SETTING, start=Sizes(prefill=2, decode=1))
    _, actions = ran(line, trace, setting)
    for role, start in ((Role.PREFILL, 2), (Role.DECODE, 1)):
        assert [action.after for action in actions if action.role is role][-1] > start


def test_keda_takes_a_gap_for_no_load() -> None:
    """In 15 minutes without metrics it shrinks by default after its window, and holds when nothing is an error."""
    quick = KedaSettings(down_window_s=300.0)
    setting = replace(SETTING, faults=Faults(gaps=((900.0, 1_800.0),)))
    trusting, actions = ran(quick, setting=setting)
    assert min(action.after for action in actions if action.at_s < 1_800.0) == 1
    holding, actions = ran(replace(quick, ignores_null=False), setting=setting)
    in_gap = [action for action in actions if 1_020.0 < action.at_s < 1_800.0]
    assert not in_gap
    assert holding.slo_attainment > trusting.slo_attainment + 0.05


def test_gpu_utilisation_never_gives_decode_back() -> None:
    """Whatever decodes is busy: the HPA on utilisation does not shrink ten decode replicas where two would do."""
    low = synthetic(seed=2, duration_s=2_400.0, per_s=6.0, prompt_tokens=500, output_tokens=300)
    _, actions = ran(HpaSettings(), low, replace(SETTING, start=Sizes(prefill=4, decode=10)))
    assert not [action for action in actions if action.role is Role.DECODE and action.after < action.before]


def test_nothing_is_aborted_by_scale_in() -> None:
    """Drains are waited for."""
    setting = replace(SETTING, start=Sizes(prefill=14, decode=12))
    for line in (HpaSettings(), KedaSettings(), KpaSettings()):
        outcome, actions = ran(line, setting=setting)
        assert [action for action in actions if action.after < action.before]
        assert outcome.aborted_requests == 0
