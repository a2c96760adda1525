"""Sizes by work, forecasts, waits and KPA, by figures that were worked out by hand or simulated here."""

import heapq
import random
from dataclasses import replace

import pytest

from autoscaler import observation as seen
from autoscaler.demand.forecast import look_ahead
from autoscaler.memory import DemandMemory, PanicMemory, RoleMemory
from autoscaler.observation import Reading
from autoscaler.policy import Slo, Tuning
from autoscaler.replay import kpa as port
from autoscaler.sizing import kpa
from autoscaler.sizing.capacity import Mix, decode_capacity, prefill_capacity
from autoscaler.sizing.queueing import servers_for
from grove_server.resources.scaling_signals import SIGNAL_UNITS
from tests.scaling_cases import ANSWER, PROMPT, START, TICK_S, World, chat_readings, policy

MIX = Mix(uncached=PROMPT, prompt=PROMPT, output=ANSWER)
KNOWN = RoleMemory(current=1, known_at=START)


def test_a_batch_is_as_large_as_the_time_between_tokens_allows() -> None:
    """28.6 ms + B x (0.281 ms + 123 ns x 1,260.5 tokens) within 54 ms is at most B = 58, less what bad moments need."""
    profile = policy().roles[1].profile
    capacity = decode_capacity(profile, KNOWN, Slo(itl_s=0.06), MIX, Tuning(itl_margin=0.1))
    assert capacity.batch is not None
    assert capacity.step_s is not None
    assert 40 <= capacity.batch <= 58
    assert capacity.step_s == pytest.approx(0.0286 + capacity.batch * (0.000281 + 123e-9 * 1260.5))
    assert capacity.decode_tokens_per_s == pytest.approx(capacity.batch / capacity.step_s)
    assert not capacity.is_infeasible


def test_a_batch_fits_the_kv_cache_and_the_engine() -> None:
    """Without a target the engine's limit of 256 binds, and with long prompts the cache: 382,500 / 30,105 = 12."""
    profile = policy().roles[1].profile
    assert decode_capacity(profile, KNOWN, Slo(), MIX, Tuning()).batch == 256
    long = Mix(uncached=30_000.0, prompt=30_000.0, output=ANSWER)
    assert decode_capacity(profile, KNOWN, Slo(), long, Tuning()).batch == 12


def test_a_target_that_no_size_keeps_is_infeasible_and_not_sized_by() -> None:
    """A step that is longer than the target even for one sequence leaves the target out."""
    profile = policy().roles[1].profile
    capacity = decode_capacity(profile, KNOWN, Slo(itl_s=0.02), MIX, Tuning())
    assert capacity.is_infeasible
    assert capacity.batch == 256
    assert prefill_capacity(policy().roles[0].profile, KNOWN, Slo(ttft_s=0.1), MIX).is_infeasible


def simulated_tail(servers: int, arrivals_per_s: float, service_s: float, wait_s: float) -> float:
    """Return the share of requests that wait longer, of 40,000 with exponential gaps and services."""
    rng = random.Random(7)
    free = [0.0] * servers
    now, late, count = 0.0, 0, 40_000
    for _ in range(count):
        now += rng.expovariate(arrivals_per_s)
        start = max(now, heapq.heappop(free))
        late += start - now > wait_s
        heapq.heappush(free, start + rng.expovariate(1 / service_s))
    return late / count


@pytest.mark.parametrize(("arrivals_per_s", "wait_s"), [(5.0, 0.2), (20.0, 0.1), (60.0, 0.05)])
def test_the_wait_is_that_of_a_queue(arrivals_per_s: float, wait_s: float) -> None:
    """The size for a wait keeps it in a simulated queue, and one server fewer does not."""
    found = servers_for(
        arrivals_per_s=arrivals_per_s, service_s=0.25, wait_s=wait_s, tail=0.05, variation=1.0, most=100
    )
    assert simulated_tail(found, arrivals_per_s, 0.25, wait_s) <= 0.06
    assert simulated_tail(found - 1, arrivals_per_s, 0.25, wait_s) > 0.04


