"""Decides one gang at a time: what it lacks, whether placement has room for it, and why it waits if there is none.

What is decided is reserved at once. Verdicts of waiting gangs and the decisions on placed ones are kept here, for the
next try and for explanations. When gangs are decided and how decisions become commits is the placement loop's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from grove_server.control.clock import Clock
from grove_server.control.decisions import (
    TOPOLOGY_UNAVAILABLE,
    WAITING_FOR_BASE,
    WAITING_FOR_PODS,
    Decision,
    Holding,
    Holdings,
)
from grove_server.control.drafts import CopyDraft, CopyKey
from grove_server.control.events import EventRecorder
from grove_server.control.homecoming import taken, wait_s
from grove_server.control.indexes import GANGS_BY_COPY
from grove_server.control.notes import waiting_note
from grove_server.control.scenes import Scenes
from grove_server.placement.cluster import Cluster
from grove_server.placement.gangs import Ask, GangScene, ask_minimum, ask_surplus, is_complete, is_placed
from grove_server.placement.place import place
from grove_server.placement.results import Verdict
from grove_server.placement.standing import is_constrained
from grove_server.resources.meta import Key, key_of
from grove_server.resources.workload import PodGang
from grove_server.store.interface import Store
from grove_server.telemetry import metrics

# Resolved once, by whether the gang has to wait: looking up a labelled metric costs more than counting.
_SECONDS: Final = {
    True: metrics.PLACEMENT_SECONDS.labels("waiting"),
    False: metrics.PLACEMENT_SECONDS.labels("placed"),
}


class GangDesk:
    """Decides gangs on one cluster. *stopwatch* gives seconds that only differences are taken of."""

    def __init__(self, store: Store, clock: Clock, events: EventRecorder, stopwatch: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._events = events
        self._stopwatch = stopwatch
        self.cluster = Cluster()
        self.holdings = Holdings(self.cluster)
        self.scenes = Scenes(store, self.cluster)
        self.waiting: dict[Key, Decision] = {}
        self.placed: dict[Key, Decision] = {}
        # Gangs that wait for places of predecessors to become free, and for how many seconds at most.
        self.put_off: dict[Key, float] = {}
        self._shown_waiting = False

    # What is known of gangs.

    def forget(self, key: Key) -> None:
        """Drop what is kept of a gang that is gone."""
        self.waiting.pop(key, None)
        self.placed.pop(key, None)
        self.put_off.pop(key, None)

    def helped(self, but: Mapping[Key, None]) -> list[Key]:
        """Return the waiting gangs, without those in *but*, that what grew since they failed may help."""
        return [key for key, decision in self.waiting.items() if key not in but and self._may_help(decision)]

    def _may_help(self, decision: Decision) -> bool:
        """Return whether what grew may help any part of what waits."""
        return any(
            isinstance(each.outcome, Verdict)
            and each.request is not None
            and self.cluster.may_help(each.request, each.outcome.generation)
            for each in (decision, *decision.others)
        )

    def waiting_for_base(self, copy: CopyKey) -> list[Key]:
        """Return the scaled gangs of a copy that wait for its base gang."""
        keys = (key_of(gang) for gang in self._store.read().indexed(GANGS_BY_COPY, (copy.set_uid, copy.copy)))
        decisions = ((key, self.waiting.get(key)) for key in keys)
        return [key for key, decision in decisions if decision and decision.waiting_reason == WAITING_FOR_BASE]

    def show_waiting(self) -> None:
        """Show how many gangs wait, by reason."""
        if not self.waiting and not self._shown_waiting:
            return
        self._shown_waiting = bool(self.waiting)
        counts: dict[str, int] = {}
        for decision in self.waiting.values():
            counts[decision.reason] = counts.get(decision.reason, 0) + 1
        metrics.show_pending_gangs(counts)

    # One gang.

    def decide_minimum(self, gang: PodGang, draft: CopyDraft) -> None:
        """Place a gang's minimum if there is room, as it is after *draft*; note what is left to do for it."""
        key = key_of(gang)
        self.put_off.pop(key, None)
        if gang.metadata.deleted_at is not None:
            # It waits for its last pods to stop, and lacks nothing.
            self.waiting.pop(key, None)
            return
        scene = self.scenes.scene(gang, draft)
        if is_placed(gang, scene.pods):
            self._decide_placed(gang, scene, draft)
            return
        reason, message = self._obstacle(gang, scene, draft)
        if reason:
            self._wait(gang, scene, draft, Decision(waiting_reason=reason, waiting_message=message))
            return
        if self._is_put_off(key, scene):
            return
        after = self._place_parts(gang, draft, ask_minimum)
        if after is None:
            return
        if after.pods.unbound:
            draft.surplus[key] = True
        else:
            self.waiting.pop(key, None)

    def _is_put_off(self, key: Key, scene: GangScene) -> bool:
        """Return whether a gang waits a moment for the places of its pods' predecessors."""
        left_s = wait_s(self._store.read(), self.holdings, scene, self._clock.now())
        if left_s:
            self.put_off[key] = left_s
        return left_s > 0

    def _decide_placed(self, gang: PodGang, scene: GangScene, draft: CopyDraft) -> None:
        """Note what is left to do for a gang whose minimum has its nodes."""
        key = key_of(gang)
        if is_constrained(gang) and self._has_moved(gang, scene):
            draft.tell_place(gang)
        if not scene.pods.unbound:
            self.waiting.pop(key, None)
        elif gang.topology_error:
            # Without its topology nobody knows where the surplus would have to be; what runs keeps running.
            decision = Decision(waiting_reason=TOPOLOGY_UNAVAILABLE, waiting_message=gang.topology_error)
            self._wait(gang, scene, draft, decision)
        else:
            draft.surplus[key] = True

    def _has_moved(self, gang: PodGang, scene: GangScene) -> bool:
        """Return whether a gang stands elsewhere than it says: pods went, or their nodes have other labels now."""
        nodes = {name: [pod.node for pod in pods] for name, pods in scene.pods.bound.items()}
        standing = self.scenes.standing(gang, nodes)
        if standing is None:
            return False
        is_scored = standing.score is None or standing.score == gang.status.placement_score
        return standing.domains != gang.status.topology or not is_scored

    def decide_surplus(self, gang: PodGang, draft: CopyDraft) -> None:
        """Place the pods beyond the minimum that *draft* says the gang may get."""
        key = key_of(gang)
        if not draft.surplus.get(key) or self._is_put_off(key, self.scenes.scene(gang, draft)):
            return
        if self._place_parts(gang, draft, ask_surplus) is not None:
            self.waiting.pop(key, None)

    def _place_parts(
        self, gang: PodGang, draft: CopyDraft, asks_of: Callable[[GangScene], Sequence[Ask]]
    ) -> GangScene | None:
        """Ask part by part for what a gang lacks; return the scene afterwards, None if some of it has to wait.

        Each part is asked for on what the last one left: where that went may bind the next, and what it got must not
        be told to wait when another part has to. A part without room holds nothing back from the others.
        """
        failed: list[Decision] = []
        tried: set[tuple[str, ...]] = set()
        while True:
            scene = self.scenes.scene(gang, draft)
            ask = next((each for each in asks_of(scene) if tuple(each.pods) not in tried), None)
            if ask is None:
                break
            decision = self._decide(gang, draft, ask)
            if isinstance(decision.outcome, Verdict):
                tried.add(tuple(ask.pods))
                failed.append(decision)
        if not failed:
            return scene
        self._wait(gang, scene, draft, replace(failed[0], others=tuple(failed[1:])))
        return None

    def _obstacle(self, gang: PodGang, scene: GangScene, draft: CopyDraft) -> tuple[str, str]:
        """Return what keeps a gang from being asked for at all: reason and sentence, empty if nothing does."""
        if gang.topology_error:
            return TOPOLOGY_UNAVAILABLE, gang.topology_error
        if not is_complete(gang, scene.pods):
            return WAITING_FOR_PODS, "not all pods of its minimum exist yet"
        if gang.base_gang:
            base = self._store.read().get(PodGang, gang.metadata.namespace, gang.base_gang)
            # No base gang: everything in it is at size 0, so there is nothing to wait for.
            if base is not None and not is_placed(base, self.scenes.scene(base, draft).pods):
                return WAITING_FOR_BASE, f"its base gang {gang.base_gang} is not placed yet"
        return "", ""

    def _decide(self, gang: PodGang, draft: CopyDraft, ask: Ask) -> Decision:
        """Ask once, and take the places if there are any."""
        began_s = self._stopwatch()
        outcome = place(self.cluster, ask.request)
        _SECONDS[isinstance(outcome, Verdict)].observe(self._stopwatch() - began_s)
        now = self._clock.now()
        decision = Decision(
            request=ask.request,
            outcome=outcome,
            since=now,
            evaluated_at=now,
            level_names=self.scenes.level_names(gang.topology_name),
        )
        if isinstance(outcome, Verdict):
            return decision
        part = taken(self.holdings, ask, outcome)
        draft.take(gang, ask, part, now)
        self.cluster.reserve(part)
        for pod, shape in draft.last_taken:
            self.holdings.note(key_of(pod), Holding(pod.node, shape, pod.gpu_ids))
        draft.remember(key_of(gang), ask, decision, self.placed)
        return decision

    def _wait(self, gang: PodGang, scene: GangScene, draft: CopyDraft, decision: Decision) -> None:
        """Keep the verdict; tell the gang and its pods if the reason is new."""
        key = key_of(gang)
        old = self.waiting.get(key)
        now = self._clock.now()
        if old is not None and old.reason == decision.reason:
            since = old.since
        else:
            since = now
            if not is_placed(gang, scene.pods) or old is None:
                self._events.note([waiting_note(gang, decision)])
        self.waiting[key] = replace(
            decision,
            since=since,
            evaluated_at=now,
            level_names=decision.level_names or self.scenes.level_names(gang.topology_name),
        )
        draft.wait(gang, scene, decision, now)
