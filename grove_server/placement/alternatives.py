"""Why a gang is where it is and not beside: the next best domains, tried by themselves.

Rules: asked of a copy of the cluster without the gang's own pods, as things are now; so the answer is about today, not
about the moment of the decision, and costs placing nothing. The domains looked at are those of the level that the gang
got, tightest first: those that placement would have tried next. Each is decided by `place` within it. A domain loses
because it does not fit, because the gang would be spread more there, or because more would be left over, which is kept
for larger gangs.

Not here: the decision itself (`place`), its first sentence (`results.Reason`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from grove_server.placement.cluster import Cluster
from grove_server.placement.place import DEFAULT_BUDGET, place
from grove_server.placement.requests import Budget, CliqueRequest, DomainPath, GangRequest, GroupRequest, minimum_of
from grove_server.placement.results import Placement, short_level
from grove_server.placement.topology import IntArray, Layout

ALTERNATIVES_MAX: Final = 3
"""Domains that are tried when nobody says how many; each costs one decision."""

_EQUAL: Final = "fits as well"


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """One other domain: whether all minimums fit there, on how many nodes, with which score, and why it lost.

    `left_over`: how many more pods of the gang's largest shape there is room for than in the gang's own domain.
    """

    level: str
    domain: str
    fits: bool
    score: float
    node_count: int
    left_over: int
    why: str

    def sentence(self) -> str:
        """Return the domain and why it lost, as one sentence."""
        return f"{short_level(self.level) or 'node'} {self.domain}: {self.why}"


def alternatives(
    without: Cluster,
    request: GangRequest,
    path: DomainPath,
    *,
    count_max: int = ALTERNATIVES_MAX,
    budget: Budget = DEFAULT_BUDGET,
    is_abandoned: Callable[[], bool] = lambda: False,
) -> tuple[Alternative, ...]:
    """Return the next best domains beside the one at `path`, on a cluster without the gang's pods.

    () for a gang that is in no domain, whose domain is gone, or that a `within` leaves no choice. `is_abandoned` is
    asked before each domain; what is known so far is returned if it says so.
    """
    layout = without.layout(request.topology)
    here = layout.find(path) if path and all(key in layout.keys for key, _ in path) else ()
    if len(here) != 1 or not minimum_of(request) or _binds(request.within, path):
        return ()
    level, own = here[0]
    counts = _counts(without, request, layout, level)
    chosen = _tried(without, request, layout.path_of(level, own), budget)
    others = []
    for domain in _ranked(layout, level, counts, own, request)[:count_max]:
        if is_abandoned():
            break
        tried = _tried(without, request, layout.path_of(level, domain), budget)
        told = _told(layout, level, domain, tried, int(counts[domain]) - int(counts[own]), chosen, request)
        is_equal = told.why == _EQUAL and domain > own
        others.append(replace(told, why=f"{_EQUAL}; of equals the first by name is taken") if is_equal else told)
    return tuple(others)


def _binds(within: DomainPath, path: DomainPath) -> bool:
    """Return whether a domain that has to be kept is as narrow as the one the gang is in."""
    return bool(within) and {key for key, _ in path} <= {key for key, _ in within}


def _counts(cluster: Cluster, request: GangRequest, layout: Layout, level: int) -> IntArray:
    """Return by domain how many pods of the shape of most weight fit: int64[domains]."""
    cliques = list(_cliques(request.members))
    largest = max(cliques, key=lambda each: (each.shape.needs_gpu, each.minimum, each.name))
    counts: IntArray = cluster.request_class(largest.shape, layout).everywhere[level]
    return counts


def _ranked(layout: Layout, level: int, counts: IntArray, own: int, request: GangRequest) -> list[int]:
    """Return the other domains: those that may fit first, tightest first; then the fullest of the rest."""
    cliques = list(_cliques(request.members))
    largest = max(cliques, key=lambda each: (each.shape.needs_gpu, each.minimum, each.name))
    same = sum(each.minimum for each in cliques if each.shape == largest.shape)
    domains = np.flatnonzero(layout.levels[level].is_named)
    domains = domains[domains != own]
    fits = counts[domains] >= same
    near = domains[fits][np.argsort(counts[domains[fits]], kind="stable")]
    far = domains[~fits][np.argsort(-counts[domains[~fits]], kind="stable")]
    return [*near.tolist(), *far.tolist()]


def _tried(cluster: Cluster, request: GangRequest, path: DomainPath, budget: Budget) -> Placement | None:
    """Return the gang's placement inside of one domain, its minimums alone; None if it has none there."""
    inside = replace(request, within=path, prefer=(), members=tuple(_bare(member) for member in request.members))
    result = place(cluster, inside, budget=budget)
    return result if isinstance(result, Placement) else None


def _bare(member: CliqueRequest | GroupRequest) -> CliqueRequest | GroupRequest:
    if isinstance(member, CliqueRequest):
        return replace(member, optional=0, prefer=())
    return replace(member, prefer=(), members=tuple(_bare(each) for each in member.members))


def _told(
    layout: Layout,
    level: int,
    domain: int,
    tried: Placement | None,
    wider_by: int,
    chosen: Placement | None,
    request: GangRequest,
) -> Alternative:
    nodes = _node_count(tried)
    if tried is None:
        why = f"does not fit: there are no places for the {minimum_of(request)} pods that must run together"
    elif chosen is not None and tried.score < chosen.score:
        why = f"fits, but with score {tried.score:.2f} instead of {chosen.score:.2f}"
    elif chosen is not None and nodes > _node_count(chosen):
        why = f"fits, but on {nodes} nodes instead of {_node_count(chosen)}"
    elif wider_by > 0:
        why = f"fits, but has room for {wider_by} more pods, which is kept for larger gangs"
    elif chosen is None:
        why = "fits; the gang's own domain would not take it as it is now"
    else:
        why = _EQUAL if wider_by == 0 else f"{_EQUAL} and is tighter by now"
    return Alternative(
        level=layout.levels[level].key,
        domain=layout.value_of(level, domain),
        fits=tried is not None,
        score=tried.score if tried else 0.0,
        node_count=nodes,
        left_over=max(0, wider_by),
        why=why,
    )


def _node_count(placement: Placement | None) -> int:
    if placement is None:
        return 0
    return len({binding.node for clique in placement.cliques for binding in clique.bindings})


def _cliques(members: Sequence[CliqueRequest | GroupRequest]) -> Iterator[CliqueRequest]:
    for member in members:
        if isinstance(member, CliqueRequest):
            yield member
        else:
            yield from _cliques(member.members)
