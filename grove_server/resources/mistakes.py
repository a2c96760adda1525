"""From what the compiled readers find wrong to places and words.

A place is the way to a value as keys and positions; a path is how people read it. Deliberately not here: what is done
about a mistake (``repair``) and which rules hold (``schema``, admission).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic_core import ErrorDetails

from grove_server.resources.violations import Reason, Violation, quoted

Place = tuple[int | str, ...]

# Describing a mistake costs microseconds: a document with more than this many is another kind of file.
MISTAKES_MAX: Final = 2000
# Their keys are the user's, and stand in brackets.
MAPS: Final = frozenset({"labels", "annotations", "guarantee", "limit", "signals"})
_UNKNOWN_TYPES: Final = frozenset({"unexpected_keyword_argument", "extra_forbidden"})
_EXPECTED: Final[Mapping[str, str]] = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing_size": "a whole number",
    "string_type": "a string",
    "bool_type": "true or false",
    "dict_type": "a map",
    "mapping_type": "a map",
    "dataclass_type": "a map",
    "tuple_type": "a list",
    "list_type": "a list",
    "float_type": "a number",
}
_STEP: Final = re.compile(r"\[([^\]]*)\]|([^.\[\]]+)")


@dataclass(frozen=True, slots=True)
class Mistake:
    """One value that is missing, unknown or of a wrong type; ``expected`` is what it should be (of a wrong type)."""

    place: Place
    reason: Reason
    expected: str = ""
    value: object = None

    def violation(self) -> Violation:
        """Return it in words."""
        path = path_of(self.place)
        if self.reason is Reason.REQUIRED:
            return Violation(path, Reason.REQUIRED, "is required")
        if self.reason is Reason.FIELD_UNKNOWN:
            return Violation(path, Reason.FIELD_UNKNOWN, "is not a known field")
        return Violation(path, Reason.TYPE_INVALID, f"must be {self.expected}, got {quoted(self.value)}")


def mistakes_in(details: Sequence[ErrorDetails], tree: object) -> list[Mistake]:
    """Return the mistakes in *tree*, one per place.

    Where a field may have one of several types, the reader complains once for each, below a step that is in no
    document; that is one mistake.
    """
    found: dict[Place, Mistake] = {}
    for detail in details:
        code = detail["type"]
        if code == "missing":
            found[detail["loc"]] = Mistake(detail["loc"], Reason.REQUIRED)
        elif code in _UNKNOWN_TYPES:
            found[detail["loc"]] = Mistake(detail["loc"], Reason.FIELD_UNKNOWN)
        else:
            place = _existing(detail["loc"], tree)
            expected = _EXPECTED.get(code, "of another type")
            before = found.get(place)
            if before is not None and before.expected and expected not in before.expected:
                expected = f"{before.expected} or {expected}"
            found[place] = Mistake(place, Reason.TYPE_INVALID, expected, detail["input"])
    return list(found.values())


def _existing(place: Place, tree: Any) -> Place:  # noqa: ANN401 -- any JSON
    """Return the longest part of *place* that is in *tree*."""
    for count, step in enumerate(place):
        is_there = step in tree if isinstance(tree, dict) else isinstance(tree, list) and isinstance(step, int)
        if not is_there:
            return place[:count]
        tree = tree[step]
    return place


def path_of(place: Place) -> str:
    """Return the path of a place."""
    path = ""
    is_key = False
    for step in place:
        if isinstance(step, int) or is_key:
            path += f"[{step}]"
        else:
            path += f".{step}" if path else step
        is_key = step in MAPS and not is_key
    return path


def place_of(path: str) -> Place:
    """Return the place of a path; keys with dots of their own, outside brackets, fall into several steps."""
    steps = ((match[1], match[2]) for match in _STEP.finditer(path))
    return tuple(name or (int(key) if key.isascii() and key.isdigit() else key) for key, name in steps)


def in_document_order(violations: Sequence[Violation], tree: object) -> list[Violation]:
    """Return *violations* in the order of their places in *tree*; what is missing comes last in what misses it."""
    orders: dict[Place, dict[object, int]] = {}

    def position(violation: Violation) -> tuple[int, ...]:
        found: list[int] = []
        value: Any = tree
        place = place_of(violation.path)
        for depth, step in enumerate(place):
            if isinstance(value, dict):
                order = orders.get(place[:depth])
                if order is None:
                    order = orders[place[:depth]] = {key: index for index, key in enumerate(value)}
                found.append(order.get(step, len(order)))
                value = value.get(step)
            elif isinstance(value, list) and isinstance(step, int):
                found.append(step)
                value = value[step] if step < len(value) else None
            else:
                break
        return tuple(found)

    return sorted(violations, key=position)
