"""Probes against real servers: what counts as a success, what as a failure, and that all of it has an end."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import (  # type: ignore[import-untyped]  # no stubs installed
    health,
    health_pb2,
    health_pb2_grpc,
)

from grove_server.runtime.process.pod_plan import (
    Exec,
    GrpcHealth,
    HttpGet,
    ProbeAction,
    ProbeKind,
    ProbePlan,
    Sleep,
    TcpSocket,
)
from grove_server.runtime.process.probes import ProbeResult
from grove_server.runtime.process.probing import BODY_BYTES_MAX, Prober
from grove_server.runtime.process.runs import ExecResult, LaunchError, Run
from tests.waiting import until

RUN = Run(
    pod_uid="u",
    namespace="default",
    pod_name="p",
    container="main",
    attempt=0,
    keeper_pid=1,
    keeper_ticks=1,
    pid=2,
    pid_ticks=2,
    started_at=0.0,
)
HOST = "127.0.0.1"
Answer = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


class Programs:
    """Runs the command as a plain child process, or refuses as told."""

    def __init__(self, refusal: LaunchError | None = None) -> None:
        self.refusal = refusal
        self.running = self.most_running = 0

    async def execute(
        self, run: Run, argv: Sequence[str], *, timeout_s: float, output_bytes_max: int = 1024
    ) -> ExecResult:
        """Run a command for *run* to its end."""
        assert run is RUN
        if self.refusal is not None:
            raise self.refusal
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        process = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
        try:
            output, _ = await asyncio.wait_for(process.communicate(), timeout_s)
        except TimeoutError:
            process.kill()
            await process.wait()
            return ExecResult(exit_code=137, output=b"", timed_out=True)
        finally:
            self.running -= 1
        assert process.returncode is not None
        return ExecResult(exit_code=process.returncode, output=output[:output_bytes_max], timed_out=False)


async def asked(action: ProbeAction, *, timeout_s: float = 5.0, programs: Programs | None = None) -> ProbeResult:
    """Return what a probe says."""
    prober = Prober(programs or Programs())
    result = await prober.ask(RUN, ProbePlan(kind=ProbeKind.READINESS, action=action, timeout_s=timeout_s))
    assert result is not None
    return result


@contextlib.asynccontextmanager
async def serving(answer: Answer, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Serve *answer* to each request's head, and yield the port."""
    handlers: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        handlers.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await answer(await reader.readuntil(b"\r\n\r\n"), writer)
                await writer.drain()
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    server = await asyncio.start_server(handle, HOST, 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in handlers:
            task.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)


def saying(*parts: bytes, heads: list[bytes] | None = None) -> Answer:
    """Return an answer of fixed bytes that notes what was asked."""

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        if heads is not None:
            heads.append(head)
        writer.writelines(parts)
        await writer.drain()

    return answer


async def silent(head: bytes, writer: asyncio.StreamWriter) -> None:
    """Never answer."""
    del head, writer
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("status", "is_success"), [(200, True), (204, True), (399, True), (400, False), (404, False), (500, False)]
)
async def test_http_statuses_from_200_to_399_are_successes(status: int, is_success: bool) -> None:
    """Everything from 200 to 399 is a success, anything else a failure that names the status."""
    async with serving(saying(b"HTTP/1.1 %d Word\r\nContent-Length: 0\r\n\r\n" % status)) as port:
        result = await asked(HttpGet(host=HOST, port=port))
    assert result == ProbeResult(is_success=is_success, message="" if is_success else f"HTTP status {status}")


async def test_a_request_carries_the_headers_of_the_manifest() -> None:
    """Path and headers are sent as they are; a Host header replaces ours, and the connection is closed."""
    heads: list[bytes] = []
    async with serving(saying(b"HTTP/1.0 200 OK\r\n\r\n", heads=heads)) as port:
        headers = (("X-Who", "probe"), ("Host", "model.example"))
        result = await asked(HttpGet(host=HOST, port=port, path="/health?deep=1", headers=headers))
    assert result.is_success
    lines = heads[0].decode().split("\r\n")
    assert lines[0] == "GET /health?deep=1 HTTP/1.1"
    assert {"X-Who: probe", "Host: model.example", "User-Agent: grove-probe", "Connection: close"} <= set(lines)
    assert [line for line in lines if line.startswith("Host:")] == ["Host: model.example"]


async def test_a_huge_body_is_not_read() -> None:
    """A body beyond the bound is left where it is; the status decides."""

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        del head
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n")
        while not writer.is_closing():
            writer.write(bytes(BODY_BYTES_MAX))
            await writer.drain()

    async with serving(answer) as port:
        assert (await asked(HttpGet(host=HOST, port=port))).is_success


