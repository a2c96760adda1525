"""A server for the RPC benchmarks, in a process of its own: everything a real one has, and a bare echo beside it.

Both run on the same event loop in the same process, so what differs between them is ours. The echo is the barest
grpc.aio server there is: no parsing, no metrics, bytes in and the same bytes out.
"""

import asyncio
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final, NamedTuple

import grpc
import uvloop

from grove_server.api.load import load_of
from grove_server.api.ports import AlwaysHealthy
from grove_server.api.server import ApiServer
from grove_server.control.clock import SystemClock
from grove_server.control.indexes import store_indexes
from grove_server.control.plane import ControlPlane
from grove_server.resources import codec
from grove_server.runtime.cluster_file import parse_cluster
from grove_server.runtime.cluster_seed import seed_cluster
from grove_server.runtime.fake import FakeRuntime
from grove_server.settings import load
from grove_server.store import SqliteStore
from grove_server.telemetry import metrics
from grove_server.telemetry.logs import set_up_logs
from grove_server.telemetry.storage import StoreReport

ECHO: Final = "/bare.Echo/Get"
STREAM: Final = "/bare.Echo/Watch"
FIRE: Final = "/bare.Echo/Fire"
SET_PAYLOAD: Final = "/bare.Echo/Set"
DURABLE: Final = "/bare.Echo/Durable"
FSYNCS: Final = "/bare.Echo/Fsyncs"

CLUSTER: Final = """\
apiVersion: grove.io/v1alpha1
kind: NodePool
metadata: {name: bench}
spec:
  count: 500
  allocatable: {cpu: "128", memory: 2Ti, pods: "1000"}
"""

Context = grpc.aio.ServicerContext[bytes, bytes]


class Host(NamedTuple):
    """Where the two servers listen."""

    grove: str
    bare: str


class _Report(StoreReport):
    """The server's own observer, which also remembers when something last became durable."""

    durable_s = 0.0

    def batch_durable(self, *, commits: int, changes: int, rows: int, payload_bytes: int, duration_s: float) -> None:
        """Count one transaction and remember the moment, before anything of it is visible."""
        self.durable_s = time.perf_counter()
        super().batch_durable(
            commits=commits, changes=changes, rows=rows, payload_bytes=payload_bytes, duration_s=duration_s
        )


class _Bare:
    """The echo, and a stream whose writes are set off by a call."""

    def __init__(self, report: "_Report") -> None:
        self.payload = b""
        self._report = report
        self._fired = asyncio.Event()

    def handlers(self) -> grpc.GenericRpcHandler:
        """Return the handlers."""
        return grpc.method_handlers_generic_handler(
            "bare.Echo",
            {
                "Get": grpc.unary_unary_rpc_method_handler(self.echo),
                "Set": grpc.unary_unary_rpc_method_handler(self.set),
                "Watch": grpc.unary_stream_rpc_method_handler(self.watch),
                "Fire": grpc.unary_unary_rpc_method_handler(self.fire),
                "Durable": grpc.unary_unary_rpc_method_handler(self.durable),
                "Fsyncs": grpc.unary_unary_rpc_method_handler(self.fsyncs),
            },
        )

    async def echo(self, _request: bytes, _context: Context) -> bytes:
        """Answer with the bytes."""
        return self.payload

    async def set(self, request: bytes, _context: Context) -> bytes:
        """Take the bytes to answer with."""
        self.payload = request
        return b""

    async def watch(self, _request: bytes, context: Context) -> None:
        """Write once at the start and once per firing."""
        await context.write(b"ready")
        while True:
            await self._fired.wait()
            await context.write(self.payload)

    async def fire(self, _request: bytes, _context: Context) -> bytes:
        """Let every stream write; answer with the moment."""
        fired, self._fired = self._fired, asyncio.Event()
        fired_s = time.perf_counter()
        fired.set()
        return str(fired_s).encode()

    async def durable(self, _request: bytes, _context: Context) -> bytes:
        """Return the moment at which the store's last transaction was durable."""
        return str(self._report.durable_s).encode()

    async def fsyncs(self, _request: bytes, _context: Context) -> bytes:
        """Return how many transactions the store has made."""
        for family in metrics.STORE_FSYNCS.collect():
            for sample in family.samples:
                if sample.name == "grove_store_fsyncs_total":
                    return str(int(sample.value)).encode()
        return b"0"


async def _serve(pipe: Connection, data_dir: str, access_log: str) -> None:
    settings = load(["--listen", "127.0.0.1:0", "--data-dir", data_dir, "--access-log", access_log], {})
    report = _Report()
    store = SqliteStore(Path(data_dir) / "grove.db", codec, indexes=store_indexes(), observer=report)
    await store.open()
    clock = SystemClock()
    uids = iter(range(sys.maxsize))
    await seed_cluster(store, parse_cluster(CLUSTER), now=clock.now(), new_uid=lambda: f"node-{next(uids)}")
    rpcs = load_of(settings)
    plane = ControlPlane(store, clock, rpcs.busy)
    runtime = FakeRuntime(store, clock, note=plane.events.note)
    await runtime.start()
    plane.start()
    api = ApiServer(settings, store, placement=plane.planning, health=AlwaysHealthy(), load=rpcs)
    address = await api.start()
    bare = grpc.aio.server(options=[("grpc.so_reuseport", 0), ("grpc.server.max_pending_requests", 20_000)])
    bare.add_generic_rpc_handlers([_Bare(report).handlers()])
    port = bare.add_insecure_port("127.0.0.1:0")
    await bare.start()
    pipe.send(Host(str(address), f"127.0.0.1:{port}"))
    await asyncio.to_thread(pipe.poll, None)
    await bare.stop(0)
    await api.stop()
    await plane.stop()
    await runtime.stop()
    await store.close()


def _main(pipe: Connection, data_dir: str, access_log: str) -> None:
    # Lines go to a file, as they would in a service; a line per call costs what it costs there.
    with (Path(data_dir) / "server.log").open("w", encoding="utf-8") as stream:
        set_up_logs(log_format="json", stream=stream)
        uvloop.run(_serve(pipe, data_dir, access_log))


@contextmanager
def host(*, access_log: str = "default") -> Iterator[Host]:
    """Run the two servers in another process."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    with tempfile.TemporaryDirectory(prefix="grove-bench-") as data_dir:
        process = context.Process(target=_main, args=(theirs, data_dir, access_log), daemon=True)
        process.start()
        theirs.close()
        try:
            yield ours.recv()
        finally:
            ours.close()
            process.join(timeout=30)
            if process.is_alive():
                process.kill()
                process.join()
