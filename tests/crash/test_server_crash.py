"""The server against kill -9 under load: what was acknowledged is there, and every promise holds on the disk.

Several clients create, change, scale and delete sets; the server is killed after a random number of answers and
started again on the same data. Seeded; where exactly the kills hit is the machine's affair. `make test-crash` runs the
long one.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest

import grove_client
from grove_client import GroveClient
from tests.conformance.observation import observe
from tests.conformance.scene import Scene
from tests.crash.follower import Follower
from tests.crash.ledger import Ledger
from tests.crash.load import CLIENTS, CLUSTER, NAMESPACE, Client
from tests.crash.wreck import check_wreck
from tests.server import ServerProcess
from tests.waiting import until

ROUNDS_SHORT: Final = 3
ROUNDS_LONG: Final = 50
ANSWERS_MAX: Final = 120


class Trial:
    """One server, killed again and again, and what its clients know."""

    def __init__(self, folder: Path, seed: int) -> None:
        cluster = folder / "cluster.yaml"
        cluster.write_text(CLUSTER, encoding="utf-8")
        self._process = ServerProcess(folder / "data", cluster=cluster)
        self._scratch = folder / "wreck"
        self._dice = random.Random(seed)
        self.ledger = Ledger()
        self.follower = Follower()

    async def round(self) -> None:
        """Start, look, load, kill, and look at what is left on the disk."""
        await asyncio.to_thread(self._process.start)
        async with grove_client.connect(self._process.address) as grove:
            await self._check_acknowledged(grove)
            async with self._following():
                if self._dice.random() < 0.5:
                    await self._converge(grove)
                await self._load()
        await check_wreck(self._process.data_dir, self._scratch)

    async def finish(self) -> None:
        """Start once more, and see everything come to rest."""
        await asyncio.to_thread(self._process.start)
        async with grove_client.connect(self._process.address) as grove:
            await self._check_acknowledged(grove)
            async with self._following():
                await self._converge(grove)
                assert await asyncio.to_thread(self._process.stop) == 0

    def kill(self) -> None:
        """End the server if it still runs."""
        self._process.stop()

    async def _check_acknowledged(self, grove: GroveClient) -> None:
        found = {item.metadata.name: item async for item in grove.pod_clique_sets.list(namespace=NAMESPACE)}
        assert self.ledger.settle(found) == []

    async def _converge(self, grove: GroveClient) -> None:
        """Wait until nothing moves; then everything must be whole, and the follower must know exactly what is there."""
        nodes = {node.metadata.name: node async for node in grove.nodes.list()}
        await Scene(grove, NAMESPACE, nodes).rests()
        seen = await observe(grove, NAMESPACE)
        pods = {name: (pod.metadata.uid, int(pod.metadata.resource_version)) for name, pod in seen.pods.items()}
        await until(lambda: self.follower.is_synced and self.follower.known == pods, "the follower knows all pods")

    async def _load(self) -> None:
        """Let clients work until a random number of answers is reached, then kill the server."""
        goal = self.ledger.answers + self._dice.randrange(ANSWERS_MAX)
        clients = [
            asyncio.create_task(
                Client(self._process.address, number, self.ledger, random.Random(self._dice.random())).run()
            )
            for number in range(CLIENTS)
        ]
        try:
            await until(
                lambda: self.ledger.answers >= goal or any(client.done() for client in clients),
                f"{goal} answers",
            )
            assert not any(client.done() for client in clients), [client for client in clients if client.done()]
            self._process.kill()
        finally:
            for client in clients:
                client.cancel()
            await asyncio.gather(*clients, return_exceptions=True)

    @asynccontextmanager
    async def _following(self) -> AsyncIterator[None]:
        """Follow all pods meanwhile; what the follower finds wrong is raised here."""
        following = asyncio.create_task(self.follower.follow(self._process.address))
        try:
            yield
            async with asyncio.timeout(30):
                await following
        finally:
            following.cancel()


async def run(folder: Path, seed: int, rounds: int) -> Trial:
    """Go through all rounds."""
    print(f"seed {seed}, {rounds} rounds")  # noqa: T201 -- pytest shows it when the test fails
    trial = Trial(folder, seed)
    try:
        for _ in range(rounds):
            await trial.round()
        await trial.finish()
    finally:
        trial.kill()
    return trial


async def test_a_few_crashes_lose_nothing(tmp_path: Path) -> None:
    """A few kills under load: no acknowledged change is lost, nothing doubled, bound in part or handed out twice."""
    trial = await run(tmp_path, 1, ROUNDS_SHORT)
    assert trial.ledger.answers > 0
    assert trial.follower.resumed + trial.follower.expired >= ROUNDS_SHORT


@pytest.mark.crash
async def test_many_crashes_lose_nothing(tmp_path: Path) -> None:
    """The same fifty times."""
    trial = await run(tmp_path, 2, ROUNDS_LONG)
    assert trial.ledger.answers > ROUNDS_LONG
    assert trial.follower.resumed + trial.follower.expired >= ROUNDS_LONG
