"""What must hold after every durable commit, whatever went wrong before.

Each check is a function of the books and one commit, costs in proportion to the commit, and answers with sentences;
none means that all is well. What may be late (statuses follow the pods) is not here: ``convergence`` asks for it.

Checks that speak of decisions allow for what the decision could not know: a loss that became durable but was not yet
visible when placement decided is no fault of placement.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from grove_server.placement.requests import GPU_RESOURCE
from grove_server.placement.shapes import amount
from grove_server.resources.gang_parts import PodGroup
from grove_server.resources.gpu_annotations import GPU_MILLI
from grove_server.resources.meta import Key, Kind, Resource, key_of
from grove_server.resources.workload import (
    Pod,
    PodClique,
    PodCliqueScalingGroup,
    PodCliqueSet,
    PodGang,
    PodPhase,
)
from grove_server.store.journal import Commit
from tests.simulation.books import Books, GangKey, serves
from tests.simulation.lifecycle_rules import check_pass, check_start
from tests.simulation.ranks import check_evictions
from tests.simulation.routers import Fleet

PLACEMENT: Final = "placement"
WORKLOAD: Final = "workload"
# Named after what they are, uid included: they may come back when their time was over.
COME_BACK: Final = (Kind.EVENT, Kind.ROUTER_REGISTRATION)
# Nothing of these ends with their row alone: what is wanted again before its pods are gone stays.
MAY_STAY: Final = (Kind.POD_CLIQUE, Kind.POD_CLIQUE_SCALING_GROUP, Kind.POD_GANG)
DRAIN_SLACK_S: Final = 5.0
Previous = Mapping[Key, Resource | None]


def check_commit(books: Books, commit: Commit, previous: Previous, decided_at_s: float, fleet: Fleet) -> Iterator[str]:
    """Yield what is wrong after *commit*; the books hold it already."""
    yield from check_templates(books, commit, previous)
    seen = books.rested_on.pop(commit, 0)
    # A refusal that waited for what it rests on has no writes.
    if commit.cause == WORKLOAD and commit.writes:
        yield from check_pass(books, previous, seen, commit.writes[0].version, decided_at_s, fleet)
    nodes: set[str] = set()
    bound: list[Pod] = []
    for key, before in previous.items():
        after = books.rows.get(key)
        if after is None:
            continue
        yield from check_identity(books, key, before, after)
        if isinstance(after, PodCliqueSet):
            yield from check_set(commit.cause, before, after)
        elif isinstance(after, Pod):
            yield from check_pod(books, before, after)
            yield from check_start(before, after)
            if after.node and not (isinstance(before, Pod) and before.node):
                bound.append(after)
                nodes.add(after.node)
        elif isinstance(after, PodClique) and commit.cause == WORKLOAD:
            yield from check_clique(after)
        elif isinstance(after, PodCliqueScalingGroup) and commit.cause == WORKLOAD:
            yield from check_group(after)
    for node in sorted(nodes):
        yield from check_node(books, node)
    yield from note_placed(books, previous, decided_at_s)
    yield from check_evictions(books, commit.cause, previous, decided_at_s)
    if bound:
        if commit.cause != PLACEMENT:
            yield f"{bound[0].metadata.name} got its node from {commit.cause}"
        yield from check_bindings(books, bound, decided_at_s)


# Rows by themselves.


def check_identity(books: Books, key: Key, before: Resource | None, after: Resource) -> Iterator[str]:
    """Names keep their uid while they live, uids are never used again, children have a living set."""
    uid = after.metadata.uid
    if key.kind not in COME_BACK and (books.uids.get(uid) != key or uid in books.spent_uids):
        yield f"the uid of {key} is or was that of {books.uids.get(uid)}"
    if before is not None:
        if before.metadata.uid != uid:
            yield f"{key} changed its uid without being deleted"
        was, now = before.metadata.deleted_at, after.metadata.deleted_at
        # A time that lies ahead, since the clock was set back, may be brought back to the present.
        if was is not None and key.kind not in MAY_STAY and (now is None or now > was):
            yield f"{key} came back from its deletion"
        if after.resource_version <= before.resource_version:
            yield f"{key} went from version {before.resource_version} to {after.resource_version}"
        return
    set_uid = _set_uid(after)
    if set_uid and set_uid not in books.sets:
        state = "was removed" if set_uid in books.removed_sets else "never existed"
        yield f"{key} was made for a set that {state}"


def _set_uid(resource: Resource) -> str:
    if isinstance(resource, PodClique | Pod):
        return resource.identity.set_uid
    if isinstance(resource, PodGang | PodCliqueScalingGroup):
        return resource.set_uid
    return resource.metadata.owner_uid if resource.kind is Kind.POD_TEMPLATE else ""


def check_set(cause: str, before: Resource | None, after: PodCliqueSet) -> Iterator[str]:
    """Only users change what users own, and they change no status."""
    if not isinstance(before, PodCliqueSet) or before.metadata.uid != after.metadata.uid:
        return
    if cause.startswith("api."):
        return
    if after.rolled_back_from and after.rolled_back_from == before.revision.hash:
        yield from check_return(cause, before, after)
        return
    if (
        (before.spec is not after.spec and before.spec != after.spec)
        or before.metadata != after.metadata
        or before.scale_owner != after.scale_owner
        or before.applied_replicas != after.applied_replicas
        or before.revision != after.revision
    ):
        yield f"{cause} changed what users own of {key_of(after)}"


def check_return(cause: str, before: PodCliqueSet, after: PodCliqueSet) -> Iterator[str]:
    """A set goes back by itself only if it asked for that, once, and with its template alone."""
    strategy = before.spec.update_strategy
    rolling = strategy.rolling_update if strategy is not None else None
    progress = before.status.update_progress
    if cause != WORKLOAD or rolling is None or not rolling.auto_rollback or before.rolled_back_from:
        yield f"{cause} took {key_of(after)} back, which nobody asked for"
    if progress is None or not progress.is_active or before.paused_at is not None:
        yield f"{key_of(after)} went back without an update that could be stuck"
    if (before.spec.replicas, before.spec.update_strategy) != (after.spec.replicas, after.spec.update_strategy):
        yield f"{key_of(after)} went back and changed more than what its pods run"


def check_pod(books: Books, before: Resource | None, pod: Pod) -> Iterator[str]:
    """A pod stays where it is, runs only on a node, and serves only while it runs; its index is its own."""
    name = pod.metadata.name
    if isinstance(before, Pod) and before.metadata.uid == pod.metadata.uid:
        if before.node and (before.node, before.gpu_ids) != (pod.node, pod.gpu_ids):
            yield f"{name} moved from {before.node}{before.gpu_ids} to {pod.node}{pod.gpu_ids}"
        if before.phase in (PodPhase.FAILED, PodPhase.SUCCEEDED) and before.phase is not pod.phase:
            yield f"{name} went from {before.phase} to {pod.phase}"
        if before.index != pod.index or before.identity.name != pod.identity.name:
            yield f"{name} changed its place in its clique"
    if pod.phase is not PodPhase.PENDING and not pod.node:
        yield f"{name} is {pod.phase} without a node"
    if pod.ready_at is not None and (pod.phase is not PodPhase.RUNNING or pod.started_at is None):
        yield f"{name} serves in phase {pod.phase}, started at {pod.started_at}"
    if (pod.node != "") != (pod.scheduled_at is not None):
        yield f"{name} has node {pod.node!r} and was scheduled at {pod.scheduled_at}"
    wanted = 1 if books.shape(pod).gpu_milli else books.shape(pod).amount(GPU_RESOURCE)
    if pod.node and len(pod.gpu_ids) != wanted:
        yield f"{name} has GPUs {pod.gpu_ids} and asked for {wanted}"
    if pod.is_active:
        others = books.pod_at[pod.metadata.namespace, pod.identity.name, pod.index]
        if len(others) > 1:
            yield f"index {pod.index} of {pod.identity.name} is held by {sorted(key.name for key in others)}"


def check_clique(clique: PodClique) -> Iterator[str]:
    """A clique's status, when it is written, claims no more than a part of the whole."""
    status = clique.status
    if not 0 <= status.ready_replicas <= status.scheduled_replicas <= status.replicas:
        yield f"{clique.metadata.name} claims {status}"
    if status.updated_replicas > status.replicas:
        yield f"{clique.metadata.name} of size {clique.replicas} claims {status}"
    if 0 < clique.replicas < clique.min_available:
        yield f"{clique.metadata.name} has size {clique.replicas}, below its minimum {clique.min_available}"


