"""Rules of a set, its cliques and groups: one row for each, with the path and the reason of the refusal."""

from __future__ import annotations

from typing import Any

import pytest

from grove_server.resources.violations import Reason
from tests.manifest_cases import (
    Change,
    admit,
    changed,
    clique,
    group,
    pod_clique_set,
    removing,
    setting,
    violations_of,
)

CLIQUE = "spec.template.cliques.0"
GROUP = "spec.template.podCliqueScalingGroups.0"
AUTOSCALING = {"maxReplicas": 8, "metrics": [{"type": "Resource"}]}
ALL_SHARED = {"name": "gpu", "scope": "AllReplicas"}
CLAIM = {"name": "gpu", "templateSpec": {"spec": {"devices": {"requests": [{"name": "r"}]}}}}


def cliques(*templates: dict[str, Any], **template: object) -> Change:
    """Return a change that replaces all cliques, and the groups with none or those of *template*."""

    def change(manifest: dict[str, Any]) -> None:
        manifest["spec"]["template"] = {"cliques": list(templates), **template}

    return change


@pytest.mark.parametrize(
    ("change", "path", "reason", "message"),
    [
        # The set.
        (setting("metadata.name", "A"), "metadata.name", Reason.INVALID, "lower case"),
        (setting("metadata.name", "a.b"), "metadata.name", Reason.INVALID, "lower case letters, digits and '-'"),
        (setting("metadata.name", "a" * 64), "metadata.name", Reason.INVALID, "at most 63 characters, has 64"),
        (setting("metadata.namespace", "A"), "metadata.namespace", Reason.INVALID, "lower case"),
        (setting("metadata.labels", {"a b": "c"}), "metadata.labels[a b]", Reason.INVALID, "no valid label key"),
        (setting("metadata.labels", {"a": "b c"}), "metadata.labels[a]", Reason.INVALID, "no valid label value"),
        (setting("metadata.annotations", {"a b": "c"}), "metadata.annotations[a b]", Reason.INVALID, "annotation key"),
        (
            setting("metadata.annotations", {"a": "x" * 150_000, "b": "x" * 150_000}),
            "metadata.annotations",
            Reason.TOO_LONG,
            "bytes together",
        ),
        (
            setting("metadata.annotations", {"grove.io/drain-timeout": "soon"}),
            "metadata.annotations[grove.io/drain-timeout]",
            Reason.INVALID,
            "no duration",
        ),
        (
            setting("metadata.annotations", {"grove.io/drain-timeout": "25h"}),
            "metadata.annotations[grove.io/drain-timeout]",
            Reason.INVALID,
            "between 0s and 24h0m0s",
        ),
        (
            setting("metadata.annotations", {"grove.io/mnnvl-group": "A"}),
            "metadata.annotations[grove.io/mnnvl-group]",
            Reason.INVALID,
            "NVLink",
        ),
        (setting("spec.replicas", -1), "spec.replicas", Reason.INVALID, "between 0 and 2147483647, got -1"),
        (setting("spec.replicas", 2**31), "spec.replicas", Reason.INVALID, "between 0 and 2147483647"),
        (setting("spec.replicas", 3000), "spec.replicas", Reason.TOO_MANY, "36000 pods (3000 copies of 12)"),
        (
            setting("spec.updateStrategy", {"type": "Recreate"}),
            "spec.updateStrategy.type",
            Reason.NOT_SUPPORTED,
            "RollingRecreate, OnDelete",
        ),
        (
            setting("spec.template.cliqueStartupType", "Any"),
            "spec.template.cliqueStartupType",
            Reason.NOT_SUPPORTED,
            "CliqueStartupTypeInOrder",
        ),
        (
            setting("spec.template.priorityClassName", "A!"),
            "spec.template.priorityClassName",
            Reason.INVALID,
            "lower case",
        ),
        (
            setting("spec.template.terminationDelay", "1x"),
            "spec.template.terminationDelay",
            Reason.INVALID,
            "such as 1m30s",
        ),
        (
            setting("spec.template.terminationDelay", "0s"),
            "spec.template.terminationDelay",
            Reason.INVALID,
            "more than 0",
        ),
        (
            setting("spec.template.terminationDelay", "-1m"),
            "spec.template.terminationDelay",
            Reason.INVALID,
            "more than 0",
        ),
        (
            setting(f"{GROUP}.terminationDelay", "0s"),
            "spec.template.podCliqueScalingGroups[0].terminationDelay",
            Reason.INVALID,
            "more than 0",
        ),
        (
            setting("metadata.annotations", {"grove.io/stuck-terminating-policy": "Maybe"}),
            "metadata.annotations[grove.io/stuck-terminating-policy]",
            Reason.NOT_SUPPORTED,
            "Force",
        ),
        (cliques(), "spec.template.cliques", Reason.REQUIRED, "at least one clique"),
        # Cliques.
        (setting(f"{CLIQUE}.name", "a.b"), "spec.template.cliques[0].name", Reason.INVALID, "lower case"),
        (setting(f"{CLIQUE}.name", ""), "spec.template.cliques[0].name", Reason.INVALID, "empty"),
        (
            cliques(clique("a"), clique("a", roleName="b")),
            "spec.template.cliques[1].name",
            Reason.DUPLICATE,
            '"a" is listed more than once',
        ),
        (
            cliques(clique("a", roleName="r"), clique("b", roleName="r")),
            "spec.template.cliques[1].spec.roleName",
            Reason.DUPLICATE,
            '"r"',
        ),
        (
            setting(f"{CLIQUE}.labels", {"a b": "c"}),
            "spec.template.cliques[0].labels[a b]",
            Reason.INVALID,
            "label key",
        ),
        (
            setting(f"{CLIQUE}.annotations", {"a b": "c"}),
            "spec.template.cliques[0].annotations[a b]",
            Reason.INVALID,
            "annotation key",
        ),
        (setting(f"{CLIQUE}.spec.replicas", -1), "spec.template.cliques[0].spec.replicas", Reason.INVALID, "between 0"),
        (
            setting(f"{CLIQUE}.spec.replicas", 10**30),
            "spec.template.cliques[0].spec.replicas",
            Reason.INVALID,
            "between 0",
        ),
        (
            setting(f"{CLIQUE}.spec.minAvailable", 0),
            "spec.template.cliques[0].spec.minAvailable",
            Reason.INVALID,
            "at least 1, got 0",
        ),
        (
            setting(f"{CLIQUE}.spec.minAvailable", 3),
            "spec.template.cliques[0].spec.minAvailable",
            Reason.INVALID,
            "at most replicas (2), got 3",
        ),
        # Autoscaling.
        (
            setting(f"{CLIQUE}.spec.autoScalingConfig", {}),
            "spec.template.cliques[0].spec.autoScalingConfig.maxReplicas",
            Reason.REQUIRED,
            "is required",
        ),
        (
            setting(f"{CLIQUE}.spec.autoScalingConfig", {"maxReplicas": 1}),
            "spec.template.cliques[0].spec.autoScalingConfig.maxReplicas",
            Reason.INVALID,
            "at least minReplicas (2)",
        ),
        (
            setting(f"{CLIQUE}.spec.autoScalingConfig", {"maxReplicas": 1, "minReplicas": 0}),
            "spec.template.cliques[0].spec.autoScalingConfig.maxReplicas",
            Reason.INVALID,
            "at least replicas (2)",
        ),
        (
            setting(f"{CLIQUE}.spec.autoScalingConfig", {"maxReplicas": 0}),
            "spec.template.cliques[0].spec.autoScalingConfig.maxReplicas",
            Reason.INVALID,
            "at least 1",
        ),
        (
            setting(f"{CLIQUE}.spec.autoScalingConfig", {"maxReplicas": 4, "minReplicas": 1}),
            "spec.template.cliques[0].spec.autoScalingConfig.minReplicas",
            Reason.INVALID,
            "0 or at least minAvailable (2)",
        ),
        (
            setting(f"{CLIQUE}.spec.autoScalingConfig", {"maxReplicas": 4, "metrics": [{}]}),
            "spec.template.cliques[0].spec.autoScalingConfig.metrics[0].type",
            Reason.REQUIRED,
            "is required",
        ),
        (
            setting(f"{CLIQUE}.spec.autoScalingConfig", {"maxReplicas": 4, "metrics": [{"type": "X"}]}),
            "spec.template.cliques[0].spec.autoScalingConfig.metrics[0].type",
            Reason.NOT_SUPPORTED,
            "Resource",
        ),
        (
            setting("spec.template.cliques.1.spec.autoScalingConfig", AUTOSCALING),
            "spec.template.cliques[1].spec.autoScalingConfig",
            Reason.FORBIDDEN,
            "group 'prefill' as a whole",
        ),
        (
            setting(f"{GROUP}.scaleConfig", {"maxReplicas": 1}),
            "spec.template.podCliqueScalingGroups[0].scaleConfig.maxReplicas",
            Reason.INVALID,
            "at least minReplicas (2)",
        ),
        (
            setting(f"{GROUP}.scaleConfig", {}),
            "spec.template.podCliqueScalingGroups[0].scaleConfig.maxReplicas",
            Reason.REQUIRED,
            "is required",
        ),
        # Groups.
        (setting(f"{GROUP}.name", "A"), "spec.template.podCliqueScalingGroups[0].name", Reason.INVALID, "lower case"),
        (
            setting(f"{GROUP}.cliqueNames", []),
            "spec.template.podCliqueScalingGroups[0].cliqueNames",
            Reason.REQUIRED,
            "at least one",
        ),
        (
            setting(f"{GROUP}.cliqueNames", ["nobody"]),
            "spec.template.podCliqueScalingGroups[0].cliqueNames[0]",
            Reason.NOT_FOUND,
            'no clique "nobody"',
        ),
        (
            setting(f"{GROUP}.cliqueNames", ["worker", "worker"]),
            "spec.template.podCliqueScalingGroups[0].cliqueNames[1]",
            Reason.DUPLICATE,
            '"worker"',
        ),
        (
            setting(f"{GROUP}.cliqueNames", ["worker"] * 100),
            "spec.template.podCliqueScalingGroups[0].cliqueNames",
            Reason.TOO_MANY,
            "at most 3",
        ),
        (
            setting(f"{GROUP}.replicas", -2),
            "spec.template.podCliqueScalingGroups[0].replicas",
            Reason.INVALID,
            "between 0",
        ),
        (
            setting(f"{GROUP}.minAvailable", 3),
            "spec.template.podCliqueScalingGroups[0].minAvailable",
            Reason.INVALID,
            "at most replicas (2), got 3",
        ),
        (
            setting(f"{GROUP}.minAvailable", 0),
            "spec.template.podCliqueScalingGroups[0].minAvailable",
            Reason.INVALID,
            "at least 1",
        ),
        (
            setting(f"{GROUP}.annotations", {"grove.io/mnnvl-group": "-"}),
            "spec.template.podCliqueScalingGroups[0].annotations[grove.io/mnnvl-group]",
            Reason.INVALID,
            "NVLink",
        ),
        (
            cliques(clique("a"), podCliqueScalingGroups=[group("g", "a"), group("h", "a")]),
            "spec.template.podCliqueScalingGroups[1].cliqueNames[0]",
            Reason.INVALID,
            "in group 'g' already",
        ),
        (
            cliques(clique("a"), clique("b"), podCliqueScalingGroups=[group("g", "a"), group("g", "b")]),
            "spec.template.podCliqueScalingGroups[1].name",
            Reason.DUPLICATE,
            '"g"',
        ),
        # Claims and sharing.
        (
            setting("spec.template.resourceClaimTemplates", [CLAIM, CLAIM]),
            "spec.template.resourceClaimTemplates[1].name",
            Reason.DUPLICATE,
            '"gpu"',
        ),
        (
            setting("spec.template.resourceClaimTemplates", [{**CLAIM, "name": ""}]),
            "spec.template.resourceClaimTemplates[0].name",
            Reason.INVALID,
            "empty",
        ),
        (
            setting("spec.template.resourceClaimTemplates", [{"name": "a", "templateSpec": {"spec": {"devices": {}}}}]),
            "spec.template.resourceClaimTemplates[0].templateSpec.spec.devices.requests",
            Reason.REQUIRED,
            "at least one device",
        ),
        (
            setting("spec.template.resourceClaimTemplates", [{"name": "a", "templateSpec": {}}]),
            "spec.template.resourceClaimTemplates[0].templateSpec.spec.devices.requests",
            Reason.REQUIRED,
            "at least one device",
        ),
        (
            setting("spec.template.resourceClaimTemplates", [{"name": "a", "templateSpec": {"spec": 5}}]),
            "spec.template.resourceClaimTemplates[0].templateSpec.spec",
            Reason.TYPE_INVALID,
            "a map",
        ),
        (
            setting("spec.template.resourceSharing", [ALL_SHARED, ALL_SHARED]),
            "spec.template.resourceSharing[1].name",
            Reason.DUPLICATE,
            '"gpu"',
        ),
        (
            setting("spec.template.resourceSharing", [{"name": "a", "scope": "Some"}]),
            "spec.template.resourceSharing[0].scope",
            Reason.NOT_SUPPORTED,
            "AllReplicas, PerReplica",
        ),
        (
            setting("spec.template.resourceSharing", [{**ALL_SHARED, "filter": {}}]),
            "spec.template.resourceSharing[0].filter",
            Reason.REQUIRED,
            "at least one child",
        ),
        (
            setting("spec.template.resourceSharing", [{**ALL_SHARED, "filter": {"childCliqueNames": ["x"]}}]),
            "spec.template.resourceSharing[0].filter.childCliqueNames[0]",
            Reason.NOT_FOUND,
            "no child 'x'",
        ),
        (
            setting(
                "spec.template.resourceSharing", [{**ALL_SHARED, "filter": {"childScalingGroupNames": ["worker"]}}]
            ),
            "spec.template.resourceSharing[0].filter.childScalingGroupNames[0]",
            Reason.NOT_FOUND,
            "no child",
        ),
        (
            setting(f"{GROUP}.resourceSharing", [{**ALL_SHARED, "filter": {"childCliqueNames": ["router"]}}]),
            "spec.template.podCliqueScalingGroups[0].resourceSharing[0].filter.childCliqueNames[0]",
            Reason.NOT_FOUND,
            "no child",
        ),
        (
            setting(f"{GROUP}.resourceSharing", [{**ALL_SHARED, "filter": {"childScalingGroupNames": ["prefill"]}}]),
            "spec.template.podCliqueScalingGroups[0].resourceSharing[0].filter.childScalingGroupNames",
            Reason.FORBIDDEN,
            "children are cliques",
        ),
        (
            setting(f"{CLIQUE}.resourceSharing", [{**ALL_SHARED, "filter": {"childCliqueNames": ["router"]}}]),
            "spec.template.cliques[0].resourceSharing[0].filter",
            Reason.FORBIDDEN,
            "no children",
        ),
        (
            setting(f"{CLIQUE}.resourceSharing", [{**ALL_SHARED, "namespace": "A"}]),
            "spec.template.cliques[0].resourceSharing[0].namespace",
            Reason.INVALID,
            "lower case",
        ),
    ],
)
def test_refuses(change: Change, path: str, reason: Reason, message: str) -> None:
    """A manifest that breaks one rule is refused for exactly that."""
    (violation,) = violations_of(changed(pod_clique_set(), change))
    assert (violation.path, violation.reason) == (path, reason)
    assert message in violation.message


