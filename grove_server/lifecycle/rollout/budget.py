"""How many units of a clique or group may be missing, or be there in addition, during an update.

Numbers mean units: pods of a standalone clique, group replicas of a group. Shares are rounded as in a Kubernetes
Deployment: what may be missing down, what may be added up; if both come to nothing, one unit may be missing, since
otherwise nothing could move. Defaults follow Grove: one unit missing, none added; under Coherent the minimum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from grove_server.lifecycle.orders import UpdateOrder
from grove_server.resources.manifest import UnitBudget

_MAX_UNAVAILABLE: Final = 1
_MAX_SURGE: Final = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Units that may be missing below the size, and added above it."""

    max_unavailable: int
    max_surge: int


def budget_of(own: UnitBudget | None, order: UpdateOrder, *, size: int, minimum: int) -> Budget:
    """Return the budget of a clique or group of *size* units, of which *minimum* make it work.

    *own* is what its template says; what it leaves out is the set's, then the strategy's default.
    """
    common = order.budget
    unavailable = _first(own.max_unavailable if own else None, common.max_unavailable if common else None)
    surge = _first(own.max_surge if own else None, common.max_surge if common else None)
    if unavailable is None:
        unavailable = max(1, minimum) if order.is_coherent else _MAX_UNAVAILABLE
    missing = units(unavailable, size, up=False)
    if order.is_coherent:
        # A step moves the minimum of everything at once, so less than that could never move.
        return Budget(max_unavailable=max(missing, minimum, 1), max_surge=0)
    added = units(_MAX_SURGE if surge is None else surge, size, up=True)
    return Budget(max_unavailable=missing if missing or added else 1, max_surge=added)


def units(value: int | str, size: int, *, up: bool) -> int:
    """Return a number of units; a share ("25%") is one of *size*, rounded *up* or down."""
    if isinstance(value, int):
        return value
    percent = int(value.removesuffix("%"))
    return -(-size * percent // 100) if up else size * percent // 100


def _first(*values: int | str | None) -> int | str | None:
    return next((value for value in values if value is not None), None)
