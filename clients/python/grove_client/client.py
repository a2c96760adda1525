"""The client: one object per connection, one attribute per kind of resource."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import cast

import grpc
from google.protobuf.message import Message

from grove.v1.autoscaler_pb2 import (
    AutoscalerRegistryServiceDeregisterResponse,
    AutoscalerRegistryServiceListResponse,
    AutoscalerRegistryServiceRegisterResponse,
    RegisteredAutoscaler,
)
from grove.v1.cluster_topology_binding_pb2 import ClusterTopologyBinding
from grove.v1.debug_pb2 import DebugServiceDumpResponse
from grove.v1.endpoint_pb2 import EndpointServiceReportLoadResponse, PodLoad
from grove.v1.event_pb2 import Event
from grove.v1.manifest_pb2 import ManifestServiceApplyResponse, ManifestServiceDeleteResponse
from grove.v1.node_pb2 import (
    Node,
    NodeServiceCordonResponse,
    NodeServiceDrainResponse,
    NodeServiceLabelResponse,
    NodeServiceMarkDownResponse,
    NodeServiceMarkUpResponse,
    NodeServiceTaintResponse,
    NodeServiceUncordonResponse,
    Taint,
)
from grove.v1.placement_pb2 import (
    PlacementServiceGetMapResponse,
    PlacementServicePlanConsolidationResponse,
    PlacementServiceSimulateResponse,
)
from grove.v1.pod_clique_pb2 import PodClique
from grove.v1.pod_clique_scaling_group_pb2 import PodCliqueScalingGroup
from grove.v1.pod_clique_set_pb2 import (
    PodCliqueSet,
    PodCliqueSetRevision,
    PodCliqueSetServiceListRevisionsResponse,
    PodCliqueSetServicePauseRolloutResponse,
    PodCliqueSetServiceResumeRolloutResponse,
    PodCliqueSetServiceUndoRolloutResponse,
)
from grove.v1.pod_gang_pb2 import PodGang, PodGangServiceExplainResponse
from grove.v1.pod_pb2 import Pod
from grove.v1.priority_class_pb2 import PriorityClass
from grove.v1.queue_pb2 import Queue
from grove.v1.scaling_policy_pb2 import (
    ScalingPolicy,
    ScalingPolicyServiceExplainResponse,
    ScalingPolicyServiceOverrideResponse,
    ScalingPolicyServicePauseResponse,
    ScalingPolicyServiceUpdateStatusResponse,
    ScalingPolicyStatus,
)
from grove.v1.server_pb2 import ServerServiceGetInfoResponse
from grove.v1.story_pb2 import StoryServiceGetResponse
from grove_client.calls import Caller
from grove_client.channel import open_channel
from grove_client.containers import Containers
from grove_client.errors import from_rpc_error
from grove_client.resources import Applicable, Collection, Deletable, Listed, Scalable, ScalableApplicable

DEFAULT_TARGET = "127.0.0.1:50051"


class PodCliqueSets(ScalableApplicable[PodCliqueSet]):
    """Sets, and what steers their updates; how far an update is stands in the status of the set."""

    async def pause_rollout(self, name: str, *, namespace: str = "") -> bool:
        """Let updates rest; returns whether they did not before. NotFoundError."""
        answer = await self._steer("PauseRollout", name, namespace)
        return cast("PodCliqueSetServicePauseRolloutResponse", answer).changed

    async def resume_rollout(self, name: str, *, namespace: str = "") -> bool:
        """Let updates go on; returns whether they rested before. NotFoundError."""
        answer = await self._steer("ResumeRollout", name, namespace)
        return cast("PodCliqueSetServiceResumeRolloutResponse", answer).changed

    async def undo_rollout(self, name: str, to_revision: int = 0, *, namespace: str = "") -> bool:
        """Go back to a kept revision, 0 for the one before; returns whether the template changed. NotFoundError."""
        fields = {"name": name, "namespace": namespace, "to_revision": to_revision}
        answer = await self._caller.call(f"{self._service}UndoRollout", fields)
        return cast("PodCliqueSetServiceUndoRolloutResponse", answer).changed

    async def restart_rollout(self, name: str, *, namespace: str = "") -> None:
        """Replace all pods under the set's strategy. NotFoundError."""
        await self._steer("RestartRollout", name, namespace)

    async def revisions(self, name: str, *, namespace: str = "") -> list[PodCliqueSetRevision]:
        """Return the revisions kept, oldest first. NotFoundError."""
        answer = await self._steer("ListRevisions", name, namespace)
        return list(cast("PodCliqueSetServiceListRevisionsResponse", answer).revisions)

    async def _steer(self, verb: str, name: str, namespace: str) -> Message:
        return await self._caller.call(f"{self._service}{verb}", {"name": name, "namespace": namespace})


