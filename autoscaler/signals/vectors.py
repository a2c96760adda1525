"""What was measured of every pod at one moment: a vector per measure over the census's numbers. Pure.

Not known is NaN, everywhere. Ages are those of the samples behind the values, in seconds, by the source's own clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from autoscaler.signals.census import Census, Flags, Floats
from autoscaler.signals.failures import Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something that was asked and is not known; ``of`` is the source, ``what`` the measure or signal."""

    of: str
    what: str
    failure: Failure
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PodVector:
    """One measure: values and the ages of their samples; which pods said something impossible; from which metric."""

    values: Floats
    ages_s: Floats
    faulty: Flags
    source: str = ""

    def or_else(self, other: PodVector) -> PodVector:
        """Return this vector with what it does not know filled in from another."""
        lacks = np.isnan(self.values)
        takes = lacks & ~np.isnan(other.values)
        if not takes.any():
            return self
        return PodVector(
            values=np.where(takes, other.values, self.values),
            ages_s=np.where(takes, other.ages_s, self.ages_s),
            faulty=np.where(takes, other.faulty, self.faulty),
            source="+".join(sorted({*self.source.split("+"), *other.source.split("+")} - {""})),
        )

    def aged(self, seconds: float, positions: np.ndarray | None = None) -> PodVector:
        """Return the vector some seconds later, in the order of a later census (as `Census.positions_in`)."""
        if positions is None:
            return PodVector(values=self.values, ages_s=self.ages_s + seconds, faulty=self.faulty, source=self.source)
        known = positions >= 0
        values = np.where(known, self.values[positions], np.nan) if self.values.size else np.full(known.shape, np.nan)
        ages = np.where(known, self.ages_s[positions], np.nan) if self.values.size else np.full(known.shape, np.nan)
        faulty = known & self.faulty[positions] if self.values.size else np.zeros(known.shape, dtype=np.bool_)
        return PodVector(values=values, ages_s=ages + seconds, faulty=faulty, source=self.source)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """All that is known at ``at``. ``buckets`` holds a vector for each edge, ascending; the last is infinity."""

    at: float
    census: Census
    vectors: Mapping[str, PodVector]
    buckets: Mapping[str, Mapping[float, PodVector]] = field(default_factory=dict)
    problems: Sequence[Problem] = ()
    strangers: int = 0
