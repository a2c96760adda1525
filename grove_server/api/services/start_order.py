"""StartOrderService: waiting until the containers of a pod may start.

A waiting call is a watch of one pod, so thousands of them cost what watches cost, and none has a deadline of its own.
Who starts after whom is lifecycle's; this only reads what it decided.
"""

from __future__ import annotations

from grove.v1 import start_order_pb2 as pb
from grove_server.api.backend import Backend
from grove_server.api.conversions.requests import refuse_unknown_fields
from grove_server.api.conversions.timestamps import optional_rfc3339
from grove_server.api.pipeline import Call, Method, Streamed
from grove_server.api.reading import DEFAULT_NAMESPACE, demand_name
from grove_server.api.reasons import being_deleted, not_found
from grove_server.resources.meta import Kind
from grove_server.resources.workload import WAITING_FOR_PARENTS, Pod
from grove_server.store.interface import EventType, WatchEvent


class StartOrderService:
    """Start order: Wait."""

    name = "grove.v1.StartOrderService"

    def __init__(self, backend: Backend) -> None:
        self._shared = backend.shared

    def methods(self) -> dict[str, Method]:
        """Return all methods."""
        return {"Wait": Streamed(pb.StartOrderServiceWaitRequest, self.wait)}

    async def wait(self, request: pb.StartOrderServiceWaitRequest, call: Call) -> None:
        """Tell where the pod stands until it is released."""
        refuse_unknown_fields(request)
        demand_name(request.pod)
        namespace = request.namespace or DEFAULT_NAMESPACE
        if self._shared.store.read().get(Pod, namespace, request.pod) is None:
            raise not_found(Kind.POD.value, namespace, [request.pod])
        watch = self._shared.store.watch(Kind.POD, namespace=namespace, name=request.pod)
        progress = _Progress(namespace, request.pod)
        await self._shared.streams.serve(watch, call, encode=progress.encode, is_over=lambda: progress.is_over)


class _Progress:
    """What one waiting call was told."""

    def __init__(self, namespace: str, pod: str) -> None:
        self._namespace = namespace
        self._pod = pod
        self._said: bytes | None = None
        self.is_over = False

    def encode(self, event: WatchEvent) -> bytes | None:
        """Return where the pod stands; again at each bookmark, which shows the caller that somebody is there.

        Raises ApiError when the pod cannot start any more.
        """
        pod = event.resource
        if event.type is EventType.DELETED:
            raise not_found(Kind.POD.value, self._namespace, [self._pod])
        if not isinstance(pod, Pod):
            return self._said if event.type is EventType.BOOKMARK else None
        if pod.is_terminating:
            raise being_deleted(Kind.POD.value, self._namespace, self._pod)
        self.is_over = not pod.is_held
        is_waiting = pod.is_held and pod.waiting_reason == WAITING_FOR_PARENTS
        self._said = pb.StartOrderServiceWaitResponse(
            released=self.is_over,
            message=pod.waiting_message if is_waiting else "",
            released_at=optional_rfc3339(pod.released_at),
        ).SerializeToString()
        return self._said
