"""The store against a dictionary.

Goal: whatever sequence of commits (won and lost, atomic and not, decided on top of each other before anything is
durable), reads, restarts, slow and fast watchers and resumes there is, the store shows what a dictionary would, and
the reader of every watch that applies its events ends up with exactly what is there.

Method: a rule-based machine drives a real store on a real file. Each watcher is a model of a client: it takes events
a few at a time, checks what it may rely on (versions ascend after SYNCED, a deletion comes before another object of
the same name, tokens resume without a gap) and keeps its own picture, which is compared when it has read everything.
"""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from grove_server.resources.meta import Key, Kind
from grove_server.store import WatchLimits
from grove_server.store.engine import EmbeddedStore
from grove_server.store.errors import TokenExpiredError, WatchTooSlowError
from grove_server.store.interface import (
    Applied,
    Change,
    Conflict,
    Delete,
    EventType,
    Exists,
    LabelsEqual,
    Missing,
    Outcome,
    Put,
    Selector,
    Skipped,
    Watch,
    WatchEvent,
)
from grove_server.store.sqlite.writer import SqliteJournal
from tests.unit.store.sample import INDEXES, SAMPLE_CODEC, Sample, key, sample

NAMES = st.sampled_from(["a", "b", "c"])
SPACES = st.sampled_from(["x", "y"])
SIZES = st.integers(0, 2)
BLUE = {"colour": "blue"}
LIMITS = WatchLimits(window_changes=12, pending_max=5)


@st.composite
def changes(draw: st.DrawFn) -> tuple[str, Any, str]:
    """Draw what to change and what to expect; the machine fills in versions and uids."""
    what = draw(st.sampled_from(["create", "update", "overwrite", "stale", "delete", "delete-stale"]))
    made = sample(draw(NAMES), draw(SIZES), namespace=draw(SPACES), labels=draw(st.sampled_from([{}, BLUE])))
    return what, made, draw(st.sampled_from(["same", "new"]))


class Client:
    """A reader of a watch with its own picture of the world."""

    def __init__(self, watch: Watch, namespace: str | None, labels: Selector | None) -> None:
        """Start with nothing seen."""
        self.watch = watch
        self.namespace = namespace
        self.labels = labels
        self.picture: dict[Key, Sample] = {}
        self.listing: dict[Key, Sample] | None = {}
        self.version = 0

    def take(self, event: WatchEvent) -> None:
        """Apply one event."""
        if event.type is EventType.SYNCED:
            if self.listing is not None:
                self.picture, self.listing = self.listing, None
            self.version = max(self.version, event.version)
            return
        found: Any = event.resource
        where = key(found.metadata.name, found.metadata.namespace)
        if self.listing is not None:
            assert event.type is EventType.ADDED
            self.listing[where] = found
            return
        assert event.version >= self.version
        self.version = event.version
        standing = self.picture.get(where)
        if event.type is EventType.DELETED:
            assert standing is None or standing.metadata.uid == found.metadata.uid
            self.picture.pop(where, None)
            return
        assert standing is None or standing.metadata.uid == found.metadata.uid, "another object before the deletion"
        assert found.resource_version == event.version
        self.picture[where] = found

    def expected(self, model: dict[Key, Sample]) -> dict[Key, Sample]:
        """Return what the picture must be."""
        return {
            where: each
            for where, each in model.items()
            if (self.namespace is None or where.namespace == self.namespace)
            and (self.labels is None or self.labels.matches(each.metadata.labels))
        }


def _without_fsync(connection: sqlite3.Connection) -> None:
    """Leave out what only a crash could tell; the crash test has it. Thousands of commits run here."""
    connection.execute("PRAGMA synchronous = OFF")


