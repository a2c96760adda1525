"""Deletion takes everything along: whatever belongs to a set is gone when the set is, and its room is free."""

from __future__ import annotations

from typing import Final

import pytest

from grove_client import FailedPreconditionError, NotFoundError
from tests.conformance.scene import Scene
from tests.tidy.sources import ROOT
from tests.waiting import until_seen

CLUSTER: Final = ROOT / "examples" / "clusters" / "one-pod-per-node.yaml"
# Its pods take their time to stop.
SLOW: Final = """\
apiVersion: grove.io/v1alpha1
kind: PodCliqueSet
metadata: {name: slow}
spec:
  replicas: 2
  template:
    cliques:
      - name: worker
        annotations: {fake.grove.io/stop-delay: 1500ms}
        spec:
          roleName: worker
          replicas: 2
          podSpec: {containers: [{name: main, image: pause, resources: {requests: {memory: 80Mi}}}]}
"""


async def test_deleting_a_set_leaves_nothing(scene: Scene) -> None:
    """Groups, cliques, gangs and pods go with the set, and the nodes are free for the next."""
    await scene.apply("workload1")
    await scene.scale_set("workload1", 2)
    await scene.scale_group("workload1-0-sg-x", 3)
    seen = await scene.settles(pods=24, ready=24)
    assert (len(seen.sets), len(seen.groups), len(seen.cliques), len(seen.gangs)) == (1, 2, 12, 3)
    await scene.delete_sets()
    await scene.is_empty()
    await scene.apply("workload1")
    await scene.scale_set("workload1", 2)
    await scene.settles(pods=20, ready=20)


async def test_deleting_a_waiting_set_leaves_nothing(scene: Scene) -> None:
    """A set that never got a node goes as completely as one that ran."""
    await scene.limit_nodes(10, cordoned=1)
    await scene.apply("workload1")
    await scene.settles(pods=10, ready=0)
    await scene.delete_sets()
    await scene.is_empty()


async def test_a_set_is_seen_until_its_pods_are_gone(scene: Scene) -> None:
    """While pods stop, the set is there, marked, and takes no changes; then both are gone."""
    await scene.apply_text(SLOW)
    await scene.settles(pods=4, ready=4)
    await scene.delete_sets()
    seen = await until_seen(
        scene.observe,
        lambda seen: seen.sets["slow"].status.phase == "Deleting",
        lambda _: "the set is in phase Deleting",
    )
    assert seen.sets["slow"].metadata.deletion_timestamp
    assert len(seen.pods) == 4
    with pytest.raises(FailedPreconditionError) as caught:
        await scene.apply_text(SLOW)
    assert caught.value.reason == "BEING_DELETED"
    with pytest.raises(FailedPreconditionError):
        await scene.scale_set("slow", 3)

    async def look() -> tuple[bool, int]:
        # The set first: pods that are seen after it was gone would have outlived it.
        try:
            await scene.grove.pod_clique_sets.get("slow", namespace=scene.namespace)
        except NotFoundError:
            return False, len((await scene.observe()).pods)
        return True, 0

    is_there, pod_count = await until_seen(look, lambda found: not found[0], lambda _: "the set is gone")
    assert (is_there, pod_count) == (False, 0)
    await scene.is_empty()


async def test_deleting_one_set_leaves_the_others(scene: Scene) -> None:
    """Sets whose names start alike are not taken for each other's parts."""
    slow = SLOW.replace("1500ms", "0s").replace("replicas: 2\n  template", "replicas: 1\n  template")
    await scene.apply_text(slow)
    await scene.apply_text(slow.replace("name: slow", "name: slow-0"))
    await scene.apply_text(slow.replace("name: slow", "name: slow-0-worker"))
    before = await scene.settles(pods=6, ready=6)
    await scene.grove.pod_clique_sets.delete(["slow-0"], namespace=scene.namespace)
    seen = await scene.settles(pods=4, ready=4)
    assert sorted(seen.sets) == ["slow", "slow-0-worker"]
    assert {pod.metadata.uid for pod in seen.pods.values()} < {pod.metadata.uid for pod in before.pods.values()}
