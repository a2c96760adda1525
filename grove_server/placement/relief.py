"""Moves of surplus pods that let a waiting gang in: what consolidation may do by itself, without anybody asking.

Rules: as in consolidation, every pod that moves has its place elsewhere, and the gang its own, checked with all moves
made. But only pods beyond minimums move, each clique's within its availability budget, so no gang ever runs with less
than its minimum, and cliques without a budget of their own (those of groups) do not move at all. The plan has the form
of a preemption, so that it is carried out like one: the places are promised first, the pods drain, and only then does
the gang take them.

Not here: plans that move whole gangs (`consolidation`), when it is worth it (control).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from grove_server.placement.cluster import Cluster, ClusterError
from grove_server.placement.consolidation import ConsolidationLimits, Moves, RequestOf, plan_consolidation
from grove_server.placement.making_room import BudgetsOf
from grove_server.placement.occupancy import Occupancy, Seat
from grove_server.placement.outsiders import without_gone
from grove_server.placement.preemption import Preemption, Victim, VictimKind, without_optional
from grove_server.placement.requests import Counting, GangRequest, nobody_counted
from grove_server.placement.results import Verdict
from grove_server.placement.violations import violations


@dataclass(frozen=True, slots=True, kw_only=True)
class Relief:
    """A plan for one gang, and the seats that come free by it."""

    request: GangRequest
    plan: Preemption
    seats: tuple[Seat, ...]

    def still_holds(self, cluster: Cluster, counting: Counting = nobody_counted) -> bool:
        """Return whether the gang would have its places on the present state once the pods are gone.

        `counting` tells whom rules between pods count now.
        """
        moving = {seat.pod for seat in self.seats}
        request = without_gone(without_optional(self.request), counting, moving.__contains__)
        after = cluster.fork()
        try:
            for seat in self.seats:
                after.release_pod(seat.node, seat.shape, seat.gpu_ids)
            return not violations(after, request, self.plan.placement)
        except ClusterError:
            return False


def plan_relief(
    cluster: Cluster,
    occupancy: Occupancy,
    request: GangRequest,
    *,
    request_of: RequestOf,
    budgets_of: BudgetsOf,
    limits: ConsolidationLimits,
) -> Relief | Verdict:
    """Return which surplus pods to move so that a gang finds its places; the verdict if none help.

    `budgets_of`: by clique of a gang how many of its pods may be missing now; none of a clique that is not named.
    """
    movable = _surplus_alone(occupancy, budgets_of)
    found = plan_consolidation(cluster, movable, request, request_of=request_of, limits=limits)
    if isinstance(found, Verdict):
        return found
    assert found.target is not None, "a plan for a gang has its places"
    seats = tuple(movable.seat(movable.pods[pod]) for move in found.moves for pod in move.pods)
    plan = Preemption(
        gang=request.name,
        victims=tuple(_victims(found, movable)),
        placement=found.target,
        cost=found.cost,
        reasons=(f"{len(seats)} surplus pods move so that it fits",) if seats else (),
    )
    return Relief(request=request, plan=plan, seats=seats)


def _victims(found: Moves, movable: Occupancy) -> list[Victim]:
    victims = []
    for move in found.moves:
        facts = movable.gang(movable.gangs[move.gang])
        victims.append(
            Victim(kind=VictimKind.SURPLUS, gang=move.gang, queue=facts.queue, priority=facts.priority, pods=move.pods)
        )
    return victims


def _surplus_alone(occupancy: Occupancy, budgets_of: BudgetsOf) -> Occupancy:
    """Return an occupancy of the pods that may move: nothing of a minimum is in it."""
    movable = Occupancy(occupancy.counting)
    surplus = occupancy.is_surplus
    for name in sorted(occupancy.gangs):
        gang = occupancy.gangs[name]
        if not occupancy.is_preemptible[gang]:
            continue
        left = dict(budgets_of(name))
        seats = []
        # The highest index goes first, as in scaling in.
        for row in reversed(occupancy.pods_of(gang)):
            seat = occupancy.seat(row)
            if surplus[row] and left.get(seat.clique, 0) > 0:
                left[seat.clique] -= 1
                seats.append(seat)
        if seats:
            movable.set_gang(replace(occupancy.gang(gang), minimums=(), base_gang="", evictable_surplus=()))
            movable.add_pods(seats)
    return movable
