"""The last resort for hierarchical gangs: the question as an integer program, and its answer as a placement.

Rules: one program for each of the best few regions that the necessary tests leave for the gang. By region, with
s = a constrained scope, d = a domain, u = the pods of one class whose nearest constrained scope is s, h = a node:
z[s, d] in {0, 1}, sum over d of z[s, d] = 1, z[s, d] <= z[scope above s, domain around d]; x[u, h] in 0..room,
x[u, h] <= room * z[s, d], sum over h in d of x[u, h] = pods(u) * z[s, d]; by node and resource sum of amount * x <=
free. Twins are put in order. Amounts are divided by their greatest common divisor, so that numbers stay small. All
regions infeasible is a proof if no region was left out. Questions and answers are plain numbers that survive a change
of process; an answer becomes a placement only if `violations` finds nothing wrong with it on the state as it is then.

Not here: the program's form (`solver_program`), rules between pods (`solver_rules`), solving
(`control.solver_worker`), when it is worth asking (the placement loop). Preferred levels are no goal of the program:
what no heuristic found may be anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Final, NamedTuple

import numpy as np

from grove_server.placement.candidates import WHOLE
from grove_server.placement.choice import Region, Runs
from grove_server.placement.cluster import Cluster, UnknownNodeError
from grove_server.placement.counts import RequestClass
from grove_server.placement.place import compiled, placement_of
from grove_server.placement.requests import GangRequest
from grove_server.placement.results import Placement
from grove_server.placement.ruled_counts import RuledClass
from grove_server.placement.scopes import LevelUnknownError, Scope
from grove_server.placement.search import Search
from grove_server.placement.solver_program import Program, SolverAnswer, SolverQuestion
from grove_server.placement.solver_rules import add_rules
from grove_server.placement.topology import Layout
from grove_server.placement.violations import violations

REGIONS_MAX: Final = 4
"""Most regions asked about; the best ones by the search's own order."""

CELLS_MAX: Final = 40_000
"""Most pairs of pods' unit and node in one question; more would not end in seconds."""

COEFFICIENT_MAX: Final = 10_000_000
"""Largest amount after division for which floating-point tolerances (1e-6) cannot blur a whole number."""


class Cell(NamedTuple):
    """What a column of pods stands for: pods of one kind that are bound to a scope (by index), on a node."""

    home: int
    kind: Hashable
    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SolverModel:
    """A question with what is needed to read its answer: by program, the cells of its columns of pods."""

    request: GangRequest
    question: SolverQuestion
    cells: tuple[Mapping[int, Cell], ...]


def solver_model(cluster: Cluster, request: GangRequest) -> SolverModel | None:
    """Return the question for a gang that no search placed; None if it cannot be asked.

    It cannot if one shape is all there is to it (then the search is exact), if pods cost more than whole amounts per
    node (shares of GPUs), if nothing passes the necessary tests, or if the question would be too large.
    """
    layout = cluster.layout(request.topology)
    try:
        root = compiled(cluster, layout, request)
    except LevelUnknownError:
        return None
    search = Search(cluster, layout, root, 0)
    if not root.demand or search.is_exact or any(each.shape.gpu_milli for each in root.demand):
        return None
    regions = list(islice((each.region for each in search.candidates.of(root, WHOLE)), REGIONS_MAX + 1))
    drafts = [_RegionProgram(search, region) for region in regions[:REGIONS_MAX]]
    if not drafts or sum(len(each.cells) for each in drafts) > CELLS_MAX:
        return None
    is_exact = all(max(each.program.values, default=0) <= COEFFICIENT_MAX for each in drafts)
    question = SolverQuestion(
        programs=tuple(each.program for each in drafts), covers_all=is_exact and len(regions) <= REGIONS_MAX
    )
    return SolverModel(request=request, question=question, cells=tuple(each.cells for each in drafts))


