"""The steps of RollingRecreate over bare units, as tables of what goes and what may be there in addition."""

from __future__ import annotations

from typing import Final

import pytest

from grove_server.lifecycle.orders import UpdateOrder
from grove_server.lifecycle.rollout.budget import Budget, budget_of, units
from grove_server.lifecycle.rollout.units import Unit, plan_pods, plan_replicas
from grove_server.resources.manifest import RollingUpdate, UnitBudget


def row(states: str) -> list[Unit]:
    """Return units from letters by index: O and N serve, o and n do not; O is old and N new; a dot is a hole."""
    return [
        Unit(name=f"u{i}", index=i, created_at=float(i), is_old=letter in "Oo", is_available=letter in "ON")
        for i, letter in enumerate(states)
        if letter != "."
    ]


# States, size, unavailable, surge → indices that stop, units above the size.
PODS: Final[tuple[tuple[str, int, int, int, list[int], int], ...]] = (
    ("OOO", 3, 1, 0, [0], 0),
    ("NOO", 3, 1, 0, [1], 0),
    ("nOO", 3, 1, 0, [], 0),
    ("NNN", 3, 1, 0, [], 0),
    ("ooO", 3, 1, 0, [0, 1], 0),
    ("oOOOO", 5, 1, 0, [0], 0),
    ("OOOOO", 5, 2, 0, [0, 1], 0),
    ("OOO", 3, 0, 1, [], 1),
    ("OOOn", 3, 0, 1, [], 1),
    ("OOON", 3, 0, 1, [0], 1),
    (".OONN", 3, 0, 1, [1], 1),
    ("NNNO", 3, 0, 1, [3], 0),
    ("OOOOO", 3, 1, 0, [0, 1, 2], 0),
    ("OO", 0, 1, 0, [0, 1], 0),
)


@pytest.mark.parametrize(("states", "size", "unavailable", "surge", "stop", "extra"), PODS)
def test_pods(states: str, size: int, unavailable: int, surge: int, stop: list[int], extra: int) -> None:
    """What does not serve goes at once, what serves as the budget allows, the oldest first."""
    plan = plan_pods(row(states), size, Budget(max_unavailable=unavailable, max_surge=surge))
    assert ([unit.index for unit in plan.stop], plan.surge) == (stop, extra)


REPLICAS: Final[tuple[tuple[str, int, int, int, list[int], int], ...]] = (
    ("OOO", 3, 1, 0, [0], 0),
    ("nOO", 3, 1, 0, [], 0),
    ("NOO", 3, 1, 0, [1], 0),
    ("OoO", 3, 1, 0, [1], 0),
    ("OOO", 3, 0, 1, [], 1),
    ("OOOn", 3, 0, 1, [], 1),
    ("OOON", 3, 0, 1, [0], 1),
    ("nOON", 3, 0, 1, [], 1),
    ("NOON", 3, 0, 1, [1], 1),
    ("NNnN", 3, 0, 1, [], 1),
    ("NNNN", 3, 0, 1, [], 0),
    ("OOOO", 3, 0, 2, [3], 2),
    ("NOOo", 3, 0, 1, [3], 1),
    ("OOOOO", 3, 1, 0, [0], 0),
    ("NNn", 3, 0, 1, [], 0),
    ("NNnNN", 3, 0, 2, [], 1),
    ("NNnnN", 3, 0, 2, [], 2),
)


@pytest.mark.parametrize(("states", "size", "unavailable", "surge", "stop", "extra"), REPLICAS)
def test_replicas(states: str, size: int, unavailable: int, surge: int, stop: list[int], extra: int) -> None:
    """Replicas go by index; extra ones stand above the size while somebody below is old or does not serve."""
    plan = plan_replicas(row(states), size, Budget(max_unavailable=unavailable, max_surge=surge))
    assert ([unit.index for unit in plan.stop], plan.surge) == (stop, extra)


@pytest.mark.parametrize(
    ("value", "size", "up", "expected"),
    [(3, 10, False, 3), ("25%", 10, False, 2), ("25%", 10, True, 3), ("100%", 7, False, 7), ("1%", 3, False, 0)],
)
def test_shares(value: int | str, size: int, up: bool, expected: int) -> None:
    """Shares are rounded down where pods are missing and up where they are added."""
    assert units(value, size, up=up) == expected


def test_budgets_of_a_clique() -> None:
    """A clique's own numbers count, then the set's, then the strategy's default; nothing at all becomes one."""
    rolling = UpdateOrder(strategy="RollingRecreate", budget=RollingUpdate(max_unavailable=3, max_surge="50%"))
    plain = UpdateOrder(strategy="RollingRecreate")
    assert budget_of(UnitBudget(max_unavailable=2), rolling, size=4, minimum=1) == Budget(
        max_unavailable=2, max_surge=2
    )
    assert budget_of(None, plain, size=4, minimum=4) == Budget(max_unavailable=1, max_surge=0)
    assert budget_of(UnitBudget(max_unavailable="10%"), plain, size=4, minimum=1).max_unavailable == 1
    coherent = UpdateOrder(strategy="Coherent")
    assert budget_of(None, coherent, size=9, minimum=3) == Budget(max_unavailable=3, max_surge=0)
