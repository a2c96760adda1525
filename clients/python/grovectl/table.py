"""Plain tables: columns padded with spaces, as kubectl prints them and as `awk` wants them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

# What a cell says that has nothing to say; blank is for fields of Grove that are not known yet, as kubectl prints them.
BLANK: Final = ""
NONE: Final = "<none>"
UNKNOWN: Final = "<unknown>"
GAP: Final = "   "


def widen(widths: Sequence[int], rows: Iterable[Sequence[str]]) -> list[int]:
    """Return how wide columns of *widths* must become for *rows*."""
    result = list(widths)
    for row in rows:
        for index, cell in enumerate(row):
            result[index] = max(result[index], len(cell))
    return result


def line(cells: Sequence[str], column_widths: Sequence[int]) -> str:
    """Return one row; a cell wider than its column pushes the others aside."""
    padded = [cell.ljust(width) for cell, width in zip(cells, column_widths, strict=True)]
    return GAP.join(padded).rstrip()


def lines(titles: Sequence[str], rows: Sequence[Sequence[str]], *, headers: bool = True) -> list[str]:
    """Return a whole table."""
    column_widths = widen([len(title) if headers else 0 for title in titles], rows)
    head = [line(titles, column_widths)] if headers else []
    return head + [line(row, column_widths) for row in rows]
