"""What the children of a set publish during a real rolling update, read through gRPC."""

from __future__ import annotations

from collections import defaultdict

from grove.v1.pod_clique_pb2 import PodClique
from grove.v1.pod_clique_scaling_group_pb2 import PodCliqueScalingGroup
from tests.conformance.scene import WORKLOADS, Scene
from tests.conformance.updates import HASH_LABEL, SET, Sampler, sampling, the_set, updated, workload
from tests.waiting import until_seen

CLUSTER = WORKLOADS.parent / "clusters" / "thirty-nodes.yaml"
NEW = "registry.k8s.io/pause:3.11"
REVISION_LABEL = "grove.io/pod-clique-set-revision"
A, B, G = f"{SET}-0-pc-a", f"{SET}-0-sg-x-0-pc-b", f"{SET}-0-sg-x"


async def clique(scene: Scene, name: str = A) -> PodClique:
    """Return a clique."""
    return await scene.grove.pod_cliques.get(name, namespace=scene.namespace)


async def group(scene: Scene) -> PodCliqueScalingGroup:
    """Return the group."""
    return await scene.grove.pod_clique_scaling_groups.get(G, namespace=scene.namespace)


async def running(scene: Scene, sampler: Sampler) -> str:
    """Let the set run; return its generation hash."""
    await scene.apply_text(workload())
    await scene.settles(pods=10, ready=10)
    await until_seen(sampler.count, lambda n: n == 10, lambda n: f"all pods are seen, so far {n}")
    return (await the_set(scene)).status.current_generation_hash


async def test_cliques_and_groups_publish_their_update(scene: Scene) -> None:
    """Hashes are those of before until the update is over; then progress has its end, and names whom it took."""
    async with sampling(scene, Sampler()) as sampler:
        before = await running(scene, sampler)
        assert (await clique(scene)).status.current_pod_clique_set_generation_hash == before
        assert (await group(scene)).status.current_pod_clique_set_generation_hash == before
        assert not (await clique(scene)).status.HasField("update_progress")
        old_hash = (await clique(scene)).status.current_pod_template_hash
        # Without nodes the update stands still in its middle, where it can be looked at.
        await scene.grove.nodes.cordon(list(scene.nodes))
        await scene.apply_text(workload(a=NEW, b=NEW))
        seen = await until_seen(lambda: clique(scene), _has_selected, lambda seen: f"a pod was selected: {seen.status}")
        progress = seen.status.update_progress
        assert progress.update_started_at
        assert not progress.update_ended_at
        assert seen.status.current_pod_clique_set_generation_hash == before
        assert seen.status.current_pod_template_hash == old_hash != progress.pod_template_hash
        assert progress.ready_pods_selected_to_update.current.startswith(A)
        of_group = (await group(scene)).status
        assert of_group.current_pod_clique_set_generation_hash == before
        assert of_group.update_progress.ready_replica_indices_selected_to_update.current == 0
        assert of_group.update_progress.total_pod_cliques_count == 4
        await scene.grove.nodes.uncordon(list(scene.nodes))
        present = (await updated(scene)).status.current_generation_hash
        await scene.settles(pods=10, ready=10)
        for status in ((await clique(scene)).status, (await group(scene)).status):
            assert status.current_pod_clique_set_generation_hash == present != before
            assert status.update_progress.pod_clique_set_generation_hash == present
            assert status.update_progress.update_ended_at
        done = (await clique(scene)).status
        assert done.current_pod_template_hash == done.update_progress.pod_template_hash
        assert len(done.update_progress.ready_pods_selected_to_update.completed) == 2
        of_group = (await group(scene)).status
        assert list(of_group.update_progress.ready_replica_indices_selected_to_update.completed) == [0, 1]
        assert of_group.update_progress.updated_pod_cliques_count == 4
        assert (await clique(scene, B)).status.current_pod_clique_set_generation_hash == present


async def test_pods_of_one_revision_are_of_one_version_at_every_moment(scene: Scene) -> None:
    """Every pod ever seen with a revision has the same template as the others of its clique with that revision."""
    async with sampling(scene, Sampler()) as sampler:
        before = await running(scene, sampler)
        seen: defaultdict[tuple[str, str], set[str]] = defaultdict(set)

        def note() -> None:
            for pod in sampler.pods.values():
                labels = pod.metadata.labels
                role = labels["grove.io/podclique"].rpartition("-")[2]
                seen[labels[REVISION_LABEL], role].add(labels[HASH_LABEL])

        note()
        await scene.apply_text(workload(a=NEW))
        while True:
            note()
            found = await the_set(scene)
            if found.status.update_progress.update_ended_at and found.status.current_generation_hash != before:
                break
        await scene.settles(pods=10, ready=10)
        present = found.status.current_generation_hash
        await until_seen(
            lambda: _revisions(sampler), lambda got: got == {present}, lambda got: f"all have the revision, seen {got}"
        )
        note()
        assert all(len(hashes) == 1 for hashes in seen.values())
        assert {revision for revision, _ in seen} == {before, present}


async def _revisions(sampler: Sampler) -> set[str]:
    return {pod.metadata.labels[REVISION_LABEL] for pod in sampler.pods.values()}


def _has_selected(seen: PodClique) -> bool:
    return bool(seen.status.update_progress.ready_pods_selected_to_update.current)