def check_group(group: PodCliqueScalingGroup) -> Iterator[str]:
    """A group's status, when it is written, claims no more than a part of the whole."""
    status = group.status
    if not 0 <= status.available_replicas <= status.scheduled_replicas <= status.replicas:
        yield f"{group.metadata.name} of size {group.replicas} claims {status}"
    if status.updated_replicas > status.replicas:
        yield f"{group.metadata.name} claims {status}"


def check_templates(books: Books, commit: Commit, previous: Previous) -> Iterator[str]:
    """Every pod and clique refers to a template that is there."""
    for key, resource, _ in commit.writes:
        if key.kind is Kind.POD_TEMPLATE and resource is None and books.template_users[key] > 0:
            yield f"template {key.name} was removed while {books.template_users[key]} objects use it"
    for key in previous:
        user = books.rows.get(key)
        if isinstance(user, Pod | PodClique):
            template = Key(Kind.POD_TEMPLATE, user.template.metadata.namespace, user.template.metadata.name)
            if template not in books.rows:
                yield f"{key} refers to template {template.name}, which is not there"


# Places.


def check_node(books: Books, name: str) -> Iterator[str]:
    """A node is not over its capacity, and each of its GPUs belongs to one pod, or to several by shares."""
    pods = books.pods_on.get(name, {}).values()
    used: Counter[str] = Counter({"pods": len(pods)})
    gpus: Counter[int] = Counter()
    for pod in pods:
        used.update(dict(books.shape(pod).requests))
        gpus.update(dict.fromkeys(pod.gpu_ids, books.shape(pod).gpu_milli or GPU_MILLI))
    node = books.nodes.get(name)
    if node is None:
        yield f"a pod was bound to node {name}, which never was"
        return
    for resource, value in sorted(used.items()):
        room = amount(resource, node.allocatable.get(resource, "0"))
        if value > room:
            yield f"node {name} has {room} of {resource} and holds {value}"
    twice = sorted(gpu for gpu, milli in gpus.items() if milli > GPU_MILLI)
    if twice:
        yield f"GPUs {twice} of node {name} belong to several pods"