def solved_placement(cluster: Cluster, model: SolverModel, answer: SolverAnswer) -> Placement | None:
    """Return the placement that an answer describes; None if it does not hold on the present state (any more)."""
    layout = cluster.layout(model.request.topology)
    try:
        root = compiled(cluster, layout, model.request)
        counts = _counts(cluster, layout, model, answer)
    except (LevelUnknownError, UnknownNodeError):
        return None
    search = Search(cluster, layout, root, 0)
    is_fitting = search.accept(_dealt(root, home_of(root), counts))
    search.undo_all()
    if not is_fitting:
        return None
    placement = placement_of(search, model.request)
    return None if violations(cluster, model.request, placement) else placement


def home_of(root: Scope) -> dict[int, int]:
    """Return for each clique with a minimum, by index, the nearest scope that has a level or a domain of its own."""
    homes: dict[int, int] = {}

    def visit(scope: Scope, home: Scope) -> None:
        if is_home(scope, home):
            home = scope
        if scope.request_class is not None and scope.minimum:
            homes[scope.index] = home.index
        for child in scope.children:
            visit(child, home)

    visit(root, root)
    return homes


def is_home(scope: Scope, home: Scope) -> bool:
    """Return whether a scope narrows what its nearest home above allows."""
    return scope is not home and ((scope.required or 0) > (home.required or 0) or bool(scope.within))


def _kind_of(request_class: RequestClass) -> Hashable:
    """Return what makes pods alike for the program: their shape, or their clique if rules are about it."""
    return request_class.name if isinstance(request_class, RuledClass) else request_class.shape


def _counts(
    cluster: Cluster, layout: Layout, model: SolverModel, answer: SolverAnswer
) -> dict[tuple[int, Hashable], dict[int, int]]:
    """Return by home and kind how many pods are on which position; UnknownNodeError for a node that is gone."""
    chosen = [(cell, answer.values[column]) for column, cell in model.cells[answer.program].items()]
    chosen = [(cell, pods) for cell, pods in chosen if pods]
    slots = cluster.slots_at(cell.node for cell, _ in chosen)
    if (slots < 0).any():
        raise UnknownNodeError("a node of the answer is gone")
    counts: dict[tuple[int, Hashable], dict[int, int]] = {}
    for (cell, pods), position in zip(chosen, layout.positions[slots].tolist(), strict=True):
        counts.setdefault((cell.home, cell.kind), {})[position] = pods
    return counts


def _dealt(
    root: Scope, homes: dict[int, int], counts: dict[tuple[int, Hashable], dict[int, int]]
) -> Iterator[tuple[Scope, Runs]]:
    """Yield each clique with its nodes, consecutive ones first come first served."""
    left = {key: sorted(places.items(), reverse=True) for key, places in counts.items()}
    for clique in root.demanding():
        assert clique.request_class is not None
        places = left.get((homes[clique.index], _kind_of(clique.request_class)), [])
        wanted, mine = clique.minimum, []
        while wanted and places:
            position, pods = places.pop()
            taken = min(pods, wanted)
            mine.append((position, taken))
            wanted -= taken
            if pods > taken:
                places.append((position, pods - taken))
        if mine:
            positions, pods_at = np.array(mine, dtype=np.int64).T
            yield clique, Runs(positions, pods_at)


class _Home(NamedTuple):
    """A scope that narrows, and its possible regions with the column that says so (None: it is this one)."""

    scope: Scope
    regions: dict[Region, int | None]


