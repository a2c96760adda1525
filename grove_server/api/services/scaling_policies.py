"""ScalingPolicyService: how sets follow their load, what is said of it, and what is asked of the autoscaler.

The server keeps policies and their status. What an autoscaler decides is known to it alone: Explain, Pause and Override
are handed on to the one that leads, after the server has looked whether the policy is there.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from grove.v1 import autoscaler_pb2
from grove.v1 import scaling_policy_pb2 as pb
from grove_server.api.backend import Backend
from grove_server.api.conversions.requests import refuse_unknown_fields
from grove_server.api.conversions.scaling_policies import remembered_decisions, status_of
from grove_server.api.conversions.wire import nested
from grove_server.api.named import change_named
from grove_server.api.pipeline import Awaited, Call, Method
from grove_server.api.reading import DEFAULT_NAMESPACE, Requests, demand_name
from grove_server.api.reasons import ApiError, Reason, invalid_request, not_found
from grove_server.api.services.owned import Messages, OwnedService
from grove_server.resources.duration import DurationError, parse_duration_ns
from grove_server.resources.meta import Key, Kind
from grove_server.resources.scaling_policy import PAUSED_IN, PAUSED_OUT, REPLICAS_MAX, ScalingPolicy
from grove_server.resources.violations import Reason as FieldReason
from grove_server.resources.violations import quoted

BOTH: Final = "both"
DIRECTIONS: Final = (BOTH, PAUSED_IN, PAUSED_OUT)
DURATION_MAX_S: Final = 168 * 3_600
REASON_LENGTH_MAX: Final = 256
STATUS_BYTES_MAX: Final = 64 << 10
"""About 600 roles of copies. A status is written every few seconds; what is longer belongs into Explain."""

# What is not live is shown with this in mind; a policy that was never decided about has nothing to show.
_UNANSWERED: Final = frozenset({Reason.AUTOSCALER_NOT_REGISTERED, Reason.AUTOSCALER_UNREACHABLE})


class ScalingPolicyService(OwnedService):
    """Policies: Apply, Create, Get, List, Update, Delete, Watch, UpdateStatus, and what is handed on."""

    name = "grove.v1.ScalingPolicyService"
    kind = Kind.SCALING_POLICY
    messages = Messages(
        apply=pb.ScalingPolicyServiceApplyRequest,
        create=pb.ScalingPolicyServiceCreateRequest,
        update=pb.ScalingPolicyServiceUpdateRequest,
        delete=pb.ScalingPolicyServiceDeleteRequest,
        reading=Requests(
            get=pb.ScalingPolicyServiceGetRequest,
            list=pb.ScalingPolicyServiceListRequest,
            watch=pb.ScalingPolicyServiceWatchRequest,
        ),
    )

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self._autoscalers = backend.autoscalers
        self._forwarder = backend.forwarder

    def methods(self) -> dict[str, Method]:
        """Return all methods."""
        return {
            **super().methods(),
            "UpdateStatus": Awaited(pb.ScalingPolicyServiceUpdateStatusRequest, self.update_status),
            "Explain": Awaited(pb.ScalingPolicyServiceExplainRequest, self.explain),
            "Pause": Awaited(pb.ScalingPolicyServicePauseRequest, self.pause),
            "Override": Awaited(pb.ScalingPolicyServiceOverrideRequest, self.override),
        }

    async def update_status(self, request: pb.ScalingPolicyServiceUpdateStatusRequest, _call: Call) -> bytes:
        """Write what the autoscaler that leads says."""
        refuse_unknown_fields(request)
        demand_name(request.name)
        size = request.status.ByteSize()
        if size > STATUS_BYTES_MAX:
            raise invalid_request("status", f"must have at most {STATUS_BYTES_MAX} bytes, has {size}")
        self._demand_leads(request.autoscaler, request.term)
        try:
            status = status_of(request.status)
        except (ValueError, OverflowError) as error:
            raise invalid_request("status", "has a time that is not RFC 3339 with an offset") from error

        def decide(policy: ScalingPolicy) -> ScalingPolicy | None:
            return None if policy.status == status else replace(policy, status=status)

        ((_, after),) = await change_named(
            self._backend.shared.store,
            [Key(self.kind, request.namespace or DEFAULT_NAMESPACE, request.name)],
            decide,
            expected_version=request.resource_version,
            cause="api.status",
        )
        return nested(1, self._backend.shared.views.of(after))

    async def explain(self, request: pb.ScalingPolicyServiceExplainRequest, call: Call) -> bytes:
        """Ask the autoscaler; without an answer, tell what the status holds, and that it is old."""
        refuse_unknown_fields(request)
        _demand_copy(request.copy)
        policy = self._find(request)
        asked = autoscaler_pb2.AutoscalerServiceExplainRequest(
            namespace=policy.metadata.namespace,
            name=request.name,
            copy=_optional(request, "copy"),
            decision_id=request.decision_id,
        )
        try:
            name, answer = await self._forwarder.ask(
                asked, autoscaler_pb2.AutoscalerServiceExplainResponse, request_id=call.request_id
            )
        except ApiError as error:
            if error.reason not in _UNANSWERED or request.decision_id:
                raise
            return _remembered(policy, request, error).SerializeToString()
        return pb.ScalingPolicyServiceExplainResponse(
            decisions=answer.decisions, notes=answer.notes, live=True, autoscaler=name
        ).SerializeToString()

    async def pause(self, request: pb.ScalingPolicyServicePauseRequest, call: Call) -> bytes:
        """Hand a pause on."""
        refuse_unknown_fields(request)
        policy = self._find(request)
        direction = request.direction or BOTH
        if direction not in DIRECTIONS:
            message = f"must be one of {', '.join(DIRECTIONS)}, got {quoted(direction)}"
            raise invalid_request("direction", message, reason=FieldReason.NOT_SUPPORTED)
        _demand_duration(request.duration)
        _demand_reason(request.reason)
        asked = autoscaler_pb2.AutoscalerServicePauseRequest(
            namespace=policy.metadata.namespace,
            name=request.name,
            direction=direction,
            duration=request.duration,
            reason=request.reason,
            actor=call.identity.name,
        )
        _, answer = await self._forwarder.ask(
            asked, autoscaler_pb2.AutoscalerServicePauseResponse, request_id=call.request_id
        )
        return pb.ScalingPolicyServicePauseResponse(until=answer.until, changed=answer.changed).SerializeToString()

    async def override(self, request: pb.ScalingPolicyServiceOverrideRequest, call: Call) -> bytes:
        """Hand a size on."""
        refuse_unknown_fields(request)
        _demand_copy(request.copy)
        policy = self._find(request)
        if request.role not in {role.name for role in policy.spec.roles}:
            names = ", ".join(role.name for role in policy.spec.roles)
            message = f"must be a role of the policy ({names}), got {quoted(request.role)}"
            raise invalid_request("role", message, reason=FieldReason.NOT_FOUND)
        does_begin = _demand_duration(request.duration)
        _demand_reason(request.reason)
        if does_begin and not request.HasField("replicas"):
            raise invalid_request("replicas", "is required", reason=FieldReason.REQUIRED)
        if not 0 <= request.replicas <= REPLICAS_MAX:
            raise invalid_request("replicas", f"must be between 0 and {REPLICAS_MAX}, got {request.replicas}")
        asked = autoscaler_pb2.AutoscalerServiceOverrideRequest(
            namespace=policy.metadata.namespace,
            name=request.name,
            role=request.role,
            copy=_optional(request, "copy"),
            replicas=_optional(request, "replicas"),
            duration=request.duration,
            reason=request.reason,
            actor=call.identity.name,
        )
        _, answer = await self._forwarder.ask(
            asked, autoscaler_pb2.AutoscalerServiceOverrideResponse, request_id=call.request_id
        )
        return pb.ScalingPolicyServiceOverrideResponse(until=answer.until, changed=answer.changed).SerializeToString()

    def _find(self, request: Any) -> ScalingPolicy:  # noqa: ANN401 -- a request with a namespace and a name
        """Return the policy that a request is about. Raises ApiError."""
        demand_name(request.name)
        namespace = request.namespace or DEFAULT_NAMESPACE
        policy = self._backend.shared.store.read().get(ScalingPolicy, namespace, request.name)
        if policy is None:
            raise not_found(self.kind.value, namespace, [request.name])
        return policy

    def _demand_leads(self, name: str, term: int) -> None:
        """Raise ApiError if another autoscaler than the caller leads; with nobody leading, a late one may still say."""
        leader = self._autoscalers.leader()
        if leader is None or (leader.registration.name, self._autoscalers.term) == (name, term):
            return
        raise ApiError(
            reason=Reason.AUTOSCALER_DOES_NOT_LEAD,
            message=f"autoscaler {leader.registration.name} leads, in term {self._autoscalers.term}",
            metadata={"leader": leader.registration.name, "term": str(self._autoscalers.term)},
            preconditions=(("AUTOSCALER_DOES_NOT_LEAD", name or "autoscaler", "another one writes the status"),),
        )


def _remembered(
    policy: ScalingPolicy, request: pb.ScalingPolicyServiceExplainRequest, error: ApiError
) -> pb.ScalingPolicyServiceExplainResponse:
    decisions = [
        decision
        for decision in remembered_decisions(policy)
        if not request.HasField("copy") or decision.copy == request.copy
    ]
    notes = [f"not live: {error.message}"]
    if not decisions:
        notes.append("nothing was decided about this policy yet")
    return pb.ScalingPolicyServiceExplainResponse(
        decisions=decisions, notes=notes, live=False, autoscaler=policy.status.autoscaler
    )


def _optional(request: Any, field: str) -> int | None:  # noqa: ANN401 -- a request with an optional number
    """Return the field, None where it is not set."""
    if not request.HasField(field):
        return None
    value: int = getattr(request, field)
    return value


def _demand_copy(copy: int) -> None:
    if copy < 0:
        raise invalid_request("copy", f"must be 0 or more, got {copy}")


def _demand_duration(text: str) -> bool:
    """Return whether something is to hold for a while, False if it is to end. Raises ApiError."""
    if not text:
        raise invalid_request("duration", "is required: everything by hand has an end", reason=FieldReason.REQUIRED)
    try:
        duration_s = parse_duration_ns(text) / 10**9
    except DurationError as error:
        raise invalid_request("duration", f"{error}, got {quoted(text)}") from error
    if duration_s and not 1 <= duration_s <= DURATION_MAX_S:
        raise invalid_request("duration", f"must be 0s, or between 1s and 168h, got {quoted(text)}")
    return duration_s > 0


def _demand_reason(text: str) -> None:
    if len(text) > REASON_LENGTH_MAX:
        message = f"must have at most {REASON_LENGTH_MAX} characters, has {len(text)}"
        raise invalid_request("reason", message, reason=FieldReason.TOO_LONG)
