"""What has to come free of queues' limits so that a gang may run: a second reason, beside places, for others to leave.

Rules: a gang exceeds the limit of a queue, its own or one above, in a resource by so much. Whatever leaves any queue
within that one lowers it. A plan has to cover every excess; who goes for the places counts first, and what is missing
then is made up of the cheapest others, none of whom could stay. What pods that leave hold counts where a plan may use
their places; what else leaves may come back, as in an update.

Not here: who may go for whom (`preemption`, `reclaim`), places (`eviction`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from grove_server.placement.occupancy import Occupancy
from grove_server.placement.queues import QueueTree
from grove_server.placement.requests import GPU_RESOURCE
from grove_server.placement.topology import BoolArray, IntArray
from grove_server.placement.units import Units
from grove_server.resources.gpu_annotations import GPU_MILLI


class Excess(NamedTuple):
    """By limit that is exceeded: `within` (the names of the queues that it binds), the resource, and by how much.

    Amounts are in the units of the tree.
    """

    limits: tuple[tuple[frozenset[str], str, int], ...]


def excess_of(
    tree: QueueTree, queue: str, asked: Mapping[str, int], used: Mapping[str, Mapping[str, int]]
) -> Excess | None:
    """Return by how much the limits above a queue are exceeded if it gets what is asked; None if none is."""
    if queue not in tree.numbers:
        return None
    found = [
        (tree.below(refusal.queue), refusal.resource, refusal.would_use - refusal.limit)
        for refusal in tree.admits(queue, asked, used)
    ]
    return Excess(tuple(found)) if found else None


class Freeing:
    """The units of one question against one excess: `gives` int64[limit, unit] is what each lowers."""

    def __init__(self, units: Units, excess: Excess) -> None:
        self.units = units
        occupancy, count = units.occupancy, len(excess.limits)
        self.wanted: IntArray = np.array([amount for _, _, amount in excess.limits], dtype=np.int64)
        self.gives: IntArray = np.zeros((count, units.count), dtype=np.int64)
        queues = occupancy.queue[occupancy.pod_gang[units.pods]]
        for row, (within, resource, _) in enumerate(excess.limits):
            is_inside = np.array([name in within for name in occupancy.queues], dtype=np.bool_)
            np.add.at(self.gives[row], units.unit_of, held_of(occupancy, resource)[units.pods] * is_inside[queues])

    def covers(self, going: BoolArray) -> bool:
        """Return whether enough comes free with some units."""
        return bool((self.gives @ going.astype(np.int64) >= self.wanted).all())

    def completed(self, going: BoolArray, allowed: BoolArray) -> BoolArray:
        """Return units with as many of the allowed ones added as cover the excess, the cheapest first.

        Those added are closed under what they take along, and none of them could stay. Unchanged if not all allowed
        ones would do.
        """
        units = self.units
        if self.covers(going) or not self.covers(allowed):
            return going
        lacking = self.gives @ going.astype(np.int64) < self.wanted
        useful = allowed & units.is_evictable & ~going & (self.gives[lacking] > 0).any(axis=0)
        order = units.dearest_first(np.flatnonzero(useful))[::-1]
        sums = (self.gives @ going.astype(np.int64))[:, None] + np.cumsum(self.gives[:, order], axis=1)
        enough = np.flatnonzero((sums >= self.wanted[:, None]).all(axis=0))
        added = order[: int(enough[0]) + 1 if len(enough) else len(order)].tolist()
        for unit in reversed(added.copy()):
            fewer = [each for each in added if each != unit]
            if self.covers(self._with(going, fewer)):
                added = fewer
        return self._with(going, added)

    def _with(self, going: BoolArray, added: list[int]) -> BoolArray:
        result = going.copy()
        result[added] = True
        return self.units.with_taken(result)


def held_of(occupancy: Occupancy, resource: str) -> IntArray:
    """Return int64[pod row]: what each pod holds of a resource, in the units of queues."""
    row = occupancy.resources.get(resource)
    if resource == GPU_RESOURCE:
        gpus: IntArray = occupancy.amounts[occupancy.resources[resource]] * GPU_MILLI + occupancy.milli
        return gpus
    return np.zeros(occupancy.amounts.shape[1], dtype=np.int64) if row is None else occupancy.amounts[row]
