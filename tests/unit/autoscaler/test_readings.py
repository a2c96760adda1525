"""From vectors of pods to readings of roles and scopes."""

import math

import pytest

from autoscaler import observation as o
from autoscaler.engines import dialect as d
from autoscaler.observation import Fault
from autoscaler.signals.attainment import attainment, prompt_variation
from autoscaler.signals.census import Census
from autoscaler.signals.movement import Movement
from autoscaler.signals.readings import read
from tests.signal_cases import NAN, measured, scope, vector


def test_sums_and_means_are_over_the_pods_that_count() -> None:
    """Queues are summed, KV use is a mean, and pods that leave or are not ready are in neither."""
    census = Census([scope("decode-0", "decode-1", "decode-2!", "prefill-0")])
    found = read(measured(census, {d.RUNNING: vector([3, 4, 50, 1]), d.KV_USAGE: vector([0.2, 0.6, 1.0, 0.1])}))[
        0
    ].roles
    assert found["decode"][o.RUNNING_REQUESTS].value == 7
    assert found["decode"][o.RUNNING_REQUESTS].is_sum
    assert found["decode"][o.KV_USAGE].value == pytest.approx(0.4)
    assert not found["decode"][o.KV_USAGE].is_sum
    assert found["prefill"][o.RUNNING_REQUESTS].value == 1


def test_pods_that_say_nothing_or_too_late_are_missing() -> None:
    """A pod without a sample, and one with an old sample, are missing by name while others are fresh."""
    census = Census([scope("decode-0", "decode-1", "decode-2")])
    reading = read(measured(census, {d.RUNNING: vector([3, NAN, 9], [10.0, NAN, 200.0])}))[0].roles["decode"][
        o.RUNNING_REQUESTS
    ]
    assert (reading.value, reading.age_s, reading.reporting, reading.expected) == (3, 10, 1, 3)
    assert reading.missing == ("decode-1", "decode-2")


def test_if_all_samples_are_old_the_age_says_so() -> None:
    """Old samples are better shown than hidden: the value stands with its age, for the core to refuse."""
    census = Census([scope("decode-0", "decode-1")])
    reading = read(measured(census, {d.RUNNING: vector([3, 9], [100.0, NAN])}))[0].roles["decode"][o.RUNNING_REQUESTS]
    assert (reading.value, reading.reporting) == (12, 2)
    assert reading.age_s > 3600


def test_nothing_known_is_no_reading_of_zero() -> None:
    """A role of which nothing is known has a reading without a value, or none."""
    census = Census([scope("decode-0", "prefill-0")])
    found = read(measured(census, {d.RUNNING: vector([NAN, NAN])}))[0]
    assert found.roles["decode"][o.RUNNING_REQUESTS].value is None
    assert all(reading.value is None for reading in found.scope.values())


def test_means_are_weighed_by_what_they_are_means_of() -> None:
    """The time between tokens is weighed by tokens: a pod that makes ten times as many counts ten times."""
    census = Census([scope("decode-0", "decode-1")])
    found = read(measured(census, {d.ITL_SECONDS: vector([0.02, 0.13]), d.OUTPUT_TOKENS: vector([1000.0, 100.0])}))[
        0
    ].roles["decode"]
    assert found[o.ITL_SECONDS].value == pytest.approx(0.03)


def test_arrivals_are_first_tokens_and_the_growth_of_the_queue() -> None:
    """Under overload what is finished falls short of what comes in; the growing queue makes up for it."""
    census = Census([scope("prefill-0", "prefill-1", "decode-0")])
    found = read(
        measured(
            census,
            {
                d.FIRST_TOKENS: vector([4, 4, 8]),
                d.WAITING_SLOPE: vector([2, 0, 0]),
                d.COMPUTED_TOKENS: vector([2000, 2000, 0]),
                d.PROMPT_TOKENS: vector([4000, 4000, 0]),
            },
        )
    )[0].scope
    assert found[o.ARRIVAL_REQUESTS].value == 10
    assert found[o.ARRIVAL_TOKENS].value == 10 * 500
    assert found[o.PROMPT_TOKENS].value == 1000


def test_a_router_knows_arrivals_better_than_engines() -> None:
    """Where a router of the set counts what comes in, that is what came in."""
    census = Census([scope("router-0", "prefill-0", engine="dynamo")])
    found = read(
        measured(
            census,
            {
                d.FRONT_ARRIVALS: vector([20, NAN]),
                d.FRONT_PROMPT_LENGTH: vector([1000, NAN]),
                d.FRONT_CACHED_LENGTH: vector([400, NAN]),
                d.FRONT_QUEUE: vector([6, NAN]),
                d.FIRST_TOKENS: vector([NAN, 5]),
            },
        )
    )[0].scope
    assert found[o.ARRIVAL_REQUESTS].value == 20
    assert found[o.ARRIVAL_TOKENS].value == 20 * 600
    assert found[o.ROUTER_QUEUE].value == 6


