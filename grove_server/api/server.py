"""The gRPC server: options, services, TLS, health, reflection, and how it goes away.

Draining: health says NOT_SERVING, watches end with their token, running calls get `drain_s` to finish, the rest is
cancelled. New calls are refused from the first moment on.
"""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Final

import grpc
from grpc_reflection.v1alpha import reflection  # type: ignore[import-untyped]  # no stubs installed

from grove_server.admission.context import Limits
from grove_server.api.access import LOCAL, ROLES, AccessPolicy, Identity
from grove_server.api.addresses import (
    Address,
    ListenError,
    check_trust,
    parse_address,
    refuse_live_socket,
    why_not_bound,
)
from grove_server.api.backend import Backend, ServerFacts
from grove_server.api.certificates import CertificateFiles, server_credentials
from grove_server.api.changes import Changes
from grove_server.api.forwarding import Forwarder, trust_of
from grove_server.api.gathering import Gathering
from grove_server.api.health import HealthMonitor
from grove_server.api.load import CallClass, Load
from grove_server.api.pages import Listings
from grove_server.api.pipeline import LogPolicy, Pipeline, Service
from grove_server.api.ports import ContainersPort, ControlPort, HealthPort
from grove_server.api.reading import Shared
from grove_server.api.reflected import reflected_pool
from grove_server.api.services.autoscaler_registry import AutoscalerRegistryService
from grove_server.api.services.cluster_topology_bindings import ClusterTopologyBindingService
from grove_server.api.services.containers import ContainerService
from grove_server.api.services.debug import DebugService
from grove_server.api.services.endpoints import EndpointService
from grove_server.api.services.events import EventService
from grove_server.api.services.manifests import ManifestService
from grove_server.api.services.nodes import NodeService
from grove_server.api.services.placement import PlacementService
from grove_server.api.services.pod_clique_sets import PodCliqueSetService
from grove_server.api.services.pod_cliques import PodCliqueScalingGroupService, PodCliqueService
from grove_server.api.services.pod_gangs import PodGangService
from grove_server.api.services.pods import PodService
from grove_server.api.services.priority_classes import PriorityClassService
from grove_server.api.services.queues import QueueService
from grove_server.api.services.scaling_policies import ScalingPolicyService
from grove_server.api.services.server_info import ServerService
from grove_server.api.services.start_order import StartOrderService
from grove_server.api.services.stories import StoryService
from grove_server.api.streams import Streams
from grove_server.api.tables import Access
from grove_server.api.views import Views
from grove_server.runtime.containers import NoContainers
from grove_server.settings import Settings
from grove_server.store.interface import Store
from grove_server.telemetry.build import commit, version
from grove_server.telemetry.logs import get_logger

MIB: Final = 1 << 20
# Twice what a request may have: what is between is refused by us, with words; what is beyond by the transport.
RECEIVE_BYTES_MAX: Final = 8 * MIB
SEND_BYTES_MAX: Final = 16 * MIB
# Calls of other services (health, reflection) that still run when ours are done get this long.
_STRAGGLERS_S: Final = 0.2
# A message of the file with the details of errors, which tools look up by reflection, too.
_DETAILS: Final = "google.rpc.ErrorInfo"

_OPTIONS: Final = (
    # Without this a second server shares the port silently.
    ("grpc.so_reuseport", 0),
    # A client that is gone without a word is noticed after 80 s; clients may ping every 20 s.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 20_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 20_000),
    ("grpc.max_receive_message_length", RECEIVE_BYTES_MAX),
    ("grpc.max_send_message_length", SEND_BYTES_MAX),
    # Thousands of watches reconnect at once after a restart; the defaults would shed a part of them.
    ("grpc.server.max_pending_requests", 20_000),
    ("grpc.server.max_pending_requests_hard_limit", 30_000),
)

# Connections move on after half an hour, so that load spreads and each client's resuming is exercised. Where the server
# runs processes there is nobody to spread over, and commands beside containers, which cannot resume, may take longer.
_AGE_OPTIONS: Final = (("grpc.max_connection_age_ms", 1_800_000), ("grpc.max_connection_age_grace_ms", 30_000))

_log = get_logger("api")


