"""What a store and those who report to it may do at worst: tell a change twice, report late, report what is outdated.

The store tells its listeners of each change once, but on Kubernetes a watch that was cut tells some of it again; so
whoever listens must not mind. Reports of the runtime carry the version that they rest on; a late or repeated one must
be refused and change nothing.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from grove_server.resources.meta import Kind
from grove_server.store.engine import EmbeddedStore
from grove_server.store.interface import (
    NO_ORIGIN,
    Change,
    Health,
    Index,
    Listener,
    Notice,
    Origin,
    Outcome,
    Reader,
    Selector,
    Store,
    Watch,
)
from grove_server.store.journal import Commit, Journal
from grove_server.store.watch.hub import WatchLimits
from tests.simulation.virtual_loop import VirtualLoop

Outcomes = tuple[Outcome, ...]

# Reports that may be repeated; the oldest are forgotten.
_REPEATABLE_MAX: Final = 32


@dataclass(slots=True)
class RuntimeMood:
    """How the runtime is today.

    ``pause_chance`` is that of a pause between two slices of its work and ``pause_s`` the longest one; ``late_chance``
    that of a report which is held back for up to ``late_s``; ``repeat_chance`` that of an old report which is sent
    again beside a new one.
    """

    pause_chance: float = 0.0
    pause_s: float = 0.0
    late_chance: float = 0.0
    late_s: float = 0.0
    repeat_chance: float = 0.0


@dataclass(slots=True)
class NoticeMood:
    """The chance that listeners are told a batch of changes twice."""

    twice_chance: float = 0.0


class TalkativeStore(EmbeddedStore):
    """The real store, which now and then tells its listeners something for the second time."""

    def __init__(
        self,
        journal: Journal,
        *,
        indexes: Mapping[str, Index],
        watch_limits: WatchLimits,
        mood: NoticeMood,
        rng: random.Random,
        rested_on: dict[Commit, int],
    ) -> None:
        """Note in *rested_on* which version was visible when each commit was decided."""
        super().__init__(journal, indexes=indexes, watch_limits=watch_limits)
        self._mood = mood
        self._rng = rng
        self._rested_on = rested_on

    def commit_soon(
        self, changes: Sequence[Change], *, atomic: bool = True, cause: str = "", origin: Origin = NO_ORIGIN
    ) -> asyncio.Future[Outcomes]:
        """Decide *changes* now; see Store."""
        future = super().commit_soon(changes, atomic=atomic, cause=cause, origin=origin)
        if self._inflight and self._inflight[-1].future is future:
            commit = self._inflight[-1]
            self._rested_on[commit] = self.read().version
            # What fails is never durable, and nobody asks for it.
            future.add_done_callback(lambda _: self._rested_on.pop(commit, None))
        return future

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call *listener* with what becomes visible, at times twice."""

        def tell(notices: Sequence[Notice]) -> None:
            listener(notices)
            if self._mood.twice_chance and self._rng.random() < self._mood.twice_chance:
                listener(notices)

        return super().subscribe(tell)

    def subscribe_once(self, listener: Listener) -> Callable[[], None]:
        """Call *listener* with each change once: for those who look on from outside."""
        return super().subscribe(listener)


class LateReports:
    """A store as the runtime sees it: what it commits may come late, and some of it comes again."""

    def __init__(self, store: Store, loop: VirtualLoop, mood: RuntimeMood, rng: random.Random) -> None:
        self._store = store
        self._loop = loop
        self._mood = mood
        self._rng = rng
        self._sent: list[tuple[tuple[Change, ...], bool, str]] = []
        # Reports on their way; nothing is quiet while there are any.
        self.held_count = 0
        self.repeated_count = 0

    @property
    def atomic(self) -> bool:
        """Whether a commit is one change to everybody."""
        return self._store.atomic

    async def open(self) -> None:
        """Do nothing: whoever made the store opens it."""

    async def close(self) -> None:
        """Do nothing."""

    def read(self) -> Reader:
        """Return the live view."""
        return self._store.read()

    def commit_soon(
        self, changes: Sequence[Change], *, atomic: bool = True, cause: str = "", origin: Origin = NO_ORIGIN
    ) -> asyncio.Future[Outcomes]:
        """Commit *changes* now or, as the mood is, later; now and then repeat some that were committed before."""
        mood, rng = self._mood, self._rng
        if self._sent and rng.random() < mood.repeat_chance:
            old, old_atomic, old_cause = rng.choice(self._sent)
            self.repeated_count += 1
            self._store.commit_soon(old, atomic=old_atomic, cause=old_cause).add_done_callback(_look_away)
        if rng.random() >= mood.late_chance:
            self._remember(changes, cause, atomic=atomic)
            return self._store.commit_soon(changes, atomic=atomic, cause=cause, origin=origin)
        self.held_count += 1
        promised: asyncio.Future[Outcomes] = self._loop.create_future()
        self._loop.call_later(rng.random() * mood.late_s, self._release, promised, tuple(changes), atomic, cause)
        return promised

    async def commit(
        self, changes: Sequence[Change], *, atomic: bool = True, cause: str = "", origin: Origin = NO_ORIGIN
    ) -> Outcomes:
        """Do the same and wait."""
        return await self.commit_soon(changes, atomic=atomic, cause=cause, origin=origin)

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Listen to the store."""
        return self._store.subscribe(listener)

    def watch(
        self,
        kind: Kind,
        *,
        namespace: str | None = None,
        name: str | None = None,
        labels: Selector | None = None,
        token: str | None = None,
    ) -> Watch:
        """Watch the store."""
        return self._store.watch(kind, namespace=namespace, name=name, labels=labels, token=token)

    def token(self) -> str:
        """Return the token of the visible state."""
        return self._store.token()

    def health(self) -> Health:
        """Return whether changes are accepted."""
        return self._store.health()

    def _release(
        self, promised: asyncio.Future[Outcomes], changes: tuple[Change, ...], is_atomic: object, cause: str
    ) -> None:
        self.held_count -= 1
        if promised.cancelled():
            return
        sent = self._store.commit_soon(changes, atomic=bool(is_atomic), cause=cause)
        self._remember(changes, cause, atomic=bool(is_atomic))
        sent.add_done_callback(lambda done: _pass_on(done, promised))

    def _remember(self, changes: Sequence[Change], cause: str, *, atomic: bool) -> None:
        if self._mood.repeat_chance:
            self._sent.append((tuple(changes), atomic, cause))
            del self._sent[:-_REPEATABLE_MAX]


def _pass_on(done: asyncio.Future[Outcomes], promised: asyncio.Future[Outcomes]) -> None:
    if promised.cancelled():
        _look_away(done)
    elif (error := done.exception()) is not None:
        promised.set_exception(error)
    else:
        promised.set_result(done.result())


def _look_away(done: asyncio.Future[Outcomes]) -> None:
    if not done.cancelled():
        done.exception()
