"""A full disk, a second server, a damaged file, a newer schema: refused clearly, nothing lost, nothing overwritten.

The disk is full for real as far as SQLite is concerned: the number of pages is limited on its own connection, or the
size of files by the operating system, and the errors are the ones it raises then.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sqlite3
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from grove_server.resources.meta import Kind, Resource
from grove_server.store import SqliteStore
from grove_server.store.engine import EmbeddedStore
from grove_server.store.errors import (
    StoreCorruptError,
    StoreError,
    StoreLockedError,
    StoreOverloadedError,
    StoreSchemaError,
    StoreUnavailableError,
)
from grove_server.store.interface import Applied, Put, SilentObserver
from grove_server.store.journal import VolatileJournal
from grove_server.store.sqlite.backup import restore
from grove_server.store.sqlite.schema import MIGRATIONS
from grove_server.store.sqlite.writer import SqliteJournal
from tests.unit.store.sample import SAMPLE_CODEC, SampleCodec, sample
from tests.waiting import until

PAGES_MAX = 60


class Witness(SilentObserver):
    """Remembers what the store said about its health."""

    def __init__(self) -> None:
        """Start with nothing heard."""
        self.heard: list[str] = []

    def degraded(self, reason: str) -> None:
        """Remember the reason."""
        self.heard.append(reason)

    def recovered(self) -> None:
        """Remember it."""
        self.heard.append("recovered")


class Limited:
    """A store whose database may have so many pages."""

    def __init__(self, path: Path, retry_interval_s: float = 0.02) -> None:
        """Put the store together."""
        self.witness = Witness()
        journal = SqliteJournal(path, SAMPLE_CODEC, retry_interval_s=retry_interval_s, tune=self._limit)
        self.store = EmbeddedStore(journal, observer=self.witness)

    def _limit(self, connection: sqlite3.Connection) -> None:
        connection.execute(f"PRAGMA max_page_count = {PAGES_MAX}")


@asynccontextmanager
async def reopened(path: Path) -> AsyncIterator[SqliteStore]:
    """Open what is there."""
    store = SqliteStore(path, SAMPLE_CODEC)
    await store.open()
    yield store
    await store.close()


def big(name: str) -> Put:
    """Return a change of about 20 kB."""
    return Put(sample(name, padding="x" * 20_000))


async def test_a_full_disk_fails_the_batch_and_what_rests_on_it(database: Path) -> None:
    """Nothing of a failed batch, nor of what was decided on top, is visible or on disk; afterwards all works again."""
    limited = Limited(database)
    store = limited.store
    await store.open()
    await store.commit([Put(sample("kept", 1))])
    failing = store.commit_soon([Put(sample("kept", 2)), *(big(f"big-{number}") for number in range(40))])
    on_top = store.commit_soon([Put(sample("kept", 3), expected=2)])
    for future in (failing, on_top):
        with pytest.raises(StoreUnavailableError, match=r"grove\.db cannot be written: database or disk is full"):
            await future
    assert store.read().count(Kind.POD) == 1
    found = store.read().get(Kind.POD, "default", "kept")
    assert found is not None
    assert found.resource_version == 1

    await until(lambda: store.health().ok, "the store tries again and recovers")
    assert limited.witness.heard[1:] == ["recovered"]
    (outcome,) = await store.commit([Put(sample("kept", 4), expected=1)])
    assert isinstance(outcome, Applied)
    await store.close()
    async with reopened(database) as again:
        assert again.read().count(Kind.POD) == 1
        assert again.read().list(Kind.POD)[0] == outcome.resource


async def test_while_degraded_changes_are_refused_at_once_and_reads_go_on(database: Path) -> None:
    """Between failure and recovery the store answers reads, refuses changes, and says why."""
    store = Limited(database, retry_interval_s=60.0).store
    await store.open()
    await store.commit([Put(sample("kept"))])
    with pytest.raises(StoreUnavailableError):
        await store.commit([big(f"big-{number}") for number in range(40)])
    refused = store.commit_soon([Put(sample("other"))])
    assert refused.done()
    with pytest.raises(StoreUnavailableError):
        await refused
    assert not store.health().ok
    assert "disk is full" in store.health().reason
    assert store.read().count(Kind.POD) == 1
    await store.close()


async def test_a_file_that_may_not_grow_is_survived(database: Path) -> None:
    """When the operating system refuses to let files grow, the store fails cleanly and recovers when it may again."""
    store = EmbeddedStore(SqliteJournal(database, SAMPLE_CODEC, retry_interval_s=0.02))
    await store.open()
    await store.commit([Put(sample("kept"))])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Without this the kernel would end the process; with it, writing fails with EFBIG.
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, limits[1]))
        with pytest.raises(StoreUnavailableError, match="cannot be written"):
            await store.commit([Put(sample("lost"))])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, previous)
    await until(lambda: store.health().ok, "the store recovers")
    await store.commit([Put(sample("after"))])
    await store.close()
    async with reopened(database) as again:
        assert {each.metadata.name for each in again.read().list(Kind.POD)} == {"kept", "after"}


async def test_a_resource_that_cannot_be_encoded_fails_its_batch_only(database: Path) -> None:
    """A codec's error is reported as such, and the store goes on."""

    class Picky(SampleCodec):
        def encode(self, resource: Resource, /) -> bytes:
            if resource.metadata.name == "bad":
                raise ValueError("no such colour")
            return super().encode(resource)

    store = EmbeddedStore(SqliteJournal(database, Picky(), retry_interval_s=0.02))
    await store.open()
    with pytest.raises(StoreUnavailableError, match="no such colour"):
        await store.commit([Put(sample("bad"))])
    await until(lambda: store.health().ok, "the store recovers")
    await store.commit([Put(sample("good"))])
    await store.close()


