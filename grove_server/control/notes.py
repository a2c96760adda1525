"""What the placement loop tells people: notes that become events."""

from __future__ import annotations

from grove_server.control.decisions import Decision
from grove_server.lifecycle.plan import EVENT_NORMAL, EVENT_WARNING, Note
from grove_server.placement.results import Verdict
from grove_server.resources.meta import Kind
from grove_server.resources.workload import PodGang


def waiting_note(gang: PodGang, decision: Decision) -> Note:
    """Return that a gang waits, and why."""
    reason = "Unschedulable" if isinstance(decision.outcome, Verdict) else decision.waiting_reason
    return _gang_note(gang, reason, decision.message, EVENT_WARNING)


def placed_note(gang: PodGang) -> Note:
    """Return that a gang that waited has its nodes."""
    return _gang_note(gang, "Placed", "all pods of the minimum have nodes now", EVENT_NORMAL)


def node_note(name: str, problem: str) -> Note:
    """Return that placement cannot use a node."""
    return Note(
        kind=Kind.NODE,
        namespace="",
        name=name,
        uid="",
        reason="NodeNotUsable",
        message=f"placement cannot take this node as it is: {problem}",
        type=EVENT_WARNING,
    )


def _gang_note(gang: PodGang, reason: str, message: str, type_: str) -> Note:
    return Note(
        kind=Kind.POD_GANG,
        namespace=gang.metadata.namespace,
        name=gang.metadata.name,
        uid=gang.metadata.uid,
        reason=reason,
        message=message,
        type=type_,
    )
