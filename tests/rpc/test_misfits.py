"""Pods that no node could ever hold: said when the manifest arrives, and by explain; the set is stored all the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from grove.v1 import pod_gang_pb2
from grove_server.resources.workload import Pod
from tests.planes import worker
from tests.rpc.harness import serving
from tests.waiting import until

MANIFEST = """\
apiVersion: grove.io/v1alpha1
kind: PodCliqueSet
metadata: {name: demo}
spec:
  replicas: 1
  template:
    cliques:
      - name: main
        spec:
          roleName: main
          replicas: 1
          podSpec: {SELECTOR containers: [{name: main, image: i, resources: {limits: AMOUNTS}}]}
"""


@pytest.mark.parametrize(
    ("amounts", "selector", "words", "reason"),
    [
        ("{nvidia.com/gpu: 16}", "", "no node has 16 nvidia.com/gpu (at most 8 nvidia.com/gpu)", "PodTooLarge"),
        ("{example.com/fpga: 1}", "", "no node has 1 example.com/fpga (at most 0 example.com/fpga)", "PodTooLarge"),
        ('{nvidia.com/gpu: 8, cpu: "64"}', "", "no node has all of 64 cpu, 8 nvidia.com/gpu", "PodTooLarge"),
        (
            "{nvidia.com/gpu: 8}",
            "nodeSelector: {gpu: none-such},",
            "no node that is large enough has the labels",
            "NoNodeMatches",
        ),
        ("{nvidia.com/gpu: 8}", "", "", "PodTooLarge"),
    ],
)
async def test_a_pod_that_no_node_could_hold_is_warned_of(
    tmp_path: Path, amounts: str, selector: str, words: str, reason: str
) -> None:
    """The warning names clique, amount and the largest node; nodes that are cordoned or down count as well."""
    gpus = worker(0, pods=9, unschedulable=True)
    many = replace(gpus, allocatable={"pods": "9", "cpu": "16", "nvidia.com/gpu": "8"})
    async with serving(tmp_path) as rpc:
        await rpc.put(many, worker(1, pods=9))
        rpc.plane.start()
        answer = await rpc.apply_text(MANIFEST.replace("AMOUNTS", amounts).replace("SELECTOR", selector))
        warnings = [warning for result in answer.results for warning in result.warnings if "nowhere" in warning]
        assert len(warnings) == bool(words)
        assert all(warning.startswith("clique main: ") and words in warning for warning in warnings)
        await until(lambda: rpc.store.read().count(Pod.kind) == 1 and rpc.plane.is_idle, "all is decided")
        explained = await rpc.gangs.Explain(pod_gang_pb2.PodGangServiceExplainRequest(name="demo-0"))
        assert explained.explanation.reason == reason
        await rpc.plane.stop()


async def test_pods_that_the_whole_cluster_could_not_hold_are_warned_of(tmp_path: Path) -> None:
    """A minimum larger than the empty cluster is told at once, and what waits says that it needs nodes."""
    node = replace(worker(0, pods=9), allocatable={"pods": "9", "cpu": "16", "nvidia.com/gpu": "8"})
    async with serving(tmp_path) as rpc:
        await rpc.put(node)
        rpc.plane.start()
        text = MANIFEST.replace(
            "replicas: 1\n          podSpec", "replicas: 2\n          minAvailable: 2\n          podSpec"
        )
        answer = await rpc.apply_text(text.replace("AMOUNTS", "{nvidia.com/gpu: 8}").replace("SELECTOR", ""))
        (warning,) = [each for result in answer.results for each in result.warnings if "never" in each]
        assert warning.startswith("clique main: as the cluster is, its 2 pods can never run together: ")
        assert warning.endswith("the whole cluster, were it empty, would hold 1 of them")
        await until(lambda: rpc.store.read().count(Pod.kind) == 2 and rpc.plane.is_idle, "all is decided")
        explained = (await rpc.gangs.Explain(pod_gang_pb2.PodGangServiceExplainRequest(name="demo-0"))).explanation
        assert explained.reason == "ClusterTooSmall"
        assert "at least 1 more node of 8 nvidia.com/gpu" in explained.would_fit_if
        await rpc.plane.stop()


QUEUES = """\
---
apiVersion: grove.io/v1alpha1
kind: Queue
metadata: {name: org}
spec: {limit: {nvidia.com/gpu: 12}}
---
apiVersion: grove.io/v1alpha1
kind: Queue
metadata: {name: team}
spec: {parent: org, OWN}
"""


@pytest.mark.parametrize(
    ("minimum", "own", "words"),
    [
        (1, "weight: 1", ""),
        (2, "weight: 1", "queue org would use 16 of nvidia.com/gpu, its limit is 12"),
        (1, "limit: {nvidia.com/gpu: 4}", "queue team would use 8 of nvidia.com/gpu, its limit is 4"),
        (1, "weight: 0, guarantee: {nvidia.com/gpu: 4}", "queue team would use 8 of nvidia.com/gpu, its limit is 4"),
    ],
)
async def test_a_gang_that_alone_exceeds_a_limit_is_warned_of(
    tmp_path: Path, minimum: int, own: str, words: str
) -> None:
    """The limits of its queue and of all above it count, also of queues in the same text; it is stored all the same."""
    text = MANIFEST.replace("AMOUNTS", "{nvidia.com/gpu: 8}").replace("SELECTOR", "")
    text = text.replace("metadata: {name: demo}", "metadata: {name: demo, labels: {grove.io/queue: team}}")
    text = text.replace(
        "replicas: 1\n          podSpec", f"replicas: 2\n          minAvailable: {minimum}\n          podSpec"
    )
    async with serving(tmp_path) as rpc:
        rpc.plane.start()
        answer = await rpc.apply_text(text + QUEUES.replace("OWN", own))
        warnings = [each for result in answer.results for each in result.warnings if "alone" in each]
        alone = ", and the gang alone is more than that: it can never run"
        assert warnings == ([f"{words}{alone}"] if words else [])
        await rpc.plane.stop()
