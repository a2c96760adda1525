"""Questions to placement that change nothing: why a gang waits or runs where it does, and what would happen if.

What-ifs run the real planner on a copy of the cluster with all that runs on it: the same passes make the same gangs,
and the same placement answers, in the same rounds, within the same queues and around what is set aside or promised. The
copy is made at once, on the loop; the thinking is done in a thread, one question at a time, so that calls and loops go
on meanwhile.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from grove_server.control.clock import Clock
from grove_server.control.decisions import Decision, asked_again
from grove_server.control.placement_loop import PlacementLoop
from grove_server.control.set_state import priority_classes, topology_levels
from grove_server.lifecycle.blueprint import TopologyLevels
from grove_server.placement.admittance import Waiting
from grove_server.placement.alternatives import Alternative, alternatives
from grove_server.placement.clearing import plan_clearing
from grove_server.placement.consolidation import ConsolidationLimits, Moves, RequestOf, plan_consolidation
from grove_server.placement.earmarks import place_around
from grove_server.placement.fragmentation import (
    PROBE_GPU_COUNTS,
    Fragmentation,
    LargestGang,
    fragmentation,
    largest_gangs,
    probe,
)
from grove_server.placement.gang_facts import full_name
from grove_server.placement.lines import rank
from grove_server.placement.misfits import misfit
from grove_server.placement.moment import Moment, PodMove, Running, Standing
from grove_server.placement.occupancy import Seat
from grove_server.placement.picture import ClusterMap, map_of
from grove_server.placement.planned import gang_count
from grove_server.placement.preemption import Preemption
from grove_server.placement.relief import Relief, plan_relief
from grove_server.placement.requests import DomainPath, GangRequest, minimum_of
from grove_server.placement.results import Placement, ScopeKind, Verdict
from grove_server.placement.rounds import AbandonedError
from grove_server.placement.shapes import shape_of
from grove_server.placement.trial_answer import Refused, TrialAnswer
from grove_server.placement.waiting import QUEUE_LIMIT
from grove_server.placement.whatif import NO_CHANGE, ClusterChange, WhatIf, WhatIfAnswer, ask_what_if
from grove_server.resources.cluster import ClusterTopologyBinding
from grove_server.resources.duration import format_duration
from grove_server.resources.manifest import TopologyLevel
from grove_server.resources.meta import Key, Kind, key_of
from grove_server.resources.priority import PriorityClass
from grove_server.resources.queues import Queue, queue_of
from grove_server.resources.workload import Pod, PodClique, PodCliqueSet, PodGang
from grove_server.store.interface import Store

T = TypeVar("T")

HOSTNAME: Final = "kubernetes.io/hostname"

MOVED_PODS_MAX: Final = 1_000
"""Most pods that one plan of moves may name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedGang:
    """One gang of a what-if question; `is_displaced`: it runs now and lost pods by the question itself."""

    namespace: str
    name: str
    set_name: str
    is_base: bool
    decision: Decision
    fits: bool
    is_displaced: bool
    eviction: Preemption | None
    surplus_count: int
    surplus_placed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedSets:
    """The answer to a what-if question; no gangs when there would be more than were allowed."""

    gangs: Sequence[PlannedGang]
    gang_count: int
    largest: Sequence[LargestGang] = ()
    figures: Fragmentation | None = None
    pods_displaced: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterView:
    """The cluster as it is, to be drawn."""

    topology_name: str
    map: ClusterMap
    figures: Fragmentation
    largest: Sequence[LargestGang]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedMoves:
    """Which pods would move where and what for; `verdict` if nothing helps the gang."""

    moves: Sequence[PodMove]
    plan: Moves | None
    verdict: Verdict | None


