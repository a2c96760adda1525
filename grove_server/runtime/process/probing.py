"""Asks probes and runs hooks of real processes: over HTTP, TCP and gRPC, or with a program beside the container.

Sources: the kubelet's probes (pkg/probe) and lifecycle handlers (pkg/kubelet/lifecycle):

* HTTP: 200 to 399 is a success. Redirects are followed on the same host, ten at most; one to another host is a success
  without going there. Certificates are not verified. Of a body at most 10 KiB are read.
* TCP: a connection that opens. gRPC: SERVING. Exec: exit code 0.
* An HTTP hook succeeds with any answer, as the kubelet has it.

Rules: each question has its own connection and its own time limit, which begins when it is really asked: at most
``exec_max`` programs run at once for probes, others wait for their turn; hooks wait for nobody. Nothing raises; a
failure is said in words.

Not here: when to ask and what follows (``probes``, ``pod_course``).
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple, Protocol
from urllib.parse import urljoin, urlsplit

from grove_server.runtime.process import grpc_health
from grove_server.runtime.process.pod_plan import Exec, GrpcHealth, HookAction, HttpGet, ProbePlan, Sleep, TcpSocket
from grove_server.runtime.process.probes import ProbeResult
from grove_server.runtime.process.runs import ExecResult, LaunchError, Run

# As the kubelet's: what is read of a body, and of a program's output.
BODY_BYTES_MAX: Final = 10 * 1024
OUTPUT_BYTES_MAX: Final = 10 * 1024
_HEAD_BYTES_MAX: Final = 64 * 1024
_REDIRECTS_MAX: Final = 10
_MESSAGE_LENGTH_MAX: Final = 256
_REDIRECTS: Final = (301, 302, 303, 307, 308)
_SUCCESS: Final = range(200, 400)
_EXEC_MAX: Final = 16

_OK: Final = ProbeResult(is_success=True)


class Executor(Protocol):
    """Who runs programs beside containers: the launcher."""

    async def execute(
        self, run: Run, argv: Sequence[str], *, timeout_s: float, output_bytes_max: int = ...
    ) -> ExecResult:
        """Run a command in a container; raise LaunchError if it cannot be started."""


class _ProbeError(Exception):
    """The question came to no success; the text says why."""


class _Head(NamedTuple):
    status: int
    location: str
    length: int | None


class Prober:
    """Asks on behalf of all pods of this machine."""

    def __init__(
        self,
        executor: Executor,
        *,
        exec_max: int = _EXEC_MAX,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Run programs with *executor*, *exec_max* at once for probes; *sleep* is how long a hook that sleeps takes."""
        self._executor = executor
        self._programs = asyncio.Semaphore(exec_max)
        self._sleep = sleep
        self._tls = ssl.create_default_context()
        self._tls.check_hostname = False
        self._tls.verify_mode = ssl.CERT_NONE

    async def ask(self, run: Run, probe: ProbePlan) -> ProbeResult | None:
        """Return what *probe* says of *run* now; None if it could not be asked, which says nothing of the container."""
        try:
            await self._act(run, probe.action, probe.timeout_s, is_hook=False)
        except _ProbeError as error:
            return ProbeResult(is_success=False, message=str(error)[:_MESSAGE_LENGTH_MAX])
        except LaunchError as error:
            if error.reason == "LauncherUnavailable":
                return None
            return ProbeResult(is_success=False, message=f"{error.reason}: {error.message}"[:_MESSAGE_LENGTH_MAX])
        return _OK

    async def run_hook(self, run: Run, action: HookAction, *, timeout_s: float) -> str:
        """Run a hook of *run* to its end, at most *timeout_s* seconds; return what went wrong, "" if nothing did."""
        try:
            if isinstance(action, Sleep):
                await self._sleep(min(action.duration_s, timeout_s))
            else:
                await self._act(run, action, timeout_s, is_hook=True)
        except _ProbeError as error:
            return str(error)[:_MESSAGE_LENGTH_MAX]
        except LaunchError as error:
            return f"{error.reason}: {error.message}"[:_MESSAGE_LENGTH_MAX]
        return ""

    async def _act(
        self, run: Run, action: HttpGet | TcpSocket | Exec | GrpcHealth, timeout_s: float, *, is_hook: bool
    ) -> None:
        if isinstance(action, Exec):
            if is_hook:
                # Hooks may take as long as a grace period; there is one at most for each container.
                await self._execute(run, action, timeout_s)
                return
            async with self._programs:
                await self._execute(run, action, timeout_s)
            return
        try:
            async with asyncio.timeout(timeout_s):
                match action:
                    case HttpGet():
                        await self._get(action, takes_any=is_hook)
                    case TcpSocket():
                        _, writer = await asyncio.open_connection(action.host, action.port)
                        writer.close()
                    case GrpcHealth():
                        await _check_health(action, timeout_s)
        except TimeoutError as error:
            raise _ProbeError(f"no answer within {timeout_s:g}s") from error
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
            raise _ProbeError(_words(error)) from error

    async def _execute(self, run: Run, action: Exec, timeout_s: float) -> None:
        result = await self._executor.execute(run, action.argv, timeout_s=timeout_s, output_bytes_max=OUTPUT_BYTES_MAX)
        if result.timed_out:
            raise _ProbeError(f"the command did not end within {timeout_s:g}s")
        if result.exit_code != 0:
            output = result.output.decode("utf-8", "replace").strip()
            raise _ProbeError(f"the command ended with exit code {result.exit_code}" + (output and f": {output}"))

    async def _get(self, action: HttpGet, *, takes_any: bool) -> None:
        scheme, host, port, path = action.scheme.lower(), action.host, action.port, action.path
        for _ in range(_REDIRECTS_MAX + 1):
            head = await self._request(action, scheme, host, port, path)
            if takes_any:
                return
            if head.status not in _SUCCESS:
                raise _ProbeError(f"HTTP status {head.status}")
            if head.status not in _REDIRECTS or not head.location:
                return
            target = urlsplit(urljoin(f"{scheme}://{_authority(host, port)}{path}", head.location))
            if target.hostname != host.lower() or target.scheme not in ("http", "https"):
                # What is elsewhere is not asked for this container's health.
                return
            scheme = target.scheme
            port = target.port or (443 if scheme == "https" else 80)
            path = (target.path or "/") + (f"?{target.query}" if target.query else "")
        raise _ProbeError(f"more than {_REDIRECTS_MAX} redirects")

    async def _request(self, action: HttpGet, scheme: str, host: str, port: int, path: str) -> _Head:
        is_tls = scheme == "https"
        given = {name.lower(): value for name, value in action.headers}
        name = given.get("host", "").rpartition(":")[0] or given.get("host", "") or host
        reader, writer = await asyncio.open_connection(
            host,
            port,
            limit=_HEAD_BYTES_MAX,
            ssl=self._tls if is_tls else None,
            server_hostname=name if is_tls else None,
        )
        try:
            writer.write(_request_bytes(action, host, port, path, given))
            head = _read_head(await reader.readuntil(b"\r\n\r\n"))
            # A body that is short is taken, so that no server finds its answer cut; of others nobody needs the rest.
            if head.length is not None and head.length <= BODY_BYTES_MAX:
                await reader.readexactly(head.length)
            return head
        finally:
            if is_tls:
                # The farewell of TLS may take as long as the other side likes.
                writer.transport.abort()
            else:
                writer.close()


