"""Grove's update cases RU7 to RU21 and OD1 to OD5 on a real server, with every pod seen at every moment.

One pod fits on a node, so a replacement that has no node stays pending, as in the published cases.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from grove.v1.pod_pb2 import Pod
from tests.conformance.observation import clique_of, node_of
from tests.conformance.scene import WORKLOADS, Scene
from tests.conformance.updates import (
    COPY_LABEL,
    HASH_LABEL,
    SET,
    Sampler,
    of_clique,
    sampling,
    the_set,
    updated,
    workload,
)
from tests.waiting import until_seen

CLUSTER: Final = WORKLOADS.parent / "clusters" / "thirty-nodes.yaml"
NEW: Final = "registry.k8s.io/pause:3.11"
A, G = f"{SET}-0-pc-a", f"{SET}-0-sg-x"


async def running(scene: Scene, sampler: Sampler, *, copies: int = 1, strategy: str = "RollingRecreate") -> set[str]:
    """Let the set run; return the uids of its pods."""
    await scene.apply_text(workload(copies=copies, strategy=strategy))
    seen = await scene.settles(pods=10 * copies, ready=10 * copies)
    await until_seen(sampler.count, lambda n: n == 10 * copies, lambda n: f"all pods are seen, so far {n}")
    sampler.begin()
    return {pod.metadata.uid for pod in seen.ready}


def hashes(pods: list[Pod]) -> set[str]:
    """Return the revisions of pods."""
    return {pod.metadata.labels[HASH_LABEL] for pod in pods}


async def test_ru7_one_pod_one_copy_at_a_time(scene: Scene) -> None:
    """A change of pc-a stops its four pods one after the other, copy by copy, and no other pod."""
    async with sampling(scene) as sampler:
        before = await running(scene, sampler, copies=2)
        await scene.apply_text(workload(copies=2, a=NEW))
        await updated(scene)
        await scene.settles(pods=20, ready=20)
        assert Counter(clique_of(pod) for pod in sampler.stopped) == {A: 2, f"{SET}-1-pc-a": 2}
        assert sampler.copies_stopped == [0, 0, 1, 1]
        assert (sampler.least[A], sampler.least[f"{SET}-1-pc-a"], sampler.least[G]) == (1, 1, 2)
        assert len(before & sampler.pods.keys()) == 16


async def test_ru8_one_group_replica_at_a_time(scene: Scene) -> None:
    """A change of pc-b replaces each group replica as a whole, one after the other, and no pod of pc-a."""
    async with sampling(scene) as sampler:
        await running(scene, sampler)
        await scene.apply_text(workload(b=NEW))
        await updated(scene)
        await scene.settles(pods=10, ready=10)
        assert len(sampler.stopped) == 8
        assert (sampler.least[A], sampler.least[G]) == (2, 1)


async def test_ru9_all_cliques_at_the_same_time(scene: Scene) -> None:
    """A change of everything takes one pod of the clique and one replica of the group at a time."""
    async with sampling(scene) as sampler:
        before = await running(scene, sampler)
        await scene.apply_text(workload(a=NEW, b=NEW, c=NEW))
        done = await updated(scene)
        await scene.settles(pods=10, ready=10)
        assert not before & sampler.pods.keys()
        assert (sampler.least[A], sampler.least[G]) == (1, 1)
        progress = done.status.update_progress
        assert (progress.updated_pod_cliques_count, progress.total_pod_cliques_count) == (1, 1)
        assert progress.updated_pod_clique_scaling_groups_count == progress.total_pod_clique_scaling_groups_count == 1


async def test_ru10_no_progress_without_nodes(scene: Scene) -> None:
    """With all nodes cordoned exactly one pod is gone and one waits; with the nodes back the update ends."""
    async with sampling(scene) as sampler:
        await running(scene, sampler, copies=2)
        await scene.grove.nodes.cordon(list(scene.nodes))
        await scene.apply_text(workload(copies=2, a=NEW))
        seen = await until_seen(scene.observe, lambda seen: bool(seen.pending), lambda _: "a pod waits")
        seen = await scene.observe()
        assert (len(seen.active), len(seen.pending), len(sampler.stopped)) == (20, 1, 1)
        await scene.grove.nodes.uncordon(list(scene.nodes))
        await updated(scene)
        await scene.settles(pods=20, ready=20)
        assert sampler.copies_stopped == [0, 0, 1, 1]


async def test_ru11_a_copy_is_added_in_mid_update(scene: Scene) -> None:
    """The third copy comes with the new spec and is not touched again (#757)."""
    async with sampling(scene) as sampler:
        await running(scene, sampler, copies=2)
        await scene.apply_text(workload(copies=2, a=NEW))
        await until_seen(sampler.stops, bool, lambda _: "the update began")
        await scene.scale_set(SET, 3)
        await updated(scene)
        await scene.settles(pods=30, ready=30)
        assert 2 not in sampler.copies_stopped
        assert len(hashes(of_clique(sampler, "pc-a"))) == 1


async def test_ru13_scaled_in_during_an_update(scene: Scene) -> None:
    """A copy that is taken away while it is updated blocks nothing."""
    async with sampling(scene) as sampler:
        await running(scene, sampler, copies=2)
        await scene.apply_text(workload(copies=2, a=NEW))
        await until_seen(sampler.stops, bool, lambda _: "the update began")
        await scene.scale_set(SET, 1)
        await updated(scene)
        await scene.settles(pods=10, ready=10)
        assert {pod.metadata.labels[COPY_LABEL] for pod in sampler.pods.values()} == {"0"}


async def test_ru14_ru15_scaled_out_before_and_during(scene: Scene) -> None:
    """Pods and group replicas added by hand before and during an update stay, and are all new at the end."""
    async with sampling(scene) as sampler:
        await running(scene, sampler)
        await scene.scale_clique(A, 3)
        await scene.settles(pods=11, ready=11)
        sampler.begin()
        await scene.apply_text(workload(a=NEW, b=NEW))
        await until_seen(sampler.stops, bool, lambda _: "the update began")
        await scene.scale_group(G, 3)
        await updated(scene)
        await scene.settles(pods=15, ready=15)
        assert sampler.least[A] == 2
        assert sampler.least[G] >= 1
        assert len(hashes(of_clique(sampler, "pc-a"))) == len(hashes(of_clique(sampler, "pc-b"))) == 1


async def test_ru17_ru21_scaled_in_before_during_and_after(scene: Scene) -> None:
    """Scaling in a clique and a group around an update has its effect at once and survives it."""
    async with sampling(scene) as sampler:
        await running(scene, sampler)
        await scene.scale_group(G, 1)
        await scene.settles(pods=6, ready=6)
        await scene.apply_text(workload(a=NEW, b=NEW))
        await until_seen(sampler.stops, bool, lambda _: "the update began")
        await scene.scale_clique(A, 1)
        await updated(scene)
        await scene.settles(pods=5, ready=5)
        await scene.scale_clique(A, 2)
        await scene.settles(pods=6, ready=6)
        assert len(hashes(of_clique(sampler, "pc-a"))) == 1


async def test_od1_to_od3_on_delete(scene: Scene) -> None:
    """OnDelete stops nothing; who is deleted comes back new; scale-in then takes the old pod."""
    async with sampling(scene) as sampler:
        before = await running(scene, sampler, strategy="OnDelete")
        await scene.apply_text(workload(strategy="OnDelete", a=NEW))
        done = await until_seen(
            lambda: the_set(scene),
            lambda s: bool(s.status.update_progress.update_ended_at),
            lambda _: "it counts as over",
        )
        assert done.status.update_progress.update_started_at == done.status.update_progress.update_ended_at
        assert before == sampler.pods.keys()
        assert not sampler.stopped
        victim = of_clique(sampler, "pc-a")[0]
        await scene.grove.pods.delete([victim.metadata.name], namespace=scene.namespace)
        await scene.settles(pods=10, ready=10)
        clique = await scene.grove.pod_cliques.get(A, namespace=scene.namespace)
        assert clique.status.updated_replicas == 1
        (old,) = [pod for pod in of_clique(sampler, "pc-a") if pod.metadata.uid in before]
        await scene.scale_clique(A, 1)
        await scene.settles(pods=9, ready=9)
        assert old.metadata.uid not in sampler.pods


async def test_od4_od5_on_delete_in_a_group(scene: Scene) -> None:
    """A member of a group that is deleted comes back new; its neighbours stay."""
    async with sampling(scene) as sampler:
        await running(scene, sampler, strategy="OnDelete")
        await scene.apply_text(workload(strategy="OnDelete", c=NEW))
        await until_seen(
            lambda: the_set(scene),
            lambda s: bool(s.status.update_progress.update_ended_at),
            lambda _: "it counts as over",
        )
        name = f"{G}-0-pc-c"
        victim = of_clique(sampler, f"{G[-4:]}-0-pc-c")[0]
        await scene.grove.pods.delete([victim.metadata.name], namespace=scene.namespace)
        await scene.settles(pods=10, ready=10)
        clique = await scene.grove.pod_cliques.get(name, namespace=scene.namespace)
        assert (clique.status.updated_replicas, clique.status.ready_replicas) == (1, 3)
        assert len(sampler.stopped) == 1


async def test_coherent_moves_in_step(scene: Scene) -> None:
    """With Coherent one pod of pc-a and one replica of the group move together, and the next when both serve."""
    async with sampling(scene) as sampler:
        await running(scene, sampler, strategy="Coherent")
        await scene.apply_text(workload(strategy="Coherent", a=NEW, b=NEW))
        await updated(scene)
        await scene.settles(pods=10, ready=10)
        kinds = ["a" if clique_of(pod) == A else "g" for pod in sampler.stopped]
        assert sorted(kinds[:5]) == sorted(kinds[5:]) == ["a", "g", "g", "g", "g"]
        assert (sampler.least[A], sampler.least[G]) == (1, 1)


async def test_pause_undo_and_history(scene: Scene) -> None:
    """A paused update rests; undo leads back what was changed; the history has both revisions."""
    sets, where = scene.grove.pod_clique_sets, scene.namespace
    async with sampling(scene) as sampler:
        await running(scene, sampler, copies=2)
        await scene.grove.nodes.cordon(list(scene.nodes))
        await scene.apply_text(workload(copies=2, a=NEW))
        await until_seen(sampler.stops, bool, lambda _: "the update began")
        assert await sets.pause_rollout(SET, namespace=where)
        await scene.grove.nodes.uncordon(list(scene.nodes))
        await scene.settles(pods=20, ready=20)
        assert len(sampler.stopped) == 1
        assert len(hashes(of_clique(sampler, "pc-a"))) == 2
        assert await sets.undo_rollout(SET, namespace=where)
        assert await sets.resume_rollout(SET, namespace=where)
        await updated(scene)
        await scene.settles(pods=20, ready=20)
        assert len(hashes(of_clique(sampler, "pc-a"))) == 1
        assert len(sampler.stopped) == 2
        revisions = await sets.revisions(SET, namespace=where)
        assert [(r.number, r.is_current) for r in revisions] == [(2, False), (3, True)]
    assert all(node_of(pod) for pod in (await scene.observe()).active)