class _RegionProgram:
    """Builds the program of one region."""

    def __init__(self, search: Search, region: Region) -> None:
        self.program = Program()
        self.cells: dict[int, Cell] = {}
        self._search = search
        self._layout = search.layout
        self._use: dict[tuple[int, int], dict[int, int]] = {}
        self._demand: dict[tuple[int, RequestClass], int] = {}
        self._homes: dict[int, _Home] = {}
        self._ruled: dict[str, list[tuple[int, int]]] = {}
        self._visit(search.root, self._home(search.root, {region: None}))
        self._order_twins()
        for (index, request_class), pods in self._demand.items():
            self._pods(self._homes[index], request_class, pods)
        self._capacities()
        if search.book is not None:
            add_rules(self.program, search.book, self._ruled)

    def _home(self, scope: Scope, regions: dict[Region, int | None]) -> _Home:
        home = self._homes[scope.index] = _Home(scope, regions)
        return home

    def _visit(self, scope: Scope, home: _Home) -> None:
        if is_home(scope, home.scope):
            home = self._home(scope, self._regions(scope, home))
        if scope.request_class is not None and scope.minimum:
            key = (home.scope.index, scope.request_class)
            self._demand[key] = self._demand.get(key, 0) + scope.minimum
        for child in scope.children:
            if child.demand:
                self._visit(child, home)

    def _regions(self, scope: Scope, above: _Home) -> dict[Region, int | None]:
        """Add the columns z of a scope: one of its regions, inside the one of its home above."""
        candidates = self._search.candidates
        columns: dict[Region, int | None] = {}
        for outer, column in above.regions.items():
            for base in candidates.narrowed((outer,), scope.within):
                level = max(base.level, scope.required or 0)
                for domain in range(*candidates.span(base, level)):
                    region = Region(level, domain)
                    if region not in columns and self._may_hold(scope, base, region):
                        columns[region] = own = self.program.column(1)
                        if column is not None:
                            self.program.row(None, {own: 1, column: -1}, 0)
        self.program.row(1, {each: 1 for each in columns.values() if each is not None}, 1)
        return columns

    def _may_hold(self, scope: Scope, base: Region, region: Region) -> bool:
        is_named = region == base or bool(self._layout.levels[region.level].is_named[region.domain])
        return is_named and all(
            int(each.everywhere[region.level][region.domain]) >= pods for each, pods in scope.demand.items()
        )

    def _order_twins(self) -> None:
        """Add rows that put alike scopes of one parent in order: their regions ascend."""
        latest: dict[tuple[int, int], _Home] = {}
        for home in self._homes.values():
            if home.scope.parent is None:
                continue
            key = (home.scope.parent.index, home.scope.twin)
            before = latest.get(key)
            if before is not None and list(before.regions) == list(home.regions):
                entries = {}
                for number, (mine, other) in enumerate(
                    zip(before.regions.values(), home.regions.values(), strict=True), start=1
                ):
                    if mine is not None and other is not None:
                        entries[mine], entries[other] = number, -number
                self.program.row(None, entries, 0)
            latest[key] = home

    def _pods(self, home: _Home, request_class: RequestClass, pods: int) -> None:
        """Add the columns x of one class below a home, and tie them to the home's region."""
        states = self._search.cluster.rules.states
        for region, column in home.regions.items():
            entries: dict[int, int] = {}
            start, end = self._layout.span(*region)
            for position in range(start, end):
                room = min(int(request_class.everywhere[-1][position]), pods)
                if room <= 0:
                    continue
                state = states[int(self._layout.slots[position])]
                assert state is not None
                own = self.program.column(room)
                self.cells[own] = Cell(home.scope.index, _kind_of(request_class), state.name)
                if isinstance(request_class, RuledClass):
                    self._ruled.setdefault(request_class.name, []).append((position, own))
                entries[own] = 1
                if column is not None and room < pods:
                    self.program.row(None, {own: 1, column: -room}, 0)
                for row, amount in request_class.costs or ():
                    self._use.setdefault((position, row), {})[own] = amount
            if column is None:
                self.program.row(pods, entries, pods)
            else:
                self.program.row(0, {**entries, column: -pods}, 0)

    def _capacities(self) -> None:
        """Add the rows of what is free, where it could be too little."""
        free = self._search.cluster.ledger.free
        for (position, row), entries in self._use.items():
            amount = int(free[row, self._layout.slots[position]])
            if sum(each * self.program.uppers[column] for column, each in entries.items()) > amount:
                step = math.gcd(*entries.values())
                self.program.row(None, {column: each // step for column, each in entries.items()}, amount // step)
