"""Grove's start order cases SO1 to SO3: when each pod became ready, compared with those it starts after.

Twice: by the times that the pods show at the end, as Grove does, and by a watch that sees every pod at every moment.
Pods take a moment to become ready, so that one that starts too early would be seen.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from grove.v1.pod_pb2 import Pod
from tests.conformance.observation import Observation, clique_of, condition, node_of
from tests.conformance.scene import WORKLOADS, Scene
from tests.conformance.updates import Sampler, sampling
from tests.tidy.sources import ROOT
from tests.waiting import until_seen

CLUSTER: Final = ROOT / "examples" / "clusters" / "one-pod-per-node.yaml"


class Rule(NamedTuple):
    """Pods of the cliques that end so start only when so many of the others are ready."""

    then: str
    first: str
    needed: int


class Order(Sampler):
    """Sees at every moment whether a pod runs that should still wait."""

    def __init__(self, *rules: Rule) -> None:
        super().__init__()
        self.rules = rules
        self.broken: list[tuple[Rule, str]] = []
        self.waited: set[str] = set()

    def see(self, step: str, pod: Pod) -> None:
        """Take in one change."""
        super().see(step, pod)
        clique = clique_of(pod)
        for rule in self.rules:
            if not clique.endswith(rule.then):
                continue
            ready = sum(is_ready(p) for p in self.pods.values() if clique_of(p).endswith(rule.first))
            if ready < rule.needed and pod.status.phase == "Running":
                self.broken.append((rule, pod.metadata.name))
            if ready < rule.needed and node_of(pod):
                self.waited.add(pod.metadata.name)


def is_ready(pod: Pod) -> bool:
    """Return whether a pod serves."""
    return condition(pod.status.conditions, "Ready") == "True"


async def run(scene: Scene, workload: str, *rules: Rule) -> Observation:
    """Run a workload of ten pods that take a moment to become ready; no rule is broken at any moment."""
    await scene.limit_nodes(10, cordoned=0)
    text = (WORKLOADS / f"{workload}.yaml").read_text(encoding="utf-8")
    slow = "        annotations: {fake.grove.io/ready-delay: 30ms}\n"
    async with sampling(scene, Order(*rules)) as order:
        await scene.apply_text(re.sub(r"(      - name: pc-.\n)", rf"\1{slow}", text))
        seen = await scene.settles(pods=10, ready=10)
        await order.catches_up(scene)
        assert order.broken == []
        assert order.waited, "nobody was seen waiting on a node"
    return seen


def times(seen: Observation, clique: str) -> list[str]:
    """Return when the pods of the cliques that end so became ready, in order; the format sorts as time does."""
    return sorted(
        next(c.last_transition_time for c in pod.status.conditions if c.type == "Ready")
        for pod in seen.ready
        if clique_of(pod).endswith(clique)
    )


def check_before(seen: Observation, first: str, then: str, *, needed: int | None = None) -> None:
    """Check that *needed* pods (all unless given) of one clique were ready before any of the other."""
    earlier, later = times(seen, first), times(seen, then)
    assert earlier[(needed or len(earlier)) - 1] <= later[0], f"{first} {earlier}, {then} {later}"
    assert earlier[0] < later[0], f"{first} {earlier}, {then} {later}"


async def test_so1_in_order(scene: Scene) -> None:
    """InOrder: both pc-a before the first pc-b, all pc-b before the first pc-c."""
    seen = await run(scene, "workload3", Rule("pc-b", "pc-a", 2), Rule("pc-c", "pc-b", 2))
    assert [len(times(seen, clique)) for clique in ("pc-a", "pc-b", "pc-c")] == [2, 2, 6]
    check_before(seen, "pc-a", "pc-b")
    check_before(seen, "pc-b", "pc-c")
    expected = {f"workload3-0-sg-x-{j}-{clique}" for j in (0, 1) for clique in ("pc-b", "pc-c")}

    async def told() -> set[str]:
        events = scene.grove.events.list(namespace=scene.namespace, involved_kind="PodClique")
        return {event.involved_object.name async for event in events if event.reason == "WaitingForParents"}

    await until_seen(told, lambda names: names == expected, lambda names: f"events of {expected}, seen {names}")


async def test_so2_minimums_in_order(scene: Scene) -> None:
    """The minimum of pc-a before every pod of the group; in each group replica pc-b before pc-c."""
    within = [Rule(f"sg-x-{j}-pc-c", f"sg-x-{j}-pc-b", 1) for j in (0, 1)]
    seen = await run(scene, "workload4", Rule("pc-b", "pc-a", 1), *within)
    check_before(seen, "pc-a", "pc-b", needed=1)
    for replica in (0, 1):
        check_before(seen, f"sg-x-{replica}-pc-b", f"sg-x-{replica}-pc-c")


async def test_so3_explicit_order(scene: Scene) -> None:
    """Explicit: pc-a, then pc-c, then pc-b, over both group replicas."""
    seen = await run(scene, "workload5", Rule("pc-c", "pc-a", 2), Rule("pc-b", "pc-c", 6))
    check_before(seen, "pc-a", "pc-c")
    check_before(seen, "pc-c", "pc-b")


async def test_a_waiting_pod_says_for_whom(scene: Scene) -> None:
    """While pc-a does not serve, pods behind it have nodes and say for whom they wait, and how far that is."""
    await scene.limit_nodes(3, cordoned=0)
    await scene.apply_text(
        """\
apiVersion: grove.io/v1alpha1
kind: PodCliqueSet
metadata: {name: chat}
spec:
  replicas: 1
  template:
    cliqueStartupType: CliqueStartupTypeInOrder
    cliques:
      - name: slow
        annotations: {fake.grove.io/ready-delay: 1h}
        spec:
          roleName: slow
          replicas: 2
          podSpec: {containers: [{name: main, image: pause, resources: {requests: {memory: 80Mi}}}]}
      - name: next
        spec:
          roleName: next
          replicas: 1
          podSpec: {containers: [{name: main, image: pause, resources: {requests: {memory: 80Mi}}}]}
"""
    )
    seen = await scene.settles(pods=3, ready=0, pending=0)
    (waiting,) = [pod for pod in seen.active if clique_of(pod) == "chat-0-next"]
    assert (waiting.status.phase, waiting.status.reason) == ("Pending", "WaitingForParents")
    assert waiting.status.message == "waiting for chat-0-slow (0/2)"
