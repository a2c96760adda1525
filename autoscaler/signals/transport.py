"""A small HTTP/1.1 client for sources of signals: few connections, many short questions, a bound on everything.

Written here because the autoscaler has to be up in half a second, and the libraries that could do it cost a large part
of that before the first byte. It knows what Prometheus and engines speak: GET and POST, bodies with a length, in
chunks, or until the end of the connection; TLS; connections that are used again. A question has one deadline for
everything, from connecting to the last byte, so that a peer that sends one byte now and then holds nobody.

Not here on purpose: redirects (they would carry credentials elsewhere), cookies, proxies, compression (``identity`` is
asked for: unpacking costs more processor time than a local network costs).
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import SplitResult, urlsplit

from autoscaler.signals.access import Access, AccessFiles
from autoscaler.signals.failures import Failure, SourceError

HEAD_BYTES_MAX: Final = 32 << 10
HEADER_COUNT_MAX: Final = 100
# One read; the event loop is free between two.
_PIECE_BYTES: Final = 64 << 10
_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportLimits:
    """Bounds of one client. ``idle_connections_max`` is over all hosts; the one used longest ago is closed first."""

    body_bytes_max: int = 32 << 20
    connections_max: int = 64
    idle_connections_max: int = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back: any status, the content type in lower case, the whole body."""

    status: int
    content_type: str
    body: bytes


@dataclass(slots=True)
class _Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    context: ssl.SSLContext | None
    uses: int = 0


@dataclass(slots=True)
class _Head:
    status: int
    headers: dict[str, str] = field(default_factory=dict)
    keeps_open: bool = True


class _LostError(Exception):
    """A connection that was kept had been closed by the other side before it answered anything."""


