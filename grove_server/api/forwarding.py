"""Calls that the server hands on to the autoscaler that leads, and where an autoscaler may be called at all.

The server must not become a way to reach what its callers cannot reach. So it calls only the registered autoscaler that
leads, only three methods, at an address on the machine that the registration came from; no name is looked up. Beyond
this machine it speaks TLS and checks the autoscaler's certificate, unless it was started with ``--insecure``. Calls
at a time, their length and the size of answers are bounded, and what an autoscaler says in refusing is cut to a line.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import unquote

import grpc
from google.protobuf.message import Message

from grove.v1 import autoscaler_pb2 as pb
from grove_server.api.addresses import Address, ListenError, parse_address
from grove_server.api.ports import AutoscalersPort
from grove_server.api.reasons import ApiError, Reason, invalid_request
from grove_server.settings import Settings
from grove_server.telemetry import metrics

DEADLINE_S: Final = 5.0
FORWARDED_MAX: Final = 32
ANSWER_BYTES_MAX: Final = 4 << 20
_MESSAGE_LENGTH_MAX: Final = 400
_SERVICE: Final = "/grove.v1.AutoscalerService/"
_METHODS: Final[Mapping[type[Message], tuple[str, type[Message]]]] = {
    pb.AutoscalerServiceExplainRequest: ("Explain", pb.AutoscalerServiceExplainResponse),
    pb.AutoscalerServicePauseRequest: ("Pause", pb.AutoscalerServicePauseResponse),
    pb.AutoscalerServiceOverrideRequest: ("Override", pb.AutoscalerServiceOverrideResponse),
}
# What an autoscaler's refusal is to our caller; whatever else it says counts as no answer.
_REFUSALS: Final[Mapping[grpc.StatusCode, Reason]] = {
    grpc.StatusCode.NOT_FOUND: Reason.NOT_FOUND,
    grpc.StatusCode.INVALID_ARGUMENT: Reason.INVALID_REQUEST,
    grpc.StatusCode.FAILED_PRECONDITION: Reason.AUTOSCALER_REFUSED,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Reason.TOO_MANY_CALLS,
}
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", ANSWER_BYTES_MAX),
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)

R = TypeVar("R", bound=Message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """How autoscalers beyond this machine are spoken to: ``authorities`` are whose certificates count."""

    authorities: Path | None = None
    chain: Path | None = None
    key: Path | None = None
    insecure: bool = False

    def allows(self, address: Address) -> bool:
        """Return whether an address may be called at all."""
        return address.is_local or self.insecure or self.authorities is not None

    def channel(self, address: Address) -> grpc.aio.Channel:
        """Return a channel; it connects at the first call. Raises OSError if certificates cannot be read."""
        if address.is_local or self.authorities is None:
            return grpc.aio.insecure_channel(str(address), options=_OPTIONS)
        own = self.chain is not None and self.key is not None
        credentials = grpc.ssl_channel_credentials(
            self.authorities.read_bytes(),
            self.key.read_bytes() if own and self.key is not None else None,
            self.chain.read_bytes() if own and self.chain is not None else None,
        )
        return grpc.aio.secure_channel(str(address), credentials, options=_OPTIONS)


def trust_of(settings: Settings) -> Trust:
    """Return how autoscalers are trusted: their own authorities, else those of clients."""
    return Trust(
        authorities=settings.autoscaler_ca or settings.tls_client_ca,
        chain=settings.tls_cert,
        key=settings.tls_key,
        insecure=settings.insecure,
    )


def callable_address(given: str, peer: str, trust: Trust) -> Address:
    """Return the address that an autoscaler gives of itself, *peer* being where its call came from. Raises ApiError."""
    try:
        address = parse_address(given)
    except ListenError as error:
        raise invalid_request("address", "must be IP:PORT, localhost:PORT or unix:/PATH") from error
    if address.path is None and address.port == 0:
        raise invalid_request("address", "must have a port of 1 to 65535")
    host = _peer_host(peer)
    is_from_here = host is None or host.is_loopback
    if address.is_local:
        if not is_from_here:
            raise invalid_request("address", f"{address} is the server's own machine, the call came from {host}")
        return address
    try:
        own = _plain(ipaddress.ip_address(address.host))
    except ValueError as error:
        raise invalid_request("address", "must be an IP address: names are not looked up") from error
    if own != host:
        raise invalid_request("address", f"must be where the call came from ({host or 'this machine'})")
    if not trust.allows(address):
        raise invalid_request(
            "address", "is called over TLS only: the server needs --autoscaler-ca (or --tls-client-ca) for that"
        )
    return address


def _peer_host(peer: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address in a peer's name such as "ipv4:10.0.0.1:5000"; None for a unix socket."""
    kind, _, rest = unquote(peer).partition(":")
    if kind not in {"ipv4", "ipv6"}:
        return None
    text = rest.rpartition(":")[0].strip("[]").partition("%")[0]
    return _plain(ipaddress.ip_address(text))


