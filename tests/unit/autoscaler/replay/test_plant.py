"""The plant serves requests as its service times say, and its replicas live as those of a cluster do."""

from dataclasses import replace
from heapq import heapify, heapreplace

import numpy as np
import pytest

from autoscaler.replay.faults import Faults
from autoscaler.replay.outcome import gpu_hours
from autoscaler.replay.patterns import synthetic
from autoscaler.replay.plant import Plant, Setting
from autoscaler.replay.readings import Sizes
from autoscaler.replay.replicas import Role
from autoscaler.replay.service_times import ServiceTimes, drawn
from autoscaler.replay.traces import Trace, trace_of

TRUTH = ServiceTimes()


def setting(prefill: int = 1, decode: int = 1, **changes: object) -> Setting:
    """Return a setting without chance in its cold starts."""
    base = Setting(truth=TRUTH, cold_start_sigma=0.0, start=Sizes(prefill=prefill, decode=decode))
    return replace(base, **changes)  # type: ignore[arg-type]  # the changes of a test are by name


def small(*rows: tuple[float, int, int]) -> Trace:
    """Return a trace of some requests."""
    return trace_of("small", 600.0, rows)


def test_one_request_takes_what_the_service_times_say() -> None:
    """Prefill, transfer, then a step for each further token, whose context grows."""
    plant = Plant(small((1.0, 1_000, 101)), setting())
    plant.advance(60.0)
    first_s = plant.decode.first_s[0]
    assert first_s - 1.0 == pytest.approx(0.115 + 0.0165, rel=0.3)
    steps_s = sum(TRUTH.step_s(1, 1_000 + token) for token in range(100))
    assert plant.decode.finish_s[0] - first_s == pytest.approx(steps_s, rel=1e-3)


def test_batching_agrees_with_a_simulation_step_by_step() -> None:
    """The closed form gives the same ends as counting each step of the batch, to within two steps."""
    chance = np.random.default_rng(3)
    joins = np.sort(chance.uniform(0.0, 20.0, 60))
    lengths = chance.integers(2, 400, (60, 2))
    trace = small(
        *((float(at_s), int(prompt), int(output)) for at_s, (prompt, output) in zip(joins, lengths, strict=True))
    )
    plant = Plant(trace, setting(prefill=60))
    plant.advance(500.0)
    first_s = np.array(plant.decode.first_s)
    # Step by step: who has joined by the start of a step gets a token in it.
    now_s, left, kv = 0.0, dict(enumerate(trace.output_tokens - 1)), dict(enumerate(trace.prompt_tokens))
    ends = np.zeros(60)
    while left:
        batch = [request for request in left if first_s[request] <= now_s]
        if not batch:
            now_s = min(first_s[request] for request in left)
            continue
        now_s += TRUTH.step_s(len(batch), sum(kv[request] for request in batch))
        for request in batch:
            left[request] -= 1
            kv[request] += 1
            if not left[request]:
                ends[request] = now_s
                del left[request]
    assert np.abs(np.array(plant.decode.finish_s) - ends).max() < 2 * TRUTH.step_s(60, 20_000)


def test_prompts_are_served_first_come_first_served() -> None:
    """Starts and ends agree with a queue of three servers written down again."""
    trace = synthetic(seed=1, duration_s=300.0, per_s=20.0, prompt_tokens=1_200, output_tokens=1)
    plant = Plant(trace, setting(prefill=3))
    plant.advance(2_000.0)
    noise = np.random.default_rng((0, 11)).lognormal(0.0, 0.08, len(trace))
    service_s = (TRUTH.prefill_base_s + TRUTH.prefill_per_token_s * trace.uncached_tokens) * noise
    servers = [0.0] * 3
    heapify(servers)
    expected = []
    for arrival_s, takes_s in zip(trace.arrival_s, service_s, strict=True):
        end_s = max(servers[0], arrival_s) + takes_s
        heapreplace(servers, end_s)
        expected.append(end_s)
    transfer_s = TRUTH.transfer_base_s + TRUTH.transfer_per_token_s * trace.prompt_tokens
    np.testing.assert_allclose(np.array(plant.decode.first_s), expected + transfer_s)


def test_every_request_ends_once_and_leaves_nothing_behind() -> None:
    """When all have ended, replicas are empty, and tokens were generated as many as were asked for."""
    trace = synthetic(seed=2, duration_s=600.0, per_s=10.0, prompt_tokens=2_000, output_tokens=100)
    plant = Plant(trace, setting(prefill=4, decode=3))
    plant.advance(3_000.0)
    reading = plant.read()
    assert reading.firsts == reading.finished == len(trace)
    assert [(pod.running, pod.kv_used) for pod in reading.decode] == [(0, 0.0)] * 3
    assert sum(pod.tokens for pod in reading.decode) == pytest.approx(int((trace.output_tokens - 1).sum()), rel=1e-9)
    assert sum(pod.tokens for pod in reading.prefill) == int(trace.uncached_tokens.sum())