class Transport:
    """Asks questions over HTTP until `close`."""

    def __init__(self, *, files: AccessFiles | None = None, limits: TransportLimits | None = None) -> None:
        self._access = Access(files or AccessFiles())
        self._limits = limits or TransportLimits()
        self._slots = asyncio.Semaphore(self._limits.connections_max)
        self._idle: OrderedDict[tuple[str, str, int], list[_Connection]] = OrderedDict()
        self._is_closed = False

    async def get(self, url: str, *, timeout_s: float, headers: Mapping[str, str] | None = None) -> Answer:
        """Return the answer to a GET. Raises SourceError."""
        return await self._ask("GET", url, b"", timeout_s=timeout_s, headers=headers or {})

    async def post(self, url: str, form: bytes, *, timeout_s: float) -> Answer:
        """Return the answer to a POST of an encoded form; it must be one that may come twice. Raises SourceError."""
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        return await self._ask("POST", url, form, timeout_s=timeout_s, headers=headers)

    async def close(self) -> None:
        """Close all idle connections; those in use close when their question ends."""
        self._is_closed = True
        for connections in self._idle.values():
            for connection in connections:
                _abandon(connection)
        self._idle.clear()

    async def _ask(self, method: str, url: str, body: bytes, *, timeout_s: float, headers: Mapping[str, str]) -> Answer:
        target = _target(url)
        self._access.check_target(target)
        request = _request(method, target, body, headers, self._access.authorization())
        try:
            # The wait for a slot is part of the time: many slow peers must not make a queue without end.
            async with asyncio.timeout(timeout_s), self._slots:
                try:
                    return await self._exchange(target, request)
                except _LostError:
                    return await self._exchange(target, request, fresh=True)
        except TimeoutError:
            raise SourceError(Failure.TIMEOUT, f"{target.netloc} did not answer within {timeout_s:g} s") from None
        except _LostError:
            raise SourceError(Failure.UNREACHABLE, f"{target.netloc} closed the connection") from None

    async def _exchange(self, target: SplitResult, request: bytes, *, fresh: bool = False) -> Answer:
        place = (target.scheme, target.hostname or "", _port(target))
        context = self._access.tls() if target.scheme == "https" else None
        connection = (None if fresh else self._take(place, context)) or await _connect(place, context)
        keeps_open = False
        try:
            answer, keeps_open = await self._converse(connection, request, target.netloc)
        except (OSError, asyncio.IncompleteReadError) as error:
            raise SourceError(Failure.UNREACHABLE, f"{target.netloc} broke off: {type(error).__name__}") from error
        except asyncio.LimitOverrunError:
            raise SourceError(Failure.MALFORMED, f"{target.netloc} sent a line that is too long") from None
        finally:
            if keeps_open and not self._is_closed:
                self._keep(place, connection)
            else:
                _abandon(connection)
        return answer

    async def _converse(self, connection: _Connection, request: bytes, peer: str) -> tuple[Answer, bool]:
        was_used = connection.uses > 0
        connection.uses += 1
        try:
            connection.writer.write(request)
            await connection.writer.drain()
            raw_head = await connection.reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            if was_used and not error.partial:
                raise _LostError from None
            raise
        except ConnectionError:
            if was_used:
                raise _LostError from None
            raise
        head = _parse_head(raw_head, peer)
        body = await self._body(connection.reader, head, peer)
        return Answer(status=head.status, content_type=head.headers.get("content-type", "").lower(), body=body), (
            head.keeps_open
        )

    async def _body(self, reader: asyncio.StreamReader, head: _Head, peer: str) -> bytes:
        if head.status in (204, 304):
            return b""
        coding = head.headers.get("content-encoding", "identity").lower()
        if coding not in ("", "identity"):
            raise SourceError(Failure.MALFORMED, f"{peer} packed its answer ({coding[:20]!r}) though not asked to")
        transfer = head.headers.get("transfer-encoding", "").lower()
        if transfer == "chunked":
            return await self._chunks(reader, peer)
        if transfer:
            raise SourceError(Failure.MALFORMED, f"{peer} sends in a way that is not known: {transfer[:20]!r}")
        length = head.headers.get("content-length")
        if length is None:
            head.keeps_open = False
            return await self._rest(reader, peer)
        size = _number(length, 10, peer)
        self._check_size(size, peer)
        pieces: list[bytes] = []
        await _read_into(pieces, reader, size)
        return b"".join(pieces)

    async def _chunks(self, reader: asyncio.StreamReader, peer: str) -> bytes:
        pieces: list[bytes] = []
        total = 0
        while True:
            line = await reader.readuntil(b"\r\n")
            size = _number(line.split(b";", 1)[0].strip().decode("latin-1"), 16, peer)
            total += size
            self._check_size(total, peer)
            if size == 0:
                for _ in range(HEADER_COUNT_MAX):
                    if await reader.readuntil(b"\r\n") == b"\r\n":
                        return b"".join(pieces)
                raise SourceError(Failure.MALFORMED, f"{peer} sent too many trailing lines")
            await _read_into(pieces, reader, size)
            if await reader.readexactly(2) != b"\r\n":
                raise SourceError(Failure.MALFORMED, f"{peer} sent a chunk without its end")

    async def _rest(self, reader: asyncio.StreamReader, peer: str) -> bytes:
        pieces: list[bytes] = []
        total = 0
        while piece := await reader.read(_PIECE_BYTES):
            pieces.append(piece)
            total += len(piece)
            self._check_size(total, peer)
        return b"".join(pieces)

    def _check_size(self, size: int, peer: str) -> None:
        if size > self._limits.body_bytes_max:
            raise SourceError(
                Failure.TOO_LARGE, f"{peer} sent more than {self._limits.body_bytes_max} bytes; the rest is not read"
            )

    def _take(self, place: tuple[str, str, int], context: ssl.SSLContext | None) -> _Connection | None:
        connections = self._idle.get(place, [])
        found: _Connection | None = None
        while connections and found is None:
            connection = connections.pop()
            # A connection made with certificates that have been replaced is not used again.
            if connection.context is context and not connection.reader.at_eof() and not connection.writer.is_closing():
                found = connection
            else:
                _abandon(connection)
        if not connections:
            self._idle.pop(place, None)
        return found

    def _keep(self, place: tuple[str, str, int], connection: _Connection) -> None:
        self._idle.setdefault(place, []).append(connection)
        self._idle.move_to_end(place)
        while sum(map(len, self._idle.values())) > self._limits.idle_connections_max:
            oldest = next(iter(self._idle))
            _abandon(self._idle[oldest].pop(0))
            if not self._idle[oldest]:
                del self._idle[oldest]