async def test_too_many_waiting_changes_are_refused() -> None:
    """The queue to the disk is bounded."""
    store = EmbeddedStore(VolatileJournal(), queued_changes_max=10)
    await store.open()
    accepted = store.commit_soon([Put(sample(f"pod-{number}")) for number in range(8)])
    with pytest.raises(StoreOverloadedError):
        await store.commit([Put(sample(f"more-{number}")) for number in range(3)])
    await accepted
    await store.commit([Put(sample(f"more-{number}")) for number in range(3)])
    await store.close()


async def test_a_second_server_is_refused(store: SqliteStore, database: Path) -> None:
    """The second opener learns which process has the file, and the first goes on."""
    second = SqliteStore(database, SAMPLE_CODEC)
    with pytest.raises(StoreLockedError, match=rf"grove\.db is in use by process {os.getpid()}") as caught:
        await second.open()
    assert caught.value.holder_pid == os.getpid()
    await store.commit([Put(sample("a"))])


async def test_another_program_with_the_file_open_is_refused(database: Path) -> None:
    """A shell that holds the database without our lock file keeps us out too."""
    async with reopened(database) as first:
        await first.commit([Put(sample("a"))])
    with closing(sqlite3.connect(database, isolation_level=None)) as shell:
        shell.execute("PRAGMA locking_mode = EXCLUSIVE")
        shell.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreLockedError):
            await SqliteStore(database, SAMPLE_CODEC).open()


async def filled(database: Path) -> None:
    """Make a database of a few hundred pages."""
    async with reopened(database) as store:
        await store.commit([Put(sample(f"pod-{number}", padding="x" * 2_000)) for number in range(300)])


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param((0, b"not a database at all"), id="header"),
        pytest.param((4_096 * 40, os.urandom(4_096 * 60)), id="pages"),
        pytest.param((None, b""), id="truncated"),
    ],
)
def test_a_damaged_file_is_refused_and_left_alone(database: Path, damage: tuple[int | None, bytes]) -> None:
    """The refusal names the file, and not a byte of it changes."""
    asyncio.run(filled(database))
    place, written = damage
    with database.open("r+b") as file:
        if place is None:
            file.truncate(4_096 * 50)
        else:
            file.seek(place)
            file.write(written)
    before = database.read_bytes()
    with pytest.raises(StoreCorruptError, match=r"grove\.db is damaged"):
        asyncio.run(SqliteStore(database, SAMPLE_CODEC).open())
    assert database.read_bytes() == before


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        pytest.param("UPDATE resources SET payload = '{' WHERE name = 'pod-7'", "Pod default/pod-7", id="payload"),
        pytest.param("UPDATE resources SET name = 'pod-x' WHERE name = 'pod-7'", "holds another object", id="name"),
        pytest.param("UPDATE resources SET kind = 'Ghost' WHERE name = 'pod-7'", "unknown kind 'Ghost'", id="kind"),
        pytest.param("UPDATE resources SET version = 1000 WHERE name = 'pod-7'", "version 1000", id="version"),
        pytest.param("DELETE FROM meta WHERE name = 'epoch'", "no 'epoch'", id="meta"),
        pytest.param("PRAGMA application_id = 5", "another program", id="foreign"),
    ],
)
async def test_a_row_that_is_wrong_is_refused(database: Path, statement: str, reason: str) -> None:
    """A sound file with wrong contents is refused, naming what is wrong."""
    await filled(database)
    with closing(sqlite3.connect(database, isolation_level=None)) as shell:
        shell.execute(statement)
    with pytest.raises(StoreCorruptError, match=reason):
        await SqliteStore(database, SAMPLE_CODEC).open()


