"""EndpointService: what routers are told about pods that stop, and how they answer.

Here a router is a name that its process gave itself; whoever may write may speak for it. How long a router is waited
for is counted by the control room (``RoutersPort``), and what a drain waits for is lifecycle's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from grove.v1 import endpoint_pb2 as pb
from grove_server.api.backend import Backend
from grove_server.api.changes import ATTEMPTS_MAX
from grove_server.api.conversions.drains import DrainSteps
from grove_server.api.conversions.requests import refuse_unknown_fields
from grove_server.api.conversions.timestamps import rfc3339
from grove_server.api.named import change_named, check_names, keys_of
from grove_server.api.pipeline import Awaited, Call, Method, Ready, Streamed
from grove_server.api.reading import DEFAULT_NAMESPACE
from grove_server.api.reasons import ApiError, Reason, invalid_request, router_not_registered, too_many_routers
from grove_server.control.loads import LOAD_TTL_S
from grove_server.control.routers import LEASE_S, ROUTERS_PER_SET_MAX, TooManyRoutersError
from grove_server.resources.duration import format_duration
from grove_server.resources.labels import PART_OF
from grove_server.resources.meta import Key, Kind
from grove_server.resources.names import dns_subdomain_problem
from grove_server.resources.selector import parse_selector
from grove_server.resources.violations import Reason as FieldReason
from grove_server.resources.workload import Pod

# Routers of the set and of its whole namespace; more can only have answered if some of them are gone.
_ACKS_MAX: Final = 2 * ROUTERS_PER_SET_MAX


class EndpointService:
    """Endpoints: WatchDrains, AcknowledgeDrain, RenewLease, ListRouters, EndLease, ReportLoad."""

    name = "grove.v1.EndpointService"

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._routers = backend.routers

    def methods(self) -> dict[str, Method]:
        """Return all methods."""
        return {
            "WatchDrains": Streamed(pb.EndpointServiceWatchDrainsRequest, self.watch_drains),
            "AcknowledgeDrain": Awaited(pb.EndpointServiceAcknowledgeDrainRequest, self.acknowledge_drain),
            "RenewLease": Awaited(pb.EndpointServiceRenewLeaseRequest, self.renew_lease),
            "ListRouters": Ready(pb.EndpointServiceListRoutersRequest, self.list_routers),
            "EndLease": Awaited(pb.EndpointServiceEndLeaseRequest, self.end_lease),
            "ReportLoad": Ready(pb.EndpointServiceReportLoadRequest, self.report_load),
        }

    async def watch_drains(self, request: pb.EndpointServiceWatchDrainsRequest, call: Call) -> None:
        """Register the router, then tell it of drains until the stream ends."""
        refuse_unknown_fields(request)
        namespace, set_name = _scope(request.namespace, request.pod_clique_set)
        _demand_router(request.router)
        shared = self._backend.shared
        # Only who can be served is registered: a bad token must not make drains wait for a reader that never comes.
        watch = shared.store.watch(
            Kind.POD,
            namespace=namespace,
            labels=parse_selector(f"{PART_OF}={set_name}") if set_name else None,
            token=request.resume_token or None,
        )
        try:
            await self._renew(namespace, set_name, request.router)
        except BaseException:
            watch.close()
            raise
        steps = DrainSteps(is_resumed=bool(request.resume_token))
        with self._routers.watching(namespace, set_name, request.router):
            await shared.streams.serve(watch, call, encode=steps.encode)

    async def acknowledge_drain(self, request: pb.EndpointServiceAcknowledgeDrainRequest, _call: Call) -> bytes:
        """Note on each pod that the router has left it; the loops do the rest."""
        refuse_unknown_fields(request)
        namespace = request.namespace or DEFAULT_NAMESPACE
        _demand_router(request.router)
        check_names(request.pods, field="pods")
        after = await self._acknowledge(keys_of(Kind.POD, namespace, request.pods), request.router)
        answer = pb.EndpointServiceAcknowledgeDrainResponse()
        for name in request.pods:
            pod = after.get(name)
            if pod is None or pod.is_terminating:
                answer.gone.append(name)
            elif pod.is_draining:
                answer.acknowledged.append(name)
            else:
                answer.not_draining.append(name)
        for set_name in {pod.identity.set_name for pod in after.values()}:
            self._routers.touch(namespace, set_name, request.router)
        return answer.SerializeToString()

    async def renew_lease(self, request: pb.EndpointServiceRenewLeaseRequest, _call: Call) -> bytes:
        """Register a router or renew its lease."""
        refuse_unknown_fields(request)
        namespace, set_name = _scope(request.namespace, request.pod_clique_set)
        _demand_router(request.router)
        is_new = await self._renew(namespace, set_name, request.router)
        return pb.EndpointServiceRenewLeaseResponse(
            lease=format_duration(LEASE_S), registered=is_new
        ).SerializeToString()

    def list_routers(self, request: pb.EndpointServiceListRoutersRequest) -> bytes:
        """Return who is waited for."""
        refuse_unknown_fields(request)
        namespace, set_name = _scope(request.namespace, request.pod_clique_set)
        routers = [
            pb.Router(
                name=known.registration.router,
                pod_clique_set=known.registration.set_name,
                registered_at=rfc3339(known.registration.metadata.created_at),
                watches=known.watches,
                lease_left=format_duration(round(known.left_s, 3)),
            )
            for known in self._routers.known(namespace, set_name)
        ]
        return pb.EndpointServiceListRoutersResponse(routers=routers).SerializeToString()

    async def end_lease(self, request: pb.EndpointServiceEndLeaseRequest, _call: Call) -> bytes:
        """Forget a router."""
        refuse_unknown_fields(request)
        namespace, set_name = _scope(request.namespace, request.pod_clique_set)
        _demand_router(request.router)
        existed = await self._routers.end(namespace, set_name, request.router)
        return pb.EndpointServiceEndLeaseResponse(existed=existed).SerializeToString()

    def report_load(self, request: pb.EndpointServiceReportLoadRequest) -> bytes:
        """Take in how busy pods are; it is kept in memory for a while."""
        refuse_unknown_fields(request)
        if not request.pod_clique_set:
            raise invalid_request("podCliqueSet", "is required", reason=FieldReason.REQUIRED)
        namespace, set_name = _scope(request.namespace, request.pod_clique_set)
        _demand_router(request.router)
        check_names([each.pod for each in request.loads], field="loads")
        self._routers.touch(namespace, set_name, request.router)
        loads = {each.pod: max(each.requests_in_flight, 0) + max(each.requests_queued, 0) for each in request.loads}
        known = self._backend.loads.report(namespace, set_name, request.router, loads)
        return pb.EndpointServiceReportLoadResponse(
            accepted=known, unknown=len(loads) - known, valid_for=format_duration(LOAD_TTL_S)
        ).SerializeToString()

    async def _renew(self, namespace: str, set_name: str, router: str) -> bool:
        try:
            return await self._routers.renew(namespace, set_name, router)
        except TooManyRoutersError as error:
            raise too_many_routers(error.count_max, of_set=error.of_set) from error

    async def _acknowledge(self, keys: Sequence[Key], router: str) -> dict[str, Pod]:
        """Mark the pods that drain; return all that exist, as they are then."""

        def decide(pod: Pod) -> Pod | None:
            if pod.is_terminating or not pod.is_draining:
                return None
            if not self._routers.is_known(pod.metadata.namespace, pod.identity.set_name, router):
                raise router_not_registered(router, pod.identity.set_name)
            if router in pod.drain_acks:
                return None
            return replace(pod, drain_acks=(*pod.drain_acks, router)[-_ACKS_MAX:])

        store = self._backend.shared.store
        for _ in range(ATTEMPTS_MAX):
            reader = store.read()
            there = [key for key in keys if reader.get(Pod, key.namespace, key.name) is not None]
            try:
                pairs = await change_named(store, there, decide, cause="api.drain-ack")
            except ApiError as error:
                # A pod went while its acknowledgement was on its way: that is what it is for.
                if error.reason is not Reason.NOT_FOUND:
                    raise
                continue
            return {after.metadata.name: after for _, after in pairs}
        raise ApiError(
            reason=Reason.VERSION_CONFLICT, message="the pods change faster than they can be marked; call again"
        )


def _scope(namespace: str, set_name: str) -> tuple[str, str]:
    if set_name and (problem := dns_subdomain_problem(set_name)) is not None:
        raise invalid_request("podCliqueSet", problem)
    return namespace or DEFAULT_NAMESPACE, set_name


def _demand_router(router: str) -> None:
    if not router:
        raise invalid_request("router", "is required", reason=FieldReason.REQUIRED)
    problem = dns_subdomain_problem(router)
    if problem is not None:
        raise invalid_request("router", problem)
