"""HPA's rules, by vectors that were worked out by hand from its published formulas, and against a second port."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from autoscaler.policy import Rate, Rules
from autoscaler.replay import hpa as port
from autoscaler.shaping import rates
from autoscaler.sizing import hpa

TENTH = hpa.Tolerance()
NOW = 10_000.0


def pods(
    values: list[float], target: float, current: int, missing: int = 0, unready: int = 0, up: float = 0.1
) -> int | None:
    """Propose for values per pod."""
    return hpa.pods_metric(
        total_milli=sum(hpa.milli(value) for value in values),
        reporting=len(values),
        missing=missing,
        unready=unready,
        target_milli=hpa.milli(target),
        current=current,
        tolerance=hpa.Tolerance(up=up, down=0.1),
    )


@pytest.mark.parametrize(
    ("values", "target", "current", "missing", "unready", "expected"),
    [
        # mean 20 of 15: 4/3 of 3 pods.
        pytest.param([20, 10, 30], 15, 3, 0, 0, 4, id="grows"),
        # mean 12 of 20: 0.6 of 5 pods.
        pytest.param([12] * 5, 20, 5, 0, 0, 3, id="shrinks"),
        # 1.1 is inside the tolerance of a tenth, 1.101 is not.
        pytest.param([11] * 3, 10, 3, 0, 0, 3, id="at-tolerance"),
        pytest.param([11.01] * 10, 10, 10, 0, 0, 12, id="past-tolerance"),
        # 0.5, two missing count as on target: (3*5 + 2*10)/5 = 7 of 10, 0.7*5 = 3.5.
        pytest.param([5, 5, 5], 10, 5, 2, 0, 4, id="missing-while-shrinking"),
        # 0.9 would be inside, but 0.5 of one pod and four missing: (5 + 40)/5 = 9 of 10, inside the tolerance.
        pytest.param([5], 10, 5, 4, 0, 5, id="missing-stop-shrinking"),
        # 2, two missing count as idle: 60/5 = 12 of 10, 1.2*5 = 6.
        pytest.param([20, 20, 20], 10, 5, 2, 0, 6, id="missing-while-growing"),
        # 1.5 of two, two missing: 30/4 = 7.5 of 10 turns the direction.
        pytest.param([15, 15], 10, 4, 2, 0, 4, id="missing-turn-the-direction"),
        # 2 of two ready, two pods start: 40/4 = 10 of 10.
        pytest.param([20, 20], 10, 4, 0, 2, 4, id="unready-while-growing"),
        # 0.5: pods that start are not looked at on the way down, 0.5*2 = 1.
        pytest.param([5, 5], 10, 4, 0, 2, 1, id="unready-while-shrinking"),
        pytest.param([], 10, 4, 4, 0, None, id="nobody-reports"),
        # Thousandths are cut in the mean: 10.0005 -> 10 -> inside; the sum of milli 2000+2001 over 2 is 2000.
        pytest.param([2.0, 2.001], 2, 2, 0, 0, 2, id="mean-is-cut"),
    ],
)
def test_a_metric_of_pods(
    values: list[float], target: float, current: int, missing: int, unready: int, expected: int | None
) -> None:
    """A metric per pod is proposed for as HPA does, with pods that are missing or not ready."""
    assert pods(values, target, current, missing, unready) == expected


@pytest.mark.parametrize(
    ("value", "target", "current", "ready", "expected"),
    [
        pytest.param(30, 10, 3, 3, 9, id="threefold"),
        pytest.param(10.9, 10, 3, 3, 3, id="inside"),
        pytest.param(30, 10, 3, 0, 0, id="none-ready-proposes-none"),
        pytest.param(25, 10, 0, 0, 3, id="from-zero"),
        pytest.param(0, 10, 0, 0, 0, id="zero-stays"),
    ],
)
def test_a_value(value: float, target: float, current: int, ready: int, expected: int) -> None:
    """A metric of an object is compared whole, and multiplies the ready pods."""
    assert hpa.value_metric(value=value, target=target, current=current, ready=ready, tolerance=TENTH) == expected


@pytest.mark.parametrize(
    ("value", "target", "replicas", "expected"),
    [
        pytest.param(100, 10, 5, 10, id="doubles"),
        pytest.param(54, 10, 5, 5, id="inside"),
        pytest.param(56, 10, 5, 6, id="just-outside"),
        pytest.param(0, 10, 5, 0, id="nothing"),
        pytest.param(7, 10, 0, 1, id="from-zero"),
    ],
)
def test_an_average_value(value: float, target: float, replicas: int, expected: int) -> None:
    """A sum is divided by the target, whatever is ready."""
    assert hpa.average_metric(value=value, target=target, replicas=replicas, tolerance=TENTH) == expected


@pytest.mark.parametrize(
    ("proposals", "current", "expected"),
    [
        pytest.param([3, 7, 5], 4, 7, id="largest"),
        pytest.param([None, 7], 4, 7, id="one-failed-grows"),
        pytest.param([None, 3], 4, None, id="one-failed-does-not-shrink"),
        pytest.param([None, 4], 4, 4, id="one-failed-stays"),
        pytest.param([None, None], 4, None, id="all-failed"),
    ],
)
def test_several_metrics(proposals: list[int | None], current: int, expected: int | None) -> None:
    """The largest counts; a metric that failed keeps the size from shrinking."""
    assert hpa.combined(proposals, current) == expected


DEFAULT_UP = Rules(
    window_s=0.0,
    select="Max",
    rates=(Rate(is_percent=True, value=100, period_s=15.0), Rate(is_percent=False, value=4, period_s=15.0)),
    tolerance=0.1,
)


@pytest.mark.parametrize(
    ("current", "ups", "downs", "expected"),
    [
        pytest.param(2, (), (), 6, id="four-pods"),
        pytest.param(10, (), (), 20, id="twice"),
        # 5 of the 10 came within the period: it began with 5.
        pytest.param(10, ((NOW - 10, 5),), (), 10, id="already-twice"),
        pytest.param(10, ((NOW - 15, 5),), (), 20, id="just-out-of-the-period"),
        # 5 went within the period: it began with 15.
        pytest.param(10, (), ((NOW - 10, 5),), 30, id="back-from-shrinking"),
    ],
)
def test_growth_is_limited(
    current: int, ups: tuple[tuple[float, int], ...], downs: tuple[tuple[float, int], ...], expected: int
) -> None:
    """Growth is counted from the size at the beginning of the period, by HPA's default policies."""
    assert rates.up_limit(current, ups, downs, DEFAULT_UP, NOW) == expected