class StoreMachine(RuleBasedStateMachine):
    """The store, its model, and its clients."""

    def __init__(self) -> None:
        """Open an empty database."""
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.loop = asyncio.new_event_loop()
        self.model: dict[Key, Sample] = {}
        self.version = 0
        self.uid_count = 0
        self.clients: list[Client] = []
        self.waiting: list[tuple[asyncio.Future[tuple[Outcome, ...]], tuple[Outcome, ...]]] = []
        self.open()

    def open(self) -> None:
        """Open the database."""
        path = Path(self.folder.name) / "grove.db"
        journal = SqliteJournal(path, SAMPLE_CODEC, tune=_without_fsync)
        # Slices of two changes: most commits are larger, so watches also start while one is being told.
        self.store = EmbeddedStore(journal, indexes=INDEXES, watch_limits=LIMITS, slice_changes=2)
        self.loop.run_until_complete(self.store.open())

    def teardown(self) -> None:
        """Close everything."""
        self.loop.run_until_complete(self.store.close())
        self.loop.close()
        self.folder.cleanup()

    def resolved(self, drawn: tuple[str, Any, str], model: dict[Key, Sample]) -> Change:
        """Return the change that was drawn, as it makes sense now."""
        what, made, uid = drawn
        where = key(made.metadata.name, made.metadata.namespace)
        standing = model.get(where)
        version = standing.resource_version if standing else 0
        if what == "delete":
            return Delete(where)
        if what == "delete-stale":
            return Delete(where, expected=version + 7)
        if standing and uid == "same":
            uid_text = standing.metadata.uid
        else:
            self.uid_count += 1
            uid_text = f"uid-{self.uid_count}"
        put = sample(
            made.metadata.name,
            made.size,
            namespace=made.metadata.namespace,
            uid=uid_text,
            labels=made.metadata.labels,
        )
        expected = {"create": 0, "update": version or None, "overwrite": None, "stale": version + 7}[what]
        return Put(put, expected=expected)

    def predicted(self, change: Change, model: dict[Key, Sample], version: int) -> Outcome:
        """Say what the dictionary makes of a change, and make it."""
        if isinstance(change, Delete):
            standing = model.get(change.key)
            if standing is None:
                return Missing(change.key)
            if change.expected not in (None, standing.resource_version):
                return Conflict(change.key, standing.resource_version)
            del model[change.key]
            return Applied(change.key, version, None)
        put: Any = change.resource
        where = key(put.metadata.name, put.metadata.namespace)
        standing = model.get(where)
        if standing is None:
            if change.expected not in (None, 0):
                return Missing(where)
        elif change.expected == 0:
            return Exists(where)
        elif change.expected not in (None, standing.resource_version):
            return Conflict(where, standing.resource_version)
        elif standing.metadata.uid != put.metadata.uid:
            return Exists(where)
        stored = Sample(metadata=put.metadata, size=put.size, resource_version=version)
        model[where] = stored
        return Applied(where, version, stored)

    @rule(drawn=st.lists(changes(), min_size=1, max_size=4), atomic=st.booleans())
    def commit(self, drawn: list[tuple[str, Any, str]], *, atomic: bool) -> None:
        """Decide a commit, without waiting for it."""
        model, version = dict(self.model), self.version
        batch: list[Change] = []
        expected: list[Outcome] = []
        for each in drawn:
            change = self.resolved(each, model)
            outcome = self.predicted(change, model, version + 1)
            version += isinstance(outcome, Applied)
            batch.append(change)
            expected.append(outcome)
        if atomic and not all(isinstance(outcome, Applied) for outcome in expected):
            expected = [Skipped(each.key) if isinstance(each, Applied) else each for each in expected]
        else:
            self.model, self.version = model, version

        async def decide() -> asyncio.Future[tuple[Outcome, ...]]:
            return self.store.commit_soon(batch, atomic=atomic)

        self.waiting.append((self.loop.run_until_complete(decide()), tuple(expected)))

    @rule(drawn=st.lists(changes(), min_size=2, max_size=8))
    def churn(self, drawn: list[tuple[str, Any, str]]) -> None:
        """Let many single changes become visible one after the other, so that readers fall behind."""
        for each in drawn:
            self.commit([each], atomic=True)
            self.settle()

    @rule()
    def settle(self) -> None:
        """Wait for everything decided, and compare."""
        for future, expected in self.waiting:
            assert self.loop.run_until_complete(future) == expected
        self.waiting.clear()
        reader = self.store.read()
        assert reader.sorted_list(Sample) == [self.model[where] for where in sorted(self.model)]
        assert reader.count(Kind.POD) == len(self.model)
        for size in range(3):
            held = {each.metadata.uid for each in reader.indexed("by-size", size)}
            assert held == {each.metadata.uid for each in self.model.values() if each.size == size}
        assert reader.version == self.version

    @rule(namespace=st.none() | SPACES, is_blue=st.booleans())
    @precondition(lambda self: len(self.clients) < 4)
    def watch(self, namespace: str | None, *, is_blue: bool) -> None:
        """Start a watch, whatever else is under way."""
        labels = LabelsEqual(frozenset(BLUE.items())) if is_blue else None
        watch = self.store.watch(Kind.POD, namespace=namespace, labels=labels)
        self.clients.append(Client(watch, namespace, labels))

    def read_some(self, client: Client, count_max: int) -> bool:
        """Let a client take up to so many events; return whether there was nothing."""

        async def take() -> list[WatchEvent] | None:
            task = asyncio.ensure_future(client.watch.batch(count_max))
            for _ in range(4):
                await asyncio.sleep(0)
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                return None
            return [*task.result()]

        try:
            events = self.loop.run_until_complete(take())
        except WatchTooSlowError as error:
            self.resume(client, error.token)
            return False
        for event in events or ():
            client.take(event)
        return events is None

    def resume(self, client: Client, token: str) -> None:
        """Go on from a token, or list again if that is too old."""
        client.watch.close()
        try:
            client.watch = self.store.watch(Kind.POD, namespace=client.namespace, labels=client.labels, token=token)
        except TokenExpiredError:
            client.watch = self.store.watch(Kind.POD, namespace=client.namespace, labels=client.labels)
            client.listing = {}
            client.version = 0
        if client.listing is not None:
            client.listing = {}

    @rule(data=st.data(), count_max=st.integers(1, 3))
    @precondition(lambda self: bool(self.clients))
    def read(self, data: st.DataObject, count_max: int) -> None:
        """Let one client read a little."""
        self.read_some(data.draw(st.sampled_from(self.clients)), count_max)

    @rule(data=st.data(), count_max=st.integers(0, 2))
    @precondition(lambda self: bool(self.clients))
    def reconnect(self, data: st.DataObject, count_max: int) -> None:
        """Let one client read a little, lose its connection, and resume from its last event."""
        client = data.draw(st.sampled_from(self.clients))
        if count_max:
            self.read_some(client, count_max)
        self.resume(client, client.watch.token)

    @rule()
    def catch_up(self) -> None:
        """Let all clients read everything; their pictures are then true."""
        self.settle()
        for client in self.clients:
            while not self.read_some(client, 256):
                pass
            assert client.listing is None
            assert client.picture == client.expected(self.model)

    @rule()
    def restart(self) -> None:
        """Close and open the database; clients resume where they were."""
        self.settle()
        tokens = [client.watch.token for client in self.clients]
        self.loop.run_until_complete(self.store.close())
        self.open()
        for client, token in zip(self.clients, tokens, strict=True):
            self.resume(client, token)

    @invariant()
    def nothing_is_owed(self) -> None:
        """The store is healthy all along."""
        assert self.store.health().ok


TestStore = StoreMachine.TestCase
