"""What a solver is asked and what it answers, as plain numbers that survive the way to another process.

Rules: nothing here knows of gangs or nodes, so that the solver's process needs nothing else; every type can be written
as JSON and read back.

Not here: what the numbers mean (`solver_model`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """Whole-number columns 0 <= x[j] <= uppers[j], rows lows[i] <= sum of values * x <= highs[i] (None = no bound).

    Row i has the entries starts[i]:starts[i + 1] of `indices` (columns) and `values`. Any point will do: no objective.
    """

    uppers: list[int] = field(default_factory=list)
    lows: list[int | None] = field(default_factory=list)
    highs: list[int] = field(default_factory=list)
    starts: list[int] = field(default_factory=lambda: [0])
    indices: list[int] = field(default_factory=list)
    values: list[int] = field(default_factory=list)

    def column(self, upper: int) -> int:
        """Add a column and return its number."""
        self.uppers.append(upper)
        return len(self.uppers) - 1

    def row(self, low: int | None, entries: Mapping[int, int], high: int) -> None:
        """Add a row of column -> value."""
        self.lows.append(low)
        self.highs.append(high)
        self.indices.extend(entries)
        self.values.extend(entries.values())
        self.starts.append(len(self.indices))


@dataclass(frozen=True, slots=True, kw_only=True)
class SolverQuestion:
    """Programs to try in this order until one has a point; `covers_all` if these are all there can be."""

    programs: tuple[Program, ...]
    covers_all: bool


class SolverOutcome(StrEnum):
    """How a question ended."""

    FOUND = "Found"
    IMPOSSIBLE = "Impossible"
    BUDGET = "Budget"
    """Neither a point nor a proof in the time given."""
    LOST = "Lost"
    """The solver went away while it searched; it may be asked again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SolverAnswer:
    """The outcome, and if it is FOUND which program and the values of its columns."""

    outcome: SolverOutcome
    program: int = 0
    values: tuple[int, ...] = ()
