"""The store against kill -9: what was acknowledged is there, and no atomic commit is split.

A child process writes under load and reports each acknowledgement on a pipe. The parent kills it at a random moment,
opens the same database and looks; then the next child goes on from there. The moments are drawn from a fixed seed,
but where they hit is the machine's affair.
"""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from pathlib import Path

from grove_server.store import SqliteStore
from tests.crash.writer import GROUPS, MEMBERS
from tests.unit.store.sample import SAMPLE_CODEC, Sample

KILLS = 20
ACKNOWLEDGED_MAX = 60


def killed_under_load(database: Path, acknowledged: dict[int, int], *, after: int) -> None:
    """Run a writer, kill it after so many acknowledgements, and take in everything it had reported."""
    command = [sys.executable, "-m", "tests.crash.writer", str(database)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "open\n"
        lines = [child.stdout.readline() for _ in range(after)]
        child.kill()
        lines.extend(child.stdout)
    assert child.returncode == -9, "it ended before it was killed"
    for line in lines:
        group, generation = map(int, line.split())
        acknowledged[group] = max(acknowledged.get(group, 0), generation)


async def generations(database: Path) -> dict[int, set[int]]:
    """Return the generations found in each group, and check that the groups are complete."""
    store = SqliteStore(database, SAMPLE_CODEC)
    await store.open()
    found: dict[int, set[int]] = {}
    counts = dict.fromkeys(range(GROUPS), 0)
    for each in store.read().list(Sample):
        group = int(each.metadata.name.partition("-")[0][1:])
        counts[group] += 1
        found.setdefault(group, set()).add(each.size)
        assert each.metadata.uid == f"{each.metadata.name}-{each.size // 3}"
    assert all(count in (0, MEMBERS) for count in counts.values()), counts
    versions = [each.resource_version for each in store.read().list(Sample)]
    assert len(set(versions)) == len(versions)
    await store.close()
    return found


def test_no_acknowledged_write_is_lost_and_no_commit_is_split(tmp_path: Path) -> None:
    """After each of many kills, every group has one generation, and none older than the last acknowledged."""
    moments = random.Random(7)
    database = tmp_path / "grove.db"
    acknowledged: dict[int, int] = {}
    for _ in range(KILLS):
        killed_under_load(database, acknowledged, after=moments.randrange(ACKNOWLEDGED_MAX))
        found = asyncio.run(generations(database))
        assert all(len(each) == 1 for each in found.values()), "an atomic commit was split"
        for group, generation in acknowledged.items():
            assert min(found[group]) >= generation, "an acknowledged write was lost"
    assert sum(acknowledged.values()) > KILLS
