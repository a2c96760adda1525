"""What is known: read, commit and watch behind one interface.

``SqliteStore`` is the durable store, ``VolatileStore`` one without a disk for simulations. The rest of the server sees
``interface`` and ``errors`` alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from grove_server.store.engine import EmbeddedStore
from grove_server.store.interface import Codec, Index, StoreObserver
from grove_server.store.journal import VolatileJournal
from grove_server.store.sqlite.writer import SqliteJournal
from grove_server.store.watch.hub import WatchLimits


class SqliteStore(EmbeddedStore):
    """The store in one SQLite file: what the embedded server runs on."""

    def __init__(
        self,
        path: Path,
        codec: Codec,
        *,
        indexes: Mapping[str, Index] | None = None,
        observer: StoreObserver | None = None,
        watch_limits: WatchLimits | None = None,
    ) -> None:
        """Name the file; ``open`` touches it."""
        self._sqlite = SqliteJournal(path, codec)
        super().__init__(self._sqlite, indexes=indexes, observer=observer, watch_limits=watch_limits)

    async def backup(self, target: Path) -> None:
        """Write a copy of everything durable to the new file *target*. Raises StoreUnavailableError."""
        await self._sqlite.backup(target)


class VolatileStore(EmbeddedStore):
    """The same store with nothing on disk: what simulations on a virtual clock run on."""

    def __init__(
        self,
        *,
        indexes: Mapping[str, Index] | None = None,
        observer: StoreObserver | None = None,
        watch_limits: WatchLimits | None = None,
    ) -> None:
        """Start empty."""
        super().__init__(VolatileJournal(), indexes=indexes, observer=observer, watch_limits=watch_limits)


__all__ = ["SqliteStore", "VolatileStore", "WatchLimits"]