class PodGangs(Collection[PodGang]):
    """Gangs, and why they wait or are where they are."""

    async def explain(self, name: str, *, namespace: str = "") -> PodGangServiceExplainResponse:
        """Return why the gang waits, or why it is where it is; NotFoundError."""
        answer = await self._caller.call(f"{self._service}Explain", {"name": name, "namespace": namespace})
        return cast("PodGangServiceExplainResponse", answer)


class Pods(Deletable[Pod]):
    """Pods, which drain before they are deleted if routers use them."""

    async def delete_now(self, names: list[str], *, namespace: str = "", validate_only: bool = False) -> None:
        """Delete all of *names* without a drain, in one change, or none; requests under way there may be lost."""
        await self._caller.call(
            f"{self._service}Delete",
            {"names": names, "namespace": namespace, "skip_drain": True, "validate_only": validate_only},
        )


class Nodes(Deletable[Node]):
    """Nodes, and whether new pods may be placed on them; what simulated ones are like can be changed."""

    async def cordon(self, names: list[str]) -> list[str]:
        """Keep new pods off *names*, in one change; returns those that were not so already."""
        answer = await self._caller.call(f"{self._service}Cordon", {"names": names})
        return list(cast("NodeServiceCordonResponse", answer).changed)

    async def drain(self, names: list[str]) -> NodeServiceDrainResponse:
        """Let pods leave *names*, in one change; call it again to see how many are left."""
        answer = await self._caller.call(f"{self._service}Drain", {"names": names})
        return cast("NodeServiceDrainResponse", answer)

    async def uncordon(self, names: list[str]) -> list[str]:
        """Let new pods onto *names*, in one change; returns those that were not so already."""
        answer = await self._caller.call(f"{self._service}Uncordon", {"names": names})
        return list(cast("NodeServiceUncordonResponse", answer).changed)

    async def mark_down(self, names: list[str]) -> list[str]:
        """Let simulated nodes fail, in one change; returns those that were not down already."""
        answer = await self._caller.call(f"{self._service}MarkDown", {"names": names})
        return list(cast("NodeServiceMarkDownResponse", answer).changed)

    async def mark_up(self, names: list[str]) -> list[str]:
        """Bring simulated nodes back, in one change; returns those that were not up already."""
        answer = await self._caller.call(f"{self._service}MarkUp", {"names": names})
        return list(cast("NodeServiceMarkUpResponse", answer).changed)

    async def label(self, names: list[str], labels: Mapping[str, str], removed: Sequence[str] = ()) -> list[str]:
        """Set and remove labels of simulated nodes, in one change; returns those that became different."""
        request = {"names": names, "labels": dict(labels), "removed": list(removed)}
        answer = await self._caller.call(f"{self._service}Label", request)
        return list(cast("NodeServiceLabelResponse", answer).changed)

    async def taint(self, names: list[str], taints: Sequence[Taint], removed: Sequence[Taint] = ()) -> list[str]:
        """Put taints on simulated nodes and take them off, in one change; returns those that became different."""
        request = {"names": names, "taints": list(taints), "removed": list(removed)}
        answer = await self._caller.call(f"{self._service}Taint", request)
        return list(cast("NodeServiceTaintResponse", answer).changed)


