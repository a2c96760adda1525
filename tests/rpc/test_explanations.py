"""Explaining a placed gang: its minimum, what came later, and the surplus that waits, in the words of its status."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from grove.v1 import node_pb2, pod_clique_pb2, pod_gang_pb2
from grove.v1.explanation_pb2 import PlacementExplanation
from grove_server.resources.cluster import Node
from grove_server.resources.workload import Pod
from tests.planes import binding, worker
from tests.rpc.harness import Harness, serving
from tests.waiting import until

MANIFEST = """\
apiVersion: grove.io/v1alpha1
kind: PodCliqueSet
metadata: {name: demo}
spec:
  replicas: 1
  template:
    topologyConstraint: {topologyName: grove-topology, pack: {preferred: rack}}
    cliques:
      - name: a
        spec: {roleName: a, replicas: 2, minAvailable: 1, podSpec: {containers: [{name: main, image: i}]}}
      - name: b
        spec: {roleName: b, replicas: 1, minAvailable: 1, podSpec: {containers: [{name: main, image: i}]}}
"""


@pytest.fixture
async def turning(tmp_path: Path) -> AsyncIterator[Harness]:
    """Give a server whose loops turn, with the first of three racks usable: room for four pods."""
    async with serving(tmp_path) as rpc:
        await rpc.put(binding(), *(worker(i, pods=2, unschedulable=i > 1) for i in range(6)))
        rpc.plane.start()
        await rpc.apply_text(MANIFEST)
        await settled(rpc, pods=3, bound=3)
        yield rpc
        await rpc.plane.stop()


async def settled(rpc: Harness, *, pods: int, bound: int) -> None:
    """Wait until so many pods exist, so many of them have nodes, and nothing is left to do."""
    reader = rpc.store.read()

    def is_settled() -> bool:
        active = [pod for pod in reader.list(Pod) if pod.is_active]
        return len(active) == pods and sum(1 for pod in active if pod.node) == bound and rpc.plane.is_idle

    await until(is_settled, f"{bound} of {pods} pods have nodes")


async def scale(rpc: Harness, clique: str, replicas: int) -> None:
    """Scale a clique of the set."""
    await rpc.cliques.Scale(pod_clique_pb2.PodCliqueServiceScaleRequest(name=f"demo-0-{clique}", replicas=replicas))


async def explained(rpc: Harness) -> PlacementExplanation:
    """Return the explanation of the gang, which says of its places what the gang's status says."""
    answer = await rpc.gangs.Explain(pod_gang_pb2.PodGangServiceExplainRequest(name="demo-0"))
    gang = await rpc.gangs.Get(pod_gang_pb2.PodGangServiceGetRequest(name="demo-0"))
    told: PlacementExplanation = answer.explanation
    assert list(told.topology) == list(gang.status.topology)
    assert told.placement_score == gang.status.placement_score
    return told


async def test_surplus_that_waits_is_told_beside_the_places(turning: Harness) -> None:
    """The gang is placed, with the reason for its places; below it says how many surplus pods wait and why."""
    before = await explained(turning)
    assert (before.state, before.reason, len(before.surplus)) == ("Placed", "", 0)
    await scale(turning, "a", 6)
    await settled(turning, pods=7, bound=4)
    told = await explained(turning)
    assert (told.state, told.reason, told.surplus_pod_count_waiting) == ("Placed", "", 3)
    assert told.sentence.startswith("gang demo-0 is placed; 3 surplus pods wait: clique demo-0-a needs 1 pod")
    assert list(told.why_here) == list(before.why_here)
    assert told.needs == before.needs
    [surplus] = told.surplus
    assert (surplus.state, surplus.reason) == ("Pending", "InsufficientCapacity")
    assert [(each.name, each.pod_count_min, each.pod_count) for each in surplus.needs.cliques] == [("demo-0-a", 0, 3)]
    assert "would fit with" in surplus.sentence


async def test_places_that_no_longer_hold_are_told_as_past(turning: Harness) -> None:
    """When surplus landed elsewhere the reason for the first places says so, and the domain is the broader one."""
    reader = turning.store.read()
    nodes = [node for node in reader.sorted_list(Node) if node.metadata.name == "n2"]
    await turning.put(*(worker(2, pods=2, resource_version=node.resource_version) for node in nodes))
    await scale(turning, "a", 5)
    await settled(turning, pods=6, bound=6)
    told = await explained(turning)
    assert [(each.level, each.domain) for each in told.topology] == [("block", "b0")]
    assert told.placement_score == pytest.approx(0.75)
    assert told.why_here[0].startswith("gang demo-0 was put in rack r0: ")
    assert told.why_here[0].endswith("pods that came later are elsewhere too")


async def test_a_part_that_comes_back_is_added_to_the_whole(turning: Harness) -> None:
    """After a clique went to size 0 and back, the reason for the others and their needs are still told."""
    before = await explained(turning)
    await scale(turning, "b", 0)
    await settled(turning, pods=2, bound=2)
    await scale(turning, "b", 1)
    await settled(turning, pods=3, bound=3)
    told = await explained(turning)
    assert told.needs == before.needs
    assert list(told.why_here)[: len(before.why_here)] == list(before.why_here)
    assert any("demo-0-b" in each for each in list(told.why_here)[len(before.why_here) :])
    assert told.sentence == before.sentence


async def test_why_a_gang_waits_is_told_as_it_is_now(turning: Harness) -> None:
    """After a change that is no help to it, and for which it is not asked again, its explanation has the new counts."""
    await turning.apply_text(
        MANIFEST.replace("name: demo", "name: big").replace(
            "replicas: 1, minAvailable: 1", "replicas: 99, minAvailable: 99"
        )
    )
    await until(lambda: turning.store.read().count(Pod.kind) > 50 and turning.plane.is_idle, "it waits")

    async def told() -> PlacementExplanation:
        answer = await turning.gangs.Explain(pod_gang_pb2.PodGangServiceExplainRequest(name="big-0"))
        found: PlacementExplanation = answer.explanation
        return found

    assert {each.reason: each.node_count for each in (await told()).cluster.excluded}["Cordoned"] == 4
    await turning.nodes.Uncordon(node_pb2.NodeServiceUncordonRequest(names=["n3", "n4"]))
    await until(lambda: turning.plane.is_idle, "nothing is left to do")
    now = await told()
    assert {each.reason: each.node_count for each in now.cluster.excluded}["Cordoned"] == 2
    assert now.proof
