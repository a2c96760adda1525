"""What waits to be looked at: each key once, in order, never twice at the same time.

Four ways in: at once; soon (after a short delay in which further changes of the same key are absorbed); at a time; and
when it is calm, which is for work that only tells what has happened already: more of it may be on its way, and then it
is told once. It does not wait for calm longer than a bound. A key that is being worked on and changes meanwhile is
queued again when its work is done. Work on a key decides anew when to come back, so it ends the waits that earlier
work asked for: what was over by then leaves no timer behind.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Hashable
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)


# Waits that are over which the heap may hold before it is made anew.
_TIMED_SLACK: Final = 1024


class _Waits(Generic[K]):
    """Keys and the times that they wait for; a key has the first one it was given."""

    def __init__(self) -> None:
        self.at: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._sequence = 0

    def add(self, key: K, when: float) -> None:
        if key not in self.at:
            self.at[key] = when
            self._sequence += 1
            heapq.heappush(self._heap, (when, self._sequence, key))

    def first_at(self) -> float | None:
        """Return the earliest time that still counts."""
        heap = self._heap
        while heap and self.at.get(heap[0][2]) != heap[0][0]:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def next_by(self, limit: float) -> K | None:
        """Return the key with the earliest time, if that is not after *limit*."""
        first_at = self.first_at()
        return self._heap[0][2] if first_at is not None and first_at <= limit else None


class WorkQueue(Generic[K]):
    """A queue of keys. Times are steady seconds, which never go back, and come from the caller."""

    def __init__(self, *, soon_s: float, patience_s: float = 0.0) -> None:
        """Set the short delay, and how long work waits for calm at the most, both in seconds."""
        self._soon_s = soon_s
        self._patience_s = patience_s
        self._urgent: deque[K] = deque()
        self._soon: deque[tuple[float, K]] = deque()
        self._timed: list[tuple[float, int, K]] = []
        self._calm: _Waits[K] = _Waits()
        self._calm_last: _Waits[K] = _Waits()
        self._sequence = 0
        self._queued: set[K] = set()
        self._urgent_keys: set[K] = set()
        self._working: set[K] = set()
        self._again: set[K] = set()
        self._wake_at: dict[K, float] = {}

    def __len__(self) -> int:
        return len(self._queued)

    def add(self, key: K) -> None:
        """Queue *key* at once."""
        if key in self._working:
            self._again.add(key)
        elif key not in self._urgent_keys:
            self._urgent_keys.add(key)
            self._queued.add(key)
            self._urgent.append(key)

    def add_soon(self, key: K, now: float) -> None:
        """Queue *key* after the short delay."""
        if key in self._working:
            self._again.add(key)
        elif key not in self._queued:
            self._queued.add(key)
            self._soon.append((now + self._soon_s, key))

    def add_at(self, key: K, when: float) -> None:
        """Queue *key* at a time; the earliest one given counts."""
        known = self._wake_at.get(key)
        if known is None or when < known:
            self._wake_at[key] = when
            self._sequence += 1
            heapq.heappush(self._timed, (when, self._sequence, key))
            if len(self._timed) > 2 * len(self._wake_at) + _TIMED_SLACK:
                self._timed = [(at, order, each) for order, (each, at) in enumerate(self._wake_at.items())]
                heapq.heapify(self._timed)
                self._sequence = len(self._timed)

    def add_calm(self, key: K, when: float, *, is_last: bool = False) -> None:
        """Queue *key* at a time, or later when it is calm; *is_last*: behind all others, and as a time, see is_idle."""
        if key in self._working:
            self._again.add(key)
        elif key not in self._queued:
            (self._calm_last if is_last else self._calm).add(key, when)

    def take(self, now: float, *, is_calm: bool = True) -> K | None:
        """Return the next key to work on and mark it as being worked on; None if none is due."""
        while self._timed and self._timed[0][0] <= now:
            when, _, key = heapq.heappop(self._timed)
            if self._wake_at.get(key) == when:
                del self._wake_at[key]
                self.add(key)
        while self._urgent:
            key = self._urgent.popleft()
            self._urgent_keys.discard(key)
            if key in self._queued:
                return self._start(key)
        while self._soon and self._soon[0][0] <= now:
            _, key = self._soon.popleft()
            if key in self._queued and key not in self._urgent_keys:
                return self._start(key)
        limit = now if is_calm else now - self._patience_s
        for waits in (self._calm, self._calm_last):
            if (due := waits.next_by(limit)) is not None:
                return self._start(due)
        return None

    def done(self, key: K) -> None:
        """End the work on *key*; it is queued again if it changed meanwhile."""
        self._working.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    def next_due_at(self, *, is_calm: bool = True) -> float | None:
        """Return when the next key is due; 0 means now, None that nothing waits."""
        if self._urgent:
            return 0.0
        due = []
        if self._soon:
            due.append(self._soon[0][0])
        if self._timed:
            due.append(self._timed[0][0])
        patience_s = 0.0 if is_calm else self._patience_s
        due += [at + patience_s for waits in (self._calm, self._calm_last) if (at := waits.first_at()) is not None]
        return min(due) if due else None

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits and nothing is being worked on; times excepted."""
        return not (self._queued or self._working or self._calm.at)

    def _start(self, key: K) -> K:
        self._queued.discard(key)
        self._wake_at.pop(key, None)
        self._calm.at.pop(key, None)
        self._calm_last.at.pop(key, None)
        self._working.add(key)
        return key
