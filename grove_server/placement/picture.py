"""What a picture of a cluster shows: one cell per node, in the order of the topology, with how much of it is used.

Rules: the measure is GPUs; in a cluster without any it is cpu. Cells stand together by domain of the narrowest level
above single nodes, those under headings of the levels above. With more nodes than `cells_max` a cell is a whole domain,
so a picture has a bound whatever the cluster has. All drawings are made of the same map.

Not here: the drawings (`picture_text`, `picture_svg`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np

from grove_server.placement.cluster import Cluster
from grove_server.placement.fragmentation import domain_name, gpu_milli_of
from grove_server.placement.requests import GPU_RESOURCE
from grove_server.placement.results import short_level
from grove_server.placement.topology import IntArray, Layout

CELLS_MAX: Final = 20_000
"""Most cells of a picture."""

_CPU: Final = "cpu"
_MILLI: Final = 1_000


class CellState(StrEnum):
    """What a cell is, as people have to tell them apart at once."""

    NONE = "none"
    EMPTY = "empty"
    PARTLY = "partly"
    FULL = "full"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One node (or domain) with what it has of the measure and what of it is held, in thousandths.

    `closed_count` of its `node_count` nodes are cordoned or not ready.
    """

    name: str
    node_count: int
    closed_count: int
    has_milli: int
    used_milli: int

    @property
    def state(self) -> CellState:
        """Return what the cell is; closed only if all of it is."""
        if self.closed_count == self.node_count:
            return CellState.CLOSED
        if not self.has_milli:
            return CellState.NONE
        if self.used_milli <= 0:
            return CellState.EMPTY
        return CellState.FULL if self.used_milli >= self.has_milli else CellState.PARTLY


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Cells that share a domain; `path` has the label values of the levels, broadest first, "" where one is missing."""

    path: tuple[str, ...]
    cells: tuple[Cell, ...]

    @property
    def name(self) -> str:
        """Return the domain's own value."""
        return self.path[-1] if self.path else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterMap:
    """What there is to draw. `levels` are the label keys of the blocks' paths; `cell_level` is "" for single nodes."""

    levels: tuple[str, ...]
    cell_level: str
    measure: str
    blocks: tuple[Block, ...]

    @property
    def node_count(self) -> int:
        """Return the number of nodes."""
        return sum(cell.node_count for block in self.blocks for cell in block.cells)

    def sentence(self) -> str:
        """Return what the picture shows, in one sentence."""
        cells = [cell for block in self.blocks for cell in block.cells]
        used, total = sum(cell.used_milli for cell in cells), sum(cell.has_milli for cell in cells)
        counts = {state: sum(cell.state is state for cell in cells) for state in CellState}
        parts = ", ".join(
            f"{counts[state]} {word}"
            for state, word in (
                (CellState.EMPTY, "empty"),
                (CellState.PARTLY, "partly used"),
                (CellState.FULL, "full"),
                (CellState.CLOSED, "closed"),
                (CellState.NONE, f"without {self.unit}"),
            )
            if counts[state]
        )
        what = "nodes" if not self.cell_level else f"cells (one per {short_level(self.cell_level)})"
        return f"{used / _MILLI:g} of {total / _MILLI:g} {self.unit} used; {len(cells)} {what}: {parts or 'none'}"

    @property
    def unit(self) -> str:
        """Return the measure in people's words."""
        return "GPUs" if self.measure == GPU_RESOURCE else "cores"


def map_of(cluster: Cluster, topology: tuple[str, ...], *, cells_max: int = CELLS_MAX) -> ClusterMap:
    """Return the map of a cluster: O(nodes). ValueError if `cells_max` is not between 1 and CELLS_MAX."""
    if not 1 <= cells_max <= CELLS_MAX:
        raise ValueError(f"a picture has 1 to {CELLS_MAX} cells, not {cells_max}")
    layout = cluster.layout(topology)
    cell_level = layout.leaf_level
    while cell_level and layout.levels[cell_level].count > cells_max:
        cell_level -= 1
    measure, has, used = _amounts(cluster, layout)
    return ClusterMap(
        levels=layout.keys[: max(0, cell_level - 1)],
        cell_level="" if cell_level == layout.leaf_level else layout.levels[cell_level].key,
        measure=measure,
        blocks=tuple(_blocks(cluster, layout, cell_level, has, used)),
    )


def _amounts(cluster: Cluster, layout: Layout) -> tuple[str, IntArray, IntArray]:
    """Return (resource, what nodes have of it, what is held of it) by position, in thousandths."""
    usable, idle = gpu_milli_of(cluster, layout)
    ledger = cluster.ledger
    row = ledger.rows.get(_CPU)
    if usable.any() or row is None:
        return GPU_RESOURCE, usable, usable - idle
    allocatable = ledger.allocatable[row][layout.slots]
    return _CPU, allocatable, allocatable - ledger.free[row][layout.slots]


def _blocks(cluster: Cluster, layout: Layout, cell_level: int, has: IntArray, used: IntArray) -> Iterator[Block]:
    if not len(layout.slots):
        return
    states = [cluster.rules.states[slot] for slot in layout.slots.tolist()]
    closed = np.array([each is None or each.unschedulable or not each.ready for each in states], dtype=np.int64)
    starts = layout.levels[cell_level].starts
    heads = starts[:-1]
    columns = zip(
        np.diff(starts).tolist(),
        *(np.add.reduceat(amounts, heads).tolist() for amounts in (closed, has, used)),
        strict=True,
    )
    cells = [
        Cell(
            name=domain_name(cluster, layout, cell_level, domain),
            node_count=nodes,
            closed_count=shut,
            has_milli=amount,
            used_milli=held,
        )
        for domain, (nodes, shut, amount, held) in enumerate(columns)
    ]
    level = max(0, cell_level - 1)
    bounds = np.searchsorted(heads, layout.levels[level].starts).tolist() if cell_level else [0, len(cells)]
    for domain, (start, end) in enumerate(itertools.pairwise(bounds)):
        path = tuple(
            layout.value_of(each, int(layout.levels[each].domain_at[layout.levels[level].starts[domain]]))
            for each in range(1, level + 1)
        )
        yield Block(path=path, cells=tuple(cells[start:end]))


def heading_of(cluster_map: ClusterMap, path: tuple[str, ...]) -> str:
    """Return the levels above a block in words: "zone z0 / block b1"."""
    levels = cluster_map.levels[: len(path)]
    return " / ".join(f"{short_level(key)} {named(value)}" for key, value in zip(levels, path, strict=True))


def named(value: str) -> str:
    """Return the name of a domain, or that it has none."""
    return value or "(no label)"
