"""A server with real processes per module, a namespace per test, nothing left behind."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

import grove_client
from tests.onebox.box import FLAGS, Box
from tests.server import ServerProcess


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Run a server whose node is this machine; its pods end with it."""
    flags = (*FLAGS, "--pods-on-exit", "stop", "--node-pods-max", "200")
    with ServerProcess(tmp_path_factory.mktemp("box") / "data", flags=flags) as process:
        yield process


@pytest_asyncio.fixture
async def box(request: pytest.FixtureRequest, server: ServerProcess) -> AsyncIterator[Box]:
    """Give the test a namespace."""
    name = request.node.name.split("[")[0].removeprefix("test_").replace("_", "-")[:40].rstrip("-")
    async with grove_client.connect(server.address) as grove:
        made = Box(server=server, grove=grove, namespace=name)
        yield made
        await made.close()


@pytest.fixture
def journal_path(tmp_path: Path) -> Path:
    """Return where workers write what happens to them."""
    return tmp_path / "journal"
