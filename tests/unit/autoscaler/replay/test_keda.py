"""The port of KEDA hands on what its scaler does, the traps included."""

import math

import pytest

from autoscaler.replay.keda import Activation, Fallback, FallbackBehavior, ScalerError, Trigger, query_value


@pytest.mark.parametrize("result", [[], [math.nan], [math.inf], [-math.inf]])
def test_nothing_is_zero_by_default(result: list[float]) -> None:
    """An empty result, NaN and Inf count as 0, or are an error when not ignored."""
    assert query_value(result) == 0.0
    with pytest.raises(ScalerError):
        query_value(result, ignores_null=False)


def test_several_series_are_an_error() -> None:
    """A query with one series per pod fails as soon as there are two pods."""
    assert query_value([3.0]) == 3.0
    with pytest.raises(ScalerError, match="2 elements"):
        query_value([3.0, 4.0])


@pytest.mark.parametrize(
    ("behavior", "replicas", "expected"),
    [
        (FallbackBehavior.STATIC, 9, 40.0),
        (FallbackBehavior.CURRENT, 9, 90.0),
        (FallbackBehavior.CURRENT_IF_HIGHER, 9, 90.0),
        (FallbackBehavior.CURRENT_IF_HIGHER, 2, 40.0),
        (FallbackBehavior.CURRENT_IF_LOWER, 9, 40.0),
        (FallbackBehavior.CURRENT_IF_LOWER, 2, 20.0),
    ],
)
def test_a_fallback_comes_after_the_threshold(behavior: FallbackBehavior, replicas: int, expected: float) -> None:
    """Three failures are errors, the fourth gives target times the replicas that the fallback stands for."""
    fallback = Fallback(failure_threshold=3, replicas=4, behavior=behavior)
    trigger = Trigger(target=10.0, ignores_null=False, fallback=fallback)
    for _ in range(3):
        with pytest.raises(ScalerError):
            trigger.metric(None, replicas)
    assert trigger.metric(None, replicas) == expected
    assert trigger.metric([7.0], replicas) == 7.0
    with pytest.raises(ScalerError):
        trigger.metric([], replicas)


def test_a_failed_query_is_an_error_without_a_fallback() -> None:
    """Unlike an empty result, a failed query is never 0."""
    trigger = Trigger(target=10.0)
    for _ in range(9):
        with pytest.raises(ScalerError):
            trigger.metric(None, 3)
    assert trigger.metric([], 3) == 0.0


def test_from_zero_and_back() -> None:
    """Activity wakes it at once; it sleeps when there was none for the cooldown."""
    activation = Activation(threshold=5.0)
    assert activation.decide(0.0, 0, 5.0) is None
    assert activation.decide(30.0, 0, 6.0) == 1
    assert activation.decide(60.0, 3, 1.0) is None
    assert activation.decide(300.0, 3, 1.0) is None
    assert activation.decide(330.0, 3, 1.0) == 0


def test_with_a_minimum_it_never_sleeps() -> None:
    """Above zero the HPA alone decides."""
    assert Activation(replicas_min=1).decide(10_000.0, 3, 0.0) is None
