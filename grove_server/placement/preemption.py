"""Preemption: places for a gang that has none, at the expense of gangs of lower priority.

Rules: victims have a strictly lower priority, may be preempted at all, and are surplus pods before whole gangs; no gang
is left alive below its minimum; what a clique's availability budget does not allow to go by itself goes with its whole
gang or not at all. Only minimums preempt: pods that a gang can do without are not worth another's. A plan says which
pods go and where the gang will be; the caller evicts, keeps the places by a promise (`Cluster.promise`), and binds once
they are free. Nothing is evicted for nothing: without any one of the victims the places would not be free.
Sources: Kubernetes' PriorityClass and preemptionPolicy; Volcano's `gangpreempt` for bundles; kube-scheduler's reprieve.

Not here: victims of other queues (`reclaim`), the search itself (`eviction`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

import numpy as np

from grove_server.placement.cluster import Cluster
from grove_server.placement.eviction import Disruption, Eviction, EvictionLimits, EvictionSearch
from grove_server.placement.gang_facts import is_leaving
from grove_server.placement.occupancy import Occupancy
from grove_server.placement.place import DEFAULT_BUDGET, place
from grove_server.placement.requests import (
    Budget,
    CliqueRequest,
    GangRequest,
    GroupRequest,
    InvalidRequestError,
    minimum_of,
)
from grove_server.placement.results import Placement, ScopeKind, Verdict, VerdictCode
from grove_server.placement.topology import BoolArray
from grove_server.placement.units import Units
from grove_server.placement.violations import violations

DEFAULT_LIMITS: Final = EvictionLimits()

NAMES_SHOWN: Final = 10
"""Most gangs and pods that a plan's sentence names."""

_ROUNDS_MAX: Final = 8
"""Times a plan is made again because it asked too much of an availability budget or of a queue."""


class PreemptionPolicy(StrEnum):
    """Of a PriorityClass: whether its gangs may preempt at all."""

    LOWER_PRIORITY = "PreemptLowerPriority"
    NEVER = "Never"


class VictimKind(StrEnum):
    """What is evicted: single pods above their clique's minimum, or all of a gang."""

    SURPLUS = "Surplus"
    GANG = "Gang"


@dataclass(frozen=True, slots=True, kw_only=True)
class Victim:
    """Pods of one gang that have to go: all of them, or some of its surplus."""

    kind: VictimKind
    gang: str
    queue: str
    priority: int
    pods: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preemption:
    """Who goes, and the places that are free then: `Cluster.reserve` takes them once all victims are gone.

    Victims in the order of gang names; none if the gang fits as things are. `reasons`: sentences for people.
    """

    gang: str
    victims: tuple[Victim, ...]
    placement: Placement
    cost: Disruption
    reasons: tuple[str, ...]

    @property
    def pods(self) -> tuple[str, ...]:
        """Return the names of all pods that go."""
        return tuple(pod for victim in self.victims for pod in victim.pods)


def plan_preemption(
    cluster: Cluster,
    occupancy: Occupancy,
    request: GangRequest,
    *,
    priority: int,
    policy: PreemptionPolicy = PreemptionPolicy.LOWER_PRIORITY,
    queue: str | None = None,
    limits: EvictionLimits = DEFAULT_LIMITS,
    budget: Budget = DEFAULT_BUDGET,
) -> Preemption | Verdict:
    """Return whom a gang of some priority may displace and where it then runs, or why not even that helps.

    With a `queue` only gangs of that queue are victims. Cost: a few decisions of `place`, each on a copy of the
    cluster; the dearer plans are bounded by `limits`.
    """
    request = without_optional(request)
    verdict = place(cluster, request, budget=budget)
    if isinstance(verdict, Placement):
        if limits.excess is None:
            return Preemption(gang=request.name, victims=(), placement=verdict, cost=Disruption(), reasons=())
        verdict = over_limits(cluster, request)
    if policy == PreemptionPolicy.NEVER:
        return noted(verdict, "its priority class never preempts")
    may_go = occupancy.is_present & occupancy.is_preemptible & (occupancy.priority < priority)
    if queue is not None:
        may_go &= occupancy.queue == occupancy.queues.get(queue, -1)
    who = "of lower priority" if queue is None else f"of lower priority in queue {queue}"
    return Displacement(cluster, occupancy, request, limits, budget).run(may_go, verdict, who)


