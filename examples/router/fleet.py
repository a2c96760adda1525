"""Which engines there are, who of them takes requests, and how many each has: the router's whole state.

Choosing an engine and counting the request there is one step without an await, and so is leaving an engine: after
``leave`` nothing new goes there, and when ``in_flight`` is 0 nothing is there any more. That is all a drain needs.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

# Shorter than a drain: a request whose prompt is done holds its prefill engine while it waits for decode.
PATIENCE_S: Final = 15.0
WAITING_MAX: Final = 10_000


class NobodyError(Exception):
    """There was no engine in time, or too many requests wait for one already."""


@dataclass(slots=True, kw_only=True)
class Place:
    """An engine: the pod, where it is, and how many requests it has from here."""

    uid: str
    pod: str
    role: str
    address: str
    is_ready: bool = True
    in_flight: int = 0


class Turn:
    """One request's count at an engine; ending it twice counts once."""

    def __init__(self, place: Place, changed: asyncio.Event) -> None:
        place.in_flight += 1
        self.place = place
        self._changed = changed
        self._is_over = False

    def end(self) -> None:
        """Say that the engine has nothing to do with the request any more."""
        if not self._is_over:
            self._is_over = True
            self.place.in_flight -= 1
            self._changed.set()


@dataclass(slots=True, kw_only=True)
class Fleet:
    """The engines of one copy of a set."""

    places: dict[str, Place] = field(default_factory=dict)
    left: set[str] = field(default_factory=set)
    waiting: int = 0
    _turns: dict[str, int] = field(default_factory=dict)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def ready(self, *, uid: str, pod: str, role: str, address: str) -> None:
        """Send requests to a pod from now on; one that was left stays left."""
        place = self.places.setdefault(uid, Place(uid=uid, pod=pod, role=role, address=address))
        place.is_ready, place.address = True, address
        self._changed.set()

    def unready(self, uid: str) -> None:
        """Send nothing more to a pod for now; what it has goes on."""
        if uid in self.places:
            self.places[uid].is_ready = False

    def leave(self, uid: str) -> None:
        """Send nothing more to a pod, whatever its state says later."""
        self.left.add(uid)

    def gone(self, uid: str) -> None:
        """Forget a pod that is no more."""
        self.left.discard(uid)
        self.places.pop(uid, None)
        self._changed.set()

    def open(self, role: str) -> list[Place]:
        """Return who of a role takes requests, in a steady order."""
        found = [place for place in self.places.values() if place.role == role and place.is_ready]
        return sorted((place for place in found if place.uid not in self.left), key=lambda place: place.uid)

    @asynccontextmanager
    async def taken(self, role: str, *, avoid: str = "") -> AsyncIterator[Turn]:
        """Give the next engine in turn, not *avoid* if there is another, and count the request there. NobodyError."""
        places = await self._some(role)
        others = [place for place in places if place.uid != avoid] or places
        turn = self._turns[role] = self._turns.get(role, -1) + 1
        taken = Turn(others[turn % len(others)], self._changed)
        try:
            yield taken
        finally:
            taken.end()

    async def idle(self, uid: str) -> None:
        """Return when a pod that was left has nothing from here, or is gone."""
        while (place := self.places.get(uid)) is not None and place.in_flight:
            await self._change()

    async def _some(self, role: str) -> list[Place]:
        if places := self.open(role):
            return places
        if self.waiting >= WAITING_MAX:
            raise NobodyError(f"{WAITING_MAX} requests wait already")
        self.waiting += 1
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not (places := self.open(role)):
                    await self._change()
        except TimeoutError:
            raise NobodyError(f"no {role} engine is ready") from None
        finally:
            self.waiting -= 1
        return places

    async def _change(self) -> None:
        # Who waits clears first and looks again after it was woken, so all of them see each change.
        self._changed.clear()
        await self._changed.wait()
