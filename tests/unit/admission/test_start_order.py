"""Start order: what startsAfter may name, and cycles."""

from __future__ import annotations

import pytest

from grove_server.admission.startup import find_cycles
from grove_server.resources.violations import Reason
from tests.manifest_cases import admit, clique, pod_clique_set, violations_of


def ordered(startup_type: str = "CliqueStartupTypeExplicit", **parents: list[str]) -> dict[str, object]:
    """Return a set of cliques with the given parents."""
    return pod_clique_set(
        cliques=[clique(name, startsAfter=listed) for name, listed in parents.items()],
        cliqueStartupType=startup_type,
        podCliqueScalingGroups=[],
    )


@pytest.mark.parametrize(
    ("parents", "reason", "message"),
    [
        ([""], Reason.REQUIRED, "must not be empty"),
        (["b"], Reason.INVALID, "cannot start after itself"),
        (["a", "x"], Reason.NOT_FOUND, "there is no clique 'x'"),
        (["a", "a"], Reason.DUPLICATE, '"a" is listed more than once'),
    ],
)
def test_refuses_parents(parents: list[str], reason: Reason, message: str) -> None:
    """A parent is another clique of the set, listed once."""
    (violation,) = violations_of(ordered(a=[], b=parents))
    assert violation.path == f"spec.template.cliques[1].spec.startsAfter[{len(parents) - 1}]"
    assert violation.reason is reason
    assert message in violation.message


def test_reports_a_cycle_as_a_path() -> None:
    """A cycle is shown in the order of waiting, from the clique that is listed first."""
    (violation,) = violations_of(ordered(a=[], b=["d"], c=["b"], d=["c", "a"]))
    assert violation.path == "spec.template.cliques[1].spec.startsAfter"
    assert violation.message == "would never start, because of a cycle: b -> d -> c -> b"


def test_order_without_cycles_is_admitted() -> None:
    """A diamond is no cycle."""
    assert violations_of(ordered(a=[], b=["a"], c=["a"], d=["b", "c"])) == ()


def test_parents_without_explicit_order_are_warned_about() -> None:
    """StartsAfter counts only with Explicit; elsewhere it is kept, and said to be without effect."""
    admitted = admit(ordered("CliqueStartupTypeAnyOrder", a=["b"], b=["a"]))
    assert admitted.warnings == (
        "clique a: startsAfter has no effect, because cliqueStartupType is not CliqueStartupTypeExplicit",
        "clique b: startsAfter has no effect, because cliqueStartupType is not CliqueStartupTypeExplicit",
    )


@pytest.mark.parametrize(
    ("parents", "cycles"),
    [
        ({}, []),
        ({"a": ["a"]}, []),
        ({"a": ["x"]}, []),
        ({"a": ["b"], "b": ["a"]}, [("a", "b")]),
        ({"a": ["b"], "b": ["c"], "c": ["b"]}, [("b", "c")]),
        ({"a": ["b"], "b": ["a"], "c": ["d"], "d": ["c"]}, [("a", "b"), ("c", "d")]),
        ({"a": ["b"], "b": ["c"], "c": ["a"]}, [("a", "b", "c")]),
    ],
)
def test_finds_each_cycle(parents: dict[str, list[str]], cycles: list[tuple[str, ...]]) -> None:
    """Separate cycles are all found; self references and unknown parents are not theirs."""
    assert find_cycles(parents) == cycles


def test_a_long_cycle_needs_no_recursion() -> None:
    """A cycle through a thousand cliques is found."""
    names = [f"c{index}" for index in range(1000)]
    (cycle,) = find_cycles({name: [names[index - 1]] for index, name in enumerate(names)})
    assert len(cycle) == 1000
    assert cycle[0] == "c0"
