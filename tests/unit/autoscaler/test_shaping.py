"""Bounds, rates, holds, the ratio guard and the budget, seen through the whole core."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from autoscaler import observation as seen
from autoscaler.deciding import decide
from autoscaler.decision import Reason
from autoscaler.memory import Memory
from autoscaler.observation import Override, Pause, Reading, ScopeState, Snapshot
from autoscaler.policy import PolicyError, compile_policy
from autoscaler.shaping.schedules import holds
from tests.scaling_cases import (
    DECODE_ROLE,
    PREFILL_ROLE,
    START,
    TICK_S,
    TUNING,
    World,
    chat_readings,
    policy,
    role,
    spec,
)


def settled(requests_per_s: float = 30.0, **changes: Any) -> World:  # noqa: ANN401 -- manifest JSON
    """Return a world that has found its size at a load."""
    world = World(policy=policy(**changes))
    world.run(requests_per_s, 60)
    return world


def test_sizes_follow_the_load_and_its_mix() -> None:
    """Prefill and decode grow with the load, each by its own work, and shrink again."""
    world = settled(30.0)
    busy = dict(world.sizes)
    assert busy["prefill"] >= 30 * 1155 / 9300 / TUNING.prefill_utilization
    assert busy["decode"] > busy["prefill"]
    world.run(3.0, 600)
    assert all(world.sizes[name] < size for name, size in busy.items())


def test_bounds_hold() -> None:
    """A role is never smaller than its minimum nor larger than its maximum."""
    roles = [role(PREFILL_ROLE, minReplicas=3, maxReplicas=5), role(DECODE_ROLE, maxReplicas=6)]
    world = settled(300.0, roles=roles)
    assert world.sizes == {"prefill": 5, "decode": 6}
    world.run(0.1, 600)
    assert world.sizes["prefill"] == 3


def test_what_a_gang_needs_comes_whole() -> None:
    """A size between 0 and the gang's minimum is raised to it."""
    world = settled(1.0)
    world.obeys = False
    state = replace(world.role_state("prefill", 1.0), min_available=4)
    for _ in range(300):
        world.tick(1.0, roles=[state, world.role_state("decode", 1.0)])
    assert world.latest["prefill"].replicas == 4


def test_no_shrinking_within_a_cold_start_of_growing() -> None:
    """A role that has just grown waits for what it started before it shrinks, whatever the windows say."""
    behavior = {"scaleDown": {"stabilizationWindowSeconds": 0}, "burstMemory": "0s"}
    roles = [role(PREFILL_ROLE, behavior=behavior), DECODE_ROLE]
    world = World(policy=policy(roles=roles))
    world.run(5.0, 40)
    world.run(60.0, 4)
    grown, size = world.at, world.sizes["prefill"]
    while world.sizes["prefill"] >= size:
        size = world.sizes["prefill"]
        world.tick(1.0)
        assert world.at - grown < 2000
    assert world.at - grown >= 120.0


def test_a_pause_holds_its_direction_until_its_time() -> None:
    """Paused "out" a role does not grow and says why; after the time it does."""
    world = settled(10.0)
    before = dict(world.sizes)
    until = world.at + 10 * TICK_S
    for _ in range(9):
        world.tick(60.0, pauses=(Pause(direction="out", until=until, by="ada"),))
    assert world.sizes == before
    assert world.latest["prefill"].reason is Reason.PAUSED
    assert "ada" in world.latest["prefill"].message
    world.tick(60.0, pauses=(Pause(direction="out", until=until),))
    world.tick(60.0, pauses=(Pause(direction="out", until=until),))
    assert world.sizes["prefill"] > before["prefill"]


@pytest.mark.parametrize(("paused", "load", "stays"), [("in", 1.0, True), ("in", 90.0, False), (True, 90.0, True)])
def test_a_paused_policy(*, paused: bool | str, load: float, stays: bool) -> None:
    """A policy that is paused in one direction moves in the other only."""
    world = settled(30.0)
    before = dict(world.sizes)
    world.policy = policy(paused=paused)
    world.run(load, 300)
    assert (world.sizes == before) is stays