class ScalingPolicies(Applicable[ScalingPolicy]):
    """Policies, and what is asked of the autoscaler that follows them."""

    async def explain(
        self, name: str, *, copy: int | None = None, decision_id: str = "", namespace: str = ""
    ) -> ScalingPolicyServiceExplainResponse:
        """Return the last decisions and all that led to them; NotFoundError."""
        fields = {"name": name, "namespace": namespace, "copy": copy, "decision_id": decision_id}
        answer = await self._caller.call(f"{self._service}Explain", fields)
        return cast("ScalingPolicyServiceExplainResponse", answer)

    async def pause(
        self, name: str, duration: str, *, direction: str = "both", reason: str = "", namespace: str = ""
    ) -> ScalingPolicyServicePauseResponse:
        """Let a policy rest for *duration* ("15m"; "0s" ends it) in a *direction*: "both", "in" or "out"."""
        fields = {
            "name": name,
            "namespace": namespace,
            "direction": direction,
            "duration": duration,
            "reason": reason,
        }
        answer = await self._caller.call(f"{self._service}Pause", fields)
        return cast("ScalingPolicyServicePauseResponse", answer)

    async def override(
        self,
        name: str,
        role: str,
        replicas: int | None,
        duration: str,
        *,
        copy: int | None = None,
        reason: str = "",
        namespace: str = "",
    ) -> ScalingPolicyServiceOverrideResponse:
        """Give a role a size for *duration* ("1h"; "0s" ends it), in one copy or (None) all."""
        fields = {
            "name": name,
            "namespace": namespace,
            "role": role,
            "copy": copy,
            "replicas": replicas,
            "duration": duration,
            "reason": reason,
        }
        answer = await self._caller.call(f"{self._service}Override", fields)
        return cast("ScalingPolicyServiceOverrideResponse", answer)

    async def update_status(
        self, name: str, status: ScalingPolicyStatus, *, autoscaler: str, term: int, namespace: str = ""
    ) -> ScalingPolicy:
        """Write the status as the *autoscaler* that leads in *term*; FailedPreconditionError if another one does."""
        fields = {"name": name, "namespace": namespace, "status": status, "autoscaler": autoscaler, "term": term}
        answer = await self._caller.call(f"{self._service}UpdateStatus", fields)
        return cast("ScalingPolicyServiceUpdateStatusResponse", answer).scaling_policy


