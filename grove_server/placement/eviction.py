"""Which units have to go so that a request fits: few, cheap, and none too many.

Rules: the request is decided by `place` itself, on a copy of the cluster from which pods are gone; so whatever it can
do (levels, selectors, GPU ids), evictions can do. First the cheapest tier is found up to which everything would have to
go (binary search: what fits without few pods fits without more). Where the gang requires a level, the domains in which
least would have to go are tried by themselves. Then units of that tier are spared, half of them at a time, the longest
running first, as long as it costs no more (delta debugging, Zeller 1999). Of every plan all units that need not go are
given back (`reprieve`): that is what makes every eviction count. Rules between pods are asked as they are without those
that would go (`outsiders`); pods that the request has to be near go only if nothing else makes room. Steps are bounded;
fewer steps make a dearer plan, never a wrong one.

Not here: who may ask for whose eviction (`preemption`, `reclaim`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from grove_server.placement.cluster import Cluster
from grove_server.placement.excess import Excess, Freeing
from grove_server.placement.ledger import GPU_ROW, PODS_ROW
from grove_server.placement.occupancy import Occupancy
from grove_server.placement.outsiders import Outsiders, Returns
from grove_server.placement.place import place
from grove_server.placement.reprieve import laid_out, need_of, needed_units
from grove_server.placement.requests import (
    GPU_RESOURCE,
    Budget,
    CliqueRequest,
    DomainPath,
    GangRequest,
    GroupRequest,
    minimum_of,
)
from grove_server.placement.results import Placement, PodBinding, Verdict
from grove_server.placement.topology import BoolArray, IntArray
from grove_server.placement.units import LEAVING_TIER, WHOLE_TIER, Units
from grove_server.placement.vacating import Vacating

GENERATION_UNBOUND: Final = -1
"""The generation of a placement that holds only after evictions: `Cluster.reserve` always checks it."""

_FEW_UNITS: Final = 64
_YOUNGER_MAX: Final = 3
"""Tries to find younger victims among more units than a few."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvictionLimits:
    """Bounds of one plan: pods that may go, alternatives tried to make it cheaper, domains tried by themselves.

    `excess`: what has to come free of queues' limits as well.
    """

    pods_max: int = 30_000
    alternatives_max: int = 16
    domains_max: int = 4
    excess: Excess | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Disruption:
    """What evictions cost: gangs that end, the highest priority among them, surplus pods and pods in all.

    `oldest_s`: when the longest running gang that ends was started; 0.0 if none ends.
    """

    gangs_broken: int = 0
    priority_highest: int | None = None
    surplus_pods: int = 0
    pods: int = 0
    oldest_s: float = 0.0

    @property
    def order(self) -> tuple[bool, int, int, int, float]:
        """Return the sort key: surplus before gangs, low priorities, few gangs, few pods, young gangs."""
        highest = -(2**31) - 1 if self.priority_highest is None else self.priority_highest
        return self.gangs_broken > 0, highest, self.gangs_broken, self.pods, -self.oldest_s


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Eviction:
    """A set of units, the places that are free once they are gone, and the price."""

    units: BoolArray
    placement: Placement
    cost: Disruption


