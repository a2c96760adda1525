"""Which domain to take, and which nodes inside it, for pods of one shape.

Rules, in this order, all of them tested: a domain that needs the fewest child domains; then the tightest (least room
left over); then the one whose parent is tightest; then the first by path and name. Inside a domain: a child that holds
all the pods is taken, the tightest first; otherwise the largest children are used up (provably the fewest) and the
remainder goes to the tightest child that holds it. Positions come out ascending, so consecutive ranks share domains.
Method: Kueue's TAS walk with least-free-capacity, over sums that are kept instead of built; one level of look-ahead
(children needed) buys most of the locality that an exact solver finds.

Where the cluster packs for a mix (`stranding`), few pods that one node holds go where they strand the least instead.

Not here: several shapes at once and backtracking (`search`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from grove_server.placement.counts import RequestClass, Tree
from grove_server.placement.topology import IntArray, Layout

_EXACT_MAX: Final = 32
"""Domains whose needed children are counted exactly; the others are ordered by a lower bound."""

_LOOK_FROM: Final = 8
_LOOK_UP_TO: Final = 256
"""Pods for which domains are compared by the nodes they take: below it hardly matters, above it costs too much."""

_LOOK_AT_MAX: Final = 6
"""Domains compared in that way."""


class Region(NamedTuple):
    """One domain of a layout: (0, 0) is the whole cluster."""

    level: int
    domain: int


class Runs(NamedTuple):
    """Pods by node: positions int64, ascending and each once, and how many pods each gets."""

    positions: IntArray
    counts: IntArray


def ranked(layout: Layout, tree: Tree, level: int, span: tuple[int, int], pod_count: int) -> IntArray:
    """Return the named domains of a level within [first, last) that fit the pods, best first."""
    fitting = _fitting(layout, tree, level, span, pod_count)
    if len(fitting) <= 1:
        return fitting
    room = tree[level][fitting]
    need = children_needed(layout, tree, level, fitting, pod_count)
    return fitting[np.lexsort((_room_around(layout, tree, level, fitting), room, need))]


def best(layout: Layout, tree: Tree, level: int, span: tuple[int, int], pod_count: int) -> int | None:
    """Return the first of `ranked` without ranking them all; None if no domain fits."""
    left = _fitting(layout, tree, level, span, pod_count)
    if len(left) == 0:
        return None
    if len(left) > 1 and level < layout.leaf_level:
        need = children_needed(layout, tree, level, left, pod_count)
        left = left[need == need.min()]
    if len(left) > 1 and level < layout.leaf_level - 1 and _LOOK_FROM <= pod_count <= _LOOK_UP_TO:
        left = _with_fewest_nodes(layout, tree, level, left, pod_count)
    if len(left) > 1:
        room = tree[level][left]
        left = left[room == room.min()]
    if len(left) > 1:
        return int(left[_room_around(layout, tree, level, left).argmin()])
    return int(left[0])


def _with_fewest_nodes(layout: Layout, tree: Tree, level: int, domains: IntArray, pod_count: int) -> IntArray:
    """Return those of the tightest few domains in which the pods would lie on the fewest nodes."""
    tightest = domains[tree[level][domains].argsort(kind="stable")][:_LOOK_AT_MAX]
    nodes = np.array([len(_descend(layout, tree, Region(level, each), pod_count).counts) for each in tightest.tolist()])
    return np.sort(tightest[nodes == nodes.min()])


def _room_around(layout: Layout, tree: Tree, level: int, domains: IntArray) -> IntArray:
    """Return the room of each domain's parent; a node's parent is the first that has several nodes."""
    level = min(level, layout.leaf_level)
    return tree[level - 1][layout.levels[level].parents[domains]] if level else tree[level][domains]


def _fitting(layout: Layout, tree: Tree, level: int, span: tuple[int, int], pod_count: int) -> IntArray:
    first, last = span
    fits = tree[level][first:last] >= pod_count
    here = layout.levels[level]
    if not here.is_all_named:
        fits &= here.is_named[first:last]
    return fits.nonzero()[0] + first


def children_needed(layout: Layout, tree: Tree, level: int, domains: IntArray, pod_count: int) -> IntArray:
    """Return for domains (ascending) that fit the pods how many of their children these need.

    Past the first few in order of a lower bound and of room it is only that bound.
    """
    if level >= layout.leaf_level:
        return np.ones(len(domains), dtype=np.int64)
    here = layout.levels[level]
    children = tree[level + 1]
    starts, ends = here.child_starts[domains], here.child_starts[domains + 1]
    bounds = np.empty(2 * len(domains), dtype=np.int64)
    bounds[0::2], bounds[1::2] = starts, ends
    if bounds[-1] == len(children):  # The last slice may be open; an index past the end is not allowed.
        bounds = bounds[:-1]
    largest = np.maximum.reduceat(children, bounds)[0::2]
    need = -(-pod_count // np.maximum(largest, 1))
    lowest = int(need.min())
    if lowest == 1:
        return need
    if len(domains) > _EXACT_MAX:
        chosen = np.lexsort((tree[level][domains], need))[:_EXACT_MAX]
    else:
        chosen = np.arange(len(domains))
    need[chosen] = _exact_need(children, starts[chosen], ends[chosen], pod_count)
    return need


def _exact_need(children: IntArray, starts: IntArray, ends: IntArray, pod_count: int) -> IntArray:
    """Return how many of the largest children of each domain hold the pods."""
    columns = starts[:, None] + np.arange(int((ends - starts).max()))
    room = np.where(columns < ends[:, None], children[np.minimum(columns, len(children) - 1)], 0)
    room.sort(axis=1)
    need: IntArray = (room[:, ::-1].cumsum(axis=1) < pod_count).sum(axis=1) + 1
    return need


def fill(request_class: RequestClass, region: Region, pod_count: int) -> Runs:
    """Return the nodes for pods that fit the region, first-choice nodes before others."""
    layout, choices = request_class.layout, request_class.choices
    if request_class.stranding is not None and region.level < layout.leaf_level and pod_count:
        tree = choices[0] if choices else request_class.everywhere
        node = least_stranding(request_class, tree, layout.span(*region), pod_count)
        if node is not None:
            return Runs(np.array([node]), np.array([pod_count]))
    return fill_tiers(layout, (*choices, request_class.everywhere), region, pod_count)


def fill_tiers(layout: Layout, trees: Sequence[Tree], region: Region, pod_count: int) -> Runs:
    """Return the nodes for pods that fit a region by the last of some trees, each of which has what the one before has.

    The first tree that holds all the pods is the one to use, and what the one before it has is used up first.
    """
    start, end = layout.span(*region)
    used: Tree | None = None
    for tree in trees:
        room = int(tree[region.level][region.domain])
        if room >= pod_count:
            if used is None:
                return _runs([_descend(layout, tree, region, pod_count)])
            rest = pod_count - int(used[region.level][region.domain])
            return _runs([_whole(used, start, end), _flat(tree[-1][start:end] - used[-1][start:end], start, rest)])
        used = tree if room else used
    raise AssertionError("the pods do not fit")


def least_stranding(request_class: RequestClass, tree: Tree, span: tuple[int, int], pod_count: int) -> int | None:
    """Return the position within [start, end) where few pods strand the least GPU; None if no one node holds them.

    None too if the cluster does not pack for a mix, or the pods are too many for it.
    """
    stranding = request_class.stranding
    if stranding is None or pod_count > stranding.mix.pods_max:
        return None
    start, end = span
    slots = request_class.layout.slots[start:end]
    index = stranding.best(request_class.shape, slots, tree[-1][start:end], pod_count)
    return None if index is None else start + index


def fill_tightest(request_class: RequestClass, region: Region, pod_count: int) -> Runs:
    """Return the nodes with the other host policy: the fullest nodes first, whole large ones are spared."""
    start, end = request_class.layout.span(*region)
    room = request_class.everywhere[-1][start:end]
    used = room.nonzero()[0]
    order = used[np.argsort(room[used], kind="stable")]
    sums = room[order].cumsum()
    cut = int(np.searchsorted(sums, pod_count))
    positions, counts = order[: cut + 1] + start, room[order[: cut + 1]].copy()
    counts[-1] -= int(sums[cut]) - pod_count
    return _runs([Runs(positions, counts)])


def _descend(layout: Layout, tree: Tree, region: Region, pod_count: int) -> Runs:
    """Walk down from a domain that fits the pods to nodes, and use as few of these as the racks reached allow."""
    level, domain = region
    parts: list[Runs] = []
    while level < layout.leaf_level and pod_count:
        if int(tree[level][domain]) == pod_count:
            parts.append(_whole(tree, *layout.span(level, domain)))
            pod_count = 0
            break
        here = layout.levels[level]
        first, last = int(here.child_starts[domain]), int(here.child_starts[domain + 1])
        room = tree[level + 1][first:last]
        level += 1
        fits = (room >= pod_count).nonzero()[0]
        if len(fits):
            domain = first + _tightest_child(layout, tree, Region(level, first), fits, pod_count)
            continue
        whole, rest, left = _split(room, pod_count)
        if level == layout.leaf_level:
            parts.append(Runs(whole + first, room[whole]))
        elif level == layout.leaf_level - 1 and _LOOK_FROM <= pod_count <= _LOOK_UP_TO:
            parts.append(_over_racks(layout, tree, first, (whole, room), pod_count))
            pod_count = 0
            break
        else:
            parts.extend(_whole(tree, *layout.span(level, first + child)) for child in whole.tolist())
        domain, pod_count = first + rest, left
    if pod_count:
        parts.append(Runs(np.array([domain]), np.array([pod_count])))
    joined = _joined(parts)
    if len(parts) <= 1 or layout.leaf_level <= 1:
        return joined
    racks = np.unique(layout.levels[layout.leaf_level - 1].domain_at[joined.positions])
    return _on_fewest_nodes(layout, tree, racks, int(joined.counts.sum())) if len(racks) > 1 else joined


def _over_racks(layout: Layout, tree: Tree, first: int, racks: tuple[IntArray, IntArray], pod_count: int) -> Runs:
    """Return the pods over some racks (counted from `first`) that are used and one more.

    `racks` are those in use and the room of all; the one more is, of the tightest few that have the room, the one with
    which the pods lie on the fewest nodes.
    """
    used, room = racks
    rest = pod_count - int(room[used].sum())
    others = (room >= rest).nonzero()[0]
    others = others[~np.isin(others, used)]
    options = [
        _on_fewest_nodes(layout, tree, np.append(used, other) + first, pod_count)
        for other in others[room[others].argsort(kind="stable")][:_LOOK_AT_MAX].tolist()
    ]
    return min(options, key=lambda runs: len(runs.counts))


def _on_fewest_nodes(layout: Layout, tree: Tree, racks: IntArray, pod_count: int) -> Runs:
    """Return the pods on as few nodes of some racks as hold them.

    Using racks up one by one would also use their nearly full nodes; with the racks given, the emptiest nodes of all of
    them together are the fewest.
    """
    level = layout.levels[layout.leaf_level - 1]
    starts, sizes = level.starts[racks], level.starts[racks + 1] - level.starts[racks]
    offsets = sizes.cumsum() - sizes
    positions = np.repeat(starts - offsets, sizes) + np.arange(int(sizes.sum()))
    room = tree[-1][positions]
    whole, rest, pods = _split(room, pod_count)
    return Runs(np.append(positions[whole], positions[rest]), np.append(room[whole], pods))


def _tightest_child(layout: Layout, tree: Tree, first: Region, fits: IntArray, pod_count: int) -> int:
    """Return which of the children (counted from `first`) that hold all pods to take."""
    level, domain = first
    if len(fits) > 1 and level < layout.leaf_level:
        need = children_needed(layout, tree, level, fits + domain, pod_count)
        fits = fits[need == need.min()]
    return int(fits[tree[level][fits + domain].argmin()])


def _split(room: IntArray, pod_count: int) -> tuple[IntArray, int, int]:
    """Return (children used up, the child for the remainder, the remainder) for pods that fit the children."""
    fits = (room >= pod_count).nonzero()[0]
    if len(fits):
        return np.zeros(0, dtype=np.int64), int(fits[room[fits].argmin()]), pod_count
    order = np.argsort(-room.astype(np.int16), kind="stable")  # Each is below PODS_MAX here; 16 bits sort in one pass.
    sums = room[order].cumsum()
    cut = int(np.searchsorted(sums, pod_count))
    rest = pod_count - int(sums[cut - 1])
    left = order[cut:]
    left = left[room[left] >= rest]
    lowest = room[left]
    return order[:cut], int(left[lowest.argmin()]), rest


def _flat(room: IntArray, start: int, pod_count: int) -> Runs:
    """Return nodes of one slice by the same rule, whatever the levels between."""
    whole, rest, count = _split(room, pod_count)
    return Runs(np.append(whole, rest) + start, np.append(room[whole], count))


def _whole(tree: Tree, start: int, end: int) -> Runs:
    """Return all nodes of a slice with all they fit."""
    room = tree[-1][start:end]
    used = room.nonzero()[0]
    return Runs(used + start, room[used])


def _joined(parts: list[Runs]) -> Runs:
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return Runs(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))
    return Runs(np.concatenate([part.positions for part in parts]), np.concatenate([part.counts for part in parts]))


def _runs(parts: list[Runs]) -> Runs:
    """Return runs in the order of positions."""
    joined = _joined(parts)
    if len(joined.positions) <= 1:
        return joined
    order = joined.positions.argsort()
    return Runs(joined.positions[order], joined.counts[order])
