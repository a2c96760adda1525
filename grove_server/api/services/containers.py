"""ContainerService: what containers write, commands beside them, what they use.

Logs and commands last as long as they like, so there is a limit to how many of each there are, and the server's end
breaks them off. Both are as fast as their reader: the next piece is read when the one before is on its way.

Who runs commands is written to the log, without the arguments, which may hold secrets.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from typing import Final

from grove.v1 import container_pb2 as pb
from grove_server.api.backend import Backend
from grove_server.api.conversions.requests import refuse_unknown_fields
from grove_server.api.conversions.usage import usage_message
from grove_server.api.pipeline import Awaited, Call, Conversed, Method, Streamed
from grove_server.api.reading import DEFAULT_NAMESPACE, demand_name
from grove_server.api.reasons import ApiError, Reason, invalid_request, not_found
from grove_server.resources.duration import DurationError, parse_duration
from grove_server.resources.meta import Kind
from grove_server.resources.selector import EVERYTHING, parse_selector
from grove_server.resources.violations import Reason as FieldReason
from grove_server.resources.workload import Pod
from grove_server.runtime.containers import (
    Command,
    CommandSession,
    ContainerRefusedError,
    LogPiece,
    LogQuery,
    Output,
    Refused,
    Window,
    stamp_at,
    stamp_of,
)
from grove_server.telemetry import metrics
from grove_server.telemetry.logs import get_logger

LOG_READERS_MAX: Final = 500
COMMANDS_MAX: Final = 64
ARGUMENTS_MAX: Final = 1_000
ARGUMENTS_BYTES_MAX: Final = 64 << 10
# Once a command has ended, what it wrote last is waited for so long, and what others write then is cut after so much.
_LEFT_OVER_S: Final = 0.5
_LEFT_OVER_BYTES_MAX: Final = 1 << 20
_SIDE_MAX: Final = 65_535
_TAIL_MAX: Final = 1 << 30

_log = get_logger("api")


class ContainerService:
    """Containers: Logs, Exec, GetUsage."""

    name = "grove.v1.ContainerService"

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._shared = backend.shared
        self._containers = backend.containers
        self._open = {"logs": 0, "exec": 0}

    def methods(self) -> dict[str, Method]:
        """Return all methods."""
        return {
            "Logs": Streamed(pb.ContainerServiceLogsRequest, self.logs),
            "Exec": Conversed(pb.ContainerServiceExecRequest, self.exec),
            "GetUsage": Awaited(pb.ContainerServiceGetUsageRequest, self.get_usage),
        }

    async def logs(self, request: pb.ContainerServiceLogsRequest, call: Call) -> None:
        """Send what a container wrote."""
        refuse_unknown_fields(request)
        pod = self._pod(request.namespace, request.pod)
        query = self._log_query(request)
        with self._slot("logs", LOG_READERS_MAX):
            opened = self._containers.logs(pod, request.container, query)
            async with self._shared.streams.drainable(), aclosing(opened.pieces) as pieces:
                head = pb.ContainerServiceLogsResponse(
                    container=opened.container, run=opened.attempt, pod_uid=pod.metadata.uid
                )
                await call.context.write(head.SerializeToString())
                call.count_sent(1)
                async for piece in pieces:
                    await call.context.write(_log_message(piece))
                    call.count_sent(1)

    async def exec(self, requests: AsyncIterator[pb.ContainerServiceExecRequest], call: Call) -> None:
        """Run a command and carry its streams."""
        if not self._backend.is_exec_on:
            raise ApiError(
                reason=Reason.EXEC_OFF,
                message="exec is switched off on this server; --allow-exec on switches it on",
            )
        with self._slot("exec", COMMANDS_MAX):
            async with self._shared.streams.drainable():
                start = await _first(requests)
                pod = self._pod(start.namespace, start.pod)
                container, session = await self._containers.run(pod, start.container, _command(start))
                try:
                    _log.info(
                        "exec_started",
                        namespace=pod.metadata.namespace,
                        pod=pod.metadata.name,
                        container=container,
                        program=start.argv[0],
                        identity=call.identity.name,
                        request_id=call.request_id,
                    )
                    started = pb.ExecStarted(container=container)
                    await _send(call, pb.ContainerServiceExecResponse(started=started))
                    await _converse(session, requests, call)
                finally:
                    # Also when the client is gone: nobody reads what the command writes, nobody will end it.
                    await asyncio.shield(asyncio.ensure_future(session.close()))

    async def get_usage(self, request: pb.ContainerServiceGetUsageRequest, _call: Call) -> bytes:
        """Measure."""
        refuse_unknown_fields(request)
        return usage_message(await self._containers.usage(self._pods(request))).SerializeToString()

    def _pods(self, request: pb.ContainerServiceGetUsageRequest) -> Iterator[Pod]:
        """Return the pods that a request is about; only a runtime that has some looks at them."""
        if request.all_namespaces and request.namespace:
            raise invalid_request("namespace", "must be empty with allNamespaces", reason=FieldReason.FORBIDDEN)
        namespace = None if request.all_namespaces else request.namespace or DEFAULT_NAMESPACE
        selector = parse_selector(request.label_selector) if request.label_selector else EVERYTHING
        if request.pod:
            if namespace is None:
                raise invalid_request("allNamespaces", "excludes a name", reason=FieldReason.FORBIDDEN)
            return iter([self._pod(namespace, request.pod)])
        found = self._shared.store.read().list(Pod, namespace)
        return (pod for pod in found if selector.matches(pod.metadata.labels))

    def _pod(self, namespace: str, name: str) -> Pod:
        demand_name(name)
        namespace = namespace or DEFAULT_NAMESPACE
        pod = self._shared.store.read().get(Pod, namespace, name)
        if pod is None:
            raise not_found(Kind.POD.value, namespace, [name])
        return pod

    def _log_query(self, request: pb.ContainerServiceLogsRequest) -> LogQuery:
        since = ""
        if request.since and request.since_time:
            raise invalid_request("since", "excludes sinceTime", reason=FieldReason.FORBIDDEN)
        if request.since:
            try:
                since = stamp_at(max(0.0, time.time() - parse_duration(request.since)))
            except DurationError as error:
                raise invalid_request("since", str(error)) from error
        elif request.since_time:
            try:
                since = stamp_of(request.since_time)
            except (ValueError, OverflowError) as error:
                raise invalid_request("sinceTime", "must be a time as in RFC 3339") from error
        tail_lines = request.tail_lines if request.HasField("tail_lines") else None
        if tail_lines is not None and not 0 <= tail_lines <= _TAIL_MAX:
            raise invalid_request("tailLines", f"must be 0 to {_TAIL_MAX}, got {tail_lines}")
        return LogQuery(previous=request.previous, follow=request.follow, tail_lines=tail_lines, since=since)

    @contextmanager
    def _slot(self, kind: str, limit: int) -> Iterator[None]:
        if self._open[kind] >= limit:
            raise ContainerRefusedError(Refused.TOO_MANY, f"the server is at its limit of {limit} {kind} calls")
        self._open[kind] += 1
        gauge = metrics.CONTAINER_STREAMS.labels(kind)
        gauge.inc()
        try:
            yield
        finally:
            self._open[kind] -= 1
            gauge.dec()


def _log_message(piece: LogPiece) -> bytes:
    message = pb.ContainerServiceLogsResponse(has_gap=piece.has_gap)
    add = message.lines.add
    for line in piece.lines:
        add(time=line.time, is_stderr=line.is_stderr, content=line.content, is_partial=line.is_partial)
    return message.SerializeToString()


async def _first(requests: AsyncIterator[pb.ContainerServiceExecRequest]) -> pb.ExecStart:
    try:
        request = await anext(requests)
    except StopAsyncIteration:
        raise invalid_request("start", "is required", reason=FieldReason.REQUIRED) from None
    refuse_unknown_fields(request)
    if request.WhichOneof("input") != "start":
        raise invalid_request("start", "must come first", reason=FieldReason.REQUIRED)
    return request.start


def _command(start: pb.ExecStart) -> Command:
    argv = tuple(start.argv)
    if not argv or not argv[0]:
        raise invalid_request("start.argv", "is required", reason=FieldReason.REQUIRED)
    if len(argv) > ARGUMENTS_MAX or sum(len(word.encode()) + 1 for word in argv) > ARGUMENTS_BYTES_MAX:
        raise invalid_request(
            "start.argv",
            f"must be at most {ARGUMENTS_MAX} words of {ARGUMENTS_BYTES_MAX} bytes in all",
            reason=FieldReason.TOO_LONG,
        )
    if any("\0" in word for word in argv):
        raise invalid_request("start.argv", "must not hold a NUL character")
    terminal = None
    if start.tty:
        terminal = _window(start.size, "start.size") if start.HasField("size") else Window(80, 24)
    return Command(argv=argv, takes_input=start.stdin, terminal=terminal)


def _window(size: pb.TerminalSize, path: str) -> Window:
    if not (1 <= size.columns <= _SIDE_MAX and 1 <= size.rows <= _SIDE_MAX):
        raise invalid_request(path, f"columns and rows must be 1 to {_SIDE_MAX}")
    return Window(size.columns, size.rows)


async def _converse(
    session: CommandSession, requests: AsyncIterator[pb.ContainerServiceExecRequest], call: Call
) -> None:
    """Carry input and output until the command has ended. Raises what a wrong message raises."""
    inward = asyncio.create_task(_carry_input(session, requests))
    outward = asyncio.create_task(_carry_output(session, call))
    try:
        await asyncio.wait((inward, outward), return_when=asyncio.FIRST_COMPLETED)
        if not outward.done():
            # The end of the input is not the end of the command; a wrong message is.
            inward.result()
        await outward
    finally:
        for task in (inward, outward):
            task.cancel()
        await asyncio.gather(inward, outward, return_exceptions=True)


async def _carry_input(session: CommandSession, requests: AsyncIterator[pb.ContainerServiceExecRequest]) -> None:
    async for request in requests:
        refuse_unknown_fields(request)
        match request.WhichOneof("input"):
            case "stdin":
                await session.write(request.stdin)
            case "end_of_input":
                await session.end_input()
            case "resize":
                session.resize(_window(request.resize, "resize"))
            case _:
                raise invalid_request("input", "must be stdin, endOfInput or resize after the start")
    await session.end_input()


async def _carry_output(session: CommandSession, call: Call) -> None:
    async for output in _outputs(session):
        message = pb.ContainerServiceExecResponse()
        if output.is_stderr:
            message.stderr = output.content
        else:
            message.stdout = output.content
        await _send(call, message)
    await _send(call, pb.ContainerServiceExecResponse(exit=pb.ExecExit(exit_code=await session.wait())))


async def _outputs(session: CommandSession) -> AsyncIterator[Output]:
    """Yield what a command writes; what it left running does not keep the call once the command has ended."""
    ended = asyncio.create_task(session.wait())
    bytes_left = _LEFT_OVER_BYTES_MAX
    try:
        while True:
            reading = asyncio.create_task(session.read())
            try:
                await asyncio.wait((reading, ended), return_when=asyncio.FIRST_COMPLETED)
                if ended.done():
                    await asyncio.wait((reading,), timeout=_LEFT_OVER_S)
                output = reading.result() if reading.done() else None
            finally:
                reading.cancel()
            if output is None or bytes_left <= 0:
                return
            if ended.done():
                bytes_left -= len(output.content)
            yield output
    finally:
        ended.cancel()


async def _send(call: Call, message: pb.ContainerServiceExecResponse) -> None:
    await call.context.write(message.SerializeToString())
    call.count_sent(1)
