"""What the core does when it does not know: nothing that is missing, old, partial or sudden takes a replica away."""

import math
from dataclasses import replace
from typing import Any

import pytest

from autoscaler import observation as seen
from autoscaler.decision import Reason
from autoscaler.memory import Memory, decode, encode
from autoscaler.observation import Fault, Reading
from tests.scaling_cases import ANSWER, PROMPT, START, World, chat_readings, policy

BUSY = 30.0
# Enough ticks of 15 s for the longest window, 10 minutes, and for rates.
SETTLED = 60


def settled(requests_per_s: float = BUSY, **changes: Any) -> World:  # noqa: ANN401 -- manifest JSON
    """Return a world that has found its size at a load."""
    world = World(policy=policy(**changes))
    world.run(requests_per_s, SETTLED)
    return world


def test_all_demand_missing_for_a_moment_is_held() -> None:
    """Without any reading of demand the size stays, with the reason that metrics are stale."""
    world = settled()
    before = dict(world.sizes)
    decided = world.run(None, 3)
    assert world.sizes == before
    assert {each.reason for each in decided.values()} == {Reason.METRICS_STALE}


@pytest.mark.parametrize("minutes", [5, 15, 60])
def test_an_outage_is_held(minutes: int) -> None:
    """However long demand is unknown, the size stays, and after the grace the reason is an outage."""
    world = settled()
    before = dict(world.sizes)
    decided = world.run(None, 4 * minutes)
    assert world.sizes == before
    assert {each.reason for each in decided.values()} == {Reason.OUTAGE}


def test_an_outage_may_raise_to_a_floor() -> None:
    """With atLeast a role that is smaller grows to it after the grace, and one that is larger stays."""
    world = settled(BUSY, outage={"action": "atLeast", "replicas": 8, "grace": "1m0s"})
    before = dict(world.sizes)
    world.run(None, 3)
    assert world.sizes == before
    world.run(None, 10)
    assert world.sizes == {name: max(8, size) for name, size in before.items()}


def test_nothing_shrinks_right_after_an_outage() -> None:
    """Once demand is known again, a whole window of it passes before a role shrinks."""
    world = settled()
    world.run(None, 20)
    before = dict(world.sizes)
    back = world.at
    while world.sizes == before:
        world.tick(1.0)
    assert world.at - back >= 300.0


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(Reading(value=math.nan), id="nan"),
        pytest.param(Reading(value=math.inf), id="infinite"),
        pytest.param(Reading(value=-1.0), id="negative"),
        pytest.param(Reading(value=None), id="empty"),
        pytest.param(Reading(value=0.0, age_s=120.0), id="old"),
        pytest.param(Reading(value=0.0, fault=Fault.FROZEN), id="frozen"),
        pytest.param(Reading(value=0.0, fault=Fault.AMBIGUOUS), id="ambiguous"),
        pytest.param(Reading(value=0.0, fault=Fault.ERROR), id="error"),
    ],
)
def test_a_reading_that_says_nothing_is_not_zero(broken: Reading) -> None:
    """Arrivals that are NaN, negative, empty, old, frozen or in error for an hour take nothing away."""
    world = settled()
    before = dict(world.sizes)
    for _ in range(240):
        readings = chat_readings(1.0)
        readings[seen.ARRIVAL_REQUESTS] = readings[seen.ARRIVAL_TOKENS] = broken
        roles = [world.role_state(name, 1.0) for name in world.sizes]
        world.tick(1.0, readings=readings, roles=roles)
    assert world.sizes == before


def test_a_second_source_grows_a_role_and_does_not_shrink_it() -> None:
    """With arrivals unknown, throughput that rises adds replicas, and throughput that falls takes none."""
    world = settled()
    before = dict(world.sizes)

    def tick(requests_per_s: float) -> None:
        readings = {name: replace(each, value=None) for name, each in chat_readings(0.0).items()}
        roles = [world.role_state(name, requests_per_s) for name in world.sizes]
        world.tick(requests_per_s, readings=readings, roles=roles)

    for _ in range(80):
        tick(5.0)
    assert world.sizes == before
    for _ in range(20):
        tick(3 * BUSY)
    assert all(world.sizes[name] > size for name, size in before.items())


