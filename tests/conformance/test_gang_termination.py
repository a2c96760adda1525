"""Grove's gang termination cases GT1 to GT4: which pods are replaced when something is broken for too long.

Grove's delay of 10 s is 1 s here. A pod is killed for good: its node is cordoned and no other is free. That nothing
happens is proved by a canary, a set with the same delay that breaks later and is recycled first.
"""

from __future__ import annotations

from typing import Final

from grove.v1.pod_pb2 import Pod
from tests.conformance.observation import Observation, clique_of, node_of
from tests.conformance.scene import Scene
from tests.conformance.updates import Sampler, sampling
from tests.tidy.sources import ROOT
from tests.waiting import until_seen

CLUSTER: Final = ROOT / "examples" / "clusters" / "one-pod-per-node.yaml"
CANARY: Final = """\
apiVersion: grove.io/v1alpha1
kind: PodCliqueSet
metadata: {{name: canary-{number}}}
spec:
  replicas: 1
  template:
    terminationDelay: 1s
    cliques:
      - name: bird
        spec:
          roleName: bird
          replicas: 2
          podSpec: {{containers: [{{name: main, image: pause, resources: {{requests: {{memory: 80Mi}}}}}}]}}
"""


async def start(scene: Scene, workload: str, *, canaries: int = 0) -> Observation:
    """Run a workload of ten pods on ten nodes, and canaries on nodes that take nobody else."""
    await scene.limit_nodes(10, cordoned=0)
    await scene.apply(workload)
    seen = await scene.settles(pods=10, ready=10)
    if canaries:
        cages = sorted(scene.nodes, key=lambda name: (len(name), name))[-2 * canaries :]
        await scene.grove.nodes.uncordon(cages)
        await scene.apply_text("---\n".join(CANARY.format(number=number) for number in range(canaries)))
        await until_seen(
            scene.observe,
            lambda now: len(now.ready) == 10 + len(cages),
            lambda now: f"{len(cages)} birds beside ten pods, seen {now.counts}",
        )
        await scene.grove.nodes.cordon(cages)
    return seen


async def kill(scene: Scene, clique: str, count: int = 1) -> list[str]:
    """Kill pods of a clique for good; return the nodes they ran on."""
    seen = await scene.observe()
    victims = sorted(of(seen, clique), key=lambda pod: pod.metadata.name)[:count]
    assert len(victims) == count
    nodes = [node_of(pod) for pod in victims]
    await scene.grove.nodes.cordon(nodes)
    await scene.grove.pods.delete([pod.metadata.name for pod in victims], namespace=scene.namespace)
    return nodes


def of(seen: Observation, clique: str) -> list[Pod]:
    """Return the ready pods of a clique."""
    return [pod for pod in seen.ready if clique_of(pod) == clique]


def uids(seen: Observation, *cliques: str) -> set[str]:
    """Return the uids of the active pods (of some cliques) that have a node."""
    return {p.metadata.uid for p in seen.active if node_of(p) and (not cliques or clique_of(p) in cliques)}


async def replaced(scene: Scene, before: set[str]) -> Observation:
    """Wait until none of some pods is left."""
    return await until_seen(
        scene.observe,
        lambda seen: not before & {pod.metadata.uid for pod in seen.active},
        lambda seen: f"all pods are replaced, {len(before & uids(seen))} are left",
    )


async def delay_passes(scene: Scene, canary: int) -> Observation:
    """Return what is there after more than the termination delay: a canary broke and was recycled meanwhile."""
    birds = f"canary-{canary}-0-bird"
    before = uids(await scene.observe(), birds)
    assert len(before) == 2
    await kill(scene, birds)
    seen = await replaced(scene, before)
    await scene.grove.pod_clique_sets.delete([f"canary-{canary}"], namespace=scene.namespace)
    return seen


async def recovers(scene: Scene, nodes: list[str]) -> None:
    """Give nodes back and wait until ten pods run."""
    await scene.grove.nodes.uncordon(nodes)
    await until_seen(
        scene.observe, lambda seen: len(seen.ready) == len(seen.active) == 10, lambda seen: str(seen.counts)
    )
    await scene.rests()


