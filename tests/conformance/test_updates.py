"""Grove's update cases RU7 to RU21 and OD1 to OD5 on a real server, with every pod seen at every moment.

One pod fits on a node, so a replacement that has no node stays pending, as in the published cases.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from grove.v1.pod_clique_set_pb2 import PodCliqueSet
from grove.v1.pod_pb2 import Pod
from tests.conformance.observation import clique_of, node_of
from tests.conformance.scene import WORKLOADS, Scene
from tests.conformance.updates import (
    COPY_LABEL,
    HASH_LABEL,
    REPLICA_LABEL,
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
A2, G2 = f"{SET}-1-pc-a", f"{SET}-1-sg-x"


async def running(scene: Scene, sampler: Sampler, manifest: str, *, copies: int = 1) -> set[str]:
    """Let the set run; return the uids of its pods."""
    await scene.apply_text(manifest)
    seen = await scene.settles(pods=10 * copies, ready=10 * copies)
    await sampler.catches_up(scene)
    sampler.begin()
    return {pod.metadata.uid for pod in seen.ready}


async def ended(scene: Scene, sampler: Sampler, pods: int) -> PodCliqueSet:
    """Wait until the update is over, everything serves, and all of it was seen."""
    done = await updated(scene)
    await scene.settles(pods=pods, ready=pods)
    await sampler.catches_up(scene)
    return done


async def began(sampler: Sampler) -> None:
    """Wait until the first pod is stopped."""
    await until_seen(sampler.stops, bool, lambda _: "the update began")


def hashes(pods: list[Pod]) -> set[str]:
    """Return the revisions of pods."""
    return {pod.metadata.labels[HASH_LABEL] for pod in pods}


def uids(sampler: Sampler, *cliques: str) -> set[str]:
    """Return the uids of the pods of some cliques, by the names of their templates."""
    return {pod.metadata.uid for clique in cliques for pod in of_clique(sampler, clique)}


async def test_ru7_one_pod_one_copy_at_a_time(scene: Scene) -> None:
    """A change of pc-a stops its four pods one after the other, copy by copy, and no other pod."""
    async with sampling(scene, Sampler()) as sampler:
        before = await running(scene, sampler, workload(copies=2), copies=2)
        others = uids(sampler, "pc-b", "pc-c")
        await scene.apply_text(workload(copies=2, a=NEW))
        await ended(scene, sampler, 20)
        assert Counter(clique_of(pod) for pod in sampler.stopped) == {A: 2, A2: 2}
        assert sampler.copies_stopped == [0, 0, 1, 1]
        assert sampler.least == {A: 1, A2: 1, G: 2, G2: 2}
        assert sampler.least_in_all == 7, "of both copies together never more than one unit is down"
        assert sampler.most == {A: 2, A2: 2, G: 8, G2: 8}
        assert before & sampler.pods.keys() == others
        assert len(others) == 16


async def test_ru8_one_group_replica_at_a_time(scene: Scene) -> None:
    """A change of pc-b replaces each group replica as a whole, one after the other, and no pod of pc-a."""
    async with sampling(scene, Sampler()) as sampler:
        before = await running(scene, sampler, workload())
        kept = uids(sampler, "pc-a")
        await scene.apply_text(workload(b=NEW))
        await ended(scene, sampler, 10)
        assert [pod.metadata.labels[REPLICA_LABEL] for pod in sampler.stopped] == ["0"] * 4 + ["1"] * 4
        assert sampler.least == {A: 2, G: 1}
        assert sampler.most == {A: 2, G: 8}
        assert before & sampler.pods.keys() == kept


async def test_ru9_all_cliques_at_the_same_time(scene: Scene) -> None:
    """A change of everything takes one pod of the clique and one replica of the group at a time."""
    async with sampling(scene, Sampler()) as sampler:
        before = await running(scene, sampler, workload())
        await scene.apply_text(workload(a=NEW, b=NEW, c=NEW))
        done = await ended(scene, sampler, 10)
        assert not before & sampler.pods.keys()
        assert Counter(clique_of(pod) == A for pod in sampler.stopped) == {True: 2, False: 8}
        assert sampler.least == {A: 1, G: 1}
        assert sampler.most == {A: 2, G: 8}
        progress = done.status.update_progress
        assert (progress.updated_pod_cliques_count, progress.total_pod_cliques_count) == (1, 1)
        assert progress.updated_pod_clique_scaling_groups_count == progress.total_pod_clique_scaling_groups_count == 1


async def test_ru10_no_progress_without_nodes(scene: Scene) -> None:
    """Without a free node exactly one pod is gone and one waits, and nothing more; with nodes the update ends."""
    async with sampling(scene, Sampler()) as sampler:
        await running(scene, sampler, workload(copies=2), copies=2)
        # A node that is full stays open, so that a pod that asks for next to nothing can prove that nothing moves.
        full = node_of(of_clique(sampler, "pc-b")[0])
        await scene.grove.nodes.cordon(sorted(scene.nodes.keys() - {full}))
        await scene.apply_text(workload(copies=2, a=NEW))
        await until_seen(scene.observe, lambda seen: bool(seen.pending), lambda _: "a pod waits")
        seen = await scene.observe_until_quiet()
        assert (len(seen.active), len(seen.ready), len(seen.pending), len(sampler.stopped)) == (20, 19, 1, 1)
        await scene.grove.nodes.uncordon(list(scene.nodes))
        await ended(scene, sampler, 20)
        assert sampler.copies_stopped == [0, 0, 1, 1]
        assert sampler.least_in_all == 7


async def test_ru11_a_copy_is_added_in_mid_update(scene: Scene) -> None:
    """The third copy comes with the new spec and is not touched again (#757)."""
    async with sampling(scene, Sampler()) as sampler:
        await running(scene, sampler, workload(copies=2), copies=2)
        await scene.apply_text(workload(copies=2, a=NEW))
        await began(sampler)
        await scene.scale_set(SET, 3)
        await ended(scene, sampler, 30)
        assert sampler.copies_stopped == [0, 0, 1, 1]
        assert Counter(pod.metadata.labels[COPY_LABEL] for pod in sampler.born) == {"0": 2, "1": 2, "2": 10}
        assert len(hashes([pod for pod in sampler.born if clique_of(pod).endswith("pc-a")])) == 1
        assert [sampler.least[name] for name in (A, A2, G, G2)] == [1, 1, 2, 2]


async def test_ru13_scaled_in_during_an_update(scene: Scene) -> None:
    """A copy that is taken away while it is updated blocks nothing, and the other is updated as if alone."""
    async with sampling(scene, Sampler()) as sampler:
        await running(scene, sampler, workload(copies=2), copies=2)
        await scene.apply_text(workload(copies=2, a=NEW))
        await began(sampler)
        await scene.scale_set(SET, 1)
        await ended(scene, sampler, 10)
        assert {pod.metadata.labels[COPY_LABEL] for pod in sampler.pods.values()} == {"0"}
        assert sampler.copies_stopped.count(0) == 2
        assert (sampler.least[A], sampler.least[G]) == (1, 2)


async def test_ru14_ru15_scaled_out_before_and_during(scene: Scene) -> None:
    """Pods and group replicas added by hand before and during an update stay, and are all new at the end."""
    async with sampling(scene, Sampler()) as sampler:
        await running(scene, sampler, workload())
        await scene.scale_clique(A, 3)
        await scene.settles(pods=11, ready=11)
        await sampler.catches_up(scene)
        sampler.begin()
        await scene.apply_text(workload(a=NEW, b=NEW))
        await began(sampler)
        await scene.scale_group(G, 3)
        await ended(scene, sampler, 15)
        assert (sampler.least[A], sampler.least[G]) == (2, 1)
        assert (sampler.most[A], sampler.most[G]) == (3, 12)
        assert len(hashes(of_clique(sampler, "pc-a"))) == len(hashes(of_clique(sampler, "pc-b"))) == 1
        assert len(sampler.stopped) == 3 + 8, "the replica that was added is new already"


async def test_ru17_ru21_scaled_in_before_during_and_after(scene: Scene) -> None:
    """Scaling in a clique and a group around an update has its effect at once and survives it."""
    async with sampling(scene, Sampler()) as sampler:
        await running(scene, sampler, workload(minimum=1))
        await scene.scale_group(G, 1)
        await scene.settles(pods=6, ready=6)
        await scene.apply_text(workload(minimum=1, a=NEW, b=NEW))
        await began(sampler)
        await scene.scale_clique(A, 1)
        await ended(scene, sampler, 5)
        await scene.scale_clique(A, 2)
        await scene.settles(pods=6, ready=6)
        await sampler.catches_up(scene)
        assert len(hashes(of_clique(sampler, "pc-a"))) == 1
        assert (sampler.most[A], sampler.most[G]) == (2, 8)


async def counts_as_over(scene: Scene) -> None:
    """Wait until an update under OnDelete is over, which it is the moment it begins."""
    done = await until_seen(
        lambda: the_set(scene), lambda s: bool(s.status.update_progress.update_ended_at), lambda _: "it counts as over"
    )
    assert done.status.update_progress.update_started_at == done.status.update_progress.update_ended_at


async def test_od1_to_od3_on_delete(scene: Scene) -> None:
    """OnDelete stops nothing; who is deleted comes back new; scale-in then takes the old pod."""
    async with sampling(scene, Sampler()) as sampler:
        before = await running(scene, sampler, workload(minimum=1, strategy="OnDelete"))
        await scene.apply_text(workload(minimum=1, strategy="OnDelete", a=NEW))
        await counts_as_over(scene)
        await scene.settles(pods=10, ready=10)
        assert before == sampler.pods.keys()
        assert not sampler.stopped
        victim, old = of_clique(sampler, "pc-a")
        await scene.grove.pods.delete([victim.metadata.name], namespace=scene.namespace)
        await scene.settles(pods=10, ready=10)
        clique = await scene.grove.pod_cliques.get(A, namespace=scene.namespace)
        assert clique.status.updated_replicas == 1
        await scene.scale_clique(A, 1)
        await scene.settles(pods=9, ready=9)
        await sampler.catches_up(scene)
        assert [pod.metadata.uid for pod in sampler.stopped] == [victim.metadata.uid, old.metadata.uid]
        assert sampler.least == {A: 1, G: 2}


async def test_od4_od5_on_delete_in_a_group(scene: Scene) -> None:
    """A member of a group that is deleted comes back new; its neighbours stay; scale-in then takes the old ones."""
    async with sampling(scene, Sampler()) as sampler:
        await running(scene, sampler, workload(minimum=1, strategy="OnDelete"))
        await scene.apply_text(workload(minimum=1, strategy="OnDelete", c=NEW))
        await counts_as_over(scene)
        name = f"{G}-0-pc-c"
        victim, *old = of_clique(sampler, name)
        await scene.grove.pods.delete([victim.metadata.name], namespace=scene.namespace)
        await scene.settles(pods=10, ready=10)
        clique = await scene.grove.pod_cliques.get(name, namespace=scene.namespace)
        assert (clique.status.updated_replicas, clique.status.ready_replicas) == (1, 3)
        assert [pod.metadata.uid for pod in sampler.stopped] == [victim.metadata.uid]
        await scene.scale_clique(name, 1)
        await scene.settles(pods=8, ready=8)
        await sampler.catches_up(scene)
        assert {pod.metadata.uid for pod in sampler.stopped[1:]} == {pod.metadata.uid for pod in old}


async def test_coherent_moves_in_step(scene: Scene) -> None:
    """With Coherent one pod of pc-a and one replica of the group move together, and the next when both serve."""
    async with sampling(scene, Sampler()) as sampler:
        await running(scene, sampler, workload(minimum=1, strategy="Coherent"))
        await scene.apply_text(workload(minimum=1, strategy="Coherent", a=NEW, b=NEW))
        await ended(scene, sampler, 10)
        kinds = ["a" if clique_of(pod) == A else "g" for pod in sampler.stopped]
        assert sorted(kinds[:5]) == sorted(kinds[5:]) == ["a", "g", "g", "g", "g"]
        assert sampler.least == {A: 1, G: 1}


async def test_pause_undo_and_history(scene: Scene) -> None:
    """A paused update rests; undo leads back what was changed; the history has both revisions."""
    sets, where = scene.grove.pod_clique_sets, scene.namespace
    async with sampling(scene, Sampler()) as sampler:
        await running(scene, sampler, workload(copies=2), copies=2)
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
