"""How batches become rows."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing

import pytest

from grove_server.store.interface import Applied
from grove_server.store.journal import Commit
from grove_server.store.sqlite.rows import _DELETES, ROWS_PER_STATEMENT, rows_of, write_rows
from grove_server.store.sqlite.schema import MIGRATIONS
from grove_server.store.state import Write
from tests.unit.store.sample import SAMPLE_CODEC, key, sample


def database() -> sqlite3.Connection:
    """Return an empty database in memory."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    for statement in MIGRATIONS[0]:
        connection.execute(statement)
    return connection


def commit_of(*writes: Write) -> Commit:
    """Return a commit of these writes; nobody waits for it."""
    with closing(asyncio.new_event_loop()) as loop:
        outcomes = tuple(Applied(write.key, write.version, write.resource) for write in writes)
        return Commit([*writes], outcomes, loop.create_future(), "test", 0.0)


def test_only_the_last_write_of_a_resource_becomes_a_row() -> None:
    """A batch that makes, changes and removes writes each resource once."""
    rows = rows_of(
        [
            commit_of(Write(key("a"), sample("a", 1), 1), Write(key("b"), sample("b"), 2)),
            commit_of(Write(key("a"), sample("a", 2), 3), Write(key("b"), None, 4)),
        ],
        SAMPLE_CODEC.encode,
    )
    assert [(put[2], put[3]) for put in rows.puts] == [("a", 3)]
    assert rows.deletes == [key("b")]
    assert (rows.version, rows.deleted_version, rows.touched) == (4, 4, 2)


@pytest.mark.parametrize("count", [1, 2, *(each + 1 for each in ROWS_PER_STATEMENT), 2_500])
def test_any_number_of_rows_is_written_and_deleted(count: int) -> None:
    """Padding and chunking neither lose nor add rows."""
    names = [f"pod-{number}" for number in range(count)]
    with closing(database()) as connection:
        puts = commit_of(*(Write(key(name), sample(name), place + 1) for place, name in enumerate(names)))
        write_rows(connection, rows_of([puts, commit_of(Write(key("other"), sample("other"), count + 1))], bytes_of))
        assert connection.execute("SELECT count(*) FROM resources").fetchone() == (count + 1,)
        gone = commit_of(*(Write(key(name), None, count + 2) for name in names))
        write_rows(connection, rows_of([gone], bytes_of))
        assert connection.execute("SELECT name FROM resources").fetchall() == [("other",)]
        meta = dict(connection.execute("SELECT name, value FROM meta").fetchall())
        assert (meta["version"], meta["deleted_version"]) == (count + 2, count + 2)


def bytes_of(_resource: object) -> bytes:
    """Return a payload."""
    return b"{}"


@pytest.mark.parametrize("size", ROWS_PER_STATEMENT)
def test_deleting_never_scans_the_table(size: int) -> None:
    """The plan of each deletion searches the resources by their key."""
    with closing(database()) as connection:
        plan = connection.execute("EXPLAIN QUERY PLAN " + _DELETES[size], [None] * (3 * size)).fetchall()
    steps = [str(step[3]) for step in plan]
    assert not any(step.startswith("SCAN resources") for step in steps), steps
