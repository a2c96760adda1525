"""Which domains are worth trying for one scope, best first.

Rules: `within` narrows hard, `prefer` is tried first and shortened from its narrow end; preferred levels are tried from
the narrowest up to the required one. A scope of one shape needs no tests but room; for several shapes the necessary
tests of `bounds` rule domains out. Candidates are lazy: most scopes take the first.

Not here: trying them (`search`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np

from grove_server.placement.bounds import Span, in_order, passing
from grove_server.placement.choice import Region, best, least_stranding, ranked
from grove_server.placement.cluster import Cluster
from grove_server.placement.counts import Tree
from grove_server.placement.requests import DomainPath
from grove_server.placement.scopes import Scope
from grove_server.placement.topology import Layout

WHOLE: Final = Region(0, 0)
"""The whole cluster."""


class Chosen(NamedTuple):
    """The region a scope got, with the numbers behind the choice; `by_mix` if it strands the least GPU."""

    region: Region
    considered: int
    fitting: int
    by_mix: bool = False


class Candidates:
    """The candidates of one search; remembers look-ups and where the latest of alike scopes went.

    `is_exhaustive` leaves out short cuts, for the search in depth.
    """

    def __init__(self, cluster: Cluster, layout: Layout) -> None:
        self.cluster = cluster
        self.layout = layout
        self.is_exhaustive = False
        self._latest: dict[tuple[int, Region], Chosen] = {}
        self._found: dict[DomainPath, tuple[Region, ...]] = {}
        self.around: dict[str, Region] = {}
        """Where cliques have their pods so far, by name, if others want to be near them: their narrowest domain."""

    def of(self, scope: Scope, region: Region) -> Iterator[Chosen]:
        """Yield the regions worth trying for a scope, best first; each passed the necessary tests."""
        for request_class in scope.wish:
            self.cluster.refresh(request_class)
        seen: set[Region] = set()
        at_base = self._groups_domains if scope.uniform is None else self._uniform_domains
        for base in self._bases(scope, region):
            for chosen in at_base(scope, base):
                if chosen.region not in seen:
                    seen.add(chosen.region)
                    yield chosen

    def _bases(self, scope: Scope, region: Region) -> list[Region]:
        """Return where to look: the preferred domain, shortened from its narrow end, then all that `within` allows."""
        hard = self.narrowed((region,), scope.within)
        if not scope.prefer:
            return hard if not scope.near else self._near(scope, hard)
        known = tuple(pair for pair in scope.prefer if self.layout.level_of(pair[0]) is not None)
        bases = [base for cut in range(len(known), 0, -1) for base in self.narrowed(hard, known[:cut])]
        return list(dict.fromkeys(bases + hard))

    def _near(self, scope: Scope, hard: list[Region]) -> list[Region]:
        """Return the domains around the pods that a scope wants to be near, narrowest first, then all it may have."""
        centre: Region | None = None
        for name in scope.near:
            other = self.around.get(name)
            if other is not None:
                centre = other if centre is None else common(self.layout, centre, other)
        if centre is None:
            return hard
        around = [lifted(self.layout, centre, level) for level in range(centre.level, 0, -1)]
        inside = [each for each in around if any(self.is_inside(each, base) for base in hard)]
        return list(dict.fromkeys(inside + hard))

    def narrowed(self, regions: Sequence[Region], path: DomainPath) -> list[Region]:
        """Return the parts of some regions that carry a path's labels."""
        if not path:
            return list(regions)
        found = self._found.get(path)
        if found is None:
            found = self._found[path] = tuple(Region(*each) for each in self.layout.find(path))
        result = []
        for region in regions:
            start, end = self.layout.span(*region)
            for each in found:
                first, last = self.layout.span(*each)
                if start <= first and last <= end and each.level >= region.level:
                    result.append(each)
                elif first <= start and end <= last:
                    result.append(region)
        return result

    def _levels(self, scope: Scope, base: Region) -> list[int]:
        """Return the levels to try, narrowest first; the base's own level stands for the base as it is."""
        required = scope.required if scope.required is not None and scope.required > base.level else None
        broadest = base.level if required is None else required
        if scope.preferred is not None and scope.preferred > broadest:
            return list(range(scope.preferred, broadest - 1, -1))
        if required is not None or scope.uniform is None or not scope.is_plain:
            return [broadest]
        node, leaf = self.layout.node_level, self.layout.leaf_level  # The levels between repeat the nodes.
        return [node, *range(min(leaf, node) - 1, broadest - 1, -1)] if broadest < leaf else [node]

    def span(self, base: Region, level: int) -> tuple[int, int]:
        """Return the half-open range of a level's domains inside a region."""
        if level <= base.level:
            return base.domain, base.domain + 1
        return self.layout.domains_in(level, *self.layout.span(*base))

    def _groups_domains(self, scope: Scope, base: Region) -> Iterator[Chosen]:
        """Yield the domains for a scope of several cliques, level by level.

        Where the latest twin went comes first, if there is still room: filled up by that twin it is all but certainly
        the tightest, and asking one domain is a fraction of asking all. The search in depth does without.
        """
        latest = None if self.is_exhaustive else self._latest.get((scope.twin, base))
        if latest is not None:
            level, domain = latest.region
            if len(passing(self.cluster.ledger, self.layout, scope, Span(level, domain, domain + 1))):
                yield latest
        for level in self._levels(scope, base):
            span = self.span(base, level)
            domains = passing(self.cluster.ledger, self.layout, scope, Span(level, *span))
            for domain in in_order(self.layout, scope, level, domains):
                chosen = Chosen(Region(level, domain), self._named_count(level, span), len(domains))
                if not self.is_exhaustive:
                    self._latest[scope.twin, base] = chosen
                yield chosen

    def _uniform_domains(self, scope: Scope, base: Region) -> Iterator[Chosen]:
        """Yield the domains for a scope of one shape: the first that is best without ranking, then all, ranked."""
        for level, tree, pods in self._attempts(scope, base):
            span = self.span(base, level)
            least = pods if pods == scope.minimum + scope.optional else self._most(tree, level, span, scope)
            node = self._least_stranding(scope, tree, (level, *span), least)
            first = best(self.layout, tree, level, span, least) if node is None else node
            if first is None:
                continue
            fits = tree[level][span[0] : span[1]] >= pods
            if not self.layout.levels[level].is_all_named:
                fits = fits & self.layout.levels[level].is_named[span[0] : span[1]]
            considered, fitting = self._named_count(level, span), int(np.count_nonzero(fits))
            yield Chosen(Region(level, first), considered, fitting, by_mix=node is not None)
            for domain in ranked(self.layout, tree, level, span, pods).tolist():
                yield Chosen(Region(level, domain), considered, fitting)

    def _named_count(self, level: int, span: tuple[int, int]) -> int:
        """Return how many of a level's domains first .. last - 1 are domains: nodes without the label are in none."""
        named = self.layout.levels[level]
        return span[1] - span[0] if named.is_all_named else int(np.count_nonzero(named.is_named[span[0] : span[1]]))

    def _least_stranding(self, scope: Scope, tree: Tree, span: tuple[int, int, int], pods: int) -> int | None:
        """Return the node of `choice.least_stranding` among a level's domains first .. last - 1 if these are nodes."""
        level, first, last = span
        request_class = scope.uniform
        if request_class is None or request_class.stranding is None or level != self.layout.node_level:
            return None
        return least_stranding(request_class, tree, (first, last), pods)

    def _attempts(self, scope: Scope, base: Region) -> list[tuple[int, Tree, int]]:
        """Return (level, counts, pods) in the order to try them.

        All pods come before the minimum and first-choice nodes before others. Where a level is asked for, a narrower
        level outweighs both; where none is, both outweigh the level.
        """
        request_class = scope.uniform
        assert request_class is not None
        trees = (*request_class.choices, request_class.everywhere)
        most, least = scope.minimum + scope.optional, max(scope.minimum, 1)
        trees = tuple(tree for tree in trees if tree[base.level][base.domain] >= least)
        wants = (most, least) if most > least else (least,)
        levels = self._levels(scope, base)
        if scope.required is None and scope.preferred is None:
            return [(level, tree, pods) for pods in wants for tree in trees for level in levels]
        return [(level, tree, pods) for level in levels for pods in wants for tree in trees]

    def _most(self, tree: Tree, level: int, span: tuple[int, int], scope: Scope) -> int:
        """Return the most pods that one domain fits, at least the minimum (or one) and at most the wish."""
        room = tree[level][span[0] : span[1]]
        if not self.layout.levels[level].is_all_named:
            room = room * self.layout.levels[level].is_named[span[0] : span[1]]
        return min(max(int(room.max(initial=0)), scope.minimum, 1), scope.minimum + scope.optional)

    def binding_of(self, scope: Scope) -> DomainPath:
        """Return the labels that bind a scope, those of the scopes above included, each once."""
        return tuple(dict.fromkeys(pair for each in scope.lineage() for pair in each.within))

    def bases_of(self, scope: Scope) -> list[Region]:
        """Return the regions that a scope is bound to."""
        return self.narrowed([WHOLE], self.binding_of(scope))

    def is_inside(self, inner: Region, outer: Region) -> bool:
        """Return whether one region lies in another."""
        start, end = self.layout.span(*inner)
        first, last = self.layout.span(*outer)
        return first <= start and end <= last


def common(layout: Layout, one: Region, other: Region) -> Region:
    """Return the narrowest domain that holds two regions."""
    for level in range(min(one.level, other.level), 0, -1):
        lifted_one = lifted(layout, one, level)
        if lifted_one == lifted(layout, other, level):
            return lifted_one
    return WHOLE


def lifted(layout: Layout, region: Region, level: int) -> Region:
    """Return the domain of a broader (or the same) level that holds a region."""
    start, _ = layout.span(*region)
    return Region(level, int(layout.levels[level].domain_at[start]))
