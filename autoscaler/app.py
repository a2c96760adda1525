"""Composition root of the autoscaler: settings in, running service out; the only place that knows all rooms.

Starts: gRPC, so that the address to register is known; then the lead and the watches, side by side; the first tick
comes when all that is there has been told and this autoscaler leads. Stops: no tick begins any more, the lead is
given away, gRPC ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import signal
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

import grpc

from autoscaler.acting.conflicts import Conflicts
from autoscaler.acting.inventory import Inventory
from autoscaler.acting.lead import Lead
from autoscaler.acting.scaling import Scaler
from autoscaler.acting.watching import Watching
from autoscaler.service import metrics
from autoscaler.service.answers import Answers
from autoscaler.service.by_hand import ByHand
from autoscaler.service.clock import SteadyClock
from autoscaler.service.journal import Journal
from autoscaler.service.keda import Keda
from autoscaler.service.loop import Loop, Parts
from autoscaler.service.recall import Recall
from autoscaler.service.scopes import Scopes
from autoscaler.service.statuses import Statuses
from autoscaler.settings import Settings
from autoscaler.signals.access import AccessFiles
from autoscaler.signals.collector import Collector, Source
from autoscaler.signals.prometheus import Prometheus
from autoscaler.signals.prometheus_source import PrometheusSettings, PrometheusSource
from autoscaler.signals.scrape_source import ScrapeSettings, ScrapeSource
from autoscaler.signals.transport import Transport
from grove.v1.autoscaler_pb2_grpc import add_AutoscalerServiceServicer_to_server
from grove_client import GroveClient, connect
from grove_client.channel import is_local
from grove_server.telemetry.build import version
from grove_server.telemetry.http import ProbeServer
from grove_server.telemetry.logs import get_logger, set_up_logs

STOP_S: Final = 2.0
_CALLS_MAX: Final = 256
_MESSAGE_BYTES_MAX: Final = 32 << 20

_log = get_logger("autoscaler.app")


class StartError(Exception):
    """The autoscaler cannot start; the text is for the person who started it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A running autoscaler: where it is reached, its loop; ``failed`` is set if a part of it ended by itself."""

    address: str
    metrics_address: str
    name: str
    loop: Loop
    lead: Lead
    failed: asyncio.Event


def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT. StartError."""
    set_up_logs(log_format=settings.log_format, level=settings.log_level)
    asyncio.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with running(settings) as found:
        shown = f", metrics {found.metrics_address}" if found.metrics_address else ""
        print(f"grove-autoscaler ready: grpc {found.address}{shown}", flush=True)  # noqa: T201 -- the ready line
        waits = [asyncio.create_task(stop.wait()), asyncio.create_task(found.failed.wait())]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        if found.failed.is_set():
            raise StartError("a part of the autoscaler failed; its log says which")


@contextlib.asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Running]:
    """Run an autoscaler for the length of the block. StartError."""
    _check(settings)
    metrics.BUILD.labels(version()).set(1)
    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(_connected(settings))
        server, address = await _listen(settings)
        stack.push_async_callback(server.stop, STOP_S)
        lead = Lead(
            client,
            settings.name or _name(address),
            settings.advertise or address,
            version=version(),
            steady_s=time.monotonic,
        )
        inventory, conflicts, by_hand = Inventory(), Conflicts(), ByHand()
        clock = SteadyClock(time.time, time.monotonic)
        scopes = Scopes(inventory, conflicts, by_hand, scrapes=settings.scrape)
        journal = Journal(settings.decision_log)
        scaler = Scaler(client, inventory, conflicts, lead, role_of=scopes.role_of)
        statuses = Statuses(client, lead, journal, by_hand, scaler)
        watching = Watching(client, inventory, conflicts, clock.now)
        parts = Parts(
            lead=lead,
            inventory=inventory,
            conflicts=conflicts,
            scopes=scopes,
            collector=await _collector(settings, stack),
            scaler=scaler,
            by_hand=by_hand,
            journal=journal,
            statuses=statuses,
            recall=Recall(settings.state_file),
        )
        loop = Loop(
            parts,
            clock,
            tick_s=settings.tick_s,
            only_recommends=settings.mode_cap == "recommend",
            steady_s=time.monotonic,
        )
        add_AutoscalerServiceServicer_to_server(Answers(loop, scopes, journal, by_hand, statuses, lead), server)
        server.add_generic_rpc_handlers((Keda(journal, clock.now, tick_s=settings.tick_s).handler(),))
        await server.start()
        metrics_address = await _serve_metrics(settings, stack, loop, watching, lead, journal)
        failed = asyncio.Event()
        tasks = [asyncio.create_task(each) for each in (lead.run(), watching.run(), _turn(watching, lead, loop))]
        for task in tasks:
            task.add_done_callback(lambda done: _ended(done, failed))
        try:
            _log.info("autoscaler_started", **settings.shown())
            yield Running(
                address=address, metrics_address=metrics_address, name=lead.name, loop=loop, lead=lead, failed=failed
            )
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_S):
                    await lead.leave()


