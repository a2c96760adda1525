"""What tests of updates see and do: every pod at every moment, a set that can be changed, the way to its end."""

from __future__ import annotations

import asyncio
import re
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, TypeVar

from grove.v1.pod_clique_set_pb2 import PodCliqueSet
from grove.v1.pod_pb2 import Pod
from grove_client.watching import DELETED
from tests.conformance.observation import clique_of, condition, node_of
from tests.conformance.scene import WORKLOADS, Scene
from tests.waiting import until_seen

SET: Final = "workload1"
HASH_LABEL: Final = "grove.io/pod-template-hash"
COPY_LABEL: Final = "grove.io/podcliqueset-replica-index"
REPLICA_LABEL: Final = "grove.io/podcliquescalinggroup-replica-index"
GROUP_LABEL: Final = "grove.io/podcliquescalinggroup"
IMAGE: Final = "registry.k8s.io/pause:3.10"
PER_REPLICA: Final = 4
MOMENT: Final = "{fake.grove.io/ready-delay: 30ms, fake.grove.io/stop-delay: 30ms}"


class Sampler:
    """Follows all pods of a namespace; after every change it notes who serves, and who came and stopped.

    ``least`` is how few units of each clique and group served at any moment, ``least_in_all`` how few of all of them
    together, ``most`` how many pods had nodes. ``born`` are all pods as they were first seen.
    """

    def __init__(self) -> None:
        self.pods: dict[str, Pod] = {}
        self.least: dict[str, int] = {}
        self.most: dict[str, int] = {}
        self.least_in_all = sys.maxsize
        self.born: list[Pod] = []
        self.stopped: list[Pod] = []
        self.copies_stopped: list[int] = []
        self._counts: dict[str, int] = {}

    def see(self, step: str, pod: Pod) -> None:
        """Take in one change."""
        uid = pod.metadata.uid
        before = self.pods.get(uid)
        is_going = step == DELETED or bool(pod.metadata.deletion_timestamp)
        if is_going and before is not None and not before.metadata.deletion_timestamp:
            self.stopped.append(pod)
            self.copies_stopped.append(int(pod.metadata.labels[COPY_LABEL]))
        if step == DELETED:
            self.pods.pop(uid, None)
        else:
            self.pods[uid] = pod
            if before is None:
                self.born.append(pod)
        self._note()

    def _note(self) -> None:
        serving = self.serving()
        for name, count in serving.items():
            self.least[name] = min(count, self.least.get(name, count))
        self.least_in_all = min(self.least_in_all, sum(serving.values()))
        # Pods without a node are left out: of one commit a new pod may be told before the stop of its predecessor.
        placed = [pod for pod in self.pods.values() if not pod.metadata.deletion_timestamp and node_of(pod)]
        there = Counter(_unit_of(pod) for pod in placed)
        for name, count in there.items():
            self.most[name] = max(count, self.most.get(name, count))

    def serving(self) -> dict[str, int]:
        """Return ready pods by standalone clique and whole replicas by group; pods that drain count nowhere."""
        ready = [pod for pod in self.pods.values() if _serves(pod)]
        found = dict.fromkeys((_unit_of(pod) for pod in self.pods.values()), 0)
        found |= Counter(clique_of(pod) for pod in ready if GROUP_LABEL not in pod.metadata.labels)
        whole = Counter(
            (pod.metadata.labels[GROUP_LABEL], pod.metadata.labels[REPLICA_LABEL])
            for pod in ready
            if GROUP_LABEL in pod.metadata.labels
        )
        for (name, _), count in whole.items():
            found[name] += count == PER_REPLICA
        return found

    async def count(self) -> int:
        """Return how many pods there are."""
        return len(self.pods)

    async def stops(self) -> int:
        """Return how many pods were stopped."""
        return len(self.stopped)

    def begin(self) -> None:
        """Forget what was so far; from now on it counts."""
        self.least.clear()
        self.most.clear()
        self.least_in_all = sys.maxsize
        self.born.clear()
        self.stopped.clear()
        self.copies_stopped.clear()
        self._note()

    async def catches_up(self, scene: Scene) -> None:
        """Wait until everything that is there was seen."""
        await until_seen(
            scene.observe,
            lambda seen: (
                {pod.metadata.uid: pod.metadata.resource_version for pod in seen.pods.values()}
                == {uid: pod.metadata.resource_version for uid, pod in self.pods.items()}
            ),
            lambda seen: f"the watch tells of all of {len(seen.pods)} pods",
        )


def _serves(pod: Pod) -> bool:
    conditions = pod.status.conditions
    is_leaving = bool(pod.metadata.deletion_timestamp) or condition(conditions, "Draining") == "True"
    return not is_leaving and condition(conditions, "Ready") == "True"


def _unit_of(pod: Pod) -> str:
    return pod.metadata.labels.get(GROUP_LABEL) or clique_of(pod)


S = TypeVar("S", bound=Sampler)


@asynccontextmanager
async def sampling(scene: Scene, sampler: S) -> AsyncIterator[S]:
    """Let a sampler follow the pods of the scene for the length of the block."""

    async def follow() -> None:
        async for event in scene.grove.pods.watch(namespace=scene.namespace):
            if event.object is not None:
                sampler.see(event.type, event.object)

    task = asyncio.create_task(follow())
    try:
        yield sampler
    finally:
        task.cancel()


def workload(*, copies: int = 1, strategy: str = "RollingRecreate", minimum: int = 2, **images: str) -> str:
    """Return Grove's workload 1, whose pods take a moment to start and to stop; *images* are by clique ("a", "b", "c").

    *minimum* is that of pc-a and the group, where Grove's is two; with one, all minimums are one.
    """
    text = (WORKLOADS / f"{SET}.yaml").read_text(encoding="utf-8")
    if minimum == 1:
        text = re.sub(r"minAvailable: \d", "minAvailable: 1", text)
    text = re.sub(r"(      - name: pc-.\n)", rf"\1        annotations: {MOMENT}\n", text)
    head, *cliques = text.split("      - name: pc-")
    parts = [clique.replace(IMAGE, images.get(clique[0], IMAGE)) for clique in cliques]
    head = head.replace("  replicas: 1\n", f"  replicas: {copies}\n  updateStrategy: {{type: {strategy}}}\n", 1)
    return "      - name: pc-".join([head, *parts])


async def the_set(scene: Scene) -> PodCliqueSet:
    """Return the set."""
    return await scene.grove.pod_clique_sets.get(SET, namespace=scene.namespace)


async def updated(scene: Scene) -> PodCliqueSet:
    """Wait until the set is wholly at what its template says."""

    def is_over(found: PodCliqueSet) -> bool:
        status = found.status
        return (
            status.observed_generation == found.metadata.generation
            and bool(status.update_progress.update_ended_at)
            and status.updated_replicas == found.spec.replicas == status.available_replicas
        )

    return await until_seen(lambda: the_set(scene), is_over, lambda found: f"the update is over, seen {found.status}")


def of_clique(sampler: Sampler, clique: str) -> list[Pod]:
    """Return the pods of a clique, by the name of its template, that are not stopping."""
    return [
        pod for pod in sampler.pods.values() if clique_of(pod).endswith(clique) and not pod.metadata.deletion_timestamp
    ]