def test_an_override_holds_until_its_time() -> None:
    """A size that somebody asked for is taken at once and kept, and ends by itself."""
    world = settled(30.0)
    before = world.sizes["decode"]
    asked = Override(role="decode", replicas=20, until=world.at + 100.0, by="ada")
    for _ in range(6):
        decided = world.tick(30.0, overrides=(asked,))
        assert decided["decode"].replicas == 20
        assert decided["decode"].reason is Reason.OVERRIDE
    for _ in range(400):
        world.tick(30.0, overrides=(asked,))
    assert before <= world.sizes["decode"] <= before + 1


def test_a_size_by_hand_wins_over_the_ratio_and_says_so() -> None:
    """A size that somebody asked for is not held back because the other role cannot follow, and the message tells."""
    world = settled(30.0)
    prefill = world.sizes["prefill"]
    stuck = replace(world.role_state("prefill", 90.0), current=prefill, ready=prefill, failing="UNAVAILABLE")
    asked = Override(role="decode", replicas=30, until=world.at + 900.0, by="ada")
    decided = world.tick(90.0, roles=[stuck, world.role_state("decode", 90.0)], overrides=(asked,))
    assert decided["decode"].replicas == 30
    assert decided["decode"].reason is Reason.OVERRIDE
    assert decided["decode"].message.startswith("ada asked for 30")
    assert decided["decode"].message.count("; ahead of prefill, which has") == 1


@pytest.mark.parametrize(("asked", "given", "told"), [(99, 40, "99 for"), (1, 3, "1 for"), (0, 0, "0 for")])
def test_a_size_by_hand_stays_within_the_limits_and_says_what_was_asked(asked: int, given: int, told: str) -> None:
    """More than the maximum, or less than the gang needs, is led to the limit; the message has both sizes."""
    world = settled(30.0)
    state = replace(world.role_state("decode", 30.0), min_available=3)
    override = Override(role="decode", replicas=asked, until=world.at + 900.0, by="ada")
    decided = world.tick(30.0, roles=[world.role_state("prefill", 30.0), state], overrides=(override,))["decode"]
    assert decided.replicas == given
    assert told in decided.message
    assert (f"{given} is the" in decided.message) is (asked != given)


def test_recommending_decides_as_applying_does() -> None:
    """The modes differ in nothing but whether the decision is to be carried out."""
    applied, recommended = World(policy=policy(mode="apply")), World(policy=policy(mode="recommend"))
    for load in (30.0, 60.0, 10.0):
        applied.run(load, 30)
        recommended.run(load, 30)
        assert applied.sizes == recommended.sizes
    assert not any(each.do_apply for each in recommended.history)
    assert any(each.do_apply for each in applied.history)
    for one, other in zip(applied.history, recommended.history, strict=True):
        assert one.roles == other.roles


def test_a_conflict_is_left_alone_and_said() -> None:
    """A role whose size somebody else sets is not touched."""
    world = settled(30.0)
    state = replace(world.role_state("prefill", 90.0), conflict="HorizontalPodAutoscaler chat")
    decided = world.tick(90.0, roles=[state, world.role_state("decode", 90.0)])
    assert decided["prefill"].change == 0
    assert decided["prefill"].reason is Reason.CONFLICT


def test_what_finds_no_place_stops_growth_and_nothing_else() -> None:
    """After two cold starts without a place no more is asked for, the other role does not run ahead; it recovers."""
    world = settled(30.0)
    world.obeys = False
    waiting_since = world.at
    for _ in range(24):
        decode = world.role_state("decode", 90.0)
        decode = replace(decode, current=decode.current + 4, pending=4, pending_since=waiting_since)
        decided = world.tick(90.0, roles=[world.role_state("prefill", 90.0), decode])
    assert world.latest["decode"].change == 0
    assert Reason.UNSCHEDULABLE in {clamp.reason for clamp in world.latest["decode"].clamps}
    assert Reason.RATIO_GUARD in {clamp.reason for clamp in world.latest["prefill"].clamps}
    assert world.latest["prefill"].replicas >= world.sizes["prefill"]
    decided = world.tick(90.0)
    assert decided["decode"].change > 0


