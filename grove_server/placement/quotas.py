"""Bounds of pods among themselves: one pod in each domain of a label, or all pods in one domain of it.

Rules: a quota never asks which domain; it says how many of the pods that would fit count. For one quota (and for one
more if every node is a domain of the first) the counts are exact at every level, whatever the label has to do with the
topology: domains of the level are cut by the label into pieces, and the pieces are counted. For several they are the
least of the counts of each, which is only a bound.

Not here: who has a quota (`pod_rules`).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple

import numpy as np

from grove_server.placement.topology import BoolArray, IntArray, Layout

_CELLS_MAX: Final = 200_000
"""Up to so many pairs of domain and label value a table is faster than sorting."""


class QuotaKind(StrEnum):
    """What a quota allows."""

    ONE_EACH = "OneEach"
    """One pod in each domain; nodes without the label are not bound."""
    ONE_DOMAIN = "OneDomain"
    """All pods in one domain; nodes without the label are out."""


class Quota(NamedTuple):
    """One bound: its label, and the code of each node's domain (-1 = none), int64[positions]."""

    kind: QuotaKind
    key: str
    codes: IntArray

    @property
    def is_by_node(self) -> bool:
        """Return whether no two nodes share a domain."""
        return int(np.bincount(self.codes[self.codes >= 0]).max(initial=0)) <= 1


class Pieces(NamedTuple):
    """What a label cuts the domains of one level into: the piece of each position, domain and code of each piece."""

    at: IntArray
    domains: IntArray
    codes: IntArray


def pieces_of(layout: Layout, level: int, codes: IntArray) -> Pieces:
    """Return the pieces, ascending by domain."""
    domain_at, count = layout.levels[level].domain_at, layout.levels[level].count
    if count == len(codes):
        return Pieces(domain_at, domain_at, codes)
    width = int(codes.max(initial=-1)) + 2
    keys = domain_at * width + codes + 1
    if count * width <= _CELLS_MAX:
        is_there = np.zeros(count * width, dtype=np.bool_)
        is_there[keys] = True
        at = (is_there.cumsum() - 1)[keys]
        keys = is_there.nonzero()[0]
    else:
        keys, at = np.unique(keys, return_inverse=True)
    return Pieces(at.astype(np.int64), keys // width, keys % width - 1)


def counted(kind: QuotaKind, pieces: Pieces, fits: IntArray, domain_count: int) -> IntArray:
    """Return by domain how many pods count of those that fit each node."""
    rooms = np.bincount(pieces.at, weights=fits, minlength=len(pieces.codes)).astype(np.int64)
    if kind == QuotaKind.ONE_EACH:
        rooms = np.where(pieces.codes >= 0, np.minimum(rooms, 1), rooms)
        return np.bincount(pieces.domains, weights=rooms, minlength=domain_count).astype(np.int64)
    rooms[pieces.codes < 0] = 0
    if not domain_count:
        return rooms
    most: IntArray = np.maximum.reduceat(rooms, np.searchsorted(pieces.domains, np.arange(domain_count)))
    return most


def kept(quota: Quota, fits: IntArray, pods: int) -> IntArray:
    """Return what of some nodes' room a quota leaves for so many pods: the tightest nodes, then the tightest domain.

    `quota` has the codes of just these nodes. Less than `pods` may be left.
    """
    known = (quota.codes >= 0) & (fits > 0)
    if quota.kind == QuotaKind.ONE_EACH:
        return np.where(_first_of_each(quota.codes, fits, known), 1, np.where(quota.codes < 0, fits, 0))
    if not known.any():
        return np.zeros_like(fits)
    rooms = np.bincount(quota.codes[known], weights=fits[known]).astype(np.int64)
    holding = np.flatnonzero(rooms >= pods)
    chosen = holding[rooms[holding].argmin()] if len(holding) else rooms.argmax()
    return np.where(quota.codes == chosen, fits, 0)


def _first_of_each(codes: IntArray, fits: IntArray, known: BoolArray) -> BoolArray:
    """Return which known node of each code is the tightest, the first of equals."""
    first = np.zeros(len(codes), dtype=np.bool_)
    nodes = np.flatnonzero(known)
    # One stable sort of joined keys; nodes are ascending to begin with.
    order = nodes[np.argsort(codes[nodes] * (int(fits.max(initial=0)) + 1) + fits[nodes], kind="stable")]
    heads = np.ones(len(order), dtype=np.bool_)
    heads[1:] = codes[order][1:] != codes[order][:-1]
    first[order[heads]] = True
    return first
