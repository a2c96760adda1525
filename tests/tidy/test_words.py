"""What no file of the repository says: unfinished work, unexplained exceptions from rules, places of one machine."""

import ast
import re
from typing import Final

import pytest

from tests.tidy.sources import Module, modules, modules_under, snippet, texts

# A bracket in each word keeps this file from saying it.
UNFINISHED: Final = re.compile(r"\b(?:TO[D]O|FIX[M]E|XX[X]|HAC[K])\b")
UNFINISHED_NAMES: Final = frozenset({"NotImplementedError", "importorskip", "skip", "skipif", "xfail"})
# A reason follows two dashes; mypy wants it as a second comment instead.
IGNORE: Final = re.compile(r"noqa|type:\s*ignore|pyright:|pragma:|fmt:\s*(?:off|skip)|isort:")
EXPLAINED: Final = re.compile(
    r"""\#\s*(?:
        noqa:[ ][A-Z]+[0-9]+(?:,[ ]?[A-Z]+[0-9]+)*
        | (?:type|pyright):[ ]ignore\[[\w, -]+\]
        | pragma:[ ]no[ ]cover
        | fmt:[ ](?:off|skip)
    )\s*(?:--|\#)\s*\w.{2,}""",
    re.VERBOSE,
)
WHOLE_FILE: Final = re.compile(r"#\s*(?:ruff: noqa|flake8: noqa|mypy: |type: ignore\s*$)")
ONE_MACHINE: Final = re.compile(
    r"(?<![\w.$}~-])/(?:wor[k]|roo[t]|hom[e]/\w+|User[s]/\w+|tmp/brie[f]|opt/wheel[s])(?:/|\b)"
)
REGISTRIES: Final = re.compile(
    r"pyp[i]\.org|pythonhoste[d]\.org|(?:proxy|sum)\.golan[g]\.org|crate[s]\.io\b|npm[j]s\.(?:org|com)"
)


def unexplained(module: Module) -> list[str]:
    """Return a finding for each exception from a rule that does not say why, or holds for a whole file."""
    findings: list[str] = []
    for line, comment in module.comments():
        if WHOLE_FILE.match(comment):
            findings.append(module.finding(line, f"switches a check off for the whole file: {comment}"))
        elif IGNORE.search(comment.split("--")[0]) and not EXPLAINED.search(comment):
            findings.append(module.finding(line, f"gives no reason (`-- why`, for mypy and fmt `# why`): {comment}"))
    return findings


def unfinished(module: Module) -> list[str]:
    """Return a finding for each sign of unfinished work in a module's code."""
    found = {
        (node.lineno, name)
        for node in ast.walk(module.tree)
        for name in [node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""]
        if name in UNFINISHED_NAMES and isinstance(node, ast.Name | ast.Attribute)
    }
    return [module.finding(line, f"uses {name}") for line, name in sorted(found)]


def sleeps(module: Module) -> list[str]:
    """Return a finding for each wait for time to pass; `asyncio.sleep(0)` gives way and waits for nothing."""
    findings: list[str] = []
    for node in ast.walk(module.tree):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id="asyncio"), attr="sleep"), args=[ast.Constant(value=0)]):
                pass
            case ast.Call(func=ast.Attribute(value=ast.Name(id="asyncio" | "time"), attr="sleep")):
                findings.append(module.finding(node.lineno, "sleeps: wait for a condition (tests/waiting.py)"))
            case _:
                pass
    return findings


def matches(pattern: re.Pattern[str]) -> list[str]:
    """Return a finding for each line of any text file that a pattern matches."""
    return [
        f"{name}:{number}: {line.strip()[:120]}"
        for name, text in texts()
        for number, line in enumerate(text.splitlines(), start=1)
        if pattern.search(line)
    ]


def test_nothing_is_left_for_later() -> None:
    """No file marks unfinished work, and no test is switched off."""
    assert matches(UNFINISHED) == []
    assert [finding for module in modules() for finding in unfinished(module)] == []


def test_exceptions_from_rules_carry_their_reason() -> None:
    """Every comment that silences a check says why on its line, and silences that line only."""
    assert [finding for module in modules() for finding in unexplained(module)] == []


def test_no_file_knows_a_machine_or_a_package_registry() -> None:
    """Paths of one machine and hosts of registries stand nowhere, so that a clone works anywhere."""
    assert matches(ONE_MACHINE) == []
    assert matches(REGISTRIES) == []


def test_tests_wait_for_conditions() -> None:
    """No test sleeps; the one place that polls is tests/waiting.py."""
    tests = [m for m in modules_under("tests", "clients/python/tests") if m.name != "tests/waiting.py"]
    assert [finding for module in tests for finding in sleeps(module)] == []


def test_tests_use_the_real_thing() -> None:
    """No test imports a mock library."""
    mocks = re.compile(r"^\s*(?:from|import) (?:unittest\.mock|unittest import mock|mock\b)", re.MULTILINE)
    assert [m.name for m in modules_under("tests", "clients/python/tests") if mocks.search(m.text)] == []


@pytest.mark.parametrize(
    ("comment", "is_found"),
    [
        pytest.param("noqa", True, id="bare"),
        pytest.param("noqa: BLE001", True, id="code-only"),
        pytest.param("noqa: BLE001 -- the loop must survive", False, id="reason"),
        pytest.param("noqa: BLE001, S110 -- the loop must survive", False, id="two-codes"),
        pytest.param("type: ignore[attr-defined]", True, id="type-code-only"),
        pytest.param("type: ignore[attr-defined]  # set by the extension", False, id="type-reason"),
        pytest.param("ruff: noqa", True, id="whole-file"),
        pytest.param("pragma: no cover", True, id="pragma"),
        pytest.param("A sentence about noise.", False, id="prose"),
    ],
)
def test_an_unexplained_exception_is_found(*, comment: str, is_found: bool) -> None:
    """A silencing comment needs a code and a reason."""
    assert bool(unexplained(snippet(f"x = 1  # {comment}\n"))) is is_found


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("import pytest\n@pytest.mark.skip\ndef test(): ...", id="skip"),
        pytest.param("import pytest\npytest.importorskip('x')", id="importorskip"),
        pytest.param("raise NotImplementedError", id="not-implemented"),
    ],
)
def test_unfinished_work_is_found(text: str) -> None:
    """Switched-off tests and unwritten functions are reported."""
    assert len(unfinished(snippet(text))) == 1


@pytest.mark.parametrize(
    ("call", "is_found"), [("asyncio.sleep(0)", False), ("asyncio.sleep(0.1)", True), ("time.sleep(1)", True)]
)
def test_a_sleep_is_found(*, call: str, is_found: bool) -> None:
    """Giving way is allowed, waiting for time is not."""
    assert bool(sleeps(snippet(call))) is is_found
