"""The server under test with its store and its clients, and how refusals are read."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
from google.protobuf import json_format
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]  # no stubs published

from grove.v1 import (
    autoscaler_pb2_grpc,
    cluster_topology_binding_pb2_grpc,
    container_pb2_grpc,
    endpoint_pb2_grpc,
    event_pb2_grpc,
    manifest_pb2,
    manifest_pb2_grpc,
    node_pb2_grpc,
    placement_pb2_grpc,
    pod_clique_pb2_grpc,
    pod_clique_scaling_group_pb2_grpc,
    pod_clique_set_pb2,
    pod_clique_set_pb2_grpc,
    pod_gang_pb2_grpc,
    pod_pb2_grpc,
    priority_class_pb2_grpc,
    queue_pb2_grpc,
    scaling_policy_pb2_grpc,
    server_pb2_grpc,
    start_order_pb2_grpc,
)
from grove_server.api.load import Load, load_of
from grove_server.api.pipeline import DETAILS_KEY
from grove_server.api.ports import AlwaysHealthy, ContainersPort
from grove_server.api.server import ApiServer
from grove_server.control.clock import SystemClock
from grove_server.control.indexes import store_indexes
from grove_server.control.plane import ControlPlane
from grove_server.resources import codec
from grove_server.resources.meta import Resource
from grove_server.settings import Settings, load
from grove_server.store import SqliteStore, WatchLimits
from grove_server.store.interface import Applied, Put

NOW: Final = 1_800_000_000.25
TIMEOUT_S: Final = 20.0

_DETAILS: Final = {
    message.DESCRIPTOR.full_name: message
    for message in (
        error_details_pb2.BadRequest,
        error_details_pb2.ErrorInfo,
        error_details_pb2.PreconditionFailure,
        error_details_pb2.RequestInfo,
        error_details_pb2.ResourceInfo,
        error_details_pb2.RetryInfo,
    )
}


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """What a client learns of a refused call."""

    code: grpc.StatusCode
    reason: str
    message: str
    metadata: Mapping[str, str]
    details: Mapping[str, Any]
    raw: bytes

    @property
    def fields(self) -> list[str]:
        """The paths of all violations."""
        request = self.details.get("google.rpc.BadRequest")
        return [] if request is None else [violation.field for violation in request.field_violations]


def read_refusal(error: grpc.aio.AioRpcError) -> Refusal:
    """Return what *error* carries."""
    raw = b""
    for key, value in error.trailing_metadata():
        if key == DETAILS_KEY and isinstance(value, bytes):
            raw = value
    status = status_pb2.Status.FromString(raw)
    details = {}
    for packed in status.details:
        name = packed.type_url.rpartition("/")[2]
        assert name not in details, "each type of detail at most once"
        details[name] = _DETAILS[name].FromString(packed.value)
    info = details.get("google.rpc.ErrorInfo")
    return Refusal(
        code=error.code(),
        reason=info.reason if info is not None else "",
        message=error.details() or "",
        metadata=dict(info.metadata) if info is not None else {},
        details=details,
        raw=raw,
    )


async def refused(call: Awaitable[object]) -> Refusal:
    """Return how *call* was refused; fail if it was not."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return read_refusal(caught.value)


