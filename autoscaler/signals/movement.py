"""Pods that say they have work and do none: hung engines, and pages that are served from a frozen memory. Pure.

A pod is *stuck* once it has shown requests, waiting or running, and no token and no first token, for long enough. What
it could do does not count as capacity, and its gauges may be of another time. That it is removed is not decided here.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from autoscaler.engines import dialect as d
from autoscaler.signals.census import Census, Flags
from autoscaler.signals.groups import STALE_AFTER_S
from autoscaler.signals.vectors import Measured

# On top of the window of rates, which must have passed without a token before a rate is zero.
STUCK_AFTER_S: Final = 60.0
_GAUGES: Final = (d.WAITING, d.RUNNING)
_RATES: Final = (d.OUTPUT_TOKENS, d.COMPUTED_TOKENS, d.FIRST_TOKENS)


class Movement:
    """Since when each pod of the census stands still; NaN for those that move or of which too little is known."""

    def __init__(self, stuck_after_s: float = STUCK_AFTER_S) -> None:
        self._stuck_after_s = stuck_after_s
        self._census: Census | None = None
        self._since = np.empty(0)

    def update(self, measured: Measured) -> Flags:
        """Take in what was measured and return who is stuck now."""
        census = measured.census
        if self._census is not census:
            since = census.unknown()
            if self._census is not None and len(self._census):
                positions = census.positions_in(self._census)
                since = np.where(positions >= 0, self._since[positions], np.nan)
            self._census, self._since = census, since
        stands = census.counts & _has_work(measured) & _is_still(measured)
        self._since = np.where(stands, np.where(np.isnan(self._since), measured.at, self._since), np.nan)
        stuck: Flags = stands & (measured.at - self._since >= self._stuck_after_s)
        return stuck


def _has_work(measured: Measured) -> Flags:
    has = np.zeros(len(measured.census), dtype=np.bool_)
    for name in _GAUGES:
        vector = measured.vectors.get(name)
        if vector is not None:
            has |= (vector.values > 0) & (vector.ages_s <= STALE_AFTER_S)
    return has


def _is_still(measured: Measured) -> Flags:
    """Return who is known to make nothing: at least one rate is known, and none is above zero."""
    known = np.zeros(len(measured.census), dtype=np.bool_)
    moves = np.zeros(len(measured.census), dtype=np.bool_)
    for name in _RATES:
        vector = measured.vectors.get(name)
        if vector is not None:
            known |= ~np.isnan(vector.values)
            moves |= vector.values > 0
    still: Flags = known & ~moves
    return still