def test_a_move_of_which_one_half_fails_goes_no_further() -> None:
    """While decode cannot be scaled, prefill grows to the band around what decode has, and on once it can be."""
    world = settled(30.0)
    decode = world.sizes["decode"]
    for _ in range(20):
        stuck = replace(world.role_state("decode", 90.0), current=decode, ready=decode, failing="UNAVAILABLE")
        world.tick(90.0, roles=[world.role_state("prefill", 90.0), stuck])
        # Wishes are about three prefill for four decode, and a quarter more is the band.
        assert world.sizes["prefill"] <= 0.8 * decode * 1.25
        world.sizes["decode"] = decode
    world.run(90.0, 10)
    assert world.sizes["prefill"] >= 90 * 1155 / 9300 / 0.7
    assert world.sizes["decode"] > 2 * decode


def test_a_ratio_can_be_prescribed() -> None:
    """With a fixed ratio prefill follows decode, whatever its own work says."""
    world = settled(30.0, ratio={"fixed": 2.0})
    assert world.sizes["prefill"] == 2 * world.sizes["decode"]


def test_the_budget_is_never_exceeded_and_counts_what_drains() -> None:
    """Growth ends where the budget does, pods that drain included, and each role gets a part."""
    world = settled(10.0, budget={"gpus": 60})
    for _ in range(60):
        roles = [replace(world.role_state(name, 200.0), draining=2) for name in world.sizes]
        world.tick(200.0, roles=roles)
        assert sum(4 * (size + 2) for size in world.sizes.values()) <= 60
    assert Reason.BUDGET_CAP in {each.reason for each in world.latest.values()}
    assert world.last is not None
    assert world.last.gpus_max == 60
    assert min(world.sizes.values()) >= 4


def test_a_shared_budget_serves_the_higher_priority_first() -> None:
    """Of two models that share GPUs and both want more, the one with the higher priority gets them."""
    shared = {"gpus": 60, "name": "pool"}
    policies = {
        each.key: each
        for each in (
            policy("low", budget={**shared, "priority": 1}),
            policy("high", budget={**shared, "priority": 2}),
        )
    }
    worlds = {key: World(sizes={"prefill": 1, "decode": 1}) for key in policies}
    memory, at = Memory(), START
    for _ in range(40):
        at += TICK_S
        scopes = tuple(
            ScopeState(
                key=key,
                copy=0,
                roles=tuple(world.role_state(name, 100.0) for name in world.sizes),
                readings=chat_readings(100.0),
            )
            for key, world in worlds.items()
        )
        decisions, memory = decide(policies, Snapshot(at=at, tick_s=TICK_S, scopes=scopes), memory)
        for decision in decisions:
            worlds[decision.key].sizes = {each.name: each.replicas for each in decision.roles}
        assert sum(4 * sum(world.sizes.values()) for world in worlds.values()) <= 60
    assert sum(worlds["ns/high"].sizes.values()) == 2 * sum(worlds["ns/low"].sizes.values())
    assert min(worlds["ns/low"].sizes.values()) >= 1


def test_too_few_requests_in_time_add_to_the_role_that_is_to_blame() -> None:
    """A missed time to first token adds prefill, or decode where finished prompts wait for it; once per cold start."""
    for waiting, grows in ((0.0, "prefill"), (50.0, "decode")):
        world = settled(10.0)
        before = dict(world.sizes)
        for _ in range(8):
            readings = {**chat_readings(10.0), seen.TTFT_ATTAINMENT: Reading(value=0.5)}
            decode = world.role_state("decode", 10.0)
            queue = {**decode.readings, seen.TRANSFER_QUEUE: Reading(value=waiting)}
            world.tick(
                10.0, readings=readings, roles=[world.role_state("prefill", 10.0), replace(decode, readings=queue)]
            )
        other = "decode" if grows == "prefill" else "prefill"
        assert world.sizes[grows] == before[grows] + 1
        assert world.sizes[other] == before[other]


