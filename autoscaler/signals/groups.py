"""One measure over groups of pods (roles, or the entries of scopes), for all groups at once. Pure.

Who is in: a pod that counts, that said something possible, and whose sample is not too old. Of a group without any
fresh sample all are in, and the age tells. A sample whose age is not known is too old.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from autoscaler.engines import dialect as d
from autoscaler.observation import MISSING_PODS_SHOWN_MAX, Fault, Reading
from autoscaler.signals.census import NO_ROLE, Census, Flags, Floats, Numbers
from autoscaler.signals.vectors import PodVector

# Older samples than this are not of now. Three scrapes of the usual 15 s.
STALE_AFTER_S: Final = 45.0
# GPUs are looked at more seldom: an exporter's 30 s, and a scrape.
GPU_STALE_AFTER_S: Final = 90.0
AGE_UNKNOWN_S: Final = 86_400.0
# With so many of a group's pods at fault it is the metric rather than the pod.
FAULTY_PART: Final = 0.5


def limit_s(measure: str) -> float:
    """Return how old a sample of a measure may be."""
    return GPU_STALE_AFTER_S if measure == d.GPU_ACTIVITY else STALE_AFTER_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """A measure by group: sums of weighted values and of weights, who is in, who should be, the oldest sample."""

    census: Census
    group_of: Numbers
    is_in: Flags
    totals: Floats
    weights: Floats
    reporting: Numbers
    expected: Numbers
    ages_s: Floats
    faulty: Numbers
    source: str

    def total(self, group: int) -> float | None:
        """Return the sum over a group, None if nobody is in it."""
        return float(self.totals[group]) if self.reporting[group] else None

    def mean(self, group: int) -> float | None:
        """Return the weighted mean over a group, None if nothing weighs."""
        return float(self.totals[group] / self.weights[group]) if self.weights[group] > 0 else None

    def reading(self, group: int, *, is_sum: bool, unit: str) -> Reading:
        """Return the reading of a group."""
        reporting, expected = int(self.reporting[group]), int(self.expected[group])
        faulty = int(self.faulty[group])
        missing: tuple[str, ...] = ()
        if reporting < expected:
            lacking = np.flatnonzero((self.group_of == group) & self.census.counts & ~self.is_in)
            missing = tuple(self.census.names[pod] for pod in lacking[:MISSING_PODS_SHOWN_MAX])
        return Reading(
            value=self.total(group) if is_sum else self.mean(group),
            age_s=float(self.ages_s[group]),
            reporting=reporting,
            expected=expected,
            is_sum=is_sum,
            unit=unit,
            fault=Fault.OUT_OF_RANGE if faulty and faulty >= expected * FAULTY_PART else Fault.NONE,
            message=f"{faulty} of {expected} pods say what cannot be" if faulty else "",
            source=self.source,
            missing=missing,
        )


def gather(
    census: Census, vector: PodVector, group_of: Numbers, count: int, stale_after_s: float, weights: PodVector | None
) -> Sums:
    """Add up a measure over *count* groups; *group_of* is each pod's group or NO_ROLE.

    Without *weights* every pod weighs 1; a weight that is not known is 0.
    """
    members = (group_of != NO_ROLE) & census.counts
    said = members & ~np.isnan(vector.values)
    fresh = said & (vector.ages_s <= stale_after_s)
    has_fresh = np.bincount(group_of[fresh], minlength=count) > 0
    is_in = fresh
    if not has_fresh.all():
        late = said & ~fresh
        late[late] = ~has_fresh[group_of[late]]
        is_in = fresh | late
    groups, values = group_of[is_in], vector.values[is_in]
    weight = np.ones(values.shape) if weights is None else np.nan_to_num(weights.values[is_in])
    ages_s = np.zeros(count)
    np.maximum.at(ages_s, groups, np.nan_to_num(vector.ages_s[is_in], nan=AGE_UNKNOWN_S))
    return Sums(
        census=census,
        group_of=group_of,
        is_in=is_in,
        totals=np.bincount(groups, weights=values * weight, minlength=count).astype(np.float64),
        weights=np.bincount(groups, weights=weight, minlength=count).astype(np.float64),
        reporting=np.bincount(groups, minlength=count),
        expected=np.bincount(group_of[members], minlength=count),
        ages_s=ages_s,
        faulty=np.bincount(group_of[members & vector.faulty], minlength=count),
        source=vector.source,
    )
