"""Addresses to listen on, and when they may be used without TLS.

Plaintext is for this machine only: loopback addresses and unix sockets. Anything else needs a certificate, or somebody
who says ``--insecure``.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from grove_server.settings import Settings

PORT_MAX: Final = 65_535
# Linux' limit for the path of a unix socket, without the final zero.
UNIX_PATH_BYTES_MAX: Final = 107


class ListenError(Exception):
    """An address cannot be listened on; the text is for the person who starts the server."""


@dataclass(frozen=True, slots=True)
class Address:
    """HOST:PORT or unix:PATH; ``path`` is set for a unix socket."""

    host: str = ""
    port: int = 0
    path: Path | None = None

    @property
    def is_local(self) -> bool:
        """Return whether only this machine can connect."""
        if self.path is not None or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        """Return the form users write."""
        if self.path is not None:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def with_port(self, port: int) -> Address:
        """Return the same host at another port (the one the system chose)."""
        return self if self.path is not None else Address(self.host, port)


def parse_address(given: str) -> Address:
    """Return the address that *given* names. Raises ListenError."""
    if given.startswith("unix:"):
        path = Path(given.removeprefix("unix:").removeprefix("//"))
        if not path.name or len(os.fsencode(path)) > UNIX_PATH_BYTES_MAX:
            raise ListenError(f"{given}: a path of 1 to {UNIX_PATH_BYTES_MAX} bytes must follow unix:")
        return Address(path=path.absolute())
    host, separator, port_text = given.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not separator or not host or not (port_text.isascii() and port_text.isdecimal()) or int(port_text) > PORT_MAX:
        raise ListenError(f"{given}: must be HOST:PORT or unix:PATH")
    return Address(host, int(port_text))


def parse_metrics_address(given: str) -> Address:
    """Return the address of the metrics page, HOST:PORT. Raises ListenError."""
    if given.startswith("unix:"):
        raise ListenError(f"--metrics-listen: {given}: must be HOST:PORT")
    try:
        return parse_address(given)
    except ListenError as error:
        raise ListenError(f"--metrics-listen: {given}: must be HOST:PORT") from error


def check_trust(settings: Settings, address: Address) -> None:
    """Raise ListenError where TLS settings do not belong together, or anybody on the network could do anything."""
    has_tls = settings.tls_cert is not None
    if has_tls != (settings.tls_key is not None):
        raise ListenError("--tls-cert and --tls-key belong together")
    if settings.tls_client_ca is not None and not has_tls:
        raise ListenError("--tls-client-ca needs --tls-cert and --tls-key")
    if not (address.is_local or has_tls or settings.insecure):
        raise ListenError(
            f"{address} can be reached from other machines: give --tls-cert and --tls-key (and --tls-client-ca), "
            "listen on 127.0.0.1 or a unix socket, or say --insecure"
        )


def check_listening(settings: Settings) -> None:
    """Raise ListenError if *settings* name no address or one that must not be served, without touching anything."""
    check_trust(settings, parse_address(settings.listen))
    if settings.metrics_listen:
        parse_metrics_address(settings.metrics_listen)


def why_not_bound(address: Address) -> str:
    """Return why *address* cannot be bound, after a bind failed without saying so."""
    if address.path is not None:
        return f"{address}: cannot make the socket; does its directory exist and may it be written?"
    try:
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address.host, address.port))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return f"{address} is in use by another process; stop it or choose another port"
        return f"{address}: {error.strerror or error}"
    return f"{address} cannot be bound"


def refuse_live_socket(path: Path) -> None:
    """Raise ListenError if another server listens on the unix socket, or the path is something else.

    gRPC removes an existing socket before it binds, and so would take the address from under a running server.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ListenError(f"unix:{path} exists and is no socket; it was left as it is")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError:
            return
    raise ListenError(f"unix:{path} is in use by another process")
