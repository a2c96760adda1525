"""The workload loop: store → lifecycle → store, one copy of one set at a time.

A copy's pass reads the copy's objects, asks ``lifecycle`` for a plan, and commits it as one change. The set's own
pass keeps the blueprint current and writes the set's status from its copies' summaries; it runs seldom when the set
is large. Own changes wake nobody, since a plan is complete; a plan that lost a race is made again.

Nothing here decides what should be: that is ``lifecycle``.
"""

from __future__ import annotations

import asyncio
from typing import Final

from grove_server.control.clock import Clock
from grove_server.control.drains import count_drains
from grove_server.control.events import EventRecorder
from grove_server.control.indexes import (
    CLIQUES_BY_COPY,
    GANGS_BY_COPY,
    GROUPS_BY_COPY,
    PODS_BY_COPY,
)
from grove_server.control.orders import OrdersDesk
from grove_server.control.pace import Pace
from grove_server.control.set_passes import SetPasses
from grove_server.control.set_state import SetState
from grove_server.control.stops import count_stops
from grove_server.control.supervision import Supervised
from grove_server.control.work_book import WorkBook
from grove_server.control.work_watch import CAUSE, WorkWatch
from grove_server.control.workkeys import SET_PASS, WorkKey
from grove_server.lifecycle.copy import CopySummary, CopyView
from grove_server.lifecycle.copy_pass import plan_copy, plan_removal
from grove_server.lifecycle.orders import CopyOrders
from grove_server.lifecycle.plan import Plan
from grove_server.lifecycle.rollout.progress import SETTLE_S
from grove_server.resources.meta import key_of
from grove_server.resources.workload import Pod
from grove_server.store.errors import StoreUnavailableError
from grove_server.store.interface import (
    NO_ORIGIN,
    Applied,
    Change,
    Delete,
    Exists,
    Missing,
    Origin,
    Outcome,
    Put,
    Store,
)
from grove_server.telemetry import metrics
from grove_server.telemetry.logs import get_logger

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
        self.book = WorkBook(store)
        self._watch = WorkWatch(store, clock, self.book, self._nodes)
        self._sets = SetPasses(store, clock, events, self.book, pace.stopwatch, update_settle_s)
        self._changes_in_flight = 0

    def start(self) -> None:
        """Look at everything once, then follow changes."""
        self._watch.start()
        self.run_task(self._run)

    async def stop(self) -> None:
        """Stop following; what was committed stays."""
        self._watch.stop()
        await self.stop_task()

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits to be looked at (timers excepted)."""
        return self.book.queue.is_idle and not self._nodes.has_changed

    # The loop.

    async def _run(self) -> None:
        self._pace.begin()
        while True:
            self.book.wake.clear()
            await self._watch.queue_nodes(self._pace)
            key = self.book.queue.take(self._clock.steady(), is_calm=self.book.is_calm)
            if key is None or self._changes_in_flight > _CHANGES_IN_FLIGHT_MAX:
                if key is not None:
                    self.book.queue.done(key)
                    self.book.queue.add(key)
                await self._rest()
                self._pace.begin()
                continue
            self._work(key)
            if self._pace.is_due:
                await self._pace.breathe()

    async def _rest(self) -> None:
        """Wait until something changes or is due."""
        due_at = self.book.queue.next_due_at(is_calm=self.book.is_calm)
        if due_at is None or self._changes_in_flight > _CHANGES_IN_FLIGHT_MAX:
            await self.book.wake.wait()
            return
        left_s = max(0.0, due_at - self._clock.steady())
        wait = asyncio.ensure_future(self.book.wake.wait())
        sleep = asyncio.ensure_future(self._clock.sleep(left_s))
        try:
            await asyncio.wait({wait, sleep}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            wait.cancel()
            sleep.cancel()

    def _work(self, key: WorkKey) -> None:
        try:
            if key.copy == SET_PASS:
                self._sets.run(key)
            else:
                self._copy_pass(key)
        except StoreUnavailableError:
            metrics.PLAN_REJECTED.labels("store_unavailable").inc()
            self.book.queue.done(key)
            self.book.queue.add_at(key, self._clock.steady() + _RETRY_S)
        except Exception:  # noqa: BLE001 -- a supervised loop: one object's fault must not stop the others
            metrics.INTERNAL_ERRORS.labels("workload").inc()
            _log.exception("pass_failed", namespace=key.namespace, set=key.set_name, copy=key.copy)
            self.book.queue.done(key)
            self.book.queue.add_at(key, self._clock.steady() + _FAULT_RETRY_S)

    # One copy.

    def _copy_pass(self, key: WorkKey) -> None:
        began_s = self._pace.stopwatch()
        now = self._clock.now()
        owner = self.book.owner(key)
        view = self._view(key)
        orders = self._orders(key)
        if owner is not None and owner.metadata.deleted_at is None and key.copy < (owner.spec.replicas or 0):
            state = self.book.state(key.set_uid)
            if not state.is_current(owner, self.book.topology_epoch):
                state.draw(self._store, owner, self.book.topology_epoch, now)
            plan, summary = plan_copy(state.blueprint_of(owner), view, orders, now=now)
            state.pass_s = self._pace.stopwatch() - began_s
        else:
            plan, summary = plan_removal(view, orders, now=now)
        metrics.PLAN_SECONDS.observe(self._pace.stopwatch() - began_s)
        if plan.wake_at is not None:
            # A plan's times are epoch times. If the clock is set meanwhile, the pass comes early and asks again, or it
            # comes late by as much as the clock was set forward.
            self.book.queue.add_at(key, self._clock.steady() + max(0.0, plan.wake_at - now))
        if plan.is_empty:
            self._tell(plan)
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
        size = len(changes)
        # None for what is left of a set that is forgotten.
        state = self.book.sets.get(key.set_uid, SetState())
        self._changes_in_flight += size
        state.plans_in_flight += 1

        def settle(future: asyncio.Future[tuple[Outcome, ...]]) -> None:
            self._changes_in_flight -= size
            state.plans_in_flight -= 1
            self._settle(key, plan, summary, future)
            self.book.wake.set()

        origin = Origin(reason="; ".join(plan.reasons)) if plan.reasons else NO_ORIGIN
        self._store.commit_soon(changes, cause=CAUSE, origin=origin).add_done_callback(settle)

    def _settle(
        self, key: WorkKey, plan: Plan, summary: CopySummary, future: asyncio.Future[tuple[Outcome, ...]]
    ) -> None:
        """Tell and count what a plan did if it was carried out; one that lost a race did nothing and is made anew."""
        error = future.exception()
        if error is not None:
            cause = "store_unavailable" if isinstance(error, StoreUnavailableError) else "store_error"
            metrics.PLAN_REJECTED.labels(cause).inc()
            self.book.queue.done(key)
            self.book.queue.add_at(key, self._clock.steady() + _RETRY_S)
        elif all(isinstance(outcome, Applied | Missing) for outcome in future.result()):
            self._tell(plan)
            count_drains(plan.updates)
            count_stops(plan)
            self._finish_copy(key, summary)
        else:
            metrics.PLAN_REJECTED.labels("conflict").inc()
            self.book.queue.done(key)
            if any(isinstance(outcome, Exists) for outcome in future.result()):
                # Somebody else's object has the name: that does not go away by trying again at once.
                self.book.queue.add_at(key, self._clock.steady() + _RETRY_S)
            else:
                self.book.queue.add(key)

    def _tell(self, plan: Plan) -> None:
        if plan.notes:
            self._events.note(plan.notes)

    def _finish_copy(self, key: WorkKey, summary: CopySummary) -> None:
        self._sets.follow(key, summary)
        self.book.queue.done(key)

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
