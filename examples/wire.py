"""HTTP/1.1 as far as the examples need it, both ends, on asyncio's streams.

One request per connection; what is answered in pieces goes out chunked, so that tokens are seen as they are made.
Heads, bodies and the time to send them are bounded. Not here: TLS, keep-alive, compression, trailers.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

HEAD_BYTES_MAX: Final = 16 * 1024
BODY_BYTES_MAX: Final = 16 * 1024 * 1024
REQUEST_PATIENCE_S: Final = 30.0
CONNECTIONS_MAX: Final = 8_192
JSON: Final = "application/json"
OK: Final = 200
_REASONS: Final = {
    OK: "OK",
    400: "Bad Request",
    404: "Not Found",
    408: "Request Timeout",
    413: "Content Too Large",
    502: "Bad Gateway",
    503: "Service Unavailable",
}


class WireError(Exception):
    """The other end did not speak HTTP as it should, or hung up; ``status`` is what a server answers to it."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What was asked."""

    method: str
    path: str
    body: bytes


class Reply:
    """What is answered: either all at once with ``whole``, or ``start`` and then pieces."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self.is_started = False

    async def whole(self, status: int, body: bytes, content_type: str = JSON) -> None:
        """Answer with one body."""
        self.is_started = True
        self._writer.write(_head(status, content_type, f"Content-Length: {len(body)}") + body)
        await self._writer.drain()

    async def refuse(self, status: int, message: str) -> None:
        """Answer with an error in OpenAI's shape."""
        await self.whole(status, json.dumps({"error": {"message": message, "code": status}}).encode())

    async def start(self, status: int, content_type: str) -> None:
        """Send the head of an answer that comes in pieces."""
        self.is_started = True
        self._writer.write(_head(status, content_type, "Transfer-Encoding: chunked"))
        await self._writer.drain()

    async def send(self, piece: bytes) -> None:
        """Send a piece; ConnectionError if the client hung up."""
        if piece:
            self._writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            await self._writer.drain()

    async def finish(self) -> None:
        """Say that no more pieces come; without it the client knows that its answer is cut off."""
        self._writer.write(b"0\r\n\r\n")
        await self._writer.drain()


Handler = Callable[[Request, Reply], Awaitable[None]]


class HttpServer:
    """Serves requests, each in a task of its own, until it is closed; then what is under way is finished first."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._under_way: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def listen(self, host: str, port: int) -> int:
        """Serve on an address (port 0: any) and return the port."""
        self._server = await asyncio.start_server(self._accept, host, port, limit=HEAD_BYTES_MAX, backlog=1024)
        address: tuple[str, int] = self._server.sockets[0].getsockname()[:2]
        return address[1]

    async def close(self, grace_s: float) -> int:
        """Take no more connections, wait for those there are, and return how many had to be cut off."""
        if self._server is not None:
            self._server.close()
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=grace_s)
        left = [task for task in self._under_way if not task.done()]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        return len(left)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._under_way.add(task)
        reply = Reply(writer)
        try:
            if len(self._under_way) > CONNECTIONS_MAX:
                await reply.refuse(503, "too many connections")
                return
            try:
                async with asyncio.timeout(REQUEST_PATIENCE_S):
                    request = await _request(reader)
            except TimeoutError:
                await reply.refuse(408, "the request did not come in time")
                return
            except WireError as error:
                await reply.refuse(error.status, str(error))
                return
            if request is not None:
                await self._answer(request, reader, reply)
        except (ConnectionError, asyncio.CancelledError):
            # The client hung up, or the server is closed: nobody is left to be told.
            writer.transport.abort()
        finally:
            self._under_way.discard(task)
            writer.close()

    async def _answer(self, request: Request, reader: asyncio.StreamReader, reply: Reply) -> None:
        """Let the handler answer, and cancel it when the client hangs up before that is done."""
        answering = asyncio.ensure_future(self._handler(request, reply))
        leaving = asyncio.create_task(_end(reader))
        try:
            await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
            if not answering.done():
                answering.cancel()
            await answering


class Answer:
    """What came back: status and, piece by piece, the body."""

    def __init__(self, status: int, headers: Mapping[str, str], reader: asyncio.StreamReader) -> None:
        self.status = status
        self.headers = headers
        self._reader = reader

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the body as it comes; WireError if it is cut off."""
        try:
            if self.headers.get("transfer-encoding") == "chunked":
                while size := int(await self._reader.readuntil(b"\r\n"), 16):
                    if size > BODY_BYTES_MAX:
                        raise WireError("a piece is too large", 502)
                    yield (await self._reader.readexactly(size + 2))[:-2]
                await self._reader.readuntil(b"\r\n")
                return
            left = int(self.headers.get("content-length", "0"))
            while left:
                piece = await self._reader.read(min(left, 65_536))
                if not piece:
                    raise WireError("the answer is cut off", 502)
                left -= len(piece)
                yield piece
        except (EOFError, ConnectionError, ValueError, asyncio.LimitOverrunError) as error:
            raise WireError(f"the answer is cut off: {type(error).__name__}", 502) from None

    async def whole(self) -> bytes:
        """Return the whole body; WireError."""
        body = bytearray()
        async for piece in self.pieces():
            body += piece
            if len(body) > BODY_BYTES_MAX:
                raise WireError("the answer is too large", 502)
        return bytes(body)


