"""Necessary tests: which domains can be ruled out for several shapes at once, without trying.

Rules: a test that fails is a proof, a test that passes is only hope. All candidate domains of a level are tested
together: room per request class; sums of resources over the nodes that any of the classes may use; and twins (alike
children which each need a narrower domain of their own), of which one narrow domain holds at most
min over classes of floor(K / m). That last bound turned 140 ms searches into 0.1 ms proofs in the project's prototype.

Not here: one shape, where room alone decides (`choice`); trying (`search`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from grove_server.placement.choice import children_needed
from grove_server.placement.ledger import Ledger
from grove_server.placement.requests import GPU_RESOURCE
from grove_server.placement.scopes import Scope
from grove_server.placement.topology import BoolArray, IntArray, Layout
from grove_server.resources.gpu_annotations import GPU_MILLI


class Span(NamedTuple):
    """Domains first .. last - 1 of one level."""

    level: int
    first: int
    last: int


def passing(ledger: Ledger, layout: Layout, scope: Scope, span: Span) -> IntArray:
    """Return the domains that no necessary test rules out for a scope's minimums; classes have to be up to date."""
    level, first, last = span
    passes = layout.levels[level].is_named[first:last].copy()
    for request_class, pods in scope.demand.items():
        passes &= request_class.everywhere[level][first:last] >= pods
    if len(scope.demand) > 1 and passes.any():
        passes &= _sums_suffice(ledger, layout, scope, span)
    for twins in twins_below(scope, level):
        if passes.any():
            passes &= twins_held(layout, twins, span) >= len(twins)
    return passes.nonzero()[0] + first


def _sums_suffice(ledger: Ledger, layout: Layout, scope: Scope, span: Span) -> BoolArray:
    """Return by domain whether what is free on usable nodes adds up to what all shapes together need."""
    suffices = np.ones(span.last - span.first, dtype=np.bool_)
    for row, amount in needs(scope).items():
        suffices &= free_sums(ledger, layout, scope, row, span) >= amount
    milli = gpu_milli_needed(scope)
    if milli:
        suffices &= free_gpu_milli(ledger, layout, scope, span) >= milli
    return suffices


def needs(scope: Scope) -> dict[int, int]:
    """Return by resource row what a scope's minimums need together; classes that can never fit are left out."""
    total: dict[int, int] = {}
    for request_class, pods in scope.demand.items():
        for row, amount in request_class.costs or ():
            total[row] = total.get(row, 0) + amount * pods
    return total


def free_sums(ledger: Ledger, layout: Layout, scope: Scope, row: int, span: Span) -> IntArray:
    """Return by domain how much of a resource is free on nodes that a class of the scope needing it may use."""
    starts = layout.levels[span.level].starts
    start, end = int(starts[span.first]), int(starts[span.last])
    usable = np.zeros(end - start, dtype=np.bool_)
    for request_class in scope.demand:
        if any(each == row for each, _ in request_class.costs or ()):
            usable |= request_class.eligible[start:end]
    free = np.maximum(ledger.free[row][layout.slots[start:end]], 0) * usable
    sums: IntArray = np.add.reduceat(free, starts[span.first : span.last] - start)
    return sums


def gpu_milli_needed(scope: Scope) -> int:
    """Return the milli of GPUs that a scope's minimums need together, whole ones included; 0 if none wants a share."""
    if not any(each.shape.gpu_milli for each in scope.demand):
        return 0
    return sum(
        pods * (each.shape.gpu_milli + GPU_MILLI * each.shape.amount(GPU_RESOURCE))
        for each, pods in scope.demand.items()
    )


def free_gpu_milli(ledger: Ledger, layout: Layout, scope: Scope, span: Span) -> IntArray:
    """Return by domain the free milli of all GPUs, partly used ones too, on nodes that a class needing GPUs may use."""
    starts = layout.levels[span.level].starts
    start, end = int(starts[span.first]), int(starts[span.last])
    usable = np.zeros(end - start, dtype=np.bool_)
    for request_class in scope.demand:
        if request_class.shape.needs_gpu:
            usable |= request_class.eligible[start:end]
    free = ledger.gpu_milli_free(layout.slots[start:end]) * usable
    sums: IntArray = np.add.reduceat(free, starts[span.first : span.last] - start)
    return sums


def twins_below(scope: Scope, level: int) -> list[list[Scope]]:
    """Return the children that each need a narrower domain than `level`, alike ones together."""
    alike: dict[int, list[Scope]] = {}
    for child in scope.children:
        if child.required is not None and child.required > level and child.demand:
            alike.setdefault(child.twin, []).append(child)
    return list(alike.values())


def twins_held(layout: Layout, twins: list[Scope], span: Span) -> IntArray:
    """Return by domain the most of some alike children that its narrower domains can hold, at most all of them."""
    child = twins[0]
    assert child.required is not None
    starts = layout.levels[span.level].starts
    start, end = int(starts[span.first]), int(starts[span.last])
    first, last = layout.domains_in(child.required, start, end)
    narrow = layout.levels[child.required]
    held = np.full(last - first, len(twins), dtype=np.int64)
    for request_class, pods in child.demand.items():
        np.minimum(held, request_class.everywhere[child.required][first:last] // pods, out=held)
    held *= narrow.is_named[first:last]
    sums: IntArray = np.add.reduceat(held, narrow.domain_at[starts[span.first : span.last]] - first)
    return np.minimum(sums, len(twins))


def in_order(layout: Layout, scope: Scope, level: int, domains: IntArray) -> list[int]:
    """Return passing domains best first: room for the optional pods too, what is wished for, few children, tightest."""
    if len(domains) <= 1:
        return [int(domain) for domain in domains]
    cramped = np.zeros(len(domains), dtype=np.bool_)
    late = np.zeros(len(domains), dtype=np.int64)
    for request_class, pods in scope.wish.items():
        cramped |= request_class.everywhere[level][domains] < pods
    share = np.zeros(len(domains), dtype=np.float64)
    need = np.zeros(len(domains), dtype=np.int64)
    for request_class, pods in scope.demand.items():
        room = request_class.everywhere[level][domains]
        np.maximum(share, pods / np.maximum(room, 1), out=share)
        if request_class.has_wishes:
            tiers = sum((tree[level][domains] < pods).astype(np.int64) for tree in request_class.choices)
            np.maximum(late, tiers, out=late)
        np.maximum(need, children_needed(layout, request_class.everywhere, level, domains, pods), out=need)
    return [int(domain) for domain in domains[np.lexsort((-share, need, late, cramped))]]
