"""What the loops make of a set, as clients see and change it: cliques, groups, gangs, pods, nodes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from google.protobuf import json_format

from grove.v1 import (
    node_pb2,
    placement_pb2,
    pod_clique_pb2,
    pod_clique_scaling_group_pb2,
    pod_clique_set_pb2,
    pod_gang_pb2,
    pod_pb2,
)
from grove_server.resources.cluster import Node
from grove_server.resources.meta import Metadata
from grove_server.resources.workload import Pod, PodClique, PodGang
from tests.rpc.harness import Harness, refused, serving
from tests.waiting import until

MANIFEST = """\
apiVersion: grove.io/v1alpha1
kind: PodCliqueSet
metadata: {name: demo}
spec:
  replicas: 1
  template:
    cliques:
      - name: router
        spec:
          roleName: router
          replicas: 1
          podSpec:
            containers:
              - name: main
                image: i
                env: [{name: GROVE_PCS_NAME, value: mine}, {name: OWN, value: $(GROVE_PCLQ_NAME)}]
                resources: {requests: {cpu: CPU}}
      - name: leader
        spec: {roleName: leader, replicas: 1, podSpec: {containers: [{name: main, image: i}]}}
      - name: worker
        spec: {roleName: worker, replicas: 2, podSpec: {containers: [{name: main, image: i}]}}
    podCliqueScalingGroups:
      - {name: model, cliqueNames: [leader, worker], replicas: 1, minAvailable: 1}
