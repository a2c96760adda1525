"""Who we are to a source: a bearer token, a name and password, a client certificate; whom we trust.

Secrets are in files and are read again when a file changes, so that rotation needs no restart; a file that cannot be
read fails the question that needs it, with the path and without the content. Credentials go over TLS or to this
machine, to nowhere else: `check_target` refuses the rest before a connection is made.
"""

from __future__ import annotations

import base64
import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult

from autoscaler.signals.failures import Failure, SourceError

SECRET_BYTES_MAX: Final = 64 << 10

_Stamp = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessFiles:
    """Where the credentials for a source are. All of it is optional.

    ``bearer_token_file`` excludes ``username`` with ``password_file``; ``cert_file`` and ``key_file`` come together
    (or the key is in the certificate's file). ``ca_file`` replaces the system's roots. ``allow_plaintext`` lets
    credentials go over plain HTTP to other machines, for a mesh that encrypts below.
    """

    bearer_token_file: Path | None = None
    username: str = ""
    password_file: Path | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    allow_plaintext: bool = False

    def __post_init__(self) -> None:
        """Refuse what contradicts itself. Raises ValueError."""
        if self.bearer_token_file is not None and (self.username or self.password_file is not None):
            raise ValueError("a bearer token and a user name exclude each other")
        if bool(self.username) != (self.password_file is not None):
            raise ValueError("a user name needs a password file, and a password file a user name")
        if self.key_file is not None and self.cert_file is None:
            raise ValueError("a key file needs a certificate file")
        if any(mark in self.username for mark in ":\r\n"):
            raise ValueError("a user name has no colon and no line break")

    @property
    def sends_secrets(self) -> bool:
        """Whether requests carry a secret in their head."""
        return self.bearer_token_file is not None or bool(self.username)


class Access:
    """The credentials as they are now; reads each file when it is new."""

    def __init__(self, files: AccessFiles) -> None:
        self._files = files
        self._header: tuple[_Stamp, str] | None = None
        self._context: tuple[_Stamp, ssl.SSLContext] | None = None

    def check_target(self, url: SplitResult) -> None:
        """Refuse to send secrets in the clear to another machine. Raises SourceError."""
        if url.scheme == "https" or not self._files.sends_secrets or self._files.allow_plaintext:
            return
        if not is_this_machine(url.hostname or ""):
            raise SourceError(
                Failure.CREDENTIALS, f"credentials are not sent over plain HTTP to {url.hostname}; use https"
            )

    def authorization(self) -> str:
        """Return the value of the Authorization header, "" for none. Raises SourceError."""
        path = self._files.bearer_token_file or self._files.password_file
        if path is None:
            return ""
        stamp = _stamp(path)
        if self._header is None or self._header[0] != stamp:
            secret = _secret(path)
            if self._files.bearer_token_file is not None:
                value = f"Bearer {secret}"
            else:
                pair = f"{self._files.username}:{secret}".encode()
                value = f"Basic {base64.b64encode(pair).decode('ascii')}"
            self._header = (stamp, value)
        return self._header[1]

    def tls(self) -> ssl.SSLContext:
        """Return the context for TLS; a new one when a file changed, so that new connections use it. SourceError."""
        files = self._files
        stamp = _stamp(*(path for path in (files.ca_file, files.cert_file, files.key_file) if path is not None))
        if self._context is None or self._context[0] != stamp:
            try:
                context = ssl.create_default_context(cafile=files.ca_file)
                if files.cert_file is not None:
                    # A key that wants a passphrase must fail, not ask the terminal.
                    context.load_cert_chain(files.cert_file, files.key_file, password="")
            except (OSError, ValueError) as error:
                raise SourceError(
                    Failure.CREDENTIALS, f"certificates cannot be used: {type(error).__name__}"
                ) from error
            self._context = (stamp, context)
        return self._context[1]


def is_this_machine(host: str) -> bool:
    """Return whether a host name is surely this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _stamp(*paths: Path) -> _Stamp:
    """Return what changes when a file does; renames, as Kubernetes rotates secrets, count."""
    stamps: list[tuple[int, int]] = []
    for path in paths:
        try:
            found = path.stat()
        except OSError as error:
            raise SourceError(Failure.CREDENTIALS, f"{path} cannot be read: {error.strerror}") from error
        stamps.append((found.st_mtime_ns, found.st_ino))
    return tuple(stamps)


def _secret(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(SECRET_BYTES_MAX + 1)
        text = content.decode("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(Failure.CREDENTIALS, f"{path} cannot be read: {type(error).__name__}") from error
    if not text or len(content) > SECRET_BYTES_MAX or not text.isprintable():
        raise SourceError(Failure.CREDENTIALS, f"{path} has no usable secret: one printable line is expected")
    return text
