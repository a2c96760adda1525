"""The picture of a cluster as text: one character per cell, for terminals and logs.

Rules: the drawing says with shapes what it says with colours, and colours are only used where they are asked for. Lines
are as long as the width allows; blocks stand beside each other as long as they share their heading.

Not here: what is drawn (`picture`), whether the place where it is shown has colours.
"""

from __future__ import annotations

from typing import Final

from grove_server.placement.picture import Cell, CellState, ClusterMap, heading_of, named
from grove_server.placement.results import short_level

WIDTH_MIN: Final = 40
WIDTH_MAX: Final = 1_000

_STEPS: Final = "▁▂▃▄▅▆▇"
_MARKS: Final = {CellState.NONE: "·", CellState.EMPTY: "░", CellState.FULL: "█", CellState.CLOSED: "x"}
_COLOURS: Final = {CellState.EMPTY: "32", CellState.PARTLY: "33", CellState.FULL: "34", CellState.CLOSED: "31"}


def text_of(cluster_map: ClusterMap, *, width: int = 100, has_colours: bool = False) -> str:
    """Return the picture as lines of text with a legend; `width` in characters, kept within WIDTH_MIN and WIDTH_MAX."""
    width = min(max(width, WIDTH_MIN), WIDTH_MAX)
    lines: list[str] = []
    heading: tuple[str, ...] | None = None
    row: list[str] = []
    row_width = 0
    name_width = max((len(named(block.name)) for block in cluster_map.blocks), default=0)
    for block in cluster_map.blocks:
        if block.path[:-1] != heading:
            _flush(lines, row)
            row_width, heading = 0, block.path[:-1]
            if heading:
                lines.append(heading_of(cluster_map, heading))
        label = named(block.name).ljust(name_width) + " " if block.path else ""
        indent = "  " if heading else ""
        room = max(1, width - len(label) - len(indent))
        for at in range(0, len(block.cells), room):
            cells = block.cells[at : at + room]
            piece_width = len(label) + len(cells) + 2
            if row and row_width + piece_width > width:
                _flush(lines, row)
                row_width = 0
            drawn = "".join(_mark(cell, has_colours=has_colours) for cell in cells)
            row.append((indent if not row else "") + (label if not at else " " * len(label)) + drawn)
            row_width += piece_width + (len(indent) if len(row) == 1 else 0)
            if len(block.cells) > room:
                _flush(lines, row)
                row_width = 0
    _flush(lines, row)
    return "\n".join([*lines, "", cluster_map.sentence(), _legend(cluster_map)])


def _flush(lines: list[str], row: list[str]) -> None:
    if row:
        lines.append("  ".join(row))
        row.clear()


def _mark(cell: Cell, *, has_colours: bool) -> str:
    mark = _MARKS.get(cell.state)
    if mark is None:
        mark = _STEPS[min(len(_STEPS) - 1, cell.used_milli * len(_STEPS) // cell.has_milli)]
    colour = _COLOURS.get(cell.state) if has_colours else None
    return f"\x1b[{colour}m{mark}\x1b[0m" if colour else mark


def _legend(cluster_map: ClusterMap) -> str:
    what = "node" if not cluster_map.cell_level else short_level(cluster_map.cell_level)
    return (
        f"one {what} each: {_MARKS[CellState.EMPTY]} empty, {_STEPS[0]} to {_STEPS[-1]} partly used, "
        f"{_MARKS[CellState.FULL]} full, {_MARKS[CellState.CLOSED]} cordoned or not ready, "
        f"{_MARKS[CellState.NONE]} without {cluster_map.unit}"
    )
