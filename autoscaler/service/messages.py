"""Decisions as messages, and what a policy's status says of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from autoscaler.acting.records import PolicySeen, epoch_seconds, rfc3339
from autoscaler.acting.scaling import CONFLICT, FAILED, Outcome
from autoscaler.decision import Decision, Proposal, RoleDecision
from autoscaler.observation import Freshness
from autoscaler.validating import Judged
from grove.v1.meta_pb2 import Condition
from grove.v1.scaling_decision_pb2 import (
    ScalingClamp,
    ScalingDecision,
    ScalingParameter,
    ScalingProposal,
    ScalingReading,
    ScalingRoleDecision,
)
from grove.v1.scaling_policy_pb2 import ScalingPolicyStatus, ScalingRoleStatus, ScalingSignalStatus
from grove_server.resources.duration import format_duration

# Of these a status has room within its 64 KiB; all of them are in Explain.
STATUS_ROLES_MAX: Final = 200
STATUS_SIGNALS_MAX: Final = 100
MESSAGE_LENGTH_MAX: Final = 200
_STATUS_WORDS: Final[Mapping[Freshness, str]] = {
    Freshness.FRESH: "Fresh",
    Freshness.STALE: "Stale",
    Freshness.MISSING: "Missing",
    Freshness.SUSPECT: "Suspect",
}


def decision_message(decision: Decision, outcome: Outcome) -> ScalingDecision:
    """Return the message of a decision with all that led to it."""
    namespace, _, name = decision.key.partition("/")
    return ScalingDecision(
        id=decision.id,
        namespace=namespace,
        policy=name,
        pod_clique_set=decision.set_name,
        copy=decision.copy,
        decided_at=rfc3339(decision.at),
        mode=decision.mode,
        outcome=outcome.word,
        message=outcome.message,
        roles=[_role(role) for role in decision.roles],
        readings=[_reading(reading) for reading in decision.readings],
        policy_generation=decision.generation,
        gpus_held=decision.gpus_held,
        gpus_max=decision.gpus_max,
        ratio=decision.ratio,
        demand=dict(decision.demand),
    )


def brief(message: ScalingDecision) -> ScalingDecision:
    """Return a decision without readings and parameters."""
    short = ScalingDecision()
    short.CopyFrom(message)
    del short.readings[:]
    for role in short.roles:
        del role.readings[:]
        del role.parameters[:]
    return short


def _role(role: RoleDecision) -> ScalingRoleDecision:
    return ScalingRoleDecision(
        name=role.name,
        role=role.role,
        target_kind=role.target_kind,
        target_name=role.target_name,
        current_replicas=role.current,
        ready_replicas=role.ready,
        pending_replicas=role.pending,
        draining_replicas=role.draining,
        desired_replicas=role.replicas,
        wanted_replicas=role.wanted,
        reason=role.reason,
        message=role.message,
        proposals=[_proposal(proposal) for proposal in role.proposals],
        clamps=[
            ScalingClamp(reason=clamp.reason, before=clamp.before, after=clamp.after, message=clamp.message)
            for clamp in role.clamps
        ],
        readings=[_reading(reading) for reading in role.readings],
        parameters=[
            ScalingParameter(name=each.name, value=each.value, unit=each.unit, source=each.source)
            for each in role.parameters
        ],
        would_change_if=role.would_change_if,
    )


def _proposal(proposal: Proposal) -> ScalingProposal:
    return ScalingProposal(
        policy=proposal.policy,
        replicas=proposal.replicas,
        floor=proposal.floor,
        reason=proposal.reason,
        formula=proposal.formula,
        trusted=proposal.is_trusted,
    )


def _reading(judged: Judged) -> ScalingReading:
    reading = judged.reading
    return ScalingReading(
        name=judged.name,
        value=judged.value,
        unit=reading.unit,
        status=judged.freshness,
        age=format_duration(round(max(0.0, reading.age_s), 1)),
        coverage=reading.reporting / reading.expected if reading.expected else None,
        source=reading.source,
        message=judged.message or reading.message,
    )


def status_message(
    seen: PolicySeen, decided: Sequence[tuple[Decision, Outcome]], scaled_at: Mapping[tuple[str, str, str], float]
) -> ScalingPolicyStatus:
    """Return the status of a policy without what is by hand; *decided* are the last decisions of its copies."""
    status = ScalingPolicyStatus(observed_generation=seen.generation)
    last = max(decided, key=lambda each: each[0].at, default=None)
    if last is not None:
        status.decision_id, status.decided_at = last[0].id, rfc3339(last[0].at)
    rows = [(decision, role) for decision, _ in decided for role in decision.roles]
    for decision, role in rows[:STATUS_ROLES_MAX]:
        at = scaled_at.get((role.target_kind, seen.namespace, role.target_name))
        status.roles.append(
            ScalingRoleStatus(
                copy=decision.copy,
                role=role.name,
                current=role.current,
                ready=role.ready,
                pending=role.pending,
                draining=role.draining,
                desired=role.replicas,
                reason=role.reason,
                message=role.message[:MESSAGE_LENGTH_MAX],
                last_scaled_at="" if at is None else rfc3339(at),
            )
        )
    if decided:
        first = decided[0][0]
        readings = [("", reading) for reading in first.readings]
        readings += [(role.name, reading) for role in first.roles for reading in role.readings]
        status.signals.extend(_signal(role, reading) for role, reading in readings[:STATUS_SIGNALS_MAX])
    status.conditions.extend(_conditions(seen, decided))
    return status


def _signal(role: str, judged: Judged) -> ScalingSignalStatus:
    return ScalingSignalStatus(
        name=judged.name,
        role=role,
        status=_STATUS_WORDS[judged.freshness],
        metric=judged.reading.source[:MESSAGE_LENGTH_MAX],
        message=(judged.message or judged.reading.message)[:MESSAGE_LENGTH_MAX],
    )


def _conditions(seen: PolicySeen, decided: Sequence[tuple[Decision, Outcome]]) -> list[Condition]:
    """Return what is true of the policy; a condition keeps the time at which it turned."""
    at = max((decision.at for decision, _ in decided), default=None)
    known = {each.type: each for each in seen.status.conditions}
    found = []
    for kind, is_true, reason, message in _facts(seen, decided):
        status = "True" if is_true else "False"
        before = known.get(kind)
        if before is not None and before.status == status and epoch_seconds(before.last_transition_time):
            turned_at = before.last_transition_time
        else:
            turned_at = "" if at is None else rfc3339(at)
        found.append(
            Condition(
                type=kind,
                status=status,
                reason=reason,
                message=message[:MESSAGE_LENGTH_MAX],
                last_transition_time=turned_at,
                observed_generation=seen.generation,
            )
        )
    return found


def _facts(seen: PolicySeen, decided: Sequence[tuple[Decision, Outcome]]) -> list[tuple[str, bool, str, str]]:
    if seen.problem:
        return [("Active", False, "Unreadable", seen.problem)]
    if not decided:
        return [("Active", False, "NoCopies", "the set is not there, has no copies, or the policy is off")]
    facts = [("Active", True, "Decided", "")]
    failed = [outcome for _, outcome in decided if outcome.word in (FAILED, CONFLICT)]
    facts.append(
        ("AbleToScale", False, f"Scale{failed[0].word}", failed[0].message)
        if failed
        else ("AbleToScale", True, "Able", "")
    )
    roles = [role for decision, _ in decided for role in decision.roles]
    conflicts = [role for role in roles if role.reason == "CONFLICT"]
    facts.append(("Conflict", bool(conflicts), "OtherOwner" if conflicts else "None", _first(conflicts)))
    unknown = [role for role in roles if role.reason in ("METRICS_STALE", "OUTAGE", "COVERAGE_LOW")]
    facts.append(("SignalsKnown", not unknown, unknown[0].reason.value if unknown else "Fresh", _first(unknown)))
    # What gave replicas up and what waits for their GPUs: a move that is under way, and goes on after a restart.
    giving = [role for role in roles if role.draining > 0]
    waiting = [role for role in roles if any(clamp.reason == "BUDGET_CAP" for clamp in role.clamps)]
    is_moving = bool(giving and waiting)
    message = f"{waiting[0].name} waits for GPUs that drain in {giving[0].name}" if is_moving else ""
    facts.append(("Moving", is_moving, "DonorDrains" if is_moving else "None", message))
    return facts


def _first(roles: Sequence[RoleDecision]) -> str:
    return f"{roles[0].name}: {roles[0].message}" if roles else ""