def test_idle_is_proven_by_fresh_counters_and_lengths_stay_unknown() -> None:
    """No arrivals are zero tokens; how long prompts are is then not known, and not zero."""
    census = Census([scope("prefill-0")])
    found = read(
        measured(census, {d.FIRST_TOKENS: vector([0]), d.COMPUTED_TOKENS: vector([0]), d.PROMPT_TOKENS: vector([0])})
    )[0].scope
    assert (found[o.ARRIVAL_REQUESTS].value, found[o.ARRIVAL_TOKENS].value) == (0, 0)
    assert found[o.PROMPT_TOKENS].value is None


def test_attainment_is_per_scope_and_its_own_target() -> None:
    """Each scope's part of requests within its own target is read from the same histogram."""
    census = Census([scope("prefill-0", ttft_s=0.5), scope("prefill-0", namespace="other", ttft_s=1.0)])
    buckets = {d.TTFT_BUCKETS: {0.5: vector([4, 4]), 1.0: vector([8, 8]), math.inf: vector([10, 10])}}
    first, second = read(measured(census, {}, buckets))
    assert first.scope[o.TTFT_ATTAINMENT].value == pytest.approx(0.4)
    assert second.scope[o.TTFT_ATTAINMENT].value == pytest.approx(0.8)


def test_impossible_values_are_a_fault_when_most_pods_say_them() -> None:
    """One broken pod is missing; a unit mix-up of the whole role is a fault."""
    census = Census([scope("decode-0", "decode-1", "decode-2")])
    one = read(measured(census, {d.KV_USAGE: vector([0.1, 0.1, NAN], 1.0, [False, False, True])}))[0].roles["decode"]
    most = read(measured(census, {d.KV_USAGE: vector([0.1, NAN, NAN], 1.0, [False, True, True])}))[0].roles["decode"]
    assert (one[o.KV_USAGE].fault, one[o.KV_USAGE].missing) == (Fault.NONE, ("decode-2",))
    assert most[o.KV_USAGE].fault is Fault.OUT_OF_RANGE


@pytest.mark.parametrize(
    ("target", "value", "says"),
    [
        (0.025, 0.2, ""),
        (0.04, 0.2 + 0.6 * 0.6, "estimated"),
        (0.0125, 0.1, "estimated"),
        (0.2, 0.9, "beyond"),
    ],
)
def test_a_target_between_edges_is_estimated_and_said_so(target: float, value: float, says: str) -> None:
    """On an edge attainment is exact, between edges on the line, beyond the last one only what is certain."""
    found, message = attainment({0.025: 2.0, 0.05: 8.0, 0.1: 9.0, math.inf: 10.0}, target)
    assert found == pytest.approx(value)
    assert says in message
    assert bool(says) is bool(message)


def test_no_requests_have_no_attainment() -> None:
    """Nothing observed is neither all well nor all bad."""
    assert attainment({0.5: 0.0, math.inf: 0.0}, 0.5) == (None, "")
    assert attainment({}, 0.5) == (None, "")
    assert prompt_variation({}) is None


def test_prompts_of_one_length_do_not_vary() -> None:
    """All prompts in one bucket have no variation; half short and half long ones have."""
    assert prompt_variation({100.0: 0.0, 200.0: 5.0, math.inf: 5.0}) == pytest.approx(0.0)
    assert prompt_variation({200.0: 5.0, 1800.0: 5.0, 2000.0: 10.0, math.inf: 10.0}) == pytest.approx(0.81)


def test_a_pod_with_requests_and_no_tokens_is_stuck_after_a_while() -> None:
    """Standing still has to last, and ends with the first token; idle pods do not stand still."""
    census = Census([scope("decode-0", "decode-1", "decode-2")])
    movement = Movement(stuck_after_s=60)

    def look(at: float, tokens: list[float], of: Census = census) -> list[bool]:
        vectors = {d.RUNNING: vector([5, 5, 0]), d.OUTPUT_TOKENS: vector(tokens)}
        return [*map(bool, movement.update(measured(of, vectors, at=at)))]

    assert look(0, [0, 100, 0]) == [False, False, False]
    assert look(59, [0, 100, 0]) == [False, False, False]
    # A census that is made anew keeps what is known of the pods.
    again = Census([scope("decode-0", "decode-1", "decode-2")])
    assert look(60, [0, 100, 0], again) == [True, False, False]
    assert look(75, [1, NAN, 0], again) == [False, False, False]
    assert look(90, [0, 0, 0], again) == [False, False, False]