class Clients:
    """All stubs over one channel."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.sets = pod_clique_set_pb2_grpc.PodCliqueSetServiceStub(channel)
        self.cliques = pod_clique_pb2_grpc.PodCliqueServiceStub(channel)
        self.groups = pod_clique_scaling_group_pb2_grpc.PodCliqueScalingGroupServiceStub(channel)
        self.gangs = pod_gang_pb2_grpc.PodGangServiceStub(channel)
        self.pods = pod_pb2_grpc.PodServiceStub(channel)
        self.containers = container_pb2_grpc.ContainerServiceStub(channel)
        self.endpoints = endpoint_pb2_grpc.EndpointServiceStub(channel)
        self.start_order = start_order_pb2_grpc.StartOrderServiceStub(channel)
        self.nodes = node_pb2_grpc.NodeServiceStub(channel)
        self.bindings = cluster_topology_binding_pb2_grpc.ClusterTopologyBindingServiceStub(channel)
        self.priority_classes = priority_class_pb2_grpc.PriorityClassServiceStub(channel)
        self.queues = queue_pb2_grpc.QueueServiceStub(channel)
        self.scaling_policies = scaling_policy_pb2_grpc.ScalingPolicyServiceStub(channel)
        self.autoscalers = autoscaler_pb2_grpc.AutoscalerRegistryServiceStub(channel)
        self.events = event_pb2_grpc.EventServiceStub(channel)
        self.manifests = manifest_pb2_grpc.ManifestServiceStub(channel)
        self.placement = placement_pb2_grpc.PlacementServiceStub(channel)
        self.server = server_pb2_grpc.ServerServiceStub(channel)


class Harness(Clients):
    """The server, what it stands on, and clients of it."""

    def __init__(
        self, channel: grpc.aio.Channel, *, api: ApiServer, store: SqliteStore, calls: Load, plane: ControlPlane
    ) -> None:
        super().__init__(channel)
        self.api = api
        self.store = store
        self.calls = calls
        self.plane = plane

    async def put(self, *resources: Resource) -> list[Resource]:
        """Store resources as the loops would, and return them as stored."""
        outcomes = await self.store.commit([Put(resource) for resource in resources])
        stored = []
        for outcome in outcomes:
            assert isinstance(outcome, Applied)
            assert outcome.resource is not None
            stored.append(outcome.resource)
        return stored

    async def apply(
        self,
        name: str = "demo",
        **changes: Any,  # noqa: ANN401 -- whatever sample_set takes
    ) -> pod_clique_set_pb2.PodCliqueSetServiceApplyResponse:
        """Apply the sample set."""
        request = pod_clique_set_pb2.PodCliqueSetServiceApplyRequest(pod_clique_set=sample_set(name, **changes))
        return await self.sets.Apply(request, timeout=TIMEOUT_S)

    async def apply_text(
        self,
        text: str,
        **options: Any,  # noqa: ANN401 -- whatever the request has
    ) -> manifest_pb2.ManifestServiceApplyResponse:
        """Apply manifests as text."""
        request = manifest_pb2.ManifestServiceApplyRequest(manifest=text, **options)
        return await self.manifests.Apply(request, timeout=TIMEOUT_S)


def sample_set(
    name: str = "demo",
    *,
    namespace: str = "",
    replicas: int | None = 1,
    labels: Mapping[str, str] | None = None,
    image: str = "image:1",
    cliques: Sequence[str] = ("router", "worker"),
) -> pod_clique_set_pb2.PodCliqueSet:
    """Return a small set as a client would send it."""
    spec: dict[str, Any] = {
        "template": {
            "cliques": [
                {
                    "name": clique,
                    "spec": {
                        "roleName": clique,
                        "replicas": 2,
                        "podSpec": {
                            "containers": [
                                {"name": "main", "image": image, "resources": {"requests": {"cpu": "100m"}}}
                            ],
                            "terminationGracePeriodSeconds": 45,
                        },
                    },
                }
                for clique in cliques
            ]
        }
    }
    if replicas is not None:
        spec["replicas"] = replicas
    manifest = {
        "apiVersion": "grove.io/v1alpha1",
        "kind": "PodCliqueSet",
        "metadata": {"name": name, "namespace": namespace, "labels": dict(labels or {})},
        "spec": spec,
    }
    return json_format.ParseDict(manifest, pod_clique_set_pb2.PodCliqueSet())


def settings_in(folder: Path, *arguments: str) -> Settings:
    """Return settings of a server on a free loopback port with its data in *folder*."""
    given = ["--data-dir", str(folder), *arguments]
    if "--listen" not in arguments:
        given += ["--listen", "127.0.0.1:0"]
    return load(given, {})


@asynccontextmanager
async def serving(
    folder: Path,
    *arguments: str,
    limits: WatchLimits | None = None,
    now: Callable[[], float] = lambda: NOW,
    containers: ContainersPort | None = None,
) -> AsyncIterator[Harness]:
    """Run a server with these flags; the loops exist, but do not turn, and their time is the machine's."""
    settings = settings_in(folder, *arguments)
    store = SqliteStore(folder / "grove.db", codec, indexes=store_indexes(), watch_limits=limits)
    await store.open()
    calls = load_of(settings)
    plane = ControlPlane(store, SystemClock(), calls.busy)
    uids = (f"uid-{number}" for number in itertools.count(1))
    api = ApiServer(
        settings,
        store,
        control=plane,
        health=AlwaysHealthy(),
        load=calls,
        containers=containers,
        now=now,
        new_uid=lambda: next(uids),
    )
    try:
        address = await api.start()
        async with grpc.aio.insecure_channel(str(address)) as channel:
            yield Harness(channel, api=api, store=store, calls=calls, plane=plane)
    finally:
        await api.stop()
        await store.close()
