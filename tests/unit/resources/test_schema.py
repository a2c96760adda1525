"""Reading manifests: shape, bounds, and the words for what is wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest

from grove_server.resources.schema import (
    MANIFEST_SIZE_MAX_BYTES,
    SchemaError,
    parse_cluster_topology_binding,
    parse_pod_clique_set,
)
from grove_server.resources.violations import Reason, Violation
from tests.manifest_cases import Change, changed, pod_clique_set, removing, setting, topology_binding

CLIQUE = "spec.template.cliques.0"


def violations_in(data: bytes) -> tuple[Violation, ...]:
    """Return what is wrong with the shape of a set."""
    with pytest.raises(SchemaError) as caught:
        parse_pod_clique_set(data)
    return caught.value.violations


def violations_after(change: Change) -> tuple[Violation, ...]:
    """Return what is wrong with the shape of a set after *change*."""
    return violations_in(json.dumps(changed(pod_clique_set(), change)).encode())


def test_reads_a_manifest_as_given() -> None:
    """What is left out stays None or empty, so that admission can tell it from zero."""
    manifest = parse_pod_clique_set(json.dumps(pod_clique_set(replicas=None)).encode())
    assert manifest.metadata.name == "demo"
    assert manifest.spec.replicas is None
    assert manifest.spec.template.cliques[0].spec.min_available is None
    assert manifest.spec.template.cliques[0].spec.pod_spec["containers"][0]["name"] == "main"
    assert manifest.spec.template.pod_clique_scaling_groups[0].clique_names == ("leader", "worker")


@pytest.mark.parametrize(
    ("change", "path", "reason", "message"),
    [
        (setting("spec.foo", 1), "spec.foo", Reason.FIELD_UNKNOWN, "is not a known field"),
        (
            setting(f"{CLIQUE}.spec.min_available", 1),
            "spec.template.cliques[0].spec.min_available",
            Reason.FIELD_UNKNOWN,
            "is not",
        ),
        (removing("metadata.name"), "metadata.name", Reason.REQUIRED, "is required"),
        (removing("spec"), "spec", Reason.REQUIRED, "is required"),
        (removing(f"{CLIQUE}.spec.podSpec"), "spec.template.cliques[0].spec.podSpec", Reason.REQUIRED, "is required"),
        (setting(f"{CLIQUE}.name", None), "spec.template.cliques[0].name", Reason.REQUIRED, "is required"),
        (setting("spec.replicas", "3"), "spec.replicas", Reason.TYPE_INVALID, 'must be a whole number, got "3"'),
        (setting("spec.replicas", 1.5), "spec.replicas", Reason.TYPE_INVALID, "must be a whole number, got 1.5"),
        (setting("spec.replicas", value=True), "spec.replicas", Reason.TYPE_INVALID, "whole number, got true"),
        (setting("metadata.labels", {"a.b": "x" * 300_000}), "metadata.labels[a.b]", Reason.TOO_LONG, "at most"),
        (setting("metadata.name", 5), "metadata.name", Reason.TYPE_INVALID, "must be a string, got 5"),
        (
            setting("metadata.labels", {"a.b/c": 1}),
            "metadata.labels[a.b/c]",
            Reason.TYPE_INVALID,
            "must be a string, got 1",
        ),
        (
            setting("metadata.labels", {"labels": {}}),
            "metadata.labels[labels]",
            Reason.TYPE_INVALID,
            "must be a string, got a map",
        ),
        (setting("metadata.labels", []), "metadata.labels", Reason.TYPE_INVALID, "must be a map, got a list"),
        (
            setting(f"{CLIQUE}.spec.podSpec", "x"),
            "spec.template.cliques[0].spec.podSpec",
            Reason.TYPE_INVALID,
            "must be a map",
        ),
        (setting(CLIQUE, 3), "spec.template.cliques[0]", Reason.TYPE_INVALID, "must be a map, got 3"),
        (
            setting("spec.template.cliques", {}),
            "spec.template.cliques",
            Reason.TYPE_INVALID,
            "must be a list, got a map",
        ),
        (
            setting(f"{CLIQUE}.spec.startsAfter", ["a", None]),
            "spec.template.cliques[0].spec.startsAfter[1]",
            Reason.TYPE_INVALID,
            "must be a string, got null",
        ),
        (
            setting("spec.template.headlessServiceConfig", {"publishNotReadyAddresses": "no"}),
            "spec.template.headlessServiceConfig.publishNotReadyAddresses",
            Reason.TYPE_INVALID,
            "must be true or false",
        ),
        (setting("apiVersion", "v1"), "apiVersion", Reason.NOT_SUPPORTED, 'must be grove.io/v1alpha1, got "v1"'),
        (setting("kind", "Pod"), "kind", Reason.NOT_SUPPORTED, 'must be PodCliqueSet, got "Pod"'),
    ],
)
def test_says_what_is_wrong_and_where(change: Change, path: str, reason: Reason, message: str) -> None:
    """Each mistake has the path of its field, a reason, and words a person understands."""
    (violation,) = violations_after(change)
    assert (violation.path, violation.reason) == (path, reason)
    assert message in violation.message


def test_reports_all_mistakes_at_once() -> None:
    """Mistakes do not hide each other."""

    def change(manifest: dict[str, Any]) -> None:
        manifest["spec"]["foo"] = 1
        manifest["spec"]["replicas"] = "many"
        del manifest["metadata"]["name"]
        manifest["spec"]["template"]["cliques"][2]["spec"]["podSpec"] = None

    assert {violation.path for violation in violations_after(change)} == {
        "metadata.name",
        "spec.foo",
        "spec.replicas",
        "spec.template.cliques[2].spec.podSpec",
    }


def test_null_counts_as_left_out() -> None:
    """Fields that Kubernetes prints as null can be applied again."""
    manifest = changed(pod_clique_set(), setting("metadata.creationTimestamp", None))
    manifest["metadata"]["labels"] = None
    manifest["spec"]["template"]["cliques"][0]["spec"]["startsAfter"] = None
    parsed = parse_pod_clique_set(json.dumps(manifest).encode())
    assert parsed.spec.template.cliques[0].spec.starts_after == ()


def test_unknown_fields_alone_leave_a_readable_rest() -> None:
    """The error for unknown fields carries the manifest without them, so that more can be found wrong with it."""
    manifest = changed(pod_clique_set(), setting("spec.template.cliques.1.spec.mystery", {"a": [1]}))
    with pytest.raises(SchemaError) as caught:
        parse_pod_clique_set(json.dumps(manifest).encode())
    assert caught.value.rest is not None
    assert caught.value.rest.manifest == parse_pod_clique_set(json.dumps(pod_clique_set()).encode())
    assert caught.value.rest.gaps.paths == ()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "must be valid JSON (line 1, column 0)"),
        (b'{"a": }', "must be valid JSON (line 1, column 7)"),
        (b'{"a": "\xff"}', "must be valid JSON"),
        (b"[" * 5000, "must not be nested deeper than 64 levels"),
        (b"[]", "must be a map, got a list"),
        (b"null", "must be a map, got null"),
    ],
)
def test_refuses_what_is_no_manifest(data: bytes, message: str) -> None:
    """What is not JSON, or not an object, is refused as a whole."""
    (violation,) = violations_in(data)
    assert violation.path == ""
    assert message in violation.message


def test_refuses_large_manifests() -> None:
    """A manifest of 5 MB is refused before it is read."""
    (violation,) = violations_in(b" " * 5_000_000)
    assert violation.reason is Reason.TOO_LONG
    assert str(MANIFEST_SIZE_MAX_BYTES) in violation.message


def test_does_not_describe_each_of_very_many_mistakes() -> None:
    """A document with thousands of mistakes is answered with their number."""
    (violation,) = violations_after(setting("spec.template.cliques", [0] * 5000))
    assert violation.reason is Reason.TOO_MANY
    assert "5000 fields" in violation.message


def test_shows_as_many_mistakes_as_an_answer_can_carry() -> None:
    """Of more than twenty mistakes the last says how many more there are; their number is known."""
    with pytest.raises(SchemaError) as caught:
        parse_pod_clique_set(
            json.dumps(changed(pod_clique_set(), setting("spec.template.cliques", [0] * 100))).encode()
        )
    violations = caught.value.violations
    assert [violation.path for violation in violations[:19]] == [f"spec.template.cliques[{n}]" for n in range(19)]
    assert violations[19:] == (Violation("", Reason.TOO_MANY, "and 81 more violations"),)
    assert caught.value.count == 100


def nested(depth: int) -> object:
    """Return maps in maps."""
    value: object = 1
    for _ in range(depth):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("value", "reason", "message"),
    [
        ({"x": nested(70)}, Reason.INVALID, "nested deeper than 64"),
        ({"x": 2**63}, Reason.INVALID, "64 bits"),
        ({"x": float("inf")}, Reason.INVALID, "finite"),
        ({"x": float("nan")}, Reason.INVALID, "finite"),
        ({"x": "y" * 300_000}, Reason.TOO_LONG, "262144 characters"),
        ({"x": [1] * 5000}, Reason.TOO_MANY, "4096 entries"),
        ({str(i): 1 for i in range(5000)}, Reason.TOO_MANY, "4096 entries"),
    ],
)
def test_bounds_what_no_schema_describes(value: object, reason: Reason, message: str) -> None:
    """Depth, sizes and numbers are bounded inside pod specs too, with the path of what exceeds them."""
    (violation,) = violations_after(setting(f"{CLIQUE}.spec.podSpec", value))
    assert violation.path.startswith("spec.template.cliques[0].spec.podSpec")
    assert violation.reason is reason
    assert message in violation.message


def test_reads_topology_bindings() -> None:
    """ClusterTopologyBindings are read by the same rules."""
    parsed = parse_cluster_topology_binding(json.dumps(topology_binding("zone", "rack")).encode())
    assert [level.domain for level in parsed.spec.levels] == ["zone", "rack"]
    with pytest.raises(SchemaError) as caught:
        parse_cluster_topology_binding(json.dumps(pod_clique_set()).encode())
    assert {violation.path for violation in caught.value.violations} == {
        "kind",
        "spec.levels",
        "spec.replicas",
        "spec.template",
    }
