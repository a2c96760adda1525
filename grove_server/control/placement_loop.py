"""The placement loop: store → placement → bindings.

A round takes the gangs that have something to place: queue by queue as their turns come, by priority, and at equal
priority in Grove's order over all sets: base gangs (oldest set, lowest copy first), then scaled gangs whose base is
placed, then surplus pods. All that a round decides for one copy becomes one atomic commit: pods get their nodes and the
gang says that it is placed, or nothing happens and the copy is decided anew. If others have to leave for a gang, they
are told in the commit of its copy.

Gangs that do not fit wait with their verdict. They are tried again when nodes or pods change in a way that may help
them, and once when they have waited so long that a domain is set aside for them. What is decided is reserved at once,
so rounds may overlap with commits on their way to the disk.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from grove_server.control.afterwards import Afterwards
from grove_server.control.clock import Clock
from grove_server.control.decisions import (
    Decision,
    Holding,
)
from grove_server.control.drafts import CopyDraft, CopyKey
from grove_server.control.events import EventRecorder
from grove_server.control.evictions import OrdersOf, no_orders
from grove_server.control.gang_desk import GangDesk
from grove_server.control.gang_order import asks_differ
from grove_server.control.indexes import PODS_BY_NODE
from grove_server.control.notes import node_note, placed_note
from grove_server.control.pace import Pace
from grove_server.control.peers import Followers, forget_pods
from grove_server.control.queue_book import asks_otherwise
from grove_server.control.solver_pool import SolverPool
from grove_server.control.supervision import Supervised
from grove_server.placement.relief import Relief
from grove_server.resources.cluster import ClusterTopologyBinding, Node
from grove_server.resources.meta import Key, Kind, key_of
from grove_server.resources.queues import Queue, queue_of
from grove_server.resources.workload import Pod, PodCliqueSet, PodGang, PodPhase
from grove_server.store.errors import StoreUnavailableError
from grove_server.store.interface import Applied, ChangeType, Notice, Outcome, Store
from grove_server.telemetry import metrics
from grove_server.telemetry.logs import get_logger

CAUSE: Final = "placement"

_RETRY_S: Final = 1.0
_FAULT_RETRY_S: Final = 5.0

_log = get_logger("control")


class PlacementLoop(Supervised):
    """Gives every gang its nodes."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        pace: Pace,
        events: EventRecorder,
        *,
        pool: SolverPool | None = None,
        orders_of: OrdersOf = no_orders,
    ) -> None:
        super().__init__("placement-loop")
        self._store = store
        self._clock = clock
        self._pace = pace
        self._events = events
        self.desk = GangDesk(
            store, clock, events, pace.stopwatch, pool=pool, bring_back=self._bring_back, orders_of=orders_of
        )
        self.room = self.desk.room
        self.cluster = self.desk.cluster
        self.scenes = self.desk.scenes
        self.afterwards = Afterwards(self.room, clock, self.run_aside, self._bring_back)
        self._followers = Followers(self.scenes.peers)
        self._dirty: dict[Key, None] = {}
        self._relabelled: dict[str, None] = {}
        self._drafts: dict[CopyKey, CopyDraft] = {}
        self._drafts_in_flight: dict[CopyKey, CopyDraft] = {}
        # Gangs that were put off and have a timer.
        self._coming_back: set[Key] = set()
        self._retry_generation = 0
        self._timed_for: float | None = None
        # Set while the store takes no changes: giving back what could not be written must not look like help.
        self._is_resting = False
        self._wake = asyncio.Event()
        self._unsubscribe: Callable[[], None] | None = None

    def start(self) -> None:
        """Load nodes and bound pods, look at every gang once, then follow changes."""
        self._unsubscribe = self._store.subscribe(self._observe)
        reader = self._store.read()
        self._set_nodes({node.metadata.name: node for node in reader.sorted_list(Node)})
        for pod in reader.list(Pod):
            if pod.node and pod.phase not in (PodPhase.FAILED, PodPhase.SUCCEEDED):
                self._adopt(pod)
        for gang in reader.sorted_list(PodGang):
            self.room.follow_gang(gang, None)
            if gang.status.nomination is not None:
                self.room.restore(gang)
            self._dirty[key_of(gang)] = None
        self.run_task(self._run)

    async def stop(self) -> None:
        """Stop deciding; commits on their way still happen."""
        if self._unsubscribe is not None:
            self._unsubscribe()
        await self.desk.opinions.close()
        await self.stop_task()

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits to be decided and nothing decided waits for the disk."""
        is_due = self._dirty or self._relabelled or self._drafts_in_flight or self.room.has_more or self.desk.put_off
        return not is_due and self.desk.opinions.is_idle

    def decision(self, key: Key) -> Decision | None:
        """Return the last decision on a gang."""
        return self.desk.waiting.get(key) or self.desk.placed.get(key)

    def placed_decision(self, key: Key) -> Decision | None:
        """Return why a gang's minimum is where it is, whatever waits now."""
        return self.desk.placed.get(key)

    # What changed.

    def _observe(self, notices: Sequence[Notice]) -> None:
        released: list[Key] = []
        joined: list[str] = []
        adopted: dict[Key, Pod] = {}
        nodes: dict[str, Node | None] = {}
        for notice in notices:
            resource = notice.resource
            if isinstance(resource, Pod):
                self._observe_pod(resource, notice, released, adopted)
            elif isinstance(resource, PodGang):
                self._observe_gang(resource, notice)
            elif isinstance(resource, Queue | PodCliqueSet):
                self._observe_queues(resource, notice)
            elif isinstance(resource, Node):
                nodes[resource.metadata.name] = None if notice.kind is ChangeType.DELETED else resource
                self._observe_node(resource, notice, joined)
            elif isinstance(resource, ClusterTopologyBinding):
                self._observe_topology(resource.metadata.name)
        if nodes:
            self._set_nodes(nodes)
            self.room.check_promises()
        if released:
            self._release(released)
            self._dirty.update(dict.fromkeys(self.room.helped_by_release()))
        self._dirty.update(dict.fromkeys(self.room.evictions.take_stalled()))
        for name in joined:
            adopted.update(self.desk.holdings.unaccounted(self._store.read().indexed(PODS_BY_NODE, name)))
        for pod in adopted.values():
            self._adopt(pod)
        self._wake.set()

    def _observe_node(self, node: Node, notice: Notice, joined: list[str]) -> None:
        if notice.kind is ChangeType.ADDED:
            joined.append(node.metadata.name)
        if notice.previous is not None and notice.previous.metadata.labels != node.metadata.labels:
            self._relabelled[node.metadata.name] = None
            # Places that are kept may be in another domain now.
            self._dirty.update(dict.fromkeys(self.room.nominations))

    def _observe_topology(self, name: str) -> None:
        """Look again at what waits, and at the gangs of a topology: they may be elsewhere in it now."""
        self.scenes.forget_topologies()
        self._dirty.update(dict.fromkeys(self.desk.waiting))
        for gang in self._store.read().list(PodGang):
            if gang.topology_name == name:
                self._dirty[key_of(gang)] = None

    def _observe_pod(self, pod: Pod, notice: Notice, released: list[Key], adopted: dict[Key, Pod]) -> None:
        key = key_of(pod)
        if not pod.is_active:
            self.room.seats.touch((key,))
        if notice.kind is ChangeType.DELETED or pod.phase in (PodPhase.FAILED, PodPhase.SUCCEEDED):
            released.append(key)
            adopted.pop(key, None)
            gang = Key(Kind.POD_GANG, pod.metadata.namespace, pod.identity.gang)
            if gang in self.desk.put_off:
                # Its successor may have the place now.
                self._dirty[gang] = None
        elif not pod.node:
            if notice.kind is ChangeType.ADDED:
                self._dirty[Key(Kind.POD_GANG, pod.metadata.namespace, pod.identity.gang)] = None
        elif notice.cause != CAUSE and key not in self.desk.holdings:
            adopted[key] = pod

    def _set_nodes(self, nodes: Mapping[str, Node | None]) -> None:
        for name, problem in self.desk.holdings.set_nodes(nodes).items():
            _log.warning("node_not_usable", node=name, problem=problem)
            self._events.note([node_note(name, problem)])

    def _observe_queues(self, resource: Queue | PodCliqueSet, notice: Notice) -> None:
        """Look again at the gangs whose queue may be another one now, or may let them in."""
        previous = notice.previous
        if isinstance(resource, Queue):
            if (
                notice.kind is not ChangeType.MODIFIED
                or not isinstance(previous, Queue)
                or asks_otherwise(previous, resource)
            ):
                self.room.forget_queues()
                self._dirty.update(dict.fromkeys(self.desk.waiting))
        elif isinstance(previous, PodCliqueSet) and queue_of(previous) != queue_of(resource):
            for gang in self._store.read().list(PodGang, resource.metadata.namespace):
                if gang.set_uid == resource.metadata.uid:
                    self.room.seats.touch_gang(key_of(gang))
                    self._dirty[key_of(gang)] = None

    def _observe_gang(self, gang: PodGang, notice: Notice) -> None:
        key = key_of(gang)
        before = notice.previous if isinstance(notice.previous, PodGang) else None
        if notice.kind is ChangeType.DELETED:
            self.room.follow_gang(None, before or gang)
        else:
            self.room.follow_gang(gang, before if notice.kind is ChangeType.MODIFIED else None)
        if notice.kind is ChangeType.DELETED:
            self._dirty.pop(key, None)
            self.desk.forget(key)
            if not gang.base_gang:
                self._wake_scaled(_copy_of(gang))
            return
        previous = notice.previous
        if not isinstance(previous, PodGang) or asks_differ(previous, gang):
            self._dirty[key] = None

    def _adopt(self, pod: Pod) -> None:
        self.scenes.peers.note(pod)
        holding = Holding(pod.node, self.scenes.shape_of(pod.template), pod.gpu_ids)
        if not self.desk.holdings.adopt(key_of(pod), holding):
            _log.warning("bound_pod_not_accounted", pod=pod.metadata.name, node=pod.node)

    def _release(self, pods: Iterable[Key]) -> None:
        """Give back what pods hold, and forget where they were."""
        keys = tuple(pods)
        forget_pods(self.scenes.peers, keys)
        self.desk.holdings.release(keys)

    # The loop.

    async def _run(self) -> None:
        while True:
            if not (self._dirty or self._relabelled or self.room.has_more) and not self._may_retry():
                self._wake.clear()
                await self._wake.wait()
            self._pace.begin()
            await self._queue_relabelled()
            await self._take_seats()
            try:
                await self._round()
            except Exception:
                self._start_over()
                raise

    async def _queue_relabelled(self) -> None:
        """Look again at the gangs with pods on nodes that got other labels: they may stand in other domains now."""
        while self._relabelled:
            name = next(iter(self._relabelled))
            del self._relabelled[name]
            for pod in self._store.read().indexed(PODS_BY_NODE, name):
                self._dirty[Key(Kind.POD_GANG, pod.metadata.namespace, pod.identity.gang)] = None
            if self._pace.is_due:
                await self._pace.breathe()

    async def _take_seats(self) -> None:
        """Take in who sits where, if decisions depend on what queues use."""
        while self.room.needs_seats:
            self.room.seats.take_in()
            if self._pace.is_due:
                await self._pace.breathe()

    def _time_earmarks(self) -> None:
        """Bring gangs back when they have waited so long that a domain is set aside for them."""
        due_at = self.room.next_due_at
        if due_at is None or (self._timed_for is not None and self._timed_for <= due_at):
            return
        self._timed_for = due_at

        async def wait() -> None:
            await self._clock.sleep_until(due_at)
            if self._timed_for == due_at:
                self._timed_for = None
            for key in self.room.take_due(self._clock.now()):
                self._bring_back(key)
            self._time_earmarks()

        self.run_aside(wait())

    def _start_over(self) -> None:
        """Give back what a round that broke off had decided and not sent, and look at every gang again."""
        for draft in self._drafts.values():
            self._release(key_of(pod) for pod in draft.pods.values())
            self.room.settle(draft, is_done=False)
        self._drafts.clear()
        self._dirty.update(dict.fromkeys(key_of(gang) for gang in self._store.read().list(PodGang)))

    def _may_retry(self) -> bool:
        if self._is_resting or not self.desk.waiting:
            return False
        return self.desk.wake_ups.has_due or self.cluster.capacity_grew_since(self._retry_generation)

    async def _round(self) -> None:
        """Decide everything that is due once, in order."""
        dirty, self._dirty = self._dirty | self.room.begin_round(self.desk.waiting), {}
        candidates = dict.fromkeys([*dirty, *self._helped(), *self._followers.due(self.desk.waiting)])
        candidates.update(dict.fromkeys(self._following(candidates)))
        drafts = self._drafts
        gangs = self._in_order(candidates)
        left = Counter(map(_copy_of, gangs))
        for gang in gangs:
            self._try(gang, self.desk.decide_minimum)
            left[_copy_of(gang)] -= 1
            if self._pace.is_due:
                # Send off what this round will not come back to.
                for key in [k for k, draft in drafts.items() if not left[k] and not draft.has_surplus]:
                    self._submit(drafts.pop(key))
                await self._pace.breathe()
        for gang in gangs:
            self._try(gang, self.desk.decide_surplus)
            if self._pace.is_due:
                await self._pace.breathe()
        for key in list(drafts):
            self._submit(drafts.pop(key))
        self.desk.show_waiting()
        self._time_earmarks()
        self.afterwards.begin()

    def _helped(self) -> list[Key]:
        """Return the waiting gangs that what grew since the last look may help."""
        if not self._may_retry():
            return []
        since, self._retry_generation = self._retry_generation, self.cluster.generation
        return [*self.desk.wake_ups.take_due(), *self.desk.helped(since)]

    def _following(self, candidates: Iterable[Key]) -> list[Key]:
        """Return the gangs that wait for a base gang among *candidates*.

        If it finds its places in this round, so must they, before surplus pods take what is left.
        """
        if not self.desk.waiting:
            return []
        reader = self._store.read()
        following = []
        for key in candidates:
            gang = reader.get(PodGang, key.namespace, key.name)
            if gang is not None and not gang.base_gang:
                following += self.desk.waiting_for_base(_copy_of(gang))
        return following

    def _in_order(self, keys: Iterable[Key]) -> list[PodGang]:
        reader = self._store.read()
        gangs = []
        for key in keys:
            gang = reader.get(PodGang, key.namespace, key.name)
            if gang is None:
                continue
            if _copy_of(gang) in self._drafts_in_flight:
                # Decided on state that is about to change; the end of that commit brings it back.
                self._drafts_in_flight[_copy_of(gang)].again.add(key)
                continue
            gangs.append(gang)
        return self.room.precedence.in_order(gangs)

    def _try(self, known: PodGang, decide: Callable[[PodGang, CopyDraft], None]) -> None:
        gang = self._store.read().get(PodGang, known.metadata.namespace, known.metadata.name)
        if gang is None or gang.metadata.uid != known.metadata.uid:
            # It went while the round let others run; a verdict on it would stay for ever.
            return
        key = _copy_of(gang)
        draft = self._drafts.get(key)
        if draft is None:
            if key in self._drafts_in_flight:
                return
            draft = self._drafts[key] = CopyDraft(key)
        try:
            decide(gang, draft)
        except Exception:  # noqa: BLE001 -- a supervised loop: one gang's fault must not stop the others
            metrics.INTERNAL_ERRORS.labels("placement").inc()
            _log.exception("decision_failed", gang=gang.metadata.name, namespace=gang.metadata.namespace)
            self._later(key_of(gang), _FAULT_RETRY_S)
            return
        left_s = self.desk.put_off.get(key_of(gang))
        if left_s is not None and key_of(gang) not in self._coming_back:
            self._coming_back.add(key_of(gang))
            self._later(key_of(gang), left_s)

    # Committing.

    def _submit(self, draft: CopyDraft) -> None:
        self.room.let_go(draft)
        try:
            changes = draft.changes(self._store.read(), self._clock.now(), self.scenes.standing)
        except Exception:  # noqa: BLE001 -- a supervised loop: one copy's fault must not stop the others
            metrics.INTERNAL_ERRORS.labels("placement").inc()
            _log.exception("draft_failed", set_uid=draft.key.set_uid, copy=draft.key.copy)
            self._release(key_of(pod) for pod in draft.pods.values())
            self.room.settle(draft, is_done=False)
            for key in draft.touched:
                self._later(key, _FAULT_RETRY_S)
            return
        if not changes:
            return
        self._drafts_in_flight[draft.key] = draft
        future = self._store.commit_soon(changes, cause=CAUSE)
        future.add_done_callback(lambda done: self._settle(draft, done))

    def _settle(self, draft: CopyDraft, future: asyncio.Future[tuple[Outcome, ...]]) -> None:
        del self._drafts_in_flight[draft.key]
        error = future.exception()
        is_done = error is None and all(isinstance(outcome, Applied) for outcome in future.result())
        self.room.settle(draft, is_done=is_done)
        self._dirty.update(dict.fromkeys(self.room.evictions.take_stalled()))
        if is_done:
            self.desk.placed.update(draft.decisions)
            self._note_placed(draft)
            self._dirty.update(dict.fromkeys(draft.again))
            if draft.newly_placed:
                self._wake_scaled(draft.key)
        else:
            self._release(key_of(pod) for pod in draft.pods.values())
            is_down = isinstance(error, StoreUnavailableError)
            metrics.PLAN_REJECTED.labels("store_unavailable" if is_down else "conflict").inc()
            for key in draft.touched | draft.again:
                self._later(key, _RETRY_S if is_down else 0.0)
            if is_down and not self._is_resting:
                self._is_resting = True
                self.run_aside(self._rest())
        self._wake.set()

    async def _rest(self) -> None:
        await self._clock.sleep(_RETRY_S)
        self._is_resting = False
        self._wake.set()

    def _wake_scaled(self, copy: CopyKey) -> None:
        """Bring back the scaled gangs of a copy whose base may have been placed just now."""
        self._dirty.update(dict.fromkeys(self.desk.waiting_for_base(copy)))

    def relieve(self, key: Key, relief: Relief) -> None:
        """Decide a gang anew with a plan of consolidation that makes room for it."""
        self.room.evictions.relieve(key, relief)
        self._bring_back(key)

    def _bring_back(self, key: Key) -> None:
        """Decide a gang anew, now."""
        self._dirty[key] = None
        self._wake.set()

    def _later(self, key: Key, delay_s: float) -> None:
        if not delay_s:
            self._dirty[key] = None
            return

        async def bring_back() -> None:
            await self._clock.sleep(delay_s)
            self._coming_back.discard(key)
            self._dirty[key] = None
            self._wake.set()

        self.run_aside(bring_back())

    def _note_placed(self, draft: CopyDraft) -> None:
        now = self._clock.now()
        for gang in draft.newly_placed:
            metrics.PLACED_SECONDS.observe(max(0.0, now - gang.metadata.created_at))
            if not gang.status.reason:
                # It never waited: the conditions say all there is to say, and an event for each gang would be noise.
                continue
            self._events.note([placed_note(gang)])


def _copy_of(gang: PodGang) -> CopyKey:
    return CopyKey(gang.set_uid, gang.copy)
