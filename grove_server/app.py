"""The composition root: settings in, running server out. The only place that knows all rooms.

Start: store, nodes, loops, runtime, metrics page, gRPC; the ready line comes when calls are answered. Stop: the other
way round, so that nothing is asked of a part that is gone. A first SIGTERM or SIGINT drains, a second one ends at once:
everything acknowledged is on the disk anyway.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from grove_server.api.addresses import ListenError, check_listening, parse_metrics_address
from grove_server.api.load import Load, load_of
from grove_server.api.server import ApiServer
from grove_server.control.clock import SystemClock
from grove_server.control.consolidator import Consolidation
from grove_server.control.indexes import store_indexes
from grove_server.control.orders import Patience
from grove_server.control.pace import Pace
from grove_server.control.packing_mix import PackingMix
from grove_server.control.plane import ControlPlane
from grove_server.control.solver_pool import open_solver
from grove_server.resources import codec
from grove_server.resources.meta import Kind
from grove_server.runtime.cluster_file import ClusterFile, ClusterFileError, default_cluster_text, parse_cluster
from grove_server.runtime.cluster_seed import seed_cluster
from grove_server.runtime.fake import FakeRuntime
from grove_server.runtime.interface import PodsOnExit, Runtime
from grove_server.runtime.process.assembly import OneBox, Options, assemble, count_running
from grove_server.runtime.process.machine import MachineError
from grove_server.runtime.process.outfit import Bounds
from grove_server.runtime.process.runs import LaunchError
from grove_server.settings import Settings
from grove_server.store import SqliteStore
from grove_server.store.errors import StoreError
from grove_server.store.watch.hub import WatchLimits
from grove_server.telemetry import metrics
from grove_server.telemetry.build import commit, version
from grove_server.telemetry.http import ProbeServer
from grove_server.telemetry.lag import LagWatch, open_loop
from grove_server.telemetry.logs import get_logger
from grove_server.telemetry.storage import StoreReport

DATABASE_NAME: Final = "grove.db"
# The contract promises a bookmark every 15 s; a busy loop may be late.
_BOOKMARK_INTERVAL_S: Final = 10.0
_LAG_INTERVAL_ONE_BOX_S: Final = 0.025
_CLUSTER_BYTES_MAX: Final = 256 << 20
_EXIT_AT_ONCE: Final = 130

# The server holds hundreds of thousands of objects that live for days and are never part of a cycle. With Python's
# defaults the collector would look at all of them again and again, for up to 100 ms at a time. Young generations stay
# small, so that looking at them takes some milliseconds; the old one is looked at once in 100 million allocations.
_GC_THRESHOLDS: Final = (1_000, 10, 10_000)

_log = get_logger("app")


class StartError(RuntimeError):
    """The server cannot start; the text is for the person who started it."""


def serve(settings: Settings) -> None:
    """Run a server until it is told to stop. Raises StartError if it cannot start."""
    with asyncio.Runner(loop_factory=open_loop) as runner:
        runner.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    stop = asyncio.Event()
    _follow_signals(stop)
    try:
        async with running(settings) as server:
            _announce(server)
            await stop.wait()
            _log.info("server_stopping")
    except (StoreError, ListenError, ClusterFileError, MachineError, LaunchError) as error:
        raise StartError(str(error)) from error
    _log.info("server_stopped")


class Server:
    """A running server: its addresses, and its parts for whoever embeds it."""

    def __init__(self, settings: Settings, store: SqliteStore, load: Load) -> None:
        self.settings = settings
        self.store = store
        self.load = load
        self.address = ""
        self.metrics_address = ""
        clock = SystemClock()
        patience = Patience(
            drain_timeout_s=settings.pod_drain_timeout_s,
            node_eviction_delay_s=settings.node_eviction_delay_s,
            stuck_terminating_s=settings.stuck_terminating_s,
        )
        self.solver = open_solver(settings.solver)
        self.plane = ControlPlane(
            store,
            clock,
            load.busy,
            patience=patience,
            update_settle_s=settings.update_settle_s,
            solver=self.solver,
            consolidation=Consolidation(
                moves_per_hour_max=settings.consolidation_moves_per_hour if settings.consolidation == "on" else 0
            ),
        )
        breathe = Pace(load.busy).breathe
        self.one_box: OneBox | None = None
        if settings.runtime == "fake" and (running := count_running(settings.data_dir)):
            raise StartError(
                f"--data-dir {settings.data_dir}: {running} containers of an earlier --runtime process still run; "
                "start it with --runtime process --pods-on-exit stop, and stop it again"
            )
        if settings.runtime == "process":
            self.one_box = assemble(store, clock, _options(settings), note=self.plane.events.note, breathe=breathe)
        self.runtime: Runtime = (
            FakeRuntime(store, clock, note=self.plane.events.note, breathe=breathe)
            if self.one_box is None
            else self.one_box.runtime
        )
        containers = None if self.one_box is None else self.one_box.console
        self.api = ApiServer(settings, store, control=self.plane, health=self, load=load, containers=containers)
        self.probes = ProbeServer(self.api.problems)
        self.probes.before_page(self._refresh)

    def problems(self) -> Mapping[str, str]:
        """Return what is wrong, by part; empty when all is well."""
        found = dict(self.plane.problems())
        store = self.store.health()
        if not store.ok:
            found["store"] = store.reason
        runtime = self.runtime.health()
        if not runtime.is_healthy:
            found["runtime"] = runtime.message
        return found

    def _refresh(self) -> None:
        reader = self.store.read()
        self.plane.chronicle.show()
        leads = [known.leads for known in self.plane.autoscalers.known()]
        metrics.AUTOSCALERS.labels("leading").set(leads.count(True))
        metrics.AUTOSCALERS.labels("standby").set(leads.count(False))
        metrics.show_store(reader.version, {kind: reader.count(kind) for kind in Kind})


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Server]:
    """Start everything, give the running server, stop everything. Raises what cannot be started with."""
    load = load_of(settings)
    _log.info("server_starting", version=version(), **settings.shown())
    # Wrong addresses are said before anything is touched.
    check_listening(settings)
    cluster = _read_cluster(settings.cluster, nodes_are_given=settings.runtime == "fake")
    metrics.REPLICAS.enabled = settings.replica_metrics
    metrics.show_build(version(), commit())
    async with AsyncExitStack() as stack:
        store = SqliteStore(
            _data_dir(settings.data_dir) / DATABASE_NAME,
            codec,
            indexes=store_indexes(),
            observer=StoreReport(),
            watch_limits=WatchLimits(watches_max=settings.watches_max, bookmark_interval_s=_BOOKMARK_INTERVAL_S),
        )
        await store.open()
        stack.push_async_callback(store.close)
        # Ports and certificates come before the store is changed: a start that is refused leaves everything as it was.
        server = Server(settings, store, load)
        if server.one_box is not None:
            stack.callback(server.one_box.close)
        server.api.bind()
        stack.push_async_callback(server.api.stop)
        await _start_probes(server, settings, stack)
        clock = SystemClock()
        if server.one_box is not None:
            cluster = replace(cluster, nodes=(await server.one_box.node.find(),))
        seeded = await seed_cluster(store, cluster, now=clock.now(), new_uid=lambda: str(uuid.uuid4()))
        _log.info(
            "cluster_read", created=seeded.nodes_created, updated=seeded.nodes_updated, removed=seeded.nodes_removed
        )
        # One machine that serves is to serve: its control plane costs next to nothing while nothing happens. Long steps
        # are all seen by the loop's selector, whatever the interval is.
        lag = LagWatch() if server.one_box is None else LagWatch(_LAG_INTERVAL_ONE_BOX_S)
        lag.start()
        stack.callback(lag.stop)
        if server.solver is not None:
            stack.push_async_callback(server.solver.close)
        server.plane.start()
        stack.push_async_callback(server.plane.stop)
        if settings.packing == "least-stranded":
            desk = server.plane.placement.desk
            mix = PackingMix(desk.cluster, desk.holdings, desk.wake_ups)
            mix.start(store)
            stack.callback(mix.stop)
        stack.push_async_callback(server.runtime.stop, pods=PodsOnExit(settings.pods_on_exit))
        await server.runtime.start()
        server.address = str(await server.api.start())
        # The port was taken first, but serving ends first, too.
        stack.push_async_callback(server.api.stop)
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_GC_THRESHOLDS)
        yield server


async def _start_probes(server: Server, settings: Settings, stack: AsyncExitStack) -> None:
    if not settings.metrics_listen:
        return
    address = parse_metrics_address(settings.metrics_listen)
    if not address.is_local:
        # The page needs no certificate and names every set, clique and group.
        _log.warning("metrics_can_be_read_by_anybody", address=str(address))
    try:
        server.metrics_address = await server.probes.start(address.host, address.port)
    except OSError as error:
        raise ListenError(f"--metrics-listen {settings.metrics_listen}: {error.strerror or error}") from error
    stack.push_async_callback(server.probes.stop)


def _options(settings: Settings) -> Options:
    return Options(
        data_dir=settings.data_dir,
        node_name=settings.node_name,
        pods_max=settings.node_pods_max,
        reserve=settings.reserve,
        bounds=Bounds(
            log_bytes=settings.container_log_bytes,
            log_files=settings.container_log_files,
            process_count=settings.container_processes_max,
            file_count=settings.container_files_max,
        ),
        exit_grace_s=settings.pods_exit_grace_s,
    )


def _read_cluster(path: Path | None, *, nodes_are_given: bool) -> ClusterFile:
    """Return what the cluster file says; the built-in topology stands for any machine."""
    if path is None:
        return parse_cluster(default_cluster_text())
    try:
        if path.stat().st_size > _CLUSTER_BYTES_MAX:
            raise StartError(f"--cluster {path}: larger than {_CLUSTER_BYTES_MAX} bytes")
        return parse_cluster(path.read_text(encoding="utf-8"), nodes_are_given=nodes_are_given)
    except OSError as error:
        raise StartError(f"--cluster {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise StartError(f"--cluster {path}: not UTF-8 text ({error.reason} at byte {error.start})") from error


def _data_dir(path: Path) -> Path:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StartError(f"--data-dir {path}: {error.strerror}") from error
    return path


def _announce(server: Server) -> None:
    """Say on one line, for people and scripts, that calls are answered, and where."""
    line = f"grove-server ready: grpc {server.address}"
    if server.metrics_address:
        line += f", metrics http://{server.metrics_address}/metrics"
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _follow_signals(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        if stop.is_set():
            # Nothing is lost: what was acknowledged is durable, and what runs is adopted at the next start.
            os._exit(_EXIT_AT_ONCE)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