class Displacement:
    """One plan in the making: searches, checks what single searches cannot see, searches again within that."""

    def __init__(
        self, cluster: Cluster, occupancy: Occupancy, request: GangRequest, limits: EvictionLimits, budget: Budget
    ) -> None:
        self.cluster = cluster
        self.occupancy = occupancy
        self.request = request
        self.limits = limits
        self.budget = budget

    def run(self, may_go: BoolArray, verdict: Verdict, who: str) -> Preemption | Verdict:
        """Return the plan, or the verdict on the present state with what else stands in the way."""
        tied = np.zeros(len(self.occupancy.pod_gang), dtype=np.bool_)
        forbidden: BoolArray | None = None
        for last in (False,) * (_ROUNDS_MAX - 1) + (True,):
            units = Units(self.occupancy, may_go, tied)
            forbidden = self.protected(units) if forbidden is None else forbidden
            allowed = units.without_takers(~forbidden)
            if not allowed.any():
                return noted(verdict, f"no pod {who} may be evicted")
            search = EvictionSearch(self.cluster, units, self.request, self.limits, self.budget)
            found = search.run(allowed)
            if found is None:
                count = int(np.count_nonzero(allowed[units.unit_of]))
                return noted(verdict, f"evicting all {count} pods {who} that may go would not make room")
            excess = self._over_budgets(units, found, everywhere=last)
            strict = self.over_quotas(units, found, allowed)
            if not excess.any() and strict is None:
                break
            tied = tied | excess
            forbidden = forbidden if strict is None else forbidden | strict
        else:
            return noted(verdict, f"no choice among the pods {who} was found that respects every budget")
        # Searches know the rules between pods by what they count; this reads labels one by one, and is the last word.
        after = search.vacating.cluster_without(search.going(found.units)) if self.request.rules else None
        if after is not None and violations(after, search.request_without(found.units), found.placement):
            return noted(verdict, f"no choice among the pods {who} was found that keeps the rules between pods")
        if found.cost.pods > self.limits.pods_max:
            return noted(verdict, f"{found.cost.pods} pods {who} would have to go, {self.limits.pods_max} may")
        return self._told(units, found)

    def protected(self, units: Units) -> BoolArray:
        """Return the units that must not go whatever else does."""
        return units.none()

    def over_quotas(self, units: Units, found: Eviction, allowed: BoolArray) -> BoolArray | None:
        """Return the units that must not go because others' rights would be hurt; None if the plan hurts none."""
        del units, found, allowed
        return None

    def sentence(self, cost: Disruption, victims: Sequence[Victim]) -> str:
        """Return for people who goes, and by what right."""
        del victims
        return sentence_of(cost, f" of priority {cost.priority_highest} or less")

    def _over_budgets(self, units: Units, found: Eviction, *, everywhere: bool) -> BoolArray:
        """Return by pod the surplus that must not go by itself, because its clique's availability budget is used up.

        Of the cliques that the plan asks too much of (`everywhere`: of all) the surplus that the plan wants keeps its
        right first, then that of high index.
        """
        occupancy, tied = self.occupancy, np.zeros(len(self.occupancy.pod_gang), dtype=np.bool_)
        lone = units.unit_of >= units.gang_count
        by_clique: dict[tuple[int, str], list[int]] = {}
        for row in units.pods[lone].tolist():
            gang = int(occupancy.pod_gang[row])
            if occupancy.gang(gang).evictable_surplus:
                by_clique.setdefault((gang, occupancy.seat(row).clique), []).append(row)
        for (gang, clique), rows in sorted(by_clique.items()):
            most = dict(occupancy.gang(gang).evictable_surplus).get(clique, len(rows))
            wanted = {row for row in rows if found.units[units.gang_count + row] and not found.units[gang]}
            if len(wanted) > most or everywhere:
                keep_first = sorted(rows, key=lambda row: (row not in wanted, -occupancy.seat(row).index))
                tied[keep_first[most:]] = True
        return tied

    def _told(self, units: Units, found: Eviction) -> Preemption:
        occupancy = self.occupancy
        going = units.pods[found.units[units.unit_of]]
        pods: dict[int, list[str]] = {}
        for row, gang in zip(going.tolist(), occupancy.pod_gang[going].tolist(), strict=True):
            pods.setdefault(gang, []).append(occupancy.seat(row).pod)
        victims = []
        for gang, names in pods.items():
            facts = occupancy.gang(gang)
            kind = VictimKind.GANG if found.units[gang] else VictimKind.SURPLUS
            victims.append(
                Victim(
                    kind=kind, gang=facts.name, queue=facts.queue, priority=facts.priority, pods=tuple(sorted(names))
                )
            )
        victims.sort(key=lambda victim: victim.gang)
        return Preemption(
            gang=self.request.name,
            victims=tuple(victims),
            placement=found.placement,
            cost=found.cost,
            reasons=(self.sentence(found.cost, victims), _who(victims)) if found.cost.pods else (),
        )


