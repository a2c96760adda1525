"""A gang that lost several parts of its minimum gets back those that fit, and the account stays right."""

from grove_server.resources.meta import key_of
from grove_server.store.interface import Delete, Put
from tests.lifecycle_cases import clique, manifest
from tests.planes import Plane, worker


async def test_a_part_that_fits_is_placed_although_the_next_does_not(plane: Plane) -> None:
    """Two cliques lose their nodes and one node comes: the first of them gets it, the other waits."""
    await plane.put(worker(0), worker(1), worker(2))
    await plane.apply(manifest([clique("a"), clique("b"), clique("c")]))
    await plane.until_ready(3)
    (stays,) = plane.pods("s-0-c")
    lost = [key_of(worker(index)) for index in range(3) if f"n{index}" != stays.node]
    # One change, so that the replacements are asked for while there is room for one of them.
    await plane.store.commit([*map(Delete, lost), Put(worker(3))], cause="test")
    await plane.until_ready(1, "s-0-a")
    await plane.until_quiet()
    assert [pod.node for pod in plane.pods("s-0-b")] == [""]
    assert plane.control.placement.cluster.free_of("n3")["pods"] == 0
    await plane.put(worker(4))
    await plane.until_ready(3)
    await plane.delete_set()
    await plane.until(lambda: plane.child_count() == 0, "the set is gone")
    await plane.until_quiet()
    plane.check_nothing_is_left()


async def test_a_part_that_fits_is_placed_although_an_earlier_one_does_not(plane: Plane) -> None:
    """Two cliques lose their nodes and a node comes that only the second may use: it gets it at once."""
    await plane.put(*(worker(index) for index in range(3)))
    picky = {"nodeSelector": {"example.com/block": "b0"}, "containers": [{"name": "main", "image": "i"}]}
    await plane.apply(manifest([clique("a", podSpec=picky), clique("b"), clique("c")]))
    await plane.until_ready(3)
    (stays,) = plane.pods("s-0-c")
    lost = [key_of(worker(index)) for index in range(3) if f"n{index}" != stays.node]
    # Node 4 is in block b1.
    await plane.store.commit([*map(Delete, lost), Put(worker(4))], cause="test")
    await plane.until(lambda: [pod.node for pod in plane.pods("s-0-b")] == ["n4"], "the second clique has the node")
    await plane.until(lambda: [pod.node for pod in plane.pods("s-0-a")] == [""], "the first one waits")


async def test_surplus_of_each_clique_is_helped_by_what_it_can_use(plane: Plane) -> None:
    """Surplus of two cliques waits; a node that only the first of them may use is given to it."""
    await plane.put(worker(0), worker(4))
    chosen = {"nodeSelector": {"example.com/block": "b0"}, "containers": [{"name": "main", "image": "i"}]}
    other = {"nodeSelector": {"example.com/block": "b1"}, "containers": [{"name": "main", "image": "i"}]}
    await plane.apply(manifest([clique("a", 2, 1, podSpec=chosen), clique("b", 2, 1, podSpec=other)]))
    await plane.until(lambda: plane.ready_count() == 2, "the minimum runs")
    await plane.until_quiet()
    await plane.put(worker(1))
    await plane.until(lambda: plane.ready_count("s-0-a") == 2, "the first clique's surplus runs")
    await plane.put(worker(5))
    await plane.until(lambda: plane.ready_count("s-0-b") == 2, "the second clique's surplus runs")
