"""What the workload loop has to look at: everything once at the start, then whatever others changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from grove_server.control.clock import Clock
from grove_server.control.indexes import DRAINING_BY_SET, PODS_BY_NODE
from grove_server.control.node_troubles import NodeTroubles
from grove_server.control.pace import Pace
from grove_server.control.work_book import SOON_S, WorkBook
from grove_server.control.workkeys import WorkKey, copy_key, set_key
from grove_server.lifecycle.gang_status import is_displaced
from grove_server.resources.cluster import ClusterTopologyBinding
from grove_server.resources.priority import PriorityClass
from grove_server.resources.routing import RouterRegistration
from grove_server.resources.workload import Pod, PodClique, PodCliqueScalingGroup, PodCliqueSet, PodGang
from grove_server.store.interface import Notice, Store

CAUSE: Final = "workload"
# A pass this short is not worth a timer.
_AT_ONCE_S: Final = 0.001


class WorkWatch:
    """Follows the store into the book. Own changes wake nobody, since a plan is complete."""

    def __init__(self, store: Store, clock: Clock, book: WorkBook, nodes: NodeTroubles) -> None:
        self._store = store
        self._clock = clock
        self._book = book
        self._nodes = nodes
        self._unsubscribe: Callable[[], None] | None = None

    def start(self) -> None:
        """Put everything down that is there, then follow changes."""
        self._unsubscribe = self._store.subscribe(self._observe)
        self._adopt()

    def stop(self) -> None:
        """Stop following."""
        if self._unsubscribe is not None:
            self._unsubscribe()

    def _adopt(self) -> None:
        reader = self._store.read()
        owners = {owner.metadata.uid: owner for owner in reader.sorted_list(PodCliqueSet)}
        for owner in owners.values():
            self._book.state(owner.metadata.uid).adopting.update(range(owner.spec.replicas or 0))
            self._book.queue.add(set_key(owner))
        keys = {copy_key(c) for c in reader.list(PodClique)}
        keys.update(copy_key(g) for g in reader.list(PodCliqueScalingGroup))
        keys.update(copy_key(g) for g in reader.list(PodGang))
        keys.update(copy_key(p) for p in reader.list(Pod))
        for key in sorted(keys):
            state = self._book.state(key.set_uid)
            state.adopting.add(key.copy)
            if key.set_uid not in owners:
                # Children without a set: the pass takes them down, and the last one's end lets the state go.
                state.unvisited.add(key.copy)
                self._book.queue.add(key)
        for owner in owners.values():
            self._book.queue_copies(owner, sorted(self._book.state(owner.metadata.uid).adopting))

    def _observe(self, notices: Sequence[Notice]) -> None:
        now = self._clock.steady()
        queue = self._book.queue
        for notice in notices:
            if notice.cause == CAUSE:
                continue
            resource = notice.resource
            if isinstance(resource, Pod | PodGang) and _has_got_its_place(resource, notice):
                # That is only to be told; mostly the pods run a moment later, and that is told with it.
                queue.add_calm(copy_key(resource), now + SOON_S)
            elif isinstance(resource, Pod):
                self._observe_pod(resource, notice, now)
            elif isinstance(resource, PodGang):
                queue.add_soon(copy_key(resource), now)
            elif isinstance(resource, PodClique | PodCliqueScalingGroup):
                queue.add(copy_key(resource))
            elif isinstance(resource, PodCliqueSet):
                queue.add(set_key(resource))
            elif isinstance(resource, ClusterTopologyBinding | PriorityClass):
                self._book.topology_epoch += 1
                for owner in self._store.read().list(PodCliqueSet):
                    queue.add(set_key(owner))
            elif isinstance(resource, RouterRegistration):
                self._queue_draining(resource)
        self._book.wake.set()

    def _observe_pod(self, pod: Pod, notice: Notice, now: float) -> None:
        identity = pod.identity
        key = WorkKey(pod.metadata.namespace, identity.set_name, identity.set_uid, identity.copy)
        queue = self._book.queue
        state = self._book.sets.get(key.set_uid)
        if state is None or key.copy not in state.turns or not _has_begun_to_serve(pod, notice):
            queue.add_soon(key, now)
        elif state.pass_s < _AT_ONCE_S:
            queue.add(key)
        else:
            # An update waits for this pod. A rest as long as a pass takes absorbs bursts and doubles the time at most.
            queue.add_at(key, now + min(state.pass_s, SOON_S))

    async def queue_nodes(self, pace: Pace) -> None:
        """Look again at the copies with pods on nodes that came into trouble or out of it; there may be many."""
        while (name := self._nodes.take_changed()) is not None:
            for key in sorted({copy_key(pod) for pod in self._store.read().indexed(PODS_BY_NODE, name)}):
                self._book.queue.add(key)
            if pace.is_due:
                await pace.breathe()

    def _queue_draining(self, router: RouterRegistration) -> None:
        """Look again at the copies whose drains may be over now that *router* has left."""
        namespace, reader = router.metadata.namespace, self._store.read()
        names = (
            [router.set_name] if router.set_name else [o.metadata.name for o in reader.list(PodCliqueSet, namespace)]
        )
        for name in names:
            for pod in reader.indexed(DRAINING_BY_SET, (namespace, name)):
                self._book.queue.add(copy_key(pod))


def _has_begun_to_serve(pod: Pod, notice: Notice) -> bool:
    previous = notice.previous
    return pod.is_ready and not (isinstance(previous, Pod) and previous.is_ready)


def _has_got_its_place(resource: Pod | PodGang, notice: Notice) -> bool:
    """Return whether placement gave a pod its node, or a gang's minimum its nodes, and nothing else came with it."""
    previous = notice.previous
    if isinstance(resource, Pod):
        return isinstance(previous, Pod) and bool(resource.node) and not previous.node and resource.is_active
    is_placed = isinstance(previous, PodGang) and previous.status.scheduled_at is None
    return is_placed and resource.status.scheduled_at is not None and not is_displaced(resource)
