"""What a gang says of its places stays true when pods come later, and its explanation says the same."""

from __future__ import annotations

from dataclasses import replace

from grove_server.resources.cluster import Node
from grove_server.resources.workload import PodGang
from tests.lifecycle_cases import clique, manifest, pack
from tests.planes import Plane, binding, worker


def stands(plane: Plane) -> tuple[list[str], float | None]:
    """Return the domains and the score that the gang tells."""
    status = plane.one(PodGang, "s-0").status
    return [f"{each.level}={each.domain}" for each in status.topology], status.placement_score


async def in_one_rack(plane: Plane, size: int, minimum: int) -> None:
    """Run a set that prefers one rack; afterwards its rack r0 is cordoned."""
    await plane.put(binding(), *(worker(i, pods=4, unschedulable=i > 1) for i in range(6)))
    await plane.apply(manifest([clique("a", size, minimum)], topologyConstraint=pack(preferred="rack")))
    await plane.until_ready(size)
    await plane.until_quiet()
    assert stands(plane) == (["rack=r0"], 1.0)


async def test_surplus_in_another_rack_takes_the_rack_back(plane: Plane) -> None:
    """The broader domain that holds all pods is listed instead, then the next one, and the score goes down with it."""
    await in_one_rack(plane, 3, 2)
    await plane.set_nodes("n0", "n1", unschedulable=True)
    await plane.set_nodes("n2", unschedulable=False)
    await plane.scale_clique("s-0-a", 5)
    await plane.until_ready(5)
    await plane.until_quiet()
    assert stands(plane) == (["block=b0"], 0.75)
    await plane.set_nodes("n2", unschedulable=True)
    await plane.set_nodes("n5", unschedulable=False)
    await plane.scale_clique("s-0-a", 6)
    await plane.until_ready(6)
    await plane.until_quiet()
    assert stands(plane) == (["zone=z0"], 0.5)


async def test_a_replacement_in_another_rack_takes_the_rack_back(plane: Plane) -> None:
    """A pod of the minimum that comes back elsewhere counts like any other."""
    await in_one_rack(plane, 2, 2)
    await plane.set_nodes("n0", "n1", unschedulable=True)
    await plane.set_nodes("n2", "n3", unschedulable=False)
    await plane.remove(plane.pods()[1])
    await plane.until_ready(2)
    await plane.until(lambda: len({pod.node for pod in plane.pods()}) == 2, "the new pod is elsewhere")
    await plane.until_quiet()
    assert stands(plane) == (["block=b0"], 0.75)


async def relabel(plane: Plane, name: str, **levels: str) -> None:
    """Give a node other labels."""
    node = plane.one(Node, name)
    labels = {**node.metadata.labels, **{f"example.com/{level}": value for level, value in levels.items()}}
    await plane.put(replace(node, metadata=replace(node.metadata, labels=labels)))


async def test_scaling_in_gives_the_rack_back(plane: Plane) -> None:
    """When the pods elsewhere go, the gang stands in its rack again, and its score says so."""
    await in_one_rack(plane, 3, 2)
    await plane.set_nodes("n0", "n1", unschedulable=True)
    await plane.set_nodes("n2", unschedulable=False)
    await plane.scale_clique("s-0-a", 4)
    await plane.until_ready(4)
    await plane.until(lambda: stands(plane) == (["block=b0"], 0.75), "the gang stands in the block")
    for pod in plane.pods():
        if pod.node == "n2":
            # Whoever is not ready goes first.
            await plane.put(replace(pod, ready_at=None))
    await plane.scale_clique("s-0-a", 3)
    await plane.until(lambda: stands(plane) == (["rack=r0"], 1.0), "the gang stands in its rack again")


async def test_labels_of_nodes_move_a_gang(plane: Plane) -> None:
    """A gang whose node goes to another rack by its labels says where it stands now; likewise when they come back."""
    await plane.put(binding(), *(worker(i) for i in range(2)))
    await plane.apply(manifest([clique("a", 2)], topologyConstraint=pack(required="block", preferred="rack")))
    await plane.until_ready(2)
    await plane.until(lambda: stands(plane) == (["block=b0", "rack=r0"], 1.0), "the gang stands in one rack")
    await relabel(plane, "n1", rack="r9")
    await plane.until(lambda: stands(plane) == (["block=b0"], 0.75), "the gang stands in the block")
    await relabel(plane, "n1", rack="r9", block="b9")
    await plane.until(lambda: stands(plane) == (["zone=z0"], 0.5), "the gang stands in the zone")
    await relabel(plane, "n1", rack="r0", block="b0")
    await plane.until(lambda: stands(plane) == (["block=b0", "rack=r0"], 1.0), "the gang is in one rack again")


async def test_another_topology_moves_a_gang(plane: Plane) -> None:
    """When the binding gets a level more, the score of what prefers a narrower one is read anew."""
    await plane.put(binding("zone", "rack"), *(worker(i) for i in range(2)))
    await plane.apply(manifest([clique("a", 2)], topologyConstraint=pack(preferred="rack")))
    await plane.until_ready(2)
    await relabel(plane, "n1", rack="r9")
    await plane.until(lambda: stands(plane) == (["zone=z0"], 2 / 3), "the gang stands in the zone")
    await plane.put(replace(binding(), resource_version=0))
    await plane.until(lambda: stands(plane) == (["block=b0"], 0.75), "the gang stands in the block")


async def test_what_stands_still_is_not_written_again(plane: Plane) -> None:
    """Labels that are no level, and nodes without its pods, change nothing of a gang."""
    await plane.put(binding(), *(worker(i) for i in range(3)))
    await plane.apply(manifest([clique("a", 2)], topologyConstraint=pack(preferred="rack")))
    await plane.until_ready(2)
    await plane.until(lambda: plane.one(PodGang, "s-0").status.ready_at is not None, "the gang is ready")
    await plane.until_quiet()
    before = plane.one(PodGang, "s-0")
    await relabel(plane, "n0", colour="green")
    await relabel(plane, "n2", rack="r9")
    await plane.until_quiet()
    assert plane.one(PodGang, "s-0").resource_version == before.resource_version
