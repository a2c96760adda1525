"""From scopes and arrays to the search in depth, and its answer back to nodes.

Rules: siblings can be searched in depth if none has levels of its own further below and what their pods cost is whole
amounts per node; the copy has the rows and nodes that matter and nothing else. Preferred levels and preferred domains
have been tried before, so here only what is required counts.

Not here: the search (`depth`), when it is asked for (`search`).
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from grove_server.placement.bounds import needs
from grove_server.placement.candidates import Candidates
from grove_server.placement.choice import Region, Runs
from grove_server.placement.cluster import Cluster
from grove_server.placement.counts import RequestClass
from grove_server.placement.depth import Depth, Found, Sibling
from grove_server.placement.packing import Load, Nodes, Place
from grove_server.placement.ruled_counts import RuledClass
from grove_server.placement.scopes import Scope
from grove_server.placement.topology import Layout
from grove_server.placement.work import Work

SIBLINGS_MAX: Final = 64
"""Siblings that are searched in depth; with more a branch would not end within any budget."""

NODES_MAX: Final = 2_048
"""Nodes of a region that are copied for it."""


class Answer(NamedTuple):
    """Where one sibling goes: its region, how many regions there were, and the nodes of each of its cliques."""

    scope: Scope
    region: Region
    considered: int
    runs: list[tuple[Scope, Runs]]


class StartOver(NamedTuple):
    """What one start of a search in depth may do and knows of earlier ones; `weights` has one number per sibling."""

    work: Work
    turn: int
    weights: list[int]


def weights_of(children: list[Scope]) -> list[int]:
    """Return the weights of a first start."""
    return [1] * len(_demanding(children))


def hindering(children: list[Scope], weights: list[int]) -> Scope:
    """Return the sibling that was most in the way."""
    return _demanding(children)[weights.index(max(weights))]


def is_searchable(layout: Layout, children: list[Scope], region: Region) -> bool:
    """Return whether siblings in a region can be searched in depth at all."""
    start, end = layout.span(*region)
    demanding = _demanding(children)
    return (
        1 < len(demanding) <= SIBLINGS_MAX
        and end - start <= NODES_MAX
        and all(child.is_plain for child in demanding)
        and not any(
            each.shape.gpu_milli or isinstance(each, RuledClass) for child in demanding for each in child.demand
        )
    )


def search_in_depth(
    cluster: Cluster, candidates: Candidates, children: list[Scope], region: Region, start_over: StartOver
) -> list[Answer] | None:
    """Return where all siblings go; None if no place was found, or the work is spent."""
    demanding = _demanding(children)
    classes: dict[RequestClass, int] = {}
    for child in demanding:
        for request_class in child.demand:
            classes.setdefault(request_class, len(classes))
    start, end = candidates.layout.span(*region)
    siblings = [_sibling(candidates, child, region, classes) for child in demanding]
    start_over.work.spend((end - start) * (2 + len(classes)))
    nodes = _nodes(cluster, candidates.layout, demanding[0].parent or demanding[0], (start, end), classes)
    found = Depth(nodes, siblings, start_over.work, start_over.turn, start_over.weights).run()
    if found is None:
        return None
    return [
        Answer(child, each.region, len(sibling.places), _dealt(child, each, classes, start))
        for child, sibling, each in zip(demanding, siblings, found, strict=True)
    ]


def _demanding(children: list[Scope]) -> list[Scope]:
    return [child for child in children if child.demand]


def _sibling(candidates: Candidates, child: Scope, region: Region, classes: dict[RequestClass, int]) -> Sibling:
    layout = candidates.layout
    origin, _ = layout.span(*region)
    places: dict[Region, Place] = {}
    for base in candidates.narrowed((region,), child.within):
        level = max(base.level, child.required or 0)
        for domain in range(*candidates.span(base, level)):
            if level == base.level or layout.levels[level].is_named[domain]:
                first, last = layout.span(level, domain)
                places[Region(level, domain)] = (first - origin, last - origin)
    load = Load(tuple((classes[request_class], pods) for request_class, pods in child.demand.items()))
    return Sibling(twin=child.twin, load=load, places=tuple(places.items()))


def _nodes(
    cluster: Cluster, layout: Layout, parent: Scope, span: tuple[int, int], classes: dict[RequestClass, int]
) -> Nodes:
    start, end = span
    rows = sorted(needs(parent))
    number = {row: i for i, row in enumerate(rows)}
    free = cluster.ledger.free[rows][:, layout.slots[start:end]].T.tolist()
    costs = [tuple((number[row], amount) for row, amount in each.costs or ()) for each in classes]
    allowed = [each.eligible[start:end].tolist() if each.costs else [False] * (end - start) for each in classes]
    return Nodes(free, costs, allowed)


def _dealt(child: Scope, found: Found, classes: dict[RequestClass, int], start: int) -> list[tuple[Scope, Runs]]:
    """Give the places of each class to the cliques of that class, in request order, ascending nodes."""
    numbers = {number: request_class for request_class, number in classes.items()}
    left: dict[RequestClass, list[list[int]]] = {}
    for kind, node, pods in sorted(found.filling, reverse=True):
        left.setdefault(numbers[kind], []).append([node + start, pods])
    dealt = []
    for clique in child.demanding():
        assert clique.request_class is not None
        places, wanted, mine = left[clique.request_class], clique.minimum, []
        while wanted:
            place = places[-1]
            count = min(wanted, place[1])
            mine.append((place[0], count))
            place[1] -= count
            wanted -= count
            if not place[1]:
                places.pop()
        positions, counts = np.array(mine, dtype=np.int64).T
        dealt.append((clique, Runs(positions, counts)))
    return dealt
