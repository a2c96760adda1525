"""Finds places for all minimums of a gang: exact for one shape, a bounded search for several.

Rules: necessary tests for all candidate domains at once (room per request class, sums of resources, twins that each
need a domain of their own); candidates tightest first; siblings hardest first. When a sibling fails it is moved to the
front and the scope is tried again (conflict-driven); after that siblings' domains are tried in depth, once more with
the other host policy, all within a budget of steps. Identical candidates for identical siblings are tried once.
Work is tentative on the ledger, with an undo log, and is always taken back before the caller sees the result.
Method: the project's design notes on KAI's and Kueue's walks; the twin bound turns long searches into instant proofs.

Not here: the necessary tests (`bounds`), GPU ids and scores (`place`), words (`explain`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np

from grove_server.placement.bounds import Span, in_order, needs, passing
from grove_server.placement.choice import Region, Runs, best, fill, fill_tightest, ranked
from grove_server.placement.cluster import Cluster
from grove_server.placement.counts import Tree
from grove_server.placement.requests import DomainPath
from grove_server.placement.scopes import Scope, hardest_first
from grove_server.placement.topology import Layout

_RETRIES_MAX: Final = 4
"""Times a scope is tried again with the child that failed moved to the front."""

_SIBLINGS_IN_DEPTH_MAX: Final = 64
"""Siblings that are searched in depth; more would nest too deep and not end within any budget."""

_BLAMED_MAX: Final = 64
"""Scopes asked whether they could be placed alone."""

WHOLE: Final = Region(0, 0)


class Chosen(NamedTuple):
    """The region a scope got, with the numbers behind the choice."""

    region: Region
    considered: int
    fitting: int


class Placed(NamedTuple):
    """Pods of one clique that the search has put down; the last ones need not be taken from the ledger."""

    scope: Scope
    runs: Runs
    is_applied: bool


class Search:
    """One attempt to place a compiled request. Use `run` once, then `undo_all`."""

    def __init__(self, cluster: Cluster, layout: Layout, root: Scope, steps_max: int) -> None:
        self.cluster = cluster
        self.layout = layout
        self.root = root
        self.cliques = list(root.cliques())
        self.chosen: dict[int, Chosen] = {}
        self.placed: list[Placed] = []
        self.failed: Scope = root
        self.hopeless: Scope | None = None
        self.stopped = False
        self.steps = 0
        self._steps_max = steps_max + len(self.cliques)
        self._in_depth = False
        self._tight_hosts = False
        self._is_single = len(self.cliques) == 1
        has_optional = any(clique.optional for clique in self.cliques)
        self._puts_expected = 1 if self._is_single else 0 if has_optional else len(self.root.demanding())
        self._latest: dict[tuple[int, Region], Chosen] = {}
        self._found: dict[DomainPath, tuple[Region, ...]] = {}

    # -- minimums ------------------------------------------------------------------------------------------------

    def run(self) -> bool:
        """Place all minimums, then what fits of the optional pods; False if the minimums found no place."""
        if self.root.demand and not self._run_minimums():
            return False
        for clique in self.cliques:
            if clique.optional:
                self._extend(clique)
        return True

    def undo_all(self) -> None:
        """Take everything back from the ledger; the results stay readable."""
        for placed in reversed(self.placed):
            self._apply(placed, -1)

    def _run_minimums(self) -> bool:
        if self._solve(self.root, WHOLE):
            return True
        self.hopeless = self._find_hopeless()
        if self.is_exact or self.hopeless is not None:
            return False
        failed = self.failed
        self._in_depth = True
        for self._tight_hosts in (False, True):
            if not self.stopped and self._solve(self.root, WHOLE):
                return True
        self.failed = failed
        return False

    def _find_hopeless(self) -> Scope | None:
        """Return the narrowest scope that cannot be placed even alone; on the untouched ledger that is a proof.

        The necessary tests rule out every domain for it, and of the scopes above only `within` counts. Alike scopes are
        asked once, and of very large gangs only the first few.
        """
        found: Scope | None = None
        asked: set[tuple[int, DomainPath]] = set()
        for scope in self.root.walk():
            key = (scope.twin, self.binding_of(scope))
            if not scope.demand or key in asked or (found is not None and found not in scope.lineage()):
                continue
            if len(asked) >= _BLAMED_MAX:
                break
            asked.add(key)
            above = self.bases_of(scope.parent) if scope.parent is not None else [WHOLE]
            if all(next(self.candidates(scope, region), None) is None for region in above):
                found = scope
        return found

    def binding_of(self, scope: Scope) -> DomainPath:
        """Return the labels that bind a scope, those of the scopes above included, each once."""
        return tuple(dict.fromkeys(pair for each in scope.lineage() for pair in each.within))

    def bases_of(self, scope: Scope) -> list[Region]:
        """Return the regions that a scope is bound to."""
        return self.narrowed([WHOLE], self.binding_of(scope))

    @property
    def is_exact(self) -> bool:
        """Return whether the candidates tried are all there are: one shape, or one constrained scope at most."""
        return self._is_single or (self.root.is_plain and len(self.root.wish) == 1)

    def _solve(self, scope: Scope, region: Region) -> bool:
        """Place a scope's minimums somewhere in a region; leaves nothing behind if it cannot."""
        if not scope.demand:
            return True
        tried: set[tuple[object, ...]] = set()
        for chosen in self.candidates(scope, region):
            if tried and self._profile(scope, chosen.region) in tried:
                continue
            mark = len(self.placed)
            if self._fill(scope, chosen.region):
                self.chosen[scope.index] = chosen
                return True
            self._undo_to(mark)
            if self.stopped:
                return False
            tried.add(self._profile(scope, chosen.region))
        if not tried:
            self.failed = scope
        return False

    def _fill(self, scope: Scope, region: Region) -> bool:
        request_class = scope.uniform
        if request_class is None or not scope.is_plain:
            return self._fill_children(scope, region)
        self.steps += 1
        if self.steps > self._steps_max:
            self.stopped = True
            return False
        pods = scope.minimum
        if self._is_single and scope.optional:
            pods += min(scope.optional, int(request_class.everywhere[region.level][region.domain]) - pods)
        how = fill_tightest if self._tight_hosts else fill
        self._deal(scope, how(request_class, region, pods), pods)
        return True

    def _deal(self, scope: Scope, runs: Runs, pods: int) -> None:
        """Give the places of a plain scope to its cliques, in request order, so that each has consecutive ones."""
        cliques = scope.demanding()
        is_last = len(self.placed) + len(cliques) == self._puts_expected and pods == scope.minimum + scope.optional
        if len(cliques) == 1:
            self._put(cliques[0], runs, is_last=is_last)
            return
        places = np.repeat(runs.positions, runs.counts)
        for clique in cliques:
            positions, counts = np.unique(places[: clique.minimum], return_counts=True)
            places = places[clique.minimum :]
            self._put(clique, Runs(positions, counts), is_last=is_last)

    def _fill_children(self, scope: Scope, region: Region) -> bool:
        order = hardest_first(scope.children) if len(scope.children) > 1 else list(scope.children)
        mark = len(self.placed)
        for _ in range(1 + min(len(order) - 1, _RETRIES_MAX)):
            failed = next((child for child in order if not self._solve(child, region)), None)
            if failed is None:
                return True
            self._undo_to(mark)
            if self.stopped or failed is order[0]:
                break
            order.remove(failed)
            order.insert(0, failed)
        if not self._in_depth or self.stopped or not 1 < len(order) <= _SIBLINGS_IN_DEPTH_MAX:
            return False
        return self._solve_in_depth(order, region)

    def _solve_in_depth(self, order: list[Scope], region: Region) -> bool:
        """Place siblings with chronological backtracking over their candidate domains."""
        if not order:
            return True
        scope, rest = order[0], order[1:]
        if not scope.demand:
            return self._solve_in_depth(rest, region)
        tried: set[tuple[object, ...]] = set()
        for chosen in self.candidates(scope, region):
            profile = self._profile(scope, chosen.region)
            if profile in tried:
                continue
            tried.add(profile)
            mark = len(self.placed)
            if self._fill(scope, chosen.region):
                self.chosen[scope.index] = chosen
                if self._solve_in_depth(rest, region):
                    return True
            self._undo_to(mark)
            if self.stopped:
                return False
        if not tried:
            self.failed = scope
        return False

    def _profile(self, scope: Scope, region: Region) -> tuple[object, ...]:
        """Return what makes two candidates alike: their parent, and what is free and allowed on each of their nodes."""
        if self._is_single or region.level == 0:
            return region
        start, end = self.layout.span(*region)
        parent = int(self.layout.levels[region.level].parents[region.domain])
        free = self.cluster.ledger.free[sorted(needs(scope))][:, self.layout.slots[start:end]]
        allowed = [each.eligible[start:end] for each in scope.demand]
        nodes = sorted(map(tuple, np.vstack([free, *allowed]).T.tolist()))
        return (region.level, parent, *nodes)

    # -- candidates ----------------------------------------------------------------------------------------------

    def candidates(self, scope: Scope, region: Region) -> Iterator[Chosen]:
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
            return hard
        known = tuple(pair for pair in scope.prefer if self.layout.level_of(pair[0]) is not None)
        bases = [base for cut in range(len(known), 0, -1) for base in self.narrowed(hard, known[:cut])]
        return list(dict.fromkeys(bases + hard))

    def narrowed(self, regions: tuple[Region, ...] | list[Region], path: DomainPath) -> list[Region]:
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
        latest = None if self._in_depth else self._latest.get((scope.twin, base))
        if latest is not None:
            level, domain = latest.region
            if len(passing(self.cluster.ledger, self.layout, scope, Span(level, domain, domain + 1))):
                yield latest
        for level in self._levels(scope, base):
            span = self.span(base, level)
            domains = passing(self.cluster.ledger, self.layout, scope, Span(level, *span))
            for domain in in_order(self.layout, scope, level, domains):
                chosen = Chosen(Region(level, domain), span[1] - span[0], len(domains))
                if not self._in_depth:
                    self._latest[scope.twin, base] = chosen
                yield chosen

    def _uniform_domains(self, scope: Scope, base: Region) -> Iterator[Chosen]:
        """Yield the domains for a scope of one shape: the first that is best without ranking, then all, ranked."""
        for level, tree, pods in self._attempts(scope, base):
            span = self.span(base, level)
            least = pods if pods == scope.minimum + scope.optional else self._most(tree, level, span, scope)
            first = best(self.layout, tree, level, span, least)
            if first is None:
                continue
            fitting = int(np.count_nonzero(tree[level][span[0] : span[1]] >= pods))
            yield Chosen(Region(level, first), span[1] - span[0], fitting)
            for domain in ranked(self.layout, tree, level, span, pods).tolist():
                yield Chosen(Region(level, domain), span[1] - span[0], fitting)

    def _attempts(self, scope: Scope, base: Region) -> list[tuple[int, Tree, int]]:
        """Return (level, counts, pods) in the order to try them.

        All pods come before the minimum and first-choice nodes before others. Where a level is asked for, a narrower
        level outweighs both; where none is, both outweigh the level.
        """
        request_class = scope.uniform
        assert request_class is not None
        everywhere, first_choice = request_class.everywhere, request_class.first_choice
        most, least = scope.minimum + scope.optional, max(scope.minimum, 1)
        trees = [tree for tree in (first_choice, everywhere) if tree and tree[base.level][base.domain] >= least]
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

    # -- optional pods -----------------------------------------------------------------------------------------------

    def _extend(self, clique: Scope) -> None:
        """Place as many of a clique's optional pods as fit where its minimum may be; never fails."""
        request_class = clique.request_class
        assert request_class is not None
        placed = sum(int(each.runs.counts.sum()) for each in self.placed if each.scope is clique)
        left = clique.minimum + clique.optional - placed
        for region in self._extension_regions(clique) if left else ():
            self.cluster.refresh(request_class)
            pods = min(left, int(request_class.everywhere[region.level][region.domain]))
            if pods:
                left -= pods
                self._put(clique, fill(request_class, region, pods), is_last=self._is_single and not left)

    def _extension_regions(self, clique: Scope) -> list[Region]:
        """Return where optional pods may go: near the minimums first, at last all of the domain that is required."""
        bound, near = WHOLE, [WHOLE]
        for scope in clique.lineage():
            is_bound = scope.required is not None and scope.required > bound.level
            hard = self.narrowed((bound,), scope.within)
            if not hard:
                return []
            bound = hard[0]
            if scope.index not in self.chosen and (is_bound or scope is clique):
                chosen = next((each for base in hard for each in self.candidates(scope, base)), None)
                if chosen is None:
                    return []
                self.chosen[scope.index] = chosen
            if scope.index in self.chosen:
                own = self.chosen[scope.index].region
                bound = next(each for each in hard if self._is_inside(own, each))
                if is_bound and scope.required is not None:
                    bound = lifted(self.layout, own, scope.required)
                near.append(own)
            near.append(bound)
        inside = [region for region in reversed(near) if self._is_inside(region, bound)]
        return sorted(dict.fromkeys(inside), key=lambda region: -region.level)

    def _is_inside(self, inner: Region, outer: Region) -> bool:
        start, end = self.layout.span(*inner)
        first, last = self.layout.span(*outer)
        return first <= start and end <= last

    # -- tentative work ----------------------------------------------------------------------------------------------

    def _put(self, scope: Scope, runs: Runs, *, is_last: bool) -> None:
        placed = Placed(scope, runs, not is_last)
        self.placed.append(placed)
        self._apply(placed, 1)

    def _undo_to(self, mark: int) -> None:
        while len(self.placed) > mark:
            self._apply(self.placed.pop(), -1)

    def _apply(self, placed: Placed, sign: int) -> None:
        if not placed.is_applied:
            return
        request_class = placed.scope.request_class
        assert request_class is not None
        ledger = self.cluster.ledger
        if len(placed.runs.positions) == 1:
            slot, count = int(self.layout.slots[placed.runs.positions[0]]), int(placed.runs.counts[0]) * sign
            for row, amount in request_class.costs or ():
                ledger.free[row, slot] -= amount * count
            ledger.changes.add(slot)
            return
        slots = self.layout.slots[placed.runs.positions]
        counts = placed.runs.counts * sign
        for row, amount in request_class.costs or ():
            ledger.free[row][slots] -= amount * counts
        ledger.changes.extend(slots.tolist())


def lifted(layout: Layout, region: Region, level: int) -> Region:
    """Return the domain of a broader (or the same) level that holds a region."""
    start, _ = layout.span(*region)
    return Region(level, int(layout.levels[level].domain_at[start]))
