"""Units of eviction: what can go by itself, and what goes along.

Rules: a surplus pod is a unit: it can go alone and its gang stays whole. The minimum of a gang is one unit: it goes as
a whole and takes the gang's surplus pods along. A scaled gang depends on the base gang of its copy, so the unit of a
base gang takes along the units of its scaled gangs. A unit may go only if all that it takes along may. Units lie in
tiers, cheapest first: pods that leave already, surplus pods by priority, then whole gangs by priority, where a base
gang counts with the highest priority it takes along. Method: Volcano's safe and whole bundles (`gangpreempt`), with
dependants added.

Not here: which units are worth evicting (`eviction`), who may ask for it (`preemption`, `reclaim`).
"""

from __future__ import annotations

from typing import Final

import numpy as np

from grove_server.placement.occupancy import PRIORITY_MIN, Occupancy
from grove_server.placement.topology import BoolArray, IntArray

WHOLE_TIER: Final = 1 << 33
"""Tiers of whole gangs start here; below it are those of surplus pods."""

LEAVING_TIER: Final = -1
"""The tier of pods that leave whatever is decided: they cost nothing."""


class Units:
    """The units that may go for one question.

    Units are numbers: a gang's row for its minimum, `gang_count` + pod row for a surplus pod. By unit: `is_evictable`,
    `tier`, `taker` (the unit that takes it along, -1 = none). `pods` are the rows of all pods that may go, `unit_of`
    their units.
    """

    def __init__(self, occupancy: Occupancy, may_go: BoolArray, tied: BoolArray) -> None:
        """`may_go` by gang row; `tied` by pod row: surplus pods that may only go together with their gang."""
        self.occupancy = occupancy
        self.gang_count = len(occupancy.priority)
        self.count = self.gang_count + len(occupancy.pod_gang)
        base, pods = occupancy.base, np.flatnonzero(occupancy.pod_gang >= 0)
        gangs = occupancy.pod_gang[pods]
        has_pods = np.zeros(self.gang_count, dtype=np.bool_)
        has_pods[gangs] = True
        dependents = np.flatnonzero(has_pods & (base >= 0))
        highest = occupancy.priority.copy()
        np.maximum.at(highest, base[dependents], occupancy.priority[dependents])
        may_break = may_go & has_pods
        may_break[base[dependents[~may_go[dependents]]]] = False
        alone = occupancy.is_surplus[pods] & ~tied[pods]
        stays = np.where(alone, ~may_go[gangs], ~may_break[gangs])
        self.pods, alone, gangs = pods[~stays], alone[~stays], gangs[~stays]
        self.unit_of: IntArray = np.where(alone, self.gang_count + self.pods, gangs)
        self.is_evictable: BoolArray = np.zeros(self.count, dtype=np.bool_)
        self.is_evictable[self.unit_of] = True
        self.tier: IntArray = np.zeros(self.count, dtype=np.int64)
        self.tier[: self.gang_count] = WHOLE_TIER + highest - PRIORITY_MIN
        lone = self.pods[alone]
        mine = occupancy.pod_gang[lone]
        self.tier[self.gang_count + lone] = np.where(
            occupancy.is_leaving[mine], LEAVING_TIER, occupancy.priority[mine] - PRIORITY_MIN
        )
        self.taker: IntArray = np.full(self.count, -1, dtype=np.int64)
        self.taker[dependents] = base[dependents]
        self.taker[self.gang_count + lone] = occupancy.pod_gang[lone]

    def none(self) -> BoolArray:
        """Return the set without units; sets of units are bool by unit."""
        return np.zeros(self.count, dtype=np.bool_)

    def with_taken(self, units: BoolArray) -> BoolArray:
        """Return a set with all that its units take along."""
        result = units.copy()
        taken = np.flatnonzero(self.taker >= 0)
        for rows in (taken[taken < self.gang_count], taken[taken >= self.gang_count]):  # Scaled gangs, then surplus.
            result[rows] |= result[self.taker[rows]]
        return result

    def without_takers(self, allowed: BoolArray) -> BoolArray:
        """Return a set without the units that would take along one which is not in it."""
        result = allowed & self.is_evictable
        for first, end in ((self.gang_count, self.count), (0, self.gang_count)):  # Surplus, then scaled gangs.
            stays = self.is_evictable[first:end] & ~result[first:end] & (self.taker[first:end] >= 0)
            result[self.taker[first:end][stays]] = False
        return result

    def dearest_first(self, units: IntArray) -> IntArray:
        """Return units in the order in which they deserve to stay.

        By tier, takers before the taken, the longest running first, low indices of surplus before high ones, by name.
        """
        if len(units) <= 1:
            return units
        occupancy = self.occupancy
        is_lone = units >= self.gang_count
        pods = np.where(is_lone, units - self.gang_count, 0)
        gangs = np.where(is_lone, occupancy.pod_gang[pods] if len(occupancy.pod_gang) else 0, units)
        keys = (occupancy.started_at_s[gangs], self.taker[units] >= 0, -self.tier[units])
        order = np.lexsort(keys)
        units = units[order]
        heads = np.zeros(len(units), dtype=np.bool_)
        heads[:1] = True
        for key in keys:
            heads[1:] |= key[order][1:] != key[order][:-1]
        starts = np.flatnonzero(heads)
        for start, end in zip(starts.tolist(), [*starts[1:].tolist(), len(units)], strict=True):
            if end - start > 1:
                units[start:end] = sorted(units[start:end].tolist(), key=self._name)
        return units

    def gang_of(self, unit: int) -> int:
        """Return the gang row of a unit."""
        return unit if unit < self.gang_count else int(self.occupancy.pod_gang[unit - self.gang_count])

    def _name(self, unit: int) -> tuple[int, str]:
        if unit < self.gang_count:
            return 0, self.occupancy.gang(unit).name
        seat = self.occupancy.seat(unit - self.gang_count)
        return seat.index, seat.pod
