"""What must be true once nothing goes wrong any more: computed from the rows alone, by other code than the server's.

``differences`` is empty when every set has exactly its wanted pods, what can be placed is placed, what is placed
serves, every status is exact, the loops are idle and the placement's account is the sum of the bound pods.
``leftovers`` is empty when nothing of any set is left, in the store or in the server's memory.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Final

from grove_server.control.drafts import CopyDraft, CopyKey
from grove_server.control.scenes import Scenes
from grove_server.placement.allowances import amounts_of_pod, surplus_of
from grove_server.placement.cluster import Cluster
from grove_server.placement.gangs import ask_minimum, ask_surplus, is_complete, is_placed
from grove_server.placement.place import place
from grove_server.placement.reclaim import amounts_of
from grove_server.placement.requests import GPU_RESOURCE, GangRequest
from grove_server.placement.results import Placement
from grove_server.placement.shapes import amount, node_state
from grove_server.resources.cluster import Node
from grove_server.resources.gpu_annotations import GPU_MILLI
from grove_server.resources.meta import Key, Kind
from grove_server.resources.workload import (
    WAITING_FOR_PARENTS,
    GangPhase,
    Pod,
    PodClique,
    PodCliqueSet,
    PodGang,
    PodPhase,
)
from grove_server.store.interface import Reader
from tests.simulation.books import Books, holds_room
from tests.simulation.lifecycle_rules import awaited
from tests.simulation.ranks import LIMITED, OVER
from tests.simulation.server import SimServer
from tests.simulation.trees import tree_differences

# Whoever has plans for so soon is not done; what comes later (repetitions that wait for hours) is.
PLANS_S: Final = 300.0
OF_SETS = (Kind.POD_CLIQUE, Kind.POD_CLIQUE_SCALING_GROUP, Kind.POD_GANG, Kind.POD, Kind.POD_TEMPLATE)


def differences(server: SimServer, books: Books) -> Iterator[str]:
    """Yield what is not yet as it should be."""
    if not server.is_quiet:
        yield f"not quiet: {server.plane.problems()} {server.store.health()} {server.runtime.health()}"
        return
    if server.runtime._due:
        # A pod that serves may be about to crash, as its annotations ask.
        yield f"the runtime has plans for {len(server.runtime._due)} pods"
        return
    due_s = min(server.plane.workload.book.queue._wake_at.values(), default=math.inf)
    if due_s < server.loop.time() + PLANS_S:
        # Back-offs, deadlines of updates, clocks of broken units.
        yield f"the workload loop has plans in {due_s - server.loop.time():.1f} s"
        return
    if server.plane.placement.afterwards.is_telling:
        yield "queues are told how they stand in a moment"
        return
    yield from _memory_is_the_disk(server, books)
    for owner in server.store.read().sorted_list(PodCliqueSet):
        if owner.metadata.deleted_at is not None:
            yield f"set {owner.metadata.name} is still there"
            continue
        yield from tree_differences(books, owner)
    yield from _pods(books)
    yield from _gangs(books)
    for key in server.plane.placement.room.nominations:
        yield f"places are kept for {key.name} and nobody leaves them"
    yield from _placeable(server)
    yield from account(server, books)


def _memory_is_the_disk(server: SimServer, books: Books) -> Iterator[str]:
    reader = server.store.read()
    if sum(reader.count(kind) for kind in Kind) != len(books.rows):
        yield "the store and the disk hold different numbers of rows"
    for key, row in books.rows.items():
        if reader.get(*key) is not row and reader.get(*key) != row:
            yield f"{key} is another in the store than on the disk"


# Pods and gangs.


def _pods(books: Books) -> Iterator[str]:
    """Every pod belongs to a clique, is active, and serves if it has a node."""
    for key, pod in books.rows.items():
        if not isinstance(pod, Pod):
            continue
        if Key(Kind.POD_CLIQUE, key.namespace, pod.identity.name) not in books.rows:
            yield f"pod {key.name} has no clique"
        if not pod.is_active:
            yield f"pod {key.name} is {pod.phase} and leaving: {pod.is_terminating}"
        elif pod.node and pod.waiting_reason == WAITING_FOR_PARENTS:
            yield from _held(books, pod)
        elif pod.node and not (pod.phase is PodPhase.RUNNING and pod.is_ready):
            yield f"pod {key.name} has node {pod.node} and is {pod.phase} ({pod.waiting_reason}), not ready"
        elif not pod.node and not pod.waiting_reason:
            yield f"pod {key.name} does not say why it waits"


def _held(books: Books, pod: Pod) -> Iterator[str]:
    """A pod waits for its parents only as long as one of them lacks pods that are ready."""
    clique = books.rows[Key(Kind.POD_CLIQUE, pod.metadata.namespace, pod.identity.name)]
    assert isinstance(clique, PodClique)
    if all(_serves(books, parent) for parent in awaited(books, clique)):
        yield f"pod {pod.metadata.name} waits for parents, and all of them serve"


def _serves(books: Books, clique: PodClique) -> bool:
    pods = books.pods_of_gang.get((clique.metadata.namespace, clique.identity.gang), {}).values()
    ready = sum(pod.is_active and pod.is_ready for pod in pods if pod.identity.name == clique.metadata.name)
    return ready >= min(clique.min_available, clique.replicas)


def _gangs(books: Books) -> Iterator[str]:
    """Every gang lists its pods and says truly whether it is placed and serves."""
    for key, gang in books.rows.items():
        if not isinstance(gang, PodGang):
            continue
        pods = books.pods_of_gang.get((key.namespace, key.name), {}).values()
        listed = {name for group in gang.pod_groups for name in group.pods}
        if listed != {pod.metadata.name for pod in pods}:
            yield f"gang {key.name} lists {sorted(listed)}, there are {sorted(p.metadata.name for p in pods)}"
        placed = Counter(pod.identity.name for pod in pods if pod.node)
        ready = Counter(pod.identity.name for pod in pods if pod.is_ready)
        is_now_placed = all(placed[group.name] >= group.min_replicas for group in gang.pod_groups)
        is_ready = all(ready[group.name] >= group.min_replicas for group in gang.pod_groups)
        if (gang.status.scheduled_at is not None) != is_now_placed:
            yield f"gang {key.name} says scheduled at {gang.status.scheduled_at}, placed is {is_now_placed}"
        if (gang.status.phase is GangPhase.RUNNING) != is_ready:
            yield f"gang {key.name} says {gang.status.phase}, ready is {is_ready}"
        if not is_now_placed and not gang.status.reason:
            yield f"gang {key.name} does not say why it waits"


# Placement.


def fresh_cluster(reader: Reader, scenes: Scenes, cluster: Cluster) -> Cluster:
    """Fill *cluster* with the nodes and bound pods of the store."""
    cluster.upsert_nodes(node_state(node) for node in reader.sorted_list(Node))
    for pod in reader.sorted_list(Pod):
        if holds_room(pod):
            cluster.bind_pod(pod.node, scenes.shape_of(pod.template), pod.gpu_ids)
    return cluster


def _placeable(server: SimServer) -> Iterator[str]:
    """No gang and no surplus pod waits that a fresh look would place."""
    reader = server.store.read()
    cluster = Cluster()
    scenes = Scenes(server.store, cluster)
    fresh_cluster(reader, scenes, cluster)
    for gang in reader.sorted_list(PodGang):
        scene = scenes.scene(gang, CopyDraft(CopyKey(gang.set_uid, gang.copy)))
        if not any(scene.pods.unbound.values()) or gang.topology_error:
            continue
        if is_placed(gang, scene.pods):
            asks = ask_surplus(scene)
        elif not is_complete(gang, scene.pods):
            yield f"gang {gang.metadata.name} is not complete"
            continue
        else:
            base = reader.get(PodGang, gang.metadata.namespace, gang.base_gang) if gang.base_gang else None
            if base is not None and base.status.scheduled_at is None:
                continue
            asks = ask_minimum(scene)
        for ask in asks:
            if isinstance(place(cluster, ask.request), Placement) and not _is_limited(server, gang, ask.request):
                yield f"gang {gang.metadata.name} waits ({gang.status.reason}) and {ask.request.name} would fit"


def _is_limited(server: SimServer, gang: PodGang, request: GangRequest) -> bool:
    """Return whether a gang's queue may not have the least of what it asks for."""
    queues = server.plane.placement.room.queues
    queue = queues.name_of(gang)
    if queue not in LIMITED:
        return False
    reader = server.store.read()
    named = {each.metadata.name: each for each in reader.list(PodGang) if queues.name_of(each) == queue}
    pods = [pod for pod in reader.list(Pod) if pod.node and pod.phase not in OVER and pod.identity.gang in named]
    shape_of = server.plane.placement.scenes.shape_of
    has = sum(shape_of(pod.template).amount(GPU_RESOURCE) for pod in pods)
    asked = amounts_of(request) or amounts_of_pod(surplus_of(request.members)[0])
    return has + asked.get(GPU_RESOURCE, 0) > LIMITED[queue]


