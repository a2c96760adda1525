"""Following output over a server that goes away: each line once, and the end of the run is the end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from grove.v1 import container_pb2 as pb
from grove_client import UnavailableError, connect
from grove_client.containers import LogRequest

Stream = Sequence[pb.ContainerServiceLogsResponse]


def head(run: int = 0, uid: str = "uid") -> pb.ContainerServiceLogsResponse:
    """Return the first piece of a stream."""
    return pb.ContainerServiceLogsResponse(container="main", run=run, pod_uid=uid)


def piece(*lines: str) -> pb.ContainerServiceLogsResponse:
    """Return a piece; "3 x" is the line x of second 3."""
    words = [line.split() for line in lines]
    return pb.ContainerServiceLogsResponse(
        lines=[
            pb.LogLine(time=f"2026-01-01T00:00:0{second}.000000000Z", content=text.encode()) for second, text in words
        ]
    )


class Server:
    """Answers each call with the next stream; all but the last one are cut off."""

    def __init__(self, streams: Sequence[Stream]) -> None:
        self._streams = list(streams)
        self.asked: list[pb.ContainerServiceLogsRequest] = []

    def handler(self) -> grpc.GenericRpcHandler:
        """Return what serves Logs."""
        logs: grpc.RpcMethodHandler[Any, Any] = grpc.unary_stream_rpc_method_handler(
            self.logs,
            request_deserializer=pb.ContainerServiceLogsRequest.FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )
        return grpc.method_handlers_generic_handler("grove.v1.ContainerService", {"Logs": logs})

    async def logs(
        self,
        request: pb.ContainerServiceLogsRequest,
        context: grpc.aio.ServicerContext[pb.ContainerServiceLogsRequest, pb.ContainerServiceLogsResponse],
    ) -> AsyncIterator[pb.ContainerServiceLogsResponse]:
        """Answer."""
        self.asked.append(request)
        for each in self._streams.pop(0):
            yield each
        if self._streams:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "away")


@asynccontextmanager
async def serving(*streams: Stream) -> AsyncIterator[tuple[Server, str]]:
    """Run a server; give it and its address."""
    served, server = Server(streams), grpc.aio.server()
    server.add_generic_rpc_handlers([served.handler()])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield served, f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


async def told(address: str, *, follow: bool = True) -> str:
    """Return the lines that a reader sees, in order."""
    async with connect(address) as grove:
        request = LogRequest(pod="p", follow=follow, tail_lines=5)
        return "".join([line.content.decode() async for each in grove.containers.logs(request) for line in each.lines])


async def test_lines_of_one_moment_are_told_once() -> None:
    """Many lines have one time; those that were told before the cut are left out, those after it are not."""
    first = (head(), piece("1 a", "1 b", "2 c"), piece("2 d"))
    second = (head(), piece("2 c", "2 d", "2 e", "3 f"))
    third = (head(), piece("3 f", "3 g"))
    async with serving(first, second, third) as (server, address):
        assert await told(address) == "abcdefg"
    assert [request.since_time[17:19] for request in server.asked] == ["", "02", "03"]
    assert [request.HasField("tail_lines") for request in server.asked] == [True, False, False]


@pytest.mark.parametrize("other", [head(run=1), head(uid="next")])
async def test_another_run_is_not_taken_for_the_one_before(other: pb.ContainerServiceLogsResponse) -> None:
    """When the container or its pod was replaced meanwhile, following ends."""
    async with serving((head(), piece("1 a")), (other, piece("1 a", "2 b"))) as (_, address):
        assert await told(address) == "a"


async def test_only_what_is_followed_is_asked_for_again() -> None:
    """A question that was cut off fails; so does following that never began."""
    for stream, follow in (((head(), piece("1 a")), False), ((), True)):
        async with serving(stream, ()) as (server, address):
            with pytest.raises(UnavailableError):
                await told(address, follow=follow)
        assert len(server.asked) == 1
