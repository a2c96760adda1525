"""A real grpc.aio server on a loopback port over a real SQLite store; no loops, so that nothing changes by itself."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.rpc.harness import Harness, serving


@pytest.fixture
async def rpc(tmp_path: Path) -> AsyncIterator[Harness]:
    """Give a running server with its clients."""
    async with serving(tmp_path) as harness:
        yield harness
