"""Who starts after whom, as the names of cliques."""

from __future__ import annotations

from grove_server.resources.workload import PodClique
from tests.lifecycle_cases import Json, World, clique, group, world


def parents(made: World) -> dict[str, tuple[str, ...]]:
    """Return what each clique starts after."""
    made.settle()
    return {c.metadata.name: c.starts_after for c in made.of(PodClique)}


def explicit() -> Json:
    """Return the field that makes the order explicit."""
    return {"cliqueStartupType": "CliqueStartupTypeExplicit"}


def test_any_order_has_no_parents() -> None:
    """Without an order nobody waits."""
    assert parents(world([clique("a"), clique("b")])) == {"s-0-a": (), "s-0-b": ()}


def test_in_order_waits_for_the_entry_before() -> None:
    """Each clique starts after the one before it; of a group, after all replicas of the base gang."""
    made = world(
        [clique("a"), clique("b"), clique("c")],
        [group("g", ["b"], 3, 2)],
        cliqueStartupType="CliqueStartupTypeInOrder",
    )
    found = parents(made)
    assert found["s-0-a"] == ()
    assert found["s-0-g-0-b"] == found["s-0-g-2-b"] == ("s-0-a",)
    assert found["s-0-c"] == ("s-0-g-0-b", "s-0-g-1-b")


def test_explicit_within_one_group() -> None:
    """In the base gang members wait for all base replicas of their parent; in a scaled gang for their own replica's."""
    made = world([clique("b"), clique("c", startsAfter=["b"])], [group("g", ["b", "c"], 3, 2)], **explicit())
    found = parents(made)
    assert found["s-0-g-0-c"] == found["s-0-g-1-c"] == ("s-0-g-0-b", "s-0-g-1-b")
    assert found["s-0-g-2-c"] == ("s-0-g-2-b",)


def test_scaled_gangs_keep_their_other_parents() -> None:
    """A scaled gang waits for standalone cliques, and for another group's replicas of the base gang."""
    made = world(
        [clique("a"), clique("b"), clique("c", startsAfter=["a", "b"])],
        [group("g", ["b"], 2), group("h", ["c"], 2)],
        **explicit(),
    )
    found = parents(made)
    assert found["s-0-h-1-c"] == ("s-0-a", "s-0-g-0-b")
