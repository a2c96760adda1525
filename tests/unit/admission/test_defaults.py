"""Defaults at creation, and what leaving a field out means later."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from grove_server.resources.manifest import PodCliqueSetSpec
from grove_server.resources.workload import PodCliqueSet, ScaleOwner
from tests.manifest_cases import Change, admit, changed, clique, pod_clique_set, removing, setting

CLIQUE = "spec.template.cliques.0.spec"
GROUP = "spec.template.podCliqueScalingGroups.0"


def spec_after(change: Change) -> PodCliqueSetSpec:
    """Return the defaulted spec of a new set after *change*."""
    return admit(changed(pod_clique_set(), change)).resource.spec


def stored() -> PodCliqueSet:
    """Return a set as it is stored."""
    return admit(pod_clique_set()).resource


def test_fills_in_what_is_left_out() -> None:
    """A short manifest becomes a complete spec."""
    spec = admit(pod_clique_set()).resource.spec
    template = spec.template
    assert spec.update_strategy is not None
    assert spec.update_strategy.type == "RollingRecreate"
    assert template.clique_startup_type == "CliqueStartupTypeAnyOrder"
    assert template.termination_delay == "4h0m0s"
    assert template.headless_service_config is not None
    assert template.headless_service_config.publish_not_ready_addresses is True
    router, leader, worker = (each.spec for each in template.cliques)
    assert (router.role_name, router.replicas, router.min_available) == ("router", 2, 2)
    assert (leader.replicas, leader.min_available) == (1, 1)
    assert (worker.replicas, worker.min_available) == (4, 4)
    assert router.pod_spec["restartPolicy"] == "Always"
    assert router.pod_spec["terminationGracePeriodSeconds"] == 30
    (group,) = template.pod_clique_scaling_groups
    assert (group.replicas, group.min_available) == (2, 1)


def test_keeps_what_is_given() -> None:
    """A default never replaces a value."""
    spec = spec_after(setting(f"{CLIQUE}.podSpec.terminationGracePeriodSeconds", 0))
    assert spec.template.cliques[0].spec.pod_spec["terminationGracePeriodSeconds"] == 0
    spec = spec_after(setting(f"{CLIQUE}.roleName", ""))
    assert spec.template.cliques[0].spec.role_name == ""


def test_an_explicit_zero_stays_zero() -> None:
    """Size 0 is legal for cliques and groups; the minimum then defaults to 1."""
    spec = spec_after(setting(f"{CLIQUE}.replicas", 0))
    assert (spec.template.cliques[0].spec.replicas, spec.template.cliques[0].spec.min_available) == (0, 1)
    spec = spec_after(setting(f"{GROUP}.replicas", 0))
    group = spec.template.pod_clique_scaling_groups[0]
    assert (group.replicas, group.min_available) == (0, 1)


@pytest.mark.parametrize(("given", "kept"), [("1h", "1h0m0s"), ("90s", "1m30s"), ("never", "never")])
def test_durations_are_spelled_canonically(given: str, kept: str) -> None:
    """Two spellings of one duration are one value; "never" switches termination off."""
    assert spec_after(setting("spec.template.terminationDelay", given)).template.termination_delay == kept


@pytest.mark.parametrize(("replicas", "minimum", "lower"), [(3, 1, 3), (0, 2, 2)])
def test_autoscaling_starts_from_the_size(replicas: int, minimum: int, lower: int) -> None:
    """An autoscaler's lower bound is the size, or the minimum where the size is 0."""
    fields = {"replicas": replicas, "minAvailable": minimum, "autoScalingConfig": {"maxReplicas": 9}}
    manifest = pod_clique_set(cliques=[clique("a", **fields)], podCliqueScalingGroups=[])  # type: ignore[arg-type]  # fields carry the sizes by name
    config = admit(manifest).resource.spec.template.cliques[0].spec.auto_scaling_config
    assert config is not None
    assert config.min_replicas == lower


def test_omitted_sizes_of_a_new_set_are_warned_about() -> None:
    """A new set without replicas has size 0 and a warning; a clique without replicas has one pod and a warning."""
    manifest = pod_clique_set(replicas=None, cliques=[clique("a", None)], podCliqueScalingGroups=[])
    admitted = admit(manifest)
    assert admitted.resource.spec.replicas == 0
    assert admitted.resource.spec.template.cliques[0].spec.replicas == 1
    assert admitted.warnings == (
        "spec.replicas is not set and defaults to 0: nothing will run until the set is scaled",
        "clique a: replicas is not set and defaults to 1",
    )


def test_applying_the_same_again_changes_nothing() -> None:
    """The same manifest is "unchanged", whoever scaled the set meanwhile."""
    old = stored()
    again = admit(pod_clique_set(), old)
    assert not again.changed
    assert again.resource == old


