"""Wishes about nodes, affinity between pods, nearness and spread: what is taken, and what is refused where."""

from __future__ import annotations

import pytest

from grove_server.resources.violations import Reason
from tests.manifest_cases import Change, admit, changed, clique, pod_clique_set, setting, violations_of

POD = "spec.template.cliques.0.spec.podSpec"
SHOWN = "spec.template.cliques[0].spec.podSpec.affinity"
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
TERM = {
    "topologyKey": "kubernetes.io/hostname",
    "namespaces": ["other"],
    "namespaceSelector": {},
    "labelSelector": {
        "matchLabels": {"app": "x"},
        "matchExpressions": [
            {"key": "tier", "operator": "In", "values": ["a", "b"]},
            {"key": "tier", "operator": "NotIn", "values": ["c"]},
            {"key": "app", "operator": "Exists"},
            {"key": "gone", "operator": "DoesNotExist"},
        ],
    },
}


def _affinity(value: object) -> Change:
    return setting(f"{POD}.affinity", value)


def _apart(**fields: object) -> Change:
    return _affinity({"podAntiAffinity": {REQUIRED: [{"topologyKey": "kubernetes.io/hostname", **fields}]}})


def _prefers(entry: object) -> Change:
    return _affinity({"nodeAffinity": {PREFERRED: [entry]}})


def test_all_forms_that_placement_judges_are_taken_without_a_word() -> None:
    """Required and preferred terms of both kinds, with every operator, are admitted and change nothing."""
    weighted = [{"weight": 100, "podAffinityTerm": TERM}]
    both = {REQUIRED: [TERM], PREFERRED: weighted}
    node = [{"weight": 1, "preference": {"matchExpressions": [{"key": "disk", "operator": "Gt", "values": ["1"]}]}}]
    change = _affinity({"podAffinity": both, "podAntiAffinity": both, "nodeAffinity": {PREFERRED: node}})
    assert admit(changed(pod_clique_set(), change)).warnings == ()


@pytest.mark.parametrize(
    ("change", "path", "reason", "message"),
    [
        (_affinity({"podAffinity": []}), ".podAffinity", Reason.TYPE_INVALID, "a map"),
        (_affinity({"podAntiAffinity": {"x": []}}), ".podAntiAffinity.x", Reason.FIELD_UNKNOWN, "known field"),
        (_apart(topologyKey=""), f".podAntiAffinity.{REQUIRED}[0].topologyKey", Reason.REQUIRED, "is required"),
        (
            _apart(topologyKey="a b"),
            f".podAntiAffinity.{REQUIRED}[0].topologyKey",
            Reason.INVALID,
            "no valid label key",
        ),
        (
            _apart(namespaceSelector={"matchLabels": {"team": "a"}}),
            f".podAntiAffinity.{REQUIRED}[0].namespaceSelector",
            Reason.FORBIDDEN,
            "labels of namespaces are not known here",
        ),
        (
            _apart(matchLabelKeys=["app"]),
            f".podAntiAffinity.{REQUIRED}[0].matchLabelKeys",
            Reason.FORBIDDEN,
            "write the labels into labelSelector",
        ),
        (
            _apart(labelSelector={"matchLabels": {"grove.io/podclique-pod-index": "0"}}),
            f".podAntiAffinity.{REQUIRED}[0].labelSelector.matchLabels[grove.io/podclique-pod-index]",
            Reason.FORBIDDEN,
            "not single pods",
        ),
        (
            _apart(labelSelector={"matchExpressions": [{"key": "a", "operator": "Gt", "values": ["1"]}]}),
            f".podAntiAffinity.{REQUIRED}[0].labelSelector.matchExpressions[0].operator",
            Reason.NOT_SUPPORTED,
            "must be one of In",
        ),
        (
            _apart(labelSelector={"matchExpressions": [{"key": "a", "operator": "In"}]}),
            f".podAntiAffinity.{REQUIRED}[0].labelSelector.matchExpressions[0].values",
            Reason.INVALID,
            "does not go with operator In",
        ),
        (_apart(namespaces=["A"]), f".podAntiAffinity.{REQUIRED}[0].namespaces[0]", Reason.INVALID, "no name"),
        (_prefers({"preference": {}}), f".nodeAffinity.{PREFERRED}[0].weight", Reason.INVALID, "from 1 to 100"),
        (_prefers({"weight": 5}), f".nodeAffinity.{PREFERRED}[0].preference", Reason.REQUIRED, "is required"),
        (
            _prefers({"weight": 5, "preference": {"matchExpressions": [{"key": "a", "operator": "Is"}]}}),
            f".nodeAffinity.{PREFERRED}[0].preference.matchExpressions[0].operator",
            Reason.NOT_SUPPORTED,
            "must be one of In",
        ),
        (
            _affinity({"podAffinity": {PREFERRED: [{"weight": 101, "podAffinityTerm": TERM}]}}),
            f".podAffinity.{PREFERRED}[0].weight",
            Reason.INVALID,
            "from 1 to 100, got 101",
        ),
    ],
)
def test_refuses(change: Change, path: str, reason: Reason, message: str) -> None:
    """What is malformed or cannot be judged is refused at its field."""
    (violation,) = violations_of(changed(pod_clique_set(), change))
    assert (violation.path, violation.reason) == (f"{SHOWN}{path}", reason)
    assert message in violation.message


@pytest.mark.parametrize(
    ("text", "reason"), [("nobody", Reason.NOT_FOUND), ("a", Reason.INVALID), ("b,", Reason.NOT_FOUND)]
)
def test_nearness_names_another_part_of_the_set(text: str, reason: Reason) -> None:
    """`grove.io/near` has to name other cliques or groups of the same set."""
    near = {**clique("a"), "annotations": {"grove.io/near": text}}
    manifest = pod_clique_set(cliques=[near, clique("b")], podCliqueScalingGroups=[])
    (violation,) = violations_of(manifest)
    assert (violation.path, violation.reason) == ("spec.template.cliques[0].annotations[grove.io/near]", reason)


@pytest.mark.parametrize(
    ("annotations", "path"),
    [
        ({"grove.io/spread-copies": "no key"}, "grove.io/spread-copies"),
        ({"grove.io/spread-copies-required": "true"}, "grove.io/spread-copies-required"),
        (
            {"grove.io/spread-copies": "rack", "grove.io/spread-copies-required": "yes"},
            "grove.io/spread-copies-required",
        ),
    ],
)
def test_spread_names_a_domain(annotations: dict[str, str], path: str) -> None:
    """The annotations about spreading copies are a label or domain, and true or false beside it."""
    (violation,) = violations_of(changed(pod_clique_set(), setting("metadata.annotations", annotations)))
    assert violation.path == f"metadata.annotations[{path}]"