def test_an_infeasible_target_adds_nothing() -> None:
    """A time to first token that one prompt alone exceeds blames nobody, and does not grow a role without end."""
    world = settled(10.0, slo={"ttft": "50ms"})
    before = dict(world.sizes)
    for _ in range(40):
        world.tick(10.0, readings={**chat_readings(10.0), seen.TTFT_ATTAINMENT: Reading(value=0.0)})
    assert world.sizes == before


def test_both_roles_go_to_zero_together_and_wake_together() -> None:
    """After proven silence all roles go to zero at once; one request that waits brings all back."""
    world = settled(10.0, scaleToZero={"after": "5m0s"})
    world.run(0.0, 19)
    assert min(world.sizes.values()) > 0
    world.run(0.0, 3)
    assert set(world.sizes.values()) == {0}
    world.run(0.0, 10)
    assert set(world.sizes.values()) == {0}
    decided = world.tick(0.0, readings={**chat_readings(0.0), seen.ROUTER_QUEUE: Reading(value=1.0)})
    assert {each.replicas for each in decided.values()} == {1}
    assert {each.reason for each in decided.values()} == {Reason.WAKE}


def test_a_running_request_keeps_a_set_from_zero() -> None:
    """No arrivals for an hour are no idleness while one request still runs."""
    world = settled(10.0, scaleToZero={"after": "1m0s"})
    for _ in range(240):
        decode = world.role_state("decode", 0.0)
        readings = {**decode.readings, seen.RUNNING_REQUESTS: Reading(value=1.0)}
        world.tick(0.0, roles=[world.role_state("prefill", 0.0), replace(decode, readings=readings)])
    assert min(world.sizes.values()) > 0


def test_a_set_that_somebody_put_to_zero_is_left_there() -> None:
    """Without scaleToZero a size of 0 is somebody's will, as it is for HPA."""
    world = World(sizes={"prefill": 0, "decode": 0})
    world.run(50.0, 10)
    assert set(world.sizes.values()) == {0}


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        ("2026-03-02T06:49:00", False),
        ("2026-03-02T06:50:00", True),  # ten minutes ahead of 08:00 in Berlin, which is an hour east in winter
        ("2026-03-02T16:59:00", True),
        ("2026-03-02T17:00:00", False),
        ("2026-06-01T05:50:00", True),  # two hours in summer
        ("2026-03-07T12:00:00", False),  # a Saturday
    ],
)
def test_a_schedule_holds_by_a_wall_clock(moment: str, expected: bool) -> None:
    """A schedule holds on the days and hours of its time zone, from its lead before the start to the end."""
    entry = {"start": "0 8 * * mon-fri", "end": "0 18 * * mon-fri", "timeZone": "Europe/Berlin", "minReplicas": 9}
    (schedule,) = policy(schedules=[entry]).schedules
    assert holds(schedule, datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp()) is expected


def test_a_schedule_raises_the_minimum_without_demand() -> None:
    """While a schedule holds, its minimum does, whatever is measured, and growth to it is not limited in rate."""
    schedules = [{"start": "0 0 * * *", "end": "59 23 * * *", "role": "decode", "minReplicas": 25}]
    world = World(policy=policy(schedules=schedules))
    decided = world.run(1.0, 2)
    assert decided["decode"].replicas == 25
    assert decided["decode"].reason is Reason.SCHEDULE


def test_a_profile_may_say_parts_of_a_nanosecond() -> None:
    """The time that one KV token costs is kept below a nanosecond."""
    profile = {"decodeStep": {"base": "5ms", "perKvToken": "2.6ns"}}
    compiled = policy(roles=[PREFILL_ROLE, role(DECODE_ROLE, profile=profile)])
    assert compiled.roles[1].profile.decode_per_kv_token_s == pytest.approx(2.6e-9)


def test_a_policy_that_cannot_be_computed_is_refused() -> None:
    """What admission would refuse is an error with its path."""
    with pytest.raises(PolicyError, match=r"spec\.slo\.ttft"):
        compile_policy("ns", "x", 1, spec(slo={"ttft": "soon"}))
