"""Counts how drains end, from the plans that ended them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from grove_server.lifecycle.removal import DrainEnd, drain_end
from grove_server.resources.meta import Resource
from grove_server.resources.workload import Pod
from grove_server.telemetry import metrics

# Resolved once, so that every outcome is there from the start.
_ENDS: Final = {end: metrics.DRAINS.labels(end.value) for end in DrainEnd}


def count_drains(updates: Iterable[Resource]) -> None:
    """Count the drains that *updates* of a plan ended, once the plan is committed."""
    for resource in updates:
        if isinstance(resource, Pod) and resource.draining_at is not None and resource.metadata.deleted_at is not None:
            _ENDS[drain_end(resource)].inc()
            metrics.DRAIN_SECONDS.observe(max(0.0, resource.metadata.deleted_at - resource.draining_at))


def count_cut_short(count: int) -> None:
    """Count drains that a person ended."""
    _ENDS[DrainEnd.CUT_SHORT].inc(count)
