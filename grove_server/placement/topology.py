"""One topology over the nodes: an order in which every domain of every level is one contiguous slice.

Rules: level 0 is the whole cluster (one domain), levels 1..L are the topology's keys, broadest first, level L+1 is the
node itself. At every level the domains partition all nodes: nodes that lack a label on the way down form nameless
domains of their own (`is_named` False), which constrained gangs never get and unconstrained ones may use. A domain is
identified by its whole path, so equal rack names in two zones are two racks. Positions are ordered by path, then by
node name: "the first of equals" is the tie-break by name. Fan-outs are uneven, so slices are offsets.

The layout is immutable; the cluster makes a new one (milliseconds at 10,000 nodes) when nodes come or go or change the
labels of a level. Not here: what is free (`counts`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from grove_server.placement.requests import DomainPath

IntArray: TypeAlias = npt.NDArray[np.int64]
BoolArray: TypeAlias = npt.NDArray[np.bool_]

_NO_SUCH_VALUE = -2


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """One level of a layout, D domains over N positions.

    `starts` int64[D+1]: domain d covers positions starts[d]:starts[d+1]. `domain_at` int64[N]: domain of a position.
    `parents` int64[D]: domain one level up. `child_starts` int64[D+1]: domain d's children are
    child_starts[d]:child_starts[d+1] one level down (empty array for the node level). `is_named` bool[D].
    """

    key: str
    starts: IntArray
    domain_at: IntArray
    parents: IntArray
    child_starts: IntArray
    is_named: BoolArray
    is_all_named: bool
    fan_out_max: int

    @property
    def count(self) -> int:
        """Return the number of domains, nameless ones included."""
        return len(self.starts) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Nodes of a cluster in the order of one topology.

    `slots` int64[N]: the cluster's slot at each position; `positions` int64[slots]: the way back, -1 = not laid out.
    `leaf_level`: the first level whose domains are single nodes (often that of the hostname); from there on domains and
    positions are the same numbers. Per topology level: `values`, the label values by code in text order, `codes_of`,
    the way back, and `codes` int64[N] by position (-1 = missing).
    """

    keys: tuple[str, ...]
    slots: IntArray
    positions: IntArray
    levels: tuple[Level, ...]
    leaf_level: int
    values: tuple[tuple[str, ...], ...]
    codes_of: tuple[Mapping[str, int], ...]
    codes: tuple[IntArray, ...]

    @property
    def node_level(self) -> int:
        """Return the index of the narrowest level, the nodes."""
        return len(self.levels) - 1

    def level_of(self, key: str) -> int | None:
        """Return the index of the level with this label key."""
        return self.keys.index(key) + 1 if key in self.keys else None

    def span(self, level: int, domain: int) -> tuple[int, int]:
        """Return the half-open range of positions of a domain."""
        starts = self.levels[level].starts
        return int(starts[domain]), int(starts[domain + 1])

    def domains_in(self, level: int, start: int, end: int) -> tuple[int, int]:
        """Return the half-open range of a level's domains inside a range of positions made of whole domains."""
        domain_at = self.levels[level].domain_at
        return int(domain_at[start]), int(domain_at[end - 1]) + 1

    def value_of(self, level: int, domain: int) -> str:
        """Return a domain's label value; "" for the whole cluster and for nameless domains."""
        if not 1 <= level <= len(self.keys):
            return ""
        code = int(self.codes[level - 1][self.levels[level].starts[domain]])
        return self.values[level - 1][code] if code >= 0 else ""

    def path_of(self, level: int, domain: int) -> DomainPath:
        """Return a domain's path, broadest first."""
        position = int(self.levels[level].starts[domain])
        depth = min(level, len(self.keys))
        return tuple(
            (self.keys[i], self.values[i][code]) for i in range(depth) if (code := int(self.codes[i][position])) >= 0
        )

    def find(self, path: DomainPath) -> tuple[tuple[int, int], ...]:
        """Return (level, domain) of every narrowest domain that carries all labels of the path; keys must be levels.

        A full path names one domain; a bare rack name may name several, in order.
        """
        if not path:
            return ((0, 0),)
        wanted = sorted((self.keys.index(key) + 1, value) for key, value in path)
        level = wanted[-1][0]
        heads = self.levels[level].starts[:-1]
        holds = self.levels[level].is_named.copy()
        for index, value in wanted:
            holds &= self.codes[index - 1][heads] == self.codes_of[index - 1].get(value, _NO_SUCH_VALUE)
        return tuple((level, int(domain)) for domain in np.flatnonzero(holds))


