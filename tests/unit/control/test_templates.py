"""When the stored templates of pods go: with the last that uses them, and during an update that does not end."""

from __future__ import annotations

from grove_server.resources.workload import PodCliqueSet, PodTemplate
from tests.lifecycle_cases import Json, clique, deleted, manifest
from tests.planes import Plane, worker

# The present one, and the surplus that an update may keep: for each clique what ran before, and one in between.
KEPT_DURING_UPDATE_MAX = 3


def labelled(version: int, strategy: str) -> Json:
    """Return a set of one clique at one of its revisions, which differ by an image."""
    spec: Json = {"podSpec": {"containers": [{"name": "main", "image": f"registry.example/app:{version}"}]}}
    document = manifest([clique("a", 2, 1, labels={"v": str(version)}, **spec)])
    document["spec"]["updateStrategy"] = {"type": strategy}
    return document


def versions(plane: Plane) -> set[str]:
    """Return the versions whose template is stored."""
    return {template.labels["v"] for template in plane.all(PodTemplate)}


async def test_under_on_delete_a_template_goes_with_its_last_pod(plane: Plane) -> None:
    """Nothing is edited when the last pod of an old revision goes; its template goes all the same."""
    await plane.put(worker(0, pods=10))
    await plane.apply(labelled(1, "OnDelete"))
    await plane.until_ready(2)
    await plane.apply(labelled(2, "OnDelete"))
    await plane.until(lambda: versions(plane) == {"1", "2"}, "both are stored")
    for pod in plane.pods():
        assert "1" in versions(plane)
        await plane.put(deleted(pod, plane.clock.now()))
        await plane.until_quiet()
    await plane.until(lambda: versions(plane) == {"2"}, "the first is gone")
    plane.check_templates()


async def test_edits_of_an_update_that_does_not_end_leave_few_templates(plane: Plane) -> None:
    """However often a set is edited while its update is stuck, templates of revisions in between do not pile up."""
    await plane.put(worker(0, pods=2))
    await plane.apply(labelled(1, "RollingRecreate"))
    await plane.until_ready(2)
    for version in range(2, 12):
        document = labelled(version, "RollingRecreate")
        document["spec"]["template"]["cliques"][0]["annotations"] = {"fake.grove.io/ready-delay": "1h"}
        await plane.apply(document)
        await plane.until(lambda: _is_led_to_the_newest(plane), "the update goes on")
    await plane.until(lambda: len(versions(plane)) <= KEPT_DURING_UPDATE_MAX, "what nobody uses is gone")
    assert plane.status().update_progress.is_active
    plane.check_templates()


def _is_led_to_the_newest(plane: Plane) -> bool:
    status = plane.status()
    newest = plane.one(PodCliqueSet, "s").revision.hash
    return status.update_progress is not None and status.current_generation_hash == newest
