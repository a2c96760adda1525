"""A set's own pass: it keeps the blueprint current and writes the set's status from its copies' summaries.

It runs seldom when the set is large, and never looks at a pod: what is true of a copy is in its summary.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from grove_server.control.clock import Clock
from grove_server.control.events import EventRecorder
from grove_server.control.revisions import gone_back, kept_revisions, progress_notes, revision_changes
from grove_server.control.set_state import NOT_RESIZED, SetState, topology_levels
from grove_server.control.work_book import WorkBook
from grove_server.control.work_watch import CAUSE
from grove_server.control.workkeys import SET_PASS, WorkKey
from grove_server.lifecycle.copy import CopySummary
from grove_server.lifecycle.rollout.deadline import due_at
from grove_server.lifecycle.rollout.progress import SETTLE_S, advance, is_turn_over, strategy_of, turns
from grove_server.lifecycle.set_pass import topology_condition, with_set_status
from grove_server.resources.manifest import ON_DELETE
from grove_server.resources.meta import Condition, key_of
from grove_server.resources.workload import PodCliqueSet
from grove_server.store.interface import Applied, Change, Delete, Missing, Outcome, Put, Store
from grove_server.telemetry import metrics

# A set's status is written at most this share of the time its pass takes, so that a set of 5,000 copies costs no more
# of the loop than a small one.
_STATUS_REST_FACTOR: Final = 25.0
_STATUS_REST_MIN_S: Final = 0.02
_RETRY_S: Final = 1.0


class SetPasses:
    """Runs set passes. *stopwatch* gives seconds that only differences are taken of."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        events: EventRecorder,
        book: WorkBook,
        stopwatch: Callable[[], float],
        update_settle_s: float = SETTLE_S,
    ) -> None:
        self._store = store
        self._clock = clock
        self._events = events
        self._book = book
        self._stopwatch = stopwatch
        self._settle_s = update_settle_s

    def follow(self, key: WorkKey, summary: CopySummary) -> None:
        """Take in what a copy's pass left, and queue the set's own pass if that changes anything."""
        state = self._book.sets.get(key.set_uid)
        if state is None:
            # The set is gone and forgotten; a late timer or notice must not bring its memory back.
            return
        first_visit = key.copy in state.unvisited
        state.unvisited.discard(key.copy)
        state.adopting.discard(key.copy)
        if not summary.exists:
            # If the size came and went meanwhile, the copy is wanted and nobody was told.
            state.resized_for = NOT_RESIZED
        is_first_whole = first_visit and not state.unvisited
        if state.totals.put(summary) or is_first_whole or state.may_hold_stale_templates:
            set_key = WorkKey(key.namespace, key.set_name, key.set_uid, SET_PASS)
            if key.copy in state.turns and is_turn_over(summary):
                # The next copy waits for its turn.
                self._book.queue.add(set_key)
            else:
                rest_ends_at = max(state.status_not_before, self._clock.steady() + _STATUS_REST_MIN_S)
                if state.turns or state.removal_started or not summary.exists:
                    # Something waits for this pass: the next copy's turn, or the end of the set.
                    self._book.queue.add_at(set_key, rest_ends_at)
                else:
                    self._book.queue.add_calm(set_key, rest_ends_at, is_last=True)

    def run(self, key: WorkKey) -> None:
        """Bring the set up to date with its spec and its copies."""
        began_s = self._stopwatch()
        now = self._clock.now()
        owner = self._book.owner(key)
        state = self._book.state(key.set_uid)
        if owner is None:
            self._forget(key, state)
            return
        if owner.metadata.deleted_at is not None:
            self._remove(key, owner, state)
            return
        if not state.is_current(owner, self._book.topology_epoch):
            state.draw(self._store, owner, self._book.topology_epoch, now)
        if not state.is_spread:
            # A copy's pass may have drawn the blueprint; the other copies have to follow all the same.
            state.is_spread = True
            # Those too whose first plan is on its way to the disk: it was made from the blueprint before.
            self._book.queue_copies(owner, sorted(state.totals.copies.keys() | state.unvisited))
        self._queue_resized(owner, state)
        self._queue_turns(owner, state)
        progress = owner.status.update_progress
        is_updating = progress is not None and progress.is_active
        state.remove_stale_templates(self._store, owner, is_updating=is_updating)
        if state.adopting:
            # After a start, a status made from some of the copies would be a lie; the last copy's pass comes back here.
            self._book.queue.done(key)
            return
        update = advance(owner, state.totals, now=now, settle_s=self._settle_s)
        changed = with_set_status(owner, state.totals, self._topology(owner, state, now), update, now=now)
        for wake_at in (update.wake_at, due_at(changed, update.progress)):
            if wake_at is not None and wake_at > now:
                self._book.queue.add_at(key, self._clock.steady() + wake_at - now)
        self._show_sizes(owner, state)
        self._events.note(progress_notes(owner, changed))
        extra = revision_changes(self._store.read(), changed, now)
        changed, notes = gone_back(self._store.read(), changed, now)
        self._events.note(notes)
        self._commit_status(key, owner, changed, extra)
        state.status_not_before = self._clock.steady() + _STATUS_REST_FACTOR * (self._stopwatch() - began_s)

    def _queue_turns(self, owner: PodCliqueSet, state: SetState) -> None:
        """Queue the copies whose turn in an update began or ended, so that they see their new orders."""
        now_having = turns(owner)
        affected = now_having ^ state.turns
        is_resting = owner.paused_at is not None
        if state.is_resting and not is_resting and strategy_of(owner).type == ON_DELETE:
            # Nobody has a turn there, and each copy follows the template that was edited meanwhile.
            affected |= state.totals.copies.keys()
        state.turns, state.is_resting = now_having, is_resting
        for copy in sorted(affected):
            self._book.queue.add(WorkKey(owner.metadata.namespace, owner.metadata.name, owner.metadata.uid, copy))

    def _queue_resized(self, owner: PodCliqueSet, state: SetState) -> None:
        """Queue the copies that are missing, those beyond the size, and those that were but are wanted again."""
        wanted = owner.spec.replicas or 0
        seen = (wanted, state.totals.members_serial)
        if seen == state.resized_for:
            return
        known = state.totals.copies.keys() | state.unvisited
        leaving = {*state.totals.beyond(wanted)}
        resized = {copy for copy in range(wanted) if copy not in known or copy in state.leaving} | (
            leaving - state.leaving
        )
        state.leaving = leaving
        state.resized_for = seen
        self._book.queue_copies(owner, sorted(resized))

    def _remove(self, key: WorkKey, owner: PodCliqueSet, state: SetState) -> None:
        """Take the copies down; when none is left, remove the set and its templates as one change."""
        if not state.removal_started:
            state.removal_started = True
            self._book.queue_copies(owner, sorted(state.totals.copies.keys() | state.unvisited))
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
            self._book.queue.done(key)
            return
        future = self._store.commit_soon(changes, cause=CAUSE)
        future.add_done_callback(lambda done: self._settle_set(key, done))

    def _settle_set(self, key: WorkKey, future: asyncio.Future[tuple[Outcome, ...]]) -> None:
        self._book.queue.done(key)
        if future.exception() is not None:
            self._book.queue.add_at(key, self._clock.steady() + _RETRY_S)
            self._book.wake.set()
            return
        owner = self._book.owner(key)
        if owner is None or not all(isinstance(outcome, Applied | Missing) for outcome in future.result()):
            self._book.queue.add(key)
        elif owner.metadata.deleted_at is None:
            state = self._book.state(key.set_uid)
            self._queue_turns(owner, state)
            if not state.is_current(owner, self._book.topology_epoch):
                # The set went back to an earlier revision by itself; own changes wake nobody.
                self._book.queue.add(key)
            if state.may_hold_stale_templates:
                self._book.queue.add_at(key, max(state.status_not_before, self._clock.steady() + _STATUS_REST_MIN_S))
        self._book.wake.set()

    def _forget(self, key: WorkKey, state: SetState) -> None:
        metrics.REPLICAS.forget_set(key.namespace, key.set_name)
        if not state.totals.copies and not state.unvisited:
            self._book.sets.pop(key.set_uid, None)
        self._book.queue.done(key)

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