async def _check_health(action: GrpcHealth, timeout_s: float) -> None:
    reader, writer = await asyncio.open_connection(action.host, action.port, limit=_HEAD_BYTES_MAX)
    try:
        status = await grpc_health.check(
            reader,
            writer,
            authority=_authority(action.host, action.port),
            service=action.service,
            timeout_s=timeout_s,
        )
    except grpc_health.GrpcHealthError as error:
        raise _ProbeError(str(error)) from error
    finally:
        writer.close()
    if status != grpc_health.SERVING:
        raise _ProbeError(f"the health status is {status}")


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _request_bytes(action: HttpGet, host: str, port: int, path: str, given: dict[str, str]) -> bytes:
    lines = [f"GET {path} HTTP/1.1"]
    if "host" not in given:
        lines.append(f"Host: {_authority(host, port)}")
    if "user-agent" not in given:
        lines.append("User-Agent: grove-probe")
    if "accept" not in given:
        lines.append("Accept: */*")
    lines += [f"{name}: {value}" for name, value in action.headers if name.lower() != "connection"]
    lines.append("Connection: close")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8")


def _read_head(head: bytes) -> _Head:
    """Return what matters of the head of an answer; raise _ProbeError if it is none."""
    lines = head.decode("latin-1").split("\r\n")
    version, _, rest = lines[0].partition(" ")
    status = rest[:3]
    if not version.startswith("HTTP/1.") or not (status.isascii() and status.isdigit() and len(status) == 3):  # noqa: PLR2004 -- three digits (RFC 9112)
        raise _ProbeError("the answer is no HTTP/1.1")
    location = ""
    length = None
    for line in lines[1:]:
        name, _, value = line.partition(":")
        match name.lower():
            case "location":
                location = value.strip()
            case "content-length":
                text = value.strip()
                length = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None  # noqa: PLR2004 -- more digits than any length has
            case _:
                pass
    return _Head(int(status), location, length)


def _words(error: Exception) -> str:
    match error:
        case ConnectionRefusedError():
            return "connection refused"
        case ssl.SSLError():
            return f"TLS failed: {error.reason or error}"
        case asyncio.IncompleteReadError():
            return "the connection was closed before the answer was whole"
        case asyncio.LimitOverrunError():
            return f"the head of the answer is longer than {_HEAD_BYTES_MAX} bytes"
        case OSError() if error.strerror:
            return error.strerror
        case _:
            return str(error) or type(error).__name__
