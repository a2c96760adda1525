"""Names of children: real lengths, and collisions within a set and between sets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from grove_server.admission.naming import can_collide, name_patterns, normalised
from grove_server.resources.violations import Reason
from grove_server.resources.workload import PodCliqueSet
from tests.manifest_cases import CONTEXT, admit, clique, group, pod_clique_set, violations_of


def alone(set_name: str, clique_name: str, replicas: int = 1, **spec: object) -> dict[str, Any]:
    """Return a set of one standalone clique."""
    return pod_clique_set(set_name, replicas=replicas, cliques=[clique(clique_name, **spec)], podCliqueScalingGroups=[])  # type: ignore[arg-type]  # spec has no name of another type


def grouped(set_name: str, group_name: str, clique_name: str, **fields: object) -> dict[str, Any]:
    """Return a set of one group of one clique."""
    return pod_clique_set(
        set_name, cliques=[clique(clique_name)], podCliqueScalingGroups=[group(group_name, clique_name, **fields)]
    )


@pytest.mark.parametrize(
    ("manifest", "fits"),
    [
        # <set>-0-<clique>-xxxxx: 9 characters besides the names.
        (alone("s" * 27, "c" * 27), True),
        (alone("s" * 27, "c" * 28), False),
        (alone("s" * 27, "c" * 27, replicas=10), True),
        (alone("s" * 27, "c" * 27, replicas=11), False),
        # <set>-0-<group>-0-<clique>-xxxxx: 12 characters besides the names.
        (grouped("s" * 17, "g" * 17, "c" * 17), True),
        (grouped("s" * 17, "g" * 17, "c" * 18), False),
        (grouped("s" * 17, "g" * 17, "c" * 17, replicas=11), False),
        (grouped("s" * 17, "g" * 17, "c" * 17, scaleConfig={"maxReplicas": 11}), False),
        # More than 45 characters of names, which Grove refuses whatever the indices are.
        (alone("s" * 23, "c" * 23), True),
        (alone("s" * 63, "c"), False),
    ],
)
def test_lengths_are_real(manifest: dict[str, Any], fits: bool) -> None:
    """The longest pod name at the declared maxima must fit into 63 characters."""
    violations = violations_of(manifest)
    assert [violation.reason for violation in violations] == ([] if fits else [Reason.TOO_LONG])


def test_too_long_names_are_shown() -> None:
    """The refusal shows a name that would not fit and how long it would be."""
    (violation,) = violations_of(alone("s" * 30, "c" * 30))
    assert violation.path == "spec.template.cliques[0].name"
    assert f"{'s' * 30}-0-{'c' * 30}-xxxxx" in violation.message
    assert violation.message.endswith("and would have 69")


def test_parts_collide_whatever_is_wrong_with_the_name_of_the_set() -> None:
    """A set whose name is none hears of its parts that get the same names as well; a name of any length is no work."""
    parts: dict[str, Any] = {"cliques": [clique("g-0-a"), clique("a")], "podCliqueScalingGroups": [group("g", "a")]}
    broken = violations_of(pod_clique_set("Chat", **parts))
    assert [(v.path, v.reason) for v in broken] == [
        ("metadata.name", Reason.INVALID),
        ("spec.template.cliques[1].name", Reason.DUPLICATE),
    ]
    for name in ("x" * 254, "a-#"):
        assert [v.path for v in violations_of(pod_clique_set(name, **parts))] == ["metadata.name"]


def test_patterns_of_a_set() -> None:
    """Each kind of child has one pattern, in the space of names it shares with others."""
    assert name_patterns(admit(pod_clique_set("a-0")).resource) == (
        "gang/a-0-#",
        "tree/a-0-#-prefill",
        "gang/a-0-#-prefill-#",
        "tree/a-0-#-router",
        "tree/a-0-#-prefill-#-leader",
        "tree/a-0-#-prefill-#-worker",
    )
    assert normalised("gang/a-0-#-b-01") == "gang/a-#-#-b-01"


@pytest.mark.parametrize(
    ("one", "other", "collide"),
    [
        ("gang/a-#", "gang/a-#", True),
        ("gang/a-#", "gang/a-5", True),
        ("gang/a-#", "gang/a-05", False),
        ("gang/a-#", "gang/a-b", False),
        ("gang/a-#", "tree/a-#", False),
        ("gang/a-#", "gang/a-#-#", False),
        ("gang/a-#-b-#", "gang/a-0-b-#", True),
        ("gang/a-#-1", "gang/a-0-#", True),
        ("gang/a-1", "gang/a-2", False),
    ],
)
def test_collisions_of_patterns(one: str, other: str, collide: bool) -> None:
    """Two patterns collide where some index makes them the same name; either order gives the same answer."""
    assert can_collide(one, other) is collide
    assert can_collide(other, one) is collide


def test_a_clique_and_a_group_of_one_name() -> None:
    """A standalone clique and a group of the same name would share the name of an autoscaler."""
    manifest = pod_clique_set(cliques=[clique("x"), clique("y")], podCliqueScalingGroups=[group("x", "y")])
    (violation,) = violations_of(manifest)
    assert (violation.path, violation.reason) == ("spec.template.cliques[0].name", Reason.DUPLICATE)
    assert "spec.template.podCliqueScalingGroups[0].name" in violation.message


def test_a_member_may_be_called_like_its_group() -> None:
    """A member's name has the group's in front, so the two do not meet."""
    assert violations_of(grouped("s", "x", "x")) == ()


def test_a_standalone_clique_that_looks_like_a_member() -> None:
    """A clique called like a member of the group's first replica is refused."""
    manifest = pod_clique_set(cliques=[clique("g-0-c"), clique("c")], podCliqueScalingGroups=[group("g", "c")])
    (violation,) = violations_of(manifest)
    assert violation.path == "spec.template.cliques[1].name"
    assert "demo-#-g-#-c and demo-#-g-0-c" in violation.message


def taken_by(*sets: PodCliqueSet) -> Any:  # noqa: ANN401 -- a context for the sets that exist
    """Return a context in whose namespace *sets* exist."""

    def taken(form: str) -> list[tuple[str, str]]:
        return [
            (each.metadata.name, pattern)
            for each in sets
            for pattern in name_patterns(each)
            if normalised(pattern) == form
        ]

    return replace(CONTEXT, name_patterns_taken=taken)


def test_a_scaled_gang_that_meets_another_sets_base_gang() -> None:
    """The scaled gang a-0-b-1 of one set would be the base gang of another set's second copy."""
    existing = admit(grouped("a", "b", "c")).resource
    (violation,) = violations_of(alone("a-0-b", "d"), context=taken_by(existing))
    assert (violation.path, violation.reason) == ("metadata.name", Reason.DUPLICATE)
    assert 'PodCliqueSet "a" may use too: a-0-b-# and a-#-b-#' in violation.message


def test_a_set_does_not_collide_with_itself() -> None:
    """A set that is applied again does not meet its own names; unrelated sets do not matter."""
    old = admit(pod_clique_set()).resource
    context = taken_by(old, admit(pod_clique_set("other")).resource)
    assert not admit(pod_clique_set(), old, context).changed
