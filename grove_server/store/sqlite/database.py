"""Opening the database file: lock, permissions, checks, schema, rows.

Rules: one server per file, by an OS lock on a file beside it (which names the holder's process) and by SQLite's own
exclusive mode. A file that is damaged in any way is refused with its name and left as it is. Synchronous FULL in WAL
mode: a commit returns after its fsync.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from grove_server.resources.meta import Kind, Resource
from grove_server.store.errors import StoreCorruptError, StoreLockedError, StoreUnavailableError
from grove_server.store.interface import Codec
from grove_server.store.journal import Loaded
from grove_server.store.sqlite.schema import MIGRATIONS, migrate, read_meta
from grove_server.store.state import versioned

# WAL pages stay in the file between checkpoints; after one, the file is cut back to this.
_WAL_BYTES_KEPT_MAX: Final = 32 * 1024 * 1024
_FETCH_ROWS: Final = 1_000
_PID_LENGTH_MAX: Final = 20
_CORRUPT_CODES: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT})


class FileLock:
    """An exclusive OS lock on ``<database>.lock``; it goes with the process, however that ends."""

    def __init__(self, database: Path) -> None:
        """Take the lock. Raises StoreLockedError naming the holder."""
        descriptor = os.open(database.with_name(database.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            text = os.read(descriptor, _PID_LENGTH_MAX).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise StoreLockedError(database, int(text) if text.isdecimal() else None) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode("ascii"), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        """Give the lock back. The file stays: removing it would race with the next holder."""
        os.close(self._descriptor)


def connect(path: Path) -> sqlite3.Connection:
    """Open the file for this process alone, making it if need be, and check every page.

    Raises StoreCorruptError, StoreLockedError or StoreUnavailableError.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # SQLite would make the file with the umask's permissions; the WAL inherits those of the file.
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    connection = sqlite3.connect(path, isolation_level=None, cached_statements=32, timeout=0.0)
    try:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        # Checkpoints are the writer's business: a commit must cost one fsync, not three.
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES_KEPT_MAX:d}")
        connection.execute("PRAGMA trusted_schema = OFF")
        damage = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.DatabaseError as error:
        connection.close()
        raise _translated(error, path) from error
    if damage != "ok":
        connection.close()
        raise StoreCorruptError(path, str(damage).replace("\n", " "))
    return connection


def load(
    connection: sqlite3.Connection,
    path: Path,
    codec: Codec,
    migrations: tuple[tuple[str, ...], ...] = MIGRATIONS,
) -> Loaded:
    """Bring the schema up to date and decode every row. Raises StoreCorruptError naming the row, StoreSchemaError."""
    try:
        migrate(connection, path, migrations)
        meta = read_meta(connection)
        loaded = Loaded(epoch=meta["epoch"], version=meta["version"], deleted_version=meta["deleted_version"])
        known = [kind.value for kind in codec.DECODE_ORDER]
        marks = ", ".join("?" * len(known))
        strange = connection.execute(
            f"SELECT kind FROM resources WHERE kind NOT IN ({marks}) LIMIT 1",  # noqa: S608 -- question marks only
            known,
        ).fetchone()
        if strange is not None:
            raise StoreCorruptError(path, f"unknown kind {strange[0]!r}")
        templates: dict[str, Resource] = {}
        for kind in codec.DECODE_ORDER:
            decoded = _decode_kind(connection, path, codec, kind, templates.__getitem__)
            if kind is Kind.POD_TEMPLATE:
                templates.update((f"{each.metadata.namespace}/{each.metadata.name}", each) for each in decoded)
            loaded.resources.extend(decoded)
    except sqlite3.DatabaseError as error:
        raise _translated(error, path) from error
    except KeyError as error:
        raise StoreCorruptError(path, f"no {error} in table meta") from error
    newest = max((each.resource_version for each in loaded.resources), default=0)
    if newest > loaded.version:
        raise StoreCorruptError(path, f"a row at version {newest}, the database at {loaded.version}")
    return loaded


def _decode_kind(
    connection: sqlite3.Connection, path: Path, codec: Codec, kind: Kind, templates: Callable[[str], Any]
) -> list[Resource]:
    cursor = connection.execute("SELECT namespace, name, version, payload FROM resources WHERE kind = ?", (kind.value,))
    decoded: list[Resource] = []
    decode = codec.decode
    while rows := cursor.fetchmany(_FETCH_ROWS):
        for namespace, name, version, payload in rows:
            try:
                resource = decode(kind, payload, templates)
            except (ValueError, TypeError) as error:
                raise StoreCorruptError(path, f"{kind} {namespace}/{name}: {error}") from error
            if (resource.metadata.namespace, resource.metadata.name) != (namespace, name):
                raise StoreCorruptError(path, f"{kind} {namespace}/{name} holds another object")
            decoded.append(versioned(resource, version))
    return decoded


def _translated(error: sqlite3.DatabaseError, path: Path) -> Exception:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in _CORRUPT_CODES:
        return StoreCorruptError(path, str(error))
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreLockedError(path, None)
    return StoreUnavailableError(f"{path}: {error}")
