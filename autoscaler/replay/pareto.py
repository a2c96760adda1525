"""Fronts of attainment against GPU-hours, and the gap between two of them. Pure.

A front is what of some runs no other beats in both; between two of its points it is straight. Two policies are compared
at equal GPU-hours (points of attainment) and at equal attainment (ratio of GPU-hours).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Point:
    """One run, or the mean of some: its cost, how much it attained (0 to 1), and what it is."""

    gpu_hours: float
    attainment: float
    label: str = ""


def front(points: Iterable[Point]) -> tuple[Point, ...]:
    """Return the points that no other beats, cheapest first; attainment rises with cost."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda each: (each.gpu_hours, -each.attainment)):
        if not kept or point.attainment > kept[-1].attainment:
            kept.append(point)
    return tuple(kept)


def attainment_at(points: Sequence[Point], gpu_hours: float) -> float | None:
    """Return what a front attains at a cost; beyond its end what its end does, below its start None."""
    costs = [point.gpu_hours for point in points]
    where = bisect_left(costs, gpu_hours)
    if where == len(points):
        return points[-1].attainment if points else None
    if points[where].gpu_hours == gpu_hours:
        return points[where].attainment
    if not where:
        return None
    return _between(
        gpu_hours, costs[where - 1 : where + 1], [each.attainment for each in points[where - 1 : where + 1]]
    )


def cost_of(points: Sequence[Point], attainment: float) -> float | None:
    """Return what a front costs for an attainment; below its start what its start does, beyond its end None."""
    reached = [point.attainment for point in points]
    where = bisect_left(reached, attainment)
    if where == len(points):
        return None
    if not where or reached[where] == attainment:
        return points[where].gpu_hours
    return _between(
        attainment, reached[where - 1 : where + 1], [each.gpu_hours for each in points[where - 1 : where + 1]]
    )


def _between(at: float, ends: Sequence[float], values: Sequence[float]) -> float:
    share = (at - ends[0]) / (ends[1] - ends[0])
    return values[0] + share * (values[1] - values[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """How one front stands to a point of another: in points of attainment, and as a ratio of GPU-hours.

    None: the front does not reach that cost, or that attainment.
    """

    points: float | None
    gpu_ratio: float | None


def gap(ours: Sequence[Point], theirs: Point) -> Gap:
    """Return how our front stands to their point."""
    at_cost = attainment_at(ours, theirs.gpu_hours)
    cost = cost_of(ours, theirs.attainment)
    return Gap(
        points=None if at_cost is None else 100 * (at_cost - theirs.attainment),
        gpu_ratio=None if cost is None else cost / theirs.gpu_hours,
    )
