"""Rules between the pods of one request, and with pods outside it: who keeps apart, who keeps together.

Rules: a search has one book, which knows the domains of each label that a rule is about, how many pods outside are in
each, and where the search has put pods so far. For a clique it says which nodes are closed to its next pods, what the
search would rather have, and what bounds its pods among themselves (`quotas`). The meaning is Kubernetes' of
inter-pod affinity, for pods that come all at once: a node without the label is in no domain, so it is open to those
that keep apart and closed to those that keep together; pods that keep together with pods of their own kind, of which
there are none yet, start in one domain (the rule of the first pod).

Not here: the counts that follow (`ruled_counts`), whose labels match whose selectors (`gangs` and control).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np

from grove_server.placement.quotas import Quota, QuotaKind
from grove_server.placement.requests import (
    CliqueRequest,
    GangRequest,
    GroupRequest,
    InvalidRequestError,
    PodRule,
    RuleKind,
)
from grove_server.placement.rules import NodeRules
from grove_server.placement.topology import BoolArray, IntArray, Layout

RULES_MAX: Final = 256
"""Most rules between pods in one request."""


class Closed(NamedTuple):
    """Nodes by position that a rule closes."""

    rule: PodRule
    nodes: BoolArray


@dataclass(slots=True, eq=False)
class _Domains:
    """A label over the layout: `codes` int64[positions], -1 = missing, and the values by code."""

    codes: IntArray
    values: tuple[str, ...]

    def at_nodes(self, by_code: BoolArray) -> BoolArray:
        """Return for each node what holds for its domain; False for nodes without one."""
        result: BoolArray = np.append(by_code, False)[self.codes]
        return result


class RuleBook:
    """The rules of one request, and where its pods are so far. `version` changes whenever pods move."""

    def __init__(self, rules: NodeRules, layout: Layout, request: GangRequest) -> None:
        """Raise InvalidRequestError if rules are too many or speak of cliques that are not there."""
        self.layout = layout
        self.version = 0
        self._rules = request.rules
        self._made_of = rules, request
        self._check(request)
        self._needed = {clique.name for clique in _cliques(request) if clique.minimum}
        self._domains: dict[str, _Domains] = {}
        self._outside: dict[int, IntArray] = {}
        self._placed: dict[str, IntArray] = {}
        for number, rule in enumerate(request.rules):
            domains = self._domains.get(rule.key)
            if domains is None:
                column = rules.column(rule.key)
                domains = self._domains[rule.key] = _Domains(column.codes[layout.slots], column.values)
            outside = np.zeros(len(domains.values), dtype=np.int64)
            codes_of = rules.column(rule.key).codes_of if rule.counts else {}
            for value, pods in rule.counts:
                if value in codes_of:
                    outside[codes_of[value]] += pods
            self._outside[number] = outside

    def _check(self, request: GangRequest) -> None:
        names = {clique.name for clique in _cliques(request)}
        if len(self._rules) > RULES_MAX:
            raise InvalidRequestError(f"gang {request.name} has more than {RULES_MAX} rules between pods")
        unknown = {name for rule in self._rules for name in (*rule.cliques, *rule.others)} - names
        if unknown:
            raise InvalidRequestError(f"rules of gang {request.name} speak of unknown cliques {sorted(unknown)}")
        if any(rule.weight < 0 or any(pods < 0 for _, pods in rule.counts) for rule in self._rules):
            raise InvalidRequestError(f"rules of gang {request.name} have a negative weight or count")

    def concerns(self, clique: str) -> bool:
        """Return whether any rule is about a clique's pods."""
        return any(clique in rule.cliques or clique in rule.others for rule in self._rules)

    def musts(self) -> list[PodRule]:
        """Return all required rules."""
        return [rule for rule in self._rules if not rule.weight]

    def domains(self, rule: PodRule) -> tuple[IntArray, tuple[str, ...]]:
        """Return each node's domain of a rule's label, int64[positions], -1 = none, and the values by code."""
        found = self._domains[rule.key]
        return found.codes, found.values

    def required(self, clique: str) -> list[PodRule]:
        """Return the required rules about a clique's pods."""
        return [rule for rule in self._rules if not rule.weight and (clique in rule.cliques or clique in rule.others)]

    def without(self, rule: PodRule) -> RuleBook:
        """Return the book of a request that does not have one of the rules, with no pod put down."""
        rules, request = self._made_of
        return RuleBook(rules, self.layout, replace(request, rules=tuple(r for r in request.rules if r is not rule)))

    def move(self, clique: str, positions: IntArray, counts: IntArray) -> None:
        """Note that pods were put on nodes; negative counts take them back. Each position once."""
        placed = self._placed.get(clique)
        if placed is None:
            placed = self._placed[clique] = np.zeros(len(self.layout.slots), dtype=np.int64)
        placed[positions] += counts
        self.version += 1

    # -- what a clique has to keep to --------------------------------------------------------------------------------

    def closed(self, clique: str) -> list[Closed]:
        """Return the nodes that required rules close to the next pods of a clique."""
        result = []
        for number, rule in enumerate(self._rules):
            if not rule.weight and (clique in rule.cliques or clique in rule.others):
                how = self._apart if rule.kind == RuleKind.APART else self._together
                nodes = how(number, rule, clique)
                if nodes is not None:
                    result.append(Closed(rule, nodes))
        return result

    def quotas(self, clique: str, *, is_wish: bool) -> list[Quota]:
        """Return what bounds the next pods of a clique among themselves; with `is_wish` preferred rules count too."""
        found: dict[tuple[str, QuotaKind], Quota] = {}
        for number, rule in enumerate(self._rules):
            if clique not in rule.cliques or clique not in rule.others or (rule.weight and not is_wish):
                continue
            kind = QuotaKind.ONE_EACH
            if rule.kind == RuleKind.TOGETHER:
                kind = QuotaKind.ONE_DOMAIN
                if self._is_any_outside(number) or self._has(rule, rule.others).any():
                    continue
                if self._needed & set(_without(rule.others, rule.cliques)):
                    # Others that are still to come may open further domains.
                    continue
            found[rule.key, kind] = Quota(kind, rule.key, self._domains[rule.key].codes)
        return sorted(found.values(), key=lambda quota: (-int(quota.codes.max(initial=-1)), quota.key, quota.kind))

    def scores(self, clique: str) -> IntArray | None:
        """Return by node how much preferred rules are for it: int64[positions]; None if there are none."""
        total: IntArray | None = None
        for number, rule in enumerate(self._rules):
            if rule.weight and clique in rule.cliques:
                by_code = self._outside[number] + self._inside(rule, rule.others)
                sign = 1 if rule.kind == RuleKind.TOGETHER else -1
                own = np.append(by_code * (sign * rule.weight), 0)[self._domains[rule.key].codes]
                total = own if total is None else total + own
        return total

    def is_kept(self) -> bool:
        """Return whether all pods put down so far keep to the required rules that need others to be there."""
        for number, rule in enumerate(self._rules):
            if rule.kind == RuleKind.TOGETHER and not rule.weight:
                here = self._has(rule, rule.cliques)
                lonely = here & ~(self._outside[number] > 0) & ~self._has(rule, _without(rule.others, rule.cliques))
                starts = self._has(rule, _both(rule.cliques, rule.others))
                may_start = 0 if self._is_any_outside(number) else 1
                if np.count_nonzero(lonely) > may_start or (lonely & ~starts).any():
                    return False
        return True

    # -- inside ------------------------------------------------------------------------------------------------------

    def _apart(self, number: int, rule: PodRule, clique: str) -> BoolArray | None:
        taken = np.zeros(len(self._outside[number]), dtype=np.bool_)
        if clique in rule.cliques:
            taken |= (self._outside[number] > 0) | self._has(rule, rule.others)
        if clique in rule.others:
            taken |= self._has(rule, rule.cliques)
        domains = self._domains[rule.key]
        nodes = domains.at_nodes(taken)
        if rule.needs_key and clique in rule.cliques:
            nodes |= domains.codes < 0
        return nodes if nodes.any() else None

    def _together(self, number: int, rule: PodRule, clique: str) -> BoolArray | None:
        if clique not in rule.cliques:
            return None
        domains = self._domains[rule.key]
        strangers = _without(rule.others, rule.cliques)
        is_any_outside = self._is_any_outside(number)
        anchored = (self._outside[number] > 0) | self._has(rule, strangers)
        if not is_any_outside:
            anchored |= self._has(rule, rule.cliques)
        if anchored.any() and not (is_any_outside and strangers and not self._has(rule, strangers).any()):
            return ~domains.at_nodes(anchored)
        if strangers or _both(rule.cliques, rule.others):
            return domains.codes < 0  # Those it is about are still to come, or it starts: any domain.
        return np.ones(len(domains.codes), dtype=np.bool_)

    def _is_any_outside(self, number: int) -> bool:
        return bool(sum(pods for _, pods in self._rules[number].counts))

    def _inside(self, rule: PodRule, cliques: Collection[str]) -> IntArray:
        """Return by code how many pods of some cliques the search has put there."""
        domains = self._domains[rule.key]
        total = np.zeros(len(domains.values), dtype=np.int64)
        for name in cliques:
            placed = self._placed.get(name)
            if placed is not None:
                nodes = placed.nonzero()[0]
                nodes = nodes[domains.codes[nodes] >= 0]
                np.add.at(total, domains.codes[nodes], placed[nodes])
        return total

    def _has(self, rule: PodRule, cliques: Collection[str]) -> BoolArray:
        return self._inside(rule, cliques) > 0


def followed(rules: Iterable[PodRule], clique: str) -> set[str]:
    """Return the cliques that should be placed before one, because its pods have to be near theirs."""
    names: set[str] = set()
    for rule in rules:
        if rule.kind == RuleKind.TOGETHER and clique in rule.cliques:
            names |= set(rule.others) - (set(rule.cliques) if clique in rule.others else {clique})
    return names


def _cliques(request: GangRequest | GroupRequest) -> Iterable[CliqueRequest]:
    for member in request.members:
        if isinstance(member, CliqueRequest):
            yield member
        else:
            yield from _cliques(member)


def _without(names: Collection[str], others: Collection[str]) -> list[str]:
    return [name for name in names if name not in others]


def _both(names: Collection[str], others: Collection[str]) -> list[str]:
    return [name for name in names if name in others]