class EvictionSearch:
    """One question: which of some units have to go so that a request fits."""

    def __init__(
        self, cluster: Cluster, units: Units, request: GangRequest, limits: EvictionLimits, budget: Budget
    ) -> None:
        self.cluster = cluster
        self.units = units
        self.occupancy: Occupancy = units.occupancy
        self.request = request
        self.limits = limits
        self.budget = budget
        self.refusal: Verdict | None = None
        self.vacating = Vacating(cluster, self.occupancy, units.pods)
        self._unit_of = units.unit_of[self.vacating.order]
        self.outsiders = Outsiders(request, self.occupancy, self.vacating)
        self.freeing = None if limits.excess is None else Freeing(units, limits.excess)

    def run(self, allowed: BoolArray) -> Eviction | None:
        """Return the cheapest plan found among allowed units (closed under what they take along); None if none fits.

        `refusal` then says what is missing even without all of them.
        """
        widest, allowed = self._widest(allowed)
        if widest is None:
            return None
        if self.freeing is not None:
            # Where there is room, nobody has to go but for the limit.
            enough = self.freeing.completed(self.units.none(), allowed)
            widest = self._cheaper(widest, self._attempt(enough, self.request))
        tier, found = self._cheapest_tier(allowed, widest)
        up_to = allowed & (self.units.tier <= tier)
        for request in self._by_domain(up_to):
            found = self._cheaper(found, self._attempt(up_to, request))
        found = self._spare(found, up_to, tier)
        return self._bound(found)

    def _widest(self, allowed: BoolArray) -> tuple[Eviction | None, BoolArray]:
        """Return a plan that may use all allowed units, and which these are: those to be near stay if that will do."""
        anchors = self.outsiders.anchors()
        if anchors.any():
            stays = self.units.none()
            stays[self._unit_of[anchors]] = True
            others = self.units.without_takers(allowed & ~stays)
            found = self._attempt(others, self.request)
            if found is not None:
                return found, others
        return self._attempt(allowed, self.request), allowed

    # -- tiers and domains -----------------------------------------------------------------------------------------

    def _cheapest_tier(self, allowed: BoolArray, widest: Eviction) -> tuple[int, Eviction]:
        """Return the lowest tier up to which enough can go, and the plan of it."""
        tiers = np.unique(self.units.tier[allowed & self.units.is_evictable]).tolist()
        if not tiers:
            return -1, widest
        low, high, found = 0, len(tiers) - 1, widest
        while low < high:
            middle = (low + high) // 2
            attempt = self._attempt(allowed & (self.units.tier <= tiers[middle]), self.request)
            if attempt is None:
                low = middle + 1
            else:
                high, found = middle, attempt
        return tiers[high], found

    def _by_domain(self, up_to: BoolArray) -> Iterator[GangRequest]:
        """Yield the request bound to single domains of its required level, those first that are nearest to fitting.

        Nearest is where most GPUs (without any wanted: room for most pods) are free already.
        """
        request = self.request
        if request.required is None or request.required not in request.topology or self.limits.domains_max <= 1:
            return
        layout = self.cluster.layout(request.topology)
        level = layout.levels[request.topology.index(request.required) + 1]
        free = np.maximum(self.cluster.ledger.free[: GPU_ROW + 1], 0)
        after = free.copy()
        chosen = up_to[self._unit_of]
        for total, amounts in zip(after, self.vacating.amounts, strict=False):
            np.add.at(total, self.vacating.slots[chosen], amounts[chosen])
        need = gpus_of(request)
        row = GPU_ROW if need else PODS_ROW
        sums = np.array([np.add.reduceat(each[row][layout.slots], level.starts[:-1]) for each in (free, after)])
        domains = np.flatnonzero(level.is_named & (sums[1] > sums[0]) & (sums[1] >= (need or minimum_of(request))))
        best = domains[np.argsort(-sums[0][domains], kind="stable")]
        for domain in best[: self.limits.domains_max].tolist():
            path: DomainPath = layout.path_of(request.topology.index(request.required) + 1, domain)
            yield replace(request, within=tuple(dict.fromkeys((*request.within, *path))))

    # -- alternatives ------------------------------------------------------------------------------------------------

    def _spare(self, found: Eviction, allowed: BoolArray, tier: int) -> Eviction:
        """Return a plan that is no dearer, with as many units of the dearest tier spared as can be told in time."""
        units = self.units
        dear = np.flatnonzero(allowed & units.is_evictable & (units.tier == tier))
        left = self._alternatives(found, dear, tier)
        if not left or len(dear) <= 1:
            return found
        candidates = units.dearest_first(dear)
        at, size = 0, len(candidates) // 2
        while left and size:
            left -= 1
            fewer = allowed.copy()
            fewer[candidates[at : at + size]] = False
            fewer = units.without_takers(fewer)
            attempt = self._attempt(fewer, self.request)
            if attempt is not None and attempt.cost.order <= found.cost.order:
                found, allowed = attempt, fewer
                candidates = candidates[allowed[candidates]]
                size = min(size, max(1, len(candidates) // 2))
            else:
                at += size
            if at >= len(candidates):
                at, size = 0, size // 2
        return found

    def _alternatives(self, found: Eviction, dear: IntArray, tier: int) -> int:
        """Return how many alternatives are worth trying.

        If not even the largest units of the tier would do in a smaller number, only younger ones are to be had, and
        among many that is worth a few tries; among equally old ones it is worth none.
        """
        sizes = np.zeros(self.units.count, dtype=np.int64)
        np.add.at(sizes, self._unit_of, self.vacating.amounts[GPU_ROW])
        largest = np.sort(sizes[dear])[::-1].cumsum()
        count = int(np.count_nonzero(found.units[dear]))
        short = self._gpus_short(found)
        fewest = int(np.searchsorted(largest, short)) + 1 if short else 1
        if count > fewest:
            return self.limits.alternatives_max
        if tier < WHOLE_TIER or len(np.unique(self.occupancy.started_at_s[dear])) <= 1:
            return 0
        return (
            self.limits.alternatives_max if len(dear) <= _FEW_UNITS else min(_YOUNGER_MAX, self.limits.alternatives_max)
        )

    def _gpus_short(self, found: Eviction) -> int:
        """Return the GPUs that the placement needs beyond those free on its nodes now."""
        need, slots = need_of(self.cluster, found.placement)
        return int(np.maximum(need[GPU_ROW] - np.maximum(self.cluster.ledger.free[GPU_ROW, slots], 0), 0).sum())

    @staticmethod
    def _cheaper(one: Eviction, other: Eviction | None) -> Eviction:
        return other if other is not None and other.cost.order < one.cost.order else one

    # -- one attempt -------------------------------------------------------------------------------------------------

    def _attempt(self, allowed: BoolArray, request: GangRequest) -> Eviction | None:
        """Return the plan with the places that `place` chooses if all allowed units were gone."""
        if self.freeing is not None and not self.freeing.covers(allowed):
            return None
        going = allowed[self._unit_of]
        cluster = self.vacating.cluster_without(going)
        result = place(cluster, self.outsiders.without(request, going), budget=self.budget)
        if isinstance(result, Verdict):
            self.refusal = result
            return None
        returns = Returns(self.outsiders, cluster, result, going) if self.outsiders else None
        units = needed_units(cluster, self.units, self.vacating, result, allowed, returns)
        if self.freeing is not None:
            units = self.freeing.completed(units, allowed)
        return Eviction(units=units, placement=result, cost=self.cost(units))

    def request_without(self, units: BoolArray) -> GangRequest:
        """Return the request as its rules are once some units are gone."""
        return self.outsiders.without(self.request, self.going(units))

    def going(self, units: BoolArray) -> BoolArray:
        """Return which pods of `vacating` go with some units."""
        return units[self._unit_of]

    def cost(self, units: BoolArray) -> Disruption:
        """Return what it costs to evict some units (closed under what they take along); who leaves already is free."""
        going = units[self.units.unit_of] & (self.units.tier[self.units.unit_of] > LEAVING_TIER)
        mine = self.units.unit_of[going]
        gangs = np.unique(mine[mine < self.units.gang_count])
        broken = np.isin(self.occupancy.pod_gang[self.units.pods[going]], gangs)
        return Disruption(
            gangs_broken=len(gangs),
            priority_highest=int(self.occupancy.priority[gangs].max()) if len(gangs) else None,
            surplus_pods=int(np.count_nonzero(~broken)),
            pods=len(mine),
            oldest_s=float(self.occupancy.started_at_s[gangs].min()) if len(gangs) else 0.0,
        )

    def _bound(self, found: Eviction) -> Eviction:
        """Return the plan with GPU ids that are free once exactly its units are gone."""
        cluster = self.vacating.cluster_without(found.units[self._unit_of])
        cliques = found.placement.cliques
        by_node: dict[str, list[tuple[int, int]]] = {}
        for at, clique in enumerate(cliques):
            for rank, binding in enumerate(clique.bindings):
                by_node.setdefault(binding.node, []).append((at, rank))
        bindings = [list(clique.bindings) for clique in cliques]
        for node, pods in by_node.items():
            given = laid_out(cluster, node, [cliques[at].shape for at, _ in pods])
            for (at, rank), gpu_ids in zip(pods, given or (), strict=False):  # None: those of the search stay right.
                bindings[at][rank] = PodBinding(node, gpu_ids)
        bound = tuple(replace(clique, bindings=tuple(mine)) for clique, mine in zip(cliques, bindings, strict=True))
        return replace(found, placement=replace(found.placement, cliques=bound, generation=GENERATION_UNBOUND))


def gpus_of(request: GangRequest | GroupRequest | CliqueRequest) -> int:
    """Return the whole GPUs of a request's minimums."""
    if isinstance(request, CliqueRequest):
        return request.minimum * request.shape.amount(GPU_RESOURCE)
    return sum(gpus_of(member) for member in request.members)
