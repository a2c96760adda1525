"""How much a search may still do, counted in calibrated microseconds instead of by a clock.

Rules: a decision has to be the same on every machine and in every run, so time cannot bound it. Each kind of work is
charged what it costs on the project's reference machine (two cores of an AMD EPYC, Python 3.11); a machine that is
twice as slow takes twice as long over the same work. Whether the charges are still true shows in the figure
`place.verdict`, the longest decision at the default budget.

Not here: what is worth trying (`search`, `depth`).
"""

from __future__ import annotations

from typing import Final

STEP_US: Final = 100
"""One step of a `Budget` in calibrated microseconds."""


class Work:
    """A bound on work: `left` calibrated microseconds, less than 0 when the last piece went over it."""

    __slots__ = ("left", "total")

    def __init__(self, total_us: int) -> None:
        self.total = total_us
        self.left = total_us

    def spend(self, micros: int) -> None:
        """Charge a piece of work."""
        self.left -= micros

    @property
    def is_spent(self) -> bool:
        """Return whether nothing is left."""
        return self.left <= 0

    @property
    def steps(self) -> int:
        """Return the steps done, begun ones included."""
        return -(-(self.total - self.left) // STEP_US)
