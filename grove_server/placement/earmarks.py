"""Earmarks: a domain set aside for a gang that waits, so that small work in front of it does not starve it.

Rules: nodes of an earmarked domain are closed to every request but the gang's own and those of higher priority; where
earmarks overlap a node is open only to who may pass all of them. Closed means excluded, not avoided: lower work goes
around the domain. Closing is tentative: for the time of one decision nothing is free on the nodes, afterwards
everything is as before. The domain proposed is the one that came closest in the gang's verdict.
Source: the hybrid backfill of Flux, in space instead of time, because services have no end to plan with.

An earmark may hold room under limits of queues as well, or alone (`headroom`).

Not here: when a gang has waited long enough (`queues.QueueSpec.earmark_after_s`; the caller has the clock).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from grove_server.placement.cluster import Cluster
from grove_server.placement.exclusions import SetAside
from grove_server.placement.place import DEFAULT_BUDGET, place
from grove_server.placement.requests import Budget, DomainPath, GangRequest
from grove_server.placement.results import Placement, Verdict, VerdictCode, short_level
from grove_server.placement.topology import BoolArray

_INCURABLE: Final = frozenset(
    {
        VerdictCode.TOPOLOGY_UNAVAILABLE,
        VerdictCode.LEVEL_MISSING,
        VerdictCode.DOMAIN_GONE,
        VerdictCode.NO_NODE_MATCHES,
        VerdictCode.POD_TOO_LARGE,
        VerdictCode.DOMAIN_TOO_SMALL,
        VerdictCode.CLUSTER_TOO_SMALL,
    }
)
"""Verdicts that an empty cluster would give too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Earmark:
    """A domain, named by its path in a topology, that one gang waits for; an empty path is the whole cluster.

    `path` None: no domain. `amounts`: what is held for it under the `limits` of its queue and of those above it.
    """

    gang: str
    path: DomainPath | None
    priority: int
    queue: str = ""
    amounts: Mapping[str, int] = field(default_factory=dict)
    limits: tuple[str, ...] = ()

    def holding(self, queue: str, amounts: Mapping[str, int], limits: tuple[str, ...]) -> Earmark:
        """Return the same domain with something else held under limits."""
        return replace(self, queue=queue, amounts=amounts, limits=limits)

    def sentence(self) -> str:
        """Return what is set aside, for people; "" if nothing is."""
        parts = []
        if self.path:
            key, value = self.path[-1]
            parts.append(f"{short_level(key)} {value}")
        if self.limits:
            plural = "s" if len(self.limits) > 1 else ""
            parts.append(f"room under the limit{plural} of queue{plural} {', '.join(self.limits)}")
        return " and ".join(parts)


def earmark_for(verdict: Verdict, priority: int) -> Earmark | None:
    """Return the earmark that would help a gang: the domain of its level that came closest; None if there is none.

    None, too, for a verdict that says that even an empty cluster would not do: such a domain would wait for ever.
    """
    best = verdict.levels[0].best if verdict.levels else None
    if best is None or not best.path or verdict.code in _INCURABLE:
        return None
    return Earmark(gang=verdict.gang, path=best.path, priority=priority)


def closed_slots(cluster: Cluster, earmarks: Iterable[Earmark], gang: str, priority: int) -> BoolArray:
    """Return by slot which nodes are set aside for others than a gang of some priority."""
    closed = np.zeros(len(cluster.rules.states), dtype=np.bool_)
    for earmark in earmarks:
        if earmark.path is None or earmark.gang == gang or priority > earmark.priority:
            continue
        inside = np.ones(len(closed), dtype=np.bool_)
        for key, value in earmark.path:
            column = cluster.rules.column(key)
            inside &= column.codes == column.codes_of.get(value, -2)
        closed |= inside
    return closed


def place_around(
    cluster: Cluster,
    request: GangRequest,
    earmarks: Sequence[Earmark],
    *,
    priority: int,
    gang: str | None = None,
    budget: Budget = DEFAULT_BUDGET,
) -> Placement | Verdict:
    """Decide as `place` does, around what is set aside for others; a verdict names them if they stand in the way.

    `gang` is who asks, if a request for a part of it goes by another name. Without earmarks it is `place`, and costs
    the same; with some, a few vector steps over the nodes they close.
    """
    asking = request.name if gang is None else gang
    closed = closed_slots(cluster, earmarks, asking, priority) if earmarks else None
    if closed is None or not closed.any():
        return place(cluster, request, budget=budget)
    owners = [e.gang for e in earmarks if e.path is not None and e.gang != asking and priority <= e.priority]
    owner = f"{min(owners)} and {len(owners) - 1} others" if len(owners) > 1 else owners[0]
    ledger = cluster.ledger
    slots = np.flatnonzero(closed)
    before = ledger.free[:, slots]
    ledger.free[:, slots] = np.minimum(before, 0)
    ledger.changes.extend(slots.tolist())
    try:
        result = place(cluster, request, budget=budget, aside=SetAside(closed, owner))
    finally:
        ledger.free[:, slots] = before
        ledger.changes.extend(slots.tolist())
    if isinstance(result, Placement):
        return result
    if result.proof and isinstance(place(cluster, request, budget=budget), Placement):
        # There is room, and others get it first: nothing that a user could do about the gang or the nodes is missing.
        result = replace(result, code=VerdictCode.INSUFFICIENT_CAPACITY, remedies=())
    text = f"{len(slots)} nodes are set aside for {owner}"
    return replace(result, detail=f"{result.detail}; {text}" if result.detail else text)