def check_bindings(books: Books, bound: Iterable[Pod], decided_at_s: float) -> Iterator[str]:
    """Minimums are placed whole, scaled gangs after their base, and every scope stays in its domain."""
    by_gang: dict[GangKey, list[Pod]] = {}
    for pod in bound:
        by_gang.setdefault((pod.metadata.namespace, pod.identity.gang), []).append(pod)
        if not pod.is_active:
            yield f"{pod.metadata.name} was bound while it was leaving"
    for key, pods in sorted(by_gang.items()):
        gang = books.gang(key)
        if gang is None:
            yield f"pods of gang {key} were bound, and there is no such gang"
            continue
        yield from check_whole(books, gang, pods, decided_at_s)
        yield from check_base(books, gang)
        yield from check_domains(books, gang)


def check_whole(books: Books, gang: PodGang, bound: list[Pod], decided_at_s: float) -> Iterator[str]:
    """A placement binds a gang's whole minimum; after losses, whole cliques or group replicas of it."""
    key = (gang.metadata.namespace, gang.metadata.name)
    there = books.active_of_gang(key)
    counted = there + books.lost_unseen(key, decided_at_s)
    counts = Counter(pod.identity.name for pod in counted)
    fresh = {key_of(pod) for pod in bound}
    if len(counted) == len(fresh):
        wanted = list(gang.pod_groups)
    else:
        wanted = [group for group in gang.pod_groups if _is_in_part_of(books, key, group, bound)]
    for group in wanted:
        if counts[group.name] < group.min_replicas:
            yield (
                f"gang {gang.metadata.name} was placed with {counts[group.name]} of {group.min_replicas} pods of "
                f"{group.name}; new are {sorted(pod.metadata.name for pod in bound)}"
            )


def _is_in_part_of(books: Books, key: GangKey, group: PodGroup, bound: list[Pod]) -> bool:
    """Return whether a pod group belongs to the standalone clique or group replica of one of *bound*."""
    clique = books.rows.get(Key(Kind.POD_CLIQUE, key[0], group.name))
    if not isinstance(clique, PodClique):
        return any(pod.identity.name == group.name for pod in bound)
    place = (clique.identity.group, clique.identity.group_replica)
    return any(
        pod.identity.name == group.name
        or (clique.identity.group and (pod.identity.group, pod.identity.group_replica) == place)
        for pod in bound
    )


