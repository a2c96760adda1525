"""AutoscalerRegistryService: who scales, and who of them leads.

An autoscaler's name belongs to the caller that registered it, as its certificate names him, for as long as it lives.
Leases are the control room's (``AutoscalersPort``), and where an autoscaler may be called is ``forwarding``'s.
"""

from __future__ import annotations

from typing import Final

from grove.v1 import autoscaler_pb2 as pb
from grove_server.api.backend import Backend
from grove_server.api.conversions.requests import refuse_unknown_fields
from grove_server.api.conversions.timestamps import rfc3339
from grove_server.api.forwarding import callable_address
from grove_server.api.pipeline import Awaited, Call, Method, Ready
from grove_server.api.reasons import ApiError, Reason, invalid_request
from grove_server.control.autoscalers import (
    AUTOSCALERS_MAX,
    LEASE_S,
    AutoscalerNameTakenError,
    AutoscalerRaceError,
    TooManyAutoscalersError,
)
from grove_server.resources.duration import format_duration
from grove_server.resources.names import dns_subdomain_problem
from grove_server.resources.violations import Reason as FieldReason

_VERSION_LENGTH_MAX: Final = 128


class AutoscalerRegistryService:
    """Autoscalers: Register, Deregister, List."""

    name = "grove.v1.AutoscalerRegistryService"

    def __init__(self, backend: Backend) -> None:
        self._autoscalers = backend.autoscalers
        self._trust = backend.forwarder.trust

    def methods(self) -> dict[str, Method]:
        """Return all methods."""
        return {
            "Register": Awaited(pb.AutoscalerRegistryServiceRegisterRequest, self.register),
            "Deregister": Awaited(pb.AutoscalerRegistryServiceDeregisterRequest, self.deregister),
            "List": Ready(pb.AutoscalerRegistryServiceListRequest, self.list),
        }

    async def register(self, request: pb.AutoscalerRegistryServiceRegisterRequest, call: Call) -> bytes:
        """Register an autoscaler or renew its lease."""
        refuse_unknown_fields(request)
        _demand_name(request.name)
        if len(request.version) > _VERSION_LENGTH_MAX:
            raise invalid_request("version", f"must have at most {_VERSION_LENGTH_MAX} characters")
        address = callable_address(request.address, call.context.peer(), self._trust)
        try:
            standing = await self._autoscalers.register(
                request.name, str(address), version=request.version, identity=call.identity.name
            )
        except (AutoscalerNameTakenError, TooManyAutoscalersError, AutoscalerRaceError) as error:
            raise _refusal(request.name, error) from error
        return pb.AutoscalerRegistryServiceRegisterResponse(
            leads=standing.leads,
            leader=standing.leader,
            term=standing.term,
            lease=format_duration(LEASE_S),
            registered=standing.is_new,
        ).SerializeToString()

    async def deregister(self, request: pb.AutoscalerRegistryServiceDeregisterRequest, call: Call) -> bytes:
        """Forget an autoscaler."""
        refuse_unknown_fields(request)
        _demand_name(request.name)
        try:
            existed = await self._autoscalers.deregister(request.name, identity=call.identity.name)
        except (AutoscalerNameTakenError, AutoscalerRaceError) as error:
            raise _refusal(request.name, error) from error
        return pb.AutoscalerRegistryServiceDeregisterResponse(existed=existed).SerializeToString()

    def list(self, request: pb.AutoscalerRegistryServiceListRequest) -> bytes:
        """Return who is alive."""
        refuse_unknown_fields(request)
        autoscalers = [
            pb.RegisteredAutoscaler(
                name=known.registration.name,
                address=known.registration.address,
                version=known.registration.version,
                leads=known.leads,
                registered_at=rfc3339(known.registration.registered_at),
                lease_left=format_duration(round(known.left_s, 3)),
            )
            for known in self._autoscalers.known()
        ]
        return pb.AutoscalerRegistryServiceListResponse(
            autoscalers=autoscalers, term=self._autoscalers.term
        ).SerializeToString()


def _demand_name(name: str) -> None:
    if not name:
        raise invalid_request("name", "is required", reason=FieldReason.REQUIRED)
    problem = dns_subdomain_problem(name)
    if problem is not None:
        raise invalid_request("name", problem)


def _refusal(name: str, error: Exception) -> ApiError:
    match error:
        case AutoscalerNameTakenError():
            return ApiError(
                reason=Reason.AUTOSCALER_NAME_TAKEN,
                message=f"autoscaler {name} is registered by another caller; take another name",
                metadata={"autoscaler": name},
                preconditions=(("AUTOSCALER_NAME_TAKEN", name, "the name belongs to another caller"),),
            )
        case TooManyAutoscalersError():
            return ApiError(
                reason=Reason.TOO_MANY_AUTOSCALERS,
                message=f"there are {AUTOSCALERS_MAX} autoscalers already; those that are gone are forgotten soon",
                metadata={"limit": str(AUTOSCALERS_MAX)},
                retry_after_s=LEASE_S,
            )
        case _:
            return ApiError(
                reason=Reason.VERSION_CONFLICT, message="autoscalers come and go faster than one can join; call again"
            )
