"""The last changes of the store, kept whole, so that a dump shows how the server came to where it is.

Holds references to what the store made anyway; bounded by count. With the rows of now and these changes, every state in
between can be built again, see ``dump``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple

from grove_server.control.clock import Clock
from grove_server.store.interface import Notice

# Both states of a resource that changed are some 1,500 bytes: 6 MB.
CHANGES_MAX: Final = 4_000


class Recent(NamedTuple):
    """One visible change; ``at`` is in epoch seconds."""

    at: float
    notice: Notice


class RecentChanges:
    """Listens to the store."""

    def __init__(self, clock: Clock, *, changes_max: int = CHANGES_MAX) -> None:
        self._clock = clock
        self._changes: deque[Recent] = deque(maxlen=changes_max)

    def observe(self, notices: Sequence[Notice]) -> None:
        """Keep what became visible."""
        now = self._clock.now()
        self._changes.extend([Recent(now, notice) for notice in notices])

    def all(self) -> list[Recent]:
        """Return what is kept, the oldest first."""
        return list(self._changes)
