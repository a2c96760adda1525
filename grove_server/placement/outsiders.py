"""Rules between pods when pods outside the request go: what the rules say then, and who may come back afterwards.

Rules: a rule counts pods outside its request by domain. Where some of these leave, for the gang or anyway, the same
rule is asked with what is left, so that a gang may go where those are that it keeps apart from, once they are gone, and
never goes to be near pods that leave. Tokens stand for what a rule counts once however many pods it has (a copy of a
set). Without anybody who can tell whom a rule counts, its counts stay as they are.

Not here: what rules mean for places (`pod_rules`), whose labels match (`peers`), who leaves (`eviction`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from grove_server.placement.cluster import Cluster
from grove_server.placement.occupancy import Occupancy
from grove_server.placement.requests import Counted, Counting, GangRequest, PodRule, RuleKind
from grove_server.placement.results import Placement
from grove_server.placement.topology import BoolArray, IntArray
from grove_server.placement.vacating import Vacating


def without_gone(request: GangRequest, counting: Counting, is_gone: Callable[[str], bool]) -> GangRequest:
    """Return a request as it is once pods are gone; *is_gone* tells by full name."""
    rules = []
    for rule in request.rules:
        pods = counting(rule) if rule.counts else {}
        rules.append(_recounted(rule, pods, is_gone) if pods else rule)
    return replace(request, rules=tuple(rules))


def _recounted(rule: PodRule, pods: Mapping[str, Counted], is_gone: Callable[[str], bool]) -> PodRule:
    if not any(map(is_gone, pods)):
        return rule
    left = dict.fromkeys(each for name, each in pods.items() if not is_gone(name))
    counts = Counter(each.value for each in left)
    return replace(rule, counts=tuple(sorted(counts.items())))


class _Rows(NamedTuple):
    """The pods of one rule that could go: rows of a vacating, and by row the number of what it counts with.

    `values` are domains by code, `domains` int64[number] their codes, `totals` int64[number] pods of each.
    """

    rows: IntArray
    numbers: IntArray
    values: tuple[str, ...]
    domains: IntArray
    totals: IntArray


class Outsiders:
    """Whom the rules of one request count among the pods that could go."""

    def __init__(self, request: GangRequest, occupancy: Occupancy, vacating: Vacating) -> None:
        self.rules = request.rules
        self._by_rule: dict[int, _Rows] = {}
        at = np.full(len(occupancy.pod_gang) + 1, -1, dtype=np.int64)  # The last entry is for pods that sit nowhere.
        at[vacating.pods] = np.arange(len(vacating.pods))
        for number, rule in enumerate(request.rules):
            pods = occupancy.counting(rule) if rule.counts else {}
            if pods:
                self._by_rule[number] = _rows_of(pods, occupancy, at)
        self._size = len(vacating.pods)

    def __bool__(self) -> bool:
        """Return whether anybody who could go matters to a rule."""
        return any(len(each.rows) for each in self._by_rule.values())

    def anchors(self) -> BoolArray:
        """Return by row whom the request has to be near: these had better stay."""
        return self._marked(lambda rule: not rule.weight and rule.kind == RuleKind.TOGETHER)

    def without(self, request: GangRequest, going: BoolArray) -> GangRequest:
        """Return a request of these rules as it is once some of the pods are gone."""
        if not self._by_rule:
            return request
        rules = list(self.rules)
        for number in self._by_rule:
            counts = tuple((value, pods) for value, pods in sorted(self.left(number, going).items()) if pods)
            rules[number] = replace(rules[number], counts=counts)
        return replace(request, rules=tuple(rules))

    def left(self, number: int, going: BoolArray) -> dict[str, int]:
        """Return what a rule counts by domain once some of the pods are gone."""
        mine = self._by_rule.get(number)
        if mine is None:
            return {value: pods for value, pods in self.rules[number].counts if pods}
        gone = np.bincount(mine.numbers[going[mine.rows]], minlength=len(mine.totals))
        present = mine.domains[mine.totals > gone]
        counts = np.bincount(present, minlength=len(mine.values)).tolist()
        return {value: pods for value, pods in zip(mine.values, counts, strict=True) if pods}

    def codes_of(self, number: int) -> tuple[IntArray, IntArray, tuple[str, ...]]:
        """Return of those who could go and whom a rule counts the rows, their domains by code, and all domains."""
        mine = self._by_rule.get(number)
        if mine is None:
            nothing = np.zeros(0, dtype=np.int64)
            return nothing, nothing, ()
        return mine.rows, mine.domains[mine.numbers], mine.values

    def _marked(self, is_meant: Callable[[PodRule], bool]) -> BoolArray:
        marks: BoolArray = np.zeros(self._size, dtype=np.bool_)
        for number, mine in self._by_rule.items():
            if is_meant(self.rules[number]):
                marks[mine.rows] = True
        return marks


def _rows_of(pods: Mapping[str, Counted], occupancy: Occupancy, at: IntArray) -> _Rows:
    """Return the rows of a rule's pods; `at` int64[occupancy row + 1]: the row of a vacating, -1 = cannot go."""
    found: dict[Counted, int] = {}
    numbers = np.array([found.setdefault(counted, len(found)) for counted in pods.values()], dtype=np.int64)
    codes: dict[str, int] = {}
    domains = np.array([codes.setdefault(counted.value, len(codes)) for counted in found], dtype=np.int64)
    row_of = occupancy.pods.get
    rows = at[np.array([row_of(name, -1) for name in pods], dtype=np.int64)]
    return _Rows(
        rows=rows[rows >= 0],
        numbers=numbers[rows >= 0],
        values=tuple(codes),
        domains=domains,
        totals=np.bincount(numbers, minlength=len(found)),
    )