def stopped(sampler: Sampler) -> set[str]:
    """Return the uids of all pods of the workload that were stopped so far; canaries are none of it."""
    return {pod.metadata.uid for pod in sampler.stopped if not clique_of(pod).startswith("canary-")}


async def test_gt1_a_lost_standalone_pod_recycles_the_copy(scene: Scene) -> None:
    """One of two pc-a, both needed: all ten pods are replaced, once, ten exist, and run when the node is back."""
    async with sampling(scene, Sampler()) as sampler:
        before = uids(await start(scene, "workload1-gt"))
        nodes = await kill(scene, "workload1-gt-0-pc-a")
        seen = await replaced(scene, before)
        assert len(seen.active) == 10
        event = await scene.gang_event("workload1-gt-0", "GangTerminated")
        assert "workload1-gt-0-pc-a was broken" in event.message
        await recovers(scene, nodes)
        gang = (await scene.observe()).gangs["workload1-gt-0"]
        assert [(each.scope, each.count) for each in gang.status.recycles] == [("Copy", 1)]
        await sampler.catches_up(scene)
        # The replacement of the pod that was killed had no node when it went.
        assert len(sampler.stopped) == 11
        assert before < stopped(sampler)


async def test_gt2_a_lost_pod_of_a_needed_group_replica_recycles_the_copy(scene: Scene) -> None:
    """One of three pc-c of a replica that the group cannot spare: all ten pods are replaced, once."""
    async with sampling(scene, Sampler()) as sampler:
        before = uids(await start(scene, "workload1-gt"))
        nodes = await kill(scene, "workload1-gt-0-sg-x-0-pc-c")
        assert len((await replaced(scene, before)).active) == 10
        await recovers(scene, nodes)
        await sampler.catches_up(scene)
        assert len(sampler.stopped) == 11
        assert before < stopped(sampler)


async def test_gt3_only_the_loss_of_the_minimum_counts(scene: Scene) -> None:
    """One of two pc-a, one needed: nothing else dies. Then the other: everything is replaced, and recovers."""
    async with sampling(scene, Sampler()) as sampler:
        before = uids(await start(scene, "workload2-gt", canaries=1))
        nodes = await kill(scene, "workload2-gt-0-pc-a")
        seen = await delay_passes(scene, 0)
        kept = uids(seen) & before
        assert len(kept) == 9
        await sampler.catches_up(scene)
        assert stopped(sampler) == before - kept, "nothing else died at any moment"
        nodes += await kill(scene, "workload2-gt-0-pc-a")
        await replaced(scene, before)
        await recovers(scene, nodes)


async def test_gt4_the_smallest_broken_unit_is_recycled(scene: Scene) -> None:
    """A group replica alone while its group can spare it, and the copy when the next one breaks as well."""
    first, second = "workload2-gt-0-sg-x-0", "workload2-gt-0-sg-x-1"
    async with sampling(scene, Sampler()) as sampler:
        before = await start(scene, "workload2-gt", canaries=2)
        nodes = await kill(scene, f"{first}-pc-c")
        seen = await delay_passes(scene, 0)
        assert len(uids(seen) & uids(before)) == 9
        await sampler.catches_up(scene)
        assert stopped(sampler) == uids(before) - uids(seen)
        nodes += await kill(scene, f"{first}-pc-c", 2)
        seen = await replaced(scene, uids(before, f"{first}-pc-b", f"{first}-pc-c"))
        others = uids(before, "workload2-gt-0-pc-a", f"{second}-pc-b", f"{second}-pc-c")
        assert uids(seen, "workload2-gt-0-pc-a", f"{second}-pc-b", f"{second}-pc-c") == others
        nodes += await kill(scene, f"{second}-pc-c")
        seen = await delay_passes(scene, 1)
        assert uids(seen, "workload2-gt-0-pc-a") == uids(before, "workload2-gt-0-pc-a")
        await sampler.catches_up(scene)
        assert len(stopped(sampler) & others) == 1, "of the others only the pod that was killed"
        # The pod that was killed may have found the node that the first replica left.
        nodes += await kill(scene, f"{second}-pc-c", len(of(seen, f"{second}-pc-c")))
        await replaced(scene, uids(before))
        await recovers(scene, nodes)
