"""What runs in pods: output, commands beside it, and what is used.

Output that is followed goes on over restarts of the server: a stream that the server or the network ended is opened
again at the time of the last line, and the lines of that time that were told already are left out.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self, TypedDict, cast

import grpc

from grove.v1.container_pb2 import (
    ContainerServiceExecRequest,
    ContainerServiceExecResponse,
    ContainerServiceGetUsageResponse,
    ContainerServiceLogsResponse,
    ExecEndOfInput,
    ExecStart,
    LogLine,
    TerminalSize,
)
from grove_client.calls import Caller
from grove_client.errors import CancelledByServerError, UnavailableError, from_rpc_error

_SERVICE: Final = "/grove.v1.ContainerService/"
_DELAY_MIN_S: Final = 0.1
_DELAY_MAX_S: Final = 5.0


class _LogFields(TypedDict, total=False):
    namespace: str
    pod: str
    container: str
    previous: bool
    follow: bool
    tail_lines: int
    since: str
    since_time: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRequest:
    """Whose output, and which: the last *tail_lines* (None: all), younger than *since* ("5m") or *since_time*."""

    pod: str
    namespace: str = ""
    container: str = ""
    previous: bool = False
    follow: bool = False
    tail_lines: int | None = None
    since: str = ""
    since_time: str = ""

    def fields(self) -> _LogFields:
        """Return the fields of the message."""
        fields = _LogFields(
            pod=self.pod,
            namespace=self.namespace,
            container=self.container,
            previous=self.previous,
            follow=self.follow,
            since=self.since,
            since_time=self.since_time,
        )
        if self.tail_lines is not None:
            fields["tail_lines"] = self.tail_lines
        return fields


class _Told:
    """Which lines were told, as far as a new stream could tell them again."""

    def __init__(self) -> None:
        self.run: tuple[str, int] | None = None
        self.time = ""
        self._count = 0
        self._skipped = 0

    def opened(self) -> None:
        """Begin a new stream."""
        self._skipped = 0

    def is_new(self, line: LogLine) -> bool:
        """Return whether *line* was not told before, and take note of it."""
        if line.time == self.time and self._skipped < self._count:
            self._skipped += 1
            return False
        if line.time != self.time:
            self.time, self._count = line.time, 0
            self._skipped = 0
        self._count += 1
        self._skipped += 1
        return True


class Command:
    """A command that runs beside a container. Leaving the `async with` block kills it if it still runs."""

    def __init__(
        self, call: grpc.aio.StreamStreamCall[ContainerServiceExecRequest, ContainerServiceExecResponse]
    ) -> None:
        self._call = call
        self.container = ""

    async def start(self, start: ExecStart) -> None:
        """Send the first word and wait for the first answer. Raises GroveError."""
        await self._send(ContainerServiceExecRequest(start=start))
        answer = await self.read()
        if answer is not None:
            self.container = answer.started.container

    async def read(self) -> ContainerServiceExecResponse | None:
        """Return the next word of the command, the last one being its exit; None after that. Raises GroveError."""
        try:
            answer = await self._call.read()
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from None
        return answer if isinstance(answer, ContainerServiceExecResponse) else None

    async def write(self, content: bytes) -> None:
        """Send input; waits while the command does not read it."""
        await self._send(ContainerServiceExecRequest(stdin=content))

    async def end_input(self) -> None:
        """Say that no more input comes."""
        await self._send(ContainerServiceExecRequest(end_of_input=ExecEndOfInput()))

    async def resize(self, columns: int, rows: int) -> None:
        """Say how large the terminal is now."""
        await self._send(ContainerServiceExecRequest(resize=TerminalSize(columns=columns, rows=rows)))

    async def _send(self, request: ContainerServiceExecRequest) -> None:
        try:
            await self._call.write(request)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            # The call is over; reading says how.
            return

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call.cancel()


class Containers:
    """Logs, commands and use, where the server runs containers itself."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def logs(self, request: LogRequest) -> AsyncGenerator[ContainerServiceLogsResponse, None]:
        """Yield output piece by piece, the first one empty with the container's name. Raises GroveError.

        A stream that follows is opened again when the server goes away, as long as the run is the same.
        """
        fields = request.fields()
        told = _Told()
        delay_s = _DELAY_MIN_S
        while True:
            told.opened()
            try:
                async for piece in self._pieces(fields, told):
                    delay_s = _DELAY_MIN_S
                    yield piece
            except (UnavailableError, CancelledByServerError):
                if not request.follow or told.run is None:
                    raise
            else:
                return
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, _DELAY_MAX_S)
            if told.time:
                fields = LogRequest(
                    pod=request.pod,
                    namespace=request.namespace,
                    container=request.container,
                    previous=request.previous,
                    follow=True,
                    since_time=told.time,
                ).fields()

    async def _pieces(self, fields: _LogFields, told: _Told) -> AsyncGenerator[ContainerServiceLogsResponse, None]:
        stream = self._caller.stream(f"{_SERVICE}Logs", fields)
        is_again = told.run is not None
        try:
            async for message in stream:
                piece = cast("ContainerServiceLogsResponse", message)
                if piece.container:
                    run = (piece.pod_uid, piece.run)
                    if is_again and run != told.run:
                        # The run that was followed is over; what came last of it is lost to this reader.
                        return
                    told.run = run
                    if not is_again:
                        yield piece
                    continue
                new = [line for line in piece.lines if told.is_new(line)]
                if new or piece.has_gap:
                    yield ContainerServiceLogsResponse(lines=new, has_gap=piece.has_gap)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from None
        finally:
            stream.cancel()

    async def run(
        self,
        pod: str,
        argv: Sequence[str],
        *,
        namespace: str = "",
        container: str = "",
        stdin: bool = False,
        terminal: tuple[int, int] | None = None,
    ) -> Command:
        """Run a command beside a container; *terminal* is its size (columns, rows), if it gets one. GroveError."""
        start = ExecStart(namespace=namespace, pod=pod, container=container, argv=argv, stdin=stdin)
        if terminal is not None:
            start.tty = True
            start.size.columns, start.size.rows = terminal
        call = self._caller.converse(f"{_SERVICE}Exec")
        command = Command(
            cast("grpc.aio.StreamStreamCall[ContainerServiceExecRequest, ContainerServiceExecResponse]", call)
        )
        try:
            await command.start(start)
        except BaseException:
            call.cancel()
            raise
        return command

    async def usage(
        self, *, namespace: str = "", all_namespaces: bool = False, label_selector: str = "", pod: str = ""
    ) -> ContainerServiceGetUsageResponse:
        """Return what pods and nodes use. Raises GroveError."""
        answer = await self._caller.call(
            f"{_SERVICE}GetUsage",
            {"namespace": namespace, "all_namespaces": all_namespaces, "label_selector": label_selector, "pod": pod},
        )
        return cast("ContainerServiceGetUsageResponse", answer)
