"""Decides one gang at a time: what it lacks, whether placement has room for it, and why it waits if there is none.

What is decided is reserved at once. Verdicts of waiting gangs and the decisions on placed ones are kept here, for the
next try and for explanations. When gangs are decided and how decisions become commits is the placement loop's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from grove_server.control.clock import Clock
from grove_server.control.decisions import Decision, Holding, Holdings
from grove_server.control.drafts import CopyDraft, CopyKey
from grove_server.control.events import EventRecorder
from grove_server.control.evictions import OrdersOf, no_orders
from grove_server.control.homecoming import wait_s
from grove_server.control.indexes import GANGS_BY_COPY
from grove_server.control.notes import waiting_note
from grove_server.control.room_desk import RoomDesk
from grove_server.control.scenes import Scenes
from grove_server.control.second_opinions import SecondOpinions
from grove_server.control.solver_pool import SolverPool
from grove_server.placement.cluster import Cluster
from grove_server.placement.earmarks import place_around
from grove_server.placement.gang_facts import full_name
from grove_server.placement.gangs import Ask, GangScene, ask_minimum, ask_surplus, is_complete, is_placed
from grove_server.placement.lines import rank
from grove_server.placement.old_places import taken, wanted
from grove_server.placement.requests import minimum_of
from grove_server.placement.results import Placement, Verdict
from grove_server.placement.standing import is_constrained
from grove_server.placement.steps import Steps
from grove_server.placement.waiting import TOPOLOGY_UNAVAILABLE, WAITING_FOR_BASE, WAITING_FOR_PODS
from grove_server.placement.wake_ups import WakeUps
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
    """Decides gangs on one cluster. *stopwatch* gives seconds that only differences are taken of.

    *pool* is the exact solver, if there is one; *bring_back* has a gang decided anew that it has an answer for.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        events: EventRecorder,
        stopwatch: Callable[[], float],
        *,
        pool: SolverPool | None,
        bring_back: Callable[[Key], None],
        orders_of: OrdersOf = no_orders,
    ) -> None:
        self._store = store
        self._clock = clock
        self._events = events
        self._stopwatch = stopwatch
        self.cluster = Cluster()
        self.holdings = Holdings(self.cluster)
        self.scenes = Scenes(store, self.cluster)
        self.waiting: dict[Key, Decision] = {}
        self.placed: dict[Key, Decision] = {}
        self.wake_ups: WakeUps[Key] = WakeUps(self.cluster)
        self.opinions = SecondOpinions(self.cluster, pool, bring_back, events.note)
        self.room = RoomDesk(
            store, self.cluster, self.holdings, self.scenes, events, orders_of=orders_of, bring_back=bring_back
        )
        self._waiting_counts: Counter[str] = Counter()
        self._is_shown = True
        # Gangs that wait for places of predecessors to become free, and for how many seconds at most.
        self.put_off: dict[Key, float] = {}

    # What is known of gangs.

    def forget(self, key: Key) -> None:
        """Drop what is kept of a gang that is gone."""
        self._wait_no_more(key, is_gone=True)
        self.room.forget(key)
        self.placed.pop(key, None)
        self.put_off.pop(key, None)

    def helped(self, since: int) -> list[Key]:
        """Return the waiting gangs that what grew after a generation of the cluster may help."""
        found = self.wake_ups.woken(since)
        for key in found:
            self.opinions.grew(key)
        return found

    def waiting_for_base(self, copy: CopyKey) -> list[Key]:
        """Return the scaled gangs of a copy that wait for its base gang."""
        keys = (key_of(gang) for gang in self._store.read().indexed(GANGS_BY_COPY, (copy.set_uid, copy.copy)))
        decisions = ((key, self.waiting.get(key)) for key in keys)
        return [key for key, decision in decisions if decision and decision.waiting_reason == WAITING_FOR_BASE]

    def show_waiting(self) -> None:
        """Show how many gangs wait, by reason, if that changed."""
        if not self._is_shown:
            self._is_shown = True
            metrics.show_pending_gangs(+self._waiting_counts)

    def _count(self, before: Decision | None, after: Decision | None) -> None:
        if (before and before.reason) != (after and after.reason):
            self._is_shown = False
            self._waiting_counts.subtract([before.reason] if before else [])
            self._waiting_counts.update([after.reason] if after else [])

    def _wait_no_more(self, key: Key, *, is_gone: bool = False) -> None:
        """Drop why a gang waits; *is_gone*: and it takes no room."""
        before = self.waiting.pop(key, None)
        if before is not None:
            self._count(before, None)
            self.wake_ups.drop(key, is_gone=is_gone)
            self.room.wait_no_more(key)
        self.opinions.forget(key)

    # One gang.

    def decide_minimum(self, gang: PodGang, draft: CopyDraft) -> Steps[None]:
        """Place a gang's minimum if there is room, as it is after *draft*; note what is left to do for it.

        Nothing of the cluster and its pods may change while it rests.
        """
        key, now = key_of(gang), self._clock.now()
        self.put_off.pop(key, None)
        if gang.metadata.deleted_at is not None:
            # It waits for its last pods to stop, and lacks nothing.
            self._wait_no_more(key, is_gone=True)
            self.room.forget(key)
            return
        if key in self.room.displaced:
            # It is decided on again when its pods know that they leave.
            return
        scene = self.scenes.scene(gang, draft)
        if is_placed(gang, scene.pods):
            self.room.check_part(gang, draft, tuple, now)
            self._decide_placed(gang, scene, draft)
            return
        reason, message = self._obstacle(gang, scene, draft)
        obstacle = Decision(waiting_reason=reason, waiting_message=message) if reason else None
        if (obstacle := obstacle or self.room.precedence.obstacle(gang)) is not None:
            if reason != WAITING_FOR_PODS:
                self.room.check_part(gang, draft, tuple, now)
            self._wait(gang, scene, draft, obstacle)
            return
        self.room.check_part(gang, draft, lambda: ask_minimum(scene), now)
        if self._is_put_off(key, scene):
            return
        after = yield from self._place_parts(gang, draft, ask_minimum)
        if after is None:
            return
        if after.pods.unbound:
            # For surplus nothing is set aside and nobody held back.
            self.room.wait_no_more(key)
            draft.surplus[key] = True
        else:
            self._wait_no_more(key)

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
            self._wait_no_more(key)
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

    def decide_surplus(self, gang: PodGang, draft: CopyDraft) -> Steps[None]:
        """Place the pods beyond the minimum that *draft* says the gang may get."""
        key = key_of(gang)
        if not draft.surplus.get(key) or key in self.room.displaced:
            return
        if self._is_put_off(key, self.scenes.scene(gang, draft)):
            return
        if (yield from self._place_parts(gang, draft, ask_surplus)) is not None:
            self._wait_no_more(key)

    def _place_parts(
        self, gang: PodGang, draft: CopyDraft, asks_of: Callable[[GangScene], Sequence[Ask]]
    ) -> Steps[GangScene | None]:
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
            decision = yield from self._decide(gang, draft, ask)
            if not decision.is_placed:
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

    def _decide(self, gang: PodGang, draft: CopyDraft, ask: Ask) -> Steps[Decision]:
        """Ask once, and take the places if there are any."""
        key, now = key_of(gang), self._clock.now()
        is_minimum = minimum_of(ask.request) > 0
        level_names = self.scenes.level_names(gang.topology_name)
        decision = self.room.kept(gang, draft, ask, now) if is_minimum else None
        is_kept = decision is not None and decision.is_placed
        if decision is None:
            ask, decision = self.room.refusal(gang, ask, is_minimum=is_minimum)
            if decision is not None and is_minimum:
                decision = yield from self.room.make_within(gang, draft, ask, decision, now)
        if decision is None:
            outcome: Placement | Verdict | Decision = self._ask(gang, ask, is_minimum=is_minimum)
            if isinstance(outcome, Verdict) and is_minimum:
                outcome = yield from self.room.make(gang, draft, ask, outcome, now)
            if isinstance(outcome, Verdict):
                self.opinions.want(key, ask.request, outcome)
            decision = outcome if isinstance(outcome, Decision) else Decision(request=ask.request, outcome=outcome)
        decision = replace(decision, since=now, evaluated_at=now, level_names=level_names)
        if isinstance(decision.outcome, Placement):
            self._take(gang, draft, ask, decision, is_kept=is_kept)
        return decision

    def _ask(self, gang: PodGang, ask: Ask, *, is_minimum: bool) -> Placement | Verdict:
        """Return what placement says, or what it said of the same question a moment ago."""
        began_s = self._stopwatch()
        earmarks = self.room.around(ask, is_minimum=is_minimum)
        # The solver knows nothing of what is set aside for others.
        outcome = None if any(each.path for each in earmarks) else self.opinions.take(key_of(gang), ask.request)
        outcome = outcome or self.wake_ups.known(ask.request, self.room.lane(gang))
        if outcome is None:
            name = full_name(gang.metadata.namespace, gang.metadata.name)
            outcome = place_around(self.cluster, ask.request, earmarks, priority=gang.priority, gang=name)
        _SECONDS[isinstance(outcome, Verdict)].observe(self._stopwatch() - began_s)
        return outcome

    def _take(self, gang: PodGang, draft: CopyDraft, ask: Ask, decision: Decision, *, is_kept: bool) -> None:
        """Take the places of a decision; *is_kept*: they are reserved already, and are these and no others."""
        assert isinstance(decision.outcome, Placement)
        part = wanted(ask, decision.outcome)
        if not is_kept:
            part = taken(self.cluster, ask, part)
        draft.take(gang, ask, part, self._clock.now())
        if not is_kept:
            self.cluster.reserve(part)
        for pod, shape in draft.last_taken:
            self.holdings.note(key_of(pod), Holding(pod.node, shape, pod.gpu_ids))
            self.scenes.peers.note(pod)
        draft.remember(key_of(gang), ask, decision, self.placed)

    def _wait(self, gang: PodGang, scene: GangScene, draft: CopyDraft, decision: Decision) -> None:
        """Keep the verdict; tell the gang and its pods if the reason is new."""
        key = key_of(gang)
        old = self.waiting.get(key)
        now = self._clock.now()
        if old is not None and old.reason == decision.reason:
            since = old.since
        else:
            since = now
            # Pods that are still to be made are on their way; why they have to be is told already (Preempted, Created).
            is_news = decision.waiting_reason != WAITING_FOR_PODS
            if is_news and (old is None or not is_placed(gang, scene.pods)):
                self._events.note([waiting_note(gang, decision)])
        self.waiting[key] = replace(
            decision,
            since=since,
            evaluated_at=now,
            level_names=decision.level_names or self.scenes.level_names(gang.topology_name),
        )
        self._count(old, decision)
        failed = [
            (each.request, each.outcome)
            for each in (decision, *decision.others)
            if each.request is not None and isinstance(each.outcome, Verdict)
        ]
        self.wake_ups.file(key, failed, order=rank(gang), lane=self.room.lane(gang))
        self.room.file(gang, self.waiting[key])
        self.room.tell_earmark(gang, draft)
        draft.wait(gang, scene, decision, now)
