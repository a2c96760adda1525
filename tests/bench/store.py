"""The store by itself: what one change costs the event loop, and one event each of a thousand watchers.

Changes are durable, on a real file, with the real codec and three indexes; the figure is processor time of the event
loop's thread, because that is what the rest of the server competes for. The baseline of a put is a bare insert of the
same rows with the same batches into the same kind of file; that of an event is waking a future per watcher.
"""

import asyncio
import dataclasses
import sqlite3
import tempfile
import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Final

from grove_server.resources import codec
from grove_server.resources.meta import Kind, Metadata
from grove_server.resources.workload import CliqueIdentity, Pod, PodPhase, PodTemplate
from grove_server.store import SqliteStore, VolatileStore
from grove_server.store.interface import Index, Put
from tests.bench.figures import Figure, Target, figure

PODS: Final = 10_000
CHANGES_PER_COMMIT: Final = 100
WATCHERS: Final = 1_000
EVENTS: Final = 50
INDEXES: Final[dict[str, Index]] = {
    "clique": (Kind.POD, lambda pod: (pod.identity.name,)),
    "gang": (Kind.POD, lambda pod: (pod.identity.gang,)),
    "node": (Kind.POD, lambda pod: (pod.node,) if pod.node else ()),
}


def pods() -> list[Pod]:
    """Return pods of a hundred cliques."""
    metadata = Metadata(name="worker-abc", namespace="default", uid="template")
    template = PodTemplate(metadata=metadata, clique="worker", hash="abc", pod_spec={"containers": [{"name": "main"}]})
    made: list[Pod] = []
    for number in range(PODS):
        name = f"set-{number // 100}"
        identity = CliqueIdentity(
            set_name=name,
            set_uid=f"uid-{name}",
            copy=0,
            clique="worker",
            name=f"{name}-0-worker",
            gang=f"{name}-0",
            headless_service=f"{name}-0",
        )
        metadata = Metadata(
            name=f"{identity.name}-{number:05}",
            namespace="default",
            uid=f"00000000-0000-4000-8000-{number:012}",
            created_at=1.7e9,
            labels={"grove.io/podclique": identity.name},
        )
        made.append(Pod(metadata=metadata, identity=identity, index=number % 100, template=template))
    return made


async def put_all(store: SqliteStore, chosen: list[Pod]) -> float:
    """Commit all pods; return the seconds of processor time that this thread spent."""
    batches = [
        [Put(pod) for pod in chosen[start : start + CHANGES_PER_COMMIT]]
        for start in range(0, len(chosen), CHANGES_PER_COMMIT)
    ]
    start_s = time.thread_time()
    futures = []
    for batch in batches:
        futures.append(store.commit_soon(batch))
        await asyncio.sleep(0)
    await asyncio.gather(*futures)
    return time.thread_time() - start_s


async def puts(folder: Path) -> tuple[float, float]:
    """Return seconds per created and per updated pod."""
    chosen = pods()
    store = SqliteStore(folder / "grove.db", codec, indexes=INDEXES)
    await store.open()
    created_s = await put_all(store, chosen)
    changed = [dataclasses.replace(pod, node="node-1", phase=PodPhase.RUNNING) for pod in chosen]
    updated_s = await put_all(store, changed)
    await store.close()
    return created_s / PODS, updated_s / PODS


def bare_inserts(folder: Path) -> float:
    """Return the seconds per row of plain inserts, encoding left out."""
    rows = [("Pod", "default", pod.metadata.name, 1, codec.encode(pod)) for pod in pods()]
    with closing(sqlite3.connect(folder / "bare.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE rows (k, s, n, v, p BLOB, PRIMARY KEY (k, s, n))")
        start_s = time.thread_time()
        for start in range(0, len(rows), CHANGES_PER_COMMIT):
            connection.execute("BEGIN")
            connection.executemany("INSERT INTO rows VALUES (?, ?, ?, ?, ?)", rows[start : start + CHANGES_PER_COMMIT])
            connection.execute("COMMIT")
        return (time.thread_time() - start_s) / len(rows)


async def fanout() -> float:
    """Return the seconds per watcher and event, from the change to the reader's hands."""
    store = VolatileStore()
    await store.open()
    pod = pods()[0]
    taken = 0
    all_have_it = asyncio.Event()

    async def read() -> None:
        nonlocal taken
        watch = store.watch(Kind.POD)
        await watch.batch()
        while True:
            events = await watch.batch()
            taken += len(events)
            if taken % WATCHERS == 0:
                all_have_it.set()

    readers = [asyncio.ensure_future(read()) for _ in range(WATCHERS)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    start_s = time.perf_counter()
    for _ in range(EVENTS):
        all_have_it.clear()
        await store.commit([Put(pod)])
        await all_have_it.wait()
    elapsed_s = time.perf_counter() - start_s
    for reader in readers:
        reader.cancel()
    await asyncio.gather(*readers, return_exceptions=True)
    await store.close()
    return elapsed_s / (WATCHERS * EVENTS)


async def bare_wakes() -> float:
    """Return the seconds it takes to wake one of a thousand tasks by a future."""
    loop = asyncio.get_running_loop()
    waiting: list[asyncio.Future[None]] = []
    all_wait = asyncio.Event()

    async def sleep() -> None:
        while True:
            future = loop.create_future()
            waiting.append(future)
            if len(waiting) == WATCHERS:
                all_wait.set()
            await future

    sleepers = [asyncio.ensure_future(sleep()) for _ in range(WATCHERS)]
    await asyncio.sleep(0)
    start_s = time.perf_counter()
    for _ in range(EVENTS):
        due = waiting[:]
        waiting.clear()
        all_wait.clear()
        for future in due:
            future.set_result(None)
        await all_wait.wait()
    elapsed_s = time.perf_counter() - start_s
    for sleeper in sleepers:
        sleeper.cancel()
    await asyncio.gather(*sleepers, return_exceptions=True)
    return elapsed_s / (WATCHERS * EVENTS)


def store_put() -> Iterable[Figure]:
    """Measure the loop's cost of durable changes."""
    with tempfile.TemporaryDirectory() as name:
        created_s, updated_s = asyncio.run(puts(Path(name)))
        bare_s = bare_inserts(Path(name))
    target = Target(bound=25.0)
    yield figure("store.create", created_s * 1e6, "µs", better="lower", baseline=bare_s * 1e6, target=target)
    yield figure("store.update", updated_s * 1e6, "µs", better="lower", baseline=bare_s * 1e6, target=target)


def store_fanout() -> Iterable[Figure]:
    """Measure the store's part of an event for each watcher."""
    value_s, bare_s = asyncio.run(fanout()), asyncio.run(bare_wakes())
    yield figure("store.fanout", value_s * 1e6, "µs", better="lower", baseline=bare_s * 1e6, target=Target(bound=3.0))