def account(server: SimServer, books: Books) -> Iterator[str]:
    """What placement believes to be free is what nodes have less what bound pods take and what is kept for gangs."""
    placement = server.plane.placement
    kept, kept_gpus = _kept(server)
    for node in server.store.read().sorted_list(Node):
        name = node.metadata.name
        pods = books.pods_on.get(name, {}).values()
        used: Counter[str] = Counter({"pods": len(pods)})
        taken: set[int] = set()
        shares: Counter[int] = Counter()
        for pod in pods:
            used.update(dict(books.shape(pod).requests))
            taken.update(pod.gpu_ids)
            shares.update(dict.fromkeys(pod.gpu_ids, books.shape(pod).gpu_milli))
        free = placement.cluster.free_of(name)
        for resource, text in node.allocatable.items():
            taken_or_kept = used[resource] + kept[name, resource]
            if resource != GPU_RESOURCE and free[resource] != amount(resource, text) - taken_or_kept:
                yield f"placement has {free[resource]} of {resource} on {name}, used are {taken_or_kept} of {text}"
        total = amount(GPU_RESOURCE, node.allocatable.get(GPU_RESOURCE, "0"))
        if set(placement.cluster.gpus_free_of(name)) != set(range(total)) - taken - kept_gpus[name]:
            yield f"placement has GPUs {placement.cluster.gpus_free_of(name)} of {name} free, taken are {sorted(taken)}"
        left = {gpu_id: GPU_MILLI - milli for gpu_id, milli in shares.items() if milli}
        if placement.cluster.gpu_shares_of(name) != left:
            yield f"placement has {placement.cluster.gpu_shares_of(name)} milli of GPUs of {name} free, left are {left}"
    yield from _seats(server, books)
    bound = sum(len(pods) for pods in books.pods_on.values())
    if len(placement.desk.holdings) != bound:
        yield f"placement accounts for {len(placement.desk.holdings)} pods, bound are {bound}"


