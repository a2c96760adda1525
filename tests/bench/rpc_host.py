"""A server for the RPC benchmarks, in a process of its own: everything a real one has, and a bare echo beside it.

Both run on the same event loop in the same process, so what differs between them is ours. The echo is the barest
grpc.aio server there is: no parsing, no metrics, bytes in and the same bytes out.
"""

import asyncio
import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final, NamedTuple

import grpc

from grove_server.app import running
from grove_server.settings import load
from grove_server.store.engine import EmbeddedStore
from grove_server.telemetry import metrics
from grove_server.telemetry.logs import set_up_logs

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


class _Bare:
    """The echo, and a stream whose writes are set off by a call."""

    def __init__(self) -> None:
        self.payload = b""
        self.durable_s = 0.0
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
        return str(self.durable_s).encode()

    async def fsyncs(self, _request: bytes, _context: Context) -> bytes:
        """Return how many transactions the store has made."""
        for family in metrics.STORE_FSYNCS.collect():
            for sample in family.samples:
                if sample.name == "grove_store_fsyncs_total":
                    return str(int(sample.value)).encode()
        return b"0"


def _note_durability(store: EmbeddedStore, bare: _Bare) -> None:
    """Let *bare* know when something last became durable, before anything of it is visible."""
    report = store._observer.batch_durable

    def batch_durable(*, commits: int, changes: int, rows: int, payload_bytes: int, duration_s: float) -> None:
        bare.durable_s = time.perf_counter()
        report(commits=commits, changes=changes, rows=rows, payload_bytes=payload_bytes, duration_s=duration_s)

    store._observer.batch_durable = batch_durable  # type: ignore[method-assign]  # the one place that listens in


async def _serve(pipe: Connection, data_dir: str, access_log: str) -> None:
    cluster = Path(data_dir) / "cluster.yaml"
    cluster.write_text(CLUSTER, encoding="utf-8")
    arguments = ["--listen", "127.0.0.1:0", "--metrics-listen", "", "--access-log", access_log]
    arguments += ["--data-dir", data_dir, "--cluster", str(cluster)]
    async with running(load(arguments, {})) as server:
        bare = _Bare()
        _note_durability(server.store, bare)
        echo = grpc.aio.server(options=[("grpc.so_reuseport", 0), ("grpc.server.max_pending_requests", 20_000)])
        echo.add_generic_rpc_handlers([bare.handlers()])
        port = echo.add_insecure_port("127.0.0.1:0")
        await echo.start()
        pipe.send(Host(server.address, f"127.0.0.1:{port}"))
        await asyncio.to_thread(pipe.poll, None)
        await echo.stop(0)


def _main(pipe: Connection, data_dir: str, access_log: str) -> None:
    # Lines go to a file, as they would in a service; a line per call costs what it costs there.
    with (Path(data_dir) / "server.log").open("w", encoding="utf-8") as stream:
        set_up_logs(log_format="json", stream=stream)
        asyncio.run(_serve(pipe, data_dir, access_log))


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