class AutoscalerRegistry:
    """Who scales, and who of them leads."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def register(
        self, name: str, address: str, *, version: str = "", timeout_s: float | None = None
    ) -> AutoscalerRegistryServiceRegisterResponse:
        """Register or renew; the answer says whether *name* leads, and how long that holds, counted from the call."""
        fields = {"name": name, "address": address, "version": version}
        answer = await self._caller.call("/grove.v1.AutoscalerRegistryService/Register", fields, timeout_s)
        return cast("AutoscalerRegistryServiceRegisterResponse", answer)

    async def deregister(self, name: str) -> bool:
        """Leave, so that another one leads at once; returns whether *name* was registered."""
        answer = await self._caller.call("/grove.v1.AutoscalerRegistryService/Deregister", {"name": name})
        return cast("AutoscalerRegistryServiceDeregisterResponse", answer).existed

    async def list(self) -> list[RegisteredAutoscaler]:
        """Return who is registered, by name."""
        answer = await self._caller.call("/grove.v1.AutoscalerRegistryService/List", {})
        return list(cast("AutoscalerRegistryServiceListResponse", answer).autoscalers)


class GroveClient:
    """All that a Grove Server offers, over one channel that somebody else opens and closes."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        caller = Caller(channel)
        self._caller = caller
        self.pod_clique_sets = PodCliqueSets(caller, PodCliqueSet)
        self.pod_cliques = Scalable(caller, PodClique)
        self.pod_clique_scaling_groups = Scalable(caller, PodCliqueScalingGroup)
        self.pod_gangs = PodGangs(caller, PodGang)
        self.pods = Pods(caller, Pod)
        self.nodes = Nodes(caller, Node)
        self.cluster_topology_bindings = Applicable(caller, ClusterTopologyBinding)
        self.priority_classes = Applicable(caller, PriorityClass)
        self.queues = Applicable(caller, Queue)
        self.scaling_policies = ScalingPolicies(caller, ScalingPolicy)
        self.autoscalers = AutoscalerRegistry(caller)
        self.events = Listed(caller, Event)
        self.containers = Containers(caller)

    async def apply_manifest(
        self, manifest: str, *, default_namespace: str = "", validate_only: bool = False
    ) -> ManifestServiceApplyResponse:
        """Apply all documents of *manifest* (YAML or JSON) as one change; InvalidArgumentError names every fault."""
        answer = await self._caller.call(
            "/grove.v1.ManifestService/Apply",
            {"manifest": manifest, "default_namespace": default_namespace, "validate_only": validate_only},
        )
        return cast("ManifestServiceApplyResponse", answer)

    async def delete_manifest(
        self, manifest: str, *, default_namespace: str = "", validate_only: bool = False, ignore_not_found: bool = False
    ) -> ManifestServiceDeleteResponse:
        """Delete what the documents of *manifest* name, as one change."""
        answer = await self._caller.call(
            "/grove.v1.ManifestService/Delete",
            {
                "manifest": manifest,
                "default_namespace": default_namespace,
                "validate_only": validate_only,
                "ignore_not_found": ignore_not_found,
            },
        )
        return cast("ManifestServiceDeleteResponse", answer)

    async def simulate(
        self,
        manifest: str = "",
        *,
        default_namespace: str = "",
        drained_nodes: Sequence[str] = (),
        added_nodes: str = "",
        without: Sequence[str] = (),
    ) -> PlacementServiceSimulateResponse:
        """Return what would happen to the gangs of *manifest* if the cluster were changed so; changes nothing.

        *added_nodes*: Node and NodePool manifests. *without*: "pcs/NAME" or "pg/NAME".
        """
        answer = await self._caller.call(
            "/grove.v1.PlacementService/Simulate",
            {
                "manifest": manifest,
                "default_namespace": default_namespace,
                "drained_nodes": list(drained_nodes),
                "added_nodes": added_nodes,
                "without": list(without),
            },
        )
        return cast("PlacementServiceSimulateResponse", answer)

    async def get_map(
        self, picture: str = "text", *, topology_name: str = "", width: int = 0, colours: bool = False
    ) -> PlacementServiceGetMapResponse:
        """Return a picture of the cluster, "text" or "svg", and how its GPUs are used."""
        answer = await self._caller.call(
            "/grove.v1.PlacementService/GetMap",
            {"format": picture, "topology_name": topology_name, "width": width, "colours": colours},
        )
        return cast("PlacementServiceGetMapResponse", answer)

    async def plan_consolidation(
        self,
        pod_gang: str = "",
        *,
        namespace: str = "",
        topology_name: str = "",
        level: str = "",
        domain_count_max: int = 0,
        pod_count_max: int = 0,
    ) -> PlacementServicePlanConsolidationResponse:
        """Return which gangs to move so that a waiting gang fits, or that domains come free; moves nothing."""
        answer = await self._caller.call(
            "/grove.v1.PlacementService/PlanConsolidation",
            {
                "pod_gang": pod_gang,
                "namespace": namespace,
                "topology_name": topology_name,
                "level": level,
                "domain_count_max": domain_count_max,
                "pod_count_max": pod_count_max,
            },
        )
        return cast("PlacementServicePlanConsolidationResponse", answer)

    async def story(
        self, kind: str, name: str, *, namespace: str = "", uid: str = "", limit: int = 0
    ) -> StoryServiceGetResponse:
        """Return the last transitions of what has or had this name, as far as the server remembers."""
        answer = await self._caller.call(
            "/grove.v1.StoryService/Get",
            {"kind": kind, "name": name, "namespace": namespace, "uid": uid, "limit": limit},
        )
        return cast("StoryServiceGetResponse", answer)

    async def report_load(
        self, pod_clique_set: str, router: str, loads: Mapping[str, tuple[int, int]], *, namespace: str = ""
    ) -> EndpointServiceReportLoadResponse:
        """Tell for at most 1000 pods of a set (requests in flight, requests queued), by name; it holds for 15 s."""
        answer = await self._caller.call(
            "/grove.v1.EndpointService/ReportLoad",
            {
                "namespace": namespace,
                "pod_clique_set": pod_clique_set,
                "router": router,
                "loads": [
                    PodLoad(pod=pod, requests_in_flight=in_flight, requests_queued=queued)
                    for pod, (in_flight, queued) in loads.items()
                ],
            },
        )
        return cast("EndpointServiceReportLoadResponse", answer)

    async def dump(self) -> AsyncIterator[str]:
        """Yield a dump of the server, as JSON lines, some whole lines at a time; PermissionDeniedError."""
        stream = self._caller.stream("/grove.v1.DebugService/Dump", {})
        try:
            async for piece in stream:
                yield cast("DebugServiceDumpResponse", piece).lines
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from None
        finally:
            stream.cancel()

    async def server_info(self, *, timeout_s: float | None = None) -> ServerServiceGetInfoResponse:
        """Return version and mode of the server."""
        answer = await self._caller.call("/grove.v1.ServerService/GetInfo", {}, timeout_s)
        return cast("ServerServiceGetInfoResponse", answer)


@asynccontextmanager
async def connect(
    target: str = DEFAULT_TARGET, *, credentials: grpc.ChannelCredentials | None = None, insecure: bool = False
) -> AsyncIterator[GroveClient]:
    """Open a client for the length of the `async with` block.

    *target*: "host:port" or "unix:/path". Without *credentials* this machine is spoken to in plaintext and any other
    over TLS with the system's roots; *insecure* forces plaintext. The connection is made at the first call.
    """
    async with open_channel(target, credentials, insecure=insecure) as channel:
        yield GroveClient(channel)
