"""A server with the process runtime that finds the examples' programs, and a namespace per test."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

import grove_client
from tests.onebox.box import FLAGS, Box
from tests.server import ServerProcess
from tests.tidy.sources import ROOT


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Run a server whose pods end with it, with the PATH that the example asks for."""
    places = (str(ROOT / "examples" / "bin"), str(Path(sys.executable).parent), os.environ["PATH"])
    data = tmp_path_factory.mktemp("elastic") / "data"
    flags = (*FLAGS, "--pods-on-exit", "stop")
    with ServerProcess(data, flags=flags, environment={"PATH": os.pathsep.join(places)}) as process:
        yield process


@pytest_asyncio.fixture
async def box(request: pytest.FixtureRequest, server: ServerProcess) -> AsyncIterator[Box]:
    """Give the test a namespace."""
    name = request.node.name.removeprefix("test_").replace("_", "-")[:40].rstrip("-")
    async with grove_client.connect(server.address) as grove:
        made = Box(server=server, grove=grove, namespace=name)
        yield made
        await made.close()
