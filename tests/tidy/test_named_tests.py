"""Tests that documents name as proof exist."""

import ast
import re
from functools import lru_cache
from typing import Final

import pytest

from tests.tidy.sources import ROOT, documents

NAMED: Final = re.compile(r"`(tests/[\w/.-]+\.py)::(\w+)`")
PLACES: Final = re.compile(r"`(tests/[\w/.-]+)`")
ROW: Final = re.compile(r"^\| D?\d+[^|]*\|.*\|$", re.MULTILINE)


@lru_cache
def functions_of(path: str) -> frozenset[str]:
    """Return the names of the test functions in a file; none if there is no such file."""
    file = ROOT / path
    if not file.exists():
        return frozenset()
    tree = ast.parse(file.read_text(encoding="utf-8"))
    found = [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return frozenset(name for name in found if name.startswith("test_"))


@pytest.mark.parametrize(("name", "text"), documents(), ids=[name for name, _ in documents()])
def test_what_is_named_as_proof_exists(name: str, text: str) -> None:
    """Each test, test file and folder of tests that a document names is there."""
    assert [f"{name}: {path}::{test}" for path, test in NAMED.findall(text) if test not in functions_of(path)] == []
    assert [f"{name}: {path}" for path in PLACES.findall(text) if not (ROOT / path).exists()] == []


def test_every_fault_of_grove_has_a_test() -> None:
    """Each row of docs/grove-bugs.md names at least one test."""
    rows = ROW.findall((ROOT / "docs" / "grove-bugs.md").read_text(encoding="utf-8"))
    assert len(rows) > 20
    assert [row for row in rows if not NAMED.search(row)] == []


def test_every_complaint_about_placement_has_a_test() -> None:
    """Each row of docs/placement-complaints.md names at least one test."""
    text = (ROOT / "docs" / "placement-complaints.md").read_text(encoding="utf-8")
    rows = [
        row
        for row in text.splitlines()
        if row.startswith("| ") and not row.startswith(("| ---", "| complaint", "| input"))
    ]
    assert len(rows) > 25
    assert [row for row in rows if not NAMED.search(row)] == []
