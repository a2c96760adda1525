"""The decision: `place(cluster, request)` answers with a complete placement or with what is missing.

Rules: pure in effect (the cluster is as before), deterministic, all or nothing over the minimums of all cliques;
optional pods come after all minimums and never at their expense. Making the answer real is `Cluster.reserve`.

Not here: the order in which gangs are tried, and who waits for whom; that is the placement loop's.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat
from typing import Final

import numpy as np

from grove_server.placement.assignment import GpuDealer
from grove_server.placement.candidates import lifted
from grove_server.placement.choice import Region, Runs
from grove_server.placement.cluster import Cluster
from grove_server.placement.exclusions import SetAside
from grove_server.placement.explain import explain_failure, explain_level
from grove_server.placement.pod_rules import RuleBook
from grove_server.placement.requests import GPU_RESOURCE, Budget, GangRequest
from grove_server.placement.results import (
    CliquePlacement,
    DomainChoice,
    Placement,
    PodBinding,
    Reason,
    Verdict,
)
from grove_server.placement.scopes import LevelUnknownError, Scope, compile_request
from grove_server.placement.search import Search
from grove_server.placement.topology import Layout

DEFAULT_BUDGET: Final = Budget()

_TIE_BREAK: Final = "fewest child domains, then tightest, then first by name"
_TIE_BREAK_BY_MIX: Final = "least GPU stranded for the usual pods, then tightest, then first by name"


def place(
    cluster: Cluster, request: GangRequest, *, budget: Budget = DEFAULT_BUDGET, aside: SetAside | None = None
) -> Placement | Verdict:
    """Decide one gang on the present state; InvalidRequestError for a request that breaks its own rules.

    `aside` are nodes without room because they are kept for others: a verdict calls them so.

    Cost: about 50 microseconds for a few pods of a known shape, O(nodes of the chosen domains) for large one-shape
    gangs, about 50-100 microseconds per clique for hierarchical ones plus what the budget allows after a failure.
    """
    layout = cluster.layout(request.topology)
    try:
        root = compiled(cluster, layout, request)
    except LevelUnknownError as error:
        return explain_level(cluster, request, error)
    search = Search(cluster, layout, root, budget.steps_max)
    if len(layout.slots) == 0:
        return explain_failure(search, request, aside)
    is_placed = search.run()
    search.undo_all()
    if not is_placed or (any(root.wish.values()) and not search.placed):
        return explain_failure(search, request, aside)
    return placement_of(search, request)


def compiled(cluster: Cluster, layout: Layout, request: GangRequest) -> Scope:
    """Return a request ready for the search; errors as of `scopes.compile_request`."""
    ruling = (RuleBook(cluster.rules, layout, request), cluster.ledger) if request.rules else None
    return compile_request(request, layout.level_of, lambda shape: cluster.request_class(shape, layout), ruling)


def placement_of(search: Search, request: GangRequest) -> Placement:
    """Return what a search that found places for all minimums, and has taken its work back, comes to."""
    runs: dict[int, list[Runs]] = {clique.index: [] for clique in search.cliques}
    for placed in search.placed:
        runs[placed.scope.index].append(placed.runs)
    merged = {index: _merged(parts) for index, parts in runs.items()}
    dealer = GpuDealer(search)
    return Placement(
        gang=request.name,
        cliques=tuple(_clique(search, clique, merged[clique.index], dealer) for clique in search.cliques),
        domains=tuple(_domains(search)),
        score=score_of(search, merged),
        reasons=tuple(_reasons(search)),
        generation=search.cluster.generation,
    )


def _merged(parts: list[Runs]) -> Runs:
    """Return a clique's runs in the order of positions, one per node."""
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return Runs(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))
    positions, where = np.unique(np.concatenate([each.positions for each in parts]), return_inverse=True)
    counts = np.zeros(len(positions), dtype=np.int64)
    np.add.at(counts, where, np.concatenate([each.counts for each in parts]))
    return Runs(positions, counts)


