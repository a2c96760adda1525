"""The watch that does not end, against a gRPC server whose streams follow a script."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import TypeAlias

import grpc
import pytest

import grove_client
from grove.v1.pod_gang_pb2 import PodGangServiceWatchRequest, PodGangServiceWatchResponse
from grove_client.watching import WatchPolicy

FAST = WatchPolicy(delay_min_s=0.001, delay_max_s=0.01, open_patience_s=1.0)

# A stream: messages, then how it ends. None is an end without error, "hang" stays silent.
Ending: TypeAlias = "grpc.StatusCode | str | None"
Stream: TypeAlias = "tuple[Sequence[PodGangServiceWatchResponse], Ending]"


def step(kind: str, name: str = "", version: str = "1", token: str = "", uid: str = "") -> PodGangServiceWatchResponse:
    """Return one message of a stream."""
    response = PodGangServiceWatchResponse(type=kind, resume_token=token)
    if name:
        response.object.metadata.name = name
        response.object.metadata.uid = uid or f"uid-{name}"
        response.object.metadata.resource_version = version
    return response


class Scripted:
    """Plays one stream after the other; notes the token that each was opened with."""

    def __init__(self, streams: Sequence[Stream]) -> None:
        self._streams = list(streams)
        self.tokens: list[str] = []

    async def watch(
        self,
        request: PodGangServiceWatchRequest,
        context: grpc.aio.ServicerContext[PodGangServiceWatchRequest, PodGangServiceWatchResponse],
    ) -> AsyncIterator[PodGangServiceWatchResponse]:
        """Play the next stream."""
        self.tokens.append(request.resume_token)
        messages, ending = self._streams.pop(0)
        for message in messages:
            yield message
        if isinstance(ending, grpc.StatusCode):
            await context.abort(ending, "as the script says")
        if ending == "hang":
            await asyncio.Event().wait()


@asynccontextmanager
async def served(*streams: Stream) -> AsyncIterator[tuple[Scripted, grove_client.GroveClient]]:
    """Serve the streams and connect to them."""
    scripted = Scripted(streams)
    server = grpc.aio.server()
    handler = grpc.unary_stream_rpc_method_handler(
        scripted.watch,
        request_deserializer=PodGangServiceWatchRequest.FromString,
        response_serializer=PodGangServiceWatchResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("grove.v1.PodGangService", {"Watch": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grove_client.connect(f"127.0.0.1:{port}") as grove:
            yield scripted, grove
    finally:
        await server.stop(0)


async def told(
    grove: grove_client.GroveClient, count: int, *, resume_token: str = "", policy: WatchPolicy = FAST
) -> list[tuple[str, str]]:
    """Return the first *count* events as (type, name)."""
    events: list[tuple[str, str]] = []
    async with asyncio.timeout(10), aclosing(grove.pod_gangs.watch(resume_token=resume_token, policy=policy)) as watch:
        async for event in watch:
            events.append((event.type, event.object.metadata.name if event.object is not None else ""))
            if len(events) == count:
                break
    return events


async def test_resumes_from_the_last_token() -> None:
    """A stream that ends, in peace or with UNAVAILABLE, is resumed from its last token, bookmarks included."""
    async with served(
        ([step("ADDED", "a"), step("SYNCED", token="t1"), step("MODIFIED", "a", "2", "t2")], None),
        ([step("SYNCED", token="t2"), step("BOOKMARK", token="t5")], grpc.StatusCode.UNAVAILABLE),
        ([step("DELETED", "a", "3", "t6"), step("SYNCED", token="t6")], "hang"),
    ) as (scripted, grove):
        events = await told(grove, 4)
    assert events == [("ADDED", "a"), ("SYNCED", ""), ("MODIFIED", "a"), ("DELETED", "a")]
    assert scripted.tokens == ["", "t2", "t5"]


async def test_expired_token_is_bridged() -> None:
    """After OUT_OF_RANGE the state is read anew: unchanged is not repeated, vanished is DELETED, a new uid is both."""
    async with served(
        ([*(step("ADDED", n) for n in "abcd"), step("SYNCED", token="t1")], grpc.StatusCode.UNAVAILABLE),
        ((), grpc.StatusCode.OUT_OF_RANGE),
        (
            [
                step("ADDED", "a"),
                step("ADDED", "b", "9"),
                step("ADDED", "c", "9", uid="other"),
                step("ADDED", "e"),
                step("SYNCED", token="t9"),
            ],
            "hang",
        ),
    ) as (scripted, grove):
        events = await told(grove, 10)
    assert events[5:] == [("MODIFIED", "b"), ("DELETED", "c"), ("ADDED", "c"), ("ADDED", "e"), ("DELETED", "d")]
    assert scripted.tokens == ["", "t1", ""]


async def test_interrupted_beginning_is_begun_again() -> None:
    """A stream that breaks before SYNCED is begun again, whatever its tokens say; nothing is told twice."""
    async with served(
        ([step("ADDED", "a", token="begin")], grpc.StatusCode.UNAVAILABLE),
        ([step("ADDED", "a"), step("ADDED", "b"), step("SYNCED", token="t1")], "hang"),
    ) as (scripted, grove):
        events = await told(grove, 3)
    assert events == [("ADDED", "a"), ("ADDED", "b"), ("SYNCED", "")]
    assert scripted.tokens == ["", ""]


async def test_expired_token_of_the_caller_is_reported() -> None:
    """A token that the caller brought cannot be bridged, because what the caller knew is unknown."""
    async with served(((), grpc.StatusCode.OUT_OF_RANGE)) as (_, grove):
        with pytest.raises(grove_client.TokenExpiredError):
            await told(grove, 1, resume_token="old")


async def test_dropped_at_open_and_too_slow_are_tried_again() -> None:
    """CANCELLED at the opening of a stream and RESOURCE_EXHAUSTED are tried again."""
    async with served(
        ((), grpc.StatusCode.CANCELLED),
        ([step("SYNCED", token="t1")], grpc.StatusCode.RESOURCE_EXHAUSTED),
        ([step("ADDED", "a", "1", "t2")], "hang"),
    ) as (scripted, grove):
        assert await told(grove, 2) == [("SYNCED", ""), ("ADDED", "a")]
    assert scripted.tokens == ["", "", "t1"]


async def test_refusals_are_raised() -> None:
    """What repeating cannot cure is raised at once."""
    async with served(((), grpc.StatusCode.PERMISSION_DENIED)) as (scripted, grove):
        with pytest.raises(grove_client.PermissionDeniedError):
            await told(grove, 1)
    assert len(scripted.tokens) == 1


async def test_silence_is_noticed() -> None:
    """A stream without any message for too long is given up and resumed."""
    policy = WatchPolicy(delay_min_s=0.001, delay_max_s=0.01, silence_max_s=0.2)
    async with served(
        ([step("SYNCED", token="t1")], "hang"),
        ([step("ADDED", "a", "1", "t2")], "hang"),
    ) as (scripted, grove):
        assert await told(grove, 2, policy=policy) == [("SYNCED", ""), ("ADDED", "a")]
    assert scripted.tokens == ["", "t1"]


async def test_patience_has_an_end() -> None:
    """A server that is never there is reported after the patience for opening."""
    policy = WatchPolicy(delay_min_s=0.001, delay_max_s=0.01, open_patience_s=0.1)
    async with grove_client.connect("127.0.0.1:1") as grove:
        with pytest.raises(grove_client.UnavailableError):
            await told(grove, 1, policy=policy)
