"""Shares of a GPU through the API: where pods get them, what they are told, and what a refusal says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from grove.v1 import pod_gang_pb2, pod_pb2
from grove_server.resources.cluster import Node
from grove_server.resources.workload import Pod
from tests.planes import worker
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
      - name: half
        annotations: {grove.io/gpu-fraction: "0.5"}
        spec: {roleName: half, replicas: HALVES, podSpec: {containers: [{name: main, image: i}]}}
      - name: whole
        spec:
          roleName: whole
          replicas: 1
          podSpec: {containers: [{name: main, image: i, resources: {limits: {nvidia.com/gpu: 1}}}]}
"""


def gpu_node(gpu_count: int) -> Node:
    """Return a node with GPUs."""
    node = worker(0, pods=9)
    return replace(node, allocatable={**node.allocatable, "nvidia.com/gpu": str(gpu_count)})


async def settled(rpc: Harness, *, bound: int) -> list[Pod]:
    """Wait until so many pods have nodes and nothing is left to do, and return them by name."""
    reader = rpc.store.read()

    def is_settled() -> bool:
        pods = list(reader.list(Pod))
        return len(pods) > 0 and sum(1 for pod in pods if pod.node) == bound and rpc.plane.is_idle

    await until(is_settled, f"{bound} pods have nodes")
    return sorted((pod for pod in reader.list(Pod) if pod.node), key=lambda pod: pod.metadata.name)


async def test_pods_share_a_gpu_and_are_told_which(tmp_path: Path) -> None:
    """Two halves share one GPU, a whole one goes to the other pod; annotations and explanation name them."""
    async with serving(tmp_path) as rpc:
        await rpc.put(gpu_node(2))
        rpc.plane.start()
        await rpc.apply_text(MANIFEST.replace("HALVES", "2"))
        pods = await settled(rpc, bound=3)
        by_clique = {name: [pod.gpu_ids for pod in pods if name in pod.metadata.name] for name in ("half", "whole")}
        ((first,), (second,)), ((other,),) = by_clique["half"], by_clique["whole"]
        assert first == second != other
        shown = await rpc.pods.Get(pod_pb2.PodServiceGetRequest(name=pods[0].metadata.name))
        assert shown.metadata.annotations["grove.io/gpu-ids"] == str(first)
        assert shown.metadata.annotations["grove.io/gpu-fraction"] == "0.5"
        answer = await rpc.gangs.Explain(pod_gang_pb2.PodGangServiceExplainRequest(name="demo-0"))
        nodes = {each.clique: list(each.gpu_ids) for each in answer.explanation.assignments}
        assert nodes == {"demo-0-half": [first], "demo-0-whole": [other]}
        await rpc.plane.stop()


async def test_a_gang_that_lacks_a_share_waits_and_says_so(tmp_path: Path) -> None:
    """Three halves and a whole GPU do not fit two GPUs; the reason counts in GPUs."""
    async with serving(tmp_path) as rpc:
        await rpc.put(gpu_node(2))
        rpc.plane.start()
        await rpc.apply_text(MANIFEST.replace("HALVES", "3"))
        assert await settled(rpc, bound=0) == []
        answer = await rpc.gangs.Explain(pod_gang_pb2.PodGangServiceExplainRequest(name="demo-0"))
        assert "0.5 nvidia.com/gpu more free" in str(answer)
        half = next(each for each in answer.explanation.needs.cliques if each.name == "demo-0-half")
        assert dict(half.requests) == {"nvidia.com/gpu": "500m"}
        assert [dict(row.missing) for row in answer.explanation.levels] == [{"nvidia.com/gpu": "500m"}]
        await rpc.plane.stop()


async def test_a_share_beside_whole_gpus_is_refused_with_its_path(tmp_path: Path) -> None:
    """The refusal of a manifest names the annotation."""
    async with serving(tmp_path) as rpc:
        text = MANIFEST.replace("HALVES", "1").replace(
            "      - name: whole\n", '      - name: whole\n        annotations: {grove.io/gpu-fraction: "0.5"}\n'
        )
        refusal = await refused(rpc.apply_text(text))
        assert any("spec.template.cliques[1].annotations[grove.io/gpu-fraction]" in field for field in refusal.fields)
