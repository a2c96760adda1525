"""Names: patterns against all names they stand for, and no two children of an admitted set alike.

The oracle is brute force: fill in small indices everywhere and compare the names themselves.
"""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from grove_server.admission.naming import can_collide, normalised
from grove_server.resources import names
from grove_server.resources.selector import SelectorError, parse_selector
from tests.manifest_cases import clique, group, pod_clique_set, violations_of

INDICES = range(3)

pieces = st.sampled_from(["a", "b", "0", "1", "2", "01", "#"])
patterns = st.lists(pieces, min_size=1, max_size=4).map(lambda listed: "-".join(["a", *listed]))
short_names = st.sampled_from(["a", "b", "0", "1", "a-0", "b-1", "a-0-b", "0-a", "a-b"])


def names_of(pattern: str) -> set[str]:
    """Return every name a pattern stands for, with small indices."""
    parts = [INDICES if piece == "#" else (piece,) for piece in pattern.split("-")]
    return {"-".join(map(str, chosen)) for chosen in itertools.product(*parts)}


@given(patterns, patterns)
def test_patterns_collide_where_their_names_do(one: str, other: str) -> None:
    """Two patterns collide exactly if they stand for a name in common, and then have one normal form."""
    collide = can_collide(one, other)
    assert collide == bool(names_of(one) & names_of(other))
    if collide:
        assert normalised(one) == normalised(other)


@st.composite
def small_sets(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a set with a few cliques and groups, whose names invite collisions."""
    cliques = draw(st.lists(short_names, min_size=1, max_size=4, unique=True))
    grouped = draw(st.lists(st.sampled_from([None, 0, 1]), min_size=len(cliques), max_size=len(cliques)))
    group_names = draw(st.lists(short_names, min_size=2, max_size=2, unique=True))
    members = [[name for name, owner in zip(cliques, grouped, strict=True) if owner == index] for index in (0, 1)]
    groups = [group(group_names[index], *members[index], replicas=3) for index in (0, 1) if members[index]]
    manifest = pod_clique_set(draw(short_names), replicas=3, cliques=[clique(name) for name in cliques])
    manifest["spec"]["template"]["podCliqueScalingGroups"] = groups
    return manifest


def children_of(manifest: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Return the names of all gangs, and of all cliques and groups, of a set."""
    set_name, template = manifest["metadata"]["name"], manifest["spec"]["template"]
    gangs, tree = [], []
    members = {name for each in template["podCliqueScalingGroups"] for name in each["cliqueNames"]}
    for copy in INDICES:
        gangs.append(names.base_gang(set_name, copy))
        tree += [
            names.standalone_clique(set_name, copy, each["name"])
            for each in template["cliques"]
            if each["name"] not in members
        ]
        for each in template["podCliqueScalingGroups"]:
            group_name = names.scaling_group(set_name, copy, each["name"])
            tree.append(group_name)
            gangs += [names.scaled_gang(group_name, index, 0) for index in INDICES]
            tree += [names.member_clique(group_name, index, name) for index in INDICES for name in each["cliqueNames"]]
    return gangs, tree


@given(small_sets())
def test_children_of_an_admitted_set_have_different_names(manifest: dict[str, Any]) -> None:
    """A set is refused for its names exactly if two of its children would share one."""
    gangs, tree = children_of(manifest)
    unique = len(set(gangs)) == len(gangs) and len(set(tree)) == len(tree)
    assert (violations_of(manifest) == ()) == unique


@given(st.text(max_size=40))
def test_selectors_are_read_or_refused(text: str) -> None:
    """No text makes the reader of selectors fail in another way, and what it reads has a canonical text."""
    try:
        selector = parse_selector(text)
    except SelectorError as error:
        assert 1 <= error.position <= len(text) + 1  # noqa: PT017 -- most texts are refused, some are not
        return
    assume(selector.requirements)
    assert str(parse_selector(str(selector))) == str(selector)