@pytest.mark.parametrize(
    "change",
    [
        removing(f"{CLIQUE}.replicas"),
        removing(f"{GROUP}.replicas"),
        removing("spec.replicas"),
        setting("spec.updateStrategy", {"type": "RollingRecreate"}),
        setting("spec.template.terminationDelay", "240m"),
        setting(f"{CLIQUE}.minAvailable", 2),
        setting(f"{CLIQUE}.podSpec.restartPolicy", "Always"),
    ],
)
def test_omitted_and_written_down_values_do_not_bump_the_generation(change: Change) -> None:
    """Leaving a size out keeps it, and writing a default down is no change of the spec."""
    old = stored()
    new = admit(changed(pod_clique_set(), change), old).resource
    assert new.spec == old.spec
    assert new.metadata.generation == old.metadata.generation
    assert new.revision == old.revision


def test_immutable_fields_left_out_stay() -> None:
    """A later manifest without role, minimum or start order is no attempt to change them."""
    first: dict[str, Any] = pod_clique_set(cliqueStartupType="CliqueStartupTypeInOrder")
    first["spec"]["template"]["cliques"][0]["spec"] |= {"roleName": "front", "minAvailable": 1}
    first["spec"]["template"]["podCliqueScalingGroups"][0]["minAvailable"] = 2
    old = admit(first).resource
    new = admit(pod_clique_set(), old).resource
    assert new.spec == old.spec


def test_a_change_bumps_generation_and_revision() -> None:
    """A new image is a new generation and a new revision; a new size is only a new generation."""
    old = stored()
    image = admit(changed(pod_clique_set(), setting(f"{CLIQUE}.podSpec.containers.0.image", "x:2")), old).resource
    assert image.metadata.generation == 2
    assert image.revision.hash != old.revision.hash
    assert image.revision.clique_hashes["worker"] == old.revision.clique_hashes["worker"]
    size = admit(changed(pod_clique_set(), setting(f"{CLIQUE}.replicas", 5)), old).resource
    assert size.metadata.generation == 2
    assert size.revision == old.revision


def test_labels_are_replaced_as_a_whole() -> None:
    """Labels and annotations that a later manifest leaves out are gone, without a new generation."""
    old = admit(changed(pod_clique_set(), setting("metadata.labels", {"a": "b"}))).resource
    new = admit(changed(pod_clique_set(), setting("metadata.annotations", {"c": "d"})), old)
    assert new.changed
    assert new.resource.metadata.labels == {}
    assert new.resource.metadata.annotations == {"c": "d"}
    assert new.resource.metadata.generation == 1


def scaled(replicas: int, owner: ScaleOwner) -> PodCliqueSet:
    """Return the stored set after a scale call."""
    old = stored()
    return replace(old, spec=replace(old.spec, replicas=replicas), scale_owner=owner)


def test_applying_the_same_size_again_leaves_a_scaled_set_alone() -> None:
    """A size equal to the last applied one, or left out, does not undo a scale call."""
    old = scaled(5, ScaleOwner.USER)
    same = admit(pod_clique_set(replicas=1), old)
    assert not same.changed
    omitted = admit(pod_clique_set(replicas=None), old).resource
    assert (omitted.spec.replicas, omitted.scale_owner) == (5, ScaleOwner.USER)


def test_a_new_size_in_the_manifest_scales() -> None:
    """A size that differs from the last applied one is followed, and the manifest owns the size again."""
    new = admit(pod_clique_set(replicas=3), scaled(5, ScaleOwner.USER)).resource
    assert (new.spec.replicas, new.scale_owner) == (3, ScaleOwner.SPEC)
    assert new.applied_replicas[""] == 3


def test_an_autoscalers_size_is_not_taken_over() -> None:
    """Where an autoscaler owns the size, a new one in the manifest is not followed, with a clear warning."""
    admitted = admit(pod_clique_set(replicas=3), scaled(5, ScaleOwner.AUTOSCALER))
    assert admitted.resource.spec.replicas == 5
    assert admitted.resource.scale_owner is ScaleOwner.AUTOSCALER
    assert "autoscaler owns the size (5)" in admitted.warnings[0]


def test_remembers_what_was_applied() -> None:
    """The sizes a manifest gave are kept per target, None where it gave none."""
    manifest = changed(pod_clique_set(), removing(f"{CLIQUE}.replicas"))
    assert admit(manifest).resource.applied_replicas == {
        "": 1,
        "clique/router": None,
        "clique/leader": 1,
        "clique/worker": 4,
        "group/prefill": 2,
    }