class Planning:
    """Answers questions; implements the API's PlacementPort."""

    def __init__(self, store: Store, loop: PlacementLoop, clock: Clock) -> None:
        self._store = store
        self._loop = loop
        self._clock = clock
        self._turn = asyncio.Lock()

    def misfit(self, pod_spec: Mapping[str, Any], annotations: Mapping[str, str], together: int) -> str:
        """Return why so many pods of an admitted spec can never run at once, as a phrase; empty if they can."""
        return misfit(self._loop.cluster, shape_of(pod_spec, annotations), together)

    def explain(self, namespace: str, name: str) -> Decision | None:
        """Return the last decision on a gang; None if there is no such gang.

        A placed gang is explained by its minimum, with what waits beyond it beside. One that was placed before the
        server started has no decision left; then the answer says so.
        """
        gang = self._store.read().get(PodGang, namespace, name)
        if gang is None:
            return None
        key = Key(Kind.POD_GANG, namespace, name)
        decision, placed = self._loop.decision(key), self._loop.placed_decision(key)
        if decision is not None and (decision is placed or gang.status.scheduled_at is None):
            return self._with_turn(decision, key, gang)
        level_names = self._loop.scenes.level_names(gang.topology_name)
        placed = placed or Decision(since=gang.status.scheduled_at, level_names=level_names)
        return replace(placed, surplus=decision)

    def _with_turn(self, decision: Decision, key: Key, gang: PodGang) -> Decision:
        """Return a decision with the gang's place in its queue."""
        queues = self._loop.room.queues
        queue, position = queues.name_of(gang), None
        if key in self._loop.desk.waiting:
            reader = self._store.read()
            others = (reader.get(PodGang, each.namespace, each.name) for each in self._loop.desk.waiting)
            mine = rank(gang)
            position = 1 + sum(
                other is not None and queues.name_of(other) == queue and rank(other) < mine for other in others
            )
        return replace(decision, queue=queue, priority=gang.priority, queue_position=position)

    async def explain_now(self, namespace: str, name: str) -> Decision | None:
        """Return what `explain` says as it would be now, if the cluster changed since; nothing is decided by it.

        Thought of in a thread. A gang that would fit by now says so: it is about to be asked again.
        """
        gang, decision = self._store.read().get(PodGang, namespace, name), self.explain(namespace, name)
        if gang is None or decision is None:
            return None
        surplus = decision.surplus
        if surplus is not None:
            return replace(decision, surplus=await self._asked_again(gang, surplus))
        return await self._asked_again(gang, decision)

    async def _asked_again(self, gang: PodGang, decision: Decision) -> Decision:
        """Return a verdict as it is now; other decisions as they are."""
        verdict, request = decision.outcome, decision.request
        if not isinstance(verdict, Verdict) or request is None or decision.waiting_reason:
            return decision
        now = self._clock.now()
        if verdict.generation == self._loop.cluster.generation:
            return replace(decision, evaluated_at=now)
        cluster = self._loop.cluster.fork()
        is_part = gang.status.scheduled_at is not None and bool(minimum_of(request))
        earmarks = () if is_part else tuple(self._loop.room.set_asides.earmarks)
        who = full_name(gang.metadata.namespace, gang.metadata.name)
        found = await self._think(lambda _: place_around(cluster, request, earmarks, priority=gang.priority, gang=who))
        return asked_again(decision, verdict, found, now)

    async def alternatives(self, namespace: str, name: str) -> Sequence[Alternative]:
        """Return the next best domains of a placed gang, as things are now; () for one that is in no domain."""
        gang = self._store.read().get(PodGang, namespace, name)
        placed = self._loop.placed_decision(Key(Kind.POD_GANG, namespace, name))
        if gang is None or placed is None or placed.request is None or not isinstance(placed.outcome, Placement):
            return ()
        path = _path(placed.outcome)
        if not path:
            return ()
        request, take = placed.request, self._moment()
        return await self._think(
            lambda is_abandoned: alternatives(take().without_gang(gang), request, path, is_abandoned=is_abandoned)
        )

    async def simulate(
        self,
        sets: Sequence[PodCliqueSet],
        bindings: Sequence[ClusterTopologyBinding],
        *,
        gang_count_max: int,
        classes: Sequence[PriorityClass] = (),
        queues: Sequence[Queue] = (),
        change: ClusterChange = NO_CHANGE,
    ) -> PlannedSets:
        """Return what would happen to *sets* on a copy of the cluster after *change*; sets that exist are replaced.

        UnknownNodeError, NodeInvalidError for nodes that cannot be drained or added.
        """
        count = sum(map(gang_count, sets))
        if count > gang_count_max:
            return PlannedSets(gangs=(), gang_count=count)
        levels = {**topology_levels(self._store.read()), **{each.metadata.name: each.spec.levels for each in bindings}}
        take = self._moment(levels)
        now = self._clock.now()
        question = WhatIf(
            sets=sets,
            change=change,
            classes={**priority_classes(self._store.read()), **{each.metadata.name: each for each in classes}},
            queues=queues,
            keys=_keys(_first(levels)[1]),
            now=now,
        )
        answer: WhatIfAnswer = await self._think(lambda is_abandoned: ask_what_if(take(), question, is_abandoned))
        owners = {(owner.metadata.namespace, owner.metadata.name): owner for owner in sets}
        gangs = [
            _told(self._delayed(each, owners), levels, now, is_displaced=number < answer.displaced_count)
            for number, each in enumerate(answer.answers)
        ]
        return PlannedSets(
            gangs=gangs,
            gang_count=len(gangs),
            largest=answer.largest,
            figures=answer.figures,
            pods_displaced=answer.pods_displaced,
        )

    async def draw(self, topology_name: str = "") -> ClusterView | None:
        """Return the cluster as it is, by a topology or the first by name; None if there is none of that name."""
        levels = topology_levels(self._store.read())
        if topology_name and topology_name not in levels:
            return None
        name = topology_name or _first(levels)[0]
        keys, take = _keys(levels.get(name, ())), self._moment(levels)

        def look(_: Callable[[], bool]) -> ClusterView:
            moment = take()
            return ClusterView(
                topology_name=name,
                map=map_of(moment.cluster, keys),
                figures=fragmentation(moment.cluster, keys, moment.mix()),
                largest=largest_gangs(moment.cluster, keys, [probe(count) for count in PROBE_GPU_COUNTS]),
            )

        return await self._think(look)

    async def make_room(self, request: GangRequest, *, pods_max: int = 0) -> PlannedMoves:
        """Return which gangs to move so that a waiting gang gets what it asks for."""
        take = self._moment()
        limits = ConsolidationLimits(pods_max=pods_max or MOVED_PODS_MAX)

        def plan(is_abandoned: Callable[[], bool]) -> PlannedMoves:
            moment = take()
            found = plan_consolidation(
                moment.cluster,
                moment.occupancy(with_leaving=False),
                request,
                request_of=_while_wanted(moment.request_of, is_abandoned),
                limits=limits,
            )
            return _moves(moment, found)

        return await self._think(plan)

    async def relieve(self, request: GangRequest, pods_max: int) -> Relief | Verdict:
        """Return which surplus pods to move, within their availability budgets, so that a waiting gang fits."""
        take = self._moment()
        limits = ConsolidationLimits(pods_max=pods_max)

        def plan(is_abandoned: Callable[[], bool]) -> Relief | Verdict:
            moment = take()
            return plan_relief(
                moment.cluster,
                moment.occupancy(with_leaving=False),
                request,
                request_of=_while_wanted(moment.request_of, is_abandoned),
                budgets_of=moment.budgets_of,
                limits=limits,
            )

        return await self._think(plan)

    async def clear(
        self, topology_name: str = "", level: str = "", *, domains_max: int = 0, pods_max: int = 0
    ) -> PlannedMoves | None:
        """Return which gangs to move so that whole domains of a level (or nodes) come free; None for an unknown one."""
        known = topology_levels(self._store.read())
        if topology_name and topology_name not in known:
            return None
        levels, take = known.get(topology_name or _first(known)[0], ()), self._moment(known)
        key = next((each.key for each in levels if level in {each.domain, each.key}), "")
        if level and not key:
            return None
        keys = _keys(levels) if level else (HOSTNAME,)
        limits = ConsolidationLimits(pods_max=pods_max or MOVED_PODS_MAX)

        def plan(is_abandoned: Callable[[], bool]) -> PlannedMoves:
            moment = take()
            found = plan_clearing(
                moment.cluster,
                moment.occupancy(with_leaving=False),
                keys,
                key or HOSTNAME,
                request_of=_while_wanted(moment.request_of, is_abandoned),
                domains_max=domains_max or None,
                limits=limits,
            )
            return _moves(moment, found)

        return await self._think(plan)

    # Inside.

    def _delayed(self, answer: TrialAnswer, owners: Mapping[tuple[str, str], PodCliqueSet]) -> TrialAnswer:
        """Return an answer that says so if others leave only after the preemption delay of the gang's queue."""
        if answer.eviction is None:
            return answer
        gang, queues = answer.planned.gang, self._loop.room.queues
        owner = owners.get((gang.metadata.namespace, gang.set_name))
        queue = queues.name_of(gang) if owner is None else queue_of(owner)
        delay_s = queues.preemption_delay_s(queue)
        if not delay_s:
            return answer
        text = f"they leave after the preemption delay of queue {queue}, {format_duration(delay_s)}"
        return replace(answer, eviction=replace(answer.eviction, reasons=(*answer.eviction.reasons, text)))

    def _moment(self, levels: TopologyLevels | None = None) -> Callable[[], Moment]:
        """Copy all that is there of one instant; what is returned sorts it, which is the thread's work."""
        reader = self._store.read()
        pods, gangs = list(reader.list(Pod)), list(reader.list(PodGang))
        held = self._loop.desk.holdings.snapshot()
        cluster = self._loop.cluster.fork()
        known = levels if levels is not None else topology_levels(reader)
        room = self._loop.room
        standing = Standing(
            sets=list(reader.list(PodCliqueSet)),
            cliques=list(reader.list(PodClique)),
            queues=list(reader.list(Queue)),
            leaving=frozenset(full_name(*key[1:]) for key in room.seats.leaving),
            kept=room.nominations.used(),
            places=room.nominations.places(),
            earmarks=room.set_asides.earmarks,
        )
        refused = room.precedence.waiting()
        decisions = list(self._loop.desk.waiting.items())

        def sort() -> Moment:
            running = [
                Running(pod, *holding)
                for pod in pods
                if pod.node and (holding := held.get(Key(Kind.POD, pod.metadata.namespace, pod.metadata.name)))
            ]
            pending = [pod for pod in pods if not pod.node and pod.is_active]
            ranks = {key_of(gang): rank(gang) for gang in gangs}
            waiting = [
                Waiting(full_name(*key[1:]), queue, ranks[key], request)
                for key, queue, request in refused
                if key in ranks
            ]
            why = {full_name(*key[1:]): _refused(decision) for key, decision in decisions}
            there = replace(standing, pending=pending, waiting=waiting, refused=why)
            return Moment(cluster, gangs, running, known, there)

        return sort

    async def _think(self, body: Callable[[Callable[[], bool]], T]) -> T:
        """Do *body* in a thread when it is its turn; a caller who goes away lets it end early where it asks."""
        is_abandoned = threading.Event()
        async with self._turn:
            try:
                return await asyncio.to_thread(body, is_abandoned.is_set)
            finally:
                is_abandoned.set()


