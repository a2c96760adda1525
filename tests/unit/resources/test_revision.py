"""Revisions: what rolls pods and what does not."""

from __future__ import annotations

import json

import pytest

from grove_server.resources.manifest import PodCliqueSetTemplate
from grove_server.resources.revision import HASH_LENGTH, revision_of
from grove_server.resources.schema import parse_pod_clique_set
from tests.manifest_cases import Change, changed, clique, group, pod_clique_set, setting

CONTAINER = "spec.template.cliques.0.spec.podSpec.containers.0"


def template_of(change: Change | None = None) -> PodCliqueSetTemplate:
    """Return the template of the test set, after *change*."""
    manifest = pod_clique_set()
    if change is not None:
        manifest = changed(manifest, change)
    return parse_pod_clique_set(json.dumps(manifest).encode()).spec.template


@pytest.mark.parametrize(
    "change",
    [
        setting(f"{CONTAINER}.image", "registry.example/app:2"),
        setting(f"{CONTAINER}.env", [{"name": "A", "value": "b"}]),
        setting("spec.template.cliques.0.labels", {"a": "b"}),
        setting("spec.template.cliques.0.annotations", {"a": "b"}),
        setting("spec.template.priorityClassName", "high"),
        setting("spec.template.cliques.0.spec.podSpec.restartPolicy", "Never"),
        setting("spec.template.cliques.0.spec.podSpec.volumes", [{"name": "v", "emptyDir": {}}]),
    ],
)
def test_what_pods_run_is_in_it(change: Change) -> None:
    """A change of labels, annotations, pod spec or priority class is a new revision."""
    old, new = revision_of(template_of()), revision_of(template_of(change))
    assert new.hash != old.hash
    assert new.clique_hashes["router"] != old.clique_hashes["router"]


@pytest.mark.parametrize(
    "change",
    [
        setting("spec.replicas", 9),
        setting("spec.template.cliques.0.spec.replicas", 9),
        setting("spec.template.cliques.0.spec.minAvailable", 2),
        setting("spec.template.cliques.0.spec.startsAfter", ["leader"]),
        setting("spec.template.cliques.0.spec.autoScalingConfig", {"maxReplicas": 9}),
        setting("spec.template.terminationDelay", "1m"),
        setting("spec.template.cliqueStartupType", "CliqueStartupTypeInOrder"),
        setting("spec.template.topologyConstraint", {"topologyName": "t", "pack": {"required": "rack"}}),
        setting("spec.template.podCliqueScalingGroups.0.replicas", 9),
        setting("spec.template.resourceClaimTemplates", [{"name": "x", "templateSpec": {}}]),
        setting("spec.template.cliques", [clique("worker", 4), clique("leader"), clique("router", 2)]),
        setting("spec.template.podCliqueScalingGroups", [group("prefill", "worker", "leader")]),
        setting("spec.template.cliques.0.spec.podSpec.restartPolicy", "Always"),
        setting("spec.template.cliques.0.spec.podSpec.terminationGracePeriodSeconds", 30),
        setting("spec.template.cliques.0.spec.podSpec.tolerations", []),
        setting("spec.template.cliques.0.spec.podSpec.nodeSelector", {}),
        setting("spec.template.cliques.0.spec.podSpec.affinity", None),
        setting(f"{CONTAINER}.resources", {"limits": {}, "requests": {}}),
        setting(f"{CONTAINER}.env", None),
    ],
)
def test_what_needs_no_new_pods_is_not(change: Change) -> None:
    """Sizes, order, topology and written-down defaults leave the revision as it is."""
    assert revision_of(template_of(change)) == revision_of(template_of())


def test_order_of_maps_and_spelling_of_quantities_do_not_matter() -> None:
    """Two ways to write the same pod have the same hash."""
    one = setting(CONTAINER, {"name": "a", "image": "b", "resources": {"limits": {"cpu": "1000m", "memory": "1Gi"}}})
    other = setting(CONTAINER, {"resources": {"limits": {"memory": "1024Mi", "cpu": 1}}, "image": "b", "name": "a"})
    assert revision_of(template_of(one)) == revision_of(template_of(other))


def test_an_empty_volume_is_not_no_volume() -> None:
    """Maps that mean something when empty are kept."""
    one = setting("spec.template.cliques.0.spec.podSpec.volumes", [{"name": "v", "emptyDir": {}}])
    other = setting("spec.template.cliques.0.spec.podSpec.volumes", [{"name": "v"}])
    assert revision_of(template_of(one)) != revision_of(template_of(other))


def test_the_form_is_stable() -> None:
    """The hash of a given template never changes between releases: a new value here rolls every workload."""
    revision = revision_of(template_of())
    assert len(revision.hash) == HASH_LENGTH
    assert (revision.hash, revision.clique_hashes["router"]) == ("j7jbgh4c5plx", "bd82bt4jchgs")
