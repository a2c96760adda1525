"""The server killed at random moments while sets change: no process is lost, doubled or orphaned.

Each round changes sets, kills the server with SIGKILL after a random number of answers, and starts it again. After each
start, what runs and what is stored must come to agree, and processes of pods that both rounds know must be the same.
Seeded; where exactly a kill hits is the machine's affair. `make test-crash` runs the long one.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest

import grove_client
from grove.v1.pod_pb2 import Pod
from grove_client import FailedPreconditionError, NotFoundError, UnavailableError
from tests.onebox.box import FLAGS, Box, Process, clique, is_ready, processes, restarts
from tests.server import ServerProcess
from tests.waiting import until_seen

ROUNDS_SHORT: Final = 4
# Together 100 kills; one test of them would take longer on a busy machine than a test may.
ROUNDS_LONG: Final = 25
SETS: Final = ("a", "b", "c")
PODS_MAX: Final = 4
CHANGES_MAX: Final = 4
NAMESPACE: Final = "chaos"


class Trial:
    """One server on one data directory, and what was seen of its processes."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder = folder
        self._dice = random.Random(seed)
        self._process = ServerProcess(folder / "data", flags=FLAGS)
        self._step = 0
        self._known: dict[str, int] = {}

    async def round(self) -> None:
        """Start, see that rows and processes agree, change sets, and kill the server in the middle of it."""
        await asyncio.to_thread(self._process.start)
        async with self._box() as box:
            if self._dice.random() < 0.7:
                await self._agree(box)
            await self._change_until_killed(box)

    async def finish(self) -> None:
        """Start once more, see that all agrees, and that nothing is left once all sets are gone."""
        await asyncio.to_thread(self._process.start)
        async with self._box() as box:
            await self._agree(box)
            for name in SETS:
                try:
                    await box.grove.pod_clique_sets.delete([name], namespace=NAMESPACE)
                except (NotFoundError, FailedPreconditionError):
                    continue
            await box.see(lambda pods: not pods, "no pod is left")
            await until_seen(self._running, lambda found: not found, lambda found: f"nothing runs, found {found}")

    async def close(self) -> None:
        """End everything, however the trial went."""
        self._process.stop()
        last = ServerProcess(
            self._folder / "data", flags=(*FLAGS, "--pods-on-exit", "stop", "--pods-exit-grace-s", "0")
        )
        if await self._running():
            await asyncio.to_thread(last.start)
            await asyncio.to_thread(last.stop)

    def last_words(self) -> str:
        """Return what is known of the server, for the message of a failure."""
        return self._process.last_words()

    @asynccontextmanager
    async def _box(self) -> AsyncIterator[Box]:
        async with grove_client.connect(self._process.address) as grove:
            yield Box(server=self._process, grove=grove, namespace=NAMESPACE)

    async def _running(self) -> list[Process]:
        """Return the processes of this trial's containers: those of other servers on the machine are not ours."""
        known = {entry.name for entry in (self._folder / "data" / "process" / "pods").glob("*")}
        return [
            each for each in await asyncio.to_thread(processes) if each.pod_uid in known or each.pod_uid in self._known
        ]

    async def _agree(self, box: Box) -> None:
        """Wait until each pod is ready and has exactly one process, and nothing else runs; compare with before."""

        async def look() -> tuple[list[Pod], Counter[str]]:
            return await box.pods(), Counter(each.pod_uid for each in await self._running())

        pods, _ = await until_seen(
            look,
            lambda seen: all(map(is_ready, seen[0])) and seen[1] == Counter(pod.metadata.uid for pod in seen[0]),
            lambda seen: f"one process for each pod, seen {[p.metadata.uid for p in seen[0]]} and {seen[1]}",
            within_s=60.0,
        )
        assert [restarts(pod) for pod in pods] == [0] * len(pods)
        pids = {each.pod_uid: each.pid for each in await self._running()}
        changed = {uid for uid in pids.keys() & self._known.keys() if pids[uid] != self._known[uid]}
        assert changed == set(), "these pods run as other processes than before, and were not restarted"
        self._known = pids

    async def _change_until_killed(self, box: Box) -> None:
        """Change sets; the server dies after some answers, at a moment within the next change."""
        for _ in range(self._dice.randrange(CHANGES_MAX)):
            await self._change(box)
        last = asyncio.create_task(self._change(box))
        for _ in range(self._dice.randrange(200)):
            await asyncio.sleep(0)
        self._process.kill()
        try:
            await last
        except UnavailableError:
            # Whether that change was made nobody was told.
            return

    async def _change(self, box: Box) -> None:
        name, choice = self._dice.choice(SETS), self._dice.random()
        self._step += 1
        try:
            if choice < 0.25:
                await box.grove.pod_clique_sets.delete([name], namespace=NAMESPACE)
            else:
                # Another argument is another template: the pods are replaced.
                seconds = str(100_000 + (self._step if choice < 0.5 else 0))
                container = {"name": "main", "image": "x", "command": ["sleep", seconds]}
                replicas = self._dice.randint(1, PODS_MAX)
                wanted = clique("pod", container, replicas=replicas, terminationGracePeriodSeconds=1)
                wanted["spec"]["minAvailable"] = 1
                await box.apply(name, wanted)
        except (NotFoundError, FailedPreconditionError):
            # It is not there, or still on its way out.
            return


async def survive(folder: Path, rounds: int, seed: int) -> None:
    """Run a trial of so many rounds."""
    trial = Trial(folder, seed)
    try:
        for _ in range(rounds):
            await trial.round()
        await trial.finish()
    except BaseException as error:
        error.add_note(trial.last_words())
        raise
    finally:
        await trial.close()


async def test_no_process_is_lost_doubled_or_orphaned(tmp_path: Path) -> None:
    """After each kill, every pod has the one process it had, and no process is without a pod."""
    await survive(tmp_path, ROUNDS_SHORT, seed=1)


@pytest.mark.crash
@pytest.mark.parametrize("seed", [11, 12, 13, 14])
async def test_no_process_is_lost_doubled_or_orphaned_100_times(tmp_path: Path, seed: int) -> None:
    """The same, 25 times in a row for each seed."""
    await survive(tmp_path, ROUNDS_LONG, seed)