@pytest.mark.parametrize(
    ("select", "current", "expected"),
    [
        # 3 pods leave 7, a tenth leaves 9.
        pytest.param("Max", 10, 7, id="largest-change"),
        pytest.param("Min", 10, 9, id="smallest-change"),
        pytest.param("Disabled", 10, 10, id="disabled"),
        # 0.9 of 2 is 1.8, cut to 1.
        pytest.param("Min", 2, 1, id="percent-is-cut"),
    ],
)
def test_shrinking_is_limited(select: str, current: int, expected: int) -> None:
    """Of several policies the one is taken that the selection says."""
    rules = Rules(
        window_s=300.0,
        select=select,
        rates=(Rate(is_percent=False, value=3, period_s=60.0), Rate(is_percent=True, value=10, period_s=60.0)),
        tolerance=0.1,
    )
    assert rates.down_limit(current, (), (), rules, NOW) == expected


WISHES = st.lists(st.tuples(st.integers(0, 900), st.integers(0, 50)), max_size=20)


@given(
    wishes=WISHES,
    desired=st.integers(0, 50),
    current=st.integers(0, 50),
    up=st.integers(0, 600),
    down=st.integers(0, 600),
)
def test_forgotten_wishes_change_no_answer(
    wishes: list[tuple[int, int]], desired: int, current: int, up: int, down: int
) -> None:
    """What is pruned of the past gives the stabilised size that the whole past gives."""
    past = sorted((NOW - 1000 + at, value) for at, value in wishes)
    lows: tuple[tuple[float, int], ...] = ()
    highs: tuple[tuple[float, int], ...] = ()
    for at, value in past:
        lows = rates.with_low(lows, value, at, 600.0)
        highs = rates.with_high(highs, value, at, 600.0)
    now = NOW - 50
    whole_up = min([desired, *(value for at, value in past if at > now - up)])
    whole_down = max([desired, *(value for at, value in past if at > now - down)])
    expected = current
    expected = max(expected, whole_up)
    expected = min(expected, whole_down)
    found = rates.stabilised(
        desired=desired, current=current, lows=lows, highs=highs, up_window_s=up, down_window_s=down, now=now
    )
    assert found == expected


# Divisible by every number of pods here, so that no mean is cut: the baseline reckons with real numbers.
WHOLE_MILLI = 232_792_560


@given(
    values=st.lists(st.integers(0, 40), min_size=1, max_size=12),
    target=st.integers(1, 20),
    current=st.integers(1, 20),
    missing=st.integers(0, 4),
    unready=st.integers(0, 4),
)
def test_both_ports_of_the_rule_agree(values: list[int], target: int, current: int, missing: int, unready: int) -> None:
    """The rule that ships and the baseline of the replay, written apart from each other, propose alike."""
    # On the edges (exactly on target with pods missing, or exactly at the tolerance) the last bit decides.
    total, asked = sum(values), len(values)
    filled = total + missing * target if total < target * asked else total
    for count in (asked, asked + missing, asked + missing + unready):
        for part in (total, filled):
            assume(10 * part not in (9 * target * count, 10 * target * count, 11 * target * count))
    unit = WHOLE_MILLI / 1000
    mine = pods([value * unit for value in values], target * unit, current, missing, unready)
    theirs = port.pods_metric(
        {f"pod-{index}": value * unit for index, value in enumerate(values)},
        target * unit,
        current,
        missing=[f"missing-{index}" for index in range(missing)],
        unready=[f"unready-{index}" for index in range(unready)],
    )
    assert mine == theirs
