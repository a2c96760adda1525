"""What would make a failed scope fit: the smallest change of each kind.

Rules: each kind is tried by itself against the same necessary tests that failed. For scopes of one shape these tests
are exact, so the change is enough (`is_certain`); for several shapes it is only what the tests ask for at least.
Used after a failure only, and bounded: a few taints, a few domains.

Not here: evicting others; that comes with preemption.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np

from grove_server.placement.cluster import Cluster
from grove_server.placement.counts import RequestClass
from grove_server.placement.matching import UNSCHEDULABLE_TAINT, effective_taints, tolerates, untolerated
from grove_server.placement.nodes import Effect, Taint
from grove_server.placement.requests import PodShape, Toleration
from grove_server.placement.results import DomainReport, LevelReport, Remedy, RemedyKind, short_level
from grove_server.placement.topology import BoolArray, Layout

_TAINTS_MAX: Final = 4
_DOMAINS_MAX: Final = 8


class Need(NamedTuple):
    """What failed: pods of one class (the hardest of the scope) at a level, inside bool[positions]."""

    request_class: RequestClass
    pods: int
    level: int
    inside: BoolArray
    is_certain: bool


def find_remedies(cluster: Cluster, layout: Layout, need: Need, levels: tuple[LevelReport, ...]) -> tuple[Remedy, ...]:
    """Return the changes that would help, what the user can do alone first."""
    found = [
        *_fewer_pods(need, levels),
        *_relaxed_level(need, levels),
        *_uncordoned(cluster, layout, need),
        *_tolerated(cluster, layout, need),
        *_freed(need, levels),
    ]
    return tuple(found)


def _best(levels: tuple[LevelReport, ...]) -> DomainReport | None:
    return levels[0].best if levels else None


def _fewer_pods(need: Need, levels: tuple[LevelReport, ...]) -> Iterator[Remedy]:
    best = _best(levels)
    if need.is_certain and best is not None and 0 < best.pods_fit < best.pods_needed:
        yield Remedy(kind=RemedyKind.FEWER_PODS, count=best.pods_needed - best.pods_fit, is_certain=True)


def _relaxed_level(need: Need, levels: tuple[LevelReport, ...]) -> Iterator[Remedy]:
    broader = next((report for report in levels[1:] if report.domains_fitting), None)
    if broader is not None:
        target = broader.level or "the whole cluster"
        yield Remedy(kind=RemedyKind.RELAX_LEVEL, target=target, is_certain=need.is_certain)


def _freed(need: Need, levels: tuple[LevelReport, ...]) -> Iterator[Remedy]:
    best = _best(levels)
    if best is None or best.pods_fit >= best.pods_needed:
        return
    missing = best.pods_needed - best.pods_fit
    shape = need.request_class.shape
    amounts = best.lacks or tuple((resource, amount * missing) for resource, amount in shape.requests if amount)
    target = f"{short_level(best.level)} {best.value}" if best.level else "the cluster"
    yield Remedy(kind=RemedyKind.FREE_RESOURCES, count=missing, target=target, amounts=amounts, is_certain=False)


def _uncordoned(cluster: Cluster, layout: Layout, need: Need) -> Iterator[Remedy]:
    """Yield the fewest cordoned nodes of one domain that would make room."""
    shape = need.request_class.shape
    tolerant = _tolerating(shape, UNSCHEDULABLE_TAINT)
    states = cluster.rules.states
    is_cordoned = any(state is not None and state.unschedulable for state in cluster.rules.signatures()[1])
    if not is_cordoned or untolerated(shape.tolerations, (UNSCHEDULABLE_TAINT,)) is None:
        return
    room = _class_of(cluster, layout, tolerant).everywhere[-1] * need.inside
    now = need.request_class.everywhere[-1] * need.inside
    starts = layout.levels[need.level].starts[:-1]
    could = np.add.reduceat(room, starts) * layout.levels[need.level].is_named
    missing = need.pods - np.add.reduceat(now, starts)
    hopeful = (could >= need.pods).nonzero()[0]
    hopeful = hopeful[np.argsort(missing[hopeful], kind="stable")][:_DOMAINS_MAX]
    best: list[str] | None = None
    for domain in hopeful.tolist():
        start, end = layout.span(need.level, domain)
        gains = room[start:end] - now[start:end]
        order = np.argsort(-gains, kind="stable")
        count = int(np.searchsorted(gains[order].cumsum(), int(missing[domain]))) + 1
        if best is None or count < len(best):
            slots = layout.slots[start:end][order[:count]].tolist()
            best = [state.name for slot in slots if (state := states[slot]) is not None]
    if best is not None:
        yield Remedy(kind=RemedyKind.UNCORDON, nodes=tuple(sorted(best)), is_certain=need.is_certain)


def _tolerated(cluster: Cluster, layout: Layout, need: Need) -> Iterator[Remedy]:
    """Yield the taints of which each, tolerated alone, would make room."""
    shape = need.request_class.shape
    taints: set[Taint] = set()
    for state in cluster.rules.signatures()[1]:
        if state is not None and state.ready and not state.unschedulable:
            taint = untolerated(shape.tolerations, effective_taints(state))
            taints.update(() if taint is None else (taint,))
    starts = layout.levels[need.level].starts[:-1]
    for taint in sorted(taints)[:_TAINTS_MAX]:
        room = _class_of(cluster, layout, _tolerating(shape, taint)).everywhere[-1] * need.inside
        could = np.add.reduceat(room, starts) * layout.levels[need.level].is_named
        if int(could.max(initial=0)) >= need.pods:
            yield Remedy(kind=RemedyKind.TOLERATE_TAINT, target=str(taint), is_certain=need.is_certain)


def _tolerating(shape: PodShape, taint: Taint) -> PodShape:
    more = Toleration(key=taint.key, value=taint.value, effect=Effect(taint.effect))
    assert tolerates(more, taint)
    return replace(shape, tolerations=(*shape.tolerations, more))


def _class_of(cluster: Cluster, layout: Layout, shape: PodShape) -> RequestClass:
    """Return the counts of a shape that nobody asked for, outside of the cluster's cache."""
    return RequestClass(shape, layout, cluster.ledger, cluster.rules.eligibility(shape), cluster.rules.changes.end)
