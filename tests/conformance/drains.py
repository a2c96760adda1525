"""A router as small as one can be: the generated stubs, a drain watch, and answers when the test says so."""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from typing import Final, Self

import grpc

from grove.v1 import endpoint_pb2 as pb
from grove.v1.endpoint_pb2_grpc import EndpointServiceStub
from tests.waiting import until

TIMEOUT_S: Final = 20.0


class Router:
    """A router of one set. Entering it watches; leaving it hangs up without a word, as a router that dies does."""

    def __init__(self, address: str, name: str, set_name: str, *, namespace: str = "default", token: str = "") -> None:
        self._address = address
        self.name = name
        self.namespace = namespace
        self.set_name = set_name
        self.token = token
        self.steps: list[pb.EndpointServiceWatchDrainsResponse] = []
        self.is_synced = False
        self.ended: grpc.StatusCode | None = None

    async def __aenter__(self) -> Self:
        self.channel = grpc.aio.insecure_channel(self._address)
        self.stub = EndpointServiceStub(self.channel)
        self._task = asyncio.create_task(self._watch())
        await until(lambda: self.is_synced or self._task.done(), f"{self.name} watches")
        if self._task.done():
            await self._task
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        await self.channel.close()

    def told(self, type_: str) -> list[str]:
        """Return the pods of all steps of a type, in order."""
        return [step.object.pod for step in self.steps if step.type == type_]

    async def until_told(self, type_: str, count: int) -> list[str]:
        """Return the pods of all steps of a type once there are so many."""
        await until(lambda: len(self.told(type_)) >= count, f"{self.name} is told of {count} {type_}")
        return self.told(type_)

    async def acknowledge(self, *pods: str) -> pb.EndpointServiceAcknowledgeDrainResponse:
        """Leave pods."""
        request = pb.EndpointServiceAcknowledgeDrainRequest(namespace=self.namespace, pods=pods, router=self.name)
        return await self.stub.AcknowledgeDrain(request, timeout=TIMEOUT_S)

    async def renew(self) -> pb.EndpointServiceRenewLeaseResponse:
        """Renew the lease by hand."""
        request = pb.EndpointServiceRenewLeaseRequest(
            namespace=self.namespace, pod_clique_set=self.set_name, router=self.name
        )
        return await self.stub.RenewLease(request, timeout=TIMEOUT_S)

    async def leave(self) -> bool:
        """Say goodbye; return whether the server knew the router."""
        request = pb.EndpointServiceEndLeaseRequest(
            namespace=self.namespace, pod_clique_set=self.set_name, router=self.name
        )
        return (await self.stub.EndLease(request, timeout=TIMEOUT_S)).existed

    async def _watch(self) -> None:
        request = pb.EndpointServiceWatchDrainsRequest(
            namespace=self.namespace, pod_clique_set=self.set_name, router=self.name, resume_token=self.token
        )
        try:
            async for step in self.stub.WatchDrains(request):
                self.steps.append(step)
                self.token = step.resume_token
                self.is_synced |= step.type == "SYNCED"
        except grpc.aio.AioRpcError as error:
            self.ended = error.code()
            if not self.is_synced:
                raise
