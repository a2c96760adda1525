"""What could not be written is given back; that alone must not make anybody try again."""

import asyncio

import pytest

from grove_server.control.placement_loop import PlacementLoop
from grove_server.placement.shapes import node_state
from tests.lifecycle_cases import clique, manifest
from tests.planes import Plane, worker


async def test_a_full_disk_makes_no_rounds(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the disk refuses what is placed of a gang, the loop rests; then the gang gets its nodes."""
    await plane.put(worker(0), worker(1), worker(2))
    await plane.apply(manifest([clique("a"), clique("b"), clique("c")]))
    await plane.until_ready(3)
    (stays,) = plane.pods("s-0-c")
    await plane.remove(*(worker(index) for index in range(3) if f"n{index}" != stays.node))
    await plane.until(lambda: len(plane.pods()) == 3 and plane.ready_count() == 1, "two pods wait")
    await plane.until_quiet()
    plane.journal.fail()
    rounds = 0
    whole_round = PlacementLoop._round

    async def counted(loop: PlacementLoop) -> None:
        nonlocal rounds
        rounds += 1
        await whole_round(loop)

    monkeypatch.setattr(PlacementLoop, "_round", counted)
    placement = plane.control.placement
    # Room for one of the two, known to placement alone: nothing else can be written now.
    placement.cluster.upsert_node(node_state(worker(3)))
    placement._wake.set()
    for _ in range(2_000):
        await asyncio.sleep(0)
    assert 1 <= rounds <= 3
    plane.journal.mend()
    await plane.put(worker(3), worker(4))
    plane.clock.advance(1.0)
    await plane.until_ready(3)
