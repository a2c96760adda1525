"""The time of ticks: epoch seconds that never go back and never jump.

Windows and ages are counted in it, and Prometheus is asked for it, so it follows the machine's clock; but a clock
that is set is followed slowly: a jump of an hour would end every window at once. Pure: the clocks are given.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

# Of the time that passed, how much may be made up for. Half: an hour is caught up with in two.
SLEW: Final = 0.5


class SteadyClock:
    """Tells the time of ticks."""

    def __init__(self, wall_s: Callable[[], float], steady_s: Callable[[], float]) -> None:
        """*wall_s* may be set back and forth, *steady_s* never is."""
        self._wall_s = wall_s
        self._steady_s = steady_s
        self._read_at_s = steady_s()
        self._at = wall_s()

    def now(self) -> float:
        """Return the epoch seconds."""
        steady_s = self._steady_s()
        passed_s = steady_s - self._read_at_s
        expected = self._at + passed_s
        behind_s = self._wall_s() - expected
        self._at = expected + max(-SLEW * passed_s, min(SLEW * passed_s, behind_s))
        self._read_at_s = steady_s
        return self._at
