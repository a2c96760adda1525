"""The autoscaler's process beside a real server: it follows load, and survives what happens."""

from __future__ import annotations

import asyncio
import socket
import urllib.request
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import grpc
import pytest
from google.protobuf.message import Message

from autoscaler.service.keda import CLASSES, SERVICE
from grove.v1.scaling_policy_pb2 import ScalingPolicy
from grove_client import GroveClient, GroveError, NotFoundError, connect
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

    async def desires(self, role: str, size: int, autoscaler: str = "one") -> None:
        """Wait until an autoscaler says in the status that a role should have a size."""
        await until_seen(
            lambda: self.client.scaling_policies.get("chat"),
            lambda seen: (
                seen.status.autoscaler == autoscaler
                and any(each.role == role and each.desired == size for each in seen.status.roles)
            ),
            lambda seen: f"{autoscaler} wants {size} {role}: {seen.status}",
        )

    async def explained(self) -> str:
        """Return what the autoscaler itself explains, as one text; nothing while it cannot be asked."""
        try:
            answer = await self.client.scaling_policies.explain("chat")
        except GroveError:
            return ""
        return str(answer) if answer.live else ""

    async def leader(self) -> str:
        """Return the name of the autoscaler that leads."""
        return "".join(each.name for each in await self.client.autoscalers.list() if each.leads)

    def restart_server(self) -> None:
        """Kill the server and start it again at the same address."""
        self.server.kill()
        self.server.start()

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


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
async def plant(tmp_path: Path) -> AsyncIterator[Plant]:
    """A server with the set, whose pods are ready at once."""
    (tmp_path / "cluster.yaml").write_text(CLUSTER, encoding="utf-8")
    async with AsyncExitStack() as stack:
        server = stack.enter_context(
            ServerProcess(tmp_path / "server", cluster=tmp_path / "cluster.yaml", listen=f"127.0.0.1:{free_port()}")
        )
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


async def test_a_policy_that_recommends_changes_nothing(plant: Plant) -> None:
    """In mode recommend, and under --mode-cap recommend, the size that is wanted is shown and not asked for."""
    await plant.client.apply_manifest(policy("recommend"))
    first = plant.autoscaler()
    plant.prometheus.values["decode_load"] = 58.0
    await plant.desires("decode", 6)
    first.stop()
    await plant.client.apply_manifest(policy("apply"))
    plant.autoscaler("two", "--mode-cap", "recommend")
    await plant.desires("decode", 6, autoscaler="two")
    assert await plant.size("decode") == 2


async def test_what_is_not_known_shrinks_nothing(plant: Plant) -> None:
    """While Prometheus answers errors, or says nothing, or the load is NaN, sizes stay; status and log say why."""
    await plant.client.apply_manifest(policy(quick_down=True))
    running = plant.autoscaler()
    plant.prometheus.values["decode_load"] = 58.0
    await plant.reaches("decode", 6)
    for unknown in (None, float("nan")):
        plant.prometheus.values["decode_load"] = unknown
        await plant.policy_where("it is not known", SignalsKnown="False")
        assert await plant.size("decode") == 6
        plant.prometheus.values["decode_load"] = 58.0
        await plant.policy_where("it is known again", SignalsKnown="True")
    assert await plant.size("decode") == 6
    assert "signal_not_known" in running.log
    assert "signal_known_again" in running.log


async def test_one_of_two_acts_and_the_other_takes_over(plant: Plant) -> None:
    """Of two autoscalers one leads; when it leaves, the other goes on at once, with the pause that was asked for."""
    await plant.client.apply_manifest(policy())
    first = plant.autoscaler()
    await plant.policy_where("it decides", Active="True")
    second = plant.autoscaler("two")
    await plant.client.scaling_policies.pause("chat", "1h", direction="out", reason="exam")
    leaders = [each.name for each in await plant.client.autoscalers.list() if each.leads]
    assert leaders == ["one"]
    plant.prometheus.values["decode_load"] = 58.0
    await until_seen(plant.explained, lambda seen: "PAUSED" in seen, lambda seen: f"paused: {seen}")
    first.stop()
    await until_seen(plant.leader, lambda seen: seen == "two", lambda seen: f"{seen} leads")
    await until_seen(plant.explained, lambda seen: "PAUSED" in seen, lambda seen: f"paused: {seen}")
    assert "began_to_lead" in second.log
    assert await plant.size("decode") == 2
    await plant.client.scaling_policies.pause("chat", "0s", direction="out")
    await plant.reaches("decode", 6)


