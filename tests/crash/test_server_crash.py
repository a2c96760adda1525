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
from tests.conformance.scene import Scene
from tests.crash.follower import Follower
from tests.crash.ledger import Ledger
from tests.crash.load import CLIENTS, CLUSTER, NAMESPACE, Client, group_of
from tests.crash.wreck import check_wreck
from tests.server import ServerProcess
from tests.waiting import until, until_seen

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
            async with self._following() as following:
                if self._dice.random() < 0.5:
                    await self._converge(grove, following)
                await self._load()
        await check_wreck(self._process.data_dir, self._scratch)

    async def finish(self) -> None:
        """Start once more, and see everything come to rest."""
        await asyncio.to_thread(self._process.start)
        async with grove_client.connect(self._process.address) as grove:
            await self._check_acknowledged(grove)
            async with self._following() as following:
                await self._converge(grove, following)
                assert await asyncio.to_thread(self._process.stop) == 0

    def kill(self) -> None:
        """End the server if it still runs."""
        self._process.stop()

    async def _check_acknowledged(self, grove: GroveClient) -> None:
        found = {item.metadata.name: item async for item in grove.pod_clique_sets.list(namespace=NAMESPACE)}
        groups = {g.metadata.name: g async for g in grove.pod_clique_scaling_groups.list(namespace=NAMESPACE)}
        sizes = {name: groups[group_of(name)].spec.replicas for name in found if group_of(name) in groups}
        assert self.ledger.settle(found, sizes) == []

    async def _converge(self, grove: GroveClient, following: asyncio.Task[None]) -> None:
        """Wait until nothing moves; then everything must be whole, and the follower must know exactly what is there."""
        nodes = {node.metadata.name: node async for node in grove.nodes.list()}
        await Scene(grove, NAMESPACE, nodes).rests()
        await until_seen(
            lambda: pods_of(grove),
            lambda pods: (self.follower.is_synced and self.follower.known == pods) or following.done(),
            lambda pods: (
                f"the follower knows all pods, differs in {sorted(pods.items() ^ self.follower.known.items())}"
            ),
        )
        # It goes on to the end of the server; what ended it before is raised here.
        if following.done():
            await following

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
    async def _following(self) -> AsyncIterator[asyncio.Task[None]]:
        """Follow all pods meanwhile; what the follower finds wrong is raised at the end."""
        following = asyncio.create_task(self.follower.follow(self._process.address))
        try:
            yield following
            async with asyncio.timeout(30):
                await following
        finally:
            following.cancel()


async def pods_of(grove: GroveClient) -> dict[str, tuple[str, int]]:
    """Return uid and version of each pod by its name."""
    found = [pod async for pod in grove.pods.list(namespace=NAMESPACE)]
    return {pod.metadata.name: (pod.metadata.uid, int(pod.metadata.resource_version)) for pod in found}


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
    assert trial.follower.resumed + trial.follower.expired > 0


@pytest.mark.crash
async def test_many_crashes_lose_nothing(tmp_path: Path) -> None:
    """The same fifty times."""
    trial = await run(tmp_path, 2, ROUNDS_LONG)
    assert trial.ledger.answers > ROUNDS_LONG
    # Some kills come before the follower's question is answered.
    assert trial.follower.resumed + trial.follower.expired >= ROUNDS_LONG // 2
