"""What happens around every call, in one wrapper per method instead of a chain of interceptors.

Order: arrival counted → a slot of the class → who calls, may they → size → deadline → the method → one exit that
counts, logs and maps errors. Four shapes of methods:

* `Ready`: a read that never waits. A plain function from request to bytes; the hot path.
* `Awaited`: anything that waits. Gets a `Call`, a slot and a deadline.
* `Streamed`: a watch. Writes through its `Call`, gets a slot and no deadline.
* `Conversed`: as `Streamed`, with requests that come as it asks for them.

Errors: refusals (`errors.classify`) leave with their details; everything else leaves as INTERNAL with a fixed text,
and only the log knows more. A client that went away is no error: it counts as CANCELLED. `AbortError` is ours.
Requests are parsed here, not by the transport, because a transport's parse error would leave as UNKNOWN.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from grpc._cython import cygrpc  # type: ignore[attr-defined]  # a compiled module without stubs

from grove_server.api.access import LOCAL, AccessPolicy, Identity, demand
from grove_server.api.attribution import attribute
from grove_server.api.errors import classify, internal_status, to_status
from grove_server.api.load import CallClass, Load
from grove_server.api.reasons import ApiError, Reason
from grove_server.api.tables import AUTHORIZATION, DEADLINES, Access
from grove_server.api.turns import Turns
from grove_server.telemetry import metrics
from grove_server.telemetry.logs import bind_context, get_logger

REQUEST_BYTES_MAX: Final = 4 << 20
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,64}")
# Where gRPC clients of all languages look for a google.rpc.Status.
DETAILS_KEY: Final = "grpc-status-details-bin"
_OK: Final = grpc.StatusCode.OK
# Codes that say that the server cannot do what it is there for.
_TROUBLE: Final = frozenset(
    {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED}
)
# How a lost client shows: the second comes when it leaves while a write waits for it.
CLIENT_GONE: Final = (asyncio.CancelledError, cygrpc.ExecuteBatchError)

Context = grpc.aio.ServicerContext[bytes, bytes]
Request = TypeVar("Request", bound=Message)
# What comes in: the bytes of one request, or a stream of them.
Incoming = TypeVar("Incoming")

_log = get_logger("api")


@dataclass(frozen=True, slots=True)
class Call:
    """One call, for methods that need more than the request."""

    context: Context
    identity: Identity
    request_id: str
    count_sent: Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Ready(Generic[Request]):
    """A method that answers at once."""

    request: type[Request]
    answer: Callable[[Request], bytes]


@dataclass(frozen=True, slots=True)
class Awaited(Generic[Request]):
    """A method that waits."""

    request: type[Request]
    answer: Callable[[Request, Call], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class Streamed(Generic[Request]):
    """A method that streams until it ends or raises."""

    request: type[Request]
    run: Callable[[Request, Call], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Conversed(Generic[Request]):
    """A method that streams both ways until it ends or raises."""

    request: type[Request]
    run: Callable[[AsyncIterator[Request], Call], Awaitable[None]]


Method = Ready[Any] | Awaited[Any] | Streamed[Any] | Conversed[Any]


class Service(Protocol):
    """One service of the contract."""

    name: str

    def methods(self) -> dict[str, Method]:
        """Return its methods by their name in the contract."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPolicy:
    """Which calls get a line: failures always, changes and slow calls by default, each call on request."""

    every_call: bool = False
    changes: bool = True
    slow_s: float = 0.1


class _Meter:
    """The metrics and log of one method, resolved once."""

    def __init__(self, kind: str, full_method: str, policy: LogPolicy) -> None:
        _, service, method = full_method.split("/")
        self.full_method = full_method
        self.access = AUTHORIZATION[full_method]
        self.is_change = self.access >= Access.WRITE
        self.call_class = (
            CallClass.WATCH if kind.endswith("_stream") else (CallClass.WRITE if self.is_change else CallClass.READ)
        )
        self._labels = (kind, service, method)
        self._started = metrics.RPC_STARTED.labels(*self._labels)
        self._received = metrics.RPC_RECEIVED.labels(*self._labels)
        self._seconds = metrics.RPC_SECONDS.labels(*self._labels)
        self._handled = {_OK: metrics.RPC_HANDLED.labels(*self._labels, _OK.name)}
        self.sent = metrics.RPC_SENT.labels(*self._labels)
        self._policy = policy
        self._every_call = policy.every_call
        self._changes = policy.changes and self.is_change
        self._slow_s = policy.slow_s
        # Bound once: making a logger anew for each line costs more than the line.
        self._log = _log.bind(method=full_method)

    def started(self) -> float:
        """Count the call and return when it started."""
        self._started.inc()
        self._received.inc()
        return time.perf_counter()

    def finished(self, started_s: float, code: grpc.StatusCode = _OK) -> float:
        """Count the end of the call and return how long it took."""
        duration_s = time.perf_counter() - started_s
        handled = self._handled.get(code)
        if handled is None:
            handled = self._handled[code] = metrics.RPC_HANDLED.labels(*self._labels, code.name)
        handled.inc()
        self._seconds.observe(duration_s)
        return duration_s

    def wants_line(self, duration_s: float) -> bool:
        """Return whether a call that went well gets a line."""
        return self._every_call or self._changes or duration_s >= self._slow_s

    def line(
        self,
        call_id: str,
        identity: Identity,
        context: Context,
        code: grpc.StatusCode,
        duration_s: float,
        **more: object,
    ) -> None:
        """Write the one line of this call."""
        # What the caller did wrong is no trouble of the server.
        write = self._log.warning if code in _TROUBLE else self._log.info
        if code is grpc.StatusCode.INTERNAL:
            write = self._log.error
        write(
            "call_served",
            code=code.name,
            duration_s=round(duration_s, 6),
            request_id=call_id,
            identity=identity.name,
            peer=context.peer(),
            **more,
        )


