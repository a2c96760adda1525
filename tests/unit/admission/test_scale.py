"""Scale calls: legal sizes, limits of the whole set, names, and who owns the size afterwards."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from grove_server.admission.context import AdmissionContext, Limits
from grove_server.admission.findings import InvalidResourceError
from grove_server.admission.scale import (
    LiveSet,
    admit_scale_of_clique,
    admit_scale_of_group,
    admit_scale_of_set,
)
from grove_server.resources.meta import Metadata
from grove_server.resources.violations import Reason
from grove_server.resources.workload import (
    CliqueIdentity,
    PodClique,
    PodCliqueScalingGroup,
    PodTemplate,
    ScaleOwner,
)
from tests.manifest_cases import CONTEXT, admit, pod_clique_set

SET = admit(pod_clique_set()).resource
LIVE = LiveSet(spec=SET.spec, pod_count=12)
GROUP = PodCliqueScalingGroup(
    metadata=Metadata(name="demo-0-prefill"),
    set_name="demo",
    set_uid="uid-1",
    copy=0,
    group="prefill",
    clique_names=("leader", "worker"),
    replicas=3,
    min_available=2,
)


def clique_of(name: str = "demo-0-router") -> PodClique:
    """Return a live clique of three pods that needs two."""
    return PodClique(
        metadata=Metadata(name=name),
        identity=CliqueIdentity(
            set_name="demo",
            set_uid="uid-1",
            copy=0,
            clique="router",
            name=name,
            gang="demo-0",
            headless_service="demo-0",
        ),
        template=PodTemplate(metadata=Metadata(name="t"), clique="router", hash="h", pod_spec={}),
        replicas=3,
        min_available=2,
    )


@pytest.mark.parametrize("replicas", [0, 2, 3, 50])
def test_zero_or_at_least_the_minimum(replicas: int) -> None:
    """A clique or group may go to 0, or to any size from its minimum on."""
    clique = admit_scale_of_clique(clique_of(), replicas, CONTEXT, owner=ScaleOwner.USER, live=LIVE)
    assert clique.resource.replicas == replicas
    group = admit_scale_of_group(GROUP, replicas, CONTEXT, owner=ScaleOwner.USER, live=LIVE)
    assert group.resource.replicas == replicas
    assert group.resource.metadata.generation == (1 if replicas == 3 else 2)


@pytest.mark.parametrize(
    ("replicas", "message"),
    [(1, "must be 0 or at least minAvailable (2), got 1"), (-1, "between 0"), (2**31, "between 0")],
)
def test_refuses_sizes(replicas: int, message: str) -> None:
    """Sizes between 0 and the minimum, negative and absurd ones are refused."""
    with pytest.raises(InvalidResourceError) as caught:
        admit_scale_of_clique(clique_of(), replicas, CONTEXT, owner=ScaleOwner.USER, live=LIVE)
    assert [violation.path for violation in caught.value.violations] == ["replicas"]
    assert message in str(caught.value)
    with pytest.raises(InvalidResourceError, match="replicas"):
        admit_scale_of_group(GROUP, replicas, CONTEXT, owner=ScaleOwner.USER, live=LIVE)


def test_the_owner_is_recorded() -> None:
    """Whoever scales owns the size; the same size by the same owner changes nothing."""
    first = admit_scale_of_clique(clique_of(), 3, CONTEXT, owner=ScaleOwner.AUTOSCALER, live=LIVE)
    assert first.changed
    assert first.resource.scale_owner is ScaleOwner.AUTOSCALER
    assert first.resource.metadata.generation == 1
    again = admit_scale_of_clique(first.resource, 3, CONTEXT, owner=ScaleOwner.AUTOSCALER, live=LIVE)
    assert not again.changed


def test_scaling_a_set_writes_its_spec() -> None:
    """At the level of the set a scale call is a change of the spec, which a later apply leaves alone."""
    admitted = admit_scale_of_set(SET, 4, CONTEXT, owner=ScaleOwner.USER, pod_count=12)
    resource = admitted.resource
    assert (resource.spec.replicas, resource.metadata.generation, resource.scale_owner) == (4, 2, ScaleOwner.USER)
    assert resource.revision == SET.revision
    assert not admit(pod_clique_set(), resource).changed
    assert not admit_scale_of_set(resource, 4, CONTEXT, owner=ScaleOwner.USER, pod_count=48).changed
    assert admit_scale_of_set(SET, 0, CONTEXT, owner=ScaleOwner.USER, pod_count=12).resource.spec.replicas == 0


def refusal(limits: Limits, scale: str, replicas: int) -> tuple[Reason, str]:
    """Return why a scale call is refused under *limits*."""
    context = AdmissionContext(now=0.0, uid="u", limits=limits)
    calls: dict[str, Callable[[], object]] = {
        "set": lambda: admit_scale_of_set(SET, replicas, context, owner=ScaleOwner.USER, pod_count=12),
        "group": lambda: admit_scale_of_group(GROUP, replicas, context, owner=ScaleOwner.USER, live=LIVE),
        "clique": lambda: admit_scale_of_clique(clique_of(), replicas, context, owner=ScaleOwner.USER, live=LIVE),
    }
    with pytest.raises(InvalidResourceError) as caught:
        calls[scale]()
    (violation,) = caught.value.violations
    return violation.reason, violation.message


@pytest.mark.parametrize(("scale", "replicas", "pods"), [("set", 2, 24), ("group", 5, 22), ("clique", 12, 21)])
def test_the_limit_is_for_the_live_set(scale: str, replicas: int, pods: int) -> None:
    """The pods that a call adds are counted on top of those the set has now."""
    reason, message = refusal(Limits(pods_per_set_max=20), scale, replicas)
    assert reason is Reason.TOO_MANY
    assert f"would give the set {pods} pods, more than the 20" in message


def test_copies_are_limited() -> None:
    """A set has a limit of copies, even where they have no pods."""
    assert refusal(Limits(copies_max=5), "set", 6)[0] is Reason.TOO_MANY


def test_a_set_over_the_limit_can_shrink() -> None:
    """A limit that was lowered later does not stop a set from becoming smaller."""
    context = AdmissionContext(now=0.0, uid="u", limits=Limits(pods_per_set_max=5))
    assert admit_scale_of_clique(clique_of(), 2, context, owner=ScaleOwner.USER, live=LIVE).changed


def test_names_must_fit_at_the_new_size() -> None:
    """One more digit in an index can be one too many, for a set, a group and a clique."""
    name = "demo-0-" + "x" * 50
    admit_scale_of_clique(
        clique_of(name), 100_000, CONTEXT, owner=ScaleOwner.USER, live=LiveSet(spec=SET.spec, pod_count=-100_000)
    )
    live = LiveSet(spec=SET.spec, pod_count=-1_000_001)
    with pytest.raises(InvalidResourceError, match="the hostname of a pod"):
        admit_scale_of_clique(clique_of(name), 1_000_001, CONTEXT, owner=ScaleOwner.USER, live=live)
    long = admit(pod_clique_set("s" * 38)).resource
    admit_scale_of_set(long, 10, CONTEXT, owner=ScaleOwner.USER, pod_count=12)
    with pytest.raises(InvalidResourceError, match="too long"):
        admit_scale_of_set(long, 11, CONTEXT, owner=ScaleOwner.USER, pod_count=12)
