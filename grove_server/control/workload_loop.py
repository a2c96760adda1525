"""The workload loop: store → lifecycle → store, one copy of one set at a time.

A copy's pass reads the copy's objects, asks ``lifecycle`` for a plan, and commits it as one change. The set's own
pass keeps the blueprint current and writes the set's status from its copies' summaries; it runs seldom when the set
is large. Own changes wake nobody, since a plan is complete; a plan that lost a race is made again.

Nothing here decides what should be: that is ``lifecycle``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from grove_server.control.clock import Clock
from grove_server.control.drains import count_drains
from grove_server.control.events import EventRecorder
from grove_server.control.indexes import (
    CLIQUES_BY_COPY,
    DRAINING_BY_SET,
    GANGS_BY_COPY,
    GROUPS_BY_COPY,
    PODS_BY_COPY,
    PODS_BY_NODE,
)
from grove_server.control.orders import OrdersDesk
from grove_server.control.pace import Pace
from grove_server.control.revisions import gone_back, kept_revisions, progress_notes, revision_changes
from grove_server.control.set_state import SetState, topology_levels
from grove_server.control.stops import count_stops
from grove_server.control.supervision import Supervised
from grove_server.control.workkeys import SET_PASS, WorkKey, copy_key, set_key
from grove_server.control.workqueue import WorkQueue
from grove_server.lifecycle.copy import CopySummary, CopyView
from grove_server.lifecycle.copy_pass import plan_copy, plan_removal
from grove_server.lifecycle.orders import CopyOrders
from grove_server.lifecycle.plan import Plan
from grove_server.lifecycle.rollout.deadline import due_at
from grove_server.lifecycle.rollout.progress import SETTLE_S, advance, is_turn_over, turns
from grove_server.lifecycle.set_pass import topology_condition, with_set_status
from grove_server.resources.cluster import ClusterTopologyBinding
from grove_server.resources.meta import Condition, key_of
from grove_server.resources.priority import PriorityClass
from grove_server.resources.routing import RouterRegistration
from grove_server.resources.workload import Pod, PodClique, PodCliqueScalingGroup, PodCliqueSet, PodGang
from grove_server.store.errors import StoreUnavailableError
from grove_server.store.interface import (
    NO_ORIGIN,
    Applied,
    Change,
    Delete,
    Exists,
    Missing,
    Notice,
    Origin,
    Outcome,
    Put,
    Store,
)
from grove_server.telemetry import metrics
from grove_server.telemetry.logs import get_logger

CAUSE: Final = "workload"

# Changes of pods come in bursts (bound, running, ready): one pass serves them all.
_SOON_S: Final = 0.01
# A set's status is written at most this share of the time its pass takes, so that a set of 5,000 copies costs no more
# of the loop than a small one.
_STATUS_REST_FACTOR: Final = 25.0
_STATUS_REST_MIN_S: Final = 0.02
_RETRY_S: Final = 1.0
_FAULT_RETRY_S: Final = 5.0
# Plans that wait for the disk; more would only take memory.
_CHANGES_IN_FLIGHT_MAX: Final = 50_000

# Resolved once: looking up a labelled metric costs more than counting.
_ACTIONS: Final = {action: metrics.PLAN_ACTIONS.labels(action) for action in ("create", "update", "delete")}

_log = get_logger("control")


class WorkloadLoop(Supervised):
    """Owns the tree under every set."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        pace: Pace,
        events: EventRecorder,
        orders: OrdersDesk,
        *,
        update_settle_s: float = SETTLE_S,
    ) -> None:
        super().__init__("workload-loop")
        self._store = store
        self._clock = clock
        self._pace = pace
        self._events = events
        self._desk = orders
        self._nodes = orders.nodes
        self._settle_s = update_settle_s
        self._queue: WorkQueue[WorkKey] = WorkQueue(soon_s=_SOON_S)
        self._sets: dict[str, SetState] = {}
        self._topology_epoch = 0
        self._changes_in_flight = 0
        self._wake = asyncio.Event()
        self._unsubscribe: Callable[[], None] | None = None

    def start(self) -> None:
        """Look at everything once, then follow changes."""
        self._unsubscribe = self._store.subscribe(self._observe)
        self._adopt()
        self.run_task(self._run)

    async def stop(self) -> None:
        """Stop following; what was committed stays."""
        if self._unsubscribe is not None:
            self._unsubscribe()
        await self.stop_task()

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits to be looked at (timers excepted)."""
        return self._queue.is_idle and not self._nodes.has_changed

    def _adopt(self) -> None:
        reader = self._store.read()
        owners = {owner.metadata.uid: owner for owner in reader.sorted_list(PodCliqueSet)}
        for owner in owners.values():
            self._state(owner.metadata.uid).adopting.update(range(owner.spec.replicas or 0))
            self._queue.add(set_key(owner))
        keys = {copy_key(c) for c in reader.list(PodClique)}
        keys.update(copy_key(g) for g in reader.list(PodCliqueScalingGroup))
        keys.update(copy_key(g) for g in reader.list(PodGang))
        keys.update(copy_key(p) for p in reader.list(Pod))
        for key in sorted(keys):
            state = self._state(key.set_uid)
            state.adopting.add(key.copy)
            if key.set_uid not in owners:
                # Children without a set: the pass takes them down, and the last one's end lets the state go.
                state.unvisited.add(key.copy)
                self._queue.add(key)
        for owner in owners.values():
            self._queue_copies(owner, sorted(self._state(owner.metadata.uid).adopting))

    # What changed.

    def _observe(self, notices: Sequence[Notice]) -> None:
        now = self._clock.steady()
        queue = self._queue
        for notice in notices:
            if notice.cause == CAUSE:
                continue
            resource = notice.resource
            if isinstance(resource, Pod):
                identity = resource.identity
                queue.add_soon(
                    WorkKey(resource.metadata.namespace, identity.set_name, identity.set_uid, identity.copy), now
                )
            elif isinstance(resource, PodGang):
                queue.add_soon(copy_key(resource), now)
            elif isinstance(resource, PodClique | PodCliqueScalingGroup):
                queue.add(copy_key(resource))
            elif isinstance(resource, PodCliqueSet):
                queue.add(set_key(resource))
            elif isinstance(resource, ClusterTopologyBinding | PriorityClass):
                self._topology_epoch += 1
                for owner in self._store.read().list(PodCliqueSet):
                    queue.add(set_key(owner))
            elif isinstance(resource, RouterRegistration):
                self._queue_draining(resource)
        self._wake.set()

    async def _queue_nodes(self) -> None:
        """Look again at the copies with pods on nodes that came into trouble or out of it; there may be many."""
        while (name := self._nodes.take_changed()) is not None:
            for key in sorted({copy_key(pod) for pod in self._store.read().indexed(PODS_BY_NODE, name)}):
                self._queue.add(key)
            if self._pace.is_due:
                await self._pace.breathe()

    def _queue_draining(self, router: RouterRegistration) -> None:
        """Look again at the copies whose drains may be over now that *router* has left."""
        namespace, reader = router.metadata.namespace, self._store.read()
        names = (
            [router.set_name] if router.set_name else [o.metadata.name for o in reader.list(PodCliqueSet, namespace)]
        )
        for name in names:
            for pod in reader.indexed(DRAINING_BY_SET, (namespace, name)):
                self._queue.add(copy_key(pod))

    # The loop.

    async def _run(self) -> None:
        self._pace.begin()
        while True:
            self._wake.clear()
            await self._queue_nodes()
            key = self._queue.take(self._clock.steady())
            if key is None or self._changes_in_flight > _CHANGES_IN_FLIGHT_MAX:
                if key is not None:
                    self._queue.done(key)
                    self._queue.add(key)
                await self._rest()
                self._pace.begin()
                continue
            self._work(key)
            if self._pace.is_due:
                await self._pace.breathe()

    async def _rest(self) -> None:
        """Wait until something changes or is due."""
        due_at = self._queue.next_due_at()
        if due_at is None or self._changes_in_flight > _CHANGES_IN_FLIGHT_MAX:
            await self._wake.wait()
            return
        left_s = max(0.0, due_at - self._clock.steady())
        wait = asyncio.ensure_future(self._wake.wait())
        sleep = asyncio.ensure_future(self._clock.sleep(left_s))
        try:
            await asyncio.wait({wait, sleep}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            wait.cancel()
            sleep.cancel()

    def _work(self, key: WorkKey) -> None:
        try:
            if key.copy == SET_PASS:
                self._set_pass(key)
            else:
                self._copy_pass(key)
        except StoreUnavailableError:
            metrics.PLAN_REJECTED.labels("store_unavailable").inc()
            self._queue.done(key)
            self._queue.add_at(key, self._clock.steady() + _RETRY_S)
        except Exception:  # noqa: BLE001 -- a supervised loop: one object's fault must not stop the others
            metrics.INTERNAL_ERRORS.labels("workload").inc()
            _log.exception("pass_failed", namespace=key.namespace, set=key.set_name, copy=key.copy)
            self._queue.done(key)
            self._queue.add_at(key, self._clock.steady() + _FAULT_RETRY_S)

    # One copy.

    def _copy_pass(self, key: WorkKey) -> None:
        began_s = self._pace.stopwatch()
        now = self._clock.now()
        owner = self._owner(key)
        view = self._view(key)
        orders = self._orders(key)
        if owner is not None and owner.metadata.deleted_at is None and key.copy < (owner.spec.replicas or 0):
            state = self._state(key.set_uid)
            if not state.is_current(owner, self._topology_epoch):
                state.draw(self._store, owner, self._topology_epoch, now)
            assert state.blueprint is not None
            plan, summary = plan_copy(state.blueprint, view, orders, now=now)
        else:
            plan, summary = plan_removal(view, orders, now=now)
        metrics.PLAN_SECONDS.observe(self._pace.stopwatch() - began_s)
        if plan.notes:
            self._events.note(plan.notes)
        if plan.wake_at is not None:
            # A plan's times are epoch times. If the clock is set meanwhile, the pass comes early and asks again, or it
            # comes late by as much as the clock was set forward.
            self._queue.add_at(key, self._clock.steady() + max(0.0, plan.wake_at - now))
        if plan.is_empty:
            self._finish_copy(key, summary)
        else:
            self._submit(key, plan, summary)

    def _submit(self, key: WorkKey, plan: Plan, summary: CopySummary) -> None:
        changes: list[Change] = [Put(r, 0) for r in plan.creates]
        changes += [Put(r, r.resource_version) for r in plan.updates]
        changes += [Delete(key_of(r), r.resource_version) for r in plan.deletes]
        for action, resources in (("create", plan.creates), ("update", plan.updates), ("delete", plan.deletes)):
            if resources:
                _ACTIONS[action].inc(len(resources))
        count_drains(plan.updates)
        count_stops(plan)
        size = len(changes)
        # None for what is left of a set that is forgotten.
        state = self._sets.get(key.set_uid, SetState())
        self._changes_in_flight += size
        state.plans_in_flight += 1

        def settle(future: asyncio.Future[tuple[Outcome, ...]]) -> None:
            self._changes_in_flight -= size
            state.plans_in_flight -= 1
            self._settle(key, summary, future)
            self._wake.set()

        origin = Origin(reason="; ".join(plan.reasons)) if plan.reasons else NO_ORIGIN
        self._store.commit_soon(changes, cause=CAUSE, origin=origin).add_done_callback(settle)

    def _settle(self, key: WorkKey, summary: CopySummary, future: asyncio.Future[tuple[Outcome, ...]]) -> None:
        error = future.exception()
        if error is not None:
            cause = "store_unavailable" if isinstance(error, StoreUnavailableError) else "store_error"
            metrics.PLAN_REJECTED.labels(cause).inc()
            self._queue.done(key)
            self._queue.add_at(key, self._clock.steady() + _RETRY_S)
        elif all(isinstance(outcome, Applied | Missing) for outcome in future.result()):
            self._finish_copy(key, summary)
        else:
            metrics.PLAN_REJECTED.labels("conflict").inc()
            self._queue.done(key)
            if any(isinstance(outcome, Exists) for outcome in future.result()):
                # Somebody else's object has the name: that does not go away by trying again at once.
                self._queue.add_at(key, self._clock.steady() + _RETRY_S)
            else:
                self._queue.add(key)

    def _finish_copy(self, key: WorkKey, summary: CopySummary) -> None:
        state = self._sets.get(key.set_uid)
        if state is None:
            # The set is gone and forgotten; a late timer or notice must not bring its memory back.
            self._queue.done(key)
            return
        first_visit = key.copy in state.unvisited
        state.unvisited.discard(key.copy)
        state.adopting.discard(key.copy)
        is_first_whole = first_visit and not state.unvisited
        if state.totals.put(summary) or is_first_whole or state.may_hold_stale_templates:
            set_key = WorkKey(key.namespace, key.set_name, key.set_uid, SET_PASS)
            if key.copy in state.turns and is_turn_over(summary):
                # The next copy waits for its turn.
                self._queue.add(set_key)
            else:
                rest_ends_at = max(state.status_not_before, self._clock.steady() + _STATUS_REST_MIN_S)
                self._queue.add_at(set_key, rest_ends_at)
        self._queue.done(key)

    def _orders(self, key: WorkKey) -> CopyOrders:
        return self._desk.for_copy(key.namespace, key.set_name, key.copy)

    def _view(self, key: WorkKey) -> CopyView:
        reader = self._store.read()
        place = (key.set_uid, key.copy)
        pods: dict[str, list[Pod]] = {}
        for pod in reader.indexed(PODS_BY_COPY, place):
            pods.setdefault(pod.identity.name, []).append(pod)
        return CopyView(
            copy=key.copy,
            cliques={c.metadata.name: c for c in reader.indexed(CLIQUES_BY_COPY, place)},
            groups={g.group: g for g in reader.indexed(GROUPS_BY_COPY, place)},
            gangs={g.metadata.name: g for g in reader.indexed(GANGS_BY_COPY, place)},
            pods=pods,
        )

    # The set itself.

    def _set_pass(self, key: WorkKey) -> None:
        began_s = self._pace.stopwatch()
        now = self._clock.now()
        owner = self._owner(key)
        state = self._state(key.set_uid)
        if owner is None:
            self._forget(key, state)
            return
        if owner.metadata.deleted_at is not None:
            self._remove(key, owner, state)
            return
        if not state.is_current(owner, self._topology_epoch):
            state.draw(self._store, owner, self._topology_epoch, now)
        if not state.is_spread:
            # A copy's pass may have drawn the blueprint; the other copies have to follow all the same.
            state.is_spread = True
            self._queue_copies(owner, sorted(state.totals.copies))
        self._queue_resized(owner, state)
        self._queue_turns(owner, state)
        progress = owner.status.update_progress
        if progress is None or not progress.is_active:
            # During an update old templates are in use, and looking for the others costs a look at every pod.
            state.remove_stale_templates(self._store, owner)
        if state.adopting:
            # After a start, a status made from some of the copies would be a lie; the last copy's pass comes back here.
            self._queue.done(key)
            return
        update = advance(owner, state.totals.copies, now=now, settle_s=self._settle_s)
        for wake_at in (update.wake_at, due_at(owner, update.progress)):
            if wake_at is not None and wake_at > now:
                self._queue.add_at(key, self._clock.steady() + wake_at - now)
        changed = with_set_status(owner, state.totals, self._topology(owner, state, now), update, now=now)
        self._show_sizes(owner, state)
        self._events.note(progress_notes(owner, changed))
        extra = revision_changes(self._store.read(), changed, now)
        changed, notes = gone_back(self._store.read(), changed, now)
        self._events.note(notes)
        self._commit_status(key, owner, changed, extra)
        state.status_not_before = self._clock.steady() + _STATUS_REST_FACTOR * (self._pace.stopwatch() - began_s)

    def _queue_turns(self, owner: PodCliqueSet, state: SetState) -> None:
        """Queue the copies whose turn in an update began or ended, so that they see their new orders."""
        now_having = turns(owner)
        affected = sorted(now_having ^ state.turns)
        state.turns = now_having
        for copy in affected:
            self._queue.add(WorkKey(owner.metadata.namespace, owner.metadata.name, owner.metadata.uid, copy))

    def _queue_resized(self, owner: PodCliqueSet, state: SetState) -> None:
        """Queue the copies that are missing, those beyond the size, and those that were but are wanted again."""
        wanted = owner.spec.replicas or 0
        known = state.totals.copies.keys() | state.unvisited
        leaving = {copy for copy in state.totals.copies if copy >= wanted}
        resized = {copy for copy in range(wanted) if copy not in known or copy in state.leaving} | (
            leaving - state.leaving
        )
        state.leaving = leaving
        self._queue_copies(owner, sorted(resized))

    def _remove(self, key: WorkKey, owner: PodCliqueSet, state: SetState) -> None:
        """Take the copies down; when none is left, remove the set and its templates as one change."""
        if not state.removal_started:
            state.removal_started = True
            self._queue_copies(owner, sorted(state.totals.copies.keys() | state.unvisited))
        if state.totals.copies or state.unvisited:
            self._commit_status(key, owner, with_set_status(owner, state.totals, None, now=self._clock.now()))
            return
        changes: list[Change] = [Delete(template) for template in sorted(state.templates_of(self._store, owner))]
        changes += [Delete(key_of(revision)) for revision in kept_revisions(self._store.read(), owner.metadata.uid)]
        changes.append(Delete(key_of(owner)))
        self._store.commit_soon(changes, cause=CAUSE).add_done_callback(lambda future: self._settle_set(key, future))

    def _commit_status(
        self, key: WorkKey, owner: PodCliqueSet, changed: PodCliqueSet, extra: Sequence[Change] = ()
    ) -> None:
        changes = [*extra] if changed is owner else [Put(changed, owner.resource_version), *extra]
        if not changes:
            self._queue.done(key)
            return
        future = self._store.commit_soon(changes, cause=CAUSE)
        future.add_done_callback(lambda done: self._settle_set(key, done))

    def _settle_set(self, key: WorkKey, future: asyncio.Future[tuple[Outcome, ...]]) -> None:
        self._queue.done(key)
        if future.exception() is not None:
            self._queue.add_at(key, self._clock.steady() + _RETRY_S)
            self._wake.set()
            return
        owner = self._owner(key)
        if owner is None or not all(isinstance(outcome, Applied | Missing) for outcome in future.result()):
            self._queue.add(key)
        elif owner.metadata.deleted_at is None:
            state = self._state(key.set_uid)
            self._queue_turns(owner, state)
            if not state.is_current(owner, self._topology_epoch):
                # The set went back to an earlier revision by itself; own changes wake nobody.
                self._queue.add(key)
            if state.may_hold_stale_templates:
                self._queue.add_at(key, max(state.status_not_before, self._clock.steady() + _STATUS_REST_MIN_S))
        self._wake.set()

    def _forget(self, key: WorkKey, state: SetState) -> None:
        metrics.REPLICAS.forget_set(key.namespace, key.set_name)
        if not state.totals.copies and not state.unvisited:
            self._sets.pop(key.set_uid, None)
        self._queue.done(key)

    def _topology(self, owner: PodCliqueSet, state: SetState, now: float) -> Condition | None:
        blueprint = state.blueprint
        if blueprint is None or not blueprint.topology_name:
            return None
        exists = blueprint.topology_name in topology_levels(self._store.read())
        return topology_condition(
            blueprint.topology_error, binding_exists=exists, generation=owner.metadata.generation, now=now
        )

    def _show_sizes(self, owner: PodCliqueSet, state: SetState) -> None:
        for (scope, template), (desired, ready) in state.totals.sizes.items():
            metrics.REPLICAS.show(
                "clique" if scope == "clique" else "group",
                owner.metadata.namespace,
                owner.metadata.name,
                template,
                desired=desired,
                ready=ready,
            )

    # Small things.

    def _owner(self, key: WorkKey) -> PodCliqueSet | None:
        owner = self._store.read().get(PodCliqueSet, key.namespace, key.set_name)
        return owner if owner is not None and owner.metadata.uid == key.set_uid else None

    def _state(self, set_uid: str) -> SetState:
        state = self._sets.get(set_uid)
        if state is None:
            state = self._sets[set_uid] = SetState()
        return state

    def _queue_copies(self, owner: PodCliqueSet, copies: Sequence[int]) -> None:
        metadata = owner.metadata
        self._state(metadata.uid).unvisited.update(copies)
        for copy in copies:
            self._queue.add(WorkKey(metadata.namespace, metadata.name, metadata.uid, copy))
