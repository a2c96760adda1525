"""Admission of ClusterTopologyBindings."""

from __future__ import annotations

from typing import Any

import pytest

from grove_server.admission.findings import InvalidResourceError
from grove_server.resources.violations import Reason
from tests.manifest_cases import Change, admit_binding, changed, setting, topology_binding

BINDINGS = "spec.schedulerTopologyBindings"


def scheduler(name: str, reference: str = "topology") -> dict[str, Any]:
    """Return a binding to a scheduler's own topology object."""
    return {"schedulerName": name, "topologyReference": reference}


@pytest.mark.parametrize(
    ("change", "path", "reason", "message"),
    [
        (setting("metadata.name", "A"), "metadata.name", Reason.INVALID, "lower case"),
        (setting("metadata.namespace", "default"), "metadata.namespace", Reason.FORBIDDEN, "belongs to the cluster"),
        (setting("metadata.labels", {"a b": "c"}), "metadata.labels[a b]", Reason.INVALID, "label key"),
        (setting("spec.levels", []), "spec.levels", Reason.REQUIRED, "at least one level"),
        (setting("spec.levels", [{"domain": "a", "key": "b"}] * 17), "spec.levels", Reason.TOO_MANY, "at most 16"),
        (setting("spec.levels.0.domain", "Zone"), "spec.levels[0].domain", Reason.INVALID, 'got "Zone"'),
        (setting("spec.levels.0.domain", "0zone"), "spec.levels[0].domain", Reason.INVALID, "start with a letter"),
        (setting("spec.levels.0.domain", ""), "spec.levels[0].domain", Reason.INVALID, "letter"),
        (setting("spec.levels.0.domain", "z" * 64), "spec.levels[0].domain", Reason.TOO_LONG, "at most 63"),
        (setting("spec.levels.1.domain", "zone"), "spec.levels[1].domain", Reason.DUPLICATE, '"zone" is listed more'),
        (setting("spec.levels.1.key", "kubernetes.io/zone"), "spec.levels[1].key", Reason.DUPLICATE, "more than once"),
        (setting("spec.levels.1.key", "a b"), "spec.levels[1].key", Reason.INVALID, "no node label key"),
        (
            setting(BINDINGS, [scheduler("kai-scheduler"), scheduler("kai-scheduler")]),
            f"{BINDINGS}[1].schedulerName",
            Reason.DUPLICATE,
            "more than once",
        ),
        (
            setting(BINDINGS, [scheduler("unknown")]),
            f"{BINDINGS}[0].schedulerName",
            Reason.INVALID,
            "scheduler backend is not enabled in Grove",
        ),
        (
            setting(BINDINGS, [scheduler("default-scheduler")]),
            f"{BINDINGS}[0].schedulerName",
            Reason.INVALID,
            "scheduler backend does not implement topology-aware scheduling",
        ),
        (setting(BINDINGS, [scheduler("")]), f"{BINDINGS}[0].schedulerName", Reason.REQUIRED, "empty"),
        (
            setting(BINDINGS, [scheduler("grove-scheduler", "")]),
            f"{BINDINGS}[0].topologyReference",
            Reason.REQUIRED,
            "empty",
        ),
    ],
)
def test_refuses(change: Change, path: str, reason: Reason, message: str) -> None:
    """A binding that breaks one rule is refused for exactly that."""
    with pytest.raises(InvalidResourceError) as caught:
        admit_binding(changed(topology_binding(), change))
    (violation,) = caught.value.violations
    assert (violation.path, violation.reason) == (path, reason)
    assert message in violation.message


def test_admits_levels_as_given() -> None:
    """A new binding has the identity the context gives it, and no namespace; long prefixed keys fit."""
    manifest = topology_binding("zone", "nvl-block")
    manifest["spec"]["levels"][1]["key"] = "a-rather-long-prefix.of-a-company.example.com/" + "k" * 63
    resource = admit_binding(manifest).resource
    assert (resource.metadata.uid, resource.metadata.namespace) == ("uid-1", "")
    assert [level.domain for level in resource.spec.levels] == ["zone", "nvl-block"]


def test_another_schedulers_topology_is_kept_with_a_warning() -> None:
    """A binding to another scheduler is kept, though this server does not use it."""
    (warning,) = admit_binding(topology_binding(schedulerTopologyBindings=[scheduler("kai-scheduler")])).warnings
    assert "kai-scheduler" in warning


def test_updates_bump_the_generation_only_for_the_spec() -> None:
    """Levels may change; the same binding again is no change."""
    old = admit_binding(topology_binding()).resource
    assert not admit_binding(topology_binding(), old).changed
    labelled = admit_binding(changed(topology_binding(), setting("metadata.labels", {"a": "b"})), old)
    assert (labelled.changed, labelled.resource.metadata.generation) == (True, 1)
    fewer = admit_binding(topology_binding("zone", "rack"), old).resource
    assert fewer.metadata.generation == 2
    assert fewer.metadata.uid == old.metadata.uid


def test_a_backend_switched_off_does_not_freeze_bindings() -> None:
    """Which backends are enabled is asked at creation only; structure always."""
    old = admit_binding(topology_binding()).resource
    assert admit_binding(topology_binding(schedulerTopologyBindings=[scheduler("unknown")]), old).changed
    with pytest.raises(InvalidResourceError):
        admit_binding(changed(topology_binding(), setting("spec.levels.1.domain", "zone")), old)
    with pytest.raises(InvalidResourceError, match="another object"):
        admit_binding(changed(topology_binding(), setting("metadata.uid", "x")), old)
