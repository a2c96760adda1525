"""What is removed says so while it waits for its pods, goes after them, and stays if it is wanted again before."""

from __future__ import annotations

from dataclasses import replace

from grove_server.resources.meta import Kind, Resource
from grove_server.resources.workload import PodClique, PodCliqueScalingGroup, PodGang
from tests.lifecycle_cases import NOW, World, clique, deleted, group, manifest, world


def served(*, copies: int = 1, replicas: int = 3) -> World:
    """Return a set that runs: a clique, and a group with one replica in the base gang and the others scaled."""
    made = world([clique("a"), clique("b", 2)], [group("g", ["b"], replicas, 1)], replicas=copies)
    made.settle()
    made.run()
    made.settle()
    return made


def going(made: World) -> set[str]:
    """Return the kinds and names of the cliques, groups and gangs that carry a deletion timestamp."""
    children: list[Resource] = [*made.of(PodClique), *made.of(PodCliqueScalingGroup), *made.of(PodGang)]
    return {f"{child.kind}/{child.metadata.name}" for child in children if child.metadata.deleted_at is not None}


def test_a_removed_group_replica_goes_after_its_pods() -> None:
    """Its clique and its gang are marked when it is scaled in, and are gone when the last pod is."""
    made = served()
    made.scale_group("s-0-g", 2)
    made.settle()
    assert going(made) == {"PodClique/s-0-g-2-b", "PodGang/s-0-g-1"}
    first, second = [pod for pod in made.view(0).pods["s-0-g-2-b"] if pod.is_terminating]
    made.change_pods(lambda _: None, [first])
    made.settle()
    assert going(made) == {"PodClique/s-0-g-2-b", "PodGang/s-0-g-1"}
    made.change_pods(lambda _: None, [second])
    made.settle()
    assert going(made) == set()
    assert made.names(PodGang) == ["s-0", "s-0-g-0"]


def test_a_replica_without_nodes_goes_at_once() -> None:
    """Nobody has to stop pods that have no node, so nothing is marked."""
    made = world([clique("b", 2)], [group("g", ["b"], 2, 1)])
    made.settle()
    made.scale_group("s-0-g", 1)
    made.settle()
    assert going(made) == set()
    assert made.names(PodGang) == ["s-0"]


def test_all_of_a_removed_copy_is_marked() -> None:
    """A copy that is scaled in marks its cliques, groups and gangs, and takes them away with its last pod."""
    made = served(copies=2, replicas=2)
    made.apply(manifest([clique("a"), clique("b", 2)], [group("g", ["b"], 2, 1)], replicas=1))
    made.settle()
    assert going(made) == {
        "PodClique/s-1-a",
        "PodClique/s-1-g-0-b",
        "PodClique/s-1-g-1-b",
        "PodCliqueScalingGroup/s-1-g",
        "PodGang/s-1",
        "PodGang/s-1-g-0",
    }
    made.reap()
    made.settle()
    assert {row.metadata.name for row in made.rows.values() if row.metadata.name.startswith("s-1")} == set()


def test_what_is_wanted_again_stays() -> None:
    """A replica that is scaled out again before its pods are gone keeps its uids, and its successors come at once."""
    made = served()
    before = made.one(PodGang, "s-0-g-1").metadata.uid
    made.scale_group("s-0-g", 2)
    made.settle()
    made.scale_group("s-0-g", 3)
    made.settle()
    assert going(made) == set()
    assert made.one(PodGang, "s-0-g-1").metadata.uid == before
    assert len(made.pods("s-0-g-2-b")) == 2
    made.reap()
    made.settle()
    assert len(made.pods("s-0-g-2-b")) == 2


def test_the_children_of_a_deleted_set_are_marked() -> None:
    """All children of a set that is deleted carry the time at which their removal began."""
    made = served(replicas=1)
    made.owner = replace(made.owner, metadata=replace(made.owner.metadata, deleted_at=NOW))
    made.settle()
    assert len(going(made)) == 4
    assert {kind.split("/")[0] for kind in going(made)} == {
        Kind.POD_CLIQUE,
        Kind.POD_CLIQUE_SCALING_GROUP,
        Kind.POD_GANG,
    }
    made.change_pods(deleted)
    made.reap()
    made.settle()
    assert made.rows == {}
