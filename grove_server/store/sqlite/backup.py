"""Copies of the database: an online backup, and the restore of one.

A restore gives the database a new epoch. Its versions go back, so a token from before would name a state that never
was; with another epoch it is answered as expired and the client lists again.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path

from grove_server.store.errors import StoreCorruptError
from grove_server.store.sqlite.database import FileLock, connect
from grove_server.store.sqlite.schema import migrate


def copy_to(connection: sqlite3.Connection, target: Path) -> None:
    """Copy the open database to the new file *target*, durably. Raises sqlite3.Error or OSError (it exists)."""
    os.close(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        with contextlib.closing(sqlite3.connect(target)) as copy:
            connection.backup(copy)
        _sync(target)
        _sync(target.parent)
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def restore(backup: Path, database: Path) -> None:
    """Put *backup* in the place of *database*, with a new epoch; no server may have it open.

    What was there is kept beside it, under the added suffix ``.before-restore``. Raises StoreLockedError,
    StoreCorruptError or StoreSchemaError (of the backup), with nothing changed, or OSError.
    """
    if not backup.is_file():
        raise StoreCorruptError(backup, "it does not exist")
    database.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = FileLock(database)
    staged = database.with_name(database.name + ".restoring")
    try:
        staged.unlink(missing_ok=True)
        with contextlib.closing(sqlite3.connect(f"{backup.resolve().as_uri()}?mode=ro", uri=True)) as source:
            try:
                copy_to(source, staged)
            except sqlite3.DatabaseError as error:
                raise StoreCorruptError(backup, str(error)) from error
        with contextlib.closing(connect(staged)) as connection:
            migrate(connection, staged)
            connection.execute("UPDATE meta SET value = random() & 0x7fffffffffffffff WHERE name = 'epoch'")
        for suffix in ("-wal", ""):
            old = database.with_name(database.name + suffix)
            if old.exists():
                old.replace(database.with_name(f"{database.name}.before-restore{suffix}"))
        staged.replace(database)
        _sync(database.parent)
    finally:
        for suffix in ("", "-wal"):
            staged.with_name(staged.name + suffix).unlink(missing_ok=True)
        lock.release()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