def test_room_for_kv_and_sequences_is_kept() -> None:
    """A replica takes no more sequences, and no more context at their ends, than it has room for; the others wait."""
    truth = replace(TRUTH, kv_tokens=10_000, sequences_max=5)
    trace = small(*((0.1 * number, 900, 100) for number in range(40)))
    plant = Plant(trace, setting(prefill=40, truth=truth))
    most = 0
    for number in range(200):
        plant.advance(0.1 * (number + 1))
        reading = plant.read()
        most = max(most, *(pod.running for pod in reading.decode))
        assert all(pod.kv_used <= 1.0 for pod in reading.decode)
    assert most == 5
    assert plant.read().decode_waiting > 0
    plant.advance(600.0)
    assert plant.read().finished == 40


def test_a_replica_serves_after_its_cold_start_and_costs_from_its_schedule() -> None:
    """Ordered at 10 s it is ready at 130 s; its GPUs are paid from 10 s on."""
    plant = Plant(small(), setting())
    plant.advance(10.0)
    assert plant.scale(Role.DECODE, 2)
    plant.advance(129.0)
    assert plant.sizes(Role.DECODE).starting == 1
    plant.advance(130.0)
    assert len(plant.sizes(Role.DECODE).ready) == 2
    assert gpu_hours(plant, 610.0) * 3_600 == pytest.approx(4 * (610 + 610 + 600))


def test_a_drained_replica_ends_what_it_has() -> None:
    """Scaled in, it takes nothing new, finishes, and only then frees its GPUs; nothing is aborted."""
    trace = small(*((0.5 * number, 500, 400) for number in range(40)))
    plant = Plant(trace, setting(prefill=4, decode=2))
    plant.advance(10.0)
    plant.scale(Role.DECODE, 1)
    assert plant.sizes(Role.DECODE).draining == 1
    plant.advance(600.0)
    assert plant.sizes(Role.DECODE).draining == 0
    assert plant.read().finished == 40
    assert plant.decode.aborted == 0
    gone = [replica for replica in plant.replicas if replica.gone_s < 600.0]
    assert [10.0 < replica.gone_s < 40.0 for replica in gone] == [True]


def test_the_drain_timeout_aborts() -> None:
    """What a replica has at its drain timeout is lost, and counted."""
    trace = small(*((0.1 * number, 500, 5_000) for number in range(10)))
    plant = Plant(trace, setting(prefill=4, decode=2, drain_timeout_s=20.0))
    plant.advance(10.0)
    plant.scale(Role.DECODE, 1)
    plant.advance(590.0)
    assert plant.decode.aborted == 5
    assert plant.read().finished == 5


def test_gpus_are_a_cap_and_pending_replicas_wait_for_them() -> None:
    """Of eight GPUs two replicas run; a third is pending until one has gone."""
    plant = Plant(small(), setting(gpus=8))
    plant.scale(Role.DECODE, 2)
    assert plant.sizes(Role.DECODE).pending == 1
    plant.advance(500.0)
    assert len(plant.sizes(Role.DECODE).ready) == 1
    least = replace(plant.setting, sizes_min=Sizes(prefill=0, decode=1))
    plant.setting = least
    plant.scale(Role.PREFILL, 0)
    plant.advance(501.0)
    assert plant.sizes(Role.DECODE).starting == 1


def test_pending_and_starting_replicas_leave_first() -> None:
    """Scaling in takes what does not serve before what does."""
    plant = Plant(small(), setting(gpus=12))
    plant.scale(Role.DECODE, 3)
    plant.scale(Role.DECODE, 1)
    assert plant.sizes(Role.DECODE).ready == (1,)
    assert (plant.sizes(Role.DECODE).starting, plant.sizes(Role.DECODE).pending) == (0, 0)


def test_faults_of_scaling_hold_for_their_window() -> None:
    """A refused call changes nothing; an unschedulable replica waits for the window's end."""
    faults = Faults(refused=((Role.PREFILL, (0.0, 50.0)),), unschedulable=((Role.DECODE, (0.0, 50.0)),))
    plant = Plant(small(), setting(faults=faults))
    assert not plant.scale(Role.PREFILL, 3)
    assert plant.scale(Role.DECODE, 2)
    assert plant.sizes(Role.PREFILL).wanted == 1
    assert plant.sizes(Role.DECODE).pending == 1
    plant.advance(60.0)
    plant.scale(Role.PREFILL, 3)
    assert plant.sizes(Role.PREFILL).starting == 2
    assert plant.sizes(Role.DECODE).starting == 1


def test_the_same_seed_is_the_same_run() -> None:
    """Two plants agree in every first and last token."""
    trace = synthetic(seed=5, duration_s=300.0, per_s=10.0, prompt_tokens=1_000, output_tokens=80)
    first, second = (Plant(trace, setting(prefill=2, decode=2)) for _ in range(2))
    first.advance(900.0)
    for number in range(900):
        second.advance(number + 1.0)
        second.read()
    assert first.decode.first_s == second.decode.first_s
    np.testing.assert_allclose(np.array(first.decode.finish_s), np.array(second.decode.finish_s))


def test_the_hidden_error_stays_inside_its_bounds() -> None:
    """Prefill and decode are each off by at most 20 %, differently by seed."""
    truths = [drawn(TRUTH, seed=seed) for seed in range(50)]
    prefill = np.array([truth.prefill_per_token_s / TRUTH.prefill_per_token_s for truth in truths])
    decode = np.array([truth.step_base_s / TRUTH.step_base_s for truth in truths])
    for factors in (prefill, decode):
        assert 0.8 <= factors.min() < 0.9
        assert 1.1 < factors.max() <= 1.2
    assert not np.allclose(prefill, decode)