def test_a_rising_load_is_seen_ahead_and_a_falling_one_is_not() -> None:
    """A trend counts upwards only; what is asked now is never undercut."""
    outlook, memory = look_ahead(policy(), DemandMemory(), 90.0, now=START, lead_s=135.0, burst_memory_s=1800.0)
    at = START
    for step in range(40):
        at += TICK_S
        outlook, memory = look_ahead(policy(), memory, 100.0 + 10 * step, now=at, lead_s=135.0, burst_memory_s=1800.0)
    assert outlook.ahead > outlook.now + 0.5 * 10 * 135.0 / TICK_S
    for step in range(40):
        at += TICK_S
        outlook, memory = look_ahead(policy(), memory, 490.0 - 10 * step, now=at, lead_s=135.0, burst_memory_s=1800.0)
        assert outlook.ahead >= outlook.now
    assert memory.trend < 0


def test_a_burst_is_remembered_and_fades() -> None:
    """For half the memory a burst is a floor for shrinking, then it fades; one sample is no burst."""
    flat = policy(forecast={"kind": "none"})
    memory, at = DemandMemory(), START
    lows = []
    for value in [100.0] * 4 + [500.0] * 4 + [100.0] * 140:
        at += TICK_S
        outlook, memory = look_ahead(flat, memory, value, now=at, lead_s=135.0, burst_memory_s=1800.0)
        lows.append(outlook.low)
    assert lows[60] == pytest.approx(500.0)
    assert 100.0 < lows[100] < 500.0
    assert lows[-1] == pytest.approx(100.0)
    _, memory = look_ahead(flat, memory, 900.0, now=at + TICK_S, lead_s=135.0, burst_memory_s=1800.0)
    assert max(value for _, value in memory.peaks) < 900.0


def test_a_season_is_used_after_two_periods() -> None:
    """A rise that came at the same time of two periods before is expected before it begins."""
    seasonal = policy(forecast={"kind": "seasonal", "period": "2h0m0s"})
    memory, at = DemandMemory(), START
    begins = at
    ahead = []
    while at < begins + 3 * 7200.0:
        at += 60.0
        value = 400.0 if at % 7200.0 > 3600.0 else 100.0
        outlook, memory = look_ahead(seasonal, memory, value, now=at, lead_s=300.0, burst_memory_s=0.0)
        if value == 100.0 and (at + 300.0) % 7200.0 > 3650.0:
            ahead.append((at, outlook.ahead))
    assert max(value for at, value in ahead if at < begins + 2 * 7200.0) < 200.0
    assert max(value for at, value in ahead if at > begins + 2 * 7200.0 + 1.0) > 350.0


def test_sick_replicas_are_made_up_for() -> None:
    """A ready replica that does no work is one more that is needed."""
    world = World()
    world.run(30.0, 40)
    before = world.sizes["prefill"]
    state = replace(world.role_state("prefill", 30.0), sick=2)
    decided = world.tick(30.0, roles=[state, world.role_state("decode", 30.0)])
    assert decided["prefill"].replicas == before + 2


def test_busy_gpus_keep_prefill_from_shrinking() -> None:
    """Prefill whose GPUs are busy does not shrink, whatever the tokens say: the profile may be wrong."""
    world = World()
    world.run(30.0, 40)
    before = world.sizes["prefill"]
    for _ in range(300):
        state = world.role_state("prefill", 3.0)
        busy = {**state.readings, seen.GPU_ACTIVITY: Reading(value=0.9)}
        world.tick(3.0, roles=[replace(state, readings=busy), world.role_state("decode", 3.0)])
    assert world.sizes["prefill"] == before


