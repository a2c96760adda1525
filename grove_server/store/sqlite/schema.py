"""The schema of the database and how older ones become the current one.

Forward only: each migration takes the schema from version i to i + 1, in one transaction with the new version number.
A released migration is never edited. Payloads are JSON by the codec; their own evolution is the codec's matter.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

from grove_server.store.errors import StoreCorruptError, StoreSchemaError

# Marks the file as ours ("GROV"), so that a foreign database is refused rather than migrated.
APPLICATION_ID: Final = 0x47524F56

_VERSION_1: Final = (
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
    # The epoch is random, so that tokens of another database are recognised; 63 bits, as SQLite's integers are signed.
    "INSERT INTO meta (name, value) VALUES ('epoch', random() & 0x7fffffffffffffff)",
    "INSERT INTO meta (name, value) VALUES ('version', 0), ('deleted_version', 0)",
    "INSERT INTO meta (name, value) VALUES ('created', CAST(strftime('%s', 'now') AS INTEGER))",
    """CREATE TABLE resources (
        kind TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
        version INTEGER NOT NULL, payload BLOB NOT NULL,
        PRIMARY KEY (kind, namespace, name)
    )""",
)

MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (_VERSION_1,)


def migrate(connection: sqlite3.Connection, path: Path, migrations: tuple[tuple[str, ...], ...] = MIGRATIONS) -> int:
    """Bring the database to the current schema; return the version it had.

    Raises StoreSchemaError for a newer schema and StoreCorruptError for a file that is no database of ours.
    """
    application_id = _pragma(connection, "application_id")
    found = _pragma(connection, "user_version")
    is_empty = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0
    if application_id != APPLICATION_ID and not (is_empty and application_id == 0 and found == 0):
        raise StoreCorruptError(path, "it is a database of another program")
    if found > len(migrations):
        raise StoreSchemaError(path, found, len(migrations))
    for version in range(found, len(migrations)):
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in migrations[version]:
                connection.execute(statement)
            # Pragmas take no parameters; these two live in the file's header and belong to the transaction.
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID:d}")
            connection.execute(f"PRAGMA user_version = {version + 1:d}")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
    return found


def read_meta(connection: sqlite3.Connection) -> dict[str, int]:
    """Return the table ``meta``."""
    return dict(connection.execute("SELECT name, value FROM meta").fetchall())


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])
