"""How long gangs wait for room to come by itself before others leave for them: the preemption delay of a queue.

A cluster autoscaler needs minutes to bring nodes; whoever displaces others at once makes them move for nothing. The
delay is the annotation ``grove.io/preemption-delay`` of the gang's queue, counted from when the gang had to wait. What
ran and lost a part has waited long enough. The idea is KAI's (v0.17).

Not here: who leaves then (``evictions``).
"""

from __future__ import annotations

import heapq

from grove_server.control.queue_book import QueueBook
from grove_server.control.set_asides import waits_since
from grove_server.resources.meta import Key, key_of
from grove_server.resources.workload import PodGang


class Patience:
    """Gangs that wait out the delay of their queue, and when it is over."""

    def __init__(self, queues: QueueBook) -> None:
        self._queues = queues
        self._due: list[tuple[float, Key]] = []
        self._timed: dict[Key, float] = {}

    @property
    def next_due_at(self) -> float | None:
        """When the next delay will be over, in epoch seconds."""
        while self._due and self._timed.get(self._due[0][1]) != self._due[0][0]:
            heapq.heappop(self._due)
        return self._due[0][0] if self._due else None

    def take_due(self, now: float) -> list[Key]:
        """Return the gangs whose delay is over, each once."""
        found = []
        while (due_at := self.next_due_at) is not None and due_at <= now:
            found.append(heapq.heappop(self._due)[1])
            del self._timed[found[-1]]
        return found

    def left_s(self, gang: PodGang, now: float) -> float:
        """Return how long others need not leave for a gang yet, and have it brought back then; 0.0 if they may now."""
        delay_s = self._queues.preemption_delay_s(self._queues.name_of(gang))
        due_at = waits_since(gang, now) + delay_s
        key = key_of(gang)
        if not delay_s or due_at <= now:
            self._timed.pop(key, None)
            return 0.0
        if self._timed.get(key) != due_at:
            self._timed[key] = due_at
            heapq.heappush(self._due, (due_at, key))
        return due_at - now

    def drop(self, key: Key) -> None:
        """Bring a gang back no more."""
        self._timed.pop(key, None)
