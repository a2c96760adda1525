"""The store's nodes follow the cluster file; what people did to them stays."""

from __future__ import annotations

import itertools
from dataclasses import replace

from grove_server.resources.cluster import BY_HAND, ClusterTopologyBinding, Node
from grove_server.resources.meta import Key, Kind, Metadata
from grove_server.resources.priority import PriorityClass
from grove_server.resources.queues import Queue
from grove_server.runtime.cluster_file import default_cluster_text, parse_cluster
from grove_server.runtime.cluster_seed import Seeded, seed_cluster
from grove_server.store import SqliteStore
from grove_server.store.interface import Delete, Store
from tests.unit.runtime.simulated import put

NOTHING = Seeded()


async def seed(store: Store, text: str, *, now: float = 100.0) -> Seeded:
    """Seed *store* with a cluster file, with uids that count up."""
    numbers = itertools.count()
    return await seed_cluster(store, parse_cluster(text), now=now, new_uid=lambda: f"uid-{now}-{next(numbers)}")


def pool(count: int, memory: str = "1Gi") -> str:
    """Return a cluster file with *count* nodes, called n0 and so on."""
    return (
        "apiVersion: grove.io/v1alpha1\nkind: NodePool\nmetadata: {name: x}\n"
        f"spec: {{count: {count}, namePrefix: n, allocatable: {{memory: {memory}}}, labels: {{tier: a}}}}\n"
    )


def read(store: Store, name: str) -> Node:
    """Return a node that exists."""
    found = store.read().get(Node, "", name)
    assert found is not None
    return found


async def test_an_empty_store_gets_every_node_and_binding(store: SqliteStore) -> None:
    """All nodes and bindings of the file are created, with a uid and the time of their creation."""
    seeded = await seed(store, default_cluster_text())
    assert seeded == Seeded(nodes_created=64, nodes_removed=1, bindings_created=1, others_created=3)
    nodes = store.read().sorted_list(Node)
    assert len({node.metadata.uid for node in nodes}) == 64
    assert {(node.metadata.created_at, node.ready_changed_at, node.ready) for node in nodes} == {(100.0, 100.0, True)}
    binding = store.read().get(ClusterTopologyBinding, "", "grove-topology")
    assert binding is not None
    assert (binding.metadata.created_at, len(binding.spec.levels)) == (100.0, 4)


async def test_seeding_twice_changes_nothing(store: SqliteStore) -> None:
    """The second start with the same file writes nothing."""
    await seed(store, default_cluster_text())
    version = store.read().version
    assert await seed(store, default_cluster_text(), now=200.0) == NOTHING
    assert store.read().version == version


async def test_cordoned_and_failed_nodes_stay_so(store: SqliteStore) -> None:
    """A restart undoes neither a cordon nor a node that was marked down, even when the file changes the node."""
    await seed(store, pool(2))
    touched = replace(read(store, "n1"), unschedulable=True, ready=False, ready_changed_at=150.0)
    await put(store, touched)
    assert await seed(store, pool(2, "2Gi"), now=200.0) == Seeded(nodes_updated=2)
    after = read(store, "n1")
    assert (after.unschedulable, after.ready, after.ready_changed_at) == (True, False, 150.0)
    assert after.allocatable["memory"] == "2Gi"
    assert (after.metadata.uid, after.metadata.created_at) == (touched.metadata.uid, 100.0)


async def test_a_node_that_left_the_file_is_removed(store: SqliteStore) -> None:
    """Nodes that are no longer in the file go; new ones come; the others are not touched."""
    await seed(store, pool(3))
    before = read(store, "n0")
    assert await seed(store, pool(2)) == Seeded(nodes_removed=1)
    assert await seed(store, pool(3), now=200.0) == Seeded(nodes_created=1)
    assert read(store, "n0") == before
    assert read(store, "n2").metadata.created_at == 200.0


async def test_an_edited_binding_is_left_alone(store: SqliteStore) -> None:
    """A binding that was changed through the API keeps the change over a restart."""
    await seed(store, default_cluster_text())
    binding = store.read().get(ClusterTopologyBinding, "", "grove-topology")
    assert binding is not None
    edited = replace(binding, spec=replace(binding.spec, levels=binding.spec.levels[:2]))
    await put(store, edited)
    assert await seed(store, default_cluster_text()) == NOTHING
    after = store.read().get(ClusterTopologyBinding, "", "grove-topology")
    assert after is not None
    assert after.spec == edited.spec


async def test_what_is_built_in_is_there_and_the_file_adds_to_it(store: SqliteStore) -> None:
    """The two system classes and the queue "default" are made with the nodes; a file may describe that queue itself."""
    queues = "".join(
        f"---\napiVersion: grove.io/v1alpha1\nkind: Queue\nmetadata: {{name: {name}}}\nspec: {{weight: 3}}\n"
        for name in ("default", "search")
    )
    assert (await seed(store, pool(1) + queues)).others_created == 4
    reader = store.read()
    assert {each.metadata.name: each.value for each in reader.list(PriorityClass)} == {
        "system-cluster-critical": 2_000_000_000,
        "system-node-critical": 2_000_001_000,
    }
    assert {each.metadata.name: each.spec.weight for each in reader.list(Queue)} == {"default": 3.0, "search": 3.0}
    version = reader.version
    assert (await seed(store, pool(1))).others_created == 0
    assert store.read().version == version


async def test_a_large_cluster_goes_in_pieces(store: SqliteStore) -> None:
    """Thousands of nodes are all there afterwards."""
    assert await seed(store, pool(2_500)) == Seeded(nodes_created=2_499, nodes_updated=1, others_created=3)
    assert len(store.read().list(Node)) == 2_500


async def test_what_was_changed_by_hand_stays_until_the_file_says_something_new(store: SqliteStore) -> None:
    """The same file leaves labels set by hand alone; another description of the node replaces them."""
    await seed(store, pool(2))
    node = read(store, "n1")
    await put(store, replace(node, metadata=replace(node.metadata, labels={"tier": "b"})))
    assert await seed(store, pool(2), now=200.0) == NOTHING
    assert read(store, "n1").metadata.labels == {"tier": "b"}
    assert await seed(store, pool(2, "2Gi"), now=300.0) == Seeded(nodes_updated=2)
    assert read(store, "n1").metadata.labels["tier"] == "a"


async def test_a_node_made_by_hand_stays(store: SqliteStore) -> None:
    """A node that a person made is not removed for being in no file; one that a person removed is there again."""
    await seed(store, pool(2))
    await put(store, Node(metadata=Metadata(name="mine", uid="u"), allocatable={"cpu": "1"}, described=BY_HAND))
    await store.commit([Delete(Key(Kind.NODE, "", "n0"), read(store, "n0").resource_version)])
    assert await seed(store, pool(2), now=200.0) == Seeded(nodes_created=1)
    assert read(store, "mine").described == BY_HAND