async def test_a_move_goes_on_after_a_crash(plant: Plant) -> None:
    """The autoscaler is killed when one role gave its GPUs and the other has not got them; the next one goes on."""
    larger = MANIFEST.replace("replicas: 2\n", "replicas: 6\n")
    # A router that does not acknowledge: what shrinks drains for three seconds, and holds its GPUs.
    larger = larger.replace("{name: chat}", "{name: chat, annotations: {grove.io/drain-timeout: 3s}}")
    await plant.client.apply_manifest(larger)
    await plant.reaches("prefill", 6)
    await plant.client.apply_manifest(policy(gpus=16, quick_down=True))
    plant.prometheus.values.update(prefill_load=60.0, decode_load=20.0)
    first = plant.autoscaler()
    await plant.policy_where("it decides", Active="True")
    lease = {"pod_clique_set": "chat", "router": "silent"}
    await plant.client._caller.call("/grove.v1.EndpointService/RenewLease", lease)
    plant.prometheus.values.update(prefill_load=30.0, decode_load=50.0)
    await plant.reaches("prefill", 3)
    first.kill()
    assert await plant.size("decode") == 2
    second = plant.autoscaler()
    await plant.policy_where("the move is seen", Moving="True")
    await plant.reaches("decode", 5)
    assert await plant.size("prefill") == 3
    assert "part_ended" not in second.log


async def test_memory_is_taken_up_after_a_restart(plant: Plant) -> None:
    """With --state-file the next autoscaler begins with the scopes that the last one knew."""
    await plant.client.apply_manifest(policy())
    state = plant.folder / "state.json"
    first = plant.autoscaler("one", "--state-file", str(state))
    await plant.policy_where("it decides", Active="True")
    await until_seen(
        lambda: asyncio.to_thread(state.exists), lambda seen: seen, lambda _: f"no memory is kept: {first.log}"
    )
    first.stop()
    second = plant.autoscaler("two", "--state-file", str(state))
    await until_seen(
        lambda: asyncio.to_thread(lambda: second.log),
        lambda seen: any("began_to_lead" in line and '"scopes":1' in line for line in seen.splitlines()),
        lambda seen: f"it begins with what was known: {seen}",
    )


async def test_a_size_by_others_is_left_alone(plant: Plant) -> None:
    """What a user sets while a policy applies is kept for a while, and the status says so."""
    await plant.client.apply_manifest(policy(quick_down=True))
    plant.autoscaler()
    await plant.policy_where("it decides", Active="True")
    await plant.client.pod_cliques.scale("chat-0-decode", 4)
    await plant.policy_where("it sees the conflict", Conflict="True")
    assert await plant.size("decode") == 4


async def test_without_room_nobody_runs_ahead(plant: Plant) -> None:
    """Growth that finds no places is not asked for: the decision waits and says what is missing."""
    await plant.client.nodes.cordon([node.metadata.name async for node in plant.client.nodes.list()])
    await plant.client.apply_manifest(policy())
    plant.autoscaler()
    plant.prometheus.values.update(decode_load=58.0, prefill_load=58.0)
    await until_seen(plant.explained, lambda seen: "room for 0 of 4" in seen, lambda seen: f"no room: {seen}")
    assert (await plant.size("decode"), await plant.size("prefill")) == (2, 2)


async def test_it_goes_on_when_the_server_was_away(plant: Plant) -> None:
    """After a crash of the server the autoscaler leads again, shrinks nothing, and follows the load."""
    await plant.client.apply_manifest(policy())
    plant.autoscaler()
    await plant.policy_where("it decides", Active="True")
    plant.restart_server()
    plant.prometheus.values["decode_load"] = 58.0
    await plant.reaches("decode", 6)


async def test_keda_and_prometheus_read_what_is_decided(plant: Plant) -> None:
    """KEDA's external scaler gives the size that is wanted and refuses what is not known; metrics show the same."""
    await plant.client.apply_manifest(policy("recommend"))
    plant.prometheus.values["decode_load"] = 58.0
    running = plant.autoscaler()
    await plant.desires("decode", 6)
    async with grpc.aio.insecure_channel(running.address) as channel:

        async def ask(method: str, message: Message) -> bytes:
            call: Any = channel.unary_unary(f"/{SERVICE}/{method}", request_serializer=type(message).SerializeToString)
            return cast("bytes", await call(message, timeout=10))

        reference = CLASSES["ScaledObjectRef"](
            name="decode", namespace="default", scalerMetadata={"policy": "chat", "role": "decode"}
        )
        asked = CLASSES["GetMetricsRequest"](scaledObjectRef=reference, metricName="grove-chat-decode")
        answer: Any = CLASSES["GetMetricsResponse"].FromString(await ask("GetMetrics", asked))
        assert [(each.metricName, each.metricValueFloat) for each in answer.metricValues] == [("grove-chat-decode", 6)]
        spec: Any = CLASSES["GetMetricSpecResponse"].FromString(await ask("GetMetricSpec", reference))
        assert [(each.metricName, each.targetSizeFloat) for each in spec.metricSpecs] == [("grove-chat-decode", 1)]
        active: Any = CLASSES["IsActiveResponse"].FromString(await ask("IsActive", reference))
        assert active.result
        unknown = CLASSES["ScaledObjectRef"](namespace="default", scalerMetadata={"policy": "chat", "role": "nobody"})
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await ask("IsActive", unknown)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    page = (await asyncio.to_thread(urllib.request.urlopen, f"{running.metrics_url}/metrics")).read().decode()
    labels = '{copy="0",namespace="default",policy="chat",role="decode"}'
    assert f"grove_autoscaler_desired_replicas{labels} 6.0" in page
    assert "grove_autoscaler_leads 1.0" in page
