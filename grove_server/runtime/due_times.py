"""When which pods are to be looked at again: a heap of moments, in which an outdated entry costs nothing.

Rules: a key is due at one moment at most; giving it another one replaces that. Entries that were replaced stay in the
heap until they come up, and the heap is made anew before they outnumber the others.
"""

from __future__ import annotations

import heapq
from typing import Final

from grove_server.resources.meta import Key

# Outdated entries the heap may hold before it is made anew.
_SLACK: Final = 1024


class DueTimes:
    """Keys by the moment (epoch seconds) they are due at."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, Key]] = []
        self._at: dict[Key, float] = {}

    def __len__(self) -> int:
        return len(self._at)

    @property
    def first_at(self) -> float | None:
        """When something is due next, or a little earlier; None if nothing is."""
        return self._heap[0][0] if self._heap else None

    def set(self, key: Key, at: float) -> None:
        """Let *key* be due at *at*, and at no other moment."""
        if self._at.get(key) != at:
            self._at[key] = at
            heapq.heappush(self._heap, (at, key))
        if len(self._heap) > 2 * len(self._at) + _SLACK:
            self._heap = [(moment, each) for each, moment in self._at.items()]
            heapq.heapify(self._heap)

    def hasten(self, key: Key, at: float) -> None:
        """Let *key* be due at *at*, if it is not due earlier."""
        known = self._at.get(key)
        if known is None or at < known:
            self.set(key, at)

    def drop(self, key: Key) -> None:
        """Let *key* be due no more."""
        self._at.pop(key, None)

    def take(self, now: float) -> list[Key]:
        """Return the keys that are due by *now*; they are due no more."""
        found = []
        while self._heap and self._heap[0][0] <= now:
            at, key = heapq.heappop(self._heap)
            if self._at.get(key) == at:
                del self._at[key]
                found.append(key)
        return found
