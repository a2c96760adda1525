"""How the router knows its engines: it watches pods, watches drains and acknowledges them, and tells how busy pods are.

A pod's role is its label ``inference-role``, which the set's template gives it. Drains of pods that are no engines of
this router, its own among them, are acknowledged at once: it has nothing there. What is under way with a drain survives
a lost connection, since acknowledging twice changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import grpc

from examples.router.fleet import Fleet
from grove.v1 import endpoint_pb2 as pb
from grove.v1.endpoint_pb2_grpc import EndpointServiceStub
from grove.v1.pod_pb2 import Pod
from grove_client import GroveClient, GroveError

ROLE_LABEL: Final = "inference-role"
REPORT_EVERY_S: Final = 5.0
RETRY_AFTER_S: Final = 0.5
CALL_TIMEOUT_S: Final = 10.0
_LOADS_MAX: Final = 1_000
_LOG: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """Whom a router serves, and under which name."""

    namespace: str
    set_name: str
    copy: str
    router: str

    @property
    def selector(self) -> str:
        """The labels of the copy's pods."""
        return f"app.kubernetes.io/part-of={self.set_name},grove.io/podcliqueset-replica-index={self.copy}"


class Follower:
    """Keeps a fleet as the server says it is."""

    def __init__(self, channel: grpc.aio.Channel, served: Served, fleet: Fleet) -> None:
        self._grove = GroveClient(channel)
        self._stub: Any = EndpointServiceStub(channel)
        self._served = served
        self._fleet = fleet
        self._token = ""
        self._leaving: dict[str, asyncio.Task[None]] = {}
        self.knows_pods = asyncio.Event()
        self.knows_drains = asyncio.Event()

    async def run(self) -> None:
        """Follow until cancelled; GroveError if the server refuses for good."""
        works: tuple[Coroutine[Any, Any, None], ...] = (self._pods(), self._drains(), self._reports())
        try:
            async with asyncio.TaskGroup() as group:
                for work in works:
                    group.create_task(work)
        finally:
            for task in self._leaving.values():
                task.cancel()

    async def end(self) -> None:
        """Say goodbye, so that no drain waits for this router's lease to run out."""
        served = self._served
        request = pb.EndpointServiceEndLeaseRequest(
            namespace=served.namespace, pod_clique_set=served.set_name, router=served.router
        )
        try:
            await self._stub.EndLease(request, timeout=CALL_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            _LOG.warning("the lease runs out by itself: %s", error.code().name)

    async def _pods(self) -> None:
        served = self._served
        async for event in self._grove.pods.watch(namespace=served.namespace, label_selector=served.selector):
            if event.type == "SYNCED":
                self.knows_pods.set()
            elif event.object is not None:
                self._pod(event.type, event.object)

    def _pod(self, type_: str, pod: Pod) -> None:
        uid, role = pod.metadata.uid, pod.metadata.labels.get(ROLE_LABEL, "")
        states = {condition.type: condition.status for condition in pod.status.conditions}
        if type_ == "DELETED":
            self._fleet.gone(uid)
        elif role and pod.status.pod_ip and states.get("Ready") == "True":
            if states.get("Draining") == "True":
                self._fleet.leave(uid)
            self._fleet.ready(uid=uid, pod=pod.metadata.name, role=role, address=pod.status.pod_ip)
        else:
            self._fleet.unready(uid)

    async def _drains(self) -> None:
        served = self._served
        while True:
            request = pb.EndpointServiceWatchDrainsRequest(
                namespace=served.namespace,
                pod_clique_set=served.set_name,
                router=served.router,
                resume_token=self._token,
            )
            try:
                async for step in self._stub.WatchDrains(request):
                    self._token = step.resume_token
                    self._drain(step)
            except grpc.aio.AioRpcError as error:
                if error.code() == grpc.StatusCode.INVALID_ARGUMENT:
                    raise
                if error.code() == grpc.StatusCode.OUT_OF_RANGE:
                    self._token = ""
                _LOG.warning("the watch of drains ended: %s", error.code().name)
            await asyncio.sleep(RETRY_AFTER_S)

    def _drain(self, step: pb.EndpointServiceWatchDrainsResponse) -> None:
        drain = step.object
        if step.type == "SYNCED":
            self.knows_drains.set()
        elif step.type in ("ADDED", "MODIFIED") and self._served.router not in drain.acknowledged_by:
            self._fleet.leave(drain.uid)
            if drain.uid not in self._leaving:
                task = asyncio.create_task(self._leave(drain.uid, drain.pod))
                self._leaving[drain.uid] = task
                task.add_done_callback(partial(self._is_left, drain.uid))
        elif step.type == "DELETED" and drain.uid in self._leaving:
            self._leaving[drain.uid].cancel()

    def _is_left(self, uid: str, _: asyncio.Task[None]) -> None:
        self._leaving.pop(uid, None)

    async def _leave(self, uid: str, pod: str) -> None:
        await self._fleet.idle(uid)
        request = pb.EndpointServiceAcknowledgeDrainRequest(
            namespace=self._served.namespace, pods=[pod], router=self._served.router
        )
        while True:
            try:
                await self._stub.AcknowledgeDrain(request, timeout=CALL_TIMEOUT_S)
            except grpc.aio.AioRpcError as error:
                _LOG.warning("the drain of %s is not acknowledged yet: %s", pod, error.code().name)
                await asyncio.sleep(RETRY_AFTER_S)
            else:
                _LOG.info("left %s", pod)
                return

    async def _reports(self) -> None:
        served = self._served
        while True:
            await asyncio.sleep(REPORT_EVERY_S)
            busiest = sorted(self._fleet.places.values(), key=lambda place: (-place.in_flight, place.uid))
            loads = {place.pod: (place.in_flight, 0) for place in busiest[:_LOADS_MAX]}
            if not loads:
                continue
            try:
                await self._grove.report_load(served.set_name, served.router, loads, namespace=served.namespace)
            except GroveError as error:
                _LOG.warning("the load is not reported: %s", error)