async def _connect(place: tuple[str, str, int], context: ssl.SSLContext | None) -> _Connection:
    _, host, port = place
    try:
        reader, writer = await asyncio.open_connection(host, port, ssl=context, limit=HEAD_BYTES_MAX)
    except ssl.SSLError as error:
        raise SourceError(Failure.CREDENTIALS, f"no TLS with {host}:{port}: {error.reason or 'failed'}") from error
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise SourceError(Failure.UNREACHABLE, f"{host}:{port} cannot be reached: {why}") from error
    return _Connection(reader, writer, context)


def _abandon(connection: _Connection) -> None:
    with contextlib.suppress(OSError, RuntimeError):
        connection.writer.transport.abort()


def _target(url: str) -> SplitResult:
    """Return the parts of a URL. Raises SourceError for what is no plain http or https address."""
    try:
        target = urlsplit(url)
        port = _port(target)
    except (ValueError, KeyError):
        raise SourceError(Failure.REFUSED, f"{url[:200]!r} is no http or https address") from None
    if target.scheme not in _PORTS or not target.hostname or not 0 < port < 1 << 16 or target.username is not None:
        raise SourceError(Failure.REFUSED, f"{url[:200]!r} is no http or https address without a user")
    if not url.isascii() or any(letter <= " " or letter == "\x7f" for letter in url):
        raise SourceError(Failure.REFUSED, f"{url[:200]!r} has characters that do not belong in an address")
    return target


def _port(target: SplitResult) -> int:
    return target.port if target.port is not None else _PORTS[target.scheme]


def _request(method: str, target: SplitResult, body: bytes, headers: Mapping[str, str], authorization: str) -> bytes:
    path = (target.path or "/") + (f"?{target.query}" if target.query else "")
    lines = [f"{method} {path} HTTP/1.1", f"Host: {target.netloc}", "User-Agent: grove-autoscaler"]
    lines += ["Accept-Encoding: identity", *(f"{name}: {value}" for name, value in headers.items())]
    if authorization:
        lines.append(f"Authorization: {authorization}")
    if method != "GET":
        lines.append(f"Content-Length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8") + body


def _parse_head(raw: bytes, peer: str) -> _Head:
    first, *lines = raw.decode("latin-1").split("\r\n")[:-2]
    words = first.split(" ", 2)
    if len(lines) > HEADER_COUNT_MAX or len(words) < 2 or not words[0].startswith("HTTP/1."):  # noqa: PLR2004 -- version, status
        raise SourceError(Failure.MALFORMED, f"{peer} does not speak HTTP/1.1")
    headers: dict[str, str] = {}
    for line in lines:
        name, mark, value = line.partition(":")
        name = name.lower()
        if not mark or (name == "content-length" and headers.get(name, value.strip()) != value.strip()):
            raise SourceError(Failure.MALFORMED, f"{peer} sent a header that cannot be read")
        headers[name] = value.strip()
    said = headers.get("connection", "").lower()
    keeps_open = "keep-alive" in said if words[0] == "HTTP/1.0" else "close" not in said
    return _Head(status=_number(words[1], 10, peer), headers=headers, keeps_open=keeps_open)


def _number(text: str, base: int, peer: str) -> int:
    """Return a number of few plain digits; `int` would take signs, spaces and underscores too."""
    if not 0 < len(text) <= 15 or not text.isascii() or not text.isalnum():  # noqa: PLR2004 -- far over any size allowed
        raise SourceError(Failure.MALFORMED, f"{peer} sent a number that cannot be read: {text[:20]!r}")
    try:
        return int(text, base)
    except ValueError:
        raise SourceError(Failure.MALFORMED, f"{peer} sent a number that cannot be read: {text[:20]!r}") from None


async def _read_into(pieces: list[bytes], reader: asyncio.StreamReader, size: int) -> None:
    while size:
        piece = await reader.read(min(size, _PIECE_BYTES))
        if not piece:
            raise asyncio.IncompleteReadError(b"", size)
        pieces.append(piece)
        size -= len(piece)
