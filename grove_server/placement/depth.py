"""Finds places for siblings that compete for the same few domains: a search in depth on plain numbers.

Rules: works on a copy of one region's free amounts, so that a step costs microseconds and nothing is ever taken back
from the ledger. The sibling with the fewest domains left goes next, weighted by how often it was the one without any
(dom/wdeg of Boussemart et al., ECAI 2004). A branch ends at once when a sibling has no domain left (forward checking;
cheap, because only the domain that was just filled is looked at again), or when what is free on nodes that are still
of use does not add up to what is left to place. A domain can be filled in several ways (`packing`), domains whose nodes
look alike count once. `turn` says which way comes first, so that a search that is started again takes other branches;
weights go along. What is not found may still exist.

Not here: siblings with levels of their own further below, and amounts that are not whole ones per node; for these
`search` backtracks on the ledger. Copying and bringing back is the part of `siblings`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from grove_server.placement.choice import Region
from grove_server.placement.packing import WAYS_MAX, Filling, Load, Nodes, Place, Ways
from grove_server.placement.work import Work


@dataclass(frozen=True, slots=True, kw_only=True)
class Sibling:
    """One scope to place: its pods by class, and the domains that may hold it; alike siblings share `twin`."""

    twin: int
    load: Load
    places: tuple[tuple[Region, Place], ...]


class Found(NamedTuple):
    """Where one sibling goes: its domain and how many pods of each class on which node."""

    region: Region
    filling: Filling


class Depth:
    """One search in depth; `run` may be called once. `weights` are those of an earlier start, and go on counting."""

    def __init__(self, nodes: Nodes, siblings: Sequence[Sibling], work: Work, turn: int, weights: list[int]) -> None:
        self._nodes = nodes
        self._siblings = siblings
        self._loads = [nodes.in_order(each.load) for each in siblings]
        self._work = work
        self._turn = turn
        self._weights = weights
        edges = sorted({edge for each in siblings for _, place in each.places for edge in place})
        self._atoms = list(pairwise(edges))
        number = {edge: i for i, edge in enumerate(edges)}
        self._atoms_of = {place: (number[place[0]], number[place[1]]) for each in siblings for _, place in each.places}
        self._versions = [0] * len(self._atoms)
        self._version = 0
        self._ways: dict[tuple[object, ...], Ways] = {}
        self._useful: dict[tuple[int, int, int], list[int]] = {}
        self._found: dict[int, Found] = {}

    def run(self) -> list[Found] | None:
        """Return a place for every sibling in their order; None if none was found (or `work` is spent)."""
        todo = list(range(len(self._siblings)))
        return [self._found[index] for index in todo] if self._place(todo) else None

    def _place(self, todo: list[int]) -> bool:
        if not todo:
            return True
        if not self._adds_up(todo):
            return False
        index, options = self._hardest(todo)
        if not options:
            self._weights[index] += 1
            return False
        rest = [each for each in todo if each != index]
        for region, place, filling in self._in_order(index, options):
            if self._work.is_spent:
                return False
            self._nodes.move(filling, 1)
            before = self._renew(place)
            self._found[index] = Found(region, filling)
            if self._place(rest):
                return True
            self._nodes.move(filling, -1)
            first, last = self._atoms_of[place]
            self._versions[first:last] = before
        return False

    def _hardest(self, todo: list[int]) -> tuple[int, list[tuple[Region, Place]]]:
        """Return the sibling to place next with the domains that can still hold it."""
        best: tuple[float, int] | None = None
        chosen: list[tuple[Region, Place]] = []
        for index in todo:
            options = [each for each in self._siblings[index].places if self._way(index, each[1], 0) is not None]
            rank = (len(options) / self._weights[index], index)
            if best is None or rank < best:
                best, chosen = rank, options
            if not options:
                break
        assert best is not None
        return best[1], chosen

    def _way(self, index: int, place: Place, number: int) -> Filling | None:
        """Return one way to fill a domain as it is now with a sibling; None if there are not so many."""
        first, last = self._atoms_of[place]
        key = (self._siblings[index].twin, first, *self._versions[first:last])
        found = self._ways.get(key)
        if found is None:
            found = self._ways[key] = Ways(self._nodes, place, self._loads[index], self._turn, self._work)
        return found.get(number, self._nodes, self._work)

    def _in_order(self, index: int, options: list[tuple[Region, Place]]) -> Iterator[tuple[Region, Place, Filling]]:
        """Yield the ways to place a sibling, the tightest domain first, alike domains once, all first ways first."""
        profiles: dict[tuple[object, ...], tuple[Region, Place]] = {}
        for region, place in options:
            profiles.setdefault((region.level, *self._nodes.profile(place)), (region, place))
            self._work.spend(1 + place[1] - place[0])
        distinct = sorted(profiles.values(), key=lambda each: (self._nodes.left_over(each[1]), each[1]))
        for number in range(WAYS_MAX):
            for region, place in distinct:
                filling = self._way(index, place, number)
                if filling is not None:
                    yield region, place, filling

    def _adds_up(self, todo: list[int]) -> bool:
        """Return whether what is free on nodes of use to what is left adds up to it, resource by resource."""
        kinds = 0
        needed = [0] * len(self._nodes.scale)
        for index in todo:
            for kind, pods in self._loads[index].parts:
                kinds |= 1 << kind
                for row, amount in self._nodes.costs[kind]:
                    needed[row] += amount * pods
        for number, atom in enumerate(self._atoms):
            key = (number, self._versions[number], kinds)
            useful = self._useful.get(key)
            if useful is None:
                useful = self._useful[key] = self._nodes.useful(atom, kinds)
                self._work.spend(2 * (atom[1] - atom[0]))
            needed = [need - free for need, free in zip(needed, useful, strict=True)]
        return max(needed, default=0) <= 0

    def _renew(self, place: Place) -> list[int]:
        """Give a domain that was changed a new version, and return those it had."""
        first, last = self._atoms_of[place]
        before = self._versions[first:last]
        self._version += 1
        self._versions[first:last] = [self._version] * (last - first)
        return before
