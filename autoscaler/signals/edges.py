"""Edges of histograms: what ``le`` says, and which of them a target needs. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence


def edge_of(text: str) -> float | None:
    """Return the value of a bucket's ``le``, None if it has none."""
    try:
        value = float(text)
    except ValueError:
        return None
    return None if math.isnan(value) else value


def edges_around(edges: Sequence[float], wanted: Sequence[float]) -> tuple[float, ...]:
    """Return the edges that are needed to place some values: the ones at or around each, and the last."""
    needed = set()
    for value in wanted:
        below = [edge for edge in edges if edge <= value]
        above = [edge for edge in edges if edge >= value]
        needed.update({below[-1]} if below else set())
        needed.update({above[0]} if above else set())
    if needed and edges:
        needed.add(edges[-1])
    return tuple(sorted(needed))
