"""Violations: bounded in number and length."""

from __future__ import annotations

from grove_server.resources.violations import Reason, Violation, bounded, quoted


def test_the_last_one_says_how_many_more() -> None:
    """What does not fit into one answer is counted."""
    violations = [Violation(f"p[{index}]", Reason.INVALID, "is wrong") for index in range(50)]
    shown = bounded(violations)
    assert len(shown) == 20
    assert shown[:19] == tuple(violations[:19])
    assert shown[19].message == "and 31 more violations"
    assert bounded(violations[:20]) == tuple(violations[:20])


def test_long_paths_are_cut() -> None:
    """A path made of a huge key does not fill the answer."""
    (violation,) = bounded([Violation("labels[" + "x" * 10_000 + "]", Reason.INVALID, "is wrong")])
    assert len(violation.path) == 512
    assert violation.path.endswith("…")


def test_values_are_quoted_as_json() -> None:
    """Messages show values as the user would write them, cut to a readable length."""
    assert quoted("a\nb") == '"a\\nb"'
    assert quoted(None) == "null"
    assert quoted({}) == "a map"
    assert quoted([1]) == "a list"
    assert len(quoted("x" * 1000)) < 70


def test_reads_as_a_sentence() -> None:
    """A violation is printed with its path, where it has one."""
    assert str(Violation("a.b", Reason.REQUIRED, "is required")) == "a.b: is required"
    assert str(Violation("", Reason.INVALID, "must be valid JSON")) == "must be valid JSON"
