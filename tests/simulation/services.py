"""The services of the contract as the simulated server has them: the real methods, asked without a transport.

A call is a request message handed to the method that serves it. What a stream writes is handed to its reader, who may
take its time: the method waits for it, as it would for a full connection.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

from grove.v1 import endpoint_pb2, node_pb2, pod_clique_set_pb2, pod_pb2
from grove_server.api.access import LOCAL
from grove_server.api.backend import Backend, ServerFacts
from grove_server.api.changes import Changes
from grove_server.api.forwarding import Forwarder, Trust
from grove_server.api.pages import Listings
from grove_server.api.pipeline import Call, Context
from grove_server.api.reading import Shared
from grove_server.api.services.endpoints import EndpointService
from grove_server.api.services.nodes import NodeService
from grove_server.api.services.pods import PodService
from grove_server.api.services.rollouts import Rollouts
from grove_server.api.streams import Streams
from grove_server.api.views import Views
from grove_server.control.plane import ControlPlane
from grove_server.resources.meta import Key
from grove_server.runtime.containers import NoContainers
from grove_server.store.interface import Store

Write = Callable[[bytes], Awaitable[None]]

_VIEWS_BYTES_MAX: Final = 1 << 20
_ROLLOUT_REQUESTS: Final = {
    "pause": pod_clique_set_pb2.PodCliqueSetServicePauseRolloutRequest,
    "resume": pod_clique_set_pb2.PodCliqueSetServiceResumeRolloutRequest,
    "undo": pod_clique_set_pb2.PodCliqueSetServiceUndoRolloutRequest,
    "restart": pod_clique_set_pb2.PodCliqueSetServiceRestartRolloutRequest,
}


class Services:
    """What people and routers ask of one start of the server. All methods may raise ApiError or a StoreError."""

    def __init__(
        self,
        store: Store,
        plane: ControlPlane,
        changes: Changes,
        epoch_now: Callable[[], float],
        steady_now: Callable[[], float],
    ) -> None:
        views = Views(_VIEWS_BYTES_MAX)
        backend = Backend(
            shared=Shared(store=store, views=views, listings=Listings(steady_now), streams=Streams(views)),
            changes=changes,
            placement=plane.planning,
            routers=plane.routers,
            loads=plane.loads,
            orders=plane.orders,
            chronicle=plane.chronicle,
            autoscalers=plane.autoscalers,
            forwarder=Forwarder(plane.autoscalers, Trust()),
            containers=NoContainers("fake"),
            now=epoch_now,
            facts=ServerFacts(version="", commit="", store="simulated", runtime="fake", started_at=epoch_now()),
        )
        self._rollouts = Rollouts(backend)
        self._nodes = NodeService(backend)
        self._pods = PodService(backend)
        self._endpoints = EndpointService(backend)

    async def steer(self, verb: str, key: Key) -> None:
        """Pause, resume, undo or restart the update of a set."""
        request = _ROLLOUT_REQUESTS[verb](namespace=key.namespace, name=key.name)
        await getattr(self._rollouts, verb)(request, _NO_CALL)

    async def drain_nodes(self, names: list[str]) -> None:
        """Empty nodes."""
        await self._nodes.drain(node_pb2.NodeServiceDrainRequest(names=names), _NO_CALL)

    async def cordon_nodes(self, names: list[str]) -> None:
        """Keep new pods off nodes."""
        await self._nodes.cordon(node_pb2.NodeServiceCordonRequest(names=names), _NO_CALL)

    async def uncordon_nodes(self, names: list[str]) -> None:
        """Let nodes have pods again."""
        await self._nodes.uncordon(node_pb2.NodeServiceUncordonRequest(names=names), _NO_CALL)

    async def delete_pods(self, namespace: str, names: list[str], *, skip_drain: bool) -> None:
        """Ask pods to stop, after their drain or at once."""
        request = pod_pb2.PodServiceDeleteRequest(namespace=namespace, names=names, skip_drain=skip_drain)
        await self._pods.delete(request, _NO_CALL)

    async def watch_drains(self, namespace: str, set_name: str, router: str, token: str, write: Write) -> None:
        """Hand the steps of a drain watch to *write* until it is cancelled."""
        request = endpoint_pb2.EndpointServiceWatchDrainsRequest(
            namespace=namespace, pod_clique_set=set_name, router=router, resume_token=token
        )
        await self._endpoints.watch_drains(request, _call(write))

    async def acknowledge_drain(self, namespace: str, pods: list[str], router: str) -> None:
        """Say that a router has left pods."""
        request = endpoint_pb2.EndpointServiceAcknowledgeDrainRequest(namespace=namespace, pods=pods, router=router)
        await self._endpoints.acknowledge_drain(request, _NO_CALL)

    async def renew_lease(self, namespace: str, set_name: str, router: str) -> None:
        """Say that a router lives."""
        request = endpoint_pb2.EndpointServiceRenewLeaseRequest(
            namespace=namespace, pod_clique_set=set_name, router=router
        )
        await self._endpoints.renew_lease(request, _NO_CALL)

    async def end_lease(self, namespace: str, set_name: str, router: str) -> None:
        """Say that a router leaves."""
        request = endpoint_pb2.EndpointServiceEndLeaseRequest(
            namespace=namespace, pod_clique_set=set_name, router=router
        )
        await self._endpoints.end_lease(request, _NO_CALL)


class _Pipe:
    """The part of a transport's context that streams use."""

    def __init__(self, write: Write) -> None:
        self._write = write

    async def write(self, payload: bytes) -> None:
        """Hand over one message."""
        await self._write(payload)


def _call(write: Write) -> Call:
    return Call(cast("Context", _Pipe(write)), LOCAL, "simulated", _count_nothing)


def _count_nothing(_count: float) -> None:
    """Count nothing: there is no page of metrics."""


async def _refuse(_payload: bytes) -> None:
    message = "a call that answers once writes no stream"
    raise AssertionError(message)


_NO_CALL: Final[Any] = _call(_refuse)
