"""Consolidation: moving what runs so that a gang fits which has room enough, but in the wrong pieces.

Rules: a plan is a list of moves, each with its new places, and holds as a whole: every pod that is moved has its place
at the end, checked on a copy of the cluster with all moves made. Whole gangs move, or surplus pods one by one, so no
gang ever lacks a place for its minimum. What a moved gang has to keep (levels, domains) is in the request that the
caller makes for it; a gang for which it makes none, or that may not be preempted, does not move. Benefit and disruption
are told side by side; the caller decides whether it is worth it, and how fast to go.
Source: KAI's consolidation action, which moves only what fits elsewhere.

Not here: emptying whole domains (`clearing`), carrying the moves out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from grove_server.placement.cluster import Cluster
from grove_server.placement.eviction import Disruption, EvictionLimits
from grove_server.placement.occupancy import Occupancy, Seat
from grove_server.placement.place import DEFAULT_BUDGET, place
from grove_server.placement.preemption import (
    Displacement,
    Preemption,
    VictimKind,
    noted,
    without_optional,
)
from grove_server.placement.requests import GPU_RESOURCE, PODS_MAX, Budget, GangRequest
from grove_server.placement.results import Placement, Verdict
from grove_server.placement.steps import finished
from grove_server.resources.gpu_annotations import GPU_MILLI

RequestOf: TypeAlias = Callable[[str, tuple[Seat, ...]], GangRequest | None]
"""Returns what to ask for when some pods of a gang (all of it, or surplus) have to move; None if they may not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsolidationLimits:
    """The disruption budget of one plan: pods and gangs that may move, and plans that may be tried."""

    pods_max: int = 1_000
    gangs_max: int = 100
    tries_max: int = 8


DEFAULT_LIMITS: Final = ConsolidationLimits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """Pods of one gang (all of it, or surplus) that go to new places, in the order of the placement's bindings."""

    gang: str
    kind: VictimKind
    pods: tuple[str, ...]
    placement: Placement


@dataclass(frozen=True, slots=True, kw_only=True)
class Moves:
    """A plan. `target`: the places of the gang it is made for, free after the moves; None for one that frees domains.

    `freed`: paths' last values of the domains that are empty afterwards and were not before; `pods_placed` of the
    target. What it costs: pods and gangs moved, the highest priority among them in `cost`.
    """

    moves: tuple[Move, ...]
    target: Placement | None
    freed: tuple[str, ...]
    pods_placed: int
    cost: Disruption

    def sentence(self) -> str:
        """Return benefit and disruption as one sentence."""
        pods = sum(len(move.pods) for move in self.moves)
        gain = f"{self.pods_placed} pods get their places" if self.target else f"{len(self.freed)} domains come free"
        return f"{gain} if {pods} pods of {len({move.gang for move in self.moves})} gangs move"


def plan_consolidation(
    cluster: Cluster,
    occupancy: Occupancy,
    target: GangRequest,
    *,
    request_of: RequestOf,
    limits: ConsolidationLimits = DEFAULT_LIMITS,
    budget: Budget = DEFAULT_BUDGET,
) -> Moves | Verdict:
    """Return which gangs to move, and where to, so that a gang finds its places; or why no moves help.

    The cheapest that make room are tried first; what has no place elsewhere stays where it is in the next try.
    """
    target = without_optional(target)
    verdict = place(cluster, target, budget=budget)
    if isinstance(verdict, Placement):
        return Moves(moves=(), target=verdict, freed=(), pods_placed=verdict.pod_count, cost=Disruption())
    may_go = occupancy.is_present & occupancy.is_preemptible
    bounds = EvictionLimits(pods_max=limits.pods_max)
    for _ in range(limits.tries_max):
        displacement = Displacement(cluster, occupancy, target, bounds, budget)
        plan = finished(displacement.run(may_go, verdict, "of gangs that could move"))
        if isinstance(plan, Verdict):
            return plan
        if len(plan.victims) > limits.gangs_max:
            return noted(verdict, f"{len(plan.victims)} gangs would have to move, {limits.gangs_max} may")
        after = _without(cluster, occupancy, plan.pods)
        after.reserve(plan.placement)
        moves, stuck = _placed_elsewhere(after, occupancy, plan, request_of, budget)
        if stuck is None:
            return Moves(
                moves=tuple(moves),
                target=plan.placement,
                freed=(),
                pods_placed=plan.placement.pod_count,
                cost=plan.cost,
            )
        may_go = may_go.copy()
        may_go[occupancy.gangs[stuck]] = False
    return noted(verdict, f"in {limits.tries_max} tries no gangs were found that fit elsewhere")


def _placed_elsewhere(
    after: Cluster, occupancy: Occupancy, plan: Preemption, request_of: RequestOf, budget: Budget
) -> tuple[list[Move], str | None]:
    """Return (moves of all that makes room, the gang that has no place elsewhere); the largest are placed first."""
    units = [(victim, tuple(occupancy.seat(occupancy.pods[pod]) for pod in victim.pods)) for victim in plan.victims]
    moves = []
    for victim, seats in sorted(units, key=lambda unit: (-size_of(unit[1]), unit[0].gang)):
        move = moved_pods(after, victim.gang, victim.kind, seats, request_of, budget)
        if move is None:
            return [], victim.gang
        moves.append(move)
    return sorted(moves, key=lambda move: move.gang), None


def moved_pods(
    cluster: Cluster, gang: str, kind: VictimKind, seats: tuple[Seat, ...], request_of: RequestOf, budget: Budget
) -> Move | None:
    """Place and reserve pods that have to move; None if they have no place or may not move."""
    request = request_of(gang, seats)
    if request is None:
        return None
    result = place(cluster, request, budget=budget)
    if isinstance(result, Verdict) or result.pod_count < len(seats):
        return None
    cluster.reserve(result)
    placement = replace(result, generation=-1)
    return Move(gang=gang, kind=kind, pods=tuple(seat.pod for seat in seats), placement=placement)


def _without(cluster: Cluster, occupancy: Occupancy, pods: Sequence[str]) -> Cluster:
    after = cluster.fork()
    for pod in pods:
        seat = occupancy.seat(occupancy.pods[pod])
        after.release_pod(seat.node, seat.shape, seat.gpu_ids)
    return after


def size_of(seats: Sequence[Seat]) -> int:
    """Return what decides who is placed first: milli of GPUs, then pods."""
    milli = sum(GPU_MILLI * seat.shape.amount(GPU_RESOURCE) + seat.shape.gpu_milli for seat in seats)
    return milli * PODS_MAX + len(seats)
