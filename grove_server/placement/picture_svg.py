"""The picture of a cluster as one SVG document.

Rules: self-contained (no script, no font, no address), with a title and a description for those who do not see it, and
a title on every cell; colours for light and for dark. Everything that comes from labels is escaped.

Not here: what is drawn (`picture`).
"""

from __future__ import annotations

from html import escape
from typing import Final

from grove_server.placement.picture import Block, Cell, CellState, ClusterMap, heading_of, named

_MILLI: Final = 1_000
_CELL_PX: Final = 12
_GAP_PX: Final = 2
_LINE_PX: Final = 18
_SVG_WIDTH_PX: Final = 1_200
_MARGIN_PX: Final = 16
_BLOCK_CELLS: Final = 16
"""Cells of one row of a block."""

_STYLE: Final = """
svg{background:#fff;color:#1c2024;font:12px system-ui,sans-serif}
text{fill:currentColor}.h{font-weight:600}
rect{stroke:#8a9199;stroke-width:.5}
.none{fill:#e9ecef}.empty{fill:#fff}.q1{fill:#cfe3f7}.q2{fill:#94c1ec}.q3{fill:#5497d6}.q4{fill:#2c6fb3}
.full{fill:#123f73}.closed{fill:#f3c7c2;stroke:#b3261e;stroke-dasharray:2 1}
@media (prefers-color-scheme:dark){svg{background:#15181c;color:#e6e8ea}rect{stroke:#5c646d}
.none{fill:#23272c}.empty{fill:#15181c}.q1{fill:#17324d}.q2{fill:#1f4f80}.q3{fill:#2f76b8}.q4{fill:#5aa2e2}
.full{fill:#b5d8f8}.closed{fill:#4a1f1b;stroke:#ff8a80}}
"""
_LEGEND: Final = (
    ("empty", "empty"),
    ("q1", "to a quarter"),
    ("q2", "to a half"),
    ("q3", "to three quarters"),
    ("q4", "nearly full"),
    ("full", "full"),
    ("closed", "cordoned or not ready"),
    ("none", "nothing to use"),
)


def svg_of(cluster_map: ClusterMap, *, title: str = "Cluster map") -> str:
    """Return the picture as one self-contained SVG document with a title and a description, for light and dark."""
    drawing = _Drawing()
    heading: tuple[str, ...] | None = None
    for block in cluster_map.blocks:
        if block.path[:-1] != heading:
            heading = block.path[:-1]
            if heading:
                drawing.heading(heading_of(cluster_map, heading))
        drawing.block(block, cluster_map.unit)
    drawing.legend()
    height = drawing.height
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_SVG_WIDTH_PX}" height="{height}" '
        f'viewBox="0 0 {_SVG_WIDTH_PX} {height}" role="img" aria-labelledby="title desc">\n'
        f'<title id="title">{escape(title)}</title>\n<desc id="desc">{escape(cluster_map.sentence())}</desc>\n'
        f"<style>{_STYLE}</style>\n" + "\n".join(drawing.parts) + "\n</svg>\n"
    )


class _Drawing:
    """Blocks put beside each other until a row is full."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self._x = self._y = _MARGIN_PX
        self._row_height = 0

    @property
    def height(self) -> int:
        """Return the height in pixels of what was drawn."""
        return self._y + self._row_height + _MARGIN_PX

    def heading(self, text: str) -> None:
        """Begin a new row under a heading."""
        self._new_row()
        self._text(_MARGIN_PX, text, "h")
        self._y += _LINE_PX

    def block(self, block: Block, unit: str) -> None:
        """Draw one domain with its cells."""
        pitch = _CELL_PX + _GAP_PX
        columns = min(_BLOCK_CELLS, len(block.cells))
        if not block.path:
            columns = min(len(block.cells), (_SVG_WIDTH_PX - 2 * _MARGIN_PX) // pitch)
        label = named(block.name) if block.path else ""
        wide = max(columns * pitch, 7 * len(label)) + _MARGIN_PX
        if self._x > _MARGIN_PX and self._x + wide > _SVG_WIDTH_PX - _MARGIN_PX:
            self._new_row()
        if label:
            self._text(self._x, label)
        top = self._y + (_LINE_PX if label else 0)
        for at, cell in enumerate(block.cells):
            x, y = self._x + at % columns * pitch, top + at // columns * pitch
            self._rect(x, y, _class_of(cell), _told(cell, unit))
        self._row_height = max(self._row_height, top - self._y + -(-len(block.cells) // columns) * pitch)
        self._x += wide

    def legend(self) -> None:
        """Draw what the colours mean."""
        self._new_row()
        for name, words in _LEGEND:
            self._rect(self._x, self._y, name, words)
            self._text(self._x + _CELL_PX + _GAP_PX, words)
            self._x += _CELL_PX + 3 * _GAP_PX + 7 * len(words)
        self._row_height = _LINE_PX

    def _new_row(self) -> None:
        if self._x > _MARGIN_PX:
            self._x = _MARGIN_PX
            self._y += self._row_height + _LINE_PX // 2
            self._row_height = 0

    def _text(self, x: int, text: str, name: str = "") -> None:
        kind = f' class="{name}"' if name else ""
        self.parts.append(f'<text x="{x}" y="{self._y + _CELL_PX - _GAP_PX}"{kind}>{escape(text)}</text>')

    def _rect(self, x: int, y: int, name: str, told: str) -> None:
        self.parts.append(
            f'<rect class="{name}" x="{x}" y="{y}" width="{_CELL_PX}" height="{_CELL_PX}" rx="2">'
            f"<title>{escape(told)}</title></rect>"
        )


def _class_of(cell: Cell) -> str:
    if cell.state is not CellState.PARTLY:
        return cell.state.value
    return f"q{min(4, 1 + 4 * cell.used_milli // cell.has_milli)}"


def _told(cell: Cell, unit: str) -> str:
    text = f"{named(cell.name)}: {cell.used_milli / _MILLI:g} of {cell.has_milli / _MILLI:g} {unit}"
    return f"{text}; {cell.closed_count} of {cell.node_count} closed" if cell.closed_count else text
