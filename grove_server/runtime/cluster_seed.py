"""Keeping the store's nodes equal to the cluster file, at the start of a server with the fake runtime.

The file says which nodes there are and what they offer. What people did to a node while the server ran stays: whether
it is cordoned and whether it is marked down. A node that left the file is removed; the runtime then lets go of its pods
and they are placed anew. Topology bindings, priority classes and queues are made when they are missing and never
changed: they belong to whoever edits them through the API. What is built in is made whatever the file says.

Seeding twice changes nothing the second time.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from grove_server.resources.cluster import Node
from grove_server.resources.meta import Key, Kind, key_of
from grove_server.resources.priority import BUILT_IN_CLASSES
from grove_server.resources.queues import BUILT_IN_QUEUE, DEFAULT_QUEUE
from grove_server.runtime.cluster_file import ClusterFile
from grove_server.runtime.cluster_objects import ClusterObject
from grove_server.store.interface import Applied, Change, Delete, Put, Store

# The store makes many commits durable together; small ones keep its slices short.
_CHANGES_PER_COMMIT: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Seeded:
    """What seeding changed, in numbers of nodes, topology bindings, and other objects (those built in included)."""

    nodes_created: int = 0
    nodes_updated: int = 0
    nodes_removed: int = 0
    bindings_created: int = 0
    others_created: int = 0


class SeedError(RuntimeError):
    """Somebody else changed the nodes at the same time: two servers, or loops that were started too early."""


async def seed_cluster(store: Store, cluster: ClusterFile, *, now: float, new_uid: Callable[[], str]) -> Seeded:
    """Make the nodes of *store* those of *cluster* and add what else is missing.

    To be called before the loops run. Raises StoreUnavailableError, or SeedError when it lost a race.
    """
    changes = list(_changes(store, cluster, now, new_uid))
    commits = []
    for start in range(0, len(changes), _CHANGES_PER_COMMIT):
        piece = changes[start : start + _CHANGES_PER_COMMIT]
        commits.append(store.commit_soon(piece, atomic=False, cause="cluster-file"))
        await asyncio.sleep(0)
    outcomes = list(itertools.chain.from_iterable(await asyncio.gather(*commits)))
    lost = [outcome.key.name for outcome in outcomes if not isinstance(outcome, Applied)]
    if lost:
        raise SeedError(
            f"{len(lost)} nodes or other objects changed while the cluster file was read, the first is {lost[0]}"
        )
    return Seeded(
        nodes_created=sum(_is_node_put(change) and change.expected == 0 for change in changes),
        nodes_updated=sum(_is_node_put(change) and change.expected != 0 for change in changes),
        nodes_removed=sum(isinstance(change, Delete) for change in changes),
        bindings_created=sum(_put_kind(change) is Kind.CLUSTER_TOPOLOGY_BINDING for change in changes),
        others_created=sum(_put_kind(change) in {Kind.PRIORITY_CLASS, Kind.QUEUE} for change in changes),
    )


def _put_kind(change: Change) -> Kind | None:
    return change.resource.kind if isinstance(change, Put) else None


def _is_node_put(change: Change) -> bool:
    return _put_kind(change) is Kind.NODE


def _changes(store: Store, cluster: ClusterFile, now: float, new_uid: Callable[[], str]) -> Iterator[Change]:
    reader = store.read()
    wanted = {node.metadata.name for node in cluster.nodes}
    for node in reader.sorted_list(Node):
        if node.metadata.name not in wanted:
            yield Delete(Key(Kind.NODE, "", node.metadata.name), node.resource_version)
    for node in cluster.nodes:
        existing = reader.get(Node, "", node.metadata.name)
        if existing is None:
            metadata = replace(node.metadata, uid=new_uid(), created_at=now)
            yield Put(replace(node, metadata=metadata, ready_changed_at=now), 0)
            continue
        updated = _updated(existing, node)
        if updated != existing:
            yield Put(updated, existing.resource_version)
    for each in _wanted_objects(cluster):
        key = key_of(each)
        if reader.get(key.kind, "", key.name) is None:
            yield Put(replace(each, metadata=replace(each.metadata, uid=new_uid(), created_at=now)), 0)


def _wanted_objects(cluster: ClusterFile) -> list[ClusterObject]:
    """Return the objects of the file and those built in; the file may describe the queue "default" itself."""
    wanted: list[ClusterObject] = [*cluster.bindings, *cluster.priority_classes, *cluster.queues, *BUILT_IN_CLASSES]
    if all(queue.metadata.name != DEFAULT_QUEUE for queue in cluster.queues):
        wanted.append(BUILT_IN_QUEUE)
    return wanted


def _updated(existing: Node, wanted: Node) -> Node:
    """Return *existing* with what the file says, and what people did to it kept."""
    return replace(
        existing,
        metadata=replace(existing.metadata, labels=wanted.metadata.labels, annotations=wanted.metadata.annotations),
        taints=wanted.taints,
        allocatable=wanted.allocatable,
        capacity=wanted.capacity,
        address=wanted.address,
        broken_gpus=wanted.broken_gpus,
        conditions=wanted.conditions,
    )
