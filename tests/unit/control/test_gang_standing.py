"""What a gang says of its places stays true when pods come later, and its explanation says the same."""

from __future__ import annotations

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