class CodesOf(Mapping[str, int]):
    """Codes by value, looked up in the sorted values: a node's new label then costs no table of all the others."""

    __slots__ = ("_values",)

    def __init__(self, values: tuple[str, ...]) -> None:
        self._values = values

    def __getitem__(self, value: str) -> int:
        code = bisect_left(self._values, value)
        if code == len(self._values) or self._values[code] != value:
            raise KeyError(value)
        return code

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelColumn:
    """One label over all slots: `codes` int64[slots], -1 = missing; values in text order, so codes sort as names do."""

    codes: IntArray
    values: tuple[str, ...]
    codes_of: Mapping[str, int]


def label_column(labels: Sequence[str | None]) -> LabelColumn:
    """Return the column of one label's values by slot (None = missing or no node)."""
    values = tuple(sorted(dict.fromkeys(value for value in labels if value is not None)))
    lookup: dict[str | None, int] = dict(zip((*values, None), (*range(len(values)), -1), strict=True))
    codes = np.fromiter(map(lookup.__getitem__, labels), dtype=np.int64, count=len(labels))
    return LabelColumn(codes=codes, values=values, codes_of=CodesOf(values))


def patched_column(column: LabelColumn, slot_count: int, labels: Mapping[int, str | None]) -> LabelColumn:
    """Return a column with some slots' labels replaced; values that nobody has any more may stay in it."""
    codes = np.full(slot_count, -1, dtype=np.int64)
    codes[: len(column.codes)] = column.codes
    values, codes_of = column.values, column.codes_of
    fresh = sorted({value for value in labels.values() if value is not None and value not in codes_of})
    if fresh:
        before = np.array([bisect_left(values, value) for value in fresh], dtype=np.int64)
        codes += (codes >= 0) * np.searchsorted(before, codes, side="right")
        values = tuple(sorted((*values, *fresh)))
        codes_of = CodesOf(values)
    for slot, value in labels.items():
        codes[slot] = -1 if value is None else codes_of[value]
    return LabelColumn(codes=codes, values=values, codes_of=codes_of)


def lay_out(keys: Sequence[str], slots: IntArray, slot_count: int, columns: Sequence[LabelColumn]) -> Layout:
    """Return the layout of some slots, given in name order, with one column per key.

    Nodes without a label go to the end of their parent domain.
    """
    codes = [column.codes[slots] for column in columns]
    ranks = [np.where(each < 0, np.iinfo(np.int64).max, each) for each in codes]
    if ranks:
        order = np.lexsort(ranks[::-1])
        slots, codes, ranks = slots[order], [each[order] for each in codes], [each[order] for each in ranks]
    node_count = len(slots)
    positions = np.full(slot_count, -1, dtype=np.int64)
    positions[slots] = np.arange(node_count, dtype=np.int64)
    levels = _levels(keys, node_count, codes, ranks)
    return Layout(
        keys=tuple(keys),
        slots=slots,
        positions=positions,
        levels=levels,
        leaf_level=next(i for i, level in enumerate(levels) if level.count == node_count),
        values=tuple(column.values for column in columns),
        codes_of=tuple(column.codes_of for column in columns),
        codes=tuple(codes),
    )


def _levels(
    keys: Sequence[str], node_count: int, codes: Sequence[IntArray], ranks: Sequence[IntArray]
) -> tuple[Level, ...]:
    """Return the levels from the whole cluster to the nodes, linked to each other."""
    is_head = np.zeros(node_count, dtype=np.bool_)
    is_head[:1] = True
    is_whole = np.ones(node_count, dtype=np.bool_)
    heads = [is_head]
    named = [is_whole]
    for code, rank in zip(codes, ranks, strict=True):
        changes = heads[-1].copy()
        changes[1:] |= rank[1:] != rank[:-1]
        heads.append(changes)
        named.append(named[-1] & (code >= 0))
    heads.append(np.ones(node_count, dtype=np.bool_))
    named.append(is_whole)
    starts = [np.append(np.flatnonzero(head), node_count).astype(np.int64) for head in heads]
    domain_at = [np.cumsum(head, dtype=np.int64) - 1 for head in heads]
    levels = []
    for i, key in enumerate(("", *keys, "")):
        first = starts[i][:-1]
        parents = domain_at[i - 1][first] if i else np.zeros(len(first), dtype=np.int64)
        child_starts = np.zeros(0, dtype=np.int64)
        if i + 1 < len(starts):
            child_starts = np.append(domain_at[i + 1][first], len(starts[i + 1]) - 1)
        is_named = named[i][first]
        levels.append(
            Level(
                key=key,
                starts=starts[i],
                domain_at=domain_at[i],
                parents=parents,
                child_starts=child_starts,
                is_named=is_named,
                is_all_named=bool(is_named.all()),
                fan_out_max=int(np.diff(child_starts).max(initial=0)),
            )
        )
    return tuple(levels)
