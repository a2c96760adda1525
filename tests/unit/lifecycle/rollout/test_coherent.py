"""Coherent updates: the published examples as exact sequences, and the steps over units that serve or do not."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from grove_server.lifecycle.rollout.coherent import Component, checkpoints, plan_moves
from grove_server.lifecycle.rollout.units import Unit

Shape = tuple[int, int, int]


def components(*shapes: Shape, states: Sequence[str] = ()) -> list[Component]:
    """Return components from (size, minimum, max unavailable) and the states of their units (see test_units)."""
    made = []
    for position, (size, minimum, unavailable) in enumerate(shapes):
        letters = states[position] if states else "O" * size
        units = tuple(
            Unit(name=f"u{i}", index=i, created_at=float(i), is_old=c in "Oo", is_available=c in "ON")
            for i, c in enumerate(letters)
            if c != "."
        )
        made.append(
            Component(name=f"c{position}", size=size, minimum=minimum, max_unavailable=unavailable, units=units)
        )
    return made


def steps(points: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Return what each point adds to the one before."""
    before = (0,) * len(points[0])
    made = []
    for point in points:
        made.append(tuple(now - then for now, then in zip(point, before, strict=True)))
        before = point
    return made


def test_grep_393_first_example() -> None:
    """F 10/2/2, P 10/3/3, D 20/3/4: three steps of {3F,3P,6D}, and {1F,1P,2D} is left over."""
    found = steps(checkpoints(components((10, 2, 2), (10, 3, 3), (20, 3, 4))))
    assert found == [(2, 3, 3), (1, 0, 3)] * 3 + [(1, 1, 2)]


def test_grep_393_second_example() -> None:
    """F 10/1/1, P 100/3/3, D 80/3/4: ten steps of {1F,10P,8D}, nothing left over."""
    found = steps(checkpoints(components((10, 1, 1), (100, 3, 3), (80, 3, 4))))
    assert found == [(1, 3, 3), (0, 3, 4), (0, 3, 1), (0, 1, 0)] * 10


def test_grep_393_third_example() -> None:
    """F 20/2, P 10/3, D 20/3 with the default budgets: 3x{6F,3P,6D} and {2F,1P,2D}."""
    found = steps(checkpoints(components((20, 2, 2), (10, 3, 3), (20, 3, 3))))
    step = [(2, 3, 3), (2, 0, 3), (2, 0, 0)]
    assert found == step * 3 + [(2, 1, 2)]


SEQUENCES: list[tuple[list[str], list[list[int]], list[int]]] = [
    (["OOOO", "OO"], [[0, 1], [0]], [2, 1]),
    (["nnOO", "nO"], [[], []], [2, 1]),
    (["NNOO", "nO"], [[], []], [2, 1]),
    (["NNOO", "NO"], [[2, 3], [1]], [4, 2]),
    (["NNnn", "NN"], [[], []], [4, 2]),
    # What does not serve goes first.
    (["OOOo", "oO"], [[3, 0], [0]], [2, 1]),
    # A new unit that was lost comes back new, and nothing moves meanwhile.
    (["N.OO", "NO"], [[], []], [2, 1]),
    # An old unit that was lost while others wait comes back old.
    (["nNO.", "NO"], [[], []], [2, 1]),
]


@pytest.mark.parametrize(("states", "stops", "targets"), SEQUENCES)
def test_moves(states: list[str], stops: list[list[int]], targets: list[int]) -> None:
    """With 4 of 2 and 2 of 1, two and one move together, and only when all that is new serves."""
    moves = plan_moves(components((4, 2, 2), (2, 1, 1), states=states))
    assert [[unit.index for unit in move.stop] for move in moves.values()] == stops
    assert [move.new_target for move in moves.values()] == targets


def test_what_is_absent_moves_nothing() -> None:
    """A component of size 0 has no part in the ratio."""
    assert checkpoints(components((0, 1, 1), (2, 1, 1))) == [(0, 1), (0, 2)]
    assert checkpoints(components((0, 1, 1))) == []
