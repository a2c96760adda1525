"""Scaling policies as messages, and their status back from a message.

The spec goes through its JSON, which message and schema share field by field (a test compares them): policies are few
and change by hand. Times of the status are epoch seconds inside and RFC 3339 on the wire.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from google.protobuf import json_format
from pydantic import TypeAdapter

from grove.v1 import scaling_decision_pb2, scaling_policy_pb2
from grove_server.api.conversions.metadata import condition_messages, object_meta
from grove_server.api.conversions.timestamps import epoch_seconds, optional_rfc3339, rfc3339
from grove_server.resources.meta import API_VERSIONS, Condition, Kind
from grove_server.resources.scaling_policy import (
    OverrideStatus,
    PauseStatus,
    RoleScalingStatus,
    ScalingPolicy,
    ScalingPolicySpec,
    ScalingPolicyStatus,
    SignalStatus,
)

_SPEC: Final = TypeAdapter(ScalingPolicySpec)


def scaling_policy_message(resource: ScalingPolicy) -> scaling_policy_pb2.ScalingPolicy:
    """Return the message of a policy."""
    message = scaling_policy_pb2.ScalingPolicy(
        api_version=API_VERSIONS[Kind.SCALING_POLICY],
        kind=Kind.SCALING_POLICY.value,
        metadata=object_meta(resource.metadata, resource.resource_version),
        status=_status_message(resource.status),
    )
    json_format.ParseDict(_SPEC.dump_python(resource.spec, mode="json", by_alias=True, exclude_none=True), message.spec)
    return message


def _status_message(status: ScalingPolicyStatus) -> scaling_policy_pb2.ScalingPolicyStatus:
    return scaling_policy_pb2.ScalingPolicyStatus(
        observed_generation=status.observed_generation,
        conditions=condition_messages(status.conditions),
        autoscaler=status.autoscaler,
        decision_id=status.decision_id,
        decided_at=optional_rfc3339(status.decided_at),
        roles=[_role_message(role) for role in status.roles],
        signals=[
            scaling_policy_pb2.ScalingSignalStatus(
                name=signal.name,
                role=signal.role,
                status=signal.status,
                metric=signal.metric,
                message=signal.message,
            )
            for signal in status.signals
        ],
        pauses=[
            scaling_policy_pb2.ScalingPause(
                direction=pause.direction, until=rfc3339(pause.until), reason=pause.reason, actor=pause.actor
            )
            for pause in status.pauses
        ],
        overrides=[
            scaling_policy_pb2.ScalingOverride(
                role=each.role,
                copy=each.copy,
                replicas=each.replicas,
                until=rfc3339(each.until),
                reason=each.reason,
                actor=each.actor,
            )
            for each in status.overrides
        ],
    )


def _role_message(role: RoleScalingStatus) -> scaling_policy_pb2.ScalingRoleStatus:
    return scaling_policy_pb2.ScalingRoleStatus(
        copy=role.copy,
        role=role.role,
        current=role.current,
        ready=role.ready,
        pending=role.pending,
        draining=role.draining,
        desired=role.desired,
        reason=role.reason,
        message=role.message,
        last_scaled_at=optional_rfc3339(role.last_scaled_at),
    )


def status_of(message: scaling_policy_pb2.ScalingPolicyStatus) -> ScalingPolicyStatus:
    """Return the status that a message holds. Raises ValueError for a time that is none."""
    return ScalingPolicyStatus(
        observed_generation=message.observed_generation,
        conditions=tuple(
            Condition(
                type=each.type,
                status=each.status,
                reason=each.reason,
                message=each.message,
                last_transition_at=_read(each.last_transition_time) or 0.0,
                observed_generation=each.observed_generation,
            )
            for each in message.conditions
        ),
        autoscaler=message.autoscaler,
        decision_id=message.decision_id,
        decided_at=_read(message.decided_at),
        roles=tuple(_role_of(each) for each in message.roles),
        signals=tuple(
            SignalStatus(name=each.name, role=each.role, status=each.status, metric=each.metric, message=each.message)
            for each in message.signals
        ),
        pauses=tuple(
            PauseStatus(direction=each.direction, until=_read(each.until) or 0.0, reason=each.reason, actor=each.actor)
            for each in message.pauses
        ),
        overrides=tuple(_override_of(each) for each in message.overrides),
    )


def _role_of(message: scaling_policy_pb2.ScalingRoleStatus) -> RoleScalingStatus:
    return RoleScalingStatus(
        copy=message.copy,
        role=message.role,
        current=message.current,
        ready=message.ready,
        pending=message.pending,
        draining=message.draining,
        desired=message.desired,
        reason=message.reason,
        message=message.message,
        last_scaled_at=_read(message.last_scaled_at),
    )


def _override_of(message: scaling_policy_pb2.ScalingOverride) -> OverrideStatus:
    return OverrideStatus(
        role=message.role,
        copy=message.copy if message.HasField("copy") else None,
        replicas=message.replicas,
        until=_read(message.until) or 0.0,
        reason=message.reason,
        actor=message.actor,
    )


def remembered_decisions(policy: ScalingPolicy) -> Iterable[scaling_decision_pb2.ScalingDecision]:
    """Yield what the status still knows of the last decision about each copy, by its index."""
    status, spec = policy.status, policy.spec
    kinds = {role.name: role for role in spec.roles}
    for copy in sorted({role.copy for role in status.roles}):
        roles = []
        for each in status.roles:
            if each.copy != copy:
                continue
            role = kinds.get(each.role)
            roles.append(
                scaling_decision_pb2.ScalingRoleDecision(
                    name=each.role,
                    role="" if role is None else role.role,
                    current_replicas=each.current,
                    ready_replicas=each.ready,
                    pending_replicas=each.pending,
                    draining_replicas=each.draining,
                    desired_replicas=each.desired,
                    reason=each.reason,
                    message=each.message,
                )
            )
        yield scaling_decision_pb2.ScalingDecision(
            id=status.decision_id,
            namespace=policy.metadata.namespace,
            policy=policy.metadata.name,
            pod_clique_set=spec.pod_clique_set,
            copy=copy,
            decided_at=optional_rfc3339(status.decided_at),
            mode=spec.mode,
            policy_generation=status.observed_generation,
            roles=roles,
        )


def _read(text: str) -> float | None:
    return None if not text else epoch_seconds(text)
