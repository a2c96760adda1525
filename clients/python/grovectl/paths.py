"""Paths of a jsonpath: what stands inside of braces, parsed into steps over plain objects.

A step takes one value (and the root) and yields the values it leads to; what does not exist leads nowhere.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, TypeAlias

from grove_client.objects import Json
from grovectl.failures import usage

_COMPARE: Final[dict[str, Callable[[float | str, float | str], bool]]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
_FILTER: Final = re.compile(r"\s*(.+?)\s*(==|!=|<=|>=|<|>)\s*(.+?)\s*$", re.DOTALL)
_SLICE: Final = re.compile(r"(-?\d*):(-?\d*)(?::(-?\d*))?$")
_QUOTED: Final = re.compile(r"\s*(?:'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\")\s*$", re.DOTALL)

Step: TypeAlias = Callable[[Json, Json], Iterator[Json]]


class Path(NamedTuple):
    """A parsed path: whether it begins at the root, and its steps."""

    from_root: bool
    steps: tuple[Step, ...]

    def values(self, current: Json, root: Json) -> list[Json]:
        """Return all values that the path leads to."""
        found = [root if self.from_root else current]
        for step in self.steps:
            found = [value for item in found for value in step(item, root)]
        return found


def closing(source: str, position: int, bracket: str) -> int:
    """Return where *bracket* stands outside of quotes, after *position*."""
    quote = ""
    while position < len(source):
        char = source[position]
        if char == "\\":
            position += 1
        elif quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char == bracket:
            return position
        position += 1
    raise usage(f'jsonpath: no closing "{bracket}"')


def unquote(text: str) -> str | None:
    r"""Return the content of a quoted text with \n, \t and escapes replaced; None if it is not quoted."""
    match = _QUOTED.match(text)
    if match is None:
        return None
    content = match.group(1) if match.group(1) is not None else match.group(2)
    names = {"n": "\n", "t": "\t", "r": "\r"}
    return re.sub(r"\\(.)", lambda escape: names.get(escape.group(1), escape.group(1)), content)


def parse_path(text: str) -> Path:
    """Return the parsed path; a leading dot may be left out."""
    from_root = text.startswith("$")
    position = 1 if text[:1] in {"$", "@"} else 0
    steps: list[Step] = []
    while position < len(text):
        if text.startswith("..", position):
            steps.append(_descend)
            position += 2 if text[position + 2 : position + 3] != "[" else 1
            if text[position : position + 1] == ".":
                position += 1
                continue
            name, position = _name(text, position)
            steps.append(_all if name == "*" else _key_step(name))
        elif text[position] == "[":
            end = closing(text, position + 1, "]")
            steps.append(_bracket(text[position + 1 : end]))
            position = end + 1
        else:
            position += text[position] == "."
            if position >= len(text) or text[position] == "[":
                continue
            name, position = _name(text, position)
            steps.append(_all if name == "*" else _key_step(name))
    return Path(from_root, tuple(steps))


def _name(text: str, position: int) -> tuple[str, int]:
    """Return the key at *position*, escapes removed, and where it ends."""
    name = ""
    while position < len(text) and text[position] not in ".[":
        if text[position] == "\\" and position + 1 < len(text):
            position += 1
        name += text[position]
        position += 1
    if not name:
        raise usage(f"jsonpath: a name is missing in {text!r}")
    return name, position


def _bracket(inside: str) -> Step:
    """Return the step for what stands in brackets."""
    inside = inside.strip()
    if inside == "*":
        return _all
    if inside.startswith("?(") and inside.endswith(")"):
        return _filter(inside[2:-1])
    if _SLICE.match(inside):
        return _slice_step(inside)
    if inside[:1] in {"'", '"'}:
        keys = [unquote(part) for part in re.findall(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", inside)]
        return _keys_step([key for key in keys if key is not None])
    try:
        return _indexes_step([int(part) for part in inside.split(",")])
    except ValueError:
        raise usage(f"jsonpath: [{inside}] is no index, key, slice or filter") from None


def _all(value: Json, _root: Json) -> Iterator[Json]:
    if isinstance(value, list):
        yield from value
    elif isinstance(value, dict):
        yield from value.values()


def _descend(value: Json, root: Json) -> Iterator[Json]:
    yield value
    for child in _all(value, root):
        yield from _descend(child, root)


def _key_step(name: str) -> Step:
    return _keys_step([name])


def _keys_step(names: list[str]) -> Step:
    def step(value: Json, _root: Json) -> Iterator[Json]:
        if isinstance(value, dict):
            for name in names:
                if name in value:
                    yield value[name]

    return step


def _indexes_step(indexes: list[int]) -> Step:
    def step(value: Json, _root: Json) -> Iterator[Json]:
        if isinstance(value, list):
            for index in indexes:
                if -len(value) <= index < len(value):
                    yield value[index]

    return step


def _slice_step(text: str) -> Step:
    bounds = [int(part) if part else None for part in text.split(":")]
    if len(bounds) > 2 and bounds[2] is not None and bounds[2] <= 0:  # noqa: PLR2004 -- start, stop, step
        raise usage("jsonpath: the step of a slice must be positive")
    window = slice(*bounds)

    def step(value: Json, _root: Json) -> Iterator[Json]:
        if isinstance(value, list):
            yield from value[window]

    return step


def _filter(condition: str) -> Step:
    """Return the step that keeps the items for which *condition* holds."""
    match = _FILTER.match(condition)
    if match is None:
        path = parse_path(condition.strip())
        return lambda value, root: (item for item in _all(value, root) if path.values(item, root))
    left, right = _operand(match.group(1)), _operand(match.group(3))
    compare = _COMPARE[match.group(2)]

    def step(value: Json, root: Json) -> Iterator[Json]:
        for item in _all(value, root):
            first, second = left(item, root), right(item, root)
            if first and second and _holds(compare, first[0], second[0]):
                yield item

    return step


def _operand(text: str) -> Callable[[Json, Json], list[Json]]:
    """Return what gives the values of one side of a comparison: a path, a quoted text, or a JSON literal."""
    quoted = unquote(text)
    if quoted is not None:
        return lambda _item, _root: [quoted]
    if text[:1] in {"@", "$", "."}:
        return parse_path(text).values
    try:
        literal: Json = json.loads(text)
    except ValueError:
        raise usage(f"jsonpath: {text} in a filter is neither a path nor a value") from None
    return lambda _item, _root: [literal]


def _holds(compare: Callable[[float | str, float | str], bool], first: Json, second: Json) -> bool:
    """Return whether two values compare so; values of different types are only ever unequal."""
    both_numbers = isinstance(first, int | float) and isinstance(second, int | float)
    if both_numbers or (isinstance(first, str) and isinstance(second, str)):
        return compare(first, second)  # type: ignore[arg-type] # narrowed together, which mypy cannot see
    if compare is operator.eq:
        return first == second
    return compare is operator.ne and first != second