class Pipeline:
    """Makes gRPC handlers out of methods."""

    def __init__(
        self,
        load: Load,
        *,
        access: AccessPolicy | None = None,
        log: LogPolicy | None = None,
    ) -> None:
        self._load = load
        self._turns = Turns()
        self._access = access if access is not None else AccessPolicy()
        self._log = log if log is not None else LogPolicy()

    def handler(self, service: Service) -> grpc.GenericRpcHandler:
        """Return the handler of a whole service."""
        handlers = {name: self._wrap(f"/{service.name}/{name}", method) for name, method in service.methods().items()}
        return grpc.method_handlers_generic_handler(service.name, handlers)

    def _wrap(self, full_method: str, method: Method) -> grpc.RpcMethodHandler[Any, Any]:
        # Neither side serializes: requests are parsed in the wrapper and answers are bytes already.
        match method:
            case Ready():
                meter = _Meter("unary", full_method, self._log)
                return grpc.unary_unary_rpc_method_handler(self._ready(meter, method))
            case Awaited():
                meter = _Meter("unary", full_method, self._log)
                return grpc.unary_unary_rpc_method_handler(self._awaited(meter, method))
            case Streamed():
                meter = _Meter("server_stream", full_method, self._log)
                return grpc.unary_stream_rpc_method_handler(self._streamed(meter, method))
            case Conversed():
                meter = _Meter("bidi_stream", full_method, self._log)
                return grpc.stream_stream_rpc_method_handler(self._conversed(meter, method))

    def _ready(self, meter: _Meter, method: Ready[Any]) -> Callable[[bytes, Context], Awaitable[bytes]]:
        load, access = self._load, self._access
        answer, parse, needed = method.answer, method.request.FromString, meter.access
        is_open = access.everybody is not None and access.everybody.access >= needed

        async def serve(payload: bytes, context: Context) -> bytes:
            started_s = load.arrived_s = meter.started()
            identity = LOCAL
            try:
                if not is_open:
                    identity = access.identify(context)
                    demand(identity, needed)
                response = answer(parse(payload))
            except Exception as error:  # the outermost layer: whatever it is must become a status
                await self._fail(meter, context, error, started_s, request_id_of(context), identity)
                raise  # never reached: aborting raises
            meter.sent.inc()
            duration_s = meter.finished(started_s)
            if meter.wants_line(duration_s):
                if is_open and access.everybody is not None:
                    identity = access.everybody
                meter.line(request_id_of(context), identity, context, _OK, duration_s, bytes=len(response))
            return response

        return serve

    def _awaited(self, meter: _Meter, method: Awaited[Any]) -> Callable[[bytes, Context], Awaitable[bytes]]:
        load = self._load
        deadline = DEADLINES[meter.full_method]

        async def serve(payload: bytes, context: Context) -> bytes:
            started_s = load.arrived_s = meter.started()
            call_id = request_id_of(context)
            identity = LOCAL
            bind_context({"request_id": call_id})
            try:
                with load.slot(meter.call_class):
                    identity = self._access.identify(context)
                    demand(identity, meter.access)
                    attribute(identity.name, call_id)
                    async with asyncio.timeout(budget_s(context, deadline.default_s, deadline.max_s)):
                        if meter.is_change:
                            await self._turns.take()
                        request = parse_request(method.request, payload)
                        response = await method.answer(request, Call(context, identity, call_id, meter.sent.inc))
            except asyncio.CancelledError:
                self._gone(meter, context, started_s, call_id, identity)
                raise
            except Exception as error:  # the outermost layer: whatever it is must become a status
                await self._fail(meter, context, error, started_s, call_id, identity)
                raise  # never reached: aborting raises
            meter.sent.inc()
            duration_s = meter.finished(started_s)
            if meter.wants_line(duration_s):
                meter.line(call_id, identity, context, _OK, duration_s, bytes=len(response))
            return response

        return serve

    def _streamed(self, meter: _Meter, method: Streamed[Any]) -> Callable[[bytes, Context], Awaitable[None]]:
        def body(payload: bytes, call: Call) -> Awaitable[None]:
            return method.run(parse_request(method.request, payload), call)

        return self._lasting(meter, body)

    def _conversed(
        self, meter: _Meter, method: Conversed[Any]
    ) -> Callable[[AsyncIterator[bytes], Context], Awaitable[None]]:
        async def body(_: AsyncIterator[bytes], call: Call) -> None:
            async with aclosing(_requests(method.request, call.context)) as requests:
                await method.run(requests, call)

        return self._lasting(meter, body)

    def _lasting(
        self, meter: _Meter, body: Callable[[Incoming, Call], Awaitable[None]]
    ) -> Callable[[Incoming, Context], Awaitable[None]]:
        load = self._load

        async def serve(incoming: Incoming, context: Context) -> None:
            started_s = load.arrived_s = meter.started()
            call_id = request_id_of(context)
            identity = LOCAL
            bind_context({"request_id": call_id})
            try:
                with load.slot(meter.call_class):
                    identity = self._access.identify(context)
                    demand(identity, meter.access)
                    await body(incoming, Call(context, identity, call_id, meter.sent.inc))
            except asyncio.CancelledError:
                self._gone(meter, context, started_s, call_id, identity)
                raise
            except cygrpc.ExecuteBatchError:
                # The client left while a write waited for it; nobody is there to be told more.
                self._gone(meter, context, started_s, call_id, identity)
                return
            except Exception as error:  # the outermost layer: whatever it is must become a status
                await self._fail(meter, context, error, started_s, call_id, identity)
                raise  # never reached: aborting raises
            duration_s = meter.finished(started_s)
            if self._log.every_call or (meter.is_change and self._log.changes):
                meter.line(call_id, identity, context, _OK, duration_s)

        return serve

    async def _fail(
        self, meter: _Meter, context: Context, error: Exception, started_s: float, call_id: str, identity: Identity
    ) -> None:
        """End the call with the status of *error*; always raises AbortError."""
        if isinstance(error, grpc.aio.AbortError):
            raise error
        if isinstance(error, DecodeError):
            error = ApiError(reason=Reason.INVALID_REQUEST, message="the request is not a message of this method")
        refusal = classify(error)
        if refusal is None:
            metrics.INTERNAL_ERRORS.labels("api").inc()
            _log.exception("call_failed", method=meter.full_method, request_id=call_id)
            status = internal_status(call_id)
            code, reason = grpc.StatusCode.INTERNAL, Reason.INTERNAL
        else:
            status = to_status(refusal, call_id)
            code, reason = refusal.code, refusal.reason
        duration_s = meter.finished(started_s, code)
        more: dict[str, object] = {"reason": reason.value}
        if refusal is not None:
            more["message"] = refusal.message
        meter.line(call_id, identity, context, code, duration_s, **more)
        # Two copies of the text: the plain one is for clients that cannot read details.
        await context.abort(code, status.message, ((DETAILS_KEY, status.SerializeToString()),))

    def _gone(self, meter: _Meter, context: Context, started_s: float, call_id: str, identity: Identity) -> None:
        """Count a call whose client went away or whose deadline passed."""
        duration_s = meter.finished(started_s, grpc.StatusCode.CANCELLED)
        if meter.call_class is not CallClass.WATCH or self._log.every_call:
            meter.line(call_id, identity, context, grpc.StatusCode.CANCELLED, duration_s)


