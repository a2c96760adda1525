"""How many of a clique's pods exist, are placed, serve or are lost: the counts that every status stands on.

Pods that are terminating, failed or finished never count as existing, scheduled or ready (Grove counts them).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from grove_server.resources.meta import Condition
from grove_server.resources.workload import Pod, PodPhase

AVAILABLE = "Available"
POD_CLIQUE_SCHEDULED = "PodCliqueScheduled"
MIN_AVAILABLE_BREACHED = "MinAvailableBreached"
UPDATE_IN_PROGRESS = "UpdateInProgress"
PREEMPTED = "Preempted"


@dataclass(slots=True)
class PodCounts:
    """Counts over the pods of one clique; ``lost`` are not ready and crashed, or were ready before."""

    active: int = 0
    scheduled: int = 0
    ready: int = 0
    updated: int = 0
    updated_ready: int = 0
    lost: int = 0
    terminating: int = 0
    failed: int = 0
    succeeded: int = 0


def count_pods(pods: Iterable[Pod], template_hash: str) -> PodCounts:
    """Count *pods*; those made from *template_hash* are up to date."""
    counts = PodCounts()
    for pod in pods:
        if pod.metadata.deleted_at is not None:
            counts.terminating += 1
        elif pod.phase is PodPhase.FAILED:
            counts.failed += 1
        elif pod.phase is PodPhase.SUCCEEDED:
            counts.succeeded += 1
        else:
            counts.active += 1
            if pod.node:
                counts.scheduled += 1
            if pod.ready_at is not None:
                counts.ready += 1
            elif pod.unready_at is not None or pod.last_exit_code:
                counts.lost += 1
            if pod.template.hash == template_hash:
                counts.updated += 1
                counts.updated_ready += pod.ready_at is not None
    return counts


def clique_conditions(
    counts: PodCounts,
    *,
    replicas: int,
    min_available: int,
    generation: int,
    now: float,
    is_updating: bool = False,
    is_displaced: bool = False,
) -> tuple[Condition, Condition]:
    """Return PodCliqueScheduled and MinAvailableBreached with Grove's reasons.

    A clique at size 0 is absent: satisfied and never breached. While one is updated nobody can tell what its missing
    pods mean. What is missing because the gang was displaced has a reason of its own: nothing is broken.
    """
    minimum = min(min_available, replicas)
    scheduled = counts.scheduled >= minimum
    message = f"{counts.scheduled} of at least {minimum} pods are scheduled"
    scheduled_condition = Condition(
        type=POD_CLIQUE_SCHEDULED,
        status="True" if scheduled else "False",
        reason="SufficientScheduledPods" if scheduled else "InsufficientScheduledPods",
        message=message,
        last_transition_at=now,
        observed_generation=generation,
    )
    if is_updating:
        status, reason = "Unknown", UPDATE_IN_PROGRESS
    elif not scheduled:
        status, reason = "True", PREEMPTED if is_displaced else "ScheduledReplicasBelowMinAvailable"
    elif counts.scheduled - counts.lost < minimum:
        status, reason = "True", "InsufficientReadyPods"
        message = f"{counts.lost} of {counts.scheduled} scheduled pods are lost; at least {minimum} are needed"
    else:
        status, reason = "False", "SufficientReadyPods"
    breached_condition = Condition(
        type=MIN_AVAILABLE_BREACHED,
        status=status,
        reason=reason,
        message=message,
        last_transition_at=now,
        observed_generation=generation,
    )
    return scheduled_condition, breached_condition
