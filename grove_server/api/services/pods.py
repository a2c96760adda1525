"""PodService: pods are made by their clique; a deleted one is replaced, and drained first if routers use it."""

from __future__ import annotations

from dataclasses import replace

from grove.v1 import pod_pb2 as pb
from grove_server.api.backend import Backend
from grove_server.api.conversions.requests import refuse_unknown_fields
from grove_server.api.named import change_named, check_names, keys_of
from grove_server.api.pipeline import Awaited, Call, Method
from grove_server.api.reading import DEFAULT_NAMESPACE, Reading, Requests
from grove_server.api.reasons import invalid_request
from grove_server.control.drains import count_cut_short
from grove_server.lifecycle.orders import NO_ORDERS
from grove_server.lifecycle.removal import StopReason, stopped
from grove_server.resources.meta import Kind
from grove_server.resources.violations import Reason as FieldReason
from grove_server.resources.workload import Pod


class PodService:
    """Pods: Get, List, Watch, Delete."""

    name = "grove.v1.PodService"

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._reading = Reading(
            backend.shared,
            Kind.POD,
            Requests(get=pb.PodServiceGetRequest, list=pb.PodServiceListRequest, watch=pb.PodServiceWatchRequest),
        )

    def methods(self) -> dict[str, Method]:
        """Return all methods."""
        return {**self._reading.methods(), "Delete": Awaited(pb.PodServiceDeleteRequest, self.delete)}

    async def delete(self, request: pb.PodServiceDeleteRequest, _call: Call) -> bytes:
        """Ask pods to stop, those that routers use after a drain; their clique makes new ones at once."""
        refuse_unknown_fields(request)
        check_names(request.names)
        if request.resource_version and len(request.names) > 1:
            raise invalid_request("resourceVersion", "only with a single name", reason=FieldReason.FORBIDDEN)

        def decide(pod: Pod) -> Pod | None:
            return self._stop(pod, must_drain=not request.skip_drain)

        pairs = await change_named(
            self._backend.shared.store,
            keys_of(Kind.POD, request.namespace or DEFAULT_NAMESPACE, request.names),
            decide,
            expected_version=request.resource_version,
            dry_run=request.validate_only,
            cause="api.delete",
        )
        if not request.validate_only:
            # A drain that goes on is the same object before and after.
            count_cut_short(sum(1 for pod, after in pairs if pod.is_draining and after is not pod))
        return b""

    def _stop(self, pod: Pod, *, must_drain: bool) -> Pod | None:
        """Decide what deletion does to one pod; what is on its way out already stays as it is."""
        if pod.is_terminating or (pod.is_draining and must_drain):
            return None
        now = self._backend.now()
        if not pod.node:
            return replace(pod, metadata=replace(pod.metadata, deleted_at=now))
        orders = NO_ORDERS
        if must_drain:
            orders = self._backend.orders.for_set(pod.metadata.namespace, pod.identity.set_name)
        return stopped(pod, StopReason.DELETED, orders, now)
