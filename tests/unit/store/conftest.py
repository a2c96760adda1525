"""A small resource, its codec and stores over it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from grove_server.store import SqliteStore
from tests.unit.store.sample import INDEXES, SAMPLE_CODEC


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Return where the database will be."""
    return tmp_path / "data" / "grove.db"


@pytest.fixture
async def store(database: Path) -> AsyncIterator[SqliteStore]:
    """Return an open store."""
    made = SqliteStore(database, SAMPLE_CODEC, indexes=INDEXES)
    await made.open()
    yield made
    await made.close()