async def test_a_newer_schema_is_refused(database: Path) -> None:
    """A database of a newer server is refused with both versions and left as it is."""
    await filled(database)
    with closing(sqlite3.connect(database, isolation_level=None)) as shell:
        shell.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreSchemaError) as caught:
        await SqliteStore(database, SAMPLE_CODEC).open()
    assert (caught.value.found, caught.value.known) == (99, len(MIGRATIONS))


async def test_an_older_schema_is_migrated(database: Path) -> None:
    """Missing migrations are applied in order, and the rows stay."""
    await filled(database)
    extra = (*MIGRATIONS, ("ALTER TABLE resources ADD COLUMN note TEXT NOT NULL DEFAULT ''",))
    store = EmbeddedStore(SqliteJournal(database, SAMPLE_CODEC, migrations=extra))
    await store.open()
    assert store.read().count(Kind.POD) == 300
    await store.commit([Put(sample("new"))])
    await store.close()
    with closing(sqlite3.connect(database)) as shell:
        assert shell.execute("PRAGMA user_version").fetchone() == (len(extra),)
        assert shell.execute("SELECT note FROM resources WHERE name = 'new'").fetchone() == ("",)


async def test_a_failed_migration_changes_nothing(database: Path) -> None:
    """A migration that fails half-way is rolled back, version number included."""
    await filled(database)
    broken = (*MIGRATIONS, ("ALTER TABLE resources ADD COLUMN note TEXT", "SELECT no_such_function()"))
    store = EmbeddedStore(SqliteJournal(database, SAMPLE_CODEC, migrations=broken))
    with pytest.raises(StoreError):
        await store.open()
    async with reopened(database) as again:
        assert again.read().count(Kind.POD) == 300


async def test_files_are_private(store: SqliteStore, database: Path) -> None:
    """Nobody else on the machine can read the database, its log or its lock."""
    await store.commit([Put(sample("a"))])
    assert stat.S_IMODE(database.parent.stat().st_mode) == 0o700
    for file in database.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file.name


async def test_a_directory_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    """A path below a file gives the store's own error."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreUnavailableError, match="file"):
        await SqliteStore(tmp_path / "file" / "grove.db", SAMPLE_CODEC).open()


async def test_a_backup_restores_under_a_new_epoch(store: SqliteStore, database: Path, tmp_path: Path) -> None:
    """A restored database has the backup's contents and other tokens; what stood there is kept aside."""
    await store.commit([Put(sample("a"))])
    await store.backup(tmp_path / "backup.db")
    await store.commit([Put(sample("b"))])
    with pytest.raises(StoreUnavailableError):
        await store.backup(tmp_path / "backup.db")
    with pytest.raises(StoreLockedError):
        restore(tmp_path / "backup.db", database)
    old_token = store.token()
    await store.close()
    restore(tmp_path / "backup.db", database)
    async with reopened(database) as restored:
        assert restored.read().count(Kind.POD) == 1
        await restored.commit([Put(sample("c")), Put(sample("d"))])
        with pytest.raises(StoreError, match="from before a restore"):
            restored.watch(Kind.POD, token=old_token)
    assert database.with_name("grove.db.before-restore").exists()


async def test_a_damaged_backup_is_not_restored(store: SqliteStore, database: Path, tmp_path: Path) -> None:
    """The database stays when the backup is no good."""
    await store.commit([Put(sample("a"))])
    await store.close()
    (tmp_path / "backup.db").write_bytes(b"nothing like a database" * 500)
    with pytest.raises(StoreCorruptError):
        restore(tmp_path / "backup.db", database)
    with pytest.raises(StoreCorruptError):
        restore(tmp_path / "missing.db", database)
    async with reopened(database) as again:
        assert again.read().count(Kind.POD) == 1
