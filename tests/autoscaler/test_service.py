"""The autoscaler's process beside a real server: it follows load, and survives what happens."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from grove.v1.scaling_policy_pb2 import ScalingPolicy
from grove_client import GroveClient, NotFoundError, connect
from tests.autoscaler_process import AutoscalerProcess, ScriptedPrometheus
from tests.server import ServerProcess
from tests.waiting import until_seen

CLUSTER: Final = """
apiVersion: grove.io/v1alpha1
kind: NodePool
metadata: {name: pool}
spec:
  count: 4
  allocatable: {cpu: "64", memory: 256Gi, pods: "200", nvidia.com/gpu: "8"}
"""
MANIFEST: Final = """
apiVersion: grove.io/v1alpha1
kind: PodCliqueSet
metadata: {name: chat}
spec:
  replicas: 1
  template:
    cliques:
    - name: prefill
      spec:
        roleName: prefill
        replicas: 2
        minAvailable: 1
        podSpec: &pod
          containers:
          - {name: main, image: "image:1", resources: {limits: {nvidia.com/gpu: "2"}, requests: {cpu: "1"}}}
    - name: decode
      spec: {roleName: decode, replicas: 2, minAvailable: 1, podSpec: *pod}
"""
POLICY: Final = """
apiVersion: grove.io/v1alpha1
kind: ScalingPolicy
metadata: {name: chat}
spec:
  podCliqueSet: chat
  mode: MODE
  engine: custom
  budget: {gpus: GPUS}
  roles:
  - name: prefill
    role: prefill
    podClique: prefill
    maxReplicas: 12
    policies: [{kind: target, signal: prefill_load, target: 10}]
  - name: decode
    role: decode
    podClique: decode
    maxReplicas: 12
    policies: [{kind: target, signal: decode_load, target: 10}]
  signals:
    prefill_load: {query: 'prefill_load{namespace="default"}', unit: count, per: set, role: prefill}
    decode_load: {query: 'decode_load{namespace="default"}', unit: count, per: set, role: decode}
"""
QUICK_DOWN: Final = "    behavior: {scaleDown: {stabilizationWindowSeconds: 0}}\n"


def policy(mode: str = "apply", gpus: int = 60, *, quick_down: bool = False) -> str:
    """Return the policy's manifest."""
    text = POLICY.replace("MODE", mode).replace("GPUS", str(gpus))
    return text.replace("    maxReplicas: 12\n", f"    maxReplicas: 12\n{QUICK_DOWN}") if quick_down else text


@dataclass(kw_only=True)
class Plant:
    """A server with a set, a Prometheus, and room for autoscalers."""

    server: ServerProcess
    prometheus: ScriptedPrometheus
    client: GroveClient
    folder: Path
    stack: AsyncExitStack

    def autoscaler(self, name: str = "one", *flags: str) -> AutoscalerProcess:
        """Start an autoscaler."""
        made = AutoscalerProcess(
            self.folder / name, self.server.address, self.prometheus.peer.url, flags=["--name", name, *flags]
        )
        return self.stack.enter_context(made)

    async def size(self, clique: str) -> int:
        """Return the size that a clique has, -1 while it is not there."""
        try:
            return (await self.client.pod_cliques.get(f"chat-0-{clique}")).spec.replicas
        except NotFoundError:
            return -1

    async def reaches(self, clique: str, size: int) -> None:
        """Wait for a size."""
        await until_seen(
            lambda: self.size(clique), lambda seen: seen == size, lambda seen: f"{clique} is {seen}, not {size}"
        )

    async def policy_where(self, what: str, **wanted: str) -> ScalingPolicy:
        """Wait until a condition of the policy's status is as wanted."""
        return await until_seen(
            lambda: self.client.scaling_policies.get("chat"),
            lambda seen: any(
                each.type == kind and each.status == status
                for kind, status in wanted.items()
                for each in seen.status.conditions
            ),
            lambda seen: f"{what}: {seen.status}",
        )


@pytest.fixture
async def plant(tmp_path: Path) -> AsyncIterator[Plant]:
    """A server with the set, whose pods are ready at once."""
    (tmp_path / "cluster.yaml").write_text(CLUSTER, encoding="utf-8")
    async with AsyncExitStack() as stack:
        server = stack.enter_context(ServerProcess(tmp_path / "server", cluster=tmp_path / "cluster.yaml"))
        prometheus = await stack.enter_async_context(ScriptedPrometheus())
        client = await stack.enter_async_context(connect(server.address))
        prometheus.values = {"prefill_load": 20.0, "decode_load": 20.0}
        await client.apply_manifest(MANIFEST)
        made = Plant(server=server, prometheus=prometheus, client=client, folder=tmp_path, stack=stack)
        await made.reaches("decode", 2)
        yield made


async def test_sizes_follow_the_load(plant: Plant) -> None:
    """A role whose load doubles grows; the status says so; what the autoscaler owns is its own."""
    await plant.client.apply_manifest(policy())
    plant.autoscaler()
    await plant.policy_where("it decides", Active="True")
    plant.prometheus.values["decode_load"] = 58.0
    await plant.reaches("decode", 6)
    assert await plant.size("prefill") == 2
    assert (await plant.client.pod_cliques.get("chat-0-decode")).status.scale_owner == "autoscaler"
