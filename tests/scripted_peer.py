"""A peer on loopback that says exactly what a test wrote for it: the lies and accidents that sources of signals tell.

Each request is read whole (head, and a body with a length) and kept; the answer is bytes, or a coroutine function that
writes what it likes to the stream. After each answer the connection stays open unless the script closes it.
"""

import asyncio
import contextlib
import re
import ssl
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final, Self

_LENGTH: Final = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
Talk = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


def answer(body: bytes, *, status: str = "200 OK", kind: str = "application/json") -> bytes:
    """Return a whole HTTP answer."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


class ScriptedPeer:
    """Answers each request with ``say`` (bytes, or a function that talks), which a test may change at any time."""

    def __init__(self, say: bytes | Talk, *, tls: ssl.SSLContext | None = None) -> None:
        self.say = say
        self.requests: list[bytes] = []
        self.connection_count = 0
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Where it listens."""
        assert self._server is not None
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"{'https' if self._tls else 'http'}://{host}:{port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in [*self._tasks]:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connection_count += 1
        try:
            while not writer.is_closing():
                request = await reader.readuntil(b"\r\n\r\n")
                found = _LENGTH.search(request)
                if found is not None:
                    request += await reader.readexactly(int(found[1]))
                self.requests.append(request)
                if isinstance(self.say, bytes):
                    writer.write(self.say)
                    await writer.drain()
                else:
                    await self.say(request, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            # The client went, or the test is over.
            pass
        finally:
            self._tasks.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()