def test_a_profile_is_corrected_slowly_and_within_bounds() -> None:
    """Prefill that takes twice as long as promised counts as at most 30 % slower, after a while."""
    world = World()
    readings = chat_readings(30.0)
    for tick in range(200):
        state = world.role_state("prefill", 30.0)
        slow = {**state.readings, seen.PREFILL_SECONDS: Reading(value=0.26)}
        world.tick(30.0, readings=readings, roles=[replace(state, readings=slow), world.role_state("decode", 30.0)])
        factor = world.memory.scopes["ns/chat#0"].roles["prefill"].prefill_factor
        assert factor <= 1.3
        if tick == 3:
            assert factor < 1.05
    assert world.memory.scopes["ns/chat#0"].roles["prefill"].prefill_factor > 1.25


def test_without_a_profile_prefill_learns_from_replicas_that_always_have_work() -> None:
    """Nothing is shrunk and nothing guessed before a queue has shown what a replica can do."""
    world = World(policy=policy(roles=[{"name": "prefill", "role": "prefill", "podClique": "p", "maxReplicas": 20}]))
    world.sizes = {"prefill": 2}
    world.run(10.0, 10)
    assert world.sizes == {"prefill": 2}
    for _ in range(4):
        state = world.role_state("prefill", 20.0)
        queued = {**state.readings, seen.QUEUED_REQUESTS: Reading(value=30.0)}
        world.tick(40.0, roles=[replace(state, readings=queued)])
    assert world.memory.scopes["ns/chat#0"].roles["prefill"].prefill_rate > 0
    assert world.sizes["prefill"] > 2


def test_a_mean_of_a_whole_role_speaks_for_every_pod() -> None:
    """GPUs that are wholly busy where half is wanted double a role, also where one number stands for all its pods."""
    sized = {"name": "decode", "role": "decode", "podClique": "d", "maxReplicas": 20}
    world = World(policy=policy(roles=[{**sized, "policies": [{"kind": "gpuUtil", "target": 0.5}]}]))
    world.sizes = {"decode": 3}
    for _ in range(2):
        state = replace(world.role_state("decode", 1.0), readings={seen.GPU_ACTIVITY: Reading(value=1.0)})
        world.tick(1.0, roles=[state])
    assert world.sizes == {"decode": 6}


def test_kpa_panics_and_comes_down() -> None:
    """Twice of what is ready within the short window is a panic, which ends a stable window after its last cause."""
    settings = kpa.Concurrency(target=10.0)
    memory = None
    wishes = []
    for second in range(0, 200, 2):
        value = 200.0 if 60 <= second < 70 else 40.0
        wish, memory = kpa.propose(settings, memory, value, 4, 1000.0 + second)
        wishes.append(wish)
    assert wishes[0] == 4
    assert max(wishes) == 20
    # The panic holds the most that it wanted for 60 s after the short window saw its last cause.
    assert wishes[60] == 20
    assert wishes[-1] == 4


def test_kpa_agrees_with_the_port_of_the_replay() -> None:
    """Both give the same wishes for a load that jumps, from their own windows."""
    rng = random.Random(3)
    settings = kpa.Concurrency(target=10.0)
    theirs = port.Autoscaler(settings=port.Settings(target=10.0, total=100.0))
    memory, samples = PanicMemory(), []
    for step in range(300):
        now = 5000.0 + 2 * step
        value = rng.choice([0.0, 5.0, 30.0, 80.0, 200.0])
        samples.append((now, value))
        mine, memory = kpa.propose(settings, memory, value, 4, now)
        stable = [each for at, each in samples if at > now - 60.0]
        panic = [each for at, each in samples if at > now - 6.0]
        wish = theirs.decide(now, 4, sum(stable) / len(stable), sum(panic) / len(panic))
        assert wish is not None
        assert mine == wish.pods, step


def test_the_core_and_admission_know_the_same_signals() -> None:
    """The names that admission accepts without a query are those that the core uses."""
    assert set(SIGNAL_UNITS) == {*seen.SCOPE_SIGNALS, *seen.ROLE_SIGNALS}
