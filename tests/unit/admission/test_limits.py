"""Limits of admission are settings; what a new set is given besides its manifest."""

from __future__ import annotations

import pytest

from grove_server.admission.context import AdmissionContext, Limits
from tests.manifest_cases import CONTEXT, admit, changed, clique, pod_clique_set, setting, violations_of

CLIQUE = "spec.template.cliques.0"


@pytest.mark.parametrize(
    ("limits", "path"),
    [
        (Limits(cliques_max=2), "spec.template.cliques"),
        (Limits(groups_max=0), "spec.template.podCliqueScalingGroups"),
        (Limits(copies_max=0), "spec.replicas"),
        (Limits(pods_per_set_max=11), "spec.replicas"),
        (Limits(labels_max=0), "metadata.labels"),
        (Limits(containers_max=0), "spec.template.cliques[0].spec.podSpec.containers"),
    ],
)
def test_limits_are_settings(limits: Limits, path: str) -> None:
    """Each bound can be set, and is named by the path it refuses."""
    manifest = changed(pod_clique_set(), setting("metadata.labels", {"a": "b"}))
    context = AdmissionContext(now=0.0, uid="u", limits=limits)
    assert path in {violation.path for violation in violations_of(manifest, context=context)}


def test_a_set_at_the_limit_is_admitted() -> None:
    """Exactly as many pods as allowed are allowed."""
    context = AdmissionContext(now=0.0, uid="u", limits=Limits(pods_per_set_max=12))
    assert admit(pod_clique_set(), context=context).resource.spec.replicas == 1


def test_reserved_labels_are_warned_about() -> None:
    """A label that the server writes itself is no silent loss."""
    manifest = changed(pod_clique_set(), setting(f"{CLIQUE}.labels", {"grove.io/podgang": "x"}))
    (warning,) = admit(manifest).warnings
    assert "spec.template.cliques[0].labels[grove.io/podgang] is overwritten" in warning


def test_a_new_set_has_its_identity_from_the_context() -> None:
    """Uid, time and the default namespace are handed in; status and version are the store's and the lifecycle's."""
    resource = admit(pod_clique_set()).resource
    assert resource.metadata.uid == CONTEXT.uid
    assert resource.metadata.created_at == CONTEXT.now
    assert resource.metadata.namespace == "default"
    assert resource.metadata.generation == 1
    assert resource.resource_version == 0


def test_warnings_are_bounded() -> None:
    """Twenty warnings are shown; one more says how many are left."""
    cliques = [clique(f"c{index}", None) for index in range(30)]
    warnings = admit(pod_clique_set(cliques=cliques, podCliqueScalingGroups=[])).warnings
    assert len(warnings) == 21
    assert warnings[-1] == "and 10 more warnings"
