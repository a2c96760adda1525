"""One availability budget per clique and group: how many ready units may be taken away now.

Units are pods of a standalone clique and replicas of a group. Unavailable are the units that are wanted and do not
serve; draining, stopping and lost pods serve nobody. Who takes a ready unit (an update, the drain of a node) may do so
only while the budget has room; a unit that does not serve may be replaced at any time, since that costs nothing.
Scaling in shrinks what is wanted, so it asks no budget.
"""

from __future__ import annotations

from grove_server.lifecycle.rollout.budget import units
from grove_server.resources.manifest import PodCliqueSetSpec, UnitBudget


def max_unavailable_of(own: UnitBudget | None, spec: PodCliqueSetSpec, size: int) -> int:
    """Return how many units of a clique or group of *size* may be missing while a node is drained: at least one.

    *own* is what its template says; what it leaves out is the set's, then one.
    """
    strategy = spec.update_strategy
    common = strategy.rolling_update if strategy is not None else None
    for value in (own.max_unavailable if own else None, common.max_unavailable if common else None):
        if value is not None:
            return max(1, units(value, size, up=False))
    return 1


def room(*, desired: int, available: int, max_unavailable: int) -> int:
    """Return how many units that serve may be taken, of *available* ones when *desired* are wanted; never below 0."""
    return max(0, available - max(0, desired - max_unavailable))
