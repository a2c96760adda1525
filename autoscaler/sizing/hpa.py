"""What a Kubernetes HorizontalPodAutoscaler (v2) would propose for one metric, and for several. Pure.

Written from the published behaviour of the replica calculator (kubernetes/pkg/controller/podautoscaler) so that it
answers alike to the replica. Values of pods are whole thousandths there, rounded up, and their mean is cut: so here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """How far a metric may be off before anything is done, for each direction (KEP-4951)."""

    up: float = 0.1
    down: float = 0.1

    def covers(self, ratio: float) -> bool:
        """Tell whether a ratio of value to target is close enough to 1."""
        return 1.0 - self.down <= ratio <= 1.0 + self.up


def milli(value: float) -> int:
    """Return whole thousandths, rounded up as Kubernetes' quantities are."""
    scaled = value * 1000
    nearest = round(scaled)
    # What was written with three decimals is meant so; binary fractions are not rounded up for their last bit.
    return nearest if math.isclose(scaled, nearest, rel_tol=1e-12, abs_tol=1e-9) else math.ceil(scaled)


def pods_metric(
    *,
    total_milli: int,
    reporting: int,
    missing: int,
    unready: int,
    target_milli: int,
    current: int,
    tolerance: Tolerance,
) -> int | None:
    """Return the proposal for a metric per pod, target AverageValue; None if no pod reports.

    *total_milli* is the sum over *reporting* pods. *missing* pods should report and do not, *unready* ones (pending,
    or for CPU still starting) are not asked.
    """
    if reporting == 0:
        return None
    ratio = (total_milli // reporting) / target_milli
    grows_with_unready = unready > 0 and ratio > 1.0
    if not grows_with_unready and missing == 0:
        return current if tolerance.covers(ratio) else math.ceil(ratio * reporting)
    total, count = total_milli, reporting + missing
    if ratio < 1.0:
        total += missing * target_milli
    if grows_with_unready:
        count += unready
    careful = (total // count) / target_milli
    if tolerance.covers(careful) or (ratio < 1.0 < careful) or (careful < 1.0 < ratio):
        return current
    proposed = math.ceil(careful * count)
    if (careful < 1.0 and proposed > current) or (careful > 1.0 and proposed < current):
        return current
    return proposed


def value_metric(*, value: float, target: float, current: int, ready: int, tolerance: Tolerance) -> int:
    """Return the proposal for an object's or external metric, target Value."""
    ratio = milli(value) / milli(target)
    if current == 0:
        return math.ceil(ratio)
    return current if tolerance.covers(ratio) else math.ceil(ratio * ready)


def average_metric(*, value: float, target: float, replicas: int, tolerance: Tolerance) -> int:
    """Return the proposal for an object's or external metric, target AverageValue; *replicas* are the status's."""
    usage, aim = milli(value), milli(target)
    if replicas > 0 and tolerance.covers(usage / (aim * replicas)):
        return replicas
    return math.ceil(usage / aim)


def combined(proposals: Sequence[int | None], current: int) -> int | None:
    """Return the proposal of several metrics, None being one that failed: the largest.

    None if all failed, or some did and the rest would shrink: nothing is done then.
    """
    known = [proposal for proposal in proposals if proposal is not None]
    if not known or (len(known) < len(proposals) and max(known) < current):
        return None
    return max(known)
