"""TLS credentials that follow their files: a renewed certificate is used from the next handshake on.

The files are looked at once per handshake (three stats) and read only when one changed. Files that cannot be read or do
not fit together leave the old certificate in use and a warning in the log: a botched renewal must not take the server
down. They are tried with Python's ssl first, because the transport only says that it could not.
"""

from __future__ import annotations

import ssl
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
        """Return the configuration the files hold now. Raises OSError, and ListenError for what cannot be used."""
        self._try()
        authorities = self.client_authorities.read_bytes() if self.client_authorities is not None else None
        return grpc.ssl_server_certificate_configuration(
            [(self.key.read_bytes(), self.chain.read_bytes())], root_certificates=authorities
        )

    def _try(self) -> None:
        """Raise ListenError that names the file at fault, OSError if one cannot be read."""
        try:
            # An encrypted key is not asked for its password: nobody may be there to answer.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.chain, self.key, password=lambda: "")
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                raise ListenError(f"--tls-key {self.key}: is not the key of {self.chain}") from error
            if not _holds_certificates(self.chain):
                raise ListenError(f"--tls-cert {self.chain}: holds no certificate in PEM") from error
            raise ListenError(f"--tls-key {self.key}: holds no key in PEM that is free of a password") from error
        if self.client_authorities is not None and not _holds_certificates(self.client_authorities):
            raise ListenError(f"--tls-client-ca {self.client_authorities}: holds no certificate in PEM")


def _holds_certificates(path: Path) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
    except ssl.SSLError:
        return False
    return True


class _Follower:
    """Hands the transport a new configuration after the files changed."""

    def __init__(self, files: CertificateFiles) -> None:
        self._files = files
        self._stamp = files.stamp()
        self._refused_stamp = self._stamp

    def fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """Return a new configuration, or None to go on with the old one. Called by the transport per handshake."""
        stamp = self._stamp
        try:
            stamp = self._files.stamp()
            if stamp in (self._stamp, self._refused_stamp):
                return None
            configuration = self._files.read()
        except OSError as error:
            _log.warning("certificate_not_reloaded", reason=str(error))
            return None
        except ListenError as error:
            # Said once: trying these files again would end the same way.
            self._refused_stamp = stamp
            _log.warning("certificate_not_reloaded", reason=str(error))
            return None
        self._stamp = self._refused_stamp = stamp
        _log.info("certificate_reloaded", file=str(self._files.chain))
        return configuration


def server_credentials(files: CertificateFiles) -> grpc.ServerCredentials:
    """Return credentials that follow *files*. Raises ListenError if they cannot be read or used now."""
    try:
        initial = files.read()
        follower = _Follower(files)
    except OSError as error:
        raise ListenError(_unreadable(files, error)) from error
    return grpc.dynamic_ssl_server_credentials(
        initial,
        follower.fetch,  # type: ignore[arg-type]  # None means "as before"; the stubs do not know
        require_client_authentication=files.client_authorities is not None,
    )


def _unreadable(files: CertificateFiles, error: OSError) -> str:
    """Return which file cannot be read and why; ssl leaves out the name."""
    for path in (files.chain, files.key, files.client_authorities):
        try:
            if path is not None:
                path.read_bytes()
        except OSError as own:
            return f"{path}: {own.strerror}"
    return str(error.strerror or error)
