"""Rules between pods when pods outside the request go: what the rules say then, and who may come back afterwards.

Rules: a rule counts pods outside its request by domain. Where some of these leave, for the gang or anyway, the same
rule is asked with what is left, so that a gang may go where those are that it keeps apart from, once they are gone, and
never goes to be near pods that leave. Tokens stand for what a rule counts once however many pods it has (a copy of a
set). Without anybody who can tell whom a rule counts, its counts stay as they are.

Not here: what rules mean for places (`pod_rules`), whose labels match (`peers`), who leaves (`eviction`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
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
        at = {int(row): place for place, row in enumerate(vacating.pods.tolist())} if request.rules else {}
        for number, rule in enumerate(request.rules):
            pods = occupancy.counting(rule) if rule.counts else {}
            if pods:
                self._by_rule[number] = _rows_of(pods, occupancy, at)
        self._size = len(vacating.pods)

    def __bool__(self) -> bool:
        """Return whether anybody who could go matters to a rule."""
        return any(len(each.rows) for each in self._by_rule.values())

    def bearing(self) -> BoolArray:
        """Return by row who is counted by a required rule."""
        return self._marked(lambda rule: not rule.weight)

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

    def values_of(self, number: int) -> Iterator[tuple[int, str]]:
        """Yield (row, domain) of those who could go and whom a rule counts."""
        mine = self._by_rule.get(number)
        if mine is not None:
            codes = mine.domains[mine.numbers].tolist()
            yield from ((row, mine.values[code]) for row, code in zip(mine.rows.tolist(), codes, strict=True))

    def _marked(self, is_meant: Callable[[PodRule], bool]) -> BoolArray:
        marks: BoolArray = np.zeros(self._size, dtype=np.bool_)
        for number, mine in self._by_rule.items():
            if is_meant(self.rules[number]):
                marks[mine.rows] = True
        return marks


def _rows_of(pods: Mapping[str, Counted], occupancy: Occupancy, at: Mapping[int, int]) -> _Rows:
    codes: dict[str, int] = {}
    numbers: dict[Counted, int] = {}
    domains: list[int] = []
    totals: list[int] = []
    rows: list[int] = []
    mine: list[int] = []
    for name, counted in pods.items():
        number = numbers.setdefault(counted, len(numbers))
        if number == len(domains):
            domains.append(codes.setdefault(counted.value, len(codes)))
            totals.append(0)
        totals[number] += 1
        row = at.get(occupancy.pods.get(name, -1))
        if row is not None:
            rows.append(row)
            mine.append(number)
    return _Rows(
        rows=np.array(rows, dtype=np.int64),
        numbers=np.array(mine, dtype=np.int64),
        values=tuple(codes),
        domains=np.array(domains, dtype=np.int64),
        totals=np.array(totals, dtype=np.int64),
    )


class Returns:
    """Who may come back beside places that were found without them, by the required rules; pods are rows of a vacating.

    `bearing`: whom a rule counts, `barred`: who cannot come back.
    Of pods that the request keeps apart from nobody comes back to a domain of the places. Of those it keeps together
    with, somebody may come back elsewhere only when the places are not alone any more.
    """

    def __init__(self, outsiders: Outsiders, cluster: Cluster, placement: Placement, going: BoolArray) -> None:
        self.bearing: BoolArray = outsiders.bearing() & going
        self.barred: BoolArray = np.zeros(len(going), dtype=np.bool_)
        self._values: dict[int, list[tuple[int, str]]] = {}
        self._circles: dict[int, _Circle] = {}
        placed = {clique.name: {each.node for each in clique.bindings} for clique in placement.cliques}
        for number, rule in enumerate(outsiders.rules):
            if rule.weight:
                continue
            where = {
                name: {cluster.node(node).labels.get(rule.key) for node in nodes} for name, nodes in placed.items()
            }
            own = set().union(*(where.get(name, set()) for name in rule.cliques))
            if rule.kind == RuleKind.APART:
                for row, value in outsiders.values_of(number):
                    self.barred[row] |= value in own and bool(going[row])
                continue
            strangers = set().union(*(where.get(name, set()) for name in rule.others if name not in rule.cliques))
            self._circles[number] = _Circle(own - strangers, set(outsiders.left(number, going)))
            for row, value in outsiders.values_of(number):
                self._values.setdefault(row, []).append((number, value))

    def admits(self, rows: IntArray) -> bool:
        """Return whether some pods may come back together."""
        return all(self._circles[number].stands(values) for number, values in self._joining(rows).items())

    def take_back(self, rows: IntArray) -> None:
        """Note that some pods are back."""
        for number, values in self._joining(rows).items():
            self._circles[number].outside |= values

    def _joining(self, rows: IntArray) -> dict[int, set[str]]:
        joining: dict[int, set[str]] = {}
        for row in rows.tolist():
            for number, value in self._values.get(row, ()):
                joining.setdefault(number, set()).add(value)
        return joining


class _Circle:
    """Domains in which pods stand that keep together with others, and those where such others are outside."""

    def __init__(self, own: set[str | None], outside: set[str]) -> None:
        self.own = own
        self.outside = outside

    def stands(self, joining: set[str]) -> bool:
        """Return whether the pods are still near others if more come back; alone only where nobody else is."""
        lonely = len(self.own - self.outside - joining)
        return not lonely or (lonely == 1 and not (self.outside | joining))
