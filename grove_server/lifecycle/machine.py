"""The state machine of a gang and of a set: phases, what is observed, and the table of legal moves.

Observations are facts computed from counts; the table says which phase follows. A pair that is not in the table is a
fault of ours (``InvalidTransitionError``), not of a user. ``diagram`` prints the table as Mermaid; docs/lifecycle.md
holds its output and a test compares them. Gang termination and updates add observations here, not new machines.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

from grove_server.resources.workload import GangPhase, SetPhase


class GangObservation(enum.StrEnum):
    """What the pods of a gang's minimum look like together."""

    UNPLACED = "minimum not placed"
    PLACED = "minimum placed"
    READY = "minimum ready"
    FINISHED = "all pods succeeded"
    LOST = "all pods failed"


class SetObservation(enum.StrEnum):
    """What the copies of a set look like together."""

    EMPTY = "no pods wanted"
    UNPLACED = "no copy placed"
    PARTLY = "some copies available or placed"
    GROWING = "only new copies missing"
    AVAILABLE = "all copies available"
    DELETED = "deletion asked for"


class InvalidTransitionError(AssertionError):
    """The machine was asked for a move that its table does not have."""


GANG_TRANSITIONS: Final[Mapping[tuple[GangPhase, GangObservation], GangPhase]] = {
    (GangPhase.PENDING, GangObservation.UNPLACED): GangPhase.PENDING,
    (GangPhase.PENDING, GangObservation.PLACED): GangPhase.STARTING,
    (GangPhase.PENDING, GangObservation.READY): GangPhase.RUNNING,
    (GangPhase.PENDING, GangObservation.FINISHED): GangPhase.SUCCEEDED,
    (GangPhase.PENDING, GangObservation.LOST): GangPhase.FAILED,
    (GangPhase.STARTING, GangObservation.UNPLACED): GangPhase.PENDING,
    (GangPhase.STARTING, GangObservation.PLACED): GangPhase.STARTING,
    (GangPhase.STARTING, GangObservation.READY): GangPhase.RUNNING,
    (GangPhase.STARTING, GangObservation.FINISHED): GangPhase.SUCCEEDED,
    (GangPhase.STARTING, GangObservation.LOST): GangPhase.FAILED,
    (GangPhase.RUNNING, GangObservation.UNPLACED): GangPhase.PENDING,
    (GangPhase.RUNNING, GangObservation.PLACED): GangPhase.STARTING,
    (GangPhase.RUNNING, GangObservation.READY): GangPhase.RUNNING,
    (GangPhase.RUNNING, GangObservation.FINISHED): GangPhase.SUCCEEDED,
    (GangPhase.RUNNING, GangObservation.LOST): GangPhase.FAILED,
    (GangPhase.FAILED, GangObservation.UNPLACED): GangPhase.PENDING,
    (GangPhase.FAILED, GangObservation.PLACED): GangPhase.STARTING,
    (GangPhase.FAILED, GangObservation.READY): GangPhase.RUNNING,
    (GangPhase.FAILED, GangObservation.FINISHED): GangPhase.SUCCEEDED,
    (GangPhase.FAILED, GangObservation.LOST): GangPhase.FAILED,
    (GangPhase.SUCCEEDED, GangObservation.UNPLACED): GangPhase.PENDING,
    (GangPhase.SUCCEEDED, GangObservation.PLACED): GangPhase.STARTING,
    (GangPhase.SUCCEEDED, GangObservation.READY): GangPhase.RUNNING,
    (GangPhase.SUCCEEDED, GangObservation.FINISHED): GangPhase.SUCCEEDED,
    (GangPhase.SUCCEEDED, GangObservation.LOST): GangPhase.FAILED,
}