class Returns:
    """Who may come back beside places that were found without them, by the required rules; pods are rows of a vacating.

    `barred`: who cannot; `bearing`: who has to be
    asked about, these among them.
    Of pods that the request keeps apart from nobody comes back to a domain of the places. Of those it keeps together
    with, somebody may come back elsewhere only when the places are not alone any more.
    """

    def __init__(self, outsiders: Outsiders, cluster: Cluster, placement: Placement, going: BoolArray) -> None:
        self.barred: BoolArray = np.zeros(len(going), dtype=np.bool_)
        self.bearing: BoolArray = np.zeros(len(going), dtype=np.bool_)
        self._circles: list[tuple[IntArray, tuple[str, ...], _Circle]] = []
        placed = {clique.name: {each.node for each in clique.bindings} for clique in placement.cliques}
        for number, rule in enumerate(outsiders.rules):
            if rule.weight:
                continue
            where = {
                name: {cluster.node(node).labels.get(rule.key) for node in nodes} for name, nodes in placed.items()
            }
            own = set().union(*(where.get(name, set()) for name in rule.cliques))
            rows, codes, values = outsiders.codes_of(number)
            if rule.kind == RuleKind.APART:
                is_own = np.array([value in own for value in values], dtype=np.bool_)
                self.barred[rows[is_own[codes]]] = True
                continue
            strangers = set().union(*(where.get(name, set()) for name in rule.others if name not in rule.cliques))
            code_of = np.full(len(going), -1, dtype=np.int64)
            code_of[rows] = codes
            self._circles.append((code_of, values, _Circle(own - strangers, set(outsiders.left(number, going)))))
            self.bearing[rows] = True
        self.barred &= going
        self.bearing = (self.bearing & going) | self.barred

    def admits(self, rows: IntArray) -> bool:
        """Return whether some pods may come back together."""
        return all(circle.stands(_values(code_of, values, rows)) for code_of, values, circle in self._circles)

    def take_back(self, rows: IntArray) -> None:
        """Note that some pods are back."""
        for code_of, values, circle in self._circles:
            circle.outside |= _values(code_of, values, rows)


def _values(code_of: IntArray, values: tuple[str, ...], rows: IntArray) -> set[str]:
    return {values[code] for code in code_of[rows].tolist() if code >= 0}


class _Circle:
    """Domains in which pods stand that keep together with others, and those where such others are outside."""

    def __init__(self, own: set[str | None], outside: set[str]) -> None:
        self.own = own
        self.outside = outside

    def stands(self, joining: set[str]) -> bool:
        """Return whether the pods are still near others if more come back; alone only where nobody else is."""
        lonely = len(self.own - self.outside - joining)
        return not lonely or (lonely == 1 and not (self.outside | joining))