@pytest.mark.parametrize(
    "change",
    [
        setting("spec.replicas", 0),
        setting("spec.template.terminationDelay", "never"),
        setting("spec.template.cliques.0.spec.replicas", 0),
        setting(f"{GROUP}.replicas", 0),
        setting(f"{CLIQUE}.spec.roleName", ""),
        setting(f"{CLIQUE}.spec.autoScalingConfig", AUTOSCALING),
        setting(f"{CLIQUE}.spec.autoScalingConfig", {"maxReplicas": 4, "minReplicas": 0}),
        setting(f"{GROUP}.scaleConfig", {"maxReplicas": 6}),
        setting("metadata.annotations", {"grove.io/mnnvl-group": "none"}),
        setting("metadata.annotations", {"grove.io/drain-timeout": "0s"}),
        setting("metadata.annotations", {"grove.io/drain-timeout": "1m30s"}),
        setting("spec.template.resourceClaimTemplates", [CLAIM]),
        setting("spec.template.resourceSharing", [{**ALL_SHARED, "filter": {"childScalingGroupNames": ["prefill"]}}]),
        setting(f"{GROUP}.resourceSharing", [{**ALL_SHARED, "filter": {"childCliqueNames": ["leader"]}}]),
        setting(f"{CLIQUE}.resourceSharing", [{"name": "external", "namespace": "other", "scope": "PerReplica"}]),
        removing("spec.template.podCliqueScalingGroups"),
    ],
)
def test_accepts(change: Change) -> None:
    """What no rule forbids is admitted."""
    assert violations_of(changed(pod_clique_set(), change)) == ()