def _ended(task: asyncio.Task[None], failed: asyncio.Event) -> None:
    """Say that a part ended which never should: somebody outside starts the program again."""
    if task.cancelled():
        return
    _log.error("part_ended", reason=repr(task.exception()))
    failed.set()


async def _turn(watching: Watching, lead: Lead, loop: Loop) -> None:
    await watching.synced()
    await lead.answered.wait()
    await loop.run()


def _check(settings: Settings) -> None:
    for of, address in (("listen", settings.listen), ("server", settings.server)):
        is_plain = settings.tls_cert is None if of == "listen" else False
        if is_plain and not settings.insecure and not is_local(address):
            raise StartError(f"{of}: {address} is not this machine: give --tls-cert and --tls-key, or --insecure")


def _connected(settings: Settings) -> contextlib.AbstractAsyncContextManager[GroveClient]:
    credentials: grpc.ChannelCredentials | None = None
    try:
        if settings.server_ca is not None:
            has_own = settings.tls_cert is not None and settings.tls_key is not None
            credentials = grpc.ssl_channel_credentials(
                settings.server_ca.read_bytes(),
                settings.tls_key.read_bytes() if has_own and settings.tls_key is not None else None,
                settings.tls_cert.read_bytes() if has_own and settings.tls_cert is not None else None,
            )
    except OSError as error:
        raise StartError(f"certificates cannot be read: {error.strerror}") from error
    return connect(settings.server, credentials=credentials, insecure=settings.insecure)


async def _listen(settings: Settings) -> tuple[grpc.aio.Server, str]:
    """Return a server that is bound and not started, and its address."""
    server = grpc.aio.server(
        maximum_concurrent_rpcs=_CALLS_MAX,
        options=[
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", _MESSAGE_BYTES_MAX),
            ("grpc.enable_http_proxy", 0),
        ],
    )
    try:
        if settings.tls_cert is not None and settings.tls_key is not None:
            authorities = settings.tls_client_ca.read_bytes() if settings.tls_client_ca is not None else None
            credentials = grpc.ssl_server_credentials(
                [(settings.tls_key.read_bytes(), settings.tls_cert.read_bytes())],
                root_certificates=authorities,
                require_client_auth=authorities is not None,
            )
            port = server.add_secure_port(settings.listen, credentials)
        else:
            port = server.add_insecure_port(settings.listen)
    except OSError as error:
        raise StartError(f"certificates cannot be read: {error.strerror}") from error
    except RuntimeError as error:
        raise StartError(f"cannot listen on {settings.listen}") from error
    if settings.listen.startswith("unix:"):
        return server, settings.listen
    return server, f"{settings.listen.rpartition(':')[0]}:{port}"


def _name(address: str) -> str:
    """Return a name that is the same after a restart, and no other process's: of the host and where it listens."""
    place = re.sub(r"[^a-z0-9]+", "-", f"{socket.gethostname()}-{address.rpartition(':')[2]}".lower()).strip("-")
    return f"autoscaler-{place}"[:60].rstrip("-")


async def _collector(settings: Settings, stack: contextlib.AsyncExitStack) -> Collector:
    prometheus: Prometheus | None = None
    if settings.prometheus:
        try:
            files = AccessFiles(
                bearer_token_file=settings.prometheus_token_file,
                username=settings.prometheus_username,
                password_file=settings.prometheus_password_file,
                ca_file=settings.prometheus_ca,
                cert_file=settings.prometheus_cert,
                key_file=settings.prometheus_key,
            )
        except ValueError as error:
            raise StartError(f"prometheus: {error}") from error
        transport = Transport(files=files)
        stack.push_async_callback(transport.close)
        prometheus = Prometheus(settings.prometheus, transport, chance=random.random)
    source: Source
    if settings.scrape:
        pages = Transport()
        stack.push_async_callback(pages.close)
        source = ScrapeSource(pages, ScrapeSettings(window_s=settings.window_s))
    else:
        assert prometheus is not None, "settings name one of both"
        source = PrometheusSource(prometheus, PrometheusSettings(window_s=settings.window_s))
    return Collector(source, prometheus)


async def _serve_metrics(
    settings: Settings,
    stack: contextlib.AsyncExitStack,
    loop: Loop,
    watching: Watching,
    lead: Lead,
    journal: Journal,
) -> str:
    if not settings.metrics_listen:
        return ""

    def problems() -> dict[str, str]:
        found = dict(watching.waits_for)
        if lead.problem:
            found["lead"] = lead.problem
        # Who stands by looks at nothing, and is ready all the same.
        if loop.problem and lead.holds:
            found["loop"] = loop.problem
        return found

    pages = ProbeServer(problems, metrics.REGISTRY)
    series = metrics.RoleSeries(lambda: list(journal.last()))
    metrics.REGISTRY.register(series)
    stack.callback(metrics.REGISTRY.unregister, series)
    host, _, port = settings.metrics_listen.rpartition(":")
    try:
        address = await pages.start(host.strip("[]"), int(port))
    except (OSError, ValueError) as error:
        raise StartError(f"cannot listen on {settings.metrics_listen}") from error
    stack.push_async_callback(pages.stop)
    return address
