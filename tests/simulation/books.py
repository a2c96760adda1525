"""What is durable, filed the way the invariants ask: by gang, copy, node, index, uid and template.

The books follow the disk commit by commit and never look at the server. Each entry costs a few dictionary operations,
so that every commit can be checked.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Mapping
from typing import Final, TypeVar

from grove_server.placement.requests import PodShape
from grove_server.placement.shapes import shape_of
from grove_server.resources.cluster import Node
from grove_server.resources.duration import parse_duration
from grove_server.resources.labels import DRAIN_TIMEOUT
from grove_server.resources.meta import Key, Kind, Resource, key_of
from grove_server.resources.workload import (
    Pod,
    PodClique,
    PodCliqueScalingGroup,
    PodCliqueSet,
    PodGang,
    PodPhase,
    PodTemplate,
)
from grove_server.store.journal import Commit
from grove_server.store.state import Write

_T = TypeVar("_T")
GangKey = tuple[str, str]
CopyKey = tuple[str, int]
IndexKey = tuple[str, str, int]

DRAIN_TIMEOUT_S: Final = 30.0
FINISHED: Final = (PodPhase.FAILED, PodPhase.SUCCEEDED)


def holds_room(pod: Pod) -> bool:
    """Return whether a pod takes room on a node: it has one, and its containers may run."""
    return bool(pod.node) and pod.phase not in FINISHED


def serves(pod: Pod) -> bool:
    """Return whether a pod counts as ready."""
    return pod.is_ready and pod.is_active


class Books:
    """Indexes over the rows of a disk, kept up by ``enter``."""

    def __init__(self, rows: Mapping[Key, Resource]) -> None:
        self.rows = rows
        self.uids: dict[str, Key] = {}
        self.spent_uids: set[str] = set()
        self.sets: dict[str, Key] = {}
        self.removed_sets: set[str] = set()
        self.pods_of_gang: dict[GangKey, dict[Key, Pod]] = {}
        self.pods_of_copy: dict[CopyKey, dict[Key, Pod]] = {}
        self.pods_on: dict[str, dict[Key, Pod]] = {}
        self.pod_at: dict[IndexKey, dict[Key, Pod]] = {}
        # Cliques and groups by the uid of their set.
        self.scalable: dict[str, dict[Key, None]] = {}
        self.template_users: Counter[Key] = Counter()
        # Uids of gangs that had their whole minimum placed once.
        self.placed_gangs: set[str] = set()
        # Nodes as they were last, those that are gone included.
        self.nodes: dict[str, Node] = {}
        # Virtual seconds; whoever enters something says what time it is.
        self.now_s = 0.0
        # Which version was visible to whoever decided a commit that is on its way.
        self.rested_on: dict[Commit, int] = {}
        self._losses: deque[tuple[int, Pod]] = deque()
        # Pods that served and then did not, and sets of which people or an edit changed something, by version.
        self._unready: deque[tuple[int, Pod]] = deque()
        self._edits: deque[tuple[int, str]] = deque()
        # Since when a pod drains, in virtual seconds, and what decides whether a template asks for new pods.
        self.draining_since_s: dict[Key, float] = {}
        # Since when nodes are to be emptied, in virtual seconds.
        self.emptied_since_s: dict[str, float] = {}
        # The longest drain that each set ever allowed.
        self.drain_timeouts_s: dict[str, float] = {}
        # Pods that are over and whose rows are still there; they hold nothing any more.
        self.finished: dict[Key, None] = {}
        self.restart_hashes: dict[tuple[str, str, str], str] = {}
        self._seen: deque[tuple[float, int]] = deque()
        self._shapes: dict[str, PodShape] = {}

    # Writing.

    def enter(self, write: Write, previous: Resource | None) -> None:
        """Take over one durable write; *previous* is what its key held before."""
        key, resource, version = write
        if previous is not None and (resource is None or resource.metadata.uid != previous.metadata.uid):
            self.uids.pop(previous.metadata.uid, None)
            self.spent_uids.add(previous.metadata.uid)
        if resource is not None:
            self.uids[resource.metadata.uid] = key
        if key.kind in (Kind.POD_CLIQUE, Kind.POD_CLIQUE_SCALING_GROUP):
            self._enter_scalable(key, resource, previous, version)
        if key.kind is Kind.POD:
            assert previous is None or isinstance(previous, Pod)
            assert resource is None or isinstance(resource, Pod)
            self._enter_pod(key, resource, previous, version)
        elif isinstance(resource, PodTemplate):
            self.restart_hashes[key.namespace, resource.clique, resource.hash] = resource.restart_hash
        elif key.kind is Kind.NODE:
            self._enter_node(key.name, resource)
        elif key.kind is Kind.POD_CLIQUE_SET:
            self._enter_set(key, resource, previous, version)

    def _enter_node(self, name: str, node: Resource | None) -> None:
        if isinstance(node, Node):
            self.nodes[name] = node
        if isinstance(node, Node) and node.draining_since is not None:
            self.emptied_since_s.setdefault(name, self.now_s)
        else:
            self.emptied_since_s.pop(name, None)

    def _enter_set(self, key: Key, owner: Resource | None, previous: Resource | None, version: int) -> None:
        self._note_edit(owner, previous, version)
        if isinstance(owner, PodCliqueSet):
            uid = owner.metadata.uid
            self.drain_timeouts_s[uid] = max(self.drain_timeouts_s.get(uid, 0.0), drain_timeout_s(owner))
            self.sets[uid] = key
        elif previous is not None:
            self.sets.pop(previous.metadata.uid, None)
            self.removed_sets.add(previous.metadata.uid)

    def _note_edit(self, resource: Resource | None, previous: Resource | None, version: int) -> None:
        """Note that a set differs in what passes over its copies rest on."""
        if not (isinstance(resource, PodCliqueSet) and isinstance(previous, PodCliqueSet)):
            owner = resource if resource is not None else previous
            assert owner is not None
            self._edits.append((version, owner.metadata.uid))
        elif (
            resource.spec is not previous.spec
            or resource.metadata is not previous.metadata
            or resource.paused_at != previous.paused_at
            or _turns(resource) != _turns(previous)
        ):
            self._edits.append((version, resource.metadata.uid))

    def _enter_scalable(self, key: Key, resource: Resource | None, previous: Resource | None, version: int) -> None:
        self._count_template(previous, -1)
        self._count_template(resource, 1)
        if _size_of(resource) != _size_of(previous):
            self._edits.append((version, _set_uid(resource if resource is not None else previous)))
        if previous is not None:
            of_set = self.scalable[_set_uid(previous)]
            del of_set[key]
            if not of_set:
                del self.scalable[_set_uid(previous)]
        if resource is not None:
            self.scalable.setdefault(_set_uid(resource), {})[key] = None

    def _enter_pod(self, key: Key, pod: Pod | None, previous: Pod | None, version: int) -> None:
        if previous is not None:
            self._file(key, previous, is_in=False)
            if previous.node and previous.is_active and (pod is None or not pod.is_active):
                self._losses.append((version, previous))
            if serves(previous) and (pod is None or not serves(pod)):
                self._unready.append((version, previous))
        if pod is not None:
            self._file(key, pod, is_in=True)
        if pod is not None and pod.node and pod.phase in FINISHED:
            self.finished[key] = None
        else:
            self.finished.pop(key, None)
        if pod is None or pod.is_terminating or not pod.is_draining:
            self.draining_since_s.pop(key, None)
        else:
            self.draining_since_s.setdefault(key, self.now_s)

    def _file(self, key: Key, pod: Pod, *, is_in: bool) -> None:
        identity = pod.identity
        namespace = pod.metadata.namespace
        _put(self.pods_of_gang, (namespace, identity.gang), key, pod, is_in=is_in)
        _put(self.pods_of_copy, (identity.set_uid, identity.copy), key, pod, is_in=is_in)
        if holds_room(pod):
            _put(self.pods_on, pod.node, key, pod, is_in=is_in)
        if pod.is_active:
            _put(self.pod_at, (namespace, identity.name, pod.index), key, pod, is_in=is_in)
        self._count_template(pod, 1 if is_in else -1)

    def _count_template(self, user: Resource | None, sign: int) -> None:
        if isinstance(user, Pod | PodClique):
            self.template_users[key_of(user.template)] += sign  # type: ignore[arg-type]  # a template has kind and metadata

    def see(self, now_s: float, version: int) -> None:
        """Note that the server sees everything up to *version* from now on."""
        self._seen.append((now_s, version))
        # Decisions rest on what was seen within the last second or so.
        while len(self._seen) > 1 and self._seen[1][0] < now_s - 5.0:
            self._seen.popleft()
        oldest = min((self._seen[0][1], *self.rested_on.values()))
        for log in (self._losses, self._unready, self._edits):
            while log and log[0][0] <= oldest:
                log.popleft()

    def forget_seen(self, version: int) -> None:
        """Note that a new server has read everything up to *version*."""
        self._seen.clear()
        self._losses.clear()
        self._unready.clear()
        self._edits.clear()
        self.rested_on.clear()
        self._seen.append((0.0, version))

    # Reading.

    def gang(self, key: GangKey) -> PodGang | None:
        """Return a gang."""
        found = self.rows.get(Key(Kind.POD_GANG, *key))
        return found if isinstance(found, PodGang) else None

    def set_of(self, uid: str) -> PodCliqueSet | None:
        """Return the set of a uid."""
        key = self.sets.get(uid)
        found = None if key is None else self.rows.get(key)
        return found if isinstance(found, PodCliqueSet) else None

    def active_of_gang(self, key: GangKey) -> list[Pod]:
        """Return the active pods of a gang that have a node."""
        return [pod for pod in self.pods_of_gang.get(key, {}).values() if pod.node and pod.is_active]

    def lost_unseen(self, key: GangKey, decided_at_s: float) -> list[Pod]:
        """Return bound pods of a gang that were lost, but not yet so for whoever decided at that time."""
        seen = self.seen_at(decided_at_s)
        return [
            pod
            for version, pod in self._losses
            if version > seen and (pod.metadata.namespace, pod.identity.gang) == key
        ]

    def all_lost_unseen(self, decided_at_s: float) -> list[Pod]:
        """Return bound pods of all gangs that were lost, but not yet so for whoever decided at that time."""
        seen = self.seen_at(decided_at_s)
        return [pod for version, pod in self._losses if version > seen]

    def seen_at(self, decided_at_s: float) -> int:
        """Return the version that whoever decided at that time saw for certain."""
        at = bisect_left(self._seen, (decided_at_s, -1))
        return self._seen[at - 1][1] if at else 0

    def stopped_serving(self, copy: CopyKey, after: int, before: int) -> list[Pod]:
        """Return the pods of a copy, as they served, that stopped serving between two versions."""
        return [
            pod
            for version, pod in self._unready
            if after < version < before and (pod.identity.set_uid, pod.identity.copy) == copy
        ]

    def was_edited(self, set_uid: str, after: int, before: int) -> bool:
        """Return whether a set, a size in it or a turn of its update changed between two versions."""
        return any(after < version < before and uid == set_uid for version, uid in self._edits)

    def shape(self, pod: Pod) -> PodShape:
        """Return what a pod needs."""
        uid = pod.template.metadata.uid
        shape = self._shapes.get(uid)
        if shape is None:
            shape = self._shapes[uid] = shape_of(pod.template.pod_spec, pod.template.annotations)
        return shape

    def label(self, node: str, key: str) -> str | None:
        """Return a label of a node that exists; None for one that does not, or has none."""
        found = self.rows.get(Key(Kind.NODE, "", node))
        return None if found is None else found.metadata.labels.get(key)


def drain_timeout_s(owner: PodCliqueSet) -> float:
    """Return how long pods of a set may drain, in seconds."""
    text = owner.metadata.annotations.get(DRAIN_TIMEOUT)
    return DRAIN_TIMEOUT_S if text is None else parse_duration(text)


def _size_of(resource: Resource | None) -> int:
    return resource.replicas if isinstance(resource, PodClique | PodCliqueScalingGroup) else -1


def _turns(owner: PodCliqueSet) -> object:
    status = owner.status
    return (status.current_generation_hash, status.update_progress and status.update_progress.currently_updating)


def _set_uid(resource: Resource | None) -> str:
    assert isinstance(resource, PodClique | PodCliqueScalingGroup)
    return resource.identity.set_uid if isinstance(resource, PodClique) else resource.set_uid


def _put(table: dict[_T, dict[Key, Pod]], value: _T, key: Key, pod: Pod, *, is_in: bool) -> None:
    if is_in:
        table.setdefault(value, {})[key] = pod
        return
    bucket = table[value]
    del bucket[key]
    if not bucket:
        del table[value]
