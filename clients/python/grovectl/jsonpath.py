r"""JSONPath templates in kubectl's dialect, evaluated over plain objects.

Understood: text outside of braces; `{.a.b}`, `{['a']}`, keys with escaped dots (`{.metadata.labels.app\.io/x}`),
`[0]`, `[-1]`, `[0,2]`, `[1:3]`, `[::2]`, `[*]`, `.*`, `..name`, filters `[?(@.x=="y")]` with == != < <= > >= or mere
existence, `{range .items[*]}…{end}` (nested, too), `$` and `@`, and quoted text `{"\n"}`. What does not exist gives
nothing, as kubectl's `--allow-missing-template-keys` (its default) does. Expressions are bounded in length and depth.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, TypeAlias

from grove_client.objects import Json
from grovectl.failures import Failure, usage
from grovectl.paths import Path, closing, parse_path, unquote

TEMPLATE_LENGTH_MAX: Final = 64 * 1024
NESTING_MAX: Final = 16


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
        end = closing(source, start + 1, "}")
        yield True, source[start + 1 : end].strip()
        position = end + 1


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
            nodes.append(Loop(parse_path(text.removeprefix("range").strip()), body))
        else:
            quoted = unquote(text)
            nodes.append(parse_path(text) if quoted is None else Text(quoted))
        index += 1
    return tuple(nodes), index


def parse(source: str) -> Template:
    """Return the parsed template; a usage failure if it is not one."""
    try:
        return Template(source)
    except RecursionError:
        raise Failure("jsonpath: nested too deeply", 2) from None
