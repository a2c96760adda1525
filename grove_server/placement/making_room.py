"""Who would have to go for a gang without room, by priority and by queue: one question, asked by the loop and what-ifs.

Rules: a gang takes from lower priorities of its own queue, then takes back from queues that use more than their due.
A surplus pod goes within the availability budget of its clique, unless that would end a whole gang instead: a budget is
there to keep something serving. Budgets are looked up only for gangs that a plan asks something of. Where limits are
exceeded others leave for these as well, even if there is room. No place of a plan lies where nodes are set aside for
another gang.

Not here: the plans themselves (`preemption`, `reclaim`), whether to ask at all, carrying a plan out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final, NamedTuple, TypeAlias

from grove_server.placement.cluster import Cluster
from grove_server.placement.earmarks import Earmark, closed_slots
from grove_server.placement.excess import excess_of
from grove_server.placement.gang_facts import Spare, is_leaving
from grove_server.placement.occupancy import Occupancy
from grove_server.placement.preemption import (
    DEFAULT_LIMITS,
    Preemption,
    PreemptionPolicy,
    VictimKind,
    noted,
    preemption_steps,
)
from grove_server.placement.queues import NOTHING, QueueTree
from grove_server.placement.reclaim import QueueShares, amounts_of, reclaim_steps
from grove_server.placement.requests import GangRequest
from grove_server.placement.results import Verdict
from grove_server.placement.steps import Steps, finished
from grove_server.resources.workload import PodGang

Due: TypeAlias = Callable[[], Mapping[str, Mapping[str, float]]]
"""Returns what is fair for each queue now, by queue and resource."""

UsedNow: TypeAlias = Callable[[], Mapping[str, Mapping[str, int]]]
"""Returns what each queue has now, by resource; places that are kept for its gangs and pods that leave count."""

BudgetsOf: TypeAlias = Callable[[str], Spare]
"""Returns what of the surplus of a gang, by its full name, may be taken now."""

PLANS_MAX: Final = 16
"""Most plans of evictions in one round; who comes later is asked about in the next one."""

ASKED_AGAIN_MAX: Final = 4
"""Most gangs that are asked about again at a time because something changed, whatever it was."""

_BUDGET_ROUNDS_MAX: Final = 4


class QueueBounds(NamedTuple):
    """The queues, what each has, what is fair for each, and what is held under limits for other gangs."""

    tree: QueueTree
    used: UsedNow
    due: Due
    held: Mapping[str, Mapping[str, int]] = NOTHING


class RoomPlan(NamedTuple):
    """Who goes, or the verdict with why nobody does; `is_taken_back`: from queues that use more than their due."""

    found: Preemption | Verdict
    is_taken_back: bool


def plan_room(
    cluster: Cluster,
    occupancy: Occupancy,
    request: GangRequest,
    *,
    gang: PodGang,
    queue: str,
    bounds: QueueBounds,
    budgets_of: BudgetsOf,
) -> RoomPlan:
    """Return what `room_steps` comes to, now."""
    return finished(
        room_steps(cluster, occupancy, request, gang=gang, queue=queue, bounds=bounds, budgets_of=budgets_of)
    )


def room_steps(
    cluster: Cluster,
    occupancy: Occupancy,
    request: GangRequest,
    *,
    gang: PodGang,
    queue: str,
    bounds: QueueBounds,
    budgets_of: BudgetsOf,
) -> Steps[RoomPlan]:
    """Return who would have to go. Budgets that are looked up stay in the occupancy."""
    several = len(bounds.tree.specs) > 1
    excess = excess_of(bounds.tree, queue, amounts_of(request), bounds.used(), bounds.held)
    limits = DEFAULT_LIMITS if excess is None else replace(DEFAULT_LIMITS, excess=excess)
    policy = PreemptionPolicy(gang.preemption_policy)

    def preempt() -> Steps[Preemption | Verdict]:
        own = queue if several else None
        return preemption_steps(
            cluster, occupancy, request, priority=gang.priority, policy=policy, queue=own, limits=limits
        )

    def reclaim() -> Steps[Preemption | Verdict]:
        shares = QueueShares(bounds.used(), bounds.due())
        return reclaim_steps(cluster, occupancy, request, queue=queue, tree=bounds.tree, shares=shares, limits=limits)

    found = yield from _within_budgets(occupancy, budgets_of, preempt)
    if isinstance(found, Preemption) or not several:
        return RoomPlan(found, is_taken_back=False)
    taken_back = yield from _within_budgets(occupancy, budgets_of, reclaim)
    if isinstance(taken_back, Preemption):
        return RoomPlan(taken_back, is_taken_back=True)
    return RoomPlan(noted(found, taken_back.detail.rpartition("; ")[2]), is_taken_back=False)


def nobody_leaves(verdict: Verdict, gang: PodGang, queue: str, tree: QueueTree) -> Verdict:
    """Return the verdict on a gang for which nobody can be asked to leave, with why."""
    if gang.preemption_policy == PreemptionPolicy.NEVER:
        verdict = noted(verdict, "its priority class never preempts")
    if queue in tree.numbers and any(tree.guarantee[:, tree.numbers[queue]]):
        verdict = noted(
            verdict, f"with it queue {queue} would use more than it is guaranteed, so it takes nothing back"
        )
    return verdict


def is_open(cluster: Cluster, plan: Preemption, earmarks: Sequence[Earmark], gang: str, priority: int) -> bool:
    """Return whether no place of a plan is set aside for another gang."""
    if not earmarks:
        return True
    closed = closed_slots(cluster, earmarks, gang, priority)
    nodes = {node for clique in plan.placement.cliques for node, _ in clique.bindings}
    return not closed[cluster.slots_at(sorted(nodes))].any()


def _within_budgets(
    occupancy: Occupancy, budgets_of: BudgetsOf, ask: Callable[[], Steps[Preemption | Verdict]]
) -> Steps[Preemption | Verdict]:
    """Return the plan that keeps within availability budgets, unless keeping to them would end more gangs."""
    free = found = yield from ask()
    known: set[str] = set()
    for _ in range(_BUDGET_ROUNDS_MAX):
        if isinstance(found, Verdict):
            break
        asked = {v.gang for v in found.victims if v.kind is VictimKind.SURPLUS and not is_leaving(v.gang)}
        if asked <= known:
            break
        known |= asked
        if not _set_budgets(occupancy, budgets_of, sorted(asked)):
            break
        found = yield from ask()
    if isinstance(free, Preemption) and (
        isinstance(found, Verdict) or found.cost.gangs_broken > free.cost.gangs_broken
    ):
        return free
    return found


def _set_budgets(occupancy: Occupancy, budgets_of: BudgetsOf, gangs: Sequence[str]) -> bool:
    """Tell the occupancy how many surplus pods each clique of some gangs can spare; return whether that is new."""
    is_new = False
    for name in gangs:
        facts = occupancy.gang(occupancy.gangs[name])
        budgets = budgets_of(name)
        if budgets != (facts.evictable_surplus, facts.idle_surplus):
            occupancy.set_gang(replace(facts, evictable_surplus=budgets.counts, idle_surplus=budgets.idle))
            is_new = True
    return is_new
