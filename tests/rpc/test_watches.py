"""Watches: state then changes, resuming without a gap, and every way in which a stream ends."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc

from grove.v1 import node_pb2
from grove.v1 import pod_clique_set_pb2 as pb
from grove_server.api.load import CallClass
from grove_server.resources.cluster import Node
from grove_server.resources.meta import Metadata
from grove_server.store import WatchLimits
from grove_server.telemetry import metrics
from tests.rpc.harness import Harness, refused, serving
from tests.waiting import until

Stream = grpc.aio.UnaryStreamCall[pb.PodCliqueSetServiceWatchRequest, pb.PodCliqueSetServiceWatchResponse]


async def next_of(stream: Stream) -> pb.PodCliqueSetServiceWatchResponse:
    """Return the next message of *stream*."""
    message = await asyncio.wait_for(stream.read(), timeout=20)
    assert isinstance(message, pb.PodCliqueSetServiceWatchResponse)
    return message


async def until_synced(stream: Stream) -> list[pb.PodCliqueSetServiceWatchResponse]:
    """Return the messages up to and with SYNCED."""
    messages: list[pb.PodCliqueSetServiceWatchResponse] = []
    while not messages or messages[-1].type != "SYNCED":
        messages.append(await next_of(stream))
    return messages


def kinds(messages: list[pb.PodCliqueSetServiceWatchResponse]) -> list[tuple[str, str]]:
    """Return type and name of each message."""
    return [(message.type, message.object.metadata.name) for message in messages]


def watch(rpc: Harness, **query: object) -> Stream:
    """Open a watch of sets."""
    return rpc.sets.Watch(pb.PodCliqueSetServiceWatchRequest(**query))  # type: ignore[arg-type]  # fields by name


async def test_the_present_state_comes_first_then_changes(rpc: Harness) -> None:
    """A new watch tells what is, says SYNCED, and goes on with what happens."""
    await rpc.apply("one")
    stream = watch(rpc)
    assert kinds(await until_synced(stream)) == [("ADDED", "one"), ("SYNCED", "")]
    stored = (await rpc.apply("two")).pod_clique_set
    added = await next_of(stream)
    assert (added.type, added.object) == ("ADDED", stored)
    await rpc.apply("one", image="image:2")
    modified = await next_of(stream)
    assert (modified.type, modified.object.metadata.generation) == ("MODIFIED", 2)
    stream.cancel()


async def test_list_then_watch_has_no_gap(rpc: Harness) -> None:
    """The token of a list continues exactly after it."""
    await rpc.apply("one")
    listed = await rpc.sets.List(pb.PodCliqueSetServiceListRequest())
    await rpc.apply("two")
    stream = watch(rpc, resume_token=listed.resume_token)
    assert kinds(await until_synced(stream)) == [("ADDED", "two"), ("SYNCED", "")]
    stream.cancel()


async def test_a_watch_resumes_after_its_last_message(rpc: Harness) -> None:
    """What was seen is not repeated, what was missed is told."""
    stream = watch(rpc)
    token = (await until_synced(stream))[-1].resume_token
    stream.cancel()
    await rpc.apply("one")
    await rpc.apply("two")
    stream = watch(rpc, resume_token=token)
    messages = await until_synced(stream)
    assert kinds(messages) == [("ADDED", "one"), ("ADDED", "two"), ("SYNCED", "")]
    stream.cancel()
    stream = watch(rpc, resume_token=messages[0].resume_token)
    assert kinds(await until_synced(stream)) == [("ADDED", "two"), ("SYNCED", "")]
    stream.cancel()


async def test_selectors_narrow_a_watch_and_leaving_them_is_a_deletion(rpc: Harness) -> None:
    """A resource that stops matching is DELETED for the watcher."""
    stream = watch(rpc, label_selector="tier=front")
    await until_synced(stream)
    await rpc.apply("one", labels={"tier": "back"})
    await rpc.apply("two", labels={"tier": "front"})
    assert kinds([await next_of(stream)]) == [("ADDED", "two")]
    await rpc.apply("two", labels={"tier": "back"})
    assert kinds([await next_of(stream)]) == [("DELETED", "two")]
    stream.cancel()


async def test_a_watch_of_one_name(rpc: Harness) -> None:
    """A watch can be of one resource."""
    await rpc.apply("one")
    stream = watch(rpc, name="two")
    assert kinds(await until_synced(stream)) == [("SYNCED", "")]
    await rpc.apply("two")
    assert kinds([await next_of(stream)]) == [("ADDED", "two")]
    stream.cancel()


async def test_garbage_is_no_token(rpc: Harness) -> None:
    """A token that was never given out is the caller's mistake."""
    refusal = await refused(watch(rpc, resume_token="garbage").read())
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_RESUME_TOKEN")


