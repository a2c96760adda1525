"""One transaction: the commits of a batch become rows.

* Several writes of one resource in a batch become one row, and only the last is encoded: a pod that is made, bound and
  started while one fsync runs costs one row.
* Rows go to SQLite many at a time in one statement. Each statement gives up the interpreter's lock and has to win it
  back from a busy event loop, so a statement per row would make the loop's load the writer's speed.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple

from grove_server.resources.meta import Key, Resource
from grove_server.store.journal import Commit
from grove_server.store.state import Write

# Sizes of the prepared statements. What is left over is padded with NULL rows, which the statements drop.
ROWS_PER_STATEMENT: Final = (1, 16, 128, 1_024)


def _upsert(rows: int) -> str:
    values = ",".join(["(?,?,?,?,?)"] * rows)
    return (
        "INSERT INTO resources (kind, namespace, name, version, payload) "  # noqa: S608 -- question marks only
        f"SELECT * FROM (VALUES {values}) WHERE column1 IS NOT NULL "
        "ON CONFLICT (kind, namespace, name) DO UPDATE SET version = excluded.version, payload = excluded.payload"
    )


def _delete(rows: int) -> str:
    values = ",".join(["(?,?,?)"] * rows)
    # CROSS JOIN keeps SQLite to this order: a search of the key per deletion, never a scan of the table.
    return (
        "DELETE FROM resources WHERE rowid IN ("  # noqa: S608 -- question marks only
        f"SELECT resources.rowid FROM (VALUES {values}) AS gone CROSS JOIN resources "
        "ON kind = gone.column1 AND namespace = gone.column2 AND name = gone.column3)"
    )


_UPSERTS: Final = {rows: _upsert(rows) for rows in ROWS_PER_STATEMENT}
_DELETES: Final = {rows: _delete(rows) for rows in ROWS_PER_STATEMENT}
_SET_META: Final = "UPDATE meta SET value = ? WHERE name = ?"


class Rows(NamedTuple):
    """What a batch comes to. ``version`` is its newest, ``deleted_version`` that of its newest deletion (0: none)."""

    puts: list[tuple[Any, ...]]
    deletes: list[tuple[Any, ...]]
    version: int
    deleted_version: int
    payload_bytes: int

    @property
    def touched(self) -> int:
        """Number of rows touched."""
        return len(self.puts) + len(self.deletes)


def rows_of(commits: Iterable[Commit], encode: Callable[[Resource], bytes]) -> Rows:
    """Encode what *commits* leave behind. Raises whatever the codec raises."""
    last: dict[Key, Write] = {}
    version = deleted_version = 0
    for commit in commits:
        for write in commit.writes:
            last[write[0]] = write
            version = write[2]
            if write[1] is None:
                deleted_version = version
    puts: list[tuple[Any, ...]] = []
    deletes: list[tuple[Any, ...]] = []
    payload_bytes = 0
    for key, resource, row_version in last.values():
        if resource is None:
            deletes.append(key)
            continue
        payload = encode(resource)
        payload_bytes += len(payload)
        puts.append((*key, row_version, payload))
    return Rows(puts, deletes, version, deleted_version, payload_bytes)


def write_rows(connection: sqlite3.Connection, rows: Rows) -> None:
    """Make *rows* durable in one transaction. Raises sqlite3.Error with nothing of it written."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        _execute_many(connection, _UPSERTS, rows.puts, 5)
        _execute_many(connection, _DELETES, rows.deletes, 3)
        connection.execute(_SET_META, (rows.version, "version"))
        if rows.deleted_version:
            connection.execute(_SET_META, (rows.deleted_version, "deleted_version"))
        connection.execute("COMMIT")
    except sqlite3.Error:
        # Some errors (a full disk among them) have rolled back already.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _execute_many(
    connection: sqlite3.Connection, statements: dict[int, str], rows: Sequence[tuple[Any, ...]], width: int
) -> None:
    largest = ROWS_PER_STATEMENT[-1]
    for start in range(0, len(rows), largest):
        chunk = rows[start : start + largest]
        size = next(each for each in ROWS_PER_STATEMENT if each >= len(chunk))
        parameters = [*itertools.chain.from_iterable(chunk)]
        parameters.extend([None] * ((size - len(chunk)) * width))
        connection.execute(statements[size], parameters)