async def test_a_chunked_answer_counts_by_its_status() -> None:
    """An answer without a length needs no end."""
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
    async with serving(saying(chunked)) as port:
        assert (await asked(HttpGet(host=HOST, port=port))).is_success


async def test_a_slow_answer_is_a_failure_in_time() -> None:
    """Whoever does not answer within the time limit fails, and costs no more than that."""
    began_at = time.monotonic()
    async with serving(silent) as port:
        result = await asked(HttpGet(host=HOST, port=port), timeout_s=0.1)
    assert result == ProbeResult(is_success=False, message="no answer within 0.1s")
    assert time.monotonic() - began_at < 5


async def test_a_head_without_an_end_is_a_failure() -> None:
    """More header lines than fit the bound end the probe."""
    endless = b"HTTP/1.1 200 OK\r\n" + b"X-Line: 1\r\n" * 20_000
    async with serving(saying(endless)) as port:
        result = await asked(HttpGet(host=HOST, port=port))
    assert not result.is_success
    assert "head of the answer" in result.message


@pytest.mark.parametrize("text", [b"SSH-2.0-OpenSSH\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"\r\n\r\n"])
async def test_what_is_no_http_is_a_failure(text: bytes) -> None:
    """An answer that is no HTTP is said to be none."""
    async with serving(saying(text)) as port:
        result = await asked(HttpGet(host=HOST, port=port))
    assert result == ProbeResult(is_success=False, message="the answer is no HTTP/1.1")


async def test_redirects_are_followed_on_the_same_host_only() -> None:
    """A redirect to the host itself is followed, and its status counts; one to elsewhere is a success unseen."""
    heads: list[bytes] = []

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        heads.append(head.split()[1])
        moves = {b"/here": b"/bad?x=1", b"/away": b"http://203.0.113.1/secret"}
        target = moves.get(heads[-1])
        writer.write(b"HTTP/1.1 302 Found\r\nLocation: %s\r\n\r\n" % target if target else b"HTTP/1.1 503 Down\r\n\r\n")

    async with serving(answer) as port:
        here = await asked(HttpGet(host=HOST, port=port, path="/here"))
        away = await asked(HttpGet(host=HOST, port=port, path="/away"))
    assert (here.message, away.is_success, heads) == ("HTTP status 503", True, [b"/here", b"/bad?x=1", b"/away"])


async def test_redirects_in_a_circle_come_to_an_end() -> None:
    """More than ten redirects are a failure."""
    async with serving(saying(b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n")) as port:
        result = await asked(HttpGet(host=HOST, port=port))
    assert result == ProbeResult(is_success=False, message="more than 10 redirects")


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    """Return the server's side of TLS, with a certificate that nobody vouches for."""
    folder: Path = tmp_path_factory.mktemp("tls")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=other.example", "-days", "1"]
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "certificate.pem")]
    subprocess.run([*command, *files], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    return context


async def test_https_takes_any_certificate(tls: ssl.SSLContext) -> None:
    """A certificate of another name that nobody signed is as good as any: the kubelet does not look at it."""
    async with serving(saying(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"), tls) as port:
        assert (await asked(HttpGet(host=HOST, port=port, scheme="HTTPS"))).is_success


async def test_https_to_a_server_without_tls_is_a_failure() -> None:
    """The words say that it was TLS that failed."""

    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(babble, HOST, 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        result = await asked(HttpGet(host=HOST, port=port, scheme="HTTPS"))
    assert not result.is_success
    assert result.message.startswith("TLS failed")


async def closed_port() -> int:
    """Return a port that nobody listens on."""
    server = await asyncio.start_server(lambda _r, _w: None, HOST, 0)
    port: int = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    return port


async def test_an_open_port_is_all_that_tcp_asks_for() -> None:
    """A connection that opens is a success; one that is refused is a failure, for each kind of probe."""
    async with serving(silent) as port:
        assert (await asked(TcpSocket(host=HOST, port=port))).is_success
    port = await closed_port()
    for action in (TcpSocket(host=HOST, port=port), HttpGet(host=HOST, port=port), GrpcHealth(host=HOST, port=port)):
        assert await asked(action) == ProbeResult(is_success=False, message="connection refused")


@pytest.fixture
async def grpc_port() -> AsyncIterator[int]:
    """Yield the port of a gRPC server with health statuses."""
    server = grpc.aio.server()
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port(f"{HOST}:0")
    await server.start()
    await servicer.set("bad", health_pb2.HealthCheckResponse.NOT_SERVING)
    await servicer.set("s" * 300, health_pb2.HealthCheckResponse.SERVING)
    yield port
    await server.stop(None)


@pytest.mark.parametrize(
    ("service", "message"),
    [
        ("", ""),
        ("s" * 300, ""),
        ("bad", "the health status is NOT_SERVING"),
        ("unknown", "the server answers NOT_FOUND"),
    ],
)
async def test_grpc_health_is_what_the_server_says(grpc_port: int, service: str, message: str) -> None:
    """SERVING is a success; any other status, and an error of the call, is a failure with its name."""
    result = await asked(GrpcHealth(host=HOST, port=grpc_port, service=service))
    assert result == ProbeResult(is_success=message == "", message=message)


async def test_a_grpc_server_without_health_is_a_failure() -> None:
    """A server that does not know the service says so."""
    server = grpc.aio.server()
    port = server.add_insecure_port(f"{HOST}:0")
    await server.start()
    result = await asked(GrpcHealth(host=HOST, port=port))
    await server.stop(None)
    assert result == ProbeResult(is_success=False, message="the server answers UNIMPLEMENTED")


async def test_what_speaks_no_http2_is_a_failure() -> None:
    """A server of HTTP/1.1 is told from one of gRPC."""
    async with serving(saying(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as port:
        result = await asked(GrpcHealth(host=HOST, port=port))
    assert result == ProbeResult(is_success=False, message="the answer is no HTTP/2")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("true",), ""),
        (("sh", "-c", "echo not yet; exit 3"), "the command ended with exit code 3: not yet"),
        (("sleep", "60"), "the command did not end within 0.3s"),
    ],
)
async def test_a_program_succeeds_with_exit_code_0_in_time(argv: tuple[str, ...], message: str) -> None:
    """Any other exit code is a failure with what the program said, and so is taking too long."""
    result = await asked(Exec(argv=argv), timeout_s=0.3 if argv[0] == "sleep" else 10)
    assert result == ProbeResult(is_success=message == "", message=message)


async def test_a_program_that_cannot_be_started_is_a_failure() -> None:
    """A program that is not there fails its probe; a launcher that is away says nothing of the container."""
    missing = Programs(LaunchError("CommandNotFound", "no such file: x"))
    assert (await asked(Exec(argv=("x",)), programs=missing)).message == "CommandNotFound: no such file: x"
    away = Prober(Programs(LaunchError("LauncherUnavailable", "it starts anew")))
    assert await away.ask(RUN, ProbePlan(kind=ProbeKind.LIVENESS, action=Exec(argv=("x",)))) is None


async def test_so_many_programs_run_at_once_and_no_more() -> None:
    """The others wait, and their time begins when they are started."""
    programs = Programs()
    prober = Prober(programs, exec_max=2)
    probe = ProbePlan(kind=ProbeKind.LIVENESS, action=Exec(argv=("true",)), timeout_s=5)
    results = await asyncio.gather(*(prober.ask(RUN, probe) for _ in range(6)))
    assert all(result is not None and result.is_success for result in results)
    assert programs.most_running == 2


async def test_hooks_hold_back_no_probe(tmp_path: Path) -> None:
    """However many hooks take their time, probes are asked: hooks do not count among the programs at once."""
    programs = Programs()
    prober = Prober(programs, exec_max=1)
    wait_for_it = Exec(argv=("sh", "-c", f"while ! test -e {tmp_path}/go; do sleep 0.01; done"))
    hooks = [asyncio.create_task(prober.run_hook(RUN, wait_for_it, timeout_s=30)) for _ in range(2)]
    probe = ProbePlan(kind=ProbeKind.LIVENESS, action=Exec(argv=("true",)), timeout_s=10)
    await until(lambda: programs.running >= 1, what="a hook runs")
    async with asyncio.timeout(10):
        assert await prober.ask(RUN, probe) == ProbeResult(is_success=True)
    (tmp_path / "go").touch()
    assert await asyncio.gather(*hooks) == ["", ""]


async def test_hooks_say_what_went_wrong() -> None:
    """A hook that runs to its end says nothing; an HTTP hook takes any status, as the kubelet does."""
    prober = Prober(Programs())
    assert await prober.run_hook(RUN, Exec(argv=("true",)), timeout_s=5) == ""
    assert await prober.run_hook(RUN, Exec(argv=("false",)), timeout_s=5) == "the command ended with exit code 1"
    async with serving(saying(b"HTTP/1.1 500 No\r\n\r\n")) as port:
        assert await prober.run_hook(RUN, HttpGet(host=HOST, port=port), timeout_s=5) == ""


async def test_a_hook_sleeps_no_longer_than_it_may() -> None:
    """A hook that sleeps takes its time, or what the grace period leaves of it."""
    slept: list[float] = []

    async def sleep(duration_s: float) -> None:
        slept.append(duration_s)

    prober = Prober(Programs(), sleep=sleep)
    for timeout_s in (30, 4):
        assert await prober.run_hook(RUN, Sleep(duration_s=9), timeout_s=timeout_s) == ""
    assert slept == [9, 4]
