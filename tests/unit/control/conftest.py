"""A running plane with a few workers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.planes import Plane


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[Plane]:
    """Return store, loops and runtime, running."""
    made = Plane(tmp_path / "grove.db")
    await made.start()
    yield made
    await made.stop()