"""


@pytest.fixture
async def turning(tmp_path: Path) -> AsyncIterator[Harness]:
    """Give a server whose loops turn, with two nodes and no runtime: pods are placed and never start."""
    async with serving(tmp_path) as rpc:
        await rpc.put(
            *(
                Node(
                    metadata=Metadata(name=f"node-{number}", uid=f"node-{number}", created_at=1.0),
                    allocatable={"cpu": "8", "memory": "64Gi", "pods": "110"},
                )
                for number in range(2)
            )
        )
        rpc.plane.start()
        yield rpc
        await rpc.plane.stop()


async def deployed(rpc: Harness, cpu: str = "1") -> None:
    """Apply the manifest and wait until the loops have nothing left to do."""
    await rpc.apply_text(MANIFEST.replace("CPU", f'"{cpu}"'))
    reader = rpc.store.read()
    await until(lambda: len(reader.list(Pod)) == 4 and rpc.plane.is_idle, "four pods and idle loops")
    if cpu == "1":
        await until(lambda: all(pod.node for pod in reader.list(Pod)), "all pods are placed")


async def test_a_pod_is_shown_whole(turning: Harness) -> None:
    """A pod has its template's spec, the GROVE_* variables in front, hostname, node and conditions."""
    await deployed(turning)
    listed = await turning.pods.List(pod_pb2.PodServiceListRequest(label_selector="grove.io/podclique=demo-0-router"))
    pod = json_format.MessageToDict(listed.items[0])
    assert pod["kind"] == "Pod"
    owner = pod["metadata"]["ownerReferences"][0]
    assert (owner["kind"], owner["name"], owner["controller"]) == ("PodClique", "demo-0-router", True)
    clique = turning.store.read().get(PodClique, "default", "demo-0-router")
    assert clique is not None
    assert owner["uid"] == clique.metadata.uid
    spec = pod["spec"]
    assert (spec["hostname"], spec["subdomain"], spec["schedulerName"]) == (
        "demo-0-router-0",
        "demo-0",
        "grove-scheduler",
    )
    assert spec["nodeName"] in {"node-0", "node-1"}
    variables = spec["containers"][0]["env"]
    assert [each["name"] for each in variables] == [
        "GROVE_PCS_NAME",
        "GROVE_PCS_INDEX",
        "GROVE_PCLQ_NAME",
        "GROVE_HEADLESS_SERVICE",
        "GROVE_PCLQ_POD_INDEX",
        "OWN",
    ]
    assert variables[0]["value"] == "demo"
    assert variables[3]["value"] == "demo-0.default.svc.cluster.local"
    assert variables[4]["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.labels['grove.io/podclique-pod-index']"
    conditions = {each["type"]: each for each in pod["status"]["conditions"]}
    assert conditions["PodScheduled"]["status"] == "True"
    assert conditions["PodScheduled"]["lastTransitionTime"].endswith("Z")
    assert conditions["Ready"]["status"] == "False"


async def test_members_of_a_group_know_their_place_in_it(turning: Harness) -> None:
    """Pods of a group replica are counted through its cliques: the leader is 0, the workers follow."""
    await deployed(turning)
    listed = await turning.pods.List(pod_pb2.PodServiceListRequest(label_selector="grove.io/podcliquescalinggroup"))
    places = {}
    for item in listed.items:
        pod = json_format.MessageToDict(item)
        variables = {each["name"]: each.get("value") for each in pod["spec"]["containers"][0]["env"]}
        assert variables["GROVE_PCSG_NAME"] == "demo-0-model"
        assert variables["GROVE_PCSG_TEMPLATE_NUM_PODS"] == "3"
        places[pod["spec"]["hostname"]] = variables["GROVE_PCSG_POD_INDEX"]
    assert places == {"demo-0-model-0-leader-0": "0", "demo-0-model-0-worker-0": "1", "demo-0-model-0-worker-1": "2"}


async def test_children_name_their_true_owners(turning: Harness) -> None:
    """Group and gang belong to the set, a member clique to its group."""
    await deployed(turning)
    group = await turning.groups.Get(
        pod_clique_scaling_group_pb2.PodCliqueScalingGroupServiceGetRequest(name="demo-0-model")
    )
    clique = await turning.cliques.Get(pod_clique_pb2.PodCliqueServiceGetRequest(name="demo-0-model-0-leader"))
    gang = await turning.gangs.Get(pod_gang_pb2.PodGangServiceGetRequest(name="demo-0"))
    assert clique.metadata.owner_references[0].uid == group.metadata.uid
    assert clique.metadata.owner_references[0].kind == "PodCliqueScalingGroup"
    assert group.metadata.owner_references[0].name == gang.metadata.owner_references[0].name == "demo"
    references = [reference.namespace for part in gang.spec.podgroups for reference in part.pod_references]
    assert references == ["default"] * 4
    assert json_format.MessageToDict(clique.spec.pod_spec)["containers"][0]["image"] == "i"


async def test_scaling_a_clique_and_a_group(turning: Harness) -> None:
    """Cliques and groups take a new size with its owner; sizes between 0 and the minimum are refused."""
    await deployed(turning)
    request = pod_clique_pb2.PodCliqueServiceScaleRequest(name="demo-0-model-0-worker", replicas=3)
    response = await turning.cliques.Scale(request)
    assert (response.previous, response.replicas, response.scale_owner) == (2, 3, "user")
    request.replicas = 1
    refusal = await refused(turning.cliques.Scale(request))
    assert refusal.fields == ["replicas"]
    grow = pod_clique_scaling_group_pb2.PodCliqueScalingGroupServiceScaleRequest(name="demo-0-model", replicas=2)
    assert (await turning.groups.Scale(grow)).resource.spec.replicas == 2
    await until(lambda: turning.store.read().get(PodGang, "default", "demo-0-model-0") is not None, "a scaled gang")
    grow.name = "none"
    assert (await refused(turning.groups.Scale(grow))).reason == "NOT_FOUND"


async def test_children_of_a_set_that_goes_cannot_be_scaled(tmp_path: Path) -> None:
    """Once a set is being deleted its children keep their size."""
    async with serving(tmp_path) as rpc:
        rpc.plane.start()
        await rpc.put(Node(metadata=Metadata(name="node-0"), allocatable={"cpu": "8", "pods": "110"}))
        await deployed(rpc, cpu="99")
        await rpc.plane.stop()
        await rpc.sets.Delete(pod_clique_set_pb2.PodCliqueSetServiceDeleteRequest(names=["demo"]))
        request = pod_clique_pb2.PodCliqueServiceScaleRequest(name="demo-0-router", replicas=2)
        refusal = await refused(rpc.cliques.Scale(request))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "BEING_DELETED")


async def test_a_waiting_gang_is_explained(turning: Harness) -> None:
    """Explain says what is needed, what is missing where, and agrees with the gang's status and its pods."""
    await deployed(turning, cpu="99")
    explained = await turning.gangs.Explain(pod_gang_pb2.PodGangServiceExplainRequest(name="demo-0"))
    told = explained.explanation
    assert told.state == "Pending"
    assert told.sentence
    assert told.needs.pod_count_min == 4
    assert {clique.name: clique.requests.get("cpu", "") for clique in told.needs.cliques} == {
        "demo-0-router": "99",
        "demo-0-model-0-leader": "",
        "demo-0-model-0-worker": "",
    }
    gang = await turning.gangs.Get(pod_gang_pb2.PodGangServiceGetRequest(name="demo-0"))
    assert gang.status.reason == told.reason
    pod = (await turning.pods.List(pod_pb2.PodServiceListRequest())).items[0]
    scheduled = pod.status.conditions[0]
    assert (scheduled.type, scheduled.status) == ("PodScheduled", "False")
    assert scheduled.reason in {"Unschedulable", "SchedulingGated"}
    assert scheduled.message


