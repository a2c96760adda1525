"""Stories and dumps over the wire: who did it arrives, what cannot be asked is refused, a dump is whole."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest

from grove.v1 import debug_pb2, debug_pb2_grpc, node_pb2, story_pb2, story_pb2_grpc
from grove_server.api.services.debug import PIECE_BYTES
from grove_server.control.dump import read_dump
from grove_server.resources.cluster import Node
from grove_server.resources.meta import Key, Kind, Metadata
from tests.rpc.harness import TIMEOUT_S, Harness, refused, serving


async def story(rpc: Harness, **fields: object) -> story_pb2.StoryServiceGetResponse:
    """Read a story."""
    stub = story_pb2_grpc.StoryServiceStub(rpc.channel)
    answer = await stub.Get(story_pb2.StoryServiceGetRequest(**fields), timeout=TIMEOUT_S)  # type: ignore[arg-type]  # fields by name
    assert isinstance(answer, story_pb2.StoryServiceGetResponse)
    return answer


async def dump(rpc: Harness) -> list[str]:
    """Take a dump, in the pieces in which it came."""
    stream = debug_pb2_grpc.DebugServiceStub(rpc.channel).Dump(debug_pb2.DebugServiceDumpRequest(), timeout=TIMEOUT_S)
    return [piece.lines async for piece in stream]


async def can_dump(rpc: Harness) -> bool:
    """Take a dump; return False if another one is being taken."""
    try:
        return bool(await dump(rpc))
    except grpc.aio.AioRpcError as error:
        return error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED


def node(number: int) -> Node:
    """Return a node with some labels, so that a few thousand make several pieces."""
    return Node(metadata=Metadata(name=f"n{number}", uid=f"u{number}", labels={"example.com/rack": "r" * 40}))


async def test_a_story_tells_who_called(rpc: Harness) -> None:
    """Each step has its cause, its caller and the caller's request id; the latest is last."""
    rpc.plane.chronicle.start()
    await rpc.put(node(1))
    request = node_pb2.NodeServiceCordonRequest(names=["n1"])
    await rpc.nodes.Cordon(request, timeout=TIMEOUT_S, metadata=(("x-request-id", "ticket-7"),))
    told = await story(rpc, kind="Node", name="n1")
    assert [each.changes[0].what for each in told.transitions] == ["created", "unschedulable"]
    last = told.transitions[-1]
    assert (last.cause, last.actor, last.request_id) == ("api.cordon", "local", "ticket-7")
    assert (last.changes[0].before, last.changes[0].after) == ("false", "true")
    assert told.involved_object.kind == "Node"
    assert told.remembered_since <= last.since == last.time
    only = await story(rpc, kind="Node", name="n1", limit=1)
    assert [each.cause for each in only.transitions] == ["api.cordon"]
    assert not (await story(rpc, kind="Node", name="n1", uid="other")).transitions


async def test_an_applied_set_has_its_callers_too(rpc: Harness) -> None:
    """Manifests are attributed as well, and an edit tells the fields."""
    rpc.plane.chronicle.start()
    await rpc.apply()
    await rpc.apply(image="image:2")
    told = await story(rpc, kind="PodCliqueSet", name="demo")
    assert [(each.cause, each.actor) for each in told.transitions] == [("api.apply", "local")] * 2
    whats = {change.what for change in told.transitions[-1].changes}
    assert "generation" in whats
    assert any(what.endswith("containers[0].image") for what in whats)


@pytest.mark.parametrize(
    ("fields", "violation"),
    [
        ({"name": "x"}, "kind"),
        ({"kind": "Secret", "name": "x"}, "kind"),
        ({"kind": "Event", "name": "x"}, "kind"),
        ({"kind": "Pod"}, "name"),
        ({"kind": "Node", "name": "x", "namespace": "default"}, "namespace"),
        ({"kind": "Pod", "name": "x", "limit": -1}, "limit"),
    ],
)
async def test_what_cannot_be_asked_is_refused(rpc: Harness, fields: dict[str, object], violation: str) -> None:
    """The refusal names the field."""
    refusal = await refused(story(rpc, **fields))
    assert (refusal.code, refusal.fields) == (grpc.StatusCode.INVALID_ARGUMENT, [violation])


async def test_a_dump_comes_whole_and_in_pieces(rpc: Harness) -> None:
    """Pieces hold whole lines and together all that is stored."""
    rpc.plane.chronicle.start()
    await rpc.put(*(node(number) for number in range(6_000)))
    pieces = await dump(rpc)
    assert len(pieces) > 2
    assert all(piece.endswith("\n") and len(piece) < 2 * PIECE_BYTES for piece in pieces)
    taken = read_dump("".join(pieces).encode().splitlines())
    assert sum(key.kind is Kind.NODE for key in taken.state()) == 6_000
    assert Key(Kind.NODE, "", "n5999") in taken.state()
    assert taken.facts["runtime"] == "fake"


async def test_there_is_one_dump_at_a_time(rpc: Harness) -> None:
    """A second dump is refused while the first is not read, and taken after it."""
    rpc.plane.chronicle.start()
    await rpc.put(*(node(number) for number in range(6_000)))
    stub = debug_pb2_grpc.DebugServiceStub(rpc.channel)
    first = stub.Dump(debug_pb2.DebugServiceDumpRequest())
    await asyncio.wait_for(first.read(), TIMEOUT_S)
    refusal = await refused(dump(rpc))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_CALLS")
    first.cancel()
    while not await can_dump(rpc):
        pass


async def test_a_dump_is_for_operators(tmp_path: Path) -> None:
    """Whoever may only write gets no dump."""
    async with serving(tmp_path, "--listen", "0.0.0.0:0", "--insecure", "--anonymous-role", "write") as rpc:
        refusal = await refused(dump(rpc))
        assert refusal.code is grpc.StatusCode.PERMISSION_DENIED
