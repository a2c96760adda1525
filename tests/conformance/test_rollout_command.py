"""`grovectl rollout` on a real server: what it prints, and how it ends."""

from __future__ import annotations

from tests.conformance.command import Answer, grovectl
from tests.conformance.scene import Scene
from tests.conformance.updates import SET, the_set, updated, workload
from tests.server import ServerProcess
from tests.waiting import until_seen

NEW = "registry.k8s.io/pause:3.11"


async def rollout(server: ServerProcess, scene: Scene, *words: str) -> Answer:
    """Run `grovectl rollout` in the test's namespace."""
    return await grovectl(server, "rollout", *words, namespace=scene.namespace)


async def test_following_and_steering_an_update(server: ServerProcess, scene: Scene) -> None:
    """Status waits until an update is over; pause, resume, history, undo and restart say what they did."""
    await scene.apply_text(workload())
    await until_seen(lambda: the_set(scene), lambda s: s.status.available_replicas == 1, lambda _: "the set runs")
    assert (await rollout(server, scene, "pause", "pcs", SET)).lines == [f"podcliqueset/{SET} paused"]
    assert (await rollout(server, scene, "pause", "pcs", SET)).lines == [f"podcliqueset/{SET} already paused"]
    await scene.apply_text(workload(a=NEW))
    seen = await rollout(server, scene, "status", f"pcs/{SET}", "--timeout", "1s")
    assert (seen.code, seen.errors) == (4, f"error: timed out waiting for the update of podcliqueset/{SET}\n")
    assert (await rollout(server, scene, "resume", "pcs", SET)).lines == [f"podcliqueset/{SET} resumed"]
    seen = await rollout(server, scene, "status", "pcs", SET)
    assert seen.code == 0, seen
    assert seen.lines[-1] == f"podcliqueset/{SET} is up to date: 1 of 1 copies are updated"
    assert (await rollout(server, scene, "undo", "pcs", SET)).lines == [f"podcliqueset/{SET} rolled back"]
    await rollout(server, scene, "status", "pcs", SET)
    history = (await rollout(server, scene, "history", "pcs", SET)).lines
    assert history[0].split() == ["REVISION", "HASH", "CREATED", "CHANGE-CAUSE", "IMAGES"]
    assert [line.split()[0] for line in history[1:]] == ["2", "3*"]
    before = {pod.metadata.uid for pod in (await scene.observe()).active}
    assert (await rollout(server, scene, "restart", "pcs", SET)).lines == [f"podcliqueset/{SET} restarted"]
    await rollout(server, scene, "status", "pcs", SET)
    await updated(scene)
    assert not before & {pod.metadata.uid for pod in (await scene.observe()).active}


async def test_what_cannot_be_rolled_out(server: ServerProcess, scene: Scene) -> None:
    """A set that is not there is exit code 3; a kind without updates is 2."""
    assert (await rollout(server, scene, "status", "pcs", "none")).code == 3
    assert (await rollout(server, scene, "undo", "pcs", "none")).code == 3
    assert (await rollout(server, scene, "pause", "pod", "x")).code == 2
