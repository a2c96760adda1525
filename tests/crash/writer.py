"""The child of the crash test: writes under load until it is killed, and says what was acknowledged.

It keeps several commits in flight over one store. Each commit is atomic and writes one generation of a group of
resources: every member of group g carries the same generation number. After an acknowledgement it prints
``group generation``; anything printed must survive.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from grove_server.store import SqliteStore
from grove_server.store.interface import Applied, Delete, Put
from tests.unit.store.sample import SAMPLE_CODEC, key, sample

GROUPS = 6
MEMBERS = 20


async def write_group(store: SqliteStore, group: int, generation: int) -> None:
    """Write generation after generation; every third replaces the members by new objects."""
    names = [f"g{group}-{member}" for member in range(MEMBERS)]
    while True:
        generation += 1
        uid = generation // 3
        changes: list[Put | Delete] = []
        standing = store.read().get(sample("x").kind, "default", names[0])
        if standing is not None and standing.metadata.uid != f"{names[0]}-{uid}":
            changes.extend(Delete(key(name)) for name in names)
        changes.extend(Put(sample(name, generation, uid=f"{name}-{uid}", padding="x" * 500)) for name in names)
        outcomes = await store.commit(changes)
        if not all(isinstance(outcome, Applied) for outcome in outcomes):
            raise SystemExit(f"refused: {outcomes}")
        # One write per line: a pipe keeps it whole, and it is out before the next commit begins.
        os.write(1, f"{group} {generation}\n".encode())


async def main(path: Path) -> None:
    """Open the database and write all groups at once, from the generations found."""
    store = SqliteStore(path, SAMPLE_CODEC)
    await store.open()
    os.write(1, b"open\n")
    async with asyncio.TaskGroup() as tasks:
        for group in range(GROUPS):
            found = store.read().get(sample("x").kind, "default", f"g{group}-0")
            tasks.create_task(write_group(store, group, getattr(found, "size", 0)))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