def parse_request(request: type[Request], payload: bytes) -> Request:
    """Return the message in *payload*. Raises ApiError if it is too large, DecodeError if it is none."""
    if len(payload) > REQUEST_BYTES_MAX:
        raise ApiError(
            reason=Reason.MESSAGE_TOO_LARGE,
            message=(
                f"the request has {len(payload) / (1 << 20):.1f} MiB, the limit is {REQUEST_BYTES_MAX >> 20} MiB; "
                "send the manifests in several calls"
            ),
            metadata={"size_bytes": str(len(payload)), "limit_bytes": str(REQUEST_BYTES_MAX)},
        )
    return request.FromString(payload)


async def _requests(request: type[Request], context: Context) -> AsyncGenerator[Request, None]:
    """Yield the messages of a stream. Transport's own iterator would be left open when a call ends first."""
    while isinstance(payload := await context.read(), bytes):
        yield parse_request(request, payload)


def budget_s(context: Context, default_s: float | None, max_s: float | None) -> float | None:
    """Return how long the call may take: the client's deadline, else the default, never more than the maximum."""
    remaining_s: float | None = context.time_remaining()
    if remaining_s is None:
        return default_s
    return remaining_s if max_s is None else min(remaining_s, max_s)


def request_id_of(context: Context) -> str:
    """Return the caller's `x-request-id` if it is well-formed, else a new one."""
    for key, value in context.invocation_metadata() or ():
        if key == "x-request-id" and isinstance(value, str) and _REQUEST_ID.fullmatch(value):
            return value
    return secrets.token_hex(8)
