"""Fronts keep what no other beats, and are compared where both have something to say."""

import pytest

from autoscaler.replay.pareto import Point, attainment_at, cost_of, front, gap


def points(*pairs: tuple[float, float]) -> list[Point]:
    """Return points of costs and attainments."""
    return [Point(gpu_hours=cost, attainment=attainment) for cost, attainment in pairs]


FRONT = front(points((100, 0.90), (200, 0.98), (150, 0.85), (300, 0.98), (400, 1.0), (200, 0.97)))


def test_a_front_keeps_what_no_other_beats() -> None:
    """Dearer and no better is dropped, of equal costs the better one stays."""
    assert [(point.gpu_hours, point.attainment) for point in FRONT] == [(100, 0.9), (200, 0.98), (400, 1.0)]


@pytest.mark.parametrize(
    ("cost", "expected"), [(99, None), (100, 0.9), (150, 0.94), (300, 0.99), (400, 1.0), (999, 1.0)]
)
def test_a_front_between_its_points(cost: float, expected: float | None) -> None:
    """It is straight between points, and goes on level beyond its end."""
    assert attainment_at(FRONT, cost) == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(("attainment", "expected"), [(0.5, 100), (0.9, 100), (0.94, 150), (0.99, 300), (1.0, 400)])
def test_the_cost_of_an_attainment(attainment: float, expected: float) -> None:
    """The inverse of the above; what the cheapest point exceeds costs what that does."""
    assert cost_of(FRONT, attainment) == pytest.approx(expected)


def test_what_a_front_does_not_reach_has_no_cost() -> None:
    """Above its end there is no figure."""
    assert cost_of(FRONT[:2], 0.99) is None
    assert attainment_at((), 5.0) is None


def test_a_gap_is_in_points_and_as_a_ratio() -> None:
    """At 300 GPU-hours the front has 99 %, one point more than 98 %, for which 200 would do."""
    found = gap(FRONT, Point(gpu_hours=300, attainment=0.98))
    assert found.points == pytest.approx(1.0)
    assert found.gpu_ratio == pytest.approx(2 / 3)
    assert gap(FRONT, Point(gpu_hours=50, attainment=0.98)).points is None
