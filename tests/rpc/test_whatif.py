"""What-ifs over gRPC: the cluster changed in thought, pictures, and plans of moves; nothing of it happens."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from grove.v1 import placement_pb2 as pb
from grove.v1 import pod_gang_pb2
from grove_server.resources.cluster import Node
from grove_server.resources.meta import Kind, Metadata
from grove_server.resources.workload import Pod
from tests.planes import binding, worker
from tests.rpc.harness import Harness, refused, serving
from tests.waiting import until

GPU = "nvidia.com/gpu"


def manifest(name: str, pods: int, gpu_count: int, *, level: str = "", priority: str = "") -> str:
    """Return a set of one clique; *level* is required."""
    constraint = f"topologyConstraint: {{topologyName: grove-topology, pack: {{required: {level}}}}}" if level else ""
    return f"""\
apiVersion: grove.io/v1alpha1
kind: PodCliqueSet
metadata: {{name: {name}}}
spec:
  replicas: 1
  template:
    {constraint}
    {f"priorityClassName: {priority}" if priority else ""}
    cliques:
      - name: c
        spec:
          roleName: c
          replicas: {pods}
          podSpec:
            containers:
            - {{name: main, image: i, resources: {{limits: {{{GPU}: {gpu_count}}}}}}}
"""


CLASS = "apiVersion: scheduling.k8s.io/v1\nkind: PriorityClass\nmetadata: {name: high}\nvalue: 1000\n---\n"


def gpu_node(index: int) -> Node:
    """Return node *index* of 4 GPUs, two in each rack."""
    node = worker(index, pods=110)
    metadata = node.metadata
    labels = {**metadata.labels, "kubernetes.io/hostname": metadata.name}
    allocatable = {**node.allocatable, GPU: "4"}
    return Node(metadata=Metadata(name=metadata.name, labels=labels), allocatable=allocatable, capacity=allocatable)


@pytest.fixture
async def turning(tmp_path: Path) -> AsyncIterator[Harness]:
    """Give a server whose loops turn, with four nodes of 4 GPUs, on which three sets of 2 GPUs run."""
    async with serving(tmp_path) as rpc:
        await rpc.put(binding(), *(gpu_node(index) for index in range(4)))
        rpc.plane.start()
        for name, node in (("a", 0), ("b", 2), ("d", 3)):
            await only(rpc, node)
            await rpc.apply_text(manifest(name, 1, 2))
            await settled(rpc)
        await only(rpc)
        yield rpc
        await rpc.plane.stop()


async def only(rpc: Harness, index: int | None = None) -> None:
    """Let new pods onto one node alone, or onto all."""
    for node in list(rpc.store.read().sorted_list(Node)):
        wanted = index is not None and node.metadata.name != f"n{index}"
        if node.unschedulable != wanted:
            await rpc.put(
                Node(
                    metadata=node.metadata,
                    resource_version=node.resource_version,
                    allocatable=node.allocatable,
                    capacity=node.capacity,
                    unschedulable=wanted,
                )
            )


async def settled(rpc: Harness) -> None:
    """Wait until nothing is left to do and pods are there."""
    await until(lambda: rpc.plane.is_idle and bool(list(rpc.store.read().list(Pod))), "nothing is left to do")


def mark(rpc: Harness) -> tuple[int, list[str]]:
    """Return what changes when anything happens: the cluster's generation, and the version of every resource.

    Events and the status of sets follow what happened earlier with a delay, so of those the others tell enough.
    """
    reader = rpc.store.read()
    versions = [
        f"{kind}/{each.metadata.namespace}/{each.metadata.name}@{each.resource_version}"
        for kind in Kind
        if kind not in {Kind.EVENT, Kind.POD_CLIQUE_SET}
        for each in reader.sorted_list(kind)
    ]
    return rpc.plane.placement.cluster.generation, versions


async def simulated(rpc: Harness, text: str = "", **more: object) -> pb.PlacementServiceSimulateResponse:
    """Ask, and check that nothing happened."""
    before = mark(rpc)
    answer: pb.PlacementServiceSimulateResponse = await rpc.placement.Simulate(
        pb.PlacementServiceSimulateRequest(manifest=text, **more)  # type: ignore[arg-type]  # passed on as given
    )
    assert mark(rpc) == before
    return answer


async def test_a_drained_node_displaces_what_runs_there(turning: Harness) -> None:
    """The gang of the node asks for a new place first, and gets one in its rack, as after a drain."""
    answer = await simulated(turning, manifest("new", 1, 2), drained_nodes=["n0"])
    assert answer.pod_count_displaced == 1
    assert [(gang.name, gang.displaced, gang.fits) for gang in answer.gangs] == [
        ("a-0", True, True),
        ("new-0", False, True),
    ]
    assert answer.gangs[0].explanation.assignments[0].node == "n1"
    assert not (await simulated(turning, manifest("new", 1, 4), drained_nodes=["n0"])).gangs[1].fits


async def test_without_room_elsewhere_a_drain_says_what_is_missing(turning: Harness) -> None:
    """Draining three of four nodes leaves too little."""
    answer = await simulated(turning, drained_nodes=["n0", "n1", "n2"])
    assert not answer.fits or answer.pod_count_displaced == 2
    assert {gang.name: gang.fits for gang in answer.gangs} == {"a-0": True, "b-0": False}


async def test_nodes_added_take_what_did_not_fit(turning: Harness) -> None:
    """Two pods of 4 GPUs do not fit one free node; with a pool of one more they do."""
    text = manifest("new", 2, 4)
    assert not (await simulated(turning, text)).fits
    pool = (
        "apiVersion: grove.io/v1alpha1\nkind: NodePool\nmetadata: {name: more}\n"
        f'spec: {{count: 1, allocatable: {{cpu: "8", memory: 16Gi, {GPU}: "4"}}}}\n'
    )
    answer = await simulated(turning, text, added_nodes=pool)
    assert answer.fits
    assert {each.node for each in answer.gangs[0].explanation.assignments} == {"n1", "more-0"}
    # The new node may be drained, too, in the same question.
    assert not (await simulated(turning, text, added_nodes=pool, drained_nodes=["more-0"])).fits


@pytest.mark.parametrize("gone", ["pcs/a", "pg/a-0"])
async def test_what_is_gone_leaves_room(turning: Harness, gone: str) -> None:
    """Without the set, or its gang, the node it is on is whole again."""
    assert (await simulated(turning, manifest("new", 2, 4), without=[gone])).fits


async def test_whom_a_gang_would_displace_is_told(turning: Harness) -> None:
    """A gang of a class names the gangs that would have to leave, and they stay."""
    answer = await simulated(turning, CLASS + manifest("new", 4, 4, priority="high"))
    [gang] = answer.gangs
    assert not gang.fits
    assert [(each.name, each.kind, each.priority) for each in gang.evictions] == [(f"{n}-0", "Gang", 0) for n in "abd"]
    assert [each.pods[0].startswith(f"{each.name}-c-") for each in gang.evictions] == [True] * 3


async def test_the_largest_gang_is_told_for_the_pods_of_the_question(turning: Harness) -> None:
    """Pods of 2 GPUs: five in the cluster, three in a rack, two on a node."""
    answer = await simulated(turning, manifest("new", 1, 2, level="rack"))
    found = [(each.key.rpartition("/")[2], each.domain, each.pod_count) for each in answer.largest_gangs]
    assert found == [("", "", 5), ("zone", "z0", 5), ("block", "b0", 5), ("rack", "r0", 3), ("", "n1", 2)]
    assert answer.figures.gpu_count_allocated == 8


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"drained_nodes": ["nowhere"]}, grpc.StatusCode.NOT_FOUND),
        ({"without": ["pcs/nobody"]}, grpc.StatusCode.NOT_FOUND),
        ({"without": ["deployment/x"]}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"added_nodes": "kind: Nonsense"}, grpc.StatusCode.INVALID_ARGUMENT),
        ({}, grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
async def test_a_question_about_nothing_is_refused(
    turning: Harness, fields: dict[str, object], code: grpc.StatusCode
) -> None:
    """Unknown nodes and sets, other kinds, nodes that are none, and no question at all."""
    request = pb.PlacementServiceSimulateRequest(**fields)  # type: ignore[arg-type]  # passed on as given
    assert (await refused(turning.placement.Simulate(request))).code is code


async def test_a_node_that_exists_cannot_be_added(turning: Harness) -> None:
    """The name is told."""
    text = f'apiVersion: v1\nkind: Node\nmetadata: {{name: n0}}\nstatus: {{allocatable: {{{GPU}: "4"}}}}\n'
    answer = await refused(turning.placement.Simulate(pb.PlacementServiceSimulateRequest(added_nodes=text)))
    assert "n0" in answer.message


async def test_the_map_shows_the_cluster_as_it_is(turning: Harness) -> None:
    """Text and SVG are of the same nodes; figures and largest gangs come with both; an unknown topology is refused."""
    before = mark(turning)
    text = await turning.placement.GetMap(pb.PlacementServiceGetMapRequest())
    assert "6 of 16 GPUs used; 4 nodes: 1 empty, 3 partly used" in text.picture
    assert text.topology_name == "grove-topology"
    assert text.figures.levels[-1].domain_count_partly_used == 3
    svg = await turning.placement.GetMap(pb.PlacementServiceGetMapRequest(format="svg"))
    titles = [each.text or "" for each in ET.fromstring(svg.picture).iter() if each.tag.endswith("title")]  # noqa: S314 -- our own text
    assert sum(title.endswith("of 4 GPUs") for title in titles) == 4
    for request, code in (
        (pb.PlacementServiceGetMapRequest(format="png"), grpc.StatusCode.INVALID_ARGUMENT),
        (pb.PlacementServiceGetMapRequest(topology_name="x"), grpc.StatusCode.NOT_FOUND),
    ):
        assert (await refused(turning.placement.GetMap(request))).code is code
    assert mark(turning) == before


async def test_a_waiting_gang_gets_a_plan_of_moves(turning: Harness) -> None:
    """Two pods of 4 GPUs find no second whole node until a small gang moves; the plan says which and where."""
    await turning.apply_text(manifest("wide", 2, 4))
    await until(lambda: turning.plane.planning.explain("default", "wide-0") is not None, "the gang was looked at")
    await settled(turning)
    before = mark(turning)
    plan = await turning.placement.PlanConsolidation(pb.PlacementServicePlanConsolidationRequest(pod_gang="wide-0"))
    assert (plan.helps, plan.pod_count_placed, plan.pod_count_moved, plan.gang_count_moved) == (True, 2, 1, 1)
    [move] = plan.moves
    assert move.from_node != move.to_node
    assert len(move.gpu_ids) == 2
    assert mark(turning) == before


async def test_clearing_frees_whole_nodes(turning: Harness) -> None:
    """Three gangs of half a node fit on two: one node comes free."""
    plan = await turning.placement.PlanConsolidation(pb.PlacementServicePlanConsolidationRequest())
    assert plan.helps
    assert len(plan.domains_freed) == 1
    [move] = plan.moves
    assert move.from_node == plan.domains_freed[0]
    assert move.to_node in {"n0", "n2", "n3"}
    none = await turning.placement.PlanConsolidation(
        pb.PlacementServicePlanConsolidationRequest(level="rack", pod_count_max=1)
    )
    assert len(none.moves) <= 1


async def test_moves_for_a_gang_that_runs_are_refused(turning: Harness) -> None:
    """A gang with places, one that does not exist, an unknown level, a negative bound."""
    ask = pb.PlacementServicePlanConsolidationRequest
    for request, reason in (
        (ask(pod_gang="a-0"), "GANG_NOT_WAITING"),
        (ask(pod_gang="nobody-0"), "NOT_FOUND"),
        (ask(level="galaxy"), "NOT_FOUND"),
        (ask(domain_count_max=-1), "INVALID_REQUEST"),
    ):
        assert (await refused(turning.placement.PlanConsolidation(request))).reason == reason


async def test_a_placed_gang_is_explained_by_what_lost(turning: Harness) -> None:
    """A gang in one rack names the other one, and why it is not there."""
    await turning.apply_text(manifest("near", 1, 4, level="rack"))
    await settled(turning)
    before = mark(turning)
    answer = await turning.gangs.Explain(pod_gang_pb2.PodGangServiceExplainRequest(name="near-0"))
    assert mark(turning) == before
    [other] = answer.explanation.alternatives
    assert (other.level, other.domain, other.fits) == ("rack", "r1", False)
    assert other.why == "does not fit: there are no places for the 1 pods that must run together"
