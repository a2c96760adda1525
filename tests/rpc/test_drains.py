"""The drain calls at their edges: who gets in, what does not register anybody, and streams that have nothing to say."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from grove.v1 import endpoint_pb2 as pb
from grove.v1 import pod_pb2
from grove_server.api import streams
from grove_server.control import routers
from grove_server.resources.labels import PART_OF
from grove_server.resources.routing import RouterRegistration
from grove_server.resources.workload import Pod, PodPhase
from tests.rpc.harness import TIMEOUT_S, Harness, refused, serving
from tests.unit.runtime.simulated import EPOCH_S, pod, template
from tests.waiting import until

SERVING: dict[str, Any] = {"phase": PodPhase.RUNNING, "started_at": EPOCH_S, "ready_at": EPOCH_S}
Stream = grpc.aio.UnaryStreamCall[pb.EndpointServiceWatchDrainsRequest, pb.EndpointServiceWatchDrainsResponse]


def registered(rpc: Harness) -> list[str]:
    """Return who is registered, with the set."""
    return [row.metadata.name for row in rpc.store.read().sorted_list(RouterRegistration)]


def watch(rpc: Harness, router: str, **query: str) -> Stream:
    """Open a drain watch."""
    return rpc.endpoints.WatchDrains(pb.EndpointServiceWatchDrainsRequest(router=router, **query))


async def renew(rpc: Harness, router: str, pod_clique_set: str = "s") -> pb.EndpointServiceRenewLeaseResponse:
    """Renew a lease."""
    request = pb.EndpointServiceRenewLeaseRequest(router=router, pod_clique_set=pod_clique_set)
    return await rpc.endpoints.RenewLease(request, timeout=TIMEOUT_S)


async def next_of(stream: Stream) -> pb.EndpointServiceWatchDrainsResponse:
    """Return the next message."""
    message = await asyncio.wait_for(stream.read(), timeout=20)
    assert isinstance(message, pb.EndpointServiceWatchDrainsResponse)
    return message


async def stored_pod(rpc: Harness) -> Pod:
    """Store a pod that serves, and its template."""
    held = template()
    await rpc.put(held)
    made = pod(**SERVING)
    labelled = replace(made.metadata, namespace="default", labels={PART_OF: made.identity.set_name})
    (row,) = await rpc.put(replace(made, metadata=labelled, template=held))
    assert isinstance(row, Pod)
    return row


@pytest.fixture
async def in_time(tmp_path: Path) -> AsyncIterator[Harness]:
    """Give a server whose calls and leases go by one clock."""
    async with serving(tmp_path, now=time.time) as harness:
        yield harness


async def test_a_set_takes_so_many_routers(rpc: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """One router too many is told to come back, by a call and by a watch; those that are in are served."""
    monkeypatch.setattr(routers, "ROUTERS_PER_SET_MAX", 1)
    assert (await renew(rpc, "r1")).registered
    refusal = await refused(renew(rpc, "r2"))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_ROUTERS")
    assert refusal.metadata["limit"] == "1"
    assert "google.rpc.RetryInfo" in refusal.details
    refusal = await refused(watch(rpc, "r2", pod_clique_set="s").read())
    assert refusal.reason == "TOO_MANY_ROUTERS"
    assert not (await renew(rpc, "r1")).registered
    assert registered(rpc) == ["s/r1"]


async def test_a_watch_that_cannot_start_registers_nobody(rpc: Harness) -> None:
    """A bad token or a bad name must not make drains wait for a reader that never comes."""
    refusal = await refused(watch(rpc, "r1", pod_clique_set="s", resume_token="nonsense").read())
    assert refusal.reason == "INVALID_RESUME_TOKEN"
    refusal = await refused(watch(rpc, "", pod_clique_set="s").read())
    assert refusal.fields == ["router"]
    refusal = await refused(watch(rpc, "r1", pod_clique_set="No/Set").read())
    assert refusal.fields == ["podCliqueSet"]
    assert registered(rpc) == []


async def test_reports_of_load_at_their_edges(rpc: Harness) -> None:
    """What is missing, misspelt, doubled or too much is refused at its path; a report registers nobody."""
    row = await stored_pod(rpc)
    loads = [pb.PodLoad(pod=row.metadata.name, requests_in_flight=1)]
    many = [pb.PodLoad(pod=f"p{index}") for index in range(1001)]
    whole: dict[str, Any] = {"pod_clique_set": row.identity.set_name, "router": "r1", "loads": loads}
    for change, field in (
        ({"pod_clique_set": ""}, "podCliqueSet"),
        ({"pod_clique_set": "No/Set"}, "podCliqueSet"),
        ({"router": ""}, "router"),
        ({"loads": []}, "loads"),
        ({"loads": loads * 2}, "loads"),
        ({"loads": many}, "loads"),
    ):
        request = pb.EndpointServiceReportLoadRequest(**(whole | change))
        refusal = await refused(rpc.endpoints.ReportLoad(request, timeout=TIMEOUT_S))
        assert (refusal.code, refusal.fields) == (grpc.StatusCode.INVALID_ARGUMENT, [field])
    answer = await rpc.endpoints.ReportLoad(pb.EndpointServiceReportLoadRequest(**whole), timeout=TIMEOUT_S)
    assert (answer.accepted, answer.unknown) == (1, 0)
    assert rpc.plane.orders.for_set("default", row.identity.set_name).loads[row.metadata.name] == 1.0
    assert registered(rpc) == []


async def test_a_router_watches_and_hangs_up(rpc: Harness) -> None:
    """The open watch is counted, and its end is noticed; the registration stays for a lease."""
    stream = watch(rpc, "r1", pod_clique_set="s")
    assert (await next_of(stream)).type == "SYNCED"
    request = pb.EndpointServiceListRoutersRequest(pod_clique_set="s")
    (known,) = (await rpc.endpoints.ListRouters(request)).routers
    assert (known.name, known.watches) == ("r1", 1)
    stream.cancel()
    await until(lambda: not rpc.plane.routers._watches, "the end of the watch is noticed")
    (known,) = (await rpc.endpoints.ListRouters(request)).routers
    assert (known.name, known.watches) == ("r1", 0)


async def test_a_stream_with_nothing_to_say_stays_resumable(rpc: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """When all that happens is no drain, a bookmark comes all the same, with a token from after it."""
    monkeypatch.setattr(streams, "QUIET_S_MAX", 0.0)
    row = await stored_pod(rpc)
    stream = watch(rpc, "r1", pod_clique_set=row.identity.set_name)
    first = await next_of(stream)
    while first.type == "BOOKMARK":
        first = await next_of(stream)
    assert first.type == "SYNCED"
    await rpc.put(replace(row, restart_count=1))
    bookmark = await next_of(stream)
    assert bookmark.type == "BOOKMARK"
    assert bookmark.resume_token not in ("", first.resume_token)
    stream.cancel()


async def test_deleting_asks_the_routers_of_the_moment(in_time: Harness) -> None:
    """A pod is stopped at once without routers, drains with one, and is stopped at once by whoever cannot wait."""
    rpc = in_time
    row = await stored_pod(rpc)
    name, set_name = row.metadata.name, row.identity.set_name

    async def delete(**options: bool) -> Pod:
        await rpc.pods.Delete(pod_pb2.PodServiceDeleteRequest(names=[name], **options), timeout=TIMEOUT_S)  # type: ignore[arg-type]  # fields by name
        found = rpc.store.read().get(Pod, "default", name)
        assert found is not None
        return found

    assert (await delete(validate_only=True)).resource_version == row.resource_version
    stopping = await delete()
    assert (stopping.is_draining, stopping.is_terminating, stopping.stop_reason) == (False, True, "Deleted")
    await rpc.put(row)
    await renew(rpc, "r1", set_name)
    draining = await delete()
    assert (draining.is_draining, draining.is_terminating) == (True, False)
    assert await delete() == draining
    cut = await delete(skip_drain=True)
    assert (cut.is_draining, cut.is_terminating) == (True, True)
