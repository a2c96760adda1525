"""The port of the HPA does what the controller's formulas say; each vector is worked out in its comment."""

from typing import Literal

import pytest

from autoscaler.replay.hpa import (
    DOWN,
    UP,
    Behavior,
    Controller,
    Direction,
    Rate,
    average_value_metric,
    combined,
    pods_metric,
    value_metric,
)

TIGHT = Behavior(up=Direction(window_s=0, rates=UP.rates, tolerance=0.05), down=DOWN)


def pods(*values: float) -> dict[str, float]:
    """Return values by pod."""
    return {f"pod-{index}": value for index, value in enumerate(values)}


@pytest.mark.parametrize(
    ("values", "target", "replicas", "unready", "missing", "expected"),
    [
        # Mean 50 against 30: 1.67 * 3 = 5.
        ((30, 50, 70), 30.0, 3, 0, 0, 5),
        # Mean 15 against 30: 0.5 * 5 = 2.5.
        ((15, 15, 15, 15, 15), 30.0, 5, 0, 0, 3),
        # Ratios 1.09 and 0.91 are inside the tolerance, 1.11 and 0.89 are not: 3.33 and 2.67 go up to 4 and 3.
        ((1.09, 1.09, 1.09), 1.0, 3, 0, 0, 3),
        ((0.91, 0.91, 0.91), 1.0, 3, 0, 0, 3),
        ((1.11, 1.11, 1.11), 1.0, 3, 0, 0, 4),
        ((0.6, 0.6, 0.6), 1.0, 3, 0, 0, 2),
        # One starts, the ratio is 2: it counts as 0, so (2 + 2 + 0) / 3 = 1.33, times 3 = 4.
        ((2.0, 2.0), 1.0, 3, 1, 0, 4),
        # Two start, the ratio is 1.5: 1.5 / 3 = 0.5 turned round, so nothing happens.
        ((1.5,), 1.0, 3, 2, 0, 3),
        # It asks for less: those that start are not looked at; 0.5 * 2 = 1.
        ((0.5, 0.5), 1.0, 3, 1, 0, 1),
        # One is silent and the ratio is 0.5: it counts as the target, (0.5 + 0.5 + 1) / 3 = 0.67, times 3 = 2.
        ((0.5, 0.5), 1.0, 3, 0, 1, 2),
        # One is silent and the ratio is 1.2: it counts as 0, 2.4 / 3 = 0.8 turned round.
        ((1.2, 1.2), 1.0, 3, 0, 1, 3),
        # One is silent and the ratio is 3: (3 + 3 + 0) / 3 = 2, times 3 = 6.
        ((3.0, 3.0), 1.0, 3, 0, 1, 6),
        # One is silent, one starts, the ratio is 2: 4 / 4 = 1 is inside the tolerance.
        ((2.0, 2.0), 1.0, 4, 1, 1, 4),
        # Of ten, two answer with 4: 8 / 8 = 1 after six count as 0.
        ((4.0, 4.0), 1.0, 10, 6, 0, 10),
        # Of six that are known one has 9: 1.5 * 6 = 9 would shrink 12 while the ratio asks for more.
        ((9.0,), 1.0, 12, 0, 5, 12),
        # Everything is 0: 0 replicas are proposed, and the bounds say how few there may be.
        ((0.0, 0.0), 1.0, 2, 0, 0, 0),
    ],
)
def test_a_metric_of_pods(
    values: tuple[float, ...], target: float, replicas: int, unready: int, missing: int, expected: int
) -> None:
    """Pods that start or are silent dampen a change and never turn it round."""
    starting = [f"starting-{index}" for index in range(unready)]
    silent = [f"silent-{index}" for index in range(missing)]
    assert pods_metric(pods(*values), target, replicas, unready=starting, missing=silent) == expected


def test_a_metric_without_values_is_an_error() -> None:
    """Without a single pod's value there is no proposal."""
    with pytest.raises(ValueError, match="no metrics"):
        pods_metric({}, 1.0, 3, missing=["pod-0"])


@pytest.mark.parametrize(
    ("value", "target", "replicas", "ready", "expected"),
    [
        (60.0, 20.0, 3, 3, 9),  # 3 * 3
        (20.9, 20.0, 3, 3, 3),  # 1.045 is inside the tolerance
        (30.0, 20.0, 4, 2, 3),  # 1.5 * 2 ready
        (30.0, 20.0, 4, 0, 0),  # nothing is ready: nothing is proposed, a known fault of the real one
        (30.0, 20.0, 0, 0, 2),  # from zero: the ratio alone
    ],
)
def test_a_metric_with_a_target_value(value: float, target: float, replicas: int, ready: int, expected: int) -> None:
    """The ratio multiplies the ready pods."""
    assert value_metric(value, target, replicas, ready) == expected


@pytest.mark.parametrize(
    ("value", "target", "replicas", "expected"),
    [
        (100.0, 10.0, 5, 10),
        (54.0, 10.0, 5, 5),  # 1.08
        (56.0, 10.0, 5, 6),  # 1.12
        (44.0, 10.0, 5, 5),  # 0.88, and 4.4 goes up
        (0.0, 10.0, 5, 0),
        (1.0, 10.0, 0, 1),
    ],
)
def test_a_metric_with_a_target_average(value: float, target: float, replicas: int, expected: int) -> None:
    """The value is divided by the target, whatever is ready."""
    assert average_value_metric(value, target, replicas) == expected