@asynccontextmanager
async def asked(
    host: str, port: int, method: str, path: str, body: bytes = b"", *, patience_s: float = 10.0
) -> AsyncIterator[Answer]:
    """Ask and give the answer once its head is there; *patience_s* is for connecting alone. WireError, OSError."""
    async with asyncio.timeout(patience_s):
        reader, writer = await asyncio.open_connection(host, port, limit=HEAD_BYTES_MAX)
    try:
        head = f"{method} {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: {len(body)}\r\n"
        writer.write(f"{head}Content-Type: {JSON}\r\nConnection: close\r\n\r\n".encode() + body)
        await writer.drain()
        first, headers = await _read_head(reader)
        if not first:
            raise WireError("there is no answer", 502)
        status = first.split(" ")[1:2]
        if not status or not status[0].isdigit():
            raise WireError("this is no HTTP", 502)
        yield Answer(int(status[0]), headers, reader)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _request(reader: asyncio.StreamReader) -> Request | None:
    """Return the request of a connection, None if its client hung up before it said anything."""
    first, headers = await _read_head(reader)
    if not first:
        return None
    words = first.split(" ")
    if len(words) != 3:  # noqa: PLR2004 -- method, path, version
        raise WireError("the request line cannot be read")
    length = headers.get("content-length", "0")
    if not length.isdigit():
        raise WireError("a request needs Content-Length")
    if int(length) > BODY_BYTES_MAX:
        raise WireError(f"more than {BODY_BYTES_MAX} bytes", 413)
    try:
        body = await reader.readexactly(int(length))
    except asyncio.IncompleteReadError:
        raise WireError("the body is cut off") from None
    return Request(method=words[0], path=words[1], body=body)


async def _read_head(reader: asyncio.StreamReader) -> tuple[str, dict[str, str]]:
    """Return the first line and the headers, by lower-case names; an empty line if the other end hung up."""
    try:
        text = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.LimitOverrunError:
        raise WireError(f"a head of more than {HEAD_BYTES_MAX} bytes") from None
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise WireError("the head is cut off") from None
        return "", {}
    first, *lines = text.removesuffix("\r\n\r\n").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return first, {name.strip().lower(): value.strip() for name, _, value in pairs}


async def _end(reader: asyncio.StreamReader) -> None:
    """Return when the other end has hung up."""
    with contextlib.suppress(ConnectionError):
        while await reader.read(HEAD_BYTES_MAX):
            pass


def _head(status: int, content_type: str, framing: str) -> bytes:
    reason = _REASONS.get(status, "Status")
    return (
        f"HTTP/1.1 {status} {reason}\r\nContent-Type: {content_type}\r\n{framing}\r\nConnection: close\r\n\r\n".encode()
    )
