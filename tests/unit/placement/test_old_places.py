"""Pods go back to their predecessors' nodes as far as the answer keeps its promises."""

from __future__ import annotations

from grove_server.placement.cluster import Cluster
from grove_server.placement.nodes import NodeState
from grove_server.placement.old_places import has_room, in_old_places
from grove_server.placement.place import place
from grove_server.placement.requests import GPU_RESOURCE, CliqueRequest, GangRequest, GroupRequest, PodShape
from grove_server.placement.results import Placement
from grove_server.placement.violations import violations

RACK, HOST = "rack", "host"
WHOLE = PodShape(requests=((GPU_RESOURCE, 8),))
HALF = PodShape(requests=((GPU_RESOURCE, 4),))


def cluster(count: int, *, lost: tuple[str, ...] = ()) -> Cluster:
    """Return nodes of eight GPUs, four to a rack."""
    return Cluster(
        NodeState(
            name=f"n{index:02}",
            labels={RACK: f"r{index // 4}", HOST: f"n{index:02}"},
            allocatable={"pods": 10, GPU_RESOURCE: 8},
            ready=f"n{index:02}" not in lost,
        )
        for index in range(count)
    )


def asked(*members: CliqueRequest | GroupRequest, **fields: str) -> GangRequest:
    """Return a gang."""
    return GangRequest(name="g", members=members, topology=(RACK, HOST), **fields)  # type: ignore[arg-type]  # levels by name


def replaced(nodes: Cluster, request: GangRequest, **old: list[str]) -> dict[str, list[str]]:
    """Place a gang whose predecessors ran on *old*; return its nodes by clique, after a look at every promise."""
    found = place(nodes, request)
    assert isinstance(found, Placement)
    kept = in_old_places(nodes, request, found, old)
    assert violations(nodes, request, kept) == []
    assert kept.generation == found.generation
    return {each.name: [binding.node for binding in each.bindings] for each in kept.cliques}


def test_every_pod_has_its_old_node() -> None:
    """Places that no search would choose together."""
    request = asked(CliqueRequest(name="a", shape=WHOLE, minimum=3), CliqueRequest(name="b", shape=HALF, minimum=2))
    old = {"a": ["n01", "n06", "n11"], "b": ["n02", "n09"]}
    assert replaced(cluster(12), request, **old) == old


def test_a_pod_of_a_lost_node_stays_near() -> None:
    """The others have their nodes; it has one in its rack, of those that the search found."""
    request = asked(CliqueRequest(name="l", shape=WHOLE, minimum=1), CliqueRequest(name="w", shape=WHOLE, minimum=2))
    kept = replaced(cluster(8, lost=("n04",)), request, l=["n04"], w=["n05", "n07"])
    assert kept["w"] == ["n05", "n07"]


def test_what_is_required_stands_in_front() -> None:
    """If the old rack has no room for all, all go to another."""
    request = asked(CliqueRequest(name="w", shape=WHOLE, minimum=4), required=RACK)
    kept = replaced(cluster(8, lost=("n00",)), request, w=["n00", "n01", "n02", "n03"])
    assert kept == {"w": ["n04", "n05", "n06", "n07"]}


def test_members_are_kept_one_by_one() -> None:
    """A group replica that cannot stay does not take the others with it."""
    groups = [
        GroupRequest(name=name, members=(CliqueRequest(name=f"{name}-w", shape=WHOLE, minimum=3),), required=RACK)
        for name in ("g0", "g1")
    ]
    old = {"g0-w": ["n00", "n01", "n02"], "g1-w": ["n13", "n14", "n15"]}
    kept = replaced(cluster(16, lost=("n00", "n03")), asked(*groups), **old)
    assert kept["g1-w"] == old["g1-w"]
    assert not set(kept["g0-w"]) & {"n00", "n01", "n02", "n13", "n14", "n15"}


def test_what_is_preferred_is_not_given_up() -> None:
    """Old places in two racks lose against one rack; old places in one rack win."""
    request = asked(CliqueRequest(name="w", shape=WHOLE, minimum=2), preferred=RACK)
    assert len({int(node[1:]) // 4 for node in replaced(cluster(8), request, w=["n03", "n04"])["w"]}) == 1
    assert replaced(cluster(8), request, w=["n07", "n05"]) == {"w": ["n07", "n05"]}


def test_the_same_nodes_are_dealt_when_they_have_to_be() -> None:
    """Where nothing can be exchanged, each pod still has its own of the nodes that were found."""
    request = asked(CliqueRequest(name="w", shape=WHOLE, minimum=4), required=RACK)
    kept = replaced(cluster(4), request, w=["n02", "n00", "gone", ""])
    assert kept == {"w": ["n02", "n00", "n01", "n03"]}


def test_reasons_say_where_it_is_now() -> None:
    """Domains and reasons of the answer name the old places."""
    nodes, request = cluster(8), asked(CliqueRequest(name="w", shape=WHOLE, minimum=2), required=RACK)
    found = place(nodes, request)
    assert isinstance(found, Placement)
    kept = in_old_places(nodes, request, found, {"w": ["n06", "n05"]})
    assert [(choice.level, choice.value, choice.path) for choice in kept.domains] == [(RACK, "r1", ((RACK, "r1"),))]
    assert kept.reasons[0].sentence() == "gang g is in rack r1: 1 of 1 fitted, where its predecessors ran"
    assert [binding.gpu_ids for binding in kept.cliques[0].bindings] == [tuple(range(8))] * 2


def test_room_is_what_the_pod_may_use_now() -> None:
    """A node that is full, not ready, or not there has none."""
    nodes = cluster(2, lost=("n01",))
    assert has_room(nodes, WHOLE, "n00")
    nodes.bind_pod("n00", HALF)
    assert not has_room(nodes, WHOLE, "n00")
    assert has_room(nodes, HALF, "n00")
    assert not has_room(nodes, HALF, "n01")
    assert not has_room(nodes, HALF, "n02")
