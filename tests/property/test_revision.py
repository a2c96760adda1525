"""Revisions: the order in which a manifest lists things never matters, what pods run always does."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from grove_server.resources.revision import revision_of
from grove_server.resources.schema import parse_pod_clique_set
from grove_server.resources.workload import Revision
from tests.manifest_cases import clique, pod_clique_set

scalars = st.one_of(
    st.text(max_size=8),
    st.integers(-(2**63) + 1, 2**63 - 1),
    st.booleans(),
    st.floats(allow_nan=False, allow_infinity=False),
)
pod_values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)),
    max_leaves=12,
)
pod_specs = st.dictionaries(st.text(min_size=1, max_size=6), pod_values, max_size=4)


def revision_with(*pod_specs_of_cliques: dict[str, Any]) -> Revision:
    """Return the revision of a set whose cliques run the given pod specs, named by their position."""
    cliques = [clique(f"c{index}", podSpec=pod_spec) for index, pod_spec in enumerate(pod_specs_of_cliques)]
    manifest = pod_clique_set(cliques=cliques, podCliqueScalingGroups=[])
    return revision_of(parse_pod_clique_set(json.dumps(manifest).encode()).spec.template)


def turned(value: Any) -> Any:  # noqa: ANN401 -- any JSON
    """Return the same JSON with the keys of every map in the opposite order."""
    if isinstance(value, dict):
        return {key: turned(value[key]) for key in reversed(value)}
    if isinstance(value, list):
        return [turned(item) for item in value]
    return value


def with_nothing_added(value: Any) -> Any:  # noqa: ANN401 -- any JSON
    """Return the same JSON with nulls and empty lists added to every map."""
    if isinstance(value, dict):
        return {"~null": None, **{key: with_nothing_added(item) for key, item in value.items()}, "~empty": []}
    if isinstance(value, list):
        return [with_nothing_added(item) for item in value]
    return value


@given(pod_specs)
def test_order_and_emptiness_do_not_matter(pod_spec: dict[str, Any]) -> None:
    """Neither the order of keys nor values that say nothing change a revision."""
    revision = revision_with(pod_spec)
    assert revision_with(turned(pod_spec)) == revision
    assert revision_with(with_nothing_added(pod_spec)) == revision


@given(pod_specs, st.text(min_size=1, max_size=8))
def test_content_matters(pod_spec: dict[str, Any], text: str) -> None:
    """A value that is added is another revision, of that clique alone."""
    one = revision_with(pod_spec, pod_spec)
    other = revision_with(pod_spec, {**pod_spec, "~added": text})
    assert one.hash != other.hash
    assert one.clique_hashes["c0"] == other.clique_hashes["c0"] == one.clique_hashes["c1"]
    assert one.clique_hashes["c1"] != other.clique_hashes["c1"]