async def test_a_placed_gang_is_explained_by_where_it_is(turning: Harness) -> None:
    """Explain shows the nodes of a placed gang's pods as they are."""
    await deployed(turning)
    explained = await turning.gangs.Explain(pod_gang_pb2.PodGangServiceExplainRequest(name="demo-0"))
    assert explained.explanation.state == "Placed"
    shown = {(a.clique, a.node): a.pod_count for a in explained.explanation.assignments}
    real: dict[tuple[str, str], int] = {}
    for pod in turning.store.read().list(Pod):
        key = (pod.identity.name, pod.node)
        real[key] = real.get(key, 0) + 1
    assert shown == real
    refusal = await refused(turning.gangs.Explain(pod_gang_pb2.PodGangServiceExplainRequest(name="none")))
    assert refusal.reason == "NOT_FOUND"


async def test_simulation_changes_nothing(turning: Harness) -> None:
    """Simulate says whether a set would fit, and leaves no trace; a wrong manifest is refused as in Apply."""
    before = turning.store.read().version
    fits = await turning.placement.Simulate(
        placement_pb2.PlacementServiceSimulateRequest(manifest=MANIFEST.replace("CPU", "1"))
    )
    assert fits.fits
    assert [(gang.name, gang.role, gang.fits) for gang in fits.gangs] == [("demo-0", "base", True)]
    not_ = await turning.placement.Simulate(
        placement_pb2.PlacementServiceSimulateRequest(manifest=MANIFEST.replace("CPU", "99"))
    )
    assert not not_.fits
    assert not_.gangs[0].explanation.sentence
    assert turning.store.read().version == before
    wrong = placement_pb2.PlacementServiceSimulateRequest(manifest="kind: Pod\napiVersion: v1\n")
    assert (await refused(turning.placement.Simulate(wrong))).fields == ["document[1].kind"]


async def test_too_many_gangs_in_one_question(turning: Harness) -> None:
    """A question beyond the limit is refused with both numbers."""
    text = MANIFEST.replace("replicas: 1\n  template", "replicas: 3000\n  template").replace("CPU", "1")
    refusal = await refused(turning.placement.Simulate(placement_pb2.PlacementServiceSimulateRequest(manifest=text)))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_GANGS")
    assert refusal.metadata["gang_count"] == "3000"


async def test_cordon_is_one_change_or_none(turning: Harness) -> None:
    """Several nodes are cordoned together; an unknown one stops all; what is so already is left out."""
    refusal = await refused(turning.nodes.Cordon(node_pb2.NodeServiceCordonRequest(names=["node-0", "none"])))
    assert refusal.reason == "NOT_FOUND"
    assert "none" in refusal.message
    node = await turning.nodes.Get(node_pb2.NodeServiceGetRequest(name="node-0"))
    assert not node.spec.unschedulable
    response = await turning.nodes.Cordon(node_pb2.NodeServiceCordonRequest(names=["node-0", "node-1"]))
    assert list(response.changed) == ["node-0", "node-1"]
    again = await turning.nodes.Cordon(node_pb2.NodeServiceCordonRequest(names=["node-0"]))
    assert list(again.changed) == []
    back = await turning.nodes.Uncordon(node_pb2.NodeServiceUncordonRequest(names=["node-1"]))
    assert list(back.changed) == ["node-1"]


async def test_drain_is_asked_for_once_and_ended_by_uncordon(turning: Harness) -> None:
    """Drain cordons and marks; called again it says how many pods are left; uncordon takes both back."""
    refusal = await refused(turning.nodes.Drain(node_pb2.NodeServiceDrainRequest(names=["node-0", "none"])))
    assert refusal.reason == "NOT_FOUND"
    first = await turning.nodes.Drain(node_pb2.NodeServiceDrainRequest(names=["node-0", "node-1"]))
    assert (list(first.changed), first.pods_left) == (["node-0", "node-1"], 0)
    again = await turning.nodes.Drain(node_pb2.NodeServiceDrainRequest(names=["node-0"]))
    assert list(again.changed) == []
    node = await turning.nodes.Get(node_pb2.NodeServiceGetRequest(name="node-0"))
    assert node.spec.unschedulable
    assert node.spec.draining_since
    assert [condition.type for condition in node.status.conditions] == ["Ready", "Draining"]
    await turning.nodes.Uncordon(node_pb2.NodeServiceUncordonRequest(names=["node-0"]))
    node = await turning.nodes.Get(node_pb2.NodeServiceGetRequest(name="node-0"))
    assert not node.spec.draining_since


async def test_a_deleted_pod_is_marked(turning: Harness) -> None:
    """Deleting a pod that has a node marks it; whoever runs it removes it."""
    await deployed(turning)
    await turning.plane.stop()
    pod = turning.store.read().list(Pod)[0]
    await turning.pods.Delete(pod_pb2.PodServiceDeleteRequest(names=[pod.metadata.name]))
    shown = await turning.pods.Get(pod_pb2.PodServiceGetRequest(name=pod.metadata.name))
    assert shown.metadata.deletion_timestamp
