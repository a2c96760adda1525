"""Capacity that is lost between a decision and its commit: nothing stays bound to what is not there."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from grove_server.resources.cluster import Node
from grove_server.store.interface import Notice
from tests.lifecycle_cases import clique, manifest
from tests.planes import Plane, worker


async def test_a_node_that_goes_while_the_commit_is_on_its_way(plane: Plane) -> None:
    """A gang is decided and one of its nodes is removed before that is durable: in the end all run."""
    await plane.put(worker(0))
    await plane.apply(manifest([clique("c", 2, 2)]))
    await plane.until_quiet()

    def hold_after_the_node(notices: Sequence[Notice]) -> None:
        if any(isinstance(notice.resource, Node) for notice in notices):
            plane.journal.hold()

    stop_holding = plane.store.subscribe(hold_after_the_node)
    await plane.put(worker(1))
    await plane.until(lambda: plane.control.placement.cluster.free_of("n1")["pods"] == 0, "the gang is decided")
    stop_holding()
    assert not any(pod.node for pod in plane.pods())
    removal = asyncio.ensure_future(plane.remove(plane.one(Node, "n1")))
    await asyncio.sleep(0)
    plane.journal.release()
    await removal
    await plane.until(lambda: {pod.node for pod in plane.pods()} == {"n0", ""}, "the lost pod is replaced and waits")
    await plane.put(worker(2))
    await plane.until_ready(2)
    await plane.until_quiet()
    assert {pod.node for pod in plane.pods()} == {"n0", "n2"}