def _kept(server: SimServer) -> tuple[Counter[tuple[str, str]], dict[str, set[int]]]:
    """Return what is kept for gangs, by node and resource, and the GPUs."""
    kept: Counter[tuple[str, str]] = Counter()
    gpus: dict[str, set[int]] = defaultdict(set)
    nominations = server.plane.placement.room.nominations
    for key in nominations:
        nominated = nominations.get(key)
        for clique in nominated.placement.cliques if nominated is not None else ():
            for node, gpu_ids in clique.bindings:
                kept.update({(node, resource): value for resource, value in (("pods", 1), *clique.shape.requests)})
                gpus[node].update(gpu_ids)
    return kept, gpus


def _seats(server: SimServer, books: Books) -> Iterator[str]:
    """Who sits where, as evictions see it, is who is bound."""
    seats = server.plane.placement.room.seats
    seats.settle()
    bound = {f"{key.namespace}/{key.name}": pod for pods in books.pods_on.values() for key, pod in pods.items()}
    if seats.occupancy.pods.keys() != bound.keys():
        yield f"seats differ: {sorted(seats.occupancy.pods.keys() ^ bound.keys())[:5]}"
        return
    for name, row in seats.occupancy.pods.items():
        seat = seats.occupancy.seat(row)
        if (seat.node, seat.gpu_ids) != (bound[name].node, bound[name].gpu_ids):
            yield f"{name} sits on {seat.node}{seat.gpu_ids} and is bound to {bound[name].node}{bound[name].gpu_ids}"
    used = {queue: +held for queue, held in seats.used().items() if +held}
    counted = {queue: +Counter(held) for queue, held in seats.occupancy.used_by_queue().items() if any(held.values())}
    if used != counted:
        yield f"queues use {counted} and are said to use {used}"


# The end.


def leftovers(server: SimServer) -> Iterator[str]:
    """Yield what is left of sets when all of them are deleted."""
    reader = server.store.read()
    for kind in (Kind.POD_CLIQUE_SET, *OF_SETS):
        if reader.count(kind):
            yield f"{reader.count(kind)} rows of {kind}: {[r.metadata.name for r in reader.list(kind)][:5]}"
    placement, workload, runtime = server.plane.placement, server.plane.workload, server.runtime
    memory = {
        "placement holdings": len(placement.desk.holdings),
        "placement waiting": len(placement.desk.waiting),
        "placement dirty": len(placement._dirty),
        "placement drafts": len(placement._drafts_in_flight),
        "placement decisions": len(placement.desk.placed),
        "places kept": len(list(placement.room.nominations)),
        "pods told to leave": len(placement.room.seats.leaving),
        "workload sets": len(workload.book.sets),
        "workload queue": len(workload.book.queue),
        "workload timers": len(workload.book.queue._wake_at),
        "workload changes": workload._changes_in_flight,
        "runtime pods": len(runtime._node_of),
        "runtime dues": len(runtime._due),
        "runtime nodes": len(runtime._pods_on),
    }
    yield from (f"{what}: {count}" for what, count in memory.items() if count)
