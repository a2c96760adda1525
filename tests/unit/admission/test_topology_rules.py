"""Topology constraints: their form with Grove's own messages, domains, inheritance, parents and children."""

from __future__ import annotations

from typing import Any

import pytest

from grove_server.admission.topology import topology_name_of
from grove_server.resources.violations import Reason
from tests.manifest_cases import Change, admit, changed, pod_clique_set, setting, violations_of

SET = "spec.template.topologyConstraint"
GROUP = "spec.template.podCliqueScalingGroups.0.topologyConstraint"
CLIQUE = "spec.template.cliques.1.topologyConstraint"
SHOWN = {
    SET: SET,
    GROUP: "spec.template.podCliqueScalingGroups[0].topologyConstraint",
    CLIQUE: "spec.template.cliques[1].topologyConstraint",
}
NAME = {"topologyName": "grove-topology"}


def required(domain: str, **fields: object) -> dict[str, Any]:
    """Return a constraint that requires *domain*."""
    return {**NAME, "pack": {"required": domain}, **fields}


def preferred(domain: str, **fields: object) -> dict[str, Any]:
    """Return a constraint that prefers *domain*."""
    return {**NAME, "pack": {"preferred": domain}, **fields}


def all_of(*changes: Change) -> Change:
    """Return a change that makes several."""

    def change(manifest: dict[str, Any]) -> None:
        for each in changes:
            each(manifest)

    return change


@pytest.mark.parametrize("place", [SET, GROUP, CLIQUE])
@pytest.mark.parametrize(
    ("constraint", "message", "path"),
    [
        ({**NAME}, "topologyConstraint must specify pack or deprecated packDomain", ""),
        ({**NAME, "pack": {}}, "pack must specify at least one of required or preferred", ".pack"),
        (
            {**NAME, "packDomain": "rack"},
            "packDomain is deprecated and cannot be used on new workloads; use pack.required",
            ".packDomain",
        ),
    ],
)
def test_form(place: str, constraint: dict[str, Any], message: str, path: str) -> None:
    """The form of a constraint is checked in all three places, in Grove's words."""
    (violation,) = violations_of(changed(pod_clique_set(), setting(place, constraint)))
    assert violation.message == message
    assert violation.path == SHOWN[place] + path


@pytest.mark.parametrize("place", [SET, GROUP, CLIQUE])
def test_old_and_new_form_together(place: str) -> None:
    """Both forms at once break two rules on a new set."""
    constraint = {**NAME, "packDomain": "rack", "pack": {"required": "rack"}}
    messages = {violation.message for violation in violations_of(changed(pod_clique_set(), setting(place, constraint)))}
    assert messages == {
        "must not set both pack.required and deprecated packDomain",
        "packDomain is deprecated and cannot be used on new workloads; use pack.required",
    }


@pytest.mark.parametrize(
    ("change", "path", "reason", "message"),
    [
        (setting(SET, {"pack": {"required": "rack"}}), f"{SET}.topologyName", Reason.REQUIRED, "here or at a parent"),
        (
            setting(SET, required("rack", topologyName="none")),
            f"{SET}.topologyName",
            Reason.NOT_FOUND,
            'no ClusterTopologyBinding "none"',
        ),
        (setting(SET, required("island")), f"{SET}.pack.required", Reason.INVALID, "zone, block, rack, host"),
        (setting(SET, required("")), f"{SET}.pack.required", Reason.INVALID, "must be a level"),
        (setting(SET, preferred("island")), f"{SET}.pack.preferred", Reason.INVALID, 'got "island"'),
        (
            all_of(setting(SET, required("rack")), setting(GROUP, required("block"))),
            f"{SHOWN[GROUP]}.pack.required",
            Reason.INVALID,
            'is broader than "rack", which spec.template.topologyConstraint requires',
        ),
        (
            all_of(setting(SET, required("rack")), setting(CLIQUE, required("zone"))),
            f"{SHOWN[CLIQUE]}.pack.required",
            Reason.INVALID,
            "is broader",
        ),
        (
            all_of(setting(GROUP, required("host")), setting(CLIQUE, required("rack"))),
            f"{SHOWN[CLIQUE]}.pack.required",
            Reason.INVALID,
            "podCliqueScalingGroups[0].topologyConstraint requires",
        ),
        (
            all_of(setting(SET, preferred("rack")), setting(GROUP, preferred("block"))),
            f"{SHOWN[GROUP]}.pack.preferred",
            Reason.INVALID,
            "prefers for all its children",
        ),
        (
            all_of(setting(SET, required("zone")), setting(GROUP, required("rack", topologyName="other"))),
            f"{SHOWN[GROUP]}.topologyName",
            Reason.INVALID,
            'must be "grove-topology"',
        ),
    ],
)
def test_refuses(change: Change, path: str, reason: Reason, message: str) -> None:
    """Names and domains must exist, be the same throughout, and narrow from parent to child."""
    (violation,) = violations_of(changed(pod_clique_set(), change))
    assert (violation.path, violation.reason) == (path, reason)
    assert message in violation.message


@pytest.mark.parametrize(
    "change",
    [
        setting(SET, required("zone")),
        setting(SET, {**NAME, "pack": {"required": "zone", "preferred": "rack"}}),
        all_of(setting(SET, required("rack")), setting(GROUP, required("rack")), setting(CLIQUE, required("host"))),
        all_of(setting(SET, required("block")), setting(GROUP, {"pack": {"required": "rack"}})),
        all_of(setting(GROUP, required("rack")), setting(CLIQUE, {"pack": {"preferred": "host"}})),
        all_of(setting(SET, required("rack")), setting(GROUP, preferred("block"))),
        all_of(setting(SET, preferred("rack")), setting(GROUP, required("block"))),
    ],
)
def test_accepts(change: Change) -> None:
    """A name is inherited from above; required and preferred are compared each with their own kind."""
    admitted = admit(changed(pod_clique_set(), change))
    assert admitted.warnings == ()
    assert topology_name_of(admitted.resource.spec.template) == "grove-topology"


def test_a_preference_without_effect_is_warned_about() -> None:
    """A preferred domain broader than the required one is kept, and said to be without effect."""
    manifest = changed(pod_clique_set(), setting(SET, {**NAME, "pack": {"required": "rack", "preferred": "zone"}}))
    (warning,) = admit(manifest).warnings
    assert "has no effect" in warning


def test_no_constraint_has_no_name() -> None:
    """A set without constraints uses no topology."""
    assert topology_name_of(admit(pod_clique_set()).resource.spec.template) is None


def test_a_missing_binding_is_reported_once() -> None:
    """Children that inherit a name do not repeat that it is unknown."""
    manifest = changed(
        pod_clique_set(),
        all_of(setting(SET, required("rack", topologyName="gone")), setting(GROUP, {"pack": {"required": "rack"}})),
    )
    (violation,) = violations_of(manifest)
    assert violation.path == f"{SET}.topologyName"
