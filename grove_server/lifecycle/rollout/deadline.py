"""Whether an update gets on: the condition Progressing, the deadline, and when a set goes back by itself.

Progress is a pod of the new revision that there was not before, or that is ready now. The clock starts with the update
and again with each progress and when a pause ends. A set goes back at most once: where it came from and where it went
both did not get on, and a person has to look.
"""

from __future__ import annotations

from typing import Final

from grove_server.lifecycle.plan import EVENT_NORMAL, EVENT_WARNING, Note
from grove_server.lifecycle.rollout.progress import strategy_of
from grove_server.resources.duration import DurationError, parse_duration
from grove_server.resources.meta import Condition
from grove_server.resources.rollout import SetRevision, UpdateProgress
from grove_server.resources.workload import PodCliqueSet

PROGRESSING: Final = "Progressing"
DEADLINE_EXCEEDED: Final = "ProgressDeadlineExceeded"
ROLLED_BACK: Final = "RolledBack"


def due_at(owner: PodCliqueSet, progress: UpdateProgress | None) -> float | None:
    """Return when an update under way counts as stuck (epoch seconds); None if it never does.

    One that leads to a template which has been edited since does not: the edit may be what sets it right.
    """
    rolling = strategy_of(owner).rolling_update
    if owner.status.current_generation_hash != owner.revision.hash:
        return None
    if progress is None or not progress.is_active or owner.paused_at is not None or rolling is None:
        return None
    if rolling.progress_deadline is None:
        return None
    try:
        deadline_s = parse_duration(rolling.progress_deadline)
    except DurationError:
        # Admission refuses it; a row from elsewhere has no deadline.
        return None
    return max(progress.progressed_at, owner.resumed_at or 0.0) + deadline_s


def is_stuck(owner: PodCliqueSet, progress: UpdateProgress | None, now: float) -> bool:
    """Return whether the update's deadline has passed."""
    at = due_at(owner, progress)
    return at is not None and at <= now


def goes_back(owner: PodCliqueSet, progress: UpdateProgress | None, now: float) -> bool:
    """Return whether the set is to return to the revision before now."""
    rolling = strategy_of(owner).rolling_update
    wanted = rolling is not None and rolling.auto_rollback and not owner.rolled_back_from
    return wanted and is_stuck(owner, progress, now)


def progressing(
    owner: PodCliqueSet, progress: UpdateProgress | None, updated: int, now: float, *, is_awaited: bool = False
) -> Condition | None:
    """Return the condition of a set of which *updated* copies are; None if it was never updated.

    *is_awaited* says that there is something to roll out which has not begun: then *progress* is of an update before.
    """
    copies = owner.spec.replicas or 0
    if progress is None and not is_awaited:
        return None
    is_active = is_awaited or (progress is not None and progress.is_active)
    if not is_active:
        status, reason, message = "True", "UpdateComplete", f"{updated} of {copies} copies are updated"
    elif owner.paused_at is not None:
        status, reason, message = "Unknown", "UpdatePaused", f"{updated} of {copies} copies are updated; it is paused"
    elif is_awaited:
        status, reason = "True", "UpdateInProgress"
        message = f"{updated} of {copies} copies are updated; it begins when the template is quiet"
    elif is_stuck(owner, progress, now):
        status, reason = "False", DEADLINE_EXCEEDED
        message = f"{updated} of {copies} copies are updated; nothing has become better for longer than the deadline"
    else:
        status, reason, message = "True", "UpdateInProgress", f"{updated} of {copies} copies are updated"
    return Condition(
        type=PROGRESSING,
        status=status,
        reason=reason,
        message=message,
        last_transition_at=now,
        observed_generation=owner.metadata.generation,
    )


def rollback_note(owner: PodCliqueSet, revision: SetRevision) -> Note:
    """Return that a set goes back to *revision*."""
    metadata = owner.metadata
    return Note(
        kind=owner.kind,
        namespace=metadata.namespace,
        name=metadata.name,
        uid=metadata.uid,
        reason=ROLLED_BACK,
        message=f"the update does not progress: back to revision {revision.number} ({revision.hash})",
        type=EVENT_WARNING,
    )


def stuck_note(owner: PodCliqueSet, condition: Condition) -> Note:
    """Return what became of an update: begun, ended, resting, or stuck."""
    metadata = owner.metadata
    return Note(
        kind=owner.kind,
        namespace=metadata.namespace,
        name=metadata.name,
        uid=metadata.uid,
        reason=condition.reason,
        message=condition.message,
        type=EVENT_WARNING if condition.status == "False" else EVENT_NORMAL,
    )
