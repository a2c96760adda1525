"""Makes room for gangs that have none: others leave, places are kept meanwhile, and at last a domain is set aside.

Everything that priorities and queues change about a decision is here, so that a cluster in which nobody uses them pays
for a few comparisons. The order in which it is asked: what is kept for the gang already; whether its queue lets it in;
what is free, around what is set aside for others; who could leave.

Not here: the decisions themselves (``gang_desk``), and who is asked for when (``placement_loop``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace

from grove_server.control.decisions import Decision, Holdings
from grove_server.control.drafts import CopyDraft, CopyKey
from grove_server.control.events import EventRecorder
from grove_server.control.evictions import Eviction, Evictions, OrdersOf
from grove_server.control.nominations import Nominations
from grove_server.control.notes import earmarked_note, eviction_notes
from grove_server.control.patience import Patience
from grove_server.control.precedence import Precedence
from grove_server.control.queue_book import QueueBook
from grove_server.control.queue_status import QueueStatuses
from grove_server.control.scenes import Scenes
from grove_server.control.seats import Seats
from grove_server.control.set_asides import SetAsides
from grove_server.control.stops import count_evictions
from grove_server.lifecycle.gang_status import EARMARKED
from grove_server.placement.allowances import surplus_of, without_surplus
from grove_server.placement.cluster import Cluster
from grove_server.placement.earmarks import Earmark
from grove_server.placement.gangs import Ask, ask_minimum, is_complete
from grove_server.placement.lines import rank
from grove_server.placement.preemption import over_limits
from grove_server.placement.requests import GangRequest
from grove_server.placement.results import Placement, Verdict
from grove_server.placement.steps import Steps
from grove_server.placement.thresholds import Thresholds
from grove_server.placement.waiting import QUEUE_BLOCKED, QUEUE_LIMIT, WAITING_FOR_VICTIMS
from grove_server.resources.meta import Key, find_condition, key_of
from grove_server.resources.workload import PodGang
from grove_server.store.interface import Store


class RoomDesk:
    """Room on one cluster. *bring_back* has a gang decided anew."""

    def __init__(
        self,
        store: Store,
        cluster: Cluster,
        holdings: Holdings,
        scenes: Scenes,
        events: EventRecorder,
        *,
        orders_of: OrdersOf,
        bring_back: Callable[[Key], None],
    ) -> None:
        self._store = store
        self._cluster = cluster
        self._scenes = scenes
        self._events = events
        self._bring_back = bring_back
        self.queues = QueueBook(store)
        self.seats = Seats(store, holdings, self.queues, scenes.counted)
        holdings.tell = self.seats.touch
        self.nominations = Nominations(
            store, cluster, holdings, peers=scenes.peers, counting=scenes.counted, leaving=self.seats.leaving
        )
        self.precedence = Precedence(store, cluster, self.queues, self.seats, self.nominations, scenes.shape_of)
        self.patience = Patience(self.queues)
        self.evictions = Evictions(
            store,
            cluster,
            self.seats,
            self.queues,
            precedence=self.precedence,
            orders_of=orders_of,
            patience=self.patience,
        )
        self.set_asides = SetAsides(cluster, self.queues)
        self.statuses = QueueStatuses(store, self.queues, self.precedence)
        self.displaced: set[Key] = set()
        self._priorities: Counter[int] = Counter()
        self._has_opened = False
        self._has_unblocked = False
        # Who waits for queues to use less, and the state of that when it was looked at last.
        self._thresholds: Thresholds[Key] = Thresholds()
        self._looked_at: tuple[int, int] | None = None

    # What changed.

    def follow_gang(self, gang: PodGang | None, previous: PodGang | None) -> None:
        """Note what a gang is now and what it was: None if it is not there."""
        if previous is not None:
            self._priorities[previous.priority] -= 1
            if not self._priorities[previous.priority]:
                del self._priorities[previous.priority]
        if gang is not None:
            self._priorities[gang.priority] += 1
        known = gang or previous
        if known is not None:
            self.seats.touch_gang(key_of(known))

    def forget_queues(self) -> None:
        """Read the queues again, and what gangs of them may do."""
        self.queues.forget()
        self.evictions.forget_answers()
        self._thresholds = Thresholds()

    def helped_by_release(self) -> list[Key]:
        """Return the gangs that wait for pods to go, whatever was released."""
        return list(self.nominations)

    def forget(self, key: Key) -> None:
        """Keep nothing for a gang that is gone or waits no more."""
        self.nominations.withdraw(key)
        self.wait_no_more(key)

    def wait_no_more(self, key: Key) -> None:
        """Set nothing aside for a gang that has its places, and hold back nobody for it; the next one may be due."""
        self.evictions.forget(key)
        if self._thresholds.drop(key):
            self._looked_at = None
        self._has_unblocked |= self.precedence.wait_no_more(key)
        self._has_opened |= self.set_asides.of(key) is not None
        for following in self.set_asides.drop(key):
            self._bring_back(following)

    def check_promises(self) -> None:
        """After changes of nodes: look again for gangs whose places cannot be had any more."""
        for key in self.nominations.broken():
            self.nominations.withdraw(key)
            self._bring_back(key)

    def restore(self, gang: PodGang) -> None:
        """Keep again what a gang's status says is kept for it, after a restart."""
        scene = self._scenes.scene(gang, CopyDraft(CopyKey(gang.set_uid, gang.copy)))
        if not is_complete(gang, scene.pods):
            # Pods of its minimum went and are not made anew yet: nothing can be asked for it, and so nothing is kept.
            return
        queue = self.queues.name_of(gang)
        any(self.nominations.restore(gang, ask, queue) for ask in ask_minimum(scene))

    # Rounds.

    @property
    def next_due_at(self) -> float | None:
        """When a gang will next have waited long enough for something, in epoch seconds."""
        return min(
            (at for at in (self.set_asides.next_due_at, self.patience.next_due_at) if at is not None), default=None
        )

    def take_due(self, now: float) -> list[Key]:
        """Return the gangs that have waited long enough for something."""
        return [*self.set_asides.take_due(now), *self.patience.take_due(now)]

    @property
    def has_more(self) -> bool:
        """Whether gangs are to be decided again although nothing else changed."""
        return self._has_opened or self._has_unblocked or bool(self.evictions.postponed) or self._may_cross

    @property
    def _may_cross(self) -> bool:
        return bool(self._thresholds) and self._looked_at != self.precedence.version

    def begin_round(self, waiting: Mapping[Key, Decision]) -> dict[Key, None]:
        """Begin a round; return the gangs that the last one did not come to, or that nobody holds back any more."""
        if not self.seats.is_on and (len(self._priorities) > 1 or self.queues.is_in_use):
            self.seats.begin()
        self.precedence.begin_round()
        again = self.evictions.begin_round()
        if self._has_opened:
            again |= dict.fromkeys(waiting)
        elif self._has_unblocked:
            again |= dict.fromkeys(k for k, decision in waiting.items() if _waits_for(QUEUE_BLOCKED, decision))
        self._has_opened = self._has_unblocked = False
        if self._may_cross:
            again |= dict.fromkeys(self._thresholds.woken(self.precedence.total))
            self._looked_at = self.precedence.version
        return again

    def file(self, gang: PodGang, decision: Decision) -> None:
        """Note for which use of queues a gang waits."""
        if self.queues.is_in_use and self.seats.is_on:
            # What ran before is not bound by what is set aside.
            earmarks = self.set_asides.earmarks if gang.status.scheduled_at is None or decision.surplus else ()
            ways = self.precedence.ways(gang, decision, earmarks)
            if self._thresholds.file(key_of(gang), ways, self.precedence.total, order=rank(gang)):
                self._looked_at = None

    @property
    def needs_seats(self) -> bool:
        """Whether decisions need to know what queues use, and there is more to take in."""
        return self.seats.is_on and self.queues.is_in_use and not self.seats.is_current

    def lane(self, gang: PodGang) -> Hashable:
        """Return with whom a gang may share a verdict: its queue's gangs that are bound alike by what is set aside."""
        queue = self.queues.name_of(gang) if self.queues.is_in_use else ""
        earmarks = self.set_asides.earmarks
        if not earmarks:
            return queue
        own = self.set_asides.of(key_of(gang))
        bound = tuple((each.path, each.gang) for each in earmarks if each is not own and gang.priority <= each.priority)
        return queue, bound

    # One decision.

    def check_part(self, gang: PodGang, draft: CopyDraft, parts: Callable[[], Sequence[Ask]], now: float) -> None:
        """Keep nothing any more for a part that a gang does not lack; *parts* gives what it does lack."""
        nominated = self.nominations.get(key_of(gang))
        if nominated is not None and all(ask.request.name != nominated.part for ask in parts()):
            self.nominations.withdraw(key_of(gang))
            draft.nominate(gang, None, now)

    def kept(self, gang: PodGang, draft: CopyDraft, ask: Ask, now: float) -> Decision | None:
        """Return the decision that what is kept for this part of a gang makes: its places, or that it has to wait."""
        key = key_of(gang)
        nominated = self.nominations.get(key)
        if nominated is None:
            if gang.status.nomination is not None:
                draft.nominate(gang, None, now)
            return None
        if nominated.part != ask.request.name:
            return None
        if self.nominations.answers(nominated, ask.request):
            over = self.precedence.limit_on_arrival(gang, ask.request)
            placement = None if over else self.nominations.take(key, ask.request)
            if placement is not None:
                outcome = replace(placement, gang=ask.request.name)
                return Decision(request=ask.request, outcome=outcome, nominated=placement)
            if over and self.precedence.is_limit_yielding(gang):
                return _waiting(ask.request, nominated.placement, f"waits until pods of its queue are gone: {over}")
            if not over and not self.nominations.is_hopeless(nominated, ask.request):
                return _waiting(
                    ask.request, nominated.placement, f"waits until pods on {nominated.on_nodes()} are gone"
                )
        self.nominations.withdraw(key)
        draft.nominate(gang, None, now)
        return None

    def refusal(self, gang: PodGang, ask: Ask, *, is_minimum: bool) -> tuple[Ask, Decision | None]:
        """Return what a gang may ask for, and why nothing if so."""
        if not self.queues.is_in_use and not self.queues.has_strict:
            return ask, None
        if is_minimum:
            earmarks = self.around(ask, is_minimum=True)
            return ask, self.precedence.refusal(gang, ask.request, is_whole=ask.is_whole, earmarks=earmarks)
        shape, wanted = surplus_of(ask.request.members)
        earmarks = self.set_asides.earmarks
        within = self.precedence.surplus_within_limit(gang, shape, wanted, earmarks)
        request = ask.request if within == wanted else without_surplus(ask.request, within)
        if within:
            return replace(ask, request=request), self.precedence.refusal(
                gang, request, is_surplus=True, earmarks=earmarks
            )
        return ask, self.precedence.limit_reached(gang, ask.request, shape, earmarks)

    def make_within(self, gang: PodGang, draft: CopyDraft, ask: Ask, refusal: Decision, now: float) -> Steps[Decision]:
        """Return that others leave so that a gang's minimum keeps within a limit, or its refusal by the queue."""
        if refusal.waiting_reason != QUEUE_LIMIT:
            return refusal
        key = key_of(gang)
        self.precedence.wait(gang, ask.request)
        if self.nominations.get(key) is not None:
            return refusal
        earmarks = self.around(ask, is_minimum=True)
        verdict = over_limits(self._cluster, ask.request)
        found = yield from self.evictions.plan(key, gang, ask.request, verdict, earmarks, now)
        decision = self._nominate(gang, draft, ask, found, now) if isinstance(found, Eviction) else None
        if decision is None:
            aside = self._set_aside(gang, ask, None, now)
            why = [refusal.waiting_message, found.detail if isinstance(found, Verdict) else "", aside]
            return replace(refusal, waiting_message="; ".join(each for each in why if each))
        self._has_unblocked |= self.precedence.wait_no_more(key)
        return decision

    def around(self, ask: Ask, *, is_minimum: bool) -> Sequence[Earmark]:
        """Return what is set aside and binds a question: what ran before gets its place back all the same."""
        return self.set_asides.earmarks if ask.is_whole or not is_minimum else ()

    def make(
        self, gang: PodGang, draft: CopyDraft, ask: Ask, verdict: Verdict, now: float
    ) -> Steps[Decision | Verdict]:
        """Return that others leave for a gang's minimum, or the verdict with why nobody does."""
        key = key_of(gang)
        earmarks = self.around(ask, is_minimum=True)
        found: Eviction | Verdict = verdict
        self.precedence.wait(gang, ask.request)
        if self.nominations.get(key) is None:
            found = yield from self.evictions.plan(key, gang, ask.request, verdict, earmarks, now)
        if isinstance(found, Eviction):
            decision = self._nominate(gang, draft, ask, found, now)
            if decision is not None:
                self._has_unblocked |= self.precedence.wait_no_more(key)
                return decision
            found = verdict
        text = self._set_aside(gang, ask, verdict, now)
        if text:
            found = replace(found, detail=f"{found.detail}; {text}" if found.detail else text)
        return found

    def _set_aside(self, gang: PodGang, ask: Ask, verdict: Verdict | None, now: float) -> str:
        """Set something aside for a gang that has waited long enough; return what is, for people, "" if nothing is.

        Without a *verdict* it waits for a limit.
        """
        topology = ask.request.topology or self._scenes.any_levels()
        before = self.set_asides.of(key_of(gang))
        earmark = self.set_asides.follow(gang, ask.request, verdict, topology, now) if ask.is_whole else None
        if earmark is not None:
            self._events.note([earmarked_note(gang, earmark.sentence())])
        own = self.set_asides.of(key_of(gang))
        self._has_opened |= before is not None and own is None
        text = "" if own is None else own.sentence()
        return f"{text} is set aside for it" if text else ""

    def tell_earmark(self, gang: PodGang, draft: CopyDraft) -> None:
        """Have a waiting gang say what is set aside for it, if it says otherwise."""
        earmark = self.set_asides.of(key_of(gang))
        domain = "" if earmark is None else earmark.sentence()
        condition = find_condition(gang.status.conditions, EARMARKED)
        message = condition.message if condition is not None and condition.status == "True" else ""
        if message != (f"{domain} is set aside for it" if domain else ""):
            draft.earmark(gang, domain)

    def let_go(self, draft: CopyDraft) -> None:
        """Ask nobody to leave for gangs that went while the round was under way."""
        for key in list(draft.evictions):
            if self._store.read().get(PodGang, key.namespace, key.name) is None:
                self._take_back(key, draft.evictions.pop(key))

    def settle(self, draft: CopyDraft, *, is_done: bool) -> None:
        """Tell what a committed draft made of others' places, or take back what a refused one promised."""
        for key, eviction in draft.evictions.items():
            if is_done:
                self._end(eviction)
                self._events.note(eviction_notes(key, eviction))
                count_evictions(eviction)
            else:
                self._take_back(key, eviction)

    # Inside.

    def _end(self, eviction: Eviction) -> None:
        """Forget who was about to be told to leave; gangs that go as a whole are decided on again."""
        self.seats.leaving.difference_update(eviction.going)
        self.seats.touch(eviction.going)
        self.displaced.difference_update(eviction.whole_gangs)
        for key in eviction.whole_gangs:
            self._bring_back(key)

    def _take_back(self, key: Key, eviction: Eviction) -> None:
        self._end(eviction)
        self.nominations.withdraw(key)

    def _nominate(self, gang: PodGang, draft: CopyDraft, ask: Ask, eviction: Eviction, now: float) -> Decision | None:
        key = key_of(gang)
        placement = eviction.plan.placement
        if not self.nominations.promise(key, ask, placement, self.queues.name_of(gang)):
            return None
        nominated = self.nominations.get(key)
        draft.nominate(gang, nominated, now)
        draft.evictions[key] = eviction
        self.set_asides.hold_no_room(key)
        self.displaced.update(eviction.whole_gangs)
        self.seats.leaving.update(eviction.going)
        self.seats.touch(eviction.going)
        reasons = "; ".join(eviction.plan.reasons) or "pods that leave already make room"
        where = nominated.on_nodes() if nominated is not None else ""
        return _waiting(ask.request, placement, f"waits for places on {where}: {reasons}")


def _waits_for(reason: str, decision: Decision) -> bool:
    return any(each.waiting_reason == reason for each in (decision, *decision.others))


def _waiting(request: GangRequest, placement: Placement, message: str) -> Decision:
    return Decision(request=request, waiting_reason=WAITING_FOR_VICTIMS, waiting_message=message, nominated=placement)