async def test_a_compacted_version_is_out_of_range(tmp_path: Path) -> None:
    """A token older than what is kept asks the client to list again."""
    async with serving(tmp_path, limits=WatchLimits(window_changes=5)) as rpc:
        listed = await rpc.nodes.List(node_pb2.NodeServiceListRequest())
        for number in range(20):
            await rpc.put(Node(metadata=Metadata(name=f"node-{number}")))
        request = node_pb2.NodeServiceWatchRequest(resume_token=listed.resume_token)
        refusal = await refused(rpc.nodes.Watch(request).read())
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.OUT_OF_RANGE, "RESUME_TOKEN_EXPIRED")
        assert int(refusal.metadata["oldest_resource_version"]) > 0


async def test_a_slow_reader_is_told_to_resume(tmp_path: Path) -> None:
    """A client that does not read is cut off with its token, and holds nobody else up."""
    async with serving(tmp_path, limits=WatchLimits(pending_max=50)) as rpc:
        slow = rpc.nodes.Watch(node_pb2.NodeServiceWatchRequest())
        await until(lambda: rpc.calls.in_flight(CallClass.WATCH) == 1, "the watch is open")
        labels = {f"label-{number}": "x" * 60 for number in range(300)}
        # Much more than the transport buffers for a client that does not read.
        for round_ in range(8):
            nodes = [Node(metadata=Metadata(name=f"node-{round_}-{number}", labels=labels)) for number in range(100)]
            await rpc.put(*nodes)
        quick = await rpc.nodes.List(node_pb2.NodeServiceListRequest(page_size=1))
        assert quick.next_page_token

        async def read_to_the_end() -> None:
            while True:
                message = await asyncio.wait_for(slow.read(), timeout=20)
                assert isinstance(message, node_pb2.NodeServiceWatchResponse)

        refusal = await refused(read_to_the_end())
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "WATCH_TOO_SLOW")
        assert "google.rpc.RetryInfo" in refusal.details
        resumed = rpc.nodes.Watch(node_pb2.NodeServiceWatchRequest(resume_token=refusal.metadata["resume_token"]))
        assert isinstance(await asyncio.wait_for(resumed.read(), timeout=20), node_pb2.NodeServiceWatchResponse)
        resumed.cancel()


async def test_cancelled_watches_leave_nothing_behind(rpc: Harness) -> None:
    """After clients went away in mid-stream no watch is left open."""
    streams = [watch(rpc) for _ in range(50)]
    for stream in streams:
        await until_synced(stream)
    assert rpc.api._streams.open_count == 50
    for stream in streams:
        stream.cancel()
    await until(lambda: rpc.calls.total == 0 and rpc.api._streams.open_count == 0, "all watches are closed")


async def test_a_client_that_goes_while_a_write_waits_for_it_is_no_fault(rpc: Harness) -> None:
    """Flow control holds a write, the client cancels: the watch ends quietly and nothing counts as internal error."""
    labels = {f"label-{number}": "x" * 60 for number in range(300)}
    await rpc.put(*(Node(metadata=Metadata(name=f"node-{number}", labels=labels)) for number in range(600)))
    before = internal_errors()
    stuck = rpc.nodes.Watch(node_pb2.NodeServiceWatchRequest())
    await until(lambda: rpc.api._streams.open_count == 1, "the watch is open")
    await rpc.nodes.List(node_pb2.NodeServiceListRequest(page_size=100))
    stuck.cancel()
    await until(lambda: rpc.calls.total == 0 and rpc.api._streams.open_count == 0, "the watch is closed")
    assert internal_errors() == before


def internal_errors() -> float:
    """Return how many faults were counted."""
    return sum(
        sample.value
        for family in metrics.INTERNAL_ERRORS.collect()
        for sample in family.samples
        if sample.name.endswith("_total")
    )


async def test_the_number_of_watches_is_bounded(tmp_path: Path) -> None:
    """One watch too many is refused with the time to come back, and the others go on."""
    async with serving(tmp_path, "--watches-max", "2") as rpc:
        streams = [watch(rpc), watch(rpc)]
        for stream in streams:
            await until_synced(stream)
        refusal = await refused(watch(rpc).read())
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_WATCHES")
        assert refusal.details["google.rpc.RetryInfo"].retry_delay.seconds == 1
        for stream in streams:
            stream.cancel()


async def test_draining_ends_watches_with_a_token(rpc: Harness) -> None:
    """A server that goes away ends streams at once, and a client can go on elsewhere."""
    await rpc.apply("one")
    stream = watch(rpc)
    last = (await until_synced(stream))[-1]
    started_s = asyncio.get_running_loop().time()
    await rpc.api.stop()
    assert asyncio.get_running_loop().time() - started_s < 3
    refusal = await refused(stream.read())
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "SERVER_DRAINING")
    assert refusal.metadata["resume_token"] == last.resume_token
