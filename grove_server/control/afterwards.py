"""What follows rounds of placement a moment later, so that what happens meanwhile is done with it.

How queues stand is told, and gangs for which nobody could make room are decided anew if something changed.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine

from grove_server.control.clock import Clock
from grove_server.control.queue_status import REST_S
from grove_server.control.room_desk import RoomDesk
from grove_server.resources.meta import Key


class Afterwards:
    """Timers of one placement loop; each runs once at a time."""

    def __init__(
        self,
        room: RoomDesk,
        clock: Clock,
        run_aside: Callable[[Coroutine[None, None, None]], object],
        bring_back: Callable[[Key], None],
    ) -> None:
        self._room = room
        self._clock = clock
        self._run_aside = run_aside
        self._bring_back = bring_back
        self.is_telling = False
        self._is_asking = False

    def begin(self) -> None:
        """Begin what is due after a round."""
        statuses = self._room.statuses
        statuses.note_change()
        if statuses.is_stale and not self.is_telling:
            self.is_telling = True
            self._run_aside(self._tell())
        if self._room.evictions.may_answer_otherwise and not self._is_asking:
            self._is_asking = True
            self._run_aside(self._ask())

    async def _tell(self) -> None:
        try:
            await self._clock.sleep(REST_S)
            await self._room.statuses.show()
        finally:
            self.is_telling = False

    async def _ask(self) -> None:
        await self._clock.sleep(REST_S)
        self._is_asking = False
        for key in self._room.evictions.take_askers():
            self._bring_back(key)
