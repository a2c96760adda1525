"""The writer thread: takes what is queued, makes it one transaction with one fsync, reports, repeats.

Rules:

* A commit is never split over two transactions. A batch ends at BATCH_CHANGES_MAX changes, or where its rows would
  pass BATCH_BYTES_MAX going by the average row so far.
* Encoding happens here: the loop waits for the interpreter's lock only during the codec's C calls, a few µs each.
* After a failed transaction the thread reports, and touches nothing until ``reset``; then it tries a small durable
  write every ``retry_interval_s`` until one succeeds.
* Checkpoints happen between batches, not inside a commit.

The connection never leaves this thread; backups run on it too.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

from grove_server.store.errors import StoreError, StoreUnavailableError
from grove_server.store.interface import Codec
from grove_server.store.journal import Commit, DurableBatch, JournalEvents, Loaded
from grove_server.store.sqlite.backup import copy_to
from grove_server.store.sqlite.database import FileLock, connect, load
from grove_server.store.sqlite.rows import rows_of, write_rows
from grove_server.store.sqlite.schema import MIGRATIONS, read_meta

T = TypeVar("T")

BATCH_CHANGES_MAX: Final = 4_096
BATCH_BYTES_MAX: Final = 8 * 1024 * 1024
RETRY_INTERVAL_S: Final = 1.0
# A checkpoint copies the WAL into the database: when nothing waits, or when the WAL has grown to the second bound.
CHECKPOINT_IDLE_BYTES: Final = 4 * 1024 * 1024
CHECKPOINT_BYTES_MAX: Final = 64 * 1024 * 1024
_JOIN_TIMEOUT_S: Final = 60.0


class SqliteJournal:
    """Journal in one SQLite file."""

    def __init__(
        self,
        path: Path,
        codec: Codec,
        *,
        retry_interval_s: float = RETRY_INTERVAL_S,
        migrations: tuple[tuple[str, ...], ...] = MIGRATIONS,
        tune: Callable[[sqlite3.Connection], None] | None = None,
    ) -> None:
        """Name the file; ``open`` touches it. ``tune`` sees the connection before it is used (tests limit it)."""
        self._path = path
        self._codec = codec
        self._retry_interval_s = retry_interval_s
        self._migrations = migrations
        self._tune = tune
        self._durable_version = 0
        self._row_bytes = 1_000.0
        self._wake = threading.Condition()
        # The five below are guarded by the condition.
        self._queue: deque[Commit] = deque()
        self._backups: deque[tuple[Path, asyncio.Future[None]]] = deque()
        self._closing = False
        self._halted = False
        self._retrying = False

    async def open(self, events: JournalEvents) -> Loaded:
        """Start the thread, which opens and checks the file. Raises StoreError subclasses."""
        self._events = events
        self._loop = asyncio.get_running_loop()
        opened: asyncio.Future[Loaded] = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, args=(opened,), name="grove-store-writer", daemon=True)
        self._thread.start()
        try:
            return await opened
        except BaseException:
            # Refused or given up: the lock must be free again when the caller hears of it.
            await self.close()
            raise

    def submit(self, commits: Sequence[Commit]) -> None:
        """Queue commits."""
        with self._wake:
            self._queue.extend(commits)
            self._wake.notify()

    def reset(self) -> None:
        """Forget the queue and start trying."""
        with self._wake:
            self._queue.clear()
            self._halted = False
            self._retrying = True
            self._wake.notify()

    async def backup(self, target: Path) -> None:
        """Copy the database, as of between two batches, to a new file. Raises StoreUnavailableError."""
        done: asyncio.Future[None] = self._loop.create_future()
        with self._wake:
            self._backups.append((target, done))
            self._wake.notify()
        await done

    async def close(self) -> None:
        """Write what is queued, then end the thread."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        await asyncio.to_thread(self._thread.join, _JOIN_TIMEOUT_S)

    # Everything below runs on the writer thread.

    def _run(self, opened: asyncio.Future[Loaded]) -> None:
        is_open = False
        with contextlib.ExitStack() as stack:
            try:
                self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                stack.callback(FileLock(self._path).release)
                connection = stack.enter_context(contextlib.closing(connect(self._path)))
                if self._tune is not None:
                    self._tune(connection)
                loaded = load(connection, self._path, self._codec, self._migrations)
                self._durable_version = loaded.version
                is_open = True
                self._post(_resolve, opened, loaded)
                del loaded
                self._work(connection)
            except OSError as error:
                self._stop(opened, is_open=is_open, error=StoreUnavailableError(f"{self._path}: {error}"))
            except Exception as error:  # noqa: BLE001 -- the thread's outermost frame: who waits must be told
                self._stop(opened, is_open=is_open, error=error)

    def _stop(self, opened: asyncio.Future[Loaded], *, is_open: bool, error: Exception) -> None:
        with self._wake:
            self._halted = True
        if is_open:
            self._post(self._events.failed, f"the writer of {self._path} stopped, restart the server: {error}")
        else:
            self._post(_reject, opened, error)

    def _post(self, function: Callable[..., None], *arguments: object) -> None:
        """Call *function* on the event loop, unless that is gone."""
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            if not self._loop.is_closed():
                raise

    def _work(self, connection: sqlite3.Connection) -> None:
        wal_bytes = 0
        while True:
            with self._wake:
                self._wait()
                retrying, closing = self._retrying, self._closing
                batch = self._take()
                is_idle = not self._queue
                backups = [*self._backups]
                self._backups.clear()
            if batch:
                wal_bytes += self._write(connection, batch)
            elif closing:
                self._reject_backups(backups)
                checkpoint(connection)
                return
            elif retrying:
                self._try_again(connection)
            for target, done in backups:
                self._back_up(connection, target, done)
            if wal_bytes >= (CHECKPOINT_IDLE_BYTES if is_idle else CHECKPOINT_BYTES_MAX):
                checkpoint(connection)
                wal_bytes = 0

    def _wait(self) -> None:
        """Wait for something to do; after a failure, an interval before each try."""

        def is_asked() -> bool:
            return self._closing or bool(self._backups)

        if not self._retrying:
            self._wake.wait_for(lambda: is_asked() or self._retrying or (bool(self._queue) and not self._halted))
        if self._retrying:
            self._wake.wait_for(is_asked, self._retry_interval_s)

    def _take(self) -> list[Commit]:
        """Take whole commits up to the bounds, at least one."""
        batch: list[Commit] = []
        if self._halted or self._retrying:
            return batch
        changes_max = min(BATCH_CHANGES_MAX, int(BATCH_BYTES_MAX / self._row_bytes))
        changes = 0
        queue = self._queue
        while queue:
            changes += len(queue[0].writes)
            if batch and changes > changes_max:
                break
            batch.append(queue.popleft())
        return batch

    def _write(self, connection: sqlite3.Connection, batch: list[Commit]) -> int:
        """Make *batch* durable and report; return about how many bytes the WAL grew."""
        start_s = time.perf_counter()
        try:
            rows = rows_of(batch, self._codec.encode)
            if rows.touched:
                write_rows(connection, rows)
        except (sqlite3.Error, OSError, ValueError, TypeError) as error:
            with self._wake:
                self._halted = True
            self._post(self._events.failed, f"{self._path} cannot be written: {error}")
            return 0
        if rows.touched:
            self._durable_version = rows.version
            if rows.puts:
                self._row_bytes += (rows.payload_bytes / len(rows.puts) - self._row_bytes) / 8
        durable = DurableBatch(
            commits=batch,
            rows=rows.touched,
            payload_bytes=rows.payload_bytes,
            duration_s=time.perf_counter() - start_s,
        )
        self._post(self._events.durable, durable)
        # Pages rather than rows go to the WAL; twice the payload is about what was seen with rows of 700 bytes.
        return 2 * rows.payload_bytes + 4_096 * min(rows.touched, 8)

    def _try_again(self, connection: sqlite3.Connection) -> None:
        """Make one small write durable; on success, report that writing works again."""
        # With a full disk the WAL may be what fills it, and its pages may have their place in the database already.
        checkpoint(connection)
        try:
            connection.execute(
                "INSERT INTO meta (name, value) VALUES ('retries', 1) ON CONFLICT DO UPDATE SET value = value + 1"
            )
            version = read_meta(connection)["version"]
        except sqlite3.Error:
            return
        if version != self._durable_version:
            raise StoreError(f"the database is at version {version}, the server at {self._durable_version}")
        with self._wake:
            self._retrying = False
        self._post(self._events.recovered)

    def _back_up(self, connection: sqlite3.Connection, target: Path, done: asyncio.Future[None]) -> None:
        try:
            copy_to(connection, target)
        except (sqlite3.Error, OSError) as error:
            self._post(_reject, done, StoreUnavailableError(f"no backup at {target}: {error}"))
        else:
            self._post(_resolve, done, None)

    def _reject_backups(self, backups: Sequence[tuple[Path, asyncio.Future[None]]]) -> None:
        for target, done in backups:
            self._post(_reject, done, StoreUnavailableError(f"no backup at {target}: the store is closed"))


def checkpoint(connection: sqlite3.Connection) -> None:
    """Copy the WAL into the database and cut it; if that cannot be done now, the WAL keeps what it has."""
    with contextlib.suppress(sqlite3.Error):
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _resolve(future: asyncio.Future[T], value: T) -> None:
    if not future.done():
        future.set_result(value)


def _reject(future: asyncio.Future[T], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
