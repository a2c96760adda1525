"""The search in depth: places that a straight pass misses, alike domains once, bounds that end hopeless branches."""

from __future__ import annotations

import pytest

from grove_server.placement import Budget, Placement, Verdict, place
from grove_server.placement.choice import Region
from grove_server.placement.depth import Depth, Sibling
from grove_server.placement.packing import Load, Nodes
from grove_server.placement.violations import violations
from grove_server.placement.work import Work
from tests.placement_instances import planted_instance

PODS, GPUS = 0, 1


def _nodes(gpus_free: list[int], *pod_gpus: int) -> Nodes:
    costs: list[tuple[tuple[int, int], ...]] = [((PODS, 1), (GPUS, count)) for count in pod_gpus]
    allowed = [[True] * len(gpus_free) for _ in pod_gpus]
    return Nodes([[16, free] for free in gpus_free], costs, allowed)


def _sibling(twin: int, *parts: tuple[int, int], racks: int = 2) -> Sibling:
    places = tuple((Region(1, rack), (2 * rack, 2 * rack + 2)) for rack in range(racks))
    return Sibling(twin=twin, load=Load(parts), places=places)


def _search(nodes: Nodes, siblings: list[Sibling], work: Work) -> list[tuple[int, int]] | None:
    found = Depth(nodes, siblings, work, 0, [1] * len(siblings)).run()
    return None if found is None else [(each.region.domain, sum(pods for _, _, pods in each.filling)) for each in found]


def test_the_sibling_with_one_domain_left_has_it() -> None:
    """Both racks hold the first sibling, one alone holds the second: the first leaves it that one."""
    nodes = _nodes([4, 4, 2, 6], 2, 4)
    assert _search(nodes, [_sibling(0, (0, 4)), _sibling(1, (1, 2))], Work(10_000)) == [(1, 4), (0, 2)]


def test_amounts_that_no_shape_can_use_do_not_count() -> None:
    """Nodes with an odd GPU too many add up to enough for pods of two, and yet the branch ends before any try."""
    work = Work(10_000)
    assert _search(_nodes([3, 3, 3, 3], 2), [_sibling(0, (0, 2)), _sibling(0, (0, 3))], work) is None
    assert work.steps == 1


def test_work_bounds_the_search() -> None:
    """Without work left a search ends without an answer, however easy the question."""
    assert _search(_nodes([8, 8, 8, 8], 2), [_sibling(0, (0, 2)), _sibling(1, (0, 3))], Work(0)) is None


@pytest.mark.parametrize("seed", [21, 52, 109, 135])
def test_the_search_in_depth_finds_what_a_straight_pass_misses(seed: int) -> None:
    """A gang that nearly fills a block has a place which only trying other domains finds."""
    cluster, request = planted_instance(seed, filled=0.95)
    assert isinstance(place(cluster, request, budget=Budget(steps_max=0)), Verdict)
    found = place(cluster, request, budget=Budget(steps_max=4_000))
    assert isinstance(found, Placement)
    assert violations(cluster, request, found) == []
