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
    assert seen.lines[-1] == f"podcliqueset/{SET} is up to date: 1 of 1 copies are updated, 1 available"
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


async def test_what_nobody_deletes_stays_old(server: ServerProcess, scene: Scene) -> None:
    """Under OnDelete status says how far it is and does not call the rest up to date; another strategy replaces it."""
    await scene.apply_text(workload(strategy="OnDelete"))
    await until_seen(lambda: the_set(scene), lambda s: s.status.available_replicas == 1, lambda _: "the set runs")
    before = await the_set(scene)
    await scene.apply_text(workload(strategy="OnDelete", a=NEW))
    await until_seen(
        lambda: the_set(scene),
        lambda s: s.status.current_generation_hash != before.status.current_generation_hash,
        lambda _: "the edit is in use",
    )
    seen = await rollout(server, scene, "status", "pcs", SET)
    assert seen.code == 0, seen
    how_far = "0 of 1 copies are updated, 1 available"
    assert seen.lines[-1] == f"podcliqueset/{SET}: {how_far}; under OnDelete the others follow whoever is deleted"
    await scene.apply_text(workload(a=NEW))
    seen = await rollout(server, scene, "status", "pcs", SET)
    assert (seen.code, seen.lines[-1]) == (
        0,
        f"podcliqueset/{SET} is up to date: 1 of 1 copies are updated, 1 available",
    )


async def test_a_stuck_update_ends_the_wait_and_its_repair_does_not(server: ServerProcess, scene: Scene) -> None:
    """A stuck update is exit code 1; one that went back by itself says so; a repair is waited for to its end."""

    def careful(manifest: str, deadline: str, *, goes_back: bool = False) -> str:
        rolling = f"rollingUpdate: {{progressDeadline: {deadline}, autoRollback: {str(goes_back).lower()}}}"
        return manifest.replace("{type: RollingRecreate}", f"{{type: RollingRecreate, {rolling}}}")

    bad = workload(a=NEW).replace("ready-delay: 30ms", "ready-delay: 1h")
    await scene.apply_text(careful(workload(), "60s"))
    assert (await rollout(server, scene, "status", "pcs", SET)).code == 0
    await scene.apply_text(careful(bad, "1s"))
    seen = await rollout(server, scene, "status", "pcs", SET)
    assert (seen.code, seen.errors) == (1, f"error: podcliqueset/{SET}: the update exceeded its progress deadline\n")
    await scene.apply_text(careful(workload(), "60s"))
    seen = await rollout(server, scene, "status", "pcs", SET)
    assert (seen.code, seen.errors) == (0, ""), seen
    await updated(scene)
    await scene.apply_text(careful(bad, "5s", goes_back=True))
    for _ in range(2):
        # Whoever begins to wait when the set is back already must not take that for a success either.
        seen = await rollout(server, scene, "status", "pcs", SET)
        left = (await the_set(scene)).status.rolled_back_from
        text = f"the update to revision {left} exceeded its progress deadline and was rolled back"
        assert (seen.code, seen.errors) == (1, f"error: podcliqueset/{SET}: {text}\n")
        assert "has not been seen yet" not in seen.lines[-1]


async def test_an_unchanged_manifest_after_a_restart(server: ServerProcess, scene: Scene) -> None:
    """Applying the same manifest after a restart changes nothing."""
    await scene.apply_text(workload())
    assert (await rollout(server, scene, "status", "pcs", SET)).code == 0
    await rollout(server, scene, "restart", "pcs", SET)
    await updated(scene)
    before = await the_set(scene)
    await scene.apply_text(workload())
    assert (await the_set(scene)).metadata.resource_version == before.metadata.resource_version
