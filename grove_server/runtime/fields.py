"""Reading fields of a cluster file's documents: typed, by path, with all problems kept instead of the first raised.

A getter that finds something wrong notes a problem and returns a harmless value, so that reading goes on and the
author of the file sees everything at once. Whoever reads must look at the problems before using the result.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from grove_server.resources.labels import label_key_problem, label_value_problem
from grove_server.resources.quantity import QuantityError, parse_quantity
from grove_server.resources.violations import quoted

# Enough to repair a file by; the rest is counted.
PROBLEMS_MAX: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong: in which document (counted from 1), at which path, and what it should be."""

    document: int
    path: str
    message: str

    def __str__(self) -> str:
        where = f"document {self.document}: {self.path}" if self.path else f"document {self.document}"
        return f"{where}: {self.message}"


@dataclass(slots=True)
class Problems:
    """What was found so far; ``count`` goes on when the list is full."""

    listed: list[Problem] = field(default_factory=list)
    count: int = 0

    def add(self, document: int, path: str, message: str) -> None:
        """Note one problem."""
        self.count += 1
        if len(self.listed) < PROBLEMS_MAX:
            self.listed.append(Problem(document=document, path=path, message=message))


@dataclass(frozen=True, slots=True)
class Fields:
    """One mapping of a document."""

    values: Mapping[str, object]
    document: int
    path: str
    problems: Problems

    def at(self, key: str) -> str:
        """Return the path of a field."""
        return f"{self.path}.{key}" if self.path else key

    def complain(self, key: str, message: str) -> None:
        """Note that a field is wrong."""
        self.problems.add(self.document, self.at(key), message)

    def refuse_others(self, known: Collection[str]) -> None:
        """Note every field that is not one of *known*."""
        for key in sorted(set(self.values) - set(known)):
            self.complain(key, f"unknown field; known are {', '.join(known)}")

    def text(self, key: str, default: str | None = None) -> str:
        """Return a text; without *default* it must be there."""
        value = self.values.get(key)
        if value is None and default is not None:
            return default
        if isinstance(value, str) and (value or default is not None):
            return value
        self.complain(key, "is required" if value in (None, "") else f"must be a text, got {quoted(value)}")
        return default or ""

    def flag(self, key: str) -> bool:
        """Return a truth value; false when it is left out."""
        value = self.values.get(key)
        if value is None or isinstance(value, bool):
            return bool(value)
        self.complain(key, f"must be true or false, got {quoted(value)}")
        return False

    def number(self, key: str, *, least: int, most: int) -> int:
        """Return a whole number that must be there."""
        value = self.values.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
            return value
        bounds = f"a whole number from {least} to {most}"
        self.complain(key, f"is required, {bounds}" if value is None else f"must be {bounds}, got {quoted(value)}")
        return least

    def child(self, key: str, *, is_required: bool = False) -> Fields:
        """Return the mapping at *key*; an empty one when it is left out."""
        value = self.values.get(key)
        if isinstance(value, Mapping):
            return Fields(value, self.document, self.at(key), self.problems)
        if value is not None:
            self.complain(key, f"must be a mapping, got {quoted(value)}")
        elif is_required:
            self.complain(key, "is required")
        return Fields({}, self.document, self.at(key), self.problems)

    def children(self, key: str) -> Iterator[Fields]:
        """Yield the mappings of a list; none when it is left out."""
        value = self.values.get(key)
        if value is None:
            return
        if not isinstance(value, list):
            self.complain(key, f"must be a list, got {quoted(value)}")
            return
        for index, item in enumerate(value):
            path = f"{self.at(key)}[{index}]"
            if isinstance(item, Mapping):
                yield Fields(item, self.document, path, self.problems)
            else:
                self.problems.add(self.document, path, f"must be a mapping, got {quoted(item)}")

    def labels(self, key: str) -> dict[str, str]:
        """Return a mapping of labels."""
        return dict(self._entries(key, check_value=True))

    def annotations(self, key: str) -> dict[str, str]:
        """Return a mapping of annotations."""
        return dict(self._entries(key, check_value=False))

    def _entries(self, key: str, *, check_value: bool) -> Iterable[tuple[str, str]]:
        entries = self.child(key)
        for name, value in entries.values.items():
            if not isinstance(value, str):
                self.complain(f"{key}[{name}]", f"must be a text (put it in quotes), got {quoted(value)}")
                continue
            problem = label_key_problem(name)
            if problem is None and check_value:
                problem = label_value_problem(value)
            if problem is not None:
                self.complain(f"{key}[{name}]", problem)
                continue
            yield name, value

    def quantities(self, key: str) -> dict[str, str]:
        """Return a mapping of resource names to quantities; plain numbers are taken as they are."""
        found = {}
        entries = self.child(key)
        for name, value in entries.values.items():
            if not isinstance(value, str | int | float) or isinstance(value, bool):
                self.complain(f"{key}[{name}]", f"must be a quantity such as 2, 500m or 16Gi, got {quoted(value)}")
                continue
            text = str(value)
            try:
                amount = parse_quantity(text)
            except QuantityError as error:
                self.complain(f"{key}[{name}]", f"{error}, got {quoted(value)}")
                continue
            if amount.nano < 0:
                self.complain(f"{key}[{name}]", f"must not be negative, got {quoted(value)}")
            found[name] = text
        return found
