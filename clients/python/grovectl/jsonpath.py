r"""JSONPath templates in kubectl's dialect, evaluated over plain objects.

Understood: text outside of braces; `{.a.b}`, `{['a']}`, keys with escaped dots (`{.metadata.labels.app\.io/x}`),
`[0]`, `[-1]`, `[0,2]`, `[1:3]`, `[::2]`, `[*]`, `.*`, `..name`, filters `[?(@.x=="y")]` with == != < <= > >= or mere
existence, `{range .items[*]}…{end}` (nested, too), `$` and `@`, and quoted text `{"\n"}`. What does not exist gives
nothing, as kubectl's `--allow-missing-template-keys` (its default) does. Expressions are bounded in length and depth.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple, TypeAlias

from grove_client.objects import Json
from grovectl.failures import Failure, usage

TEMPLATE_LENGTH_MAX: Final = 64 * 1024
NESTING_MAX: Final = 16

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


class Text(NamedTuple):
    """Text that is printed as it is."""

    text: str


class Loop(NamedTuple):
    """`{range path}body{end}`."""

    path: Path
    body: tuple[Node, ...]


Node: TypeAlias = "Text | Path | Loop"


class Template:
    """A parsed template; Failure (usage) if it is not one."""

    def __init__(self, source: str) -> None:
        if len(source) > TEMPLATE_LENGTH_MAX:
            raise usage(f"the jsonpath has more than {TEMPLATE_LENGTH_MAX} characters")
        if "{" not in source:
            source = "{" + source + "}"
        pieces = list(_pieces(source))
        self._nodes, rest = _parse_nodes(pieces, 0, depth=0)
        if rest != len(pieces):
            raise usage("jsonpath: {end} without {range}")

    def render(self, value: Json) -> str:
        """Return what the template prints for *value*."""
        return "".join(_render(self._nodes, value, value))

    def values(self, value: Json) -> list[Json]:
        """Return the values of a template that is a single path; what sorting and waiting look at."""
        return [found for node in self._nodes if isinstance(node, Path) for found in node.values(value, value)]


def text_of(value: Json) -> str:
    """Return how a value is printed: texts as they are, the rest as JSON."""
    if isinstance(value, str):
        return value
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _render(nodes: Sequence[Node], current: Json, root: Json) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, Text):
            yield node.text
        elif isinstance(node, Loop):
            for item in node.path.values(current, root):
                yield from _render(node.body, item, root)
        else:
            yield " ".join(text_of(value) for value in node.values(current, root))


def _pieces(source: str) -> Iterator[tuple[bool, str]]:
    """Yield (is an expression, text) for each part of a template; braces in quotes do not count."""
    position = 0
    while position < len(source):
        start = source.find("{", position)
        if start < 0:
            yield False, source[position:]
            return
        if start > position:
            yield False, source[position:start]
        end = _closing(source, start + 1, "}")
        yield True, source[start + 1 : end].strip()
        position = end + 1


def _closing(source: str, position: int, bracket: str) -> int:
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


def _parse_nodes(pieces: list[tuple[bool, str]], index: int, depth: int) -> tuple[tuple[Node, ...], int]:
    """Return the nodes from *index* to the matching {end}, and where that stands (or the end)."""
    if depth > NESTING_MAX:
        raise usage(f"jsonpath: ranges nest deeper than {NESTING_MAX}")
    nodes: list[Node] = []
    while index < len(pieces):
        is_expression, text = pieces[index]
        if not is_expression:
            nodes.append(Text(text))
        elif text == "end":
            return tuple(nodes), index
        elif text.startswith("range ") or text == "range":
            body, index = _parse_nodes(pieces, index + 1, depth + 1)
            if index >= len(pieces):
                raise usage("jsonpath: {range} without {end}")
            nodes.append(Loop(_parse_path(text.removeprefix("range").strip()), body))
        else:
            quoted = _unquote(text)
            nodes.append(_parse_path(text) if quoted is None else Text(quoted))
        index += 1
    return tuple(nodes), index


def _unquote(text: str) -> str | None:
    r"""Return the content of a quoted text with \n, \t and escapes replaced; None if it is not quoted."""
    match = _QUOTED.match(text)
    if match is None:
        return None
    content = match.group(1) if match.group(1) is not None else match.group(2)
    names = {"n": "\n", "t": "\t", "r": "\r"}
    return re.sub(r"\\(.)", lambda escape: names.get(escape.group(1), escape.group(1)), content)


def _parse_path(text: str) -> Path:
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
            end = _closing(text, position + 1, "]")
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
        keys = [_unquote(part) for part in re.findall(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", inside)]
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
        path = _parse_path(condition.strip())
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
    quoted = _unquote(text)
    if quoted is not None:
        return lambda _item, _root: [quoted]
    if text[:1] in {"@", "$", "."}:
        return _parse_path(text).values
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


def parse(source: str) -> Template:
    """Return the parsed template; a usage failure if it is not one."""
    try:
        return Template(source)
    except RecursionError:
        raise Failure("jsonpath: nested too deeply", 2) from None
