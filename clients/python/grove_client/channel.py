"""The connection: where the server is, how it is trusted, and the options that both ends must agree on.

Plaintext is for this machine only (loopback or a unix socket); any other address uses TLS unless the caller says
`insecure=True`. Keepalive pings are as far apart as the server allows, so that a dead peer is noticed within 80 s.
"""

from __future__ import annotations

import ipaddress
from typing import Final

import grpc

from grove_client.calls import all_methods
from grove_client.deadlines import service_config

MIB: Final = 1024 * 1024
KEEPALIVE_TIME_MS: Final = 60_000
KEEPALIVE_TIMEOUT_MS: Final = 20_000
RECEIVE_SIZE_MAX_BYTES: Final = 32 * MIB
# The server refuses what is too large, with a better message than gRPC's; this bound is only a backstop.
SEND_SIZE_MAX_BYTES: Final = 32 * MIB
# gRPC's own first step of one second would leave watchers blind for several after a restart that takes one.
RECONNECT_BACKOFF_MIN_MS: Final = 100
RECONNECT_BACKOFF_MAX_MS: Final = 5_000


def is_local(target: str) -> bool:
    """Return whether *target* names this machine: a unix socket or a loopback address."""
    if target.startswith(("unix:", "unix-abstract:")):
        return True
    for scheme in ("dns:///", "dns:", "ipv4:", "ipv6:", "passthrough:///"):
        target = target.removeprefix(scheme)
    host = target.rpartition(":")[0] or target
    host = host.strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def open_channel(target: str, credentials: grpc.ChannelCredentials | None, *, insecure: bool) -> grpc.aio.Channel:
    """Return a channel to *target*; it connects at the first call.

    Without *credentials* a local target is spoken to in plaintext, any other over TLS with the system's roots.
    """
    options: list[tuple[str, int | str]] = [
        ("grpc.keepalive_time_ms", KEEPALIVE_TIME_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        ("grpc.max_receive_message_length", RECEIVE_SIZE_MAX_BYTES),
        ("grpc.max_send_message_length", SEND_SIZE_MAX_BYTES),
        ("grpc.initial_reconnect_backoff_ms", RECONNECT_BACKOFF_MIN_MS),
        ("grpc.max_reconnect_backoff_ms", RECONNECT_BACKOFF_MAX_MS),
        ("grpc.service_config", service_config(all_methods())),
    ]
    if credentials is None and (insecure or is_local(target)):
        return grpc.aio.insecure_channel(target, options=options)
    return grpc.aio.secure_channel(target, credentials or grpc.ssl_channel_credentials(), options=options)
