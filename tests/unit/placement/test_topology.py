"""The order of nodes in which every domain is one slice."""

from __future__ import annotations

from grove_server.placement import Cluster, NodeState


def _cluster(**labels: dict[str, str]) -> Cluster:
    return Cluster(NodeState(name=name, labels=each, allocatable={"pods": 1}) for name, each in labels.items())


def test_domains_are_contiguous_and_uneven() -> None:
    """Nodes are ordered by path, then name; each level partitions them and knows its parents and children."""
    layout = _cluster(
        d={"zone": "b", "rack": "1"},
        a={"zone": "a", "rack": "2"},
        c={"zone": "a", "rack": "1"},
        b={"zone": "a", "rack": "2"},
    ).layout(("zone", "rack"))
    root, zones, racks, nodes = layout.levels
    assert (root.count, zones.count, racks.count, nodes.count) == (1, 2, 3, 4)
    assert zones.starts.tolist() == [0, 3, 4]
    assert racks.starts.tolist() == [0, 1, 3, 4]
    assert racks.parents.tolist() == [0, 0, 1]
    assert zones.child_starts.tolist() == [0, 2, 3]
    assert [layout.value_of(2, domain) for domain in range(3)] == ["1", "2", "1"]
    assert layout.path_of(2, 1) == (("zone", "a"), ("rack", "2"))


def test_a_domain_is_its_whole_path() -> None:
    """Equal rack names in two zones are two racks; a path finds one, the bare name both."""
    layout = _cluster(a={"zone": "x", "rack": "1"}, b={"zone": "y", "rack": "1"}).layout(("zone", "rack"))
    assert layout.find((("zone", "y"), ("rack", "1"))) == ((2, 1),)
    assert layout.find((("rack", "1"),)) == ((2, 0), (2, 1))
    assert layout.find((("rack", "2"),)) == ()
    assert layout.find(()) == ((0, 0),)


def test_nodes_without_a_label_have_no_name_from_there_down() -> None:
    """They stay in the layout, at the end of their parent, but no constrained gang is offered their domains."""
    layout = _cluster(a={"zone": "x"}, b={"zone": "x", "rack": "1"}, c={"rack": "1"}).layout(("zone", "rack"))
    _, zones, racks, nodes = layout.levels
    assert zones.is_named.tolist() == [True, False]
    assert racks.is_named.tolist() == [True, False, False]
    assert nodes.is_all_named
    assert layout.value_of(2, 1) == ""


def test_an_empty_cluster_has_a_layout() -> None:
    """No nodes is a state like others."""
    assert [level.count for level in Cluster().layout(("zone",)).levels] == [0, 0, 0]
