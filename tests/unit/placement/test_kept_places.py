"""Places that are kept for a gang are asked anew whether they still answer what it asks for."""

from __future__ import annotations

from grove_server.placement import place
from grove_server.placement.violations import unkept
from tests.placement_cases import RACK, clique, gang, placed, workers


def test_a_topology_that_went_is_named() -> None:
    """A gang that asks for a level no topology has any more is told so; its kept places answer nothing."""
    cluster = workers()
    asked = gang(clique("a", 2, required=RACK))
    found = placed(place(cluster, asked))
    assert unkept(cluster, asked, found) == []
    without = gang(clique("a", 2, required=RACK), topology=())
    assert unkept(cluster, without, found) == [f"a asks for {RACK}, which is no level of its topology"]