def _first(levels: TopologyLevels) -> tuple[str, Sequence[TopologyLevel]]:
    """Return name and levels of the first topology by name; nothing if there is none."""
    return min(levels.items(), default=("", ()), key=lambda each: each[0])


def _keys(levels: Sequence[TopologyLevel]) -> tuple[str, ...]:
    return tuple(level.key for level in levels)


def _path(placement: Placement) -> DomainPath:
    """Return the narrowest domain that the whole gang was put in; () if there is none."""
    paths = [choice.path for choice in placement.domains if choice.kind is ScopeKind.GANG and choice.level]
    return max(paths, key=len, default=())


def _told(answer: TrialAnswer, levels: TopologyLevels, now: float, *, is_displaced: bool) -> PlannedGang:
    if answer.limit and not answer.waiting_reason:
        # There is room: what is missing is the queue's leave.
        answer = replace(answer, waiting_reason=QUEUE_LIMIT, waiting_message=f"{answer.limit}; others leave for it")
    gang = answer.planned.gang
    part = answer.telling
    level_names = {level.key: level.domain for level in levels.get(gang.topology_name, ())}
    return PlannedGang(
        namespace=gang.metadata.namespace,
        name=gang.metadata.name,
        set_name=gang.set_name,
        is_base=not gang.base_gang,
        fits=answer.fits,
        is_displaced=is_displaced,
        eviction=answer.eviction,
        surplus_count=answer.surplus_count,
        surplus_placed=answer.surplus_placed,
        decision=Decision(
            request=answer.refused if part is None else part.request,
            outcome=None if part is None or answer.waiting_reason else part.outcome,
            waiting_reason=answer.waiting_reason,
            waiting_message=answer.waiting_message,
            level_names=level_names,
            since=now,
            evaluated_at=now,
        ),
    )


def _refused(decision: Decision) -> Refused:
    """Return what a waiting gang was refused, part by part."""
    return [
        (each.request, each.outcome)
        for each in (decision, *decision.others)
        if each.request is not None and isinstance(each.outcome, Verdict)
    ]


def _while_wanted(request_of: RequestOf, is_abandoned: Callable[[], bool]) -> RequestOf:
    """Return the same, but for ending the plan when nobody waits for it any more."""

    def ask(gang: str, seats: tuple[Seat, ...]) -> GangRequest | None:
        if is_abandoned():
            raise AbandonedError
        return request_of(gang, seats)

    return ask


def _moves(moment: Moment, found: Moves | Verdict) -> PlannedMoves:
    if isinstance(found, Verdict):
        return PlannedMoves(moves=(), plan=None, verdict=found)
    moves = [each for move in found.moves for each in moment.moved(move)]
    return PlannedMoves(moves=moves, plan=found, verdict=None)
