"""What would make a failed scope fit: the smallest change of each kind.

Rules: each kind is tried by itself against the same necessary tests that failed, on all constraints at once: a node
that a taint and a selector keep out gains nothing from a toleration. For scopes of one shape these tests are exact, so
the change is enough (`is_certain`); for several shapes it is only what the tests ask for at least, of each shape. A pod
that is too large is told the size of the largest node that matches, a gang that is too large for the whole cluster how
many nodes more it takes at least. What to free is the least there is for scopes of one shape (`freeing`), a bound for
others. Where rules between pods bind, what helps is that
one of them is dropped. Used after a failure only, and bounded: a few
taints, a few domains.

Not here: evicting others; that comes with preemption.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np

from grove_server.placement.cluster import Cluster
from grove_server.placement.counts import RequestClass
from grove_server.placement.freeing import least_to_free, room_when_empty
from grove_server.placement.ledger import GPU_ROW
from grove_server.placement.matching import UNSCHEDULABLE_TAINT, effective_taints, tolerates, untolerated
from grove_server.placement.nodes import Effect, Taint
from grove_server.placement.requests import GPU_RESOURCE, GPU_SHARE, PODS_RESOURCE, PodShape, RuleKind, Toleration
from grove_server.placement.results import DomainReport, LevelReport, Remedy, RemedyKind, short_level
from grove_server.placement.ruled_counts import RuledClass
from grove_server.placement.topology import BoolArray, IntArray, Layout
from grove_server.resources.gpu_annotations import GPU_MILLI

_TAINTS_MAX: Final = 4
_DOMAINS_MAX: Final = 8


class Need(NamedTuple):
    """What failed: pods of one class (the hardest of the scope) at a level, inside bool[positions].

    `demand` has the pods of all classes of the scope. `open_to`: of the nodes inside those that are not set aside for
    others; `base_level`: the level of the domains that could be freed; `is_whole`: the scope is all that the gang
    needs, and nothing below it asks for a narrower level. `is_curable`: an empty cluster would do.
    """

    request_class: RequestClass
    pods: int
    level: int
    inside: BoolArray
    demand: Mapping[RequestClass, int]
    open_to: BoolArray
    base_level: int
    is_whole: bool
    is_curable: bool
    is_cluster_small: bool

    @property
    def is_certain(self) -> bool:
        """Return whether the tests are exact."""
        return len(self.demand) == 1


def find_remedies(cluster: Cluster, layout: Layout, need: Need, levels: tuple[LevelReport, ...]) -> tuple[Remedy, ...]:
    """Return the changes that would help, what the user can do alone first."""
    found = [
        *_fewer_pods(need, levels),
        *_relaxed_level(need, levels),
    ]
    if any(isinstance(each, RuledClass) for each in need.demand):
        # What nodes would do for the pods depends on the rules as well: only these are tried.
        return (*found, *_dropped_rule(cluster, layout, need))
    found += [
        *_uncordoned(cluster, layout, need),
        *_tolerated(cluster, layout, need),
        *_ready_again(cluster, layout, need),
        *_smaller_pods(cluster, layout, need),
    ]
    if need.is_curable:
        found += _freed(cluster, layout, need, levels)
    if need.is_cluster_small:
        found += _more_nodes(cluster, layout, need)
    return tuple(found)


def _dropped_rule(cluster: Cluster, layout: Layout, need: Need) -> Iterator[Remedy]:
    """Yield the rules between pods of which each, dropped alone, would make room."""
    ruled, level = need.request_class, layout.levels[need.level]
    for rule, without in ruled.without_each_rule(cluster.ledger) if isinstance(ruled, RuledClass) else ():
        open_to = np.logical_and.reduceat(need.inside, level.starts[:-1]) & level.is_named
        if bool((without.everywhere[need.level] * open_to >= need.pods).any()):
            verb = "apart from" if rule.kind == RuleKind.APART else "together with"
            is_certain = need.is_certain and without.is_exact
            yield Remedy(kind=RemedyKind.DROP_RULE, target=f"{verb} {rule.about()}", is_certain=is_certain)


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


def _freed(cluster: Cluster, layout: Layout, need: Need, levels: tuple[LevelReport, ...]) -> Iterator[Remedy]:
    """Yield the least to free: of the hardest class alone, or what does not add up where that class would fit."""
    found = least_to_free(cluster, layout, need.request_class, need.pods, need.base_level, need.open_to)
    if found is not None:
        key, value = layout.levels[found.level].key, layout.value_of(found.level, found.domain)
        is_certain = found.is_exact and need.is_certain and need.is_whole
        yield Remedy(
            kind=RemedyKind.FREE_RESOURCES,
            count=found.pods,
            target=_domain_text(key, value),
            amounts=found.amounts,
            spots=found.spots if is_certain else (),
            spot_count=found.spot_count if is_certain else 0,
            is_certain=is_certain,
        )
        return
    best = _best(levels)
    if best is None or not best.lacks or need.is_certain:
        return
    target = _domain_text(best.level, best.value)
    missing = best.pods_needed - best.pods_fit
    yield Remedy(kind=RemedyKind.FREE_RESOURCES, count=missing, target=target, amounts=best.lacks, is_certain=False)


def _domain_text(level: str, value: str) -> str:
    return f"{short_level(level)} {value}" if level and value else "the cluster"


def _more_nodes(cluster: Cluster, layout: Layout, need: Need) -> Iterator[Remedy]:
    """Yield how many nodes more it takes at least, of the kind that holds most of the hardest class."""
    usable = in_order_eligible(cluster, need.request_class.shape)[layout.slots]
    empty = room_when_empty(cluster.ledger, need.request_class, layout.slots) * usable
    short = need.pods - int(empty.sum())
    if short <= 0 or not empty.any():
        return
    largest = int(empty.argmax())
    slot = layout.slots[largest : largest + 1]
    wanted = [resource for resource, _ in _amounts(need.request_class.shape)]
    main = GPU_RESOURCE if need.request_class.shape.needs_gpu else min(wanted, default=PODS_RESOURCE)
    amounts = ((main, int(cluster.ledger.allocatable[cluster.ledger.rows[main]][slot][0])),)
    yield Remedy(kind=RemedyKind.ADD_NODES, count=-(-short // int(empty[largest])), amounts=amounts)


def in_order_eligible(cluster: Cluster, shape: PodShape) -> BoolArray:
    """Return by slot which nodes a shape may use once none is cordoned or not ready."""
    return cluster.rules.eligibility(_tolerating(shape, UNSCHEDULABLE_TAINT), all_ready=True)[0]


def _uncordoned(cluster: Cluster, layout: Layout, need: Need) -> Iterator[Remedy]:
    """Yield the fewest cordoned nodes of one domain that would make room."""
    is_cordoned = any(state is not None and state.unschedulable for state in cluster.rules.signatures()[1])
    if not is_cordoned or untolerated(need.request_class.shape.tolerations, (UNSCHEDULABLE_TAINT,)) is None:
        return
    then = {each: _class_of(cluster, layout, _tolerating(each.shape, UNSCHEDULABLE_TAINT)) for each in need.demand}
    nodes = _fewest_nodes(cluster, layout, need, then)
    if nodes:
        yield Remedy(kind=RemedyKind.UNCORDON, nodes=nodes, is_certain=need.is_certain)


def _ready_again(cluster: Cluster, layout: Layout, need: Need) -> Iterator[Remedy]:
    """Yield the fewest nodes of one domain that are not ready and would make room if they were."""
    if all(state is None or state.ready for state in cluster.rules.signatures()[1]):
        return
    then = {each: _class_of(cluster, layout, each.shape, all_ready=True) for each in need.demand}
    nodes = _fewest_nodes(cluster, layout, need, then)
    if nodes:
        yield Remedy(kind=RemedyKind.READY_AGAIN, nodes=nodes, is_certain=need.is_certain)


def _hopeful(layout: Layout, need: Need, then: Mapping[RequestClass, RequestClass]) -> IntArray:
    """Return the domains that would have room for each class of the scope, taken alone, with the counts of *then*."""
    level = layout.levels[need.level]
    fits = level.is_named.copy()
    for request_class, pods in need.demand.items():
        fits &= np.add.reduceat(then[request_class].everywhere[-1] * need.inside, level.starts[:-1]) >= pods
    return fits.nonzero()[0]


def _fewest_nodes(
    cluster: Cluster, layout: Layout, need: Need, then: Mapping[RequestClass, RequestClass]
) -> tuple[str, ...]:
    """Return the fewest nodes of one domain on which the counts of *then* have to come true; () if that is no help."""
    states = cluster.rules.states
    room = then[need.request_class].everywhere[-1] * need.inside
    now = need.request_class.everywhere[-1] * need.inside
    missing = need.pods - np.add.reduceat(now, layout.levels[need.level].starts[:-1])
    hopeful = _hopeful(layout, need, then)
    # Where nothing is missing of the hardest class, another one failed; these nodes cannot be told for it.
    hopeful = hopeful[missing[hopeful] > 0]
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
    return tuple(sorted(best or ()))


def _tolerated(cluster: Cluster, layout: Layout, need: Need) -> Iterator[Remedy]:
    """Yield the taints of which each, tolerated alone, would make room."""
    shape = need.request_class.shape
    taints: set[Taint] = set()
    for state in cluster.rules.signatures()[1]:
        if state is not None and state.ready and not state.unschedulable:
            taint = untolerated(shape.tolerations, effective_taints(state))
            taints.update(() if taint is None else (taint,))
    for taint in sorted(taints)[:_TAINTS_MAX]:
        then = {each: _class_of(cluster, layout, _tolerating(each.shape, taint)) for each in need.demand}
        if len(_hopeful(layout, need, then)):
            yield Remedy(kind=RemedyKind.TOLERATE_TAINT, target=str(taint), is_certain=need.is_certain)


def _smaller_pods(cluster: Cluster, layout: Layout, need: Need) -> Iterator[Remedy]:
    """Yield the size of the largest matching node for the first class of which no such node could hold a pod."""
    found = (_largest(cluster, layout, each, need.inside) for each in need.demand)
    yield from [each for each in found if each is not None][:1]


def _largest(cluster: Cluster, layout: Layout, request_class: RequestClass, inside: BoolArray) -> Remedy | None:
    """Return the size of the largest matching node; None if some node could hold a pod when empty, or none matches.

    The largest is the one that falls short in the fewest resources, then by the smallest factor, then the first.
    """
    if bool((request_class.everywhere[-1] * inside).any()):
        return None  # A pod fits now; the common case, and the rest takes longest.
    matching = np.flatnonzero(request_class.eligible & inside)
    requests = _amounts(request_class.shape)
    if not len(matching) or not requests:
        return None
    slots = layout.slots[matching]
    has = np.array([_of_empty_node(cluster, slots, resource) for resource, _ in requests])
    asked = np.array([amount for _, amount in requests])[:, None]
    short = has < asked
    if not short.any(axis=0).all():
        return None
    factor = (asked / np.maximum(has, 1)).max(axis=0)
    largest = int(np.lexsort((factor, short.sum(axis=0)))[0])
    state = cluster.rules.states[int(slots[largest])]
    assert state is not None
    amounts = tuple(
        (resource, int(has[i, largest])) for i, (resource, _) in enumerate(requests) if bool(short[i, largest])
    )
    return Remedy(kind=RemedyKind.SMALLER_PODS, target=state.name, amounts=amounts, is_certain=False)


def _amounts(shape: PodShape) -> list[tuple[str, int]]:
    """Return what one pod asks for, a share of a GPU included."""
    wanted = [(resource, amount) for resource, amount in shape.requests if amount > 0]
    return [*wanted, (GPU_SHARE, shape.gpu_milli)] if shape.gpu_milli else wanted


def _of_empty_node(cluster: Cluster, slots: IntArray, resource: str) -> IntArray:
    """Return by slot how much of a resource one pod could have at most; of a share, one GPU."""
    ledger = cluster.ledger
    if resource == GPU_SHARE:
        of_one: IntArray = np.minimum(ledger.allocatable[GPU_ROW][slots], 1) * GPU_MILLI
        return of_one
    row = ledger.rows.get(resource)
    amounts: IntArray = np.zeros_like(slots) if row is None else ledger.allocatable[row][slots]
    return amounts


def _tolerating(shape: PodShape, taint: Taint) -> PodShape:
    more = Toleration(key=taint.key, value=taint.value, effect=Effect(taint.effect))
    assert tolerates(more, taint)
    return replace(shape, tolerations=(*shape.tolerations, more))


def _class_of(cluster: Cluster, layout: Layout, shape: PodShape, *, all_ready: bool = False) -> RequestClass:
    """Return the counts of a shape that nobody asked for, outside of the cluster's cache."""
    eligibility = cluster.rules.eligibility(shape, all_ready=all_ready)
    return RequestClass(shape, layout, cluster.ledger, eligibility, cluster.rules.changes.end)