def _clique(search: Search, clique: Scope, runs: Runs, dealer: GpuDealer) -> CliquePlacement:
    """Return a clique's bindings in rank order, GPU ids chosen."""
    request_class = clique.request_class
    assert request_class is not None
    gpu_count = request_class.shape.amount(GPU_RESOURCE)
    states = search.cluster.rules.states
    bindings: list[PodBinding] = []
    for slot, count in zip(search.layout.slots[runs.positions].tolist(), runs.counts.tolist(), strict=True):
        state = states[slot]
        assert state is not None
        dealt = dealer.dealt(clique.index, slot, count)
        if dealt is not None:
            bindings += map(PodBinding, repeat(state.name), dealt)
        elif gpu_count:
            bindings += map(PodBinding, repeat(state.name), dealer.whole(slot, gpu_count, count))
        else:
            bindings += (PodBinding(state.name, ()),) * count
    assert len(bindings) >= clique.minimum, "all or nothing"
    return CliquePlacement(
        name=clique.name,
        shape=request_class.shape,
        minimum=clique.minimum,
        bindings=tuple(bindings),
        optional_unplaced=clique.minimum + clique.optional - len(bindings),
    )


def _domains(search: Search) -> Iterator[DomainChoice]:
    """Yield the domains of all scopes that ask for one, in request order."""
    for scope in search.root.walk():
        chosen = search.chosen.get(scope.index)
        if chosen is None or not scope.is_constrained:
            continue
        region = chosen.region
        floor = scope.required or max((search.layout.level_of(key) or 0 for key, _ in scope.within), default=0)
        if floor and region.level >= floor:
            yield _domain(search, scope, lifted(search.layout, region, floor), is_required=True, is_met=True)
        if scope.preferred is not None and scope.preferred > floor and region.level:
            level = min(scope.preferred, region.level)
            is_met = region.level >= scope.preferred
            yield _domain(search, scope, lifted(search.layout, region, level), is_required=False, is_met=is_met)


def _domain(search: Search, scope: Scope, region: Region, *, is_required: bool, is_met: bool) -> DomainChoice:
    layout = search.layout
    return DomainChoice(
        kind=scope.kind,
        scope=scope.name,
        level=layout.levels[region.level].key,
        value=layout.value_of(*region),
        path=layout.path_of(*region),
        is_required=is_required,
        is_met=is_met,
    )


def _reasons(search: Search) -> Iterator[Reason]:
    """Yield for each scope with a choice how many domains there were and how it was made."""
    for scope in search.root.walk():
        chosen = search.chosen.get(scope.index)
        if chosen is not None and (scope.is_constrained or scope is search.root):
            yield Reason(
                kind=scope.kind,
                scope=scope.name,
                level=search.layout.levels[chosen.region.level].key,
                domain=_name_of(search, chosen.region),
                domains_considered=chosen.considered,
                domains_fitting=chosen.fitting,
                tie_break=_TIE_BREAK_BY_MIX if chosen.by_mix else _TIE_BREAK,
            )


def _name_of(search: Search, region: Region) -> str:
    """Return a domain's label value, or the name of a node."""
    if region.level != search.layout.node_level:
        return search.layout.value_of(*region)
    state = search.cluster.rules.states[int(search.layout.slots[region.domain])]
    assert state is not None
    return state.name


def score_of(search: Search, merged: dict[int, Runs]) -> float:
    """Return how good a placement is, 0..1.

    With preferred levels: the mean over their scopes of (levels reached + 1) / (levels wanted + 1), counting from the
    scope's broadest legal level. Without any: the mean over cliques of (fewest hosts that could do) / (hosts used),
    where the fewest assumes that every host is as free for the shape as the freest one.
    """
    parts = []
    for scope in search.root.walk():
        chosen = search.chosen.get(scope.index)
        if chosen is not None and scope.preferred is not None:
            parts.append(min(1.0, (chosen.region.level + 1) / (scope.preferred + 1)))
    if not parts:
        for clique in search.cliques:
            runs = merged[clique.index]
            if len(runs.positions) and clique.request_class is not None:
                room = max(int(clique.request_class.everywhere[-1].max()), int(runs.counts.max()))
                parts.append(-(-int(runs.counts.sum()) // room) / len(runs.positions))
    return sum(parts) / len(parts) if parts else 1.0
