"""Counts what failure and recovery did to pods, from the plans that were committed."""

from __future__ import annotations

from typing import Final

from grove_server.control.evictions import Eviction
from grove_server.lifecycle.plan import Plan
from grove_server.lifecycle.removal import StopReason
from grove_server.lifecycle.stuck import STUCK_POD_REMOVED
from grove_server.lifecycle.termination import GANG_TERMINATED, SCOPE_COPY, SCOPE_GROUP_REPLICA
from grove_server.placement.preemption import VictimKind
from grove_server.resources.meta import Kind
from grove_server.resources.workload import Pod
from grove_server.telemetry import metrics

# Resolved once, so that every outcome is there from the start.
_STOPS: Final = {why: metrics.PODS_STOPPED.labels(why.value) for why in StopReason}
_TERMINATIONS: Final = {
    Kind.POD_GANG: metrics.GANG_TERMINATIONS.labels(SCOPE_COPY),
    Kind.POD_CLIQUE_SCALING_GROUP: metrics.GANG_TERMINATIONS.labels(SCOPE_GROUP_REPLICA),
}
_PREEMPTIONS: Final = {
    why: metrics.PREEMPTIONS.labels(why.value) for why in (StopReason.PREEMPTED, StopReason.RECLAIMED)
}
_VICTIMS: Final = {kind: metrics.PREEMPTION_VICTIMS.labels(kind.value) for kind in VictimKind}


def count_evictions(eviction: Eviction) -> None:
    """Count what others left for a gang: the pods asked to stop at once, the plan, and its victims."""
    for pod in eviction.stops:
        if pod.metadata.deleted_at is not None:
            _STOPS[eviction.why].inc()
    if eviction.stops:
        if eviction.why is StopReason.CONSOLIDATED:
            metrics.CONSOLIDATION_MOVES.inc(len(eviction.stops))
            return
        _PREEMPTIONS[eviction.why].inc()
        for victim in eviction.plan.victims:
            if not victim.gang.startswith("~"):
                _VICTIMS[victim.kind].inc(len(victim.pods))


def count_stops(plan: Plan) -> None:
    """Count the pods that *plan* asked to stop by reason, the units it recycled, and the stuck pods it removed."""
    for resource in plan.updates:
        if isinstance(resource, Pod) and resource.metadata.deleted_at is not None and resource.stop_reason:
            _STOPS[StopReason(resource.stop_reason)].inc()
    for note in plan.notes:
        if note.reason == GANG_TERMINATED:
            _TERMINATIONS[note.kind].inc()
        elif note.reason == STUCK_POD_REMOVED:
            metrics.STUCK_PODS_REMOVED.inc()
