"""Modules and functions stay small enough to be read in one go, and carry names of the domain."""

import ast
from typing import Final

import pytest

from tests.tidy.sources import Module, modules, snippet

MODULE_LINES_MAX: Final = 500
# Without the docstring: words that explain a function are not what makes it long.
FUNCTION_LINES_MAX: Final = 60
# Names that say nothing: such a module becomes the place for whatever has no place.
EMPTY_NAMES: Final = frozenset({"base", "common", "helper", "helpers", "manager", "misc", "util", "utils"})


def long_functions(module: Module) -> list[str]:
    """Return a finding for each function that is too long."""
    findings: list[str] = []
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        first, last = node.body[0], node.body[-1]
        if ast.get_docstring(node, clean=False) is not None and len(node.body) > 1:
            first = node.body[1]
        line_count = (last.end_lineno or last.lineno) - first.lineno + 1
        if line_count > FUNCTION_LINES_MAX:
            findings.append(module.finding(node.lineno, f"{node.name} has {line_count} lines"))
    return findings


def test_modules_are_short() -> None:
    """No hand-written module is longer than the limit."""
    counts = {module.name: len(module.text.splitlines()) for module in modules()}
    assert {name: count for name, count in counts.items() if count > MODULE_LINES_MAX} == {}


def test_functions_are_short() -> None:
    """No function body is longer than the limit."""
    assert [finding for module in modules() for finding in long_functions(module)] == []


def test_modules_are_named_after_what_they_hold() -> None:
    """No module or package has a name that fits everything."""
    parts = {module.name: {*module.path.parent.parts[-2:], module.path.stem} for module in modules()}
    assert [name for name, words in parts.items() if words & EMPTY_NAMES] == []


@pytest.mark.parametrize(("body_lines", "is_found"), [(FUNCTION_LINES_MAX, False), (FUNCTION_LINES_MAX + 1, True)])
def test_a_long_function_is_found(*, body_lines: int, is_found: bool) -> None:
    """The limit counts the lines of the body and leaves out the docstring."""
    text = 'def f() -> None:\n    """Doc.\n\n    More.\n    """\n' + "    pass\n" * body_lines
    assert bool(long_functions(snippet(text))) is is_found
