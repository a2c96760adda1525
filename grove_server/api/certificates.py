"""TLS credentials that follow their files: a renewed certificate is used from the next handshake on.

The files are looked at once per handshake (three stats) and read only when one changed. Files that cannot be read or do
not fit together leave the old certificate in use and a warning in the log: a botched renewal must not take the server
down.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import grpc

from grove_server.api.addresses import ListenError
from grove_server.telemetry.logs import get_logger

_log = get_logger("tls")


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """PEM files: chain and key of the server, and the authorities of clients (None: no client certificates)."""

    chain: Path
    key: Path
    client_authorities: Path | None = None

    def stamp(self) -> tuple[tuple[int, int, int], ...]:
        """Return what changes when a file does. Raises OSError."""
        stats = [path.stat() for path in (self.chain, self.key, self.client_authorities) if path is not None]
        return tuple((each.st_mtime_ns, each.st_size, each.st_ino) for each in stats)

    def read(self) -> grpc.ServerCertificateConfiguration:
        """Return the configuration the files hold now. Raises OSError."""
        authorities = self.client_authorities.read_bytes() if self.client_authorities is not None else None
        return grpc.ssl_server_certificate_configuration(
            [(self.key.read_bytes(), self.chain.read_bytes())], root_certificates=authorities
        )


class _Follower:
    """Hands the transport a new configuration after the files changed."""

    def __init__(self, files: CertificateFiles) -> None:
        self._files = files
        self._stamp = files.stamp()

    def fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """Return a new configuration, or None to go on with the old one. Called by the transport per handshake."""
        try:
            stamp = self._files.stamp()
            if stamp == self._stamp:
                return None
            configuration = self._files.read()
        except OSError as error:
            _log.warning("certificate_not_reloaded", reason=str(error))
            return None
        self._stamp = stamp
        _log.info("certificate_reloaded", file=str(self._files.chain))
        return configuration


def server_credentials(files: CertificateFiles) -> grpc.ServerCredentials:
    """Return credentials that follow *files*. Raises ListenError if they cannot be read now."""
    try:
        initial = files.read()
        follower = _Follower(files)
    except OSError as error:
        raise ListenError(f"{error.filename}: {error.strerror}") from error
    return grpc.dynamic_ssl_server_credentials(
        initial,
        follower.fetch,  # type: ignore[arg-type]  # None means "as before"; the stubs do not know
        require_client_authentication=files.client_authorities is not None,
    )
