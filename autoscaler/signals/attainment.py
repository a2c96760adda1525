"""What histograms tell: the part of requests within a target, and how much prompts differ. Pure.

A target on an edge is read off; between two edges it is estimated on the straight line between them, which is said, and
beyond the last edge that counts only what is certain. Nothing observed is not known, and neither 0 nor 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping


def attainment(rates: Mapping[float, float], target: float) -> tuple[float | None, str]:
    """Return the part at or below *target* and what to know about it.

    *rates* are cumulative by upper edge, the largest edge being the total.
    """
    edges = sorted(rates)
    if not edges or not rates[edges[-1]] > 0:
        return None, ""
    total = rates[edges[-1]]
    below = max((edge for edge in edges if edge <= target), default=0.0)
    above = min((edge for edge in edges if edge >= target), default=math.inf)
    low, high = rates.get(below, 0.0), rates.get(above, total)
    if below == above:
        return _ratio(low, total), ""
    if math.isinf(above):
        return _ratio(low, total), f"{target:g} lies beyond the last edge ({below:g}): only what is below it counts"
    share = low + (high - low) * (target - below) / (above - below)
    return _ratio(share, total), f"{target:g} is no edge of the histogram: estimated between {below:g} and {above:g}"


def prompt_variation(rates: Mapping[float, float]) -> float | None:
    """Return the squared coefficient of variation of a histogram, every observation taken in its bucket's middle.

    What is beyond the last finite edge is taken at that edge.
    """
    count = total = squares = before = last = 0.0
    for edge in sorted(rates):
        amount = max(0.0, rates[edge] - before)
        middle = last if math.isinf(edge) else (last + edge) / 2
        count += amount
        total += amount * middle
        squares += amount * middle * middle
        before = max(before, rates[edge])
        last = last if math.isinf(edge) else edge
    if count <= 0 or total <= 0:
        return None
    return max(0.0, squares * count / total**2 - 1)


def _ratio(part: float, total: float) -> float:
    """Return a ratio; rates of two buckets can be off by a sample, so it may be a little beside 0 to 1."""
    return min(1.0, max(0.0, part / total))