def _plain(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return the IPv4 address inside an IPv6 one, if there is one."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


class Forwarder:
    """Hands three calls on to the autoscaler that leads. Owned by the event loop."""

    def __init__(self, autoscalers: AutoscalersPort, trust: Trust, *, deadline_s: float = DEADLINE_S) -> None:
        self._autoscalers = autoscalers
        self.trust = trust
        self._deadline_s = deadline_s
        self._in_flight = 0
        self._address = ""
        self._channel: grpc.aio.Channel | None = None

    async def ask(self, request: Message, answer: type[R], *, request_id: str = "") -> tuple[str, R]:
        """Return the name of the autoscaler that leads, and what it answers to *request*. Raises ApiError."""
        method, response = _METHODS[type(request)]
        assert response is answer, "the table says what is answered"
        try:
            name, message = await self._ask(method, response, request, request_id)
        except ApiError as error:
            metrics.FORWARDED_CALLS.labels(method, error.reason.value).inc()
            raise
        metrics.FORWARDED_CALLS.labels(method, "OK").inc()
        assert isinstance(message, answer), "the deserializer made it"
        return name, message

    async def _ask(
        self, method: str, response: type[Message], request: Message, request_id: str
    ) -> tuple[str, Message]:
        leader = self._autoscalers.leader()
        if leader is None:
            raise ApiError(
                reason=Reason.AUTOSCALER_NOT_REGISTERED,
                message="no autoscaler is registered with this server; start one: grove-autoscaler run",
                preconditions=(("AUTOSCALER_NOT_REGISTERED", "autoscaler", "nobody that is alive leads"),),
            )
        if self._in_flight >= FORWARDED_MAX:
            raise ApiError(
                reason=Reason.TOO_MANY_CALLS,
                message=f"the autoscaler is being asked {FORWARDED_MAX} things already",
                metadata={"limit": str(FORWARDED_MAX)},
                retry_after_s=1.0,
            )
        name, address = leader.registration.name, leader.registration.address
        self._in_flight += 1
        try:
            channel = await self._connected(address)
            call = channel.unary_unary(
                _SERVICE + method,
                request_serializer=_serialized,
                response_deserializer=response.FromString,
            )
            message: Any = await call(request, timeout=self._deadline_s, metadata=(("x-request-id", request_id),))
        except grpc.aio.AioRpcError as error:
            raise _refusal(name, error) from error
        except OSError as error:
            raise _unreachable(name, "the authorities of its certificate cannot be read") from error
        except ListenError as error:
            raise _unreachable(name, "its address may not be called in plaintext") from error
        finally:
            self._in_flight -= 1
        return name, message

    async def close(self) -> None:
        """Close the channel; a later call opens one again."""
        channel, self._channel, self._address = self._channel, None, ""
        if channel is not None:
            await channel.close()

    async def _connected(self, address: str) -> grpc.aio.Channel:
        """Return the channel to *address*, and close the one to an earlier leader, whose calls have their time."""
        if self._channel is None or self._address != address:
            parsed = parse_address(address)
            if not self.trust.allows(parsed):
                raise ListenError(f"{address} may not be called in plaintext")
            old, self._channel, self._address = self._channel, self.trust.channel(parsed), address
            if old is not None:
                await old.close(self._deadline_s)
        assert self._channel is not None, "it was opened"
        return self._channel


def _serialized(message: Message) -> bytes:
    return message.SerializeToString()


def _refusal(name: str, error: grpc.aio.AioRpcError) -> ApiError:
    """Return what an autoscaler's refusal is to our caller."""
    reason = _REFUSALS.get(error.code())
    if reason is None:
        return _unreachable(name, error.code().name)
    words = " ".join((error.details() or error.code().name).split())
    return ApiError(
        reason=reason,
        message=f"autoscaler {name}: {words[:_MESSAGE_LENGTH_MAX]}",
        metadata={"autoscaler": name},
        preconditions=(("AUTOSCALER_REFUSED", name, words[:_MESSAGE_LENGTH_MAX]),)
        if reason is Reason.AUTOSCALER_REFUSED
        else (),
    )


def _unreachable(name: str, why: str) -> ApiError:
    return ApiError(
        reason=Reason.AUTOSCALER_UNREACHABLE,
        message=f"autoscaler {name} leads and does not answer ({why})",
        metadata={"autoscaler": name},
        retry_after_s=1.0,
    )
