"""Lists: pages of one moment, tokens bound to their query, selectors, bounds."""

import asyncio

import grpc
import pytest

from grove.v1 import event_pb2, node_pb2
from grove.v1 import pod_clique_set_pb2 as pb
from grove_server.resources.cluster import Event, Node
from grove_server.resources.meta import Kind, Metadata
from tests.rpc.harness import TIMEOUT_S, Harness, refused


async def page(rpc: Harness, **query: object) -> pb.PodCliqueSetServiceListResponse:
    """Return one page of sets."""
    return await rpc.sets.List(pb.PodCliqueSetServiceListRequest(**query), timeout=TIMEOUT_S)  # type: ignore[arg-type]  # fields by name


def names(response: pb.PodCliqueSetServiceListResponse) -> list[str]:
    """Return the names on a page."""
    return [item.metadata.name for item in response.items]


async def test_pages_show_one_moment_in_order(rpc: Harness) -> None:
    """All pages come from the moment of the first, without a gap or a double, whatever happens in between."""
    await asyncio.gather(*(rpc.apply(f"set-{letter}") for letter in "edcba"))
    first = await page(rpc, page_size=2)
    assert names(first) == ["set-a", "set-b"]
    await rpc.apply("set-aa")
    second = await page(rpc, page_size=2, page_token=first.next_page_token)
    again = await page(rpc, page_size=2, page_token=first.next_page_token)
    assert second == again
    third = await page(rpc, page_size=2, page_token=second.next_page_token)
    assert names(second) + names(third) == ["set-c", "set-d", "set-e"]
    assert third.next_page_token == ""
    assert {first.resource_version} == {second.resource_version, third.resource_version}


async def test_a_page_token_belongs_to_its_query(rpc: Harness) -> None:
    """A token of another query, a damaged one and a forgotten one are told apart."""
    await asyncio.gather(*(rpc.apply(name) for name in ("a", "b", "c")))
    token = (await page(rpc, page_size=1)).next_page_token
    refusal = await refused(page(rpc, page_token=token, all_namespaces=True))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_PAGE_TOKEN")
    assert (await refused(page(rpc, page_token="nonsense"))).reason == "INVALID_PAGE_TOKEN"
    refusal = await refused(page(rpc, page_token=f"{'0' * 16}.1"))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.OUT_OF_RANGE, "PAGE_TOKEN_EXPIRED")


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        pytest.param("tier=front", ["one"], id="equal"),
        pytest.param("tier!=front", ["three", "two"], id="unequal"),
        pytest.param("tier in (front, back)", ["one", "two"], id="in"),
        pytest.param("!tier", ["three"], id="absent"),
        pytest.param("", ["one", "three", "two"], id="all"),
    ],
)
async def test_label_selectors_choose(rpc: Harness, selector: str, expected: list[str]) -> None:
    """Selectors mean what they mean in Kubernetes."""
    await rpc.apply("one", labels={"tier": "front"})
    await rpc.apply("two", labels={"tier": "back"})
    await rpc.apply("three")
    assert names(await page(rpc, label_selector=selector)) == expected


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        pytest.param({"label_selector": "a in ("}, "INVALID_SELECTOR", id="selector"),
        pytest.param({"page_size": -1}, "INVALID_REQUEST", id="page size"),
        pytest.param({"namespace": "x", "all_namespaces": True}, "INVALID_REQUEST", id="namespace"),
    ],
)
async def test_queries_that_make_no_sense_are_refused(rpc: Harness, query: dict[str, object], reason: str) -> None:
    """Wrong selectors, sizes and namespaces are the caller's to correct."""
    refusal = await refused(page(rpc, **query))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, reason)


async def test_namespaces_are_apart(rpc: Harness) -> None:
    """A list is of one namespace, default if none is named, or of all, sorted by namespace first."""
    for namespace, name in (("b", "x"), ("a", "y"), ("default", "z")):
        await rpc.apply(name, namespace=namespace)
    assert names(await page(rpc)) == ["z"]
    assert names(await page(rpc, namespace="b")) == ["x"]
    assert names(await page(rpc, all_namespaces=True)) == ["y", "x", "z"]


async def test_a_page_is_bounded_in_bytes(rpc: Harness) -> None:
    """A page ends before it grows beyond what a message may have, whatever the page size."""
    labels = {f"label-{number}": "x" * 60 for number in range(200)}
    await rpc.put(*(Node(metadata=Metadata(name=f"node-{number:04}", labels=labels)) for number in range(300)))
    request = node_pb2.NodeServiceListRequest(page_size=5000)
    seen: list[str] = []
    page_count = 0
    while True:
        response = await rpc.nodes.List(request, timeout=TIMEOUT_S)
        assert response.ByteSize() < 3 << 20
        seen += (node.metadata.name for node in response.items)
        page_count += 1
        if not response.next_page_token:
            break
        request.page_token = response.next_page_token
    assert page_count > 1
    assert seen == [f"node-{number:04}" for number in range(300)]


async def test_events_come_by_time_and_by_resource(rpc: Harness) -> None:
    """Events are sorted by their last occurrence and can be narrowed to one resource."""

    def event(name: str, last_at: float, kind: Kind = Kind.POD_GANG) -> Event:
        return Event(
            metadata=Metadata(name=name, namespace="default"),
            involved_kind=kind,
            involved_name="gang",
            reason="Placed",
            message="placed",
            first_at=last_at,
            last_at=last_at,
        )

    await rpc.put(event("a", 3.0), event("b", 1.0), event("c", 2.0, Kind.POD))
    request = event_pb2.EventServiceListRequest()
    assert [each.metadata.name for each in (await rpc.events.List(request)).items] == ["b", "c", "a"]
    request = event_pb2.EventServiceListRequest(involved_kind="PodGang", involved_name="gang")
    assert [each.metadata.name for each in (await rpc.events.List(request)).items] == ["b", "a"]
