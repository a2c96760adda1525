"""A server per module, on the cluster that the module names; a namespace per test, empty again after it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

import grove_client
from tests.conformance.scene import Scene
from tests.server import ServerProcess


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Run a server on the module's `CLUSTER` (a path; None is the default cluster)."""
    cluster: Path | None = getattr(request.module, "CLUSTER", None)
    with ServerProcess(tmp_path_factory.mktemp("server") / "data", cluster=cluster) as process:
        yield process


@pytest_asyncio.fixture
async def scene(request: pytest.FixtureRequest, server: ServerProcess) -> AsyncIterator[Scene]:
    """Give the test a namespace and the cluster's nodes; leave nothing behind."""
    name = request.node.name.split("[")[0].removeprefix("test_").replace("_", "-")[:40].rstrip("-")
    async with grove_client.connect(server.address) as grove:
        nodes = {node.metadata.name: node async for node in grove.nodes.list()}
        scene = Scene(grove, name, nodes)
        yield scene
        await scene.close()
