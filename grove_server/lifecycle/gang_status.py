"""What is true of a gang: phase and conditions, from how many pods of each pod group are placed and serve.

Used by the copy's pass and by the placement loop, so that the transaction that binds pods also says that the gang is
placed. Grove declares these fields and never fills them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from grove_server.lifecycle.machine import GangObservation, next_gang_phase
from grove_server.resources.meta import Condition, find_condition, with_condition
from grove_server.resources.replacing import replace
from grove_server.resources.workload import GangPhase, PodGang, PodGangStatus

INITIALIZED = "Initialized"
SCHEDULED = "Scheduled"
READY = "Ready"
DISRUPTION_TARGET = "DisruptionTarget"
EARMARKED = "Earmarked"
REASON_PENDING = "Pending"


@dataclass(frozen=True, slots=True)
class PodGroupCounts:
    """Pods of one pod group: the minimum wanted, and how many exist, have a node, serve, failed, succeeded."""

    minimum: int
    active: int
    scheduled: int
    ready: int
    failed: int = 0
    succeeded: int = 0


def observe(counts: Sequence[PodGroupCounts]) -> GangObservation:
    """Return what the pod groups look like together."""
    if any(c.active for c in counts):
        if all(c.ready >= c.minimum for c in counts):
            return GangObservation.READY
        if all(c.scheduled >= c.minimum for c in counts):
            return GangObservation.PLACED
        return GangObservation.UNPLACED
    if any(c.failed for c in counts):
        return GangObservation.LOST
    if any(c.succeeded for c in counts):
        return GangObservation.FINISHED
    return GangObservation.UNPLACED


def with_gang_status(gang: PodGang, counts: Sequence[PodGroupCounts], *, now: float) -> PodGang:
    """Return *gang* with the phase and conditions that *counts* make true; the same object if nothing changed."""
    observation = observe(counts)
    scheduled = bool(counts) and all(c.scheduled >= c.minimum for c in counts)
    ready = observation is GangObservation.READY
    old = gang.status
    phase = next_gang_phase(old.phase, observation)
    created = all(c.active >= c.minimum for c in counts)
    conditions = with_condition(
        old.conditions,
        _condition(gang, INITIALIZED, created, "PodGangPodsCreated", "PodGangPodsCreationPending", now),
    )
    scheduled_condition = _condition(
        gang, SCHEDULED, scheduled, "PodGangScheduled", old.reason or REASON_PENDING, now, old.message
    )
    conditions = with_condition(conditions, scheduled_condition)
    conditions = with_condition(conditions, _condition(gang, READY, ready, "PodGangReady", "PodGangNotReady", now))
    if scheduled and is_displaced(gang):
        over = _condition(gang, DISRUPTION_TARGET, False, "", "PlacedAgain", now)  # noqa: FBT003 -- a status
        conditions = with_condition(conditions, over)
    if scheduled and is_earmarked(gang):
        conditions = with_condition(conditions, _condition(gang, EARMARKED, False, "", "Placed", now))  # noqa: FBT003 -- a status
    status = PodGangStatus(
        phase=phase,
        conditions=conditions,
        placement_score=old.placement_score if scheduled else None,
        reason="" if scheduled else old.reason,
        message="" if scheduled else old.message,
        topology=old.topology if any(c.scheduled for c in counts) else (),
        scheduled_at=(old.scheduled_at or now) if scheduled else None,
        ready_at=(old.ready_at or now) if ready else None,
        first_ready_at=old.first_ready_at or ((old.ready_at or now) if ready else None),
        recycles=old.recycles,
        nomination=None if scheduled else old.nomination,
    )
    return gang if status == old else replace(gang, status=status)


def displaced(gang: PodGang, reason: str, message: str, *, now: float) -> PodGang:
    """Return *gang* with the condition that all of it has to leave for another gang, until it is placed again."""
    condition = _condition(gang, DISRUPTION_TARGET, True, reason, "", now)  # noqa: FBT003 -- a status
    condition = replace(condition, message=message)
    return replace(gang, status=replace(gang.status, conditions=with_condition(gang.status.conditions, condition)))


def is_displaced(gang: PodGang) -> bool:
    """Return whether the gang had to leave for another one and is not placed again yet."""
    condition = find_condition(gang.status.conditions, DISRUPTION_TARGET)
    return condition is not None and condition.status == "True"


def with_earmark(gang: PodGang, domain: str, *, now: float) -> PodGang:
    """Return *gang* with the condition that a domain is set aside for it, or, without one, that none is any more."""
    condition = _condition(gang, EARMARKED, bool(domain), "DomainSetAside", "NothingSetAside", now)
    condition = replace(condition, message=f"{domain} is set aside for it" if domain else "")
    return replace(gang, status=replace(gang.status, conditions=with_condition(gang.status.conditions, condition)))


def is_earmarked(gang: PodGang) -> bool:
    """Return whether the gang says that a domain is set aside for it."""
    condition = find_condition(gang.status.conditions, EARMARKED)
    return condition is not None and condition.status == "True"


def is_running(gang: PodGang) -> bool:
    """Return whether the gang's minimum serves."""
    return gang.status.phase is GangPhase.RUNNING


def _condition(
    gang: PodGang,
    type_: str,
    holds: bool,  # noqa: FBT001 -- the status of a condition
    reason_true: str,
    reason_false: str,
    now: float,
    message: str = "",
) -> Condition:
    return Condition(
        type=type_,
        status="True" if holds else "False",
        reason=reason_true if holds else reason_false,
        message="" if holds else message,
        last_transition_at=now,
        observed_generation=gang.metadata.generation,
    )
