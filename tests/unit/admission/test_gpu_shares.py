"""Rules for a share of one GPU: where it stands, what it may say, and what it may not stand beside."""

from __future__ import annotations

from typing import Any

import pytest

from grove_server.placement.shapes import node_state, shape_of
from grove_server.resources.cluster import Node
from grove_server.resources.meta import Metadata
from grove_server.resources.violations import Reason
from tests.manifest_cases import admit, changed, clique, group, pod_clique_set, setting, violations_of

FRACTION = "grove.io/gpu-fraction"
CLIQUE = "spec.template.cliques.0"
PATH = f"spec.template.cliques[0].annotations[{FRACTION}]"


def sharing(text: str, **container: object) -> dict[str, Any]:
    """Return a set whose first clique asks for a share, and whose container has more fields."""
    manifest = changed(pod_clique_set(), setting(f"{CLIQUE}.annotations", {FRACTION: text}))
    manifest["spec"]["template"]["cliques"][0]["spec"]["podSpec"]["containers"][0].update(container)
    return manifest


def test_a_share_becomes_part_of_the_shape() -> None:
    """An admitted clique's pods ask for the milli that the annotation stands for."""
    template = admit(sharing("0.25", resources={"limits": {"cpu": "1", "nvidia.com/gpu": "0"}})).resource.spec.template
    admitted = template.cliques[0]
    shape = shape_of(admitted.spec.pod_spec, admitted.annotations)
    assert shape.gpu_milli == 250
    assert shape.needs_gpu
    assert shape_of(admitted.spec.pod_spec).gpu_milli == 0


@pytest.mark.parametrize("text", ["1", "0", "0.1234", "half"])
def test_an_unreadable_share_is_refused_with_its_path(text: str) -> None:
    """The violation is that of the annotation and quotes it."""
    (violation,) = violations_of(sharing(text))
    assert (violation.path, violation.reason) == (PATH, Reason.INVALID)
    assert text in violation.message


@pytest.mark.parametrize("amounts", [{"limits": {"nvidia.com/gpu": 1}}, {"limits": {"nvidia.com/gpu": "8"}}])
def test_a_share_beside_whole_gpus_is_refused(amounts: dict[str, Any]) -> None:
    """One clique has whole GPUs or a share; the violation says who asks for whole ones."""
    (violation,) = violations_of(sharing("0.5", resources=amounts))
    assert (violation.path, violation.reason) == (PATH, Reason.FORBIDDEN)
    assert "spec.podSpec.containers[0].resources.limits" in violation.message


def test_every_wrong_thing_is_said_at_once() -> None:
    """An unreadable share beside whole GPUs of an init container, in a faulty pod spec, is all reported."""
    manifest = sharing("2", resources="much")
    whole = {"name": "warm", "image": "i", "resources": {"limits": {"nvidia.com/gpu": 2}}}
    manifest["spec"]["template"]["cliques"][0]["spec"]["podSpec"]["initContainers"] = [whole, 5]
    found = [(violation.path, violation.reason) for violation in violations_of(manifest)]
    assert {(PATH, Reason.INVALID), (PATH, Reason.FORBIDDEN)} <= set(found)
    assert any(path.endswith("containers[0].resources") for path, _ in found)


def test_a_share_anywhere_but_on_a_clique_has_no_effect_and_is_warned_of() -> None:
    """A set's or a group's annotation is kept, and a warning says that it does nothing."""
    manifest = pod_clique_set(
        cliques=[clique("a")], podCliqueScalingGroups=[group("g", "a", annotations={FRACTION: "0.5"})]
    )
    manifest["metadata"]["annotations"] = {FRACTION: "0.5"}
    places = ("metadata.annotations", "spec.template.podCliqueScalingGroups[0].annotations")
    assert admit(manifest).warnings == tuple(
        f"{place}[{FRACTION}] has no effect: it belongs to the annotations of a clique" for place in places
    )


def test_islands_of_a_node_are_read() -> None:
    """A node's annotation becomes its islands; one that cannot be read makes an error that names it."""
    metadata = Metadata(name="n", annotations={"grove.io/gpu-islands": "0-1,2-3"})
    node = Node(metadata=metadata, allocatable={"nvidia.com/gpu": "4"})
    assert node_state(node).gpu_islands == ((0, 1), (2, 3))
    broken = Node(metadata=Metadata(name="n", annotations={"grove.io/gpu-islands": "0-1,1-2"}))
    with pytest.raises(ValueError, match=r"annotation grove.io/gpu-islands must name each GPU once, names 1 twice"):
        node_state(broken)
