"""Updates in the running loops: real store, fake runtime, every pod that comes and goes seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from grove_server.resources.rollout import SetRevision
from grove_server.resources.workload import Pod, PodClique, PodCliqueSet, PodTemplate
from grove_server.store.interface import ChangeType, Notice
from tests.lifecycle_cases import Json, clique, group, manifest
from tests.planes import Plane, worker


def served(version: int, *, copies: int = 1, size: int = 4) -> Json:
    """Return a set with a clique and a group, of one version."""
    spec: Json = {"podSpec": {"containers": [{"name": "main", "image": f"registry.example/app:{version}"}]}}
    cliques = [clique("a", size, 1, **spec), clique("b", 1, 1, **spec), clique("c", 2, 2, **spec)]
    return manifest(cliques, [group("g", ["b", "c"], 3, 1)], replicas=copies)


class Sampler:
    """Keeps, after every commit, the least number of ready pods of a clique or whole replicas of a group."""

    def __init__(self) -> None:
        self.pods: dict[str, Pod] = {}
        self.least: dict[str, int] = {}
        self.is_watching = False

    def __call__(self, notices: Sequence[Notice]) -> None:
        """Take what changed."""
        for notice in notices:
            if isinstance(notice.resource, Pod):
                pod = notice.resource
                if notice.kind is ChangeType.DELETED:
                    self.pods.pop(pod.metadata.uid, None)
                else:
                    self.pods[pod.metadata.uid] = pod
        if self.is_watching:
            for name, count in self.serving().items():
                self.least[name] = min(count, self.least.get(name, count))

    def serving(self) -> dict[str, int]:
        """Return the units that serve by clique or group."""
        ready: dict[str, int] = {}
        for pod in self.pods.values():
            if pod.is_active and pod.is_ready:
                ready[pod.identity.name] = ready.get(pod.identity.name, 0) + 1
        found: dict[str, int] = {}
        for pod in self.pods.values():
            if not pod.identity.group:
                found[pod.identity.name] = ready.get(pod.identity.name, 0)
        groups = {(p.identity.group_name, p.identity.group_replica) for p in self.pods.values() if p.identity.group}
        for name, replica in groups:
            whole = ready.get(f"{name}-{replica}-b", 0) >= 1 and ready.get(f"{name}-{replica}-c", 0) >= 2
            found[name] = found.get(name, 0) + whole
        return found


def hashes(plane: Plane) -> set[str]:
    """Return the templates that pods run."""
    return {pod.template.hash for pod in plane.pods()}


async def test_a_rolling_update_keeps_its_budget(tmp_path: Path) -> None:
    """No clique ever lacks more than one pod and no group more than one replica; templates that nobody uses go."""
    plane, sampler = Plane(tmp_path / "grove.db"), Sampler()
    await plane.start(listener=sampler)
    try:
        await plane.put(*(worker(i, pods=10) for i in range(4)))
        await plane.apply(served(1, copies=2))
        await plane.until_ready(26)
        await plane.until_quiet()
        before = hashes(plane)
        sampler.is_watching = True
        await plane.apply(served(2, copies=2))
        await plane.until(lambda: _ended(plane), "the update ended")
        await plane.until_ready(26)
        assert not hashes(plane) & before
        assert sampler.least == {"s-0-a": 3, "s-1-a": 3, "s-0-g": 2, "s-1-g": 2}
        await plane.until_quiet()
        assert plane.status().updated_replicas == 2
        await plane.until(lambda: len(plane.all(PodTemplate)) == 3, "the old templates are gone")
        plane.check_templates()
    finally:
        await plane.stop()


async def test_an_update_goes_on_after_a_restart(plane: Plane) -> None:
    """A server that stops in mid-update finishes it after its start."""
    await plane.put(*(worker(i, pods=20) for i in range(2)))
    await plane.apply(served(1, copies=2))
    await plane.until_ready(26)
    before = hashes(plane)
    await plane.apply(served(2, copies=2))
    await plane.until(lambda: len(hashes(plane)) > len(before), "the first pod is new")
    await plane.restart()
    await plane.until(lambda: _ended(plane), "the update ended")
    await plane.until_ready(26)
    assert not hashes(plane) & before


async def test_many_edits_end_at_the_last(plane: Plane) -> None:
    """Edits on top of each other during an update end with nothing but the last revision."""
    await plane.put(*(worker(i, pods=20) for i in range(2)))
    await plane.apply(served(1, copies=2))
    await plane.until_ready(26)
    for version in range(2, 6):
        await plane.apply(served(version, copies=2))
        await plane.until(lambda: plane.status().update_progress is not None, "the update began")
    await plane.until(lambda: _ended(plane), "the update ended")
    await plane.until_ready(26)
    assert {pod.template.pod_spec["containers"][0]["image"] for pod in plane.pods()} == {"registry.example/app:5"}


def _ended(plane: Plane) -> bool:
    """Return whether the last update is over, and was for the newest revision."""
    status = plane.status()
    progress = status.update_progress
    return (
        progress is not None
        and not progress.is_active
        and status.current_generation_hash == plane.one(PodCliqueSet, "s").revision.hash
    )


async def test_a_stuck_update_goes_back_by_itself(plane: Plane) -> None:
    """An update whose pods never become ready returns to the last revision that worked, once."""
    await plane.put(*(worker(i, pods=20) for i in range(2)))
    await plane.apply(_careful(served(1)))
    await plane.until_ready(13)
    await plane.until(lambda: plane.status().available_replicas == 1, "all works")
    good = plane.one(PodCliqueSet, "s").revision.hash
    bad = _careful(served(2))
    for template in bad["spec"]["template"]["cliques"]:
        template["annotations"] = {"fake.grove.io/ready-delay": "1h"}
    await plane.apply(bad)
    await plane.until(lambda: len(hashes(plane)) > 1, "the update began")
    await plane.until_quiet()

    def is_noticed() -> bool:
        owner = plane.one(PodCliqueSet, "s")
        progress = owner.status.update_progress
        current = set(owner.revision.clique_hashes.values())
        return progress is not None and progress.reached == sum(pod.template.hash in current for pod in plane.pods())

    # What has been reached by now must not be noticed after the step, or the deadline would count from there.
    await plane.until(is_noticed, "the set has noticed how far its update is")
    plane.clock.advance(61)
    await plane.until(lambda: plane.one(PodCliqueSet, "s").revision.hash == good, "the set went back")
    await plane.until_ready(13)
    await plane.until(lambda: _ended(plane), "the way back ended")
    owner = plane.one(PodCliqueSet, "s")
    assert owner.rolled_back_from not in ("", good)
    assert sorted(r.number for r in plane.all(SetRevision)) == [2, 3]


def _careful(document: Json) -> Json:
    """Return the set with a deadline and the wish to go back."""
    document["spec"]["updateStrategy"] = {"rollingUpdate": {"progressDeadline": "60s", "autoRollback": True}}
    return document


async def test_copies_follow_an_edit_made_during_a_pause(plane: Plane) -> None:
    """Under OnDelete nobody has a turn that could begin when updates go on, and the cliques follow all the same."""
    await plane.put(worker(0, pods=10))
    document = manifest([clique("a", 2, 1)])
    document["spec"]["updateStrategy"] = {"type": "OnDelete"}
    await plane.apply(document)
    await plane.until_ready(2)
    await plane.put(replace(plane.one(PodCliqueSet, "s"), paused_at=plane.clock.now()))
    document["spec"]["template"]["cliques"][0]["spec"]["podSpec"]["containers"][0]["image"] = "registry.example/app:9"
    await plane.apply(document)
    await plane.until_quiet()
    wanted = plane.one(PodCliqueSet, "s").revision.clique_hashes["a"]
    assert plane.one(PodClique, "s-0-a").template.hash != wanted
    await plane.put(replace(plane.one(PodCliqueSet, "s"), paused_at=None))
    await plane.until(lambda: plane.one(PodClique, "s-0-a").template.hash == wanted, "the clique has the new template")
