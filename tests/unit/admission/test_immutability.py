"""What an update may not change, what it may, and the two repairs of old topology constraints."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from grove_server.resources.manifest import PackConstraint, TopologyConstraint
from grove_server.resources.violations import Reason
from grove_server.resources.workload import PodCliqueSet
from tests.manifest_cases import (
    CONTEXT,
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
CLAIM = {"name": "gpu", "templateSpec": {"spec": {"devices": {"requests": [{"name": "r"}]}}}}
SHARED = [{"name": "x", "scope": "AllReplicas"}]
MNNVL = {"grove.io/mnnvl-group": "a"}
RACK = {"topologyName": "grove-topology", "pack": {"required": "rack"}}


def full() -> dict[str, Any]:
    """Return a manifest that sets all that is immutable."""
    manifest = pod_clique_set(
        topologyConstraint=RACK,
        resourceClaimTemplates=[CLAIM],
        resourceSharing=SHARED,
        cliqueStartupType="CliqueStartupTypeExplicit",
    )
    manifest["spec"]["template"]["cliques"][1]["spec"]["startsAfter"] = ["router"]
    return manifest


@pytest.mark.parametrize(
    ("change", "path"),
    [
        (setting("spec.template.cliqueStartupType", "CliqueStartupTypeAnyOrder"), "spec.template.cliqueStartupType"),
        (setting("spec.template.resourceClaimTemplates", []), "spec.template.resourceClaimTemplates"),
        (setting("spec.template.resourceSharing", []), "spec.template.resourceSharing"),
        (removing("spec.template.topologyConstraint"), "spec.template.topologyConstraint"),
        (setting("spec.template.topologyConstraint.pack.required", "host"), "spec.template.topologyConstraint"),
        (setting("spec.template.topologyConstraint.pack.preferred", "host"), "spec.template.topologyConstraint"),
        (setting(f"{CLIQUE}.topologyConstraint", RACK), "spec.template.cliques[0].topologyConstraint"),
        (setting(f"{GROUP}.topologyConstraint", RACK), "spec.template.podCliqueScalingGroups[0].topologyConstraint"),
        (setting(f"{CLIQUE}.spec.roleName", "new"), "spec.template.cliques[0].spec.roleName"),
        (setting(f"{CLIQUE}.spec.minAvailable", 1), "spec.template.cliques[0].spec.minAvailable"),
        (setting("spec.template.cliques.1.spec.startsAfter", []), "spec.template.cliques[1].spec.startsAfter"),
        (setting(f"{CLIQUE}.resourceSharing", SHARED), "spec.template.cliques[0].resourceSharing"),
        (setting(f"{CLIQUE}.annotations", MNNVL), "spec.template.cliques[0].annotations[grove.io/mnnvl-group]"),
        (setting("metadata.annotations", MNNVL), "metadata.annotations[grove.io/mnnvl-group]"),
        (setting("metadata.uid", "other"), "metadata.uid"),
        (
            setting(f"{GROUP}.annotations", MNNVL),
            "spec.template.podCliqueScalingGroups[0].annotations[grove.io/mnnvl-group]",
        ),
        (setting(f"{GROUP}.cliqueNames", ["worker", "leader"]), "spec.template.podCliqueScalingGroups[0].cliqueNames"),
        (setting(f"{GROUP}.minAvailable", 2), "spec.template.podCliqueScalingGroups[0].minAvailable"),
        (setting(f"{GROUP}.resourceSharing", SHARED), "spec.template.podCliqueScalingGroups[0].resourceSharing"),
        (setting("spec.template.podCliqueScalingGroups", []), "spec.template.podCliqueScalingGroups"),
    ],
)
def test_refuses(change: Change, path: str) -> None:
    """A change of one immutable field is refused with its path."""
    old = admit(full()).resource
    (violation,) = violations_of(changed(full(), change), old)
    assert (violation.path, violation.reason) == (path, Reason.IMMUTABLE)


def test_cliques_and_groups_cannot_come_or_go() -> None:
    """Adding, removing and renaming name the clique or group."""
    old = admit(pod_clique_set()).resource
    added = changed(pod_clique_set(), lambda m: m["spec"]["template"]["cliques"].append(clique("extra")))
    (violation,) = violations_of(added, old)
    assert violation.path == "spec.template.cliques[3]"
    assert "'extra' cannot be added" in violation.message
    removed = changed(pod_clique_set(), removing("spec.template.cliques.0"))
    (violation,) = violations_of(removed, old)
    assert violation.path == "spec.template.cliques"
    assert "'router' cannot be removed" in violation.message
    renamed = changed(pod_clique_set(), setting(f"{GROUP}.name", "other"))
    assert [violation.path for violation in violations_of(renamed, old)] == [
        "spec.template.podCliqueScalingGroups[0]",
        "spec.template.podCliqueScalingGroups",
    ]
    more = changed(pod_clique_set(), setting("spec.template.podCliqueScalingGroups.0.cliqueNames", ["leader"]))
    more["spec"]["template"]["podCliqueScalingGroups"].append(group("new", "worker"))
    assert {violation.path for violation in violations_of(more, old)} == {
        "spec.template.podCliqueScalingGroups[0].cliqueNames",
        "spec.template.podCliqueScalingGroups[1]",
    }


@pytest.mark.parametrize(
    ("startup_type", "refused"),
    [("CliqueStartupTypeAnyOrder", False), ("CliqueStartupTypeInOrder", True), ("CliqueStartupTypeExplicit", True)],
)
def test_the_order_of_cliques_counts_where_they_start_in_order(startup_type: str, refused: bool) -> None:
    """Cliques may be listed in another order only where order means nothing; the revision stays the same then."""
    manifest = pod_clique_set(cliqueStartupType=startup_type)
    old = admit(manifest).resource
    turned = changed(manifest, lambda m: m["spec"]["template"]["cliques"].reverse())
    violations = violations_of(turned, old)
    assert [violation.path for violation in violations] == (["spec.template.cliques"] if refused else [])
    if not refused:
        assert admit(turned, old).resource.revision == old.revision


@pytest.mark.parametrize(
    "change",
    [
        setting("spec.replicas", 2),
        setting(f"{CLIQUE}.spec.replicas", 3),
        setting(f"{GROUP}.replicas", 5),
        setting(f"{CLIQUE}.labels", {"a": "b"}),
        setting(f"{CLIQUE}.annotations", {"a": "b"}),
        setting(f"{CLIQUE}.spec.podSpec.containers.0.image", "other"),
        setting(f"{CLIQUE}.spec.autoScalingConfig", {"maxReplicas": 5}),
        setting(f"{GROUP}.scaleConfig", {"maxReplicas": 5}),
        setting("spec.template.priorityClassName", "high"),
        setting("spec.template.terminationDelay", "1m"),
        setting("spec.template.headlessServiceConfig", {"publishNotReadyAddresses": False}),
        setting("spec.updateStrategy", {"type": "OnDelete"}),
        setting(f"{CLIQUE}.spec.podSpec.schedulerName", "grove-scheduler"),
    ],
)
def test_accepts(change: Change) -> None:
    """What is mutable can be changed; naming the default scheduler is no change of it."""
    old = admit(full()).resource
    admitted = admit(changed(full(), change), old)
    assert admitted.changed
    assert admitted.resource.metadata.generation == 2
    assert admitted.resource.metadata.uid == old.metadata.uid


def test_another_scheduler_is_refused() -> None:
    """The scheduler of running pods cannot be exchanged."""
    old = admit(pod_clique_set()).resource
    manifest = pod_clique_set()
    for each in manifest["spec"]["template"]["cliques"]:
        each["spec"]["podSpec"]["schedulerName"] = "kai-scheduler"
    assert [violation.path for violation in violations_of(manifest, old)] == [
        f"spec.template.cliques[{index}].spec.podSpec.schedulerName" for index in range(3)
    ]


def test_status_and_version_are_carried_over() -> None:
    """An update touches neither the status nor the version of what is stored."""
    old = admit(pod_clique_set()).resource
    old = replace(old, resource_version=7, status=replace(old.status, observed_generation=1))
    new = admit(pod_clique_set(replicas=2), old).resource
    assert new.resource_version == 7
    assert new.status == old.status


def legacy(constraint: TopologyConstraint) -> PodCliqueSet:
    """Return a stored set with a constraint that could not be created any more."""
    old = admit(pod_clique_set()).resource
    return replace(old, spec=replace(old.spec, template=replace(old.spec.template, topology_constraint=constraint)))


def with_constraint(constraint: dict[str, Any]) -> dict[str, Any]:
    """Return a manifest with a constraint of the whole set."""
    return pod_clique_set(topologyConstraint=constraint)


def test_the_old_form_may_become_the_new_one() -> None:
    """PackDomain may be repaired to pack.required of the same value, and a missing name be added."""
    old = legacy(TopologyConstraint(pack_domain="rack"))
    repaired = admit(with_constraint(RACK), old).resource
    assert repaired.spec.template.topology_constraint == TopologyConstraint(
        topology_name="grove-topology", pack=PackConstraint(required="rack")
    )
    named = legacy(TopologyConstraint(pack=PackConstraint(required="rack")))
    assert admit(with_constraint(RACK), named).resource.spec == repaired.spec


def test_a_repair_cannot_change_the_value() -> None:
    """A repair to another domain is a change."""
    old = legacy(TopologyConstraint(topology_name="grove-topology", pack_domain="block"))
    assert [violation.path for violation in violations_of(with_constraint(RACK), old)] == [
        "spec.template.topologyConstraint"
    ]


def test_the_old_form_may_stay() -> None:
    """A stored packDomain can be applied again as it is."""
    old = legacy(TopologyConstraint(topology_name="grove-topology", pack_domain="rack"))
    manifest = with_constraint({"topologyName": "grove-topology", "packDomain": "rack"})
    assert not admit(manifest, old).changed


def test_a_vanished_binding_does_not_block_updates() -> None:
    """A set whose ClusterTopologyBinding was deleted can still be changed in everything else."""
    old = admit(full()).resource
    assert violations_of(changed(full(), setting("spec.replicas", 2)), old, replace(CONTEXT, bindings={})) == ()


def test_refused_pod_fields_may_stay_but_not_change() -> None:
    """A node name that was stored before can be kept, and not exchanged."""
    manifest = pod_clique_set()
    old = admit(manifest).resource
    cliques = old.spec.template.cliques
    first = replace(cliques[0], spec=replace(cliques[0].spec, pod_spec={**cliques[0].spec.pod_spec, "nodeName": "n1"}))
    template = replace(old.spec.template, cliques=(first, *cliques[1:]))
    old = replace(old, spec=replace(old.spec, template=template))
    kept = changed(manifest, setting(f"{CLIQUE}.spec.podSpec.nodeName", "n1"))
    assert violations_of(kept, old) == ()
    moved = changed(manifest, setting(f"{CLIQUE}.spec.podSpec.nodeName", "n2"))
    assert [violation.reason for violation in violations_of(moved, old)] == [Reason.FORBIDDEN]