class ApiServer:
    """Serves the contract over a store."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        *,
        control: ControlPort,
        health: HealthPort,
        load: Load,
        containers: ContainersPort | None = None,
        now: Callable[[], float] = time.time,
        new_uid: Callable[[], str] = lambda: str(uuid.uuid4()),
    ) -> None:
        """Put the services together; ``start`` opens the port. Raises ListenError for an address that is none."""
        self.address = parse_address(settings.listen)
        self._settings = settings
        self._load = load
        views = Views(settings.response_cache_bytes)
        self._streams = Streams(views)
        self._forwarder = Forwarder(control.autoscalers, trust_of(settings))
        backend = Backend(
            shared=Shared(store=store, views=views, listings=Listings(time.monotonic), streams=self._streams),
            changes=Changes(
                store,
                limits=Limits(pods_per_set_max=settings.pods_per_set_max),
                now=now,
                new_uid=new_uid,
                gathering=Gathering(lambda: load.in_flight(CallClass.WRITE)),
                misfit=control.planning.misfit,
            ),
            placement=control.planning,
            routers=control.routers,
            loads=control.loads,
            orders=control.orders,
            chronicle=control.chronicle,
            autoscalers=control.autoscalers,
            forwarder=self._forwarder,
            containers=containers if containers is not None else NoContainers(settings.runtime),
            now=now,
            facts=ServerFacts(
                version=version(),
                commit=commit(),
                store=settings.store,
                runtime=settings.runtime,
                started_at=now(),
            ),
            is_exec_on=settings.allow_exec == "on" or (settings.allow_exec == "auto" and self.address.is_local),
        )
        self._services = services(backend)
        self.health = HealthMonitor(health, [service.name for service in self._services])
        self._server: grpc.aio.Server | None = None

    def bind(self) -> Address:
        """Take the port without serving yet; return the address, with the system's port if it was 0.

        Whatever is wrong with the address or its protection is said here, before a start has changed anything. Raises
        ListenError.
        """
        settings = self._settings
        policy = access_policy(settings, self.address)
        pipeline = Pipeline(self._load, access=policy, log=log_policy(settings))
        server = grpc.aio.server(options=_OPTIONS if settings.runtime == "process" else (*_OPTIONS, *_AGE_OPTIONS))
        server.add_generic_rpc_handlers([pipeline.handler(service) for service in self._services])
        self.health.register(server)
        if settings.reflection:
            names = [service.name for service in self._services]
            names += [reflection.SERVICE_NAME, "grpc.health.v1.Health"]
            reflection.enable_server_reflection(names, server, pool=reflected_pool([*names, _DETAILS]))
        self.address = self.address.with_port(_bind(server, self.address, settings))
        self._server = server
        return self.address

    async def start(self) -> Address:
        """Serve, on the port that was taken or is taken now; return the address. Raises ListenError."""
        if self._server is None:
            self.bind()
        assert self._server is not None
        await self.health.start()
        await self._server.start()
        return self.address

    async def stop(self) -> None:
        """Drain, then stop. Calling it again while it runs shortens nothing; see ``stop_now``."""
        server = self._server
        if server is None:
            return
        self._server = None
        await self.health.drain()
        self._streams.drain()
        stopping = asyncio.create_task(server.stop(self._settings.drain_s))
        idle = asyncio.create_task(self._load.until_idle())
        await asyncio.wait((stopping, idle), return_when=asyncio.FIRST_COMPLETED)
        idle.cancel()
        # A shorter grace given later wins: only streams of health and reflection can still run.
        await server.stop(min(_STRAGGLERS_S, self._settings.drain_s))
        await stopping
        await self._forwarder.close()
        await self.health.stop()

    def problems(self) -> Mapping[str, str]:
        """Return what keeps the server from being ready, by part."""
        return self.health.problems()


def services(backend: Backend) -> list[Service]:
    """Return all services of the contract."""
    return [
        PodCliqueSetService(backend),
        PodCliqueService(backend),
        PodCliqueScalingGroupService(backend),
        PodGangService(backend),
        PodService(backend),
        ContainerService(backend),
        NodeService(backend),
        ClusterTopologyBindingService(backend),
        PriorityClassService(backend),
        QueueService(backend),
        ScalingPolicyService(backend),
        AutoscalerRegistryService(backend),
        EndpointService(backend),
        EventService(backend),
        ManifestService(backend),
        PlacementService(backend),
        ServerService(backend),
        StartOrderService(backend),
        StoryService(backend),
        DebugService(backend),
    ]


def access_policy(settings: Settings, address: Address) -> AccessPolicy:
    """Return who may do what on *address*. Raises ListenError where that would be anybody on the network."""
    check_trust(settings, address)
    has_tls = settings.tls_cert is not None
    if settings.tls_client_ca is not None:
        return AccessPolicy(
            everybody=None,
            roles={name: ROLES[role] for name, role in settings.client_roles.items()},
            role_default=ROLES[settings.client_role_default],
        )
    if address.is_local:
        return AccessPolicy(everybody=LOCAL)
    role: Access = ROLES[settings.anonymous_role or ("admin" if settings.insecure else "read")]
    _log.warning("clients_are_not_authenticated", address=str(address), role=role.name.lower(), encrypted=has_tls)
    return AccessPolicy(everybody=Identity("anonymous", role))


def log_policy(settings: Settings) -> LogPolicy:
    """Return which calls get a line."""
    match settings.access_log:
        case "all":
            return LogPolicy(every_call=True)
        case "off":
            return LogPolicy(changes=False, slow_s=float("inf"))
        case "default":
            return LogPolicy(slow_s=settings.access_log_slow_s)


def _bind(server: grpc.aio.Server, address: Address, settings: Settings) -> int:
    """Open the address and return the port (1 for a unix socket). Raises ListenError."""
    credentials = None
    if settings.tls_cert is not None and settings.tls_key is not None:
        credentials = server_credentials(CertificateFiles(settings.tls_cert, settings.tls_key, settings.tls_client_ca))
    if address.path is not None:
        refuse_live_socket(address.path)
    # A unix socket is as open as its permissions: for its owner alone.
    umask = os.umask(0o077) if address.path is not None else None
    try:
        if credentials is None:
            return server.add_insecure_port(str(address))
        return server.add_secure_port(str(address), credentials)
    except RuntimeError as error:
        raise ListenError(why_not_bound(address)) from error
    finally:
        if umask is not None:
            os.umask(umask)
