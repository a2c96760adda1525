"""Finds places for all minimums of a gang: exact for one shape, a bounded search for several.

Rules: necessary tests for all candidate domains at once (room per request class, sums of resources, twins that each
need a domain of their own); candidates tightest first; siblings hardest first. When a sibling fails it is moved to the
front and the scope is tried again (conflict-driven); after that siblings are searched in depth on plain numbers
(`siblings`), or where these cannot say it by backtracking on the ledger, once more with the other host policy, all
within a budget of calibrated work. Identical candidates for identical siblings are tried once.
Work is tentative on the ledger, with an undo log, and is always taken back before the caller sees the result.
Method: the project's design notes on KAI's and Kueue's walks; the twin bound turns long searches into instant proofs.

Not here: which domains to try (`candidates`), the necessary tests (`bounds`), GPU ids and scores (`place`), words
(`explain`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

import numpy as np

from grove_server.placement.bounds import needs
from grove_server.placement.candidates import WHOLE, Candidates, Chosen, common, lifted
from grove_server.placement.choice import Region, Runs, fill, fill_tightest
from grove_server.placement.cluster import Cluster
from grove_server.placement.counts import RequestClass
from grove_server.placement.ledger import GPU_ROW
from grove_server.placement.requests import DomainPath
from grove_server.placement.ruled_counts import RuledClass
from grove_server.placement.ruled_fill import fill_ruled
from grove_server.placement.scopes import Scope, hardest_first
from grove_server.placement.shares import OpenMilli
from grove_server.placement.siblings import StartOver, hindering, is_searchable, search_in_depth, weights_of
from grove_server.placement.topology import Layout
from grove_server.placement.work import STEP_US, Work

_RETRIES_MAX: Final = 4
"""Times a scope is tried again with the child that failed moved to the front."""

_SIBLINGS_IN_DEPTH_MAX: Final = 64
"""Siblings that are backtracked over; more would nest too deep and not end within any budget."""

_PASS_STEPS: Final = 4
"""Steps per clique that are there however small the budget, for one straight pass."""

_FILL_US: Final = 60
_TRY_US: Final = 30
_TRY_CLASS_US: Final = 15
_CELLS_PER_US: Final = 100
"""What a clique put down costs, and what the candidates of a scope cost: once, per class, per node and class."""

_DEPTH_SHARES: Final = (0.3, 0.5)
"""Share of the work left that one region is searched in depth for, by round: every region gets its turn soon."""

_FEW: Final = 16
"""Up to so many optional pods that rules bind every number is tried, above it the halves."""

_BLAMED_MAX: Final = 64
"""Scopes asked whether they could be placed alone."""


class Placed(NamedTuple):
    """Pods of one clique that the search has put down; the last ones need not be taken from the ledger.

    `undo` has per slot, in order, what takes shares of GPUs back.
    """

    scope: Scope
    runs: Runs
    is_applied: bool
    undo: list[tuple[int, tuple[OpenMilli, int]]]


class Search:
    """One attempt to place a compiled request. Use `run` once, then `undo_all`."""

    def __init__(self, cluster: Cluster, layout: Layout, root: Scope, steps_max: int) -> None:
        self.cluster = cluster
        self.layout = layout
        self.root = root
        self.candidates = Candidates(cluster, layout)
        self.book = root.book
        self.cliques = list(root.cliques())
        self._centres = {name for clique in self.cliques for name in clique.near}
        self.chosen: dict[int, Chosen] = {}
        self.placed: list[Placed] = []
        self.failed: Scope = root
        self.hopeless: Scope | None = None
        self.stopped = False
        self.work = Work(STEP_US * max(steps_max, _PASS_STEPS * len(self.cliques)))
        self._round = 0
        self._weights: dict[tuple[int, Region], list[int]] = {}
        self._unfinished = False
        self._searched: set[tuple[int, Region]] = set()
        self._tight_hosts = False
        self._is_single = len(self.cliques) == 1
        has_optional = any(clique.optional for clique in self.cliques)
        self._puts_expected = 1 if self._is_single else 0 if has_optional else len(self.root.demanding())

    # -- minimums ------------------------------------------------------------------------------------------------

    def run(self) -> bool:
        """Place all minimums, then what fits of the optional pods; False if the minimums found no place."""
        if self.root.demand and not self._run_minimums():
            return False
        for clique in self.cliques:
            if clique.optional:
                self._extend(clique)
        return self.book is None or self.book.is_kept()

    def accept(self, found: Iterable[tuple[Scope, Runs]]) -> bool:
        """Take over places for all minimums that something else found, then place what fits of the optional pods.

        Return False if the minimums do not fit. What else they have to keep to is not checked: whoever calls this asks
        `violations` afterwards.
        """
        for clique, runs in found:
            self._put(clique, runs, is_last=False)
        slots = [self.layout.slots[placed.runs.positions] for placed in self.placed]
        if not slots or (self.cluster.ledger.free[sorted(needs(self.root))][:, np.concatenate(slots)] < 0).any():
            return False
        first_at = {placed.scope.index: int(placed.runs.positions[0]) for placed in self.placed}
        for scope in self.root.walk():
            cliques = [clique.index for clique in scope.demanding() if clique.index in first_at]
            if cliques and (scope.required is not None or scope is self.root):
                node = Region(self.layout.node_level, first_at[cliques[0]])
                region = lifted(self.layout, node, scope.required or 0)
                count = self.layout.levels[region.level].count
                self.chosen[scope.index] = Chosen(region, count, count)
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
        self.candidates.is_exhaustive = True
        for self._round in range(len(_DEPTH_SHARES)):
            self._tight_hosts = self._round % 2 == 1
            if self.stopped or (self._round > 1 and not self._unfinished):
                break
            if self._solve(self.root, WHOLE):
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
            key = (scope.twin, self.candidates.binding_of(scope))
            if not scope.demand or key in asked or (found is not None and found not in scope.lineage()):
                continue
            if len(asked) >= _BLAMED_MAX:
                break
            asked.add(key)
            above = self.candidates.bases_of(scope.parent) if scope.parent is not None else [WHOLE]
            if all(next(self.candidates.of(scope, region), None) is None for region in above):
                found = scope
        return found

    @property
    def steps(self) -> int:
        """Return how many steps were taken."""
        return self.work.steps

    @property
    def is_exact(self) -> bool:
        """Return whether the candidates tried are all there are: one shape, or one constrained scope at most."""
        is_bounded = any(isinstance(each, RuledClass) and not each.is_exact for each in self.root.wish)
        return not is_bounded and (self._is_single or (self.root.is_plain and len(self.root.wish) == 1))

    def _solve(self, scope: Scope, region: Region) -> bool:
        """Place a scope's minimums somewhere in a region; leaves nothing behind if it cannot."""
        if not scope.demand:
            return True
        self._charge(scope, region)
        tried: set[tuple[object, ...]] = set()
        for chosen in self.candidates.of(scope, region):
            if tried and self._profile(scope, chosen.region) in tried:
                continue
            mark = len(self.placed)
            if self._fill(scope, chosen.region) and self._is_kept_by(scope):
                self.chosen[scope.index] = chosen
                return True
            self._undo_to(mark)
            if self.stopped:
                return False
            tried.add(self._profile(scope, chosen.region))
        if not tried:
            self.failed = scope
        return False

    def _is_kept_by(self, scope: Scope) -> bool:
        """Return whether all pods are near those they have to be near; known when the whole gang has its places."""
        return self.book is None or scope is not self.root or self.book.is_kept()

    def _fill(self, scope: Scope, region: Region) -> bool:
        request_class = scope.uniform
        if request_class is None or not scope.is_plain:
            return self._fill_children(scope, region)
        self.work.spend(_FILL_US * len(scope.children or (scope,)))
        if self.work.is_spent:
            self.stopped = True
            return False
        pods = scope.minimum
        if self._is_single and scope.optional:
            pods += min(scope.optional, int(request_class.everywhere[region.level][region.domain]) - pods)
        if isinstance(request_class, RuledClass):
            runs = fill_ruled(request_class, region, pods, is_tight=self._tight_hosts)
            if runs is None and pods > scope.minimum:
                pods = scope.minimum
                runs = fill_ruled(request_class, region, pods)
            if runs is None:
                return False
            self._deal(scope, runs, pods)
            return True
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
        places = list(zip(runs.positions.tolist(), runs.counts.tolist(), strict=True))[::-1]
        for clique in cliques:
            mine, left = [], clique.minimum
            while left:
                position, room = places.pop()
                mine.append((position, min(left, room)))
                if room > left:
                    places.append((position, room - left))
                left -= mine[-1][1]
            positions, counts = np.array(mine, dtype=np.int64).T
            self._put(clique, Runs(positions, counts), is_last=is_last)

    def _fill_children(self, scope: Scope, region: Region) -> bool:
        if self.candidates.is_exhaustive and is_searchable(self.layout, scope.children, region):
            return self._search_in_depth(scope, region)
        order = hardest_first(scope.children) if len(scope.children) > 1 else list(scope.children)
        mark = len(self.placed)
        retries = 1 if is_searchable(self.layout, order, region) else _RETRIES_MAX
        for _ in range(1 + min(len(order) - 1, retries)):
            failed = next((child for child in order if not self._solve(child, region)), None)
            if failed is None:
                return True
            self._undo_to(mark)
            if self.stopped or failed is order[0]:
                break
            order.remove(failed)
            order.insert(0, failed)
        if not self.candidates.is_exhaustive or self.stopped or not 1 < len(order) <= _SIBLINGS_IN_DEPTH_MAX:
            return False
        return self._solve_in_depth(order, region)

    def _search_in_depth(self, scope: Scope, region: Region) -> bool:
        """Place a scope's children by the search in depth, if that has not seen all there is in the region."""
        key = (scope.index, region)
        if key in self._searched:
            return False
        weights = self._weights.setdefault(key, weights_of(scope.children))
        start_over = StartOver(Work(int(self.work.left * _DEPTH_SHARES[self._round])), self._round, weights)
        answers = search_in_depth(self.cluster, self.candidates, scope.children, region, start_over)
        self.work.spend(start_over.work.total - start_over.work.left)
        if answers is None:
            self.failed = hindering(scope.children, weights)
            if start_over.work.is_spent:
                self._unfinished = True
            else:
                self._searched.add(key)
            self.stopped = self.work.is_spent
            return False
        for child, at, considered, runs in answers:
            for below in child.walk():
                self.chosen.pop(below.index, None)  # Of an earlier try, and perhaps elsewhere.
            self.chosen[child.index] = Chosen(at, considered, considered)
            for clique, places in runs:
                self._put(clique, places, is_last=False)
        return True

    def _charge(self, scope: Scope, region: Region) -> None:
        """Charge what it costs to find a scope's candidates."""
        start, end = self.layout.span(*region)
        classes = len(scope.demand)
        self.work.spend(_TRY_US + _TRY_CLASS_US * classes + (end - start) * classes // _CELLS_PER_US)

    def _solve_in_depth(self, order: list[Scope], region: Region) -> bool:
        """Place siblings with chronological backtracking over their candidate domains."""
        if not order:
            return True
        scope, rest = order[0], order[1:]
        if not scope.demand:
            return self._solve_in_depth(rest, region)
        self._charge(scope, region)
        tried: set[tuple[object, ...]] = set()
        for chosen in self.candidates.of(scope, region):
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
        if self._is_single or region.level == 0 or self.book is not None:
            return region
        start, end = self.layout.span(*region)
        parent = int(self.layout.levels[region.level].parents[region.domain])
        free = self.cluster.ledger.free[sorted(needs(scope))][:, self.layout.slots[start:end]]
        allowed = [each.eligible[start:end] for each in scope.demand]
        nodes = sorted(map(tuple, np.vstack([free, *allowed]).T.tolist()))
        if any(each.shape.gpu_milli for each in scope.demand):
            # The rows of shares are sorted already, and padded alike.
            shares = self.cluster.ledger.shares.rows(self.layout.slots[start:end])
            whole = self.cluster.ledger.free[GPU_ROW][self.layout.slots[start:end]]
            nodes = sorted(map(tuple, np.vstack([free, *allowed, whole, shares.T]).T.tolist()))
        return (region.level, parent, *nodes)

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
            runs = self._filled(request_class, region, pods) if pods else None
            if runs is not None:
                pods = int(runs.counts.sum())
                left -= pods
                self._put(clique, runs, is_last=self._is_single and not left)

    def _filled(self, request_class: RequestClass, region: Region, pods: int) -> Runs | None:
        """Return the nodes for as many of some optional pods as there are places for; None if there is none."""
        if not isinstance(request_class, RuledClass):
            return fill(request_class, region, pods)
        some = {*range(1, min(pods, _FEW) + 1), *(pods >> half for half in range(pods.bit_length()))}
        found = (fill_ruled(request_class, region, count) for count in sorted(some, reverse=True))
        return next((runs for runs in found if runs is not None), None)

    def _extension_regions(self, clique: Scope) -> list[Region]:
        """Return where optional pods may go: near the minimums first, at last all of the domain that is required."""
        bound, near = WHOLE, [WHOLE]
        for scope in clique.lineage():
            is_bound = scope.required is not None and scope.required > bound.level
            hard = self.candidates.narrowed((bound,), scope.within)
            if not hard:
                return []
            bound = hard[0]
            if scope.index not in self.chosen and (is_bound or scope is clique):
                chosen = next((each for base in hard for each in self.candidates.of(scope, base)), None)
                if chosen is None:
                    return []
                self.chosen[scope.index] = chosen
            elif scope.within:
                self.chosen.setdefault(scope.index, Chosen(bound, len(hard), len(hard)))
            if scope.index in self.chosen:
                own = self.chosen[scope.index].region
                bound = next(each for each in hard if self.candidates.is_inside(own, each))
                if is_bound and scope.required is not None:
                    bound = lifted(self.layout, own, scope.required)
                near.append(own)
            near.append(bound)
        inside = [region for region in reversed(near) if self.candidates.is_inside(region, bound)]
        return sorted(dict.fromkeys(inside), key=lambda region: -region.level)

    # -- tentative work ----------------------------------------------------------------------------------------------

    def _put(self, scope: Scope, runs: Runs, *, is_last: bool) -> None:
        placed = Placed(scope, runs, not is_last or self.book is not None, [])
        self.placed.append(placed)
        self._apply(placed, 1)
        if scope.name in self._centres:
            self._note_centre(scope.name)

    def _note_centre(self, name: str) -> None:
        """Note the narrowest domain around all pods of a clique."""
        around = self.candidates.around
        around.pop(name, None)
        for placed in self.placed:
            if placed.scope.name == name:
                first, last = int(placed.runs.positions[0]), int(placed.runs.positions[-1])
                for position in (first, last):  # Positions are in the order of domains: these two span the rest.
                    node = Region(self.layout.node_level, position)
                    around[name] = common(self.layout, around.get(name, node), node)

    def _undo_to(self, mark: int) -> None:
        while len(self.placed) > mark:
            gone = self.placed.pop()
            self._apply(gone, -1)
            if gone.scope.name in self._centres:
                self._note_centre(gone.scope.name)

    def _apply(self, placed: Placed, sign: int) -> None:
        if not placed.is_applied:
            return
        request_class = placed.scope.request_class
        assert request_class is not None
        ledger = self.cluster.ledger
        if self.book is not None and self.book.concerns(placed.scope.name):
            self.book.move(placed.scope.name, placed.runs.positions, placed.runs.counts * sign)
        if request_class.shape.gpu_milli:
            self._apply_shares(placed, request_class.shape.gpu_milli, sign)
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

    def _apply_shares(self, placed: Placed, milli: int, sign: int) -> None:
        """Take shares of GPUs, or put back what was there before; work is undone in reverse order, so that is exact."""
        ledger = self.cluster.ledger
        if sign > 0:
            slots = self.layout.slots[placed.runs.positions].tolist()
            for slot, count in zip(slots, placed.runs.counts.tolist(), strict=True):
                placed.undo.append((slot, ledger.try_shares(slot, milli, count)))
        else:
            while placed.undo:
                ledger.untry_shares(*placed.undo.pop())
