"""Readers that follow the store by watching, as clients do: late, cut off, resumed, told to list again.

A follower keeps a copy of what it was told. When all is calm its copy must be the store's, whatever became of its
watch meanwhile.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from grove_server.resources.meta import Kind, Resource
from grove_server.store.engine import EmbeddedStore
from grove_server.store.errors import StoreClosedError, TokenExpiredError, WatchTooSlowError
from grove_server.store.interface import EventType, Reader, WatchEvent
from tests.simulation.virtual_loop import VirtualLoop

Name = tuple[str, str]

_OLDER_MAX: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """How a follower reads: the chance of a pause before a batch and its longest length, and that of leaving.

    ``repeat_chance`` is that of coming back with an older token than it need: much of what follows it knows already.
    """

    pause_chance: float = 0.0
    pause_s: float = 0.0
    leave_chance: float = 0.0
    repeat_chance: float = 0.0


@dataclass(slots=True, eq=False)
class Follower:
    """One reader of one kind, in one namespace or all. ``problems`` are what no reader may ever see."""

    kind: Kind
    namespace: str | None
    habits: Habits
    rng: random.Random
    token: str | None = None
    copy: dict[Name, Resource] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    lists: int = 0
    resumes: int = 0
    repeats: int = 0
    _listed: set[Name] | None = None
    _is_resumed: bool = False
    # Tokens that were as good once, and the newest version it was told of.
    _older: deque[str] = field(default_factory=lambda: deque(maxlen=_OLDER_MAX))
    _newest: int = 0

    async def follow(self, store: EmbeddedStore, loop: VirtualLoop) -> None:
        """Follow one start of the server until it ends."""
        while True:
            try:
                await self._watch(store, loop)
            except StoreClosedError:
                return
            except TokenExpiredError:
                self.token = None
            except WatchTooSlowError:
                # Its reader may list again or resume; both must work.
                if self.rng.random() < 0.5:
                    self.token = None

    def calm(self) -> None:
        """Read promptly from now on."""
        self.habits = Habits()

    def differences(self, reader: Reader) -> list[str]:
        """Return how the copy differs from the store."""
        stored = {_name(row): row.resource_version for row in reader.list(self.kind, self.namespace)}
        told = {name: row.resource_version for name, row in self.copy.items()}
        return [
            f"watch of {self.kind} in {self.namespace or 'all'}: {name} is at {stored.get(name)}, told {told.get(name)}"
            for name in sorted(stored.keys() | told.keys())
            if stored.get(name) != told.get(name)
        ]

    async def _watch(self, store: EmbeddedStore, loop: VirtualLoop) -> None:
        self._is_resumed = self.token is not None
        if self.token is not None and self._older and self.rng.random() < self.habits.repeat_chance:
            self.token = self.rng.choice(self._older)
            self.repeats += 1
        watch = store.watch(self.kind, namespace=self.namespace, token=self.token)
        if self.token is None:
            self._listed = set()
            self._older.clear()
            self.lists += 1
        else:
            self._listed = None
            self.resumes += 1
        try:
            while self.rng.random() >= self.habits.leave_chance:
                if self.rng.random() < self.habits.pause_chance:
                    await loop.pause(self.rng.random() * self.habits.pause_s)
                self._take(await watch.batch(self.rng.choice((1, 3, 256))))
                # A token from before SYNCED starts the list again; so does leaving then.
                self.token = None if self._listed is not None else watch.token
                if self.token:
                    self._older.append(self.token)
        finally:
            watch.close()
        await asyncio.sleep(0)

    def _take(self, events: Sequence[WatchEvent]) -> None:
        for event in events:
            if event.type is EventType.SYNCED:
                self._end_list()
            elif event.resource is not None:
                self._take_one(event, event.resource)

    def _end_list(self) -> None:
        if self._listed is not None:
            for name in [name for name in self.copy if name not in self._listed]:
                del self.copy[name]
            self._listed = None

    def _take_one(self, event: WatchEvent, resource: Resource) -> None:
        name = _name(resource)
        known = self.copy.get(name)
        # What is told again takes the copy back for a moment; what follows it leads to the present.
        is_repeated = event.version <= self._newest
        self._newest = max(self._newest, event.version)
        if event.type is EventType.DELETED:
            if known is not None and known.metadata.uid == resource.metadata.uid:
                del self.copy[name]
            return
        if not is_repeated and known is not None and event.version < known.resource_version:
            self.problems.append(f"watch of {self.kind}: {name} went from {known.resource_version} to {event.version}")
        # A slow reader's news of one object is folded into one event. If it left before it took that, the resumed watch
        # only tells what came after its token, so an object may be modified that this reader never heard of.
        if event.type is EventType.MODIFIED and known is None and not self._is_resumed:
            self.problems.append(f"watch of {self.kind}: {name} was modified and never added")
        self.copy[name] = resource
        if self._listed is not None:
            self._listed.add(name)


def _name(resource: Resource) -> Name:
    return (resource.metadata.namespace, resource.metadata.name)
