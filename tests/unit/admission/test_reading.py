"""Reading and admitting together: unknown fields do not hide broken rules."""

from __future__ import annotations

import json

import pytest

from grove_server.admission.admit import read_pod_clique_set
from grove_server.resources.schema import SchemaError
from tests.manifest_cases import CONTEXT, admit, changed, pod_clique_set, setting


def test_unknown_fields_and_broken_rules_come_together() -> None:
    """A typing mistake and a wrong value are reported in one answer."""
    manifest = changed(pod_clique_set(), setting("spec.template.cliques.0.spec.minAvailable", 9))
    manifest["spec"]["replica"] = 3
    with pytest.raises(SchemaError) as caught:
        read_pod_clique_set(json.dumps(manifest).encode(), CONTEXT)
    assert [violation.path for violation in caught.value.violations] == [
        "spec.template.cliques[0].spec.minAvailable",
        "spec.replica",
    ]


def test_wrong_types_have_no_follow_ups() -> None:
    """Where a type is wrong there is no value to check rules on."""
    manifest = changed(pod_clique_set(), setting("spec.replicas", "3"))
    manifest["spec"]["replica"] = 3
    with pytest.raises(SchemaError) as caught:
        read_pod_clique_set(json.dumps(manifest).encode(), CONTEXT)
    assert {violation.path for violation in caught.value.violations} == {"spec.replicas", "spec.replica"}


def test_reads_what_is_right() -> None:
    """A manifest without mistakes is returned."""
    assert read_pod_clique_set(json.dumps(pod_clique_set()).encode(), CONTEXT).metadata.name == "demo"


def test_an_unknown_field_alone() -> None:
    """A manifest whose only mistake is an unknown field is refused for that."""
    manifest = changed(pod_clique_set(), setting("spec.replica", 3))
    with pytest.raises(SchemaError) as caught:
        read_pod_clique_set(json.dumps(manifest).encode(), CONTEXT)
    assert [violation.path for violation in caught.value.violations] == ["spec.replica"]


def test_rules_of_an_update_need_what_is_stored() -> None:
    """With a way to find what is stored, the rules of an update are checked."""
    old = admit(pod_clique_set()).resource
    manifest = changed(pod_clique_set(), setting("spec.template.cliques.0.spec.roleName", "new"))
    manifest["spec"]["replica"] = 3
    with pytest.raises(SchemaError) as caught:
        read_pod_clique_set(
            json.dumps(manifest).encode(), CONTEXT, lambda metadata: old if metadata.name == "demo" else None
        )
    assert [violation.path for violation in caught.value.violations] == [
        "spec.template.cliques[0].spec.roleName",
        "spec.replica",
    ]