def _who(victims: Sequence[Victim]) -> str:
    """Return who leaves, by name: gangs that end, and the single pods of others."""
    names: list[str] = []
    for victim in victims:
        if not is_leaving(victim.gang):
            names += [victim.gang] if victim.kind is VictimKind.GANG else victim.pods
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return f"who leaves: {', '.join(names[:NAMES_SHOWN]) or 'only pods that leave already'}{more}"


def without_optional(request: GangRequest) -> GangRequest:
    """Return a request for the minimums alone; InvalidRequestError if it has none."""
    if not minimum_of(request):
        raise InvalidRequestError(f"gang {request.name} asks for surplus pods alone; nobody makes room for those")
    return replace(request, members=tuple(_minimum(member) for member in request.members))


def over_limits(cluster: Cluster, request: GangRequest) -> Verdict:
    """Return the verdict on a gang that has room, and may not have it because of limits."""
    return Verdict(
        gang=request.name,
        code=VerdictCode.INSUFFICIENT_CAPACITY,
        proof=True,
        kind=ScopeKind.GANG,
        scope=request.name,
        pods_needed=minimum_of(request),
        level="",
        nodes_total=len(cluster.node_names()),
        levels=(),
        exclusions=(),
        remedies=(),
        generation=cluster.generation,
    )


def noted(verdict: Verdict, text: str) -> Verdict:
    """Return a verdict with one more thing said, once: a verdict that equal gangs share may have been noted before."""
    if text in verdict.detail.split("; "):
        return verdict
    return replace(verdict, detail=f"{verdict.detail}; {text}" if verdict.detail else text)


def _minimum(member: CliqueRequest | GroupRequest) -> CliqueRequest | GroupRequest:
    if isinstance(member, CliqueRequest):
        return replace(member, optional=0) if member.optional else member
    return replace(member, members=tuple(_minimum(each) for each in member.members))


def sentence_of(cost: Disruption, whose: str) -> str:
    """Return for people what a plan costs; `whose` says what gangs these are, with a space before it."""
    parts = []
    if cost.gangs_broken:
        gangs = f"{cost.gangs_broken} gang{'s' if cost.gangs_broken != 1 else ''}"
        parts.append(f"{gangs}{whose} end{'' if cost.gangs_broken != 1 else 's'}")
    if cost.surplus_pods:
        parts.append(f"{cost.surplus_pods} surplus pod{'s' if cost.surplus_pods != 1 else ''} go")
    return f"{' and '.join(parts)}: {cost.pods} pod{'s' if cost.pods != 1 else ''} in all"