def test_the_tolerance_differs_by_direction() -> None:
    """A tolerance of 5 % upward acts at 1.08 and still holds at 0.92."""
    assert average_value_metric(54.0, 10.0, 5, TIGHT) == 6
    assert average_value_metric(46.0, 10.0, 5, TIGHT) == 5


@pytest.mark.parametrize(
    ("proposals", "replicas", "expected"),
    [([3, 7], 5, 7), ([3, None], 5, None), ([7, None], 5, 7), ([None, None], 5, None), ([2, 3], 5, 3)],
)
def test_proposals_are_combined(proposals: list[int | None], replicas: int, expected: int | None) -> None:
    """The largest counts; with a failed one among them nothing shrinks."""
    assert combined(proposals, replicas) == expected


def follow(controller: Controller, replicas: int, proposals: list[int], period_s: float = 15.0) -> list[int]:
    """Return the sizes that come of proposals, one a period."""
    sizes = []
    for number, proposal in enumerate(proposals):
        replicas = controller.decide(number * period_s, replicas, proposal)
        sizes.append(replicas)
    return sizes


def test_growth_is_limited_by_default_to_twice_the_size_or_four_pods() -> None:
    """From 1 by four pods, from 5 by 100 %, each in 15 s."""
    controller = Controller(replicas_max=100)
    assert follow(controller, 1, [100, 100, 100, 100, 100, 100]) == [5, 10, 20, 40, 80, 100]


def test_shrinking_waits_for_the_window() -> None:
    """The largest proposal of 300 s holds: after one of 8 at 30 s, the size falls at 330 s."""
    controller = Controller(replicas_max=100)
    sizes = follow(controller, 10, [10, 9, 8] + [3] * 21)
    # The proposal of 10 leaves the window at 300 s, the one of 9 at 315 s, the one of 8 at 330 s.
    assert sizes[:20] == [10] * 20
    assert sizes[20:23] == [9, 8, 3]


def test_the_size_found_at_the_start_is_a_recommendation() -> None:
    """A controller that was just started does not shrink before its window has passed."""
    controller = Controller(replicas_max=100)
    assert follow(controller, 10, [1] * 21) == [10] * 20 + [1]


def test_growth_with_a_window_takes_the_smallest_proposal() -> None:
    """With 60 s upward a spike of one period changes nothing."""
    behavior = Behavior(up=Direction(window_s=60.0, rates=UP.rates))
    controller = Controller(behavior=behavior, replicas_max=100)
    assert follow(controller, 4, [4, 9, 4, 9, 9, 9, 9, 9]) == [4, 4, 4, 4, 4, 4, 8, 9]


@pytest.mark.parametrize(
    ("select", "expected"),
    [("max", [12, 12, 12, 12, 15]), ("min", [11, 11, 11, 11, 12]), ("disabled", [10] * 5)],
)
def test_of_two_rates_one_is_selected(select: Literal["max", "min", "disabled"], expected: list[int]) -> None:
    """20 % or one pod a minute: the period starts from the size before the growth of the last minute."""
    rates = (Rate(kind="percent", value=20, period_s=60.0), Rate(kind="pods", value=1, period_s=60.0))
    rules = Direction(window_s=0, rates=rates, select=select)
    controller = Controller(behavior=Behavior(up=rules), replicas_max=100)
    assert follow(controller, 10, [100] * 5) == expected


def test_shrinking_by_percent_rounds_down() -> None:
    """10 % of 15 a minute leave int(13.5) = 13, then int(11.7) = 11."""
    rates = (Rate(kind="percent", value=10, period_s=60.0),)
    controller = Controller(behavior=Behavior(down=Direction(window_s=0.0, rates=rates)), replicas_max=100)
    # The first decision still sees the size found at the start, because a window of 0 keeps nothing newer than now.
    assert follow(controller, 15, [1] * 9) == [13, 13, 13, 13, 11, 11, 11, 11, 9]


def test_a_limit_never_turns_a_direction() -> None:
    """Pods removed in the period raise the start of growth, and pods added never make growth a shrinking."""
    rates = (Rate(kind="pods", value=2, period_s=60.0),)
    controller = Controller(behavior=Behavior(up=Direction(window_s=0, rates=rates)), replicas_max=100)
    assert follow(controller, 4, [10, 10, 10]) == [6, 6, 6]
    # Somebody else shrank it to 4 meanwhile: 4 - 2 + 2 would be no growth at all, which is allowed, but no less.
    assert controller.decide(45.0, 4, 10) == 4


def test_bounds_hold() -> None:
    """A size outside the bounds is brought inside."""
    controller = Controller(replicas_min=2, replicas_max=6)
    assert controller.decide(0.0, 9, 9) == 6
    assert Controller(replicas_min=2, replicas_max=6).decide(0.0, 1, 0) == 2