def test_missing_pods_count_as_average_going_up() -> None:
    """Half the pods' tokens from half the pods are the whole load."""
    world = World(policy=policy())
    for _ in range(4):
        roles = []
        for name in world.sizes:
            state = world.role_state(name, 60.0)
            readings = {
                key: replace(each, value=(each.value or 0.0) / 2, reporting=max(1, state.ready // 2))
                for key, each in state.readings.items()
            }
            roles.append(replace(state, readings=readings))
        world.tick(
            None,
            readings={seen.OUTPUT_TOKENS: Reading(value=ANSWER), seen.PROMPT_TOKENS: Reading(value=PROMPT)},
            roles=roles,
        )
    assert world.sizes["prefill"] >= 60.0 * PROMPT / 9300
    assert world.sizes["decode"] > 5


def test_half_the_pods_missing_shrinks_nothing() -> None:
    """Below the least coverage a role is not made smaller, however little the rest says."""
    world = settled()
    before = dict(world.sizes)
    for _ in range(120):
        roles = []
        for name in world.sizes:
            state = world.role_state(name, 1.0)
            readings = {key: replace(each, reporting=state.ready // 2) for key, each in state.readings.items()}
            roles.append(replace(state, readings=readings))
        world.tick(1.0, roles=roles)
    assert world.sizes == before
    assert {each.reason for each in world.latest.values()} == {Reason.COVERAGE_LOW}


def test_each_missing_pod_counts_as_busy_going_down() -> None:
    """With enough coverage a role may shrink, but keeps a replica for each pod that does not report."""
    for gone, least in ((0, 1), (1, 2)):
        world = settled()
        world.obeys = False
        world.run(0.0, 400)
        for _ in range(2):
            state = world.role_state("prefill", 0.0)
            readings = {key: replace(each, reporting=state.ready - gone) for key, each in state.readings.items()}
            world.tick(0.0, roles=[replace(state, readings=readings), world.role_state("decode", 0.0)])
        work = next(each for each in world.latest["prefill"].proposals if each.policy == "work")
        assert work.floor == least


def test_a_spike_of_one_sample_moves_within_rates_and_leaves_nothing_behind() -> None:
    """A tenfold sample that is gone at the next tick at most doubles a role, once, and the role comes back."""
    world = settled()
    before = dict(world.sizes)
    decided = world.tick(10 * BUSY)
    assert all(each.replicas <= max(2 * before[name], before[name] + 4) for name, each in decided.items())
    after_spike = dict(world.sizes)
    world.tick(BUSY)
    assert world.sizes == after_spike
    world.run(BUSY, 300)
    # Growing and shrinking have different utilisations, so that one replica more may stay.
    assert all(before[name] <= size <= before[name] + 1 for name, size in world.sizes.items())


def test_a_jump_that_stays_is_believed_at_its_second_sample() -> None:
    """A load that is tenfold twice in a row grows the roles at the rate that they may have."""
    world = settled(3.0)
    world.run(30.0, 12)
    assert world.sizes["prefill"] >= 30.0 * PROMPT / 9300 / 0.7


def test_no_readings_at_all_is_no_idleness() -> None:
    """A scope without a single reading stays as it is, even where it may go to zero."""
    world = settled(BUSY, scaleToZero={"after": "1m0s"})
    before = dict(world.sizes)
    for _ in range(40):
        roles = [replace(world.role_state(name, None), readings={}) for name in world.sizes]
        world.tick(None, readings={}, roles=roles)
    assert world.sizes == before


def test_a_restart_without_memory_takes_nothing_away() -> None:
    """A core that remembers nothing does nothing at first, and shrinks nothing for a window."""
    world = settled()
    world.memory = Memory()
    before = dict(world.sizes)
    started = world.at
    decided = world.tick(1.0)
    assert {each.reason for each in decided.values()} == {Reason.STARTING_UP}
    while world.sizes == before:
        world.tick(1.0)
    assert world.at - started >= 300.0


def test_a_restart_with_memory_goes_on() -> None:
    """What is stored and read back decides as what was never stopped."""
    world, other = settled(), settled()
    other.memory = decode(encode(other.memory))
    for load in (30.0, 50.0, 20.0, 5.0, 5.0, 70.0):
        assert world.run(load, 10) == other.run(load, 10)


def test_a_new_version_of_a_policy_shrinks_nothing_for_a_window() -> None:
    """A looser policy takes effect downwards only after the window."""
    world = settled()
    before = dict(world.sizes)
    world.policy = policy(generation=2, slo={"ttft": "9s", "itl": "500ms"})
    changed = world.at
    while world.sizes == before:
        world.tick(BUSY / 4)
    assert world.at - changed >= 300.0


def test_the_time_of_day_does_not_matter() -> None:
    """The same load an hour and 7 seconds later is decided alike."""
    early, late = World(), World(at=START + 3607.0)
    for load in (10.0, 40.0, 25.0, 5.0, 60.0):
        early.run(load, 20)
        late.run(load, 20)
        assert early.sizes == late.sizes
