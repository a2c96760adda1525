"""A small HTTP server for probes and Prometheus: /metrics, /healthz, /readyz, nothing else.

HTTP/1.1, GET and HEAD, one request per connection. Everything is bounded: connections, request size, request time. The
page is made in a thread, because a large one takes longer than the event loop may be held.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from grove_server.telemetry.logs import get_logger
from grove_server.telemetry.metrics import INTERNAL_ERRORS, REGISTRY

REQUEST_BYTES_MAX: Final = 8 << 10
REQUEST_S_MAX: Final = 10.0
CONNECTIONS_MAX: Final = 64

_TEXT: Final = "text/plain; charset=utf-8"
_JSON: Final = "application/json"
_Answer = tuple[HTTPStatus, str, bytes]

_log = get_logger("http")


class ProbeServer:
    """Serves the three pages until `stop`."""

    def __init__(self, problems: Callable[[], Mapping[str, str]], registry: CollectorRegistry = REGISTRY) -> None:
        """``problems`` returns what is wrong by part; the server is ready while it returns nothing."""
        self._problems = problems
        self._registry = registry
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._before_page: list[Callable[[], None]] = []

    def before_page(self, refresh: Callable[[], None]) -> None:
        """Call *refresh* on the event loop before each page of metrics, for gauges that are read, not counted."""
        self._before_page.append(refresh)

    async def start(self, host: str, port: int) -> str:
        """Listen and return the address. Raises OSError."""
        self._server = await asyncio.start_server(self._accept, host, port, limit=REQUEST_BYTES_MAX)
        bound = self._server.sockets[0].getsockname()
        return f"[{bound[0]}]:{bound[1]}" if ":" in bound[0] else f"{bound[0]}:{bound[1]}"

    async def stop(self) -> None:
        """Close the listener and all connections."""
        if self._server is None:
            return
        self._server.close()
        for task in [*self._connections]:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()
        self._server = None

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None, "asyncio runs this as a task"
        self._connections.add(task)
        try:
            async with asyncio.timeout(REQUEST_S_MAX):
                if len(self._connections) > CONNECTIONS_MAX:
                    answer: _Answer = (HTTPStatus.SERVICE_UNAVAILABLE, _TEXT, b"too many connections\n")
                    await _send(writer, answer, with_body=True)
                else:
                    await self._serve(reader, writer)
        except (TimeoutError, ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            # Slow, gone, or the server stops: the connection is closed, and there is nobody to tell.
            pass
        finally:
            self._connections.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            await _send(writer, (HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, _TEXT, b""), with_body=True)
            return
        words = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):  # noqa: PLR2004 -- method, path, version
            answer: _Answer = (HTTPStatus.BAD_REQUEST, _TEXT, b"")
        elif words[0] not in ("GET", "HEAD"):
            answer = (HTTPStatus.METHOD_NOT_ALLOWED, _TEXT, b"")
        else:
            answer = await self._answer(words[1].partition("?")[0])
        await _send(writer, answer, with_body=words[0] != "HEAD")

    async def _answer(self, path: str) -> _Answer:
        try:
            match path:
                case "/healthz":
                    return (HTTPStatus.OK, _TEXT, b"ok\n")
                case "/readyz":
                    return self._ready()
                case "/metrics":
                    for refresh in self._before_page:
                        refresh()
                    page = await asyncio.to_thread(generate_latest, self._registry)
                    return (HTTPStatus.OK, CONTENT_TYPE_LATEST, page)
                case _:
                    return (HTTPStatus.NOT_FOUND, _TEXT, b"try /metrics, /healthz or /readyz\n")
        except Exception:  # noqa: BLE001 -- the outermost layer: a probe gets an answer, the log says what broke
            INTERNAL_ERRORS.labels("http").inc()
            _log.exception("page_failed", path=path)
            return (HTTPStatus.INTERNAL_SERVER_ERROR, _TEXT, b"internal error\n")

    def _ready(self) -> _Answer:
        """Say whether calls are served, and which parts are at fault; why they are is for the log."""
        problems = self._problems()
        body = json.dumps({"ready": not problems, "problems": sorted(problems)}).encode() + b"\n"
        return (HTTPStatus.SERVICE_UNAVAILABLE if problems else HTTPStatus.OK, _JSON, body)


async def _send(writer: asyncio.StreamWriter, answer: _Answer, *, with_body: bool) -> None:
    status, content_type, body = answer
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\n"
        f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    writer.write(head.encode("latin-1") + (body if with_body else b""))
    await writer.drain()
