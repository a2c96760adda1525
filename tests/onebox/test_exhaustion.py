"""What a container, or a disk, may run into without harm to others: too many processes, too much output, no room."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import psutil

import grove_client
from grove_client import UnavailableError
from tests.onebox.box import (
    FLAGS,
    Box,
    clique,
    condition,
    get,
    health_probe,
    is_ready,
    processes_of,
    restarts,
    tell_to_exit,
    worker,
)
from tests.server import ServerProcess
from tests.waiting import until

PROCESSES_MAX: Final = 40
LOG_BYTES: Final = 64 * 1024
LOG_FILES: Final = 3
FLOOD_BYTES: Final = 64 << 20
KEEPER_BYTES_MAX: Final = 48 << 20

# Forks until it may not, or far beyond the limit; then says how often, and waits.
FORKS: Final = """
import os, sys, time
count = 1
while count < 200:
    try:
        if os.fork() == 0:
            time.sleep(1000)
    except OSError:
        break
    count += 1
print(count, file=open(sys.argv[1] + "x", "w"), flush=True)
os.rename(sys.argv[1] + "x", sys.argv[1])
time.sleep(1000)
"""


@asynccontextmanager
async def box_of(data_dir: Path, *flags: str, through: tuple[str, ...] = ()) -> AsyncIterator[Box]:
    """Start a server whose pods end with it, and give a namespace of it."""
    process = ServerProcess(
        data_dir, flags=(*FLAGS, "--pods-on-exit", "stop", "--pods-exit-grace-s", "0", *flags), through=through
    )
    await asyncio.to_thread(process.start)
    try:
        async with grove_client.connect(process.address) as grove:
            box = Box(server=process, grove=grove, namespace="exhaustion")
            yield box
            await box.close()
    finally:
        await asyncio.to_thread(process.stop)


def neighbour(journal_path: Path) -> Any:  # noqa: ANN401 -- a piece of a manifest
    """Return a clique of one pod that is to be unhurt."""
    return clique("neighbour", worker(journal_path, container={"readinessProbe": health_probe()}))


async def test_forking_up_to_the_limit_hurts_nobody_else(tmp_path: Path, journal_path: Path) -> None:
    """A container gets no more processes than it may have; others start and serve, and it can be ended."""
    said = tmp_path / "count"
    async with box_of(tmp_path / "data", "--container-processes-max", str(PROCESSES_MAX)) as box:
        bomb = {"name": "main", "image": "x", "command": [sys.executable, "-S", "-c", FORKS, str(said)]}
        await box.apply("bomb", clique("bomb", bomb))
        (pod,) = await box.ready(1)
        await until(said.exists, "it has forked as often as it may")
        count = int(said.read_text(encoding="ascii"))
        # Where the system lets nobody limit it, the pod says so, and the bomb above ends by itself.
        assert count <= PROCESSES_MAX or condition(pod, "LimitsEnforced")[0] == "False"
        assert len(processes_of(pod)) == count
        await box.apply("other", neighbour(journal_path))
        pods = await box.ready(2)
        assert [restarts(each) for each in pods] == [0, 0]
        await box.delete("bomb")
        await until(lambda: processes_of(pod) == [], "nothing of it is left")


async def test_a_flood_of_output_is_bounded(tmp_path: Path, journal_path: Path) -> None:
    """Output without end takes bounded room on disk and in its keeper, and another pod goes on answering."""
    async with box_of(
        tmp_path / "data", "--container-log-bytes", str(LOG_BYTES), "--container-log-files", str(LOG_FILES)
    ) as box:
        await box.apply("flood", clique("flood", {"name": "main", "image": "x", "command": ["yes", "x" * 200]}))
        (pod,) = await box.ready(1)
        await box.apply("other", neighbour(journal_path))
        pods = await box.ready(2)
        (flood,) = (psutil.Process(each.pid) for each in processes_of(pod))
        keeper = flood.parent()
        assert keeper is not None
        logs = tmp_path / "data" / "process" / "logs" / pod.metadata.uid
        most_in_memory = 0

        def has_flooded() -> bool:
            nonlocal most_in_memory
            most_in_memory = max(most_in_memory, keeper.memory_info().rss)
            return bool(flood.io_counters().write_chars >= FLOOD_BYTES)

        await until(has_flooded, "enough was written", within_s=120)
        # Files are renamed all the time, so whoever looks has to stop that.
        keeper.suspend()
        on_disk = [path.stat().st_size for path in logs.rglob("*.log*")]
        keeper.resume()
        served = next(each for each in pods if each.metadata.uid != pod.metadata.uid)
        assert (await get(served, "/health"))[0] == 200
        assert [restarts(each) for each in await box.ready(2)] == [0, 0]
        assert len(on_disk) in (LOG_FILES - 1, LOG_FILES)
        assert max(on_disk) <= LOG_BYTES
        assert most_in_memory <= KEEPER_BYTES_MAX


async def test_pods_outlast_a_full_disk(tmp_path: Path, journal_path: Path) -> None:
    """The store refuses changes, pods and commands go on, exit codes are kept, and with room again all is well."""
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    # The server sees a small file system of its own; without the right to mount it becomes root of its own first.
    apart = ("unshare", "--mount") if os.geteuid() == 0 else ("unshare", "--mount", "--user", "--map-root-user")
    mount = f'mount -t tmpfs -o size=8m,mode=0700 none "{data_dir}" && exec "$@"'
    async with box_of(data_dir, through=(*apart, "sh", "-c", mount, "sh")) as box:
        await box.apply("kept", neighbour(journal_path))
        (pod,) = await box.ready(1)
        (before,) = processes_of(pod)
        filler = Path(f"/proc/{box.server.pid}/root{data_dir}/filler")
        _fill(filler)
        await _refused(box)
        assert await _exit_code(box, pod.metadata.name, "sh", "-c", "exit 7") == 7
        assert (await get(pod, "/health"))[0] == 200
        assert [each.pid for each in processes_of(pod)] == [before.pid]
        filler.unlink()
        await until_applied(box, "later", clique("later", worker(journal_path)))
        pods = await box.ready(2)
        assert [restarts(each) for each in pods] == [0, 0]
        await tell_to_exit(pod, 3)
        await box.see(lambda pods: sum(map(restarts, pods)) == 1 and all(map(is_ready, pods)), "it starts again")


def _fill(path: Path) -> None:
    """Take all the room there is, to the last page."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise


async def _refused(box: Box) -> None:
    """Apply sets until the store has no room left in the files it has."""
    for number in range(200):
        try:
            await box.apply(f"more-{number}", clique("none", {"name": "main", "image": "x", "command": ["true"]}))
        except UnavailableError as error:
            if error.reason != "STORE_UNAVAILABLE":
                raise
            box.sets.pop()
            return
    raise AssertionError("a store without room went on taking changes")


async def until_applied(box: Box, name: str, *cliques: Any) -> None:  # noqa: ANN401 -- pieces of a manifest
    """Take away what filled the store, and apply a set once it takes changes again."""
    for _ in range(30):
        try:
            for each in [other for other in box.sets if other.startswith("more-")]:
                await box.grove.pod_clique_sets.delete([each], namespace=box.namespace)
                box.sets.remove(each)
            await box.apply(name, *cliques)
        except UnavailableError as error:
            # As long as the server asks for.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(error.retry_after_s or 1):
                    await asyncio.Event().wait()
        else:
            return
    raise AssertionError("the store takes no changes although there is room")


async def _exit_code(box: Box, pod: str, *argv: str) -> int:
    async with await box.grove.containers.run(pod, argv, namespace=box.namespace) as command:
        while (word := await command.read()) is not None:
            if word.HasField("exit"):
                return word.exit.exit_code
    raise AssertionError("no word of its end")