def test_own_claims_have_no_namespace() -> None:
    """A claim template of the set itself is not looked for in a namespace."""
    manifest = pod_clique_set(resourceClaimTemplates=[CLAIM], resourceSharing=[{**ALL_SHARED, "namespace": "other"}])
    (violation,) = violations_of(manifest)
    assert violation.path == "spec.template.resourceSharing[0].namespace"
    assert violation.reason is Reason.FORBIDDEN


def test_everything_is_reported_at_once() -> None:
    """Mistakes of different subjects come together, up to what one answer can carry."""
    manifest = pod_clique_set(
        name="UPPER",
        cliques=[clique("a", -1), clique("a", minAvailable=5, startsAfter=["a"])],
        cliqueStartupType="CliqueStartupTypeExplicit",
        terminationDelay="soon",
        topologyConstraint={"pack": {}},
        podCliqueScalingGroups=[group("g", "b")],
    )
    manifest["metadata"]["labels"] = {"x y": "z"}
    assert {violation.path for violation in violations_of(manifest)} == {
        "metadata.name",
        "metadata.labels[x y]",
        "spec.template.cliques[0].spec.replicas",
        "spec.template.cliques[1].name",
        "spec.template.cliques[1].spec.roleName",
        "spec.template.cliques[1].spec.minAvailable",
        "spec.template.cliques[1].spec.startsAfter[0]",
        "spec.template.terminationDelay",
        "spec.template.podCliqueScalingGroups[0].cliqueNames[0]",
        "spec.template.topologyConstraint.pack",
        "spec.template.topologyConstraint.topologyName",
    }


def test_more_violations_than_fit_are_counted() -> None:
    """Twenty violations are shown; the last says how many more there are."""
    manifest = pod_clique_set(cliques=[clique(f"c{index}", -1) for index in range(30)])
    del manifest["spec"]["template"]["podCliqueScalingGroups"]
    violations = violations_of(manifest)
    assert len(violations) == 20
    assert violations[-1].message == "and 11 more violations"


def test_a_termination_delay_below_a_second_is_warned_about() -> None:
    """It is kept, of the set and of a group; from a second on nothing is said."""
    short = changed(pod_clique_set(), setting("spec.template.terminationDelay", "1ns"))
    short = changed(short, setting(f"{GROUP}.terminationDelay", "999ms"))
    about = [warning for warning in admit(short).warnings if "terminationDelay" in warning]
    assert [warning.partition(":")[0] for warning in about] == [
        "spec.template.terminationDelay is 1ns",
        "spec.template.podCliqueScalingGroups[0].terminationDelay is 999ms",
    ]
    usual = changed(pod_clique_set(), setting("spec.template.terminationDelay", "1s"))
    assert not [warning for warning in admit(usual).warnings if "terminationDelay" in warning]
