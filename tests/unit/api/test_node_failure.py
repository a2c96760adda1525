"""Marking nodes down and up: one change for all names, and only where nodes are simulated."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import cast

import pytest

from grove.v1 import node_pb2 as pb
from grove_server.api.backend import Backend, ServerFacts
from grove_server.api.changes import Changes
from grove_server.api.forwarding import Forwarder
from grove_server.api.pages import Listings
from grove_server.api.pipeline import Call
from grove_server.api.ports import AutoscalersPort, ChroniclePort, LoadsPort, OrdersPort, PlacementPort, RoutersPort
from grove_server.api.reading import Shared
from grove_server.api.reasons import ApiError, Reason
from grove_server.api.services.nodes import NodeService
from grove_server.api.streams import Streams
from grove_server.api.views import Views
from grove_server.resources import codec
from grove_server.resources.cluster import Node
from grove_server.runtime.containers import NoContainers
from grove_server.store import SqliteStore
from tests.unit.runtime.simulated import node, put

NOW = 500.0
CALL = cast("Call", None)  # these methods look at the request alone


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    """Return a store with two nodes."""
    made = SqliteStore(tmp_path / "grove.db", codec)
    await made.open()
    await put(made, node("n1"), node("n2"))
    yield made
    await made.close()


def service(store: SqliteStore, runtime: str = "fake") -> NodeService:
    """Return the service over a store, as if nodes were those of *runtime*; it needs nothing else of the backend."""
    views = Views(1 << 20)
    return NodeService(
        Backend(
            shared=Shared(store=store, views=views, listings=Listings(lambda: NOW), streams=Streams(views)),
            changes=cast("Changes", None),
            placement=cast("PlacementPort", None),
            routers=cast("RoutersPort", None),
            loads=cast("LoadsPort", None),
            orders=cast("OrdersPort", None),
            chronicle=cast("ChroniclePort", None),
            autoscalers=cast("AutoscalersPort", None),
            forwarder=cast("Forwarder", None),
            containers=NoContainers(runtime),
            now=lambda: NOW,
            facts=ServerFacts(version="1", commit="c", store="sqlite", runtime=runtime, started_at=NOW),
        )
    )


def states(store: SqliteStore) -> list[tuple[str, bool, float]]:
    """Return name, readiness and the time of its last change of all nodes."""
    return [(each.metadata.name, each.ready, each.ready_changed_at) for each in store.read().sorted_list(Node)]


async def down(nodes: NodeService, *names: str) -> list[str]:
    """Mark nodes down; return those that changed."""
    answer = await nodes.mark_down(pb.NodeServiceMarkDownRequest(names=names), CALL)
    return list(pb.NodeServiceMarkDownResponse.FromString(answer).changed)


async def up(nodes: NodeService, *names: str) -> list[str]:
    """Mark nodes up; return those that changed."""
    answer = await nodes.mark_up(pb.NodeServiceMarkUpRequest(names=names), CALL)
    return list(pb.NodeServiceMarkUpResponse.FromString(answer).changed)


async def test_down_and_up_again(store: SqliteStore) -> None:
    """Both name what changed and say when; doing it again changes nothing."""
    nodes = service(store)
    (first, second) = states(store)
    assert await down(nodes, "n1") == ["n1"]
    assert states(store) == [("n1", False, NOW), second]
    assert await down(nodes, "n1", "n2") == ["n2"]
    assert await up(nodes, "n2", "n1") == ["n2", "n1"]
    assert states(store) == [("n1", True, NOW), ("n2", True, NOW)]
    assert await up(nodes, "n1") == []
    assert first[1]


@pytest.mark.parametrize("mark", [down, up])
async def test_a_missing_node_stops_all(store: SqliteStore, mark: Callable[..., Awaitable[list[str]]]) -> None:
    """One unknown name and nothing is changed."""
    before = states(store)
    with pytest.raises(ApiError, match="Node n3 not found") as refused:
        await mark(service(store), "n1", "n3")
    assert refused.value.reason is Reason.NOT_FOUND
    assert states(store) == before


@pytest.mark.parametrize("mark", [down, up])
async def test_real_nodes_are_not_marked(store: SqliteStore, mark: Callable[..., Awaitable[list[str]]]) -> None:
    """Whether a real node is ready is not for people to say."""
    before = states(store)
    with pytest.raises(ApiError, match="only simulated ones") as refused:
        await mark(service(store, "process"), "n1")
    assert refused.value.reason is Reason.NODES_NOT_SIMULATED
    assert states(store) == before


async def test_real_nodes_are_not_changed(store: SqliteStore) -> None:
    """What a real node is like, and whether there is one, is not for people to say."""
    nodes, before = service(store, "process"), states(store)
    calls = (
        nodes.label(pb.NodeServiceLabelRequest(names=["n1"], labels={"a": "b"}), CALL),
        nodes.taint(pb.NodeServiceTaintRequest(names=["n1"], removed=[pb.Taint(key="a")]), CALL),
        nodes.delete(pb.NodeServiceDeleteRequest(names=["n1"]), CALL),
    )
    for call in calls:
        with pytest.raises(ApiError, match="only simulated ones") as refused:
            await call
        assert refused.value.reason is Reason.NODES_NOT_SIMULATED
    assert states(store) == before
