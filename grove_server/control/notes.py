"""What the placement loop tells people: notes that become events."""

from __future__ import annotations

from collections.abc import Iterator

from grove_server.control.decisions import Decision
from grove_server.control.evictions import Eviction
from grove_server.control.seats import key_of_name
from grove_server.lifecycle.plan import EVENT_NORMAL, EVENT_WARNING, Note
from grove_server.placement.preemption import VictimKind
from grove_server.placement.results import Verdict
from grove_server.resources.meta import Key, Kind
from grove_server.resources.workload import PodGang


def waiting_note(gang: PodGang, decision: Decision) -> Note:
    """Return that a gang waits, and why."""
    reason = "Unschedulable" if isinstance(decision.outcome, Verdict) else decision.waiting_reason
    return _gang_note(gang, reason, decision.message, EVENT_WARNING)


def placed_note(gang: PodGang) -> Note:
    """Return that a gang that waited has its nodes."""
    return _gang_note(gang, "Placed", "all pods of the minimum have nodes now", EVENT_NORMAL)


def earmarked_note(gang: PodGang, domain: str) -> Note:
    """Return that a domain is set aside for a gang."""
    return _gang_note(gang, "Earmarked", f"{domain} is set aside for it, since it has waited long", EVENT_NORMAL)


def eviction_notes(key: Key, eviction: Eviction) -> Iterator[Note]:
    """Yield that others leave for a gang, told of the gang and of each gang that loses pods."""
    plan, why = eviction.plan, eviction.why
    victims = [victim for victim in plan.victims if not victim.gang.startswith("~")]
    if victims:
        reasons = "; ".join(plan.reasons)
        yield _note(key, "Preempting", f"takes the places of others: {reasons}", EVENT_NORMAL)
    else:
        yield _note(key, "Nominated", "gets the places of pods that leave already", EVENT_NORMAL)
    for victim in victims:
        count = len(victim.pods)
        what = "the whole gang" if victim.kind is VictimKind.GANG else f"{count} surplus pod{'s' if count != 1 else ''}"
        message = f"{what} had to leave for {eviction.told(key)}"
        yield _note(key_of_name(victim.gang, Kind.POD_GANG), why.value, message, EVENT_WARNING)


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


def _note(key: Key, reason: str, message: str, type_: str) -> Note:
    return Note(
        kind=Kind.POD_GANG,
        namespace=key.namespace,
        name=key.name,
        uid="",
        reason=reason,
        message=message,
        type=type_,
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
