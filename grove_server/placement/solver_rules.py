"""Rules between pods as rows of the integer program that a gang is asked with.

Rules: only required ones, by domain d of a rule's label, on sums of the columns of pods there. C are the cliques that
the rule binds, O those of the request that it is about. Domains that pods outside close are no columns to begin with.
Apart: of C and O both (a pod is not its own neighbour) one pod closes d to all others of O, of C alone to all of O:
sum over C&O <= many * a, sum over O + (many - 1) * a <= many; sum over C-O <= many * b, sum over O + many * b <= many.
Together, where nobody outside is in d: sum over C <= many * b, b <= sum over O-C + start; where nobody is outside at
all one domain may start with the pods' own kind: sum of all starts <= 1, start <= sum over C&O.

Not here: what rules mean (`pod_rules`), the rest of the program (`solver_model`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from grove_server.placement.pod_rules import RuleBook
from grove_server.placement.requests import PodRule, RuleKind
from grove_server.placement.solver_program import Program


def add_rules(program: Program, book: RuleBook, columns: Mapping[str, Sequence[tuple[int, int]]]) -> None:
    """Add the rows of all required rules; `columns` by clique: (position, column) of each node its pods may be on."""
    for rule in book.musts():
        rows = _Rows(program, book, columns, rule)
        if rule.kind == RuleKind.APART:
            rows.keep_apart()
        else:
            rows.keep_together()


class _Rows:
    """The rows of one rule."""

    def __init__(
        self, program: Program, book: RuleBook, columns: Mapping[str, Sequence[tuple[int, int]]], rule: PodRule
    ) -> None:
        self.program = program
        self.rule = rule
        self._codes, self._values = book.domains(rule)
        self._columns = columns
        self.both = self._by_domain(name for name in rule.cliques if name in rule.others)
        self.bound_alone = self._by_domain(name for name in rule.cliques if name not in rule.others)
        self.others_alone = self._by_domain(name for name in rule.others if name not in rule.cliques)

    def keep_apart(self) -> None:
        """Add the rows of a rule that keeps pods apart."""
        for code in sorted({*self.both, *self.bound_alone}):
            both, bound = self.both.get(code, []), self.bound_alone.get(code, [])
            others = [*both, *self.others_alone.get(code, [])]
            if both and len(others) == len(both):
                self.program.row(None, dict.fromkeys(both, 1), 1)
            elif both:
                self._close(both, others, 1)
            if bound and others:
                self._close(bound, others, 0)

    def keep_together(self) -> None:
        """Add the rows of a rule that keeps pods together."""
        outside = {value for value, pods in self.rule.counts if pods}
        starts: list[int] = []
        for code in sorted({*self.both, *self.bound_alone}):
            if self._values[code] in outside:
                continue
            both = self.both.get(code, [])
            bound = [*both, *self.bound_alone.get(code, [])]
            here = self._opened(bound)
            near = dict.fromkeys(self.others_alone.get(code, []), -1)
            if both and not any(pods for _, pods in self.rule.counts):
                start = self.program.column(1)
                starts.append(start)
                near[start] = -1
                self.program.row(None, {start: 1, **dict.fromkeys(both, -1)}, 0)
            self.program.row(None, {here: 1, **near}, 0)
        if starts:
            self.program.row(None, dict.fromkeys(starts, 1), 1)

    def _close(self, closing: list[int], others: list[int], left: int) -> None:
        """Leave room for so many pods of `others` once there is one of `closing`."""
        many = sum(self.program.uppers[column] for column in others)
        if many > left:
            here = self._opened(closing)
            self.program.row(None, {**dict.fromkeys(others, 1), here: many - left}, many)

    def _opened(self, columns: list[int]) -> int:
        """Return a new column that is 1 if there are pods in any of some columns."""
        here = self.program.column(1)
        many = sum(self.program.uppers[column] for column in columns)
        self.program.row(None, {**dict.fromkeys(columns, 1), here: -many}, 0)
        return here

    def _by_domain(self, cliques: Iterable[str]) -> dict[int, list[int]]:
        found: dict[int, list[int]] = {}
        for name in cliques:
            for position, column in self._columns.get(name, ()):
                code = int(self._codes[position])
                if code >= 0:
                    found.setdefault(code, []).append(column)
        return found
