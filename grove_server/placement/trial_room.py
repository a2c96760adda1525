"""Makes room in a what-if: who would have to leave for a gang, and the places that are kept for it meanwhile.

Rules: those of the loop. So many plans a round; the answer that nobody can make room holds for all who ask for the same
as long as nothing changes. A plan on somebody who was placed, or asked to leave, in the same round waits for the next
one. Places that are kept are taken when they are free and the gang's queue keeps within its limits.

Not here: the plans (`making_room`), who leaves when (`leaving`), decisions about gangs (`trial`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from grove_server.placement.admittance import Admittance
from grove_server.placement.cluster import ClusterError, StalePlacementError
from grove_server.placement.earmarks import Earmark
from grove_server.placement.gangs import Ask
from grove_server.placement.leaving import Leaving
from grove_server.placement.lines import Rank, rank
from grove_server.placement.making_room import (
    ASKED_AGAIN_MAX,
    PLANS_MAX,
    BudgetsOf,
    QueueBounds,
    is_open,
    nobody_leaves,
    plan_room,
)
from grove_server.placement.occupancy import Occupancy
from grove_server.placement.old_places import wanted
from grove_server.placement.planned import PlannedGang
from grove_server.placement.preemption import Preemption, PreemptionPolicy, noted, over_limits
from grove_server.placement.reclaim import amounts_of
from grove_server.placement.requests import GangRequest
from grove_server.placement.results import Placement, Verdict
from grove_server.placement.stage import Stage
from grove_server.placement.trial_answer import BudgetsAfter
from grove_server.placement.wake_ups import signature_of
from grove_server.placement.work import Work
from grove_server.resources.workload import PodGang

_PLAN_US: Final = 4_000
_SEATS_PER_US: Final = 1
"""What a plan of evictions is charged beside: at least so much, one microsecond for so many pods that run."""


class Kept(NamedTuple):
    """Places that are kept for a part of a gang, by which plan, what it was told before, and for which limits."""

    part: str
    plan: Preemption
    verdict: Verdict
    limit: str = ""


class TrialRoom:
    """Room on the copy of a cluster that a trial works on."""

    def __init__(
        self,
        stage: Stage,
        occupancy: Occupancy | None,
        queues: Admittance,
        budgets_after: BudgetsAfter,
        work: Work | None,
    ) -> None:
        self._stage = stage
        self._occupancy = occupancy
        self._queues = queues
        self._budgets_after = budgets_after
        self._work = work
        self.leaving = Leaving(stage, occupancy, queues)
        self.kept: dict[str, Kept] = {}
        self.fresh: set[str] = set()
        self.put_off: dict[str, None] = {}
        self.has_unblocked = False
        present = () if occupancy is None else sorted(occupancy.gangs.values())
        self.priorities = {occupancy.gang(row).priority for row in present} if occupancy is not None else set()
        # Whether somebody may be there whom the loop has not counted yet; it plans then, to be sure.
        self.is_stale = not queues.allowances.is_in_use
        self._plans_left = PLANS_MAX
        self._refused: dict[Hashable, tuple[int, str]] = {}
        self._askers: dict[Hashable, dict[str, Rank]] = {}
        self._asked_at = 0

    def begin_round(self) -> None:
        """Allow so many plans again."""
        self._plans_left = PLANS_MAX
        self.put_off = {}
        self.has_unblocked = False

    def take_askers(self, lacks: Callable[[str], bool]) -> list[str]:
        """Return whom to ask again, once after each change, since others may make room now who could not before.

        Of those that ask for the same the first, and a few at a time, as in the loop.
        """
        if self._asked_at == self._stage.cluster.generation:
            return []
        self._asked_at = self._stage.cluster.generation
        found = []
        for shared in list(self._askers)[:ASKED_AGAIN_MAX]:
            members = {name: place for name, place in self._askers.pop(shared).items() if lacks(name)}
            if members:
                self._askers[shared] = members
                found.append(min(members, key=lambda name: (members[name], name)))
        return found

    def take(self, planned: PlannedGang, ask: Ask) -> tuple[Kept | None, Placement | None]:
        """Return what is kept for a part, None if nothing is, and its places, now reserved, if they are free by now."""
        found = self.kept.get(planned.name)
        if found is None or found.part != ask.request.name:
            return None, None
        if self._queues.limit_on_arrival(planned.gang, ask.request):
            return found, None
        with contextlib.suppress(StalePlacementError):
            part = self._stage.cluster.keep(planned.name)
            self._stage.peers.keep_no_more(planned.name)
            del self.kept[planned.name]
            self._count_kept(planned, part, -1)
            return found, wanted(ask, part)
        return found, None

    def make(
        self, planned: PlannedGang, ask: Ask, verdict: Verdict, earmarks: Sequence[Earmark]
    ) -> Preemption | Verdict:
        """Plan who would have to go for a part that does not fit, and keep its places; the verdict if nobody can."""
        occupancy, gang, queues = self._occupancy, planned.gang, self._queues
        if occupancy is None or planned.name in self.kept:
            return verdict
        if len(self.priorities) <= 1 and not queues.allowances.is_in_use:
            return verdict
        if not self._may_evict(occupancy, gang, ask.request):
            return nobody_leaves(verdict, gang, queues.queue_of(gang), queues.allowances.tree)
        shared = (signature_of(ask.request), gang.priority, gang.preemption_policy, queues.queue_of(gang))
        refused = self._refused.get(shared)
        if refused is not None and refused[0] == self._stage.cluster.generation:
            self._askers.setdefault(shared, {})[planned.name] = rank(gang)
            return noted(verdict, refused[1]) if refused[1] else verdict
        if self._plans_left <= 0:
            self.put_off[planned.name] = None
            return verdict
        self._plans_left -= 1
        self.is_stale = False
        if self._work is not None:
            self._work.spend(_PLAN_US + len(occupancy.pods) // _SEATS_PER_US)
        found, _ = plan_room(
            self._stage.cluster,
            occupancy,
            ask.request,
            gang=gang,
            queue=queues.queue_of(gang),
            bounds=QueueBounds(
                queues.allowances.tree, queues.used, queues.fair, queues.held(gang, amounts_of(ask.request), earmarks)
            ),
            budgets_of=self._budgets(),
        )
        if isinstance(found, Preemption) and not is_open(
            self._stage.cluster, found, earmarks, planned.name, gang.priority
        ):
            found = noted(verdict, "evictions would make room only where nodes are set aside for another gang")
        if isinstance(found, Verdict):
            added = found.detail.removeprefix(verdict.detail).removeprefix("; ")
            self._refused[shared] = (self._stage.cluster.generation, added)
            self._askers.setdefault(shared, {})[planned.name] = rank(gang)
            return found
        if not self.fresh.isdisjoint(found.pods) or self.leaving.is_being_told(found):
            # A place of theirs is on its way to the disk; they can be told once it is there.
            self.put_off[planned.name] = None
            return verdict
        return found if self._promise(planned, ask, Kept(ask.request.name, found, verdict)) else verdict

    def make_within(self, planned: PlannedGang, ask: Ask, earmarks: Sequence[Earmark]) -> Kept | str:
        """Let others leave so that a gang's minimum keeps within a limit; or return why nobody does."""
        self._queues.wait(planned.gang, planned.name, ask.request)
        if planned.name in self.kept:
            return ""
        verdict = over_limits(self._stage.cluster, ask.request)
        found = self.make(planned, ask, verdict, earmarks)
        return Kept(ask.request.name, found, verdict) if isinstance(found, Preemption) else found.detail

    def _budgets(self) -> BudgetsOf:
        return lambda name: self._budgets_after(name, self.leaving.told_or_asked)

    def _promise(self, planned: PlannedGang, ask: Ask, kept: Kept) -> bool:
        """Keep places for a gang; False if they cannot be promised."""
        plan = kept.plan
        try:
            self._stage.cluster.promise(replace(plan.placement, gang=planned.name))
        except ClusterError:
            return False
        self.kept[planned.name] = kept
        places = ((clique.name, each.node) for clique in plan.placement.cliques for each in clique.bindings)
        self._stage.peers.keep(planned.name, ((ask.pods[name][0], node) for name, node in places))
        self._count_kept(planned, plan.placement, 1)
        self.leaving.take(plan)
        self.has_unblocked |= self._queues.wait_no_more(planned.name)
        return True

    def _count_kept(self, planned: PlannedGang, placement: Placement, sign: int) -> None:
        """Count what is kept for a gang; when it takes that, it is used all the same."""
        queue = self._queues.queue_of(planned.gang)
        for clique in placement.cliques:
            self._queues.keep(queue, clique.shape, sign * len(clique.bindings))
            if sign < 0:
                self._queues.take(queue, clique.shape, len(clique.bindings))

    def _may_evict(self, occupancy: Occupancy, gang: PodGang, request: GangRequest) -> bool:
        """Return whether anybody is there who might have to give way; cheap, since most gangs have nobody."""
        if gang.preemption_policy != PreemptionPolicy.NEVER and bool(
            self.is_stale
            or (occupancy.is_present & occupancy.is_preemptible & (occupancy.priority < gang.priority)).any()
        ):
            return True
        queue, tree = self._queues.queue_of(gang), self._queues.allowances.tree
        return (
            self._queues.allowances.has_several
            and queue in tree.numbers
            and tree.is_within_guarantee(queue, amounts_of(request), self._queues.used())
        )
