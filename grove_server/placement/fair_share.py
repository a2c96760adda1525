"""How much of a cluster is fair for each queue right now: water-filling over the tree of queues.

Rules: what a queue gets is divided among those below it. Each gets its guarantee first, as far as it wants it, and what
is guaranteed below it where that is more; nobody wants more than limits allow it or those below it. What is left is
poured over those that want more, by weight, until their wish or limit is reached. So what one does not use
others may borrow, and nobody gets more than it wants. Per level all queues and resources are done in vector steps:
O(queues log queues) per level. Method: weighted max-min fairness, with the water level found by sorting
(Ghodsi et al., NSDI 2011, for dominant shares; progressive filling in Bertsekas and Gallager).

Not here: what to do about it (`turns`, `reclaim`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from grove_server.placement.queues import UNLIMITED, QueueTree, scale_of
from grove_server.placement.topology import IntArray

FloatArray = npt.NDArray[np.float64]

_NOISE: Final = 1e-9
"""Weights below it are what is left of subtractions."""


def fair_shares(
    tree: QueueTree, capacity: Mapping[str, int], wanted: Mapping[str, Mapping[str, int]]
) -> dict[str, dict[str, float]]:
    """Return by queue and resource of `capacity` what is fair.

    `wanted`: what the gangs of each queue hold and wait for, without those of queues below it.
    """
    resources = {name: row for row, name in enumerate(sorted(capacity))}
    wishes = tree.own_amounts(wanted, resources)
    shares: FloatArray = np.zeros((len(resources), len(tree.specs)), dtype=np.float64)
    for resource, row in resources.items():
        own = tree.resources.get(resource)
        limit = np.full_like(wishes[row], UNLIMITED) if own is None else tree.limit[own]
        guarantee = np.zeros_like(wishes[row]) if own is None else tree.guarantee[own]
        floors, caps = _bounds(tree, wishes[row], guarantee, limit)
        scale = scale_of(resource)
        shares[row] = _poured(tree, capacity[resource] * scale, floors, caps) / scale
    return {
        spec.name: {resource: float(shares[row, number]) for resource, row in resources.items()}
        for number, spec in enumerate(tree.specs)
    }


def _bounds(tree: QueueTree, wishes: IntArray, guarantee: IntArray, limit: IntArray) -> tuple[IntArray, IntArray]:
    """Return by queue what of one resource it gets first, and the most that it and those below it can use."""
    floors, caps = np.zeros_like(wishes), wishes.copy()
    for level in reversed(tree.levels):
        numbers = np.array(level, dtype=np.int64)
        caps[numbers] = np.minimum(caps[numbers], limit[numbers])
        floors[numbers] = np.minimum(np.maximum(floors[numbers], guarantee[numbers]), caps[numbers])
        parents = tree.parents[numbers]
        np.add.at(caps, parents[parents >= 0], caps[numbers[parents >= 0]])
        np.add.at(floors, parents[parents >= 0], floors[numbers[parents >= 0]])
    return floors, caps


def _poured(tree: QueueTree, amount: int, floors: IntArray, caps: IntArray) -> FloatArray:
    """Return what each queue gets of one resource, level by level."""
    shares: FloatArray = np.zeros(len(floors), dtype=np.float64)
    for level in tree.levels:
        numbers = np.array(level, dtype=np.int64)
        owners, groups = np.unique(tree.parents[numbers], return_inverse=True)
        pots = np.where(owners < 0, float(amount), shares[np.maximum(owners, 0)])
        shares[numbers] = _divided(pots, groups, floors[numbers], caps[numbers], tree.weights[numbers])
    return shares


def _divided(pots: FloatArray, groups: IntArray, floors: IntArray, caps: IntArray, weights: FloatArray) -> FloatArray:
    """Return what each of some queues gets of its group's pot: floors first (cut alike if they are too much)."""
    base = floors.astype(np.float64)
    promised = np.bincount(groups, weights=base, minlength=len(pots))
    cut = np.minimum(1.0, np.divide(pots, promised, out=np.ones_like(pots), where=promised > 0))
    base *= cut[groups]
    left = np.maximum(pots - np.bincount(groups, weights=base, minlength=len(pots)), 0.0)
    room = np.where(weights > 0, caps - base, 0.0)
    return base + _water(left, groups, np.maximum(room, 0.0), weights)


def _water(left: FloatArray, groups: IntArray, room: FloatArray, weights: FloatArray) -> FloatArray:
    """Return how much of each group's `left` flows to its members: level x weight, at most their room.

    In the order in which members are full (room / weight) the level at which one is full is known from those before
    it; the group's level is where the next one would not be full any more.
    """
    full_at = np.divide(room, weights, out=np.zeros_like(room), where=weights > 0)
    order = np.lexsort((full_at, groups))
    group, room_in_order, weight_in_order = groups[order], room[order], weights[order]
    starts = np.searchsorted(group, np.arange(len(left)))
    room_before = _before(room_in_order, group, starts)
    weight_after = np.bincount(groups, weights=weights, minlength=len(left))[group] - _before(
        weight_in_order, group, starts
    )
    levels = np.divide(
        left[group] - room_before, weight_after, out=np.full_like(room, np.inf), where=weight_after > _NOISE
    )
    is_open = levels <= full_at[order]
    # From the first open member on all are open, and what they would make the level only sinks.
    level = np.full(len(left), -np.inf)
    np.maximum.at(level, group[is_open], levels[is_open])
    level[level == -np.inf] = np.inf
    flow: FloatArray = np.minimum(np.maximum(level, 0.0)[groups] * np.maximum(weights, 1e-300), room)
    return np.where(weights > 0, flow, 0.0)


def _before(values: FloatArray, group: IntArray, starts: IntArray) -> FloatArray:
    """Return by member the sum over the members of its group that come before it."""
    sums = np.concatenate([[0.0], np.cumsum(values)[:-1]]) if len(values) else values
    result: FloatArray = sums - sums[starts[group]] if len(values) else values
    return result
