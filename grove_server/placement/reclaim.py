"""Reclaim: a queue takes back what it is guaranteed from queues that use more than their due.

Rules: only a gang with which its queue stays within its guarantee may reclaim; victims are in other queues, of any
priority. What a queue is due is its guarantee, or what the caller calls fair. No queue, and none above it up to where
it meets the reclaiming one, is pushed below its due: in any resource that the gang asks for. What is due of other
resources does not count, otherwise a queue that uses little CPU could keep all the GPUs. Of a queue that may lose
something only what stays counts: not pods that leave already, and not places that are kept for its gangs. Of the one
that takes back both count, so that several plans at the same time never take more than one after the other would.
Everything else is as in preemption: surplus first, whole gangs, nothing evicted for nothing.

Not here: victims in the same queue (`preemption`), what is fair (`fair_share`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np

from grove_server.placement.cluster import Cluster
from grove_server.placement.eviction import Disruption, Eviction, EvictionLimits
from grove_server.placement.excess import held_of
from grove_server.placement.gang_facts import is_leaving
from grove_server.placement.occupancy import Occupancy
from grove_server.placement.place import DEFAULT_BUDGET, place
from grove_server.placement.preemption import (
    DEFAULT_LIMITS,
    Displacement,
    Preemption,
    Victim,
    noted,
    over_limits,
    sentence_of,
    without_optional,
)
from grove_server.placement.queues import UNLIMITED, QueueTree, quota_amounts, scale_of
from grove_server.placement.requests import GPU_SHARE, PODS_RESOURCE, Budget, CliqueRequest, GangRequest, GroupRequest
from grove_server.placement.results import Placement, Verdict
from grove_server.placement.topology import BoolArray, IntArray
from grove_server.placement.units import LEAVING_TIER, Units


class QueueShares(NamedTuple):
    """What queues have and may keep now, by queue and resource.

    `used`: with the places that are kept for their gangs; None: none are kept. `due`: what each may keep
    (`fair_share.fair_shares`), instead of its guarantee; a guarantee that is larger holds all the same.
    """

    used: Mapping[str, Mapping[str, int]] | None = None
    due: Mapping[str, Mapping[str, float]] | None = None


_QUEUES_SHOWN: Final = 5

NO_SHARES: Final = QueueShares()


def plan_reclaim(
    cluster: Cluster,
    occupancy: Occupancy,
    request: GangRequest,
    *,
    queue: str,
    tree: QueueTree,
    shares: QueueShares = NO_SHARES,
    limits: EvictionLimits = DEFAULT_LIMITS,
    budget: Budget = DEFAULT_BUDGET,
) -> Preemption | Verdict:
    """Return whom other queues have to let go for a gang of `queue`, or why that is not possible."""
    request = without_optional(request)
    verdict = place(cluster, request, budget=budget)
    if isinstance(verdict, Placement):
        if limits.excess is None:
            return Preemption(gang=request.name, victims=(), placement=verdict, cost=Disruption(), reasons=())
        verdict = over_limits(cluster, request)
    if queue not in tree.numbers:
        return noted(verdict, f"there is no queue {queue}")
    used = occupancy.used_by_queue() if shares.used is None else shares.used
    asked = amounts_of(request)
    if not tree.is_within_guarantee(queue, asked, used):
        return noted(verdict, f"queue {queue} would use more than it is guaranteed, so it takes nothing back")
    mine = {tree.numbers[name] for name in tree.lineage(queue)}
    rights = _Rights(occupancy, tree, mine, asked, shares.due)
    numbers = rights.number_of[occupancy.queue]
    may_go = occupancy.is_present & occupancy.is_preemptible & (numbers >= 0) & (numbers != tree.numbers[queue])
    return _Reclaim(cluster, occupancy, request, limits, budget, rights=rights, queue=queue).run(
        may_go, verdict, "of queues that use more than their due"
    )


class _Rights:
    """What each queue may lose: `headroom` int64[R, Q] of the resources asked for, `amounts` by pod of each.

    The queues above the one that reclaims lose nothing: what they give they get.
    """

    def __init__(
        self,
        occupancy: Occupancy,
        tree: QueueTree,
        mine: set[int],
        asked: Mapping[str, int],
        due: Mapping[str, Mapping[str, float]] | None,
    ) -> None:
        self.tree = tree
        counted = quota_amounts(asked)
        names = sorted(name for name in counted if name in tree.resources and name in occupancy.resources)
        self.amounts = [held_of(occupancy, name) for name in names]
        staying = occupancy.used_by_queue(is_leaving_counted=False)
        used = tree.totals(staying, {name: row for row, name in enumerate(names)})
        kept = tree.guarantee[[tree.resources[name] for name in names]]
        if due is not None:
            fair = [
                [int(due.get(spec.name, {}).get(name, 0) * scale_of(name)) for spec in tree.specs] for name in names
            ]
            kept = np.maximum(kept, np.array(fair, dtype=np.int64).reshape(kept.shape))
        self.headroom: IntArray = np.maximum(used - kept, 0)
        self.headroom[:, sorted(mine)] = UNLIMITED
        # By number of the occupancy's queue: its number in the tree, -1 = not in it.
        self.number_of: IntArray = np.array([tree.numbers.get(name, -1) for name in occupancy.queues], dtype=np.int64)

    def least_headroom(self) -> IntArray:
        """Return int64[R, Q]: the least of what a queue and those above it may lose; 0 for one without any to lose."""
        least = self.headroom.copy()
        for level in self.tree.levels[1:]:
            least[:, level] = np.minimum(least[:, level], least[:, self.tree.parents[level]])
        return least

    def exceeded(self, loss: IntArray) -> list[int]:
        """Return the queues, lowest first, that would lose too much; `loss` int64[R, Q] without queues below."""
        total = loss.copy()
        for level in reversed(self.tree.levels[1:]):
            for row in total:
                np.add.at(row, self.tree.parents[level], row[level])
        exceeded: list[int] = np.flatnonzero((total > self.headroom).any(axis=0))[::-1].tolist()
        return exceeded

    def within(self, number: int) -> BoolArray:
        """Return by queue of the tree whether it is the given one or below it."""
        inside = np.zeros(len(self.tree.specs), dtype=np.bool_)
        inside[number] = True
        for level in self.tree.levels[1:]:
            inside[level] |= inside[self.tree.parents[level]]
        return inside


class _Reclaim(Displacement):
    """A displacement that keeps every queue's due."""

    def __init__(
        self,
        cluster: Cluster,
        occupancy: Occupancy,
        request: GangRequest,
        limits: EvictionLimits,
        budget: Budget,
        *,
        rights: _Rights,
        queue: str,
    ) -> None:
        super().__init__(cluster, occupancy, request, limits, budget)
        self.rights = rights
        self.queue = queue

    def sentence(self, cost: Disruption, victims: Sequence[Victim]) -> str:
        """Return who goes, and which queue takes back from which."""
        queues = sorted({victim.queue for victim in victims if not is_leaving(victim.gang)})
        more = f" and {len(queues) - _QUEUES_SHOWN} more" if len(queues) > _QUEUES_SHOWN else ""
        losers = f"queue{'s' if len(queues) > 1 else ''} {', '.join(queues[:_QUEUES_SHOWN])}{more}"
        return f"queue {self.queue} takes back from {losers}: {sentence_of(cost, '')}"

    def protected(self, units: Units) -> BoolArray:
        """Return the units that alone are more than their queue may lose, and those of queues with nothing to lose."""
        owner = self._owners(units)
        least = self.rights.least_headroom()[:, owner]
        is_bound = (owner >= 0) & (units.tier > LEAVING_TIER)
        return is_bound & ((self._held(units) > least).any(axis=0) | ~least.any(axis=0))

    def over_quotas(self, units: Units, found: Eviction, allowed: BoolArray) -> BoolArray | None:
        """Return which units have to stay so that no queue loses more than it may; None if the plan is right.

        Of a queue that would lose too much the units that the plan wants keep their turn, the cheapest first.
        """
        held, owner = self._held(units), self._owners(units)
        loss = np.zeros_like(self.rights.headroom)
        going = np.flatnonzero(found.units & (owner >= 0))
        for total, amounts in zip(loss, held, strict=True):
            np.add.at(total, owner[going], amounts[going])
        exceeded = self.rights.exceeded(loss)
        strict = units.none()
        for number in exceeded:
            inside = self.rights.within(number)[owner] & (owner >= 0)
            left = self.rights.headroom[:, number].copy()
            order = units.dearest_first(np.flatnonzero(inside & allowed & units.is_evictable & ~strict))[::-1]
            for unit in sorted(order.tolist(), key=lambda unit: not found.units[unit]):
                if (held[:, unit] <= left).all():
                    left -= held[:, unit]
                else:
                    strict[unit] = True
        return strict if exceeded else None

    def _held(self, units: Units) -> IntArray:
        """Return int64[R, unit]: what its queue loses with each unit of the resources asked for."""
        held: IntArray = np.zeros((len(self.rights.amounts), units.count), dtype=np.int64)
        for total, amounts in zip(held, self.rights.amounts, strict=True):
            np.add.at(total, units.unit_of, amounts[units.pods])
        held[:, units.tier == LEAVING_TIER] = 0
        return held

    def _owners(self, units: Units) -> IntArray:
        """Return by unit the number of its queue in the tree, -1 = none."""
        owner: IntArray = np.full(units.count, -1, dtype=np.int64)
        gangs = self.occupancy.pod_gang[units.pods]
        owner[units.unit_of] = self.rights.number_of[self.occupancy.queue[gangs]]
        return owner


def amounts_of(request: GangRequest | GroupRequest | CliqueRequest) -> dict[str, int]:
    """Return what a request's minimums need, by resource, pods too; shares of GPUs, in milli, under GPU_SHARE."""
    if isinstance(request, CliqueRequest):
        needs = (*request.shape.requests, (GPU_SHARE, request.shape.gpu_milli), (PODS_RESOURCE, 1))
        return {name: amount * request.minimum for name, amount in needs if amount and request.minimum}
    total: dict[str, int] = {}
    for member in request.members:
        for name, amount in amounts_of(member).items():
            total[name] = total.get(name, 0) + amount
    return total