SET_TRANSITIONS: Final[Mapping[tuple[SetPhase, SetObservation], SetPhase]] = {
    (SetPhase.PENDING, SetObservation.EMPTY): SetPhase.IDLE,
    (SetPhase.PENDING, SetObservation.UNPLACED): SetPhase.PENDING,
    (SetPhase.PENDING, SetObservation.PARTLY): SetPhase.STARTING,
    (SetPhase.PENDING, SetObservation.GROWING): SetPhase.STARTING,
    (SetPhase.PENDING, SetObservation.AVAILABLE): SetPhase.RUNNING,
    (SetPhase.PENDING, SetObservation.DELETED): SetPhase.DELETING,
    (SetPhase.STARTING, SetObservation.EMPTY): SetPhase.IDLE,
    (SetPhase.STARTING, SetObservation.UNPLACED): SetPhase.PENDING,
    (SetPhase.STARTING, SetObservation.PARTLY): SetPhase.STARTING,
    (SetPhase.STARTING, SetObservation.GROWING): SetPhase.STARTING,
    (SetPhase.STARTING, SetObservation.AVAILABLE): SetPhase.RUNNING,
    (SetPhase.STARTING, SetObservation.DELETED): SetPhase.DELETING,
    (SetPhase.RUNNING, SetObservation.EMPTY): SetPhase.IDLE,
    (SetPhase.RUNNING, SetObservation.UNPLACED): SetPhase.DEGRADED,
    (SetPhase.RUNNING, SetObservation.PARTLY): SetPhase.DEGRADED,
    (SetPhase.RUNNING, SetObservation.GROWING): SetPhase.SCALING,
    (SetPhase.RUNNING, SetObservation.AVAILABLE): SetPhase.RUNNING,
    (SetPhase.RUNNING, SetObservation.DELETED): SetPhase.DELETING,
    (SetPhase.SCALING, SetObservation.EMPTY): SetPhase.IDLE,
    (SetPhase.SCALING, SetObservation.UNPLACED): SetPhase.DEGRADED,
    (SetPhase.SCALING, SetObservation.PARTLY): SetPhase.DEGRADED,
    (SetPhase.SCALING, SetObservation.GROWING): SetPhase.SCALING,
    (SetPhase.SCALING, SetObservation.AVAILABLE): SetPhase.RUNNING,
    (SetPhase.SCALING, SetObservation.DELETED): SetPhase.DELETING,
    (SetPhase.DEGRADED, SetObservation.EMPTY): SetPhase.IDLE,
    (SetPhase.DEGRADED, SetObservation.UNPLACED): SetPhase.DEGRADED,
    (SetPhase.DEGRADED, SetObservation.PARTLY): SetPhase.DEGRADED,
    (SetPhase.DEGRADED, SetObservation.GROWING): SetPhase.SCALING,
    (SetPhase.DEGRADED, SetObservation.AVAILABLE): SetPhase.RUNNING,
    (SetPhase.DEGRADED, SetObservation.DELETED): SetPhase.DELETING,
    (SetPhase.IDLE, SetObservation.EMPTY): SetPhase.IDLE,
    (SetPhase.IDLE, SetObservation.UNPLACED): SetPhase.PENDING,
    (SetPhase.IDLE, SetObservation.PARTLY): SetPhase.STARTING,
    (SetPhase.IDLE, SetObservation.GROWING): SetPhase.STARTING,
    (SetPhase.IDLE, SetObservation.AVAILABLE): SetPhase.RUNNING,
    (SetPhase.IDLE, SetObservation.DELETED): SetPhase.DELETING,
    (SetPhase.DELETING, SetObservation.DELETED): SetPhase.DELETING,
}


def next_gang_phase(phase: GangPhase, observation: GangObservation) -> GangPhase:
    """Return the phase of a gang after *observation*."""
    try:
        return GANG_TRANSITIONS[phase, observation]
    except KeyError:
        raise InvalidTransitionError(f"a gang in phase {phase} cannot observe: {observation}") from None


def next_set_phase(phase: SetPhase, observation: SetObservation) -> SetPhase:
    """Return the phase of a set after *observation*.

    A set that is being deleted stays so: deletion cannot be taken back.
    """
    try:
        return SET_TRANSITIONS[phase, observation]
    except KeyError:
        raise InvalidTransitionError(f"a set in phase {phase} cannot observe: {observation}") from None


def diagram() -> str:
    """Return both tables as Mermaid state diagrams (moves to the same phase are left out)."""
    lines = []
    gang_rows = [(a, o, b) for (a, o), b in GANG_TRANSITIONS.items()]
    set_rows = [(a, o, b) for (a, o), b in SET_TRANSITIONS.items()]
    for title, start, rows in (("PodGang", GangPhase.PENDING, gang_rows), ("PodCliqueSet", SetPhase.PENDING, set_rows)):
        lines += [f"### {title}", "", "```mermaid", "stateDiagram-v2", f"    [*] --> {start}"]
        lines += [
            f"    {source} --> {target}: {observation}" for source, observation, target in rows if source != target
        ]
        lines += ["```", ""]
    return "\n".join(lines)
