"""How a command reaches the server: address, namespace, trust, and the translation of refusals into failures.

The options may stand before or after the command's name, as kubectl's may; after wins.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

import click

from grovectl.failures import (
    EXIT_CONFLICT,
    EXIT_ERROR,
    EXIT_INTERRUPTED,
    EXIT_NOT_FOUND,
    EXIT_TIMEOUT,
    EXIT_USAGE,
    Failure,
    usage,
)

if TYPE_CHECKING:
    import grpc

    from grove_client import GroveClient, GroveError

T = TypeVar("T")
Command = Callable[..., None]

DEFAULT_SERVER: Final = "127.0.0.1:50051"
DEFAULT_NAMESPACE: Final = "default"

_OPTIONS: Final = (
    click.option("-s", "--server", metavar="ADDR", help="host:port or unix:PATH; default $GROVE_SERVER or loopback."),
    click.option("-n", "--namespace", metavar="NAMESPACE", help='Namespace; default "default".'),
    click.option("--tls-ca", metavar="FILE", help="Certificates (PEM) that the server's must come from."),
    click.option("--tls-cert", metavar="FILE", help="Certificate (PEM) to show to the server."),
    click.option("--tls-key", metavar="FILE", help="Key (PEM) of that certificate."),
    click.option("--insecure", is_flag=True, default=None, help="Plaintext to another machine."),
)
# How gRPC says that the other end closed the connection instead of answering.
_ENDED: Final = ("Socket closed", "Connection reset by peer", "recvmsg:Connection reset by peer")
_NAMES: Final = ("server", "namespace", "tls_ca", "tls_cert", "tls_key", "insecure")


class Session(NamedTuple):
    """Where and as whom a command runs."""

    server: str = DEFAULT_SERVER
    namespace: str = DEFAULT_NAMESPACE
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    insecure: bool = False

    def run(self, body: Callable[[GroveClient], Awaitable[T]]) -> T:
        """Connect, do *body*, disconnect; Failure if the server refuses or cannot be reached."""
        import asyncio

        from grove_client import GroveError, connect

        credentials = self._credentials()

        async def connected() -> T:
            _heed_interrupts()
            async with connect(self.server, credentials=credentials, insecure=self.insecure) as grove:
                return await body(grove)

        try:
            return asyncio.run(connected())
        except GroveError as error:
            raise failure_of(error, self.server) from None
        except (KeyboardInterrupt, asyncio.CancelledError):
            raise Failure((), EXIT_INTERRUPTED) from None

    def _credentials(self) -> grpc.ChannelCredentials | None:
        """Return TLS credentials, None if no file is named."""
        if bool(self.tls_cert) != bool(self.tls_key):
            raise usage("--tls-cert and --tls-key belong together")
        if not self.tls_ca and not self.tls_cert:
            return None
        if self.insecure:
            raise usage("--insecure contradicts --tls-ca and --tls-cert")
        import grpc

        _check_certificates(self.tls_ca, self.tls_cert, self.tls_key)
        return grpc.ssl_channel_credentials(_pem(self.tls_ca), _pem(self.tls_key), _pem(self.tls_cert))


def _heed_interrupts() -> None:
    """Let Ctrl-C cancel the running task, and a second one end it wherever it is.

    asyncio.run would do the same, but its handler does not wake the loop: a signal that comes between the last check
    for signals and the loop's wait is noticed when something else happens, and where one follows, nothing may.
    """
    import asyncio
    import signal
    import threading

    task = asyncio.current_task()
    if task is None or threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # Begun in the background by a script: then Ctrl-C is meant for others.
        return
    interrupts = 0

    def interrupted() -> None:
        nonlocal interrupts
        interrupts += 1
        if interrupts > 1:
            raise KeyboardInterrupt
        task.cancel()

    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, interrupted)


def connected_command(function: Command) -> Command:
    """Give a command the connection options; it receives them as its first argument, a Session."""

    @functools.wraps(function)
    def with_session(**values: object) -> None:
        root = click.get_current_context().find_root().params
        own = {name: values.pop(name) for name in _NAMES}
        chosen = {name: value if value is not None else root.get(name) for name, value in own.items()}
        function(_session(chosen), **values)

    for option in reversed(_OPTIONS):
        option(with_session)
    return with_session


def _session(values: Mapping[str, object]) -> Session:
    """Return the session for the options given; None means not given."""

    def text(name: str) -> str | None:
        value = values.get(name)
        return value if isinstance(value, str) else None

    return Session(
        server=text("server") or os.environ.get("GROVE_SERVER") or DEFAULT_SERVER,
        namespace=text("namespace") or DEFAULT_NAMESPACE,
        tls_ca=text("tls_ca"),
        tls_cert=text("tls_cert"),
        tls_key=text("tls_key"),
        insecure=values.get("insecure") is True,
    )


def global_options(function: Command) -> Command:
    """Give the program itself the connection options; commands take them from there."""
    for option in reversed(_OPTIONS):
        option(function)
    return function


def failure_of(error: GroveError, server: str) -> Failure:
    """Return the failure for what the server refused: one line per wrong field, else one line."""
    import grove_client

    exit_code = EXIT_ERROR
    if isinstance(error, grove_client.NotFoundError):
        exit_code = EXIT_NOT_FOUND
    elif isinstance(error, grove_client.DeadlineExceededError):
        exit_code = EXIT_TIMEOUT
    elif isinstance(error, grove_client.ConflictError | grove_client.AlreadyExistsError):
        exit_code = EXIT_CONFLICT
    if error.violations:
        lines = [f"{v.path}: {v.description}" if v.path else v.description for v in error.violations]
        # The server bounds how many it sends; the number of all is then beside them.
        total = error.metadata.get("violation_count", "")
        if total.isdecimal() and int(total) > len(lines):
            lines.append(f"and {int(total) - len(lines)} more")
        return Failure([one_line(line) for line in lines], exit_code)
    message = one_line(error.message)
    if isinstance(error, grove_client.UnavailableError) and error.reason:
        # It answered, and said why.
        message = f"the server at {server} cannot do this now: {message}"
    elif isinstance(error, grove_client.UnavailableError):
        # A server that speaks TLS ends the connection of one who does not, and says no more.
        hint = "; if it speaks TLS, give --tls-ca" if message.endswith(_ENDED) else ""
        message = f"the server at {server} cannot be reached: {_cause(message)}{hint}"
    elif isinstance(error, grove_client.DeadlineExceededError):
        message = f"the server at {server} did not answer in time"
    elif isinstance(error, grove_client.UnimplementedError):
        message = f"the server at {server} does not know this call; it may be older than grovectl"
    return Failure(message, exit_code)


def _cause(message: str) -> str:
    """Return what is left of gRPC's words for a failed connection without the addresses, which are said already."""
    return re.sub(r"^(failed to connect to all addresses; )?(last error: )?(.*remote host: )?", "", message)


def one_line(text: str) -> str:
    """Return *text* without line breaks or control characters, so that a message cannot pretend to be two."""
    return "".join(char if char.isprintable() else " " for char in text).strip()


def _check_certificates(authorities: str | None, chain: str | None, key: str | None) -> None:
    """Refuse files that hold no certificate or do not belong together; gRPC would only say that it failed."""
    import ssl

    for option, path in (("--tls-ca", authorities), ("--tls-cert", chain)):
        if path and _pem(path):
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
            except ssl.SSLError:
                raise usage(f"{option}: {path}: holds no certificate") from None
    if chain and key and _pem(key):
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(chain, key, password=lambda: "")
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                raise usage(f"--tls-key: {key}: is not the key of {chain}") from None
            raise usage(f"--tls-key: {key}: holds no key that is free of a password") from None


def _pem(path: str | None) -> bytes | None:
    """Return the content of a certificate file."""
    if not path:
        return None
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}", EXIT_USAGE) from None
    if b"-----BEGIN " not in content:
        raise usage(f"{path}: not a PEM file")
    return content