def check_base(books: Books, gang: PodGang) -> Iterator[str]:
    """A scaled gang gets places only once its base gang was placed."""
    if not gang.base_gang:
        return
    base = books.gang((gang.metadata.namespace, gang.base_gang))
    # Without a base gang everything in it is at size 0, and there is nothing to wait for.
    if base is not None and base.metadata.uid not in books.placed_gangs:
        yield f"scaled gang {gang.metadata.name} was placed before its base"


def check_domains(books: Books, gang: PodGang) -> Iterator[str]:
    """All bound pods of a scope with a required domain are in one instance of it."""
    key = (gang.metadata.namespace, gang.metadata.name)
    pods = books.active_of_gang(key)
    if gang.topology_constraint is not None and gang.topology_constraint.required:
        copy = books.pods_of_copy.get((gang.set_uid, gang.copy), {}).values()
        of_copy = [pod for pod in copy if pod.node and pod.is_active]
        yield from _one_domain(books, f"copy {gang.copy}", gang.topology_constraint.required, of_copy)
    for group in gang.topology_groups:
        if group.topology_constraint is not None and group.topology_constraint.required:
            inside = [pod for pod in pods if pod.identity.name in group.pod_group_names]
            yield from _one_domain(books, group.name, group.topology_constraint.required, inside)
    for pod_group in gang.pod_groups:
        if pod_group.topology_constraint is not None and pod_group.topology_constraint.required:
            inside = [pod for pod in pods if pod.identity.name == pod_group.name]
            yield from _one_domain(books, pod_group.name, pod_group.topology_constraint.required, inside)


def _one_domain(books: Books, scope: str, level: str, pods: list[Pod]) -> Iterator[str]:
    places = {pod.metadata.name: books.label(pod.node, level) for pod in pods}
    found = {value for value in places.values() if value is not None}
    if len(found) > 1:
        yield f"{scope} must be in one {level} and is in {sorted(found)}: {places}"


def check_deadlines(books: Books, now_s: float, troubled_at_s: float) -> Iterator[str]:
    """No pod drains for longer than its deadline, whatever its routers do; asked when the server has nothing to do.

    A clock that was set back may let a drain begin anew, once.
    """
    for key, since_s in books.draining_since_s.items():
        pod = books.rows[key]
        assert isinstance(pod, Pod)
        timeout_s = books.drain_timeouts_s[pod.identity.set_uid]
        if now_s > max(since_s, troubled_at_s) + 2.0 * timeout_s + DRAIN_SLACK_S:
            yield f"{key.name} drains for {now_s - since_s:.1f} s and may do so for {timeout_s:.1f} s"


def check_drained_nodes(books: Books, now_s: float, troubled_at_s: float) -> Iterator[str]:
    """No clique of which all pods serve leaves one on a node that is to be emptied; asked like ``check_deadlines``."""
    for name, since_s in books.emptied_since_s.items():
        if now_s < max(since_s, troubled_at_s) + DRAIN_SLACK_S:
            continue
        for key, pod in books.pods_on.get(name, {}).items():
            clique = books.rows.get(Key(Kind.POD_CLIQUE, key.namespace, pod.identity.name))
            if not pod.is_active or pod.identity.group or not isinstance(clique, PodClique):
                continue
            pods = books.pods_of_copy.get((pod.identity.set_uid, pod.identity.copy), {}).values()
            serving = sum(serves(each) for each in pods if each.identity.name == pod.identity.name)
            if serving >= clique.replicas:
                yield f"{key.name} stays on {name}, which is to be emptied, with {serving} of {clique.replicas} serving"


def note_placed(books: Books, previous: Previous, decided_at_s: float) -> Iterator[str]:
    """Note gangs that have their whole minimum now, and check that a gang which says so has it or had it."""
    touched: dict[GangKey, None] = {}
    for key in previous:
        after = books.rows.get(key)
        if isinstance(after, Pod) and after.node:
            touched[after.metadata.namespace, after.identity.gang] = None
        elif isinstance(after, PodGang):
            touched[after.metadata.namespace, after.metadata.name] = None
    for gang_key in touched:
        gang = books.gang(gang_key)
        if gang is None or gang.metadata.uid in books.placed_gangs:
            continue
        there = books.active_of_gang(gang_key)
        counts = Counter(pod.identity.name for pod in [*there, *books.lost_unseen(gang_key, decided_at_s)])
        if all(counts[group.name] >= group.min_replicas for group in gang.pod_groups):
            books.placed_gangs.add(gang.metadata.uid)
        elif gang.status.scheduled_at is not None:
            yield f"gang {gang.metadata.name} says that it is placed and never was"
