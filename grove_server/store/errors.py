"""What can go wrong with the store itself; outcomes of single changes are values, not errors (see interface).

Messages of these errors are for operators and logs. The API maps the classes to codes and never passes a message on.
"""

from __future__ import annotations

from pathlib import Path


class StoreError(Exception):
    """Anything the store raises."""


class StoreUnavailableError(StoreError):
    """The change was not made: it could not become durable, and nothing of it is visible or will be."""


class StoreOverloadedError(StoreUnavailableError):
    """The change was not made: too many changes wait for the disk already."""


class StoreClosedError(StoreUnavailableError):
    """The store is closed, or not open yet."""


class StoreLockedError(StoreError):
    """Another process has the database open."""

    def __init__(self, path: Path, holder_pid: int | None) -> None:
        """Name the file and, where it is known, the process that holds it."""
        holder = f"process {holder_pid}" if holder_pid is not None else "another process"
        super().__init__(f"{path} is in use by {holder}; one data directory serves one server")
        self.path = path
        self.holder_pid = holder_pid


class StoreCorruptError(StoreError):
    """The database is damaged; it was left as it is."""

    def __init__(self, path: Path, detail: str) -> None:
        """Name the file and the first damage found."""
        super().__init__(
            f"{path} is damaged ({detail}); nothing was changed. Restore a backup, or move the file away to start empty"
        )
        self.path = path
        self.detail = detail


class StoreSchemaError(StoreError):
    """The database was written by a newer server."""

    def __init__(self, path: Path, found: int, known: int) -> None:
        """Name the file and both schema versions."""
        super().__init__(f"{path} has schema version {found}, this server knows up to {known}; use a newer server")
        self.path = path
        self.found = found
        self.known = known


class TokenInvalidError(StoreError):
    """The resume token was never given out by a server of this kind."""


class TokenExpiredError(StoreError):
    """The resume token cannot be resumed from: list again."""

    def __init__(self, reason: str, oldest_version: int) -> None:
        """Say why, and from which version on resuming would work."""
        super().__init__(f"{reason}; the oldest version kept is {oldest_version}")
        self.oldest_version = oldest_version


class WatchTooSlowError(StoreError):
    """The reader of a watch fell too far behind; ``token`` resumes after the last event it took."""

    def __init__(self, token: str, pending_max: int) -> None:
        """Carry the token to resume with."""
        super().__init__(f"more than {pending_max} objects changed and were not read")
        self.token = token


class WatchLimitError(StoreError):
    """There are as many watches open as the store allows."""

    def __init__(self, watches_max: int) -> None:
        """Name the limit."""
        super().__init__(f"{watches_max} watches are open, the most that is allowed")
        self.watches_max = watches_max
