"""What the server remembers of itself: stories, the last changes, and what is announced; one listener for all of them.

Only listens. Whatever goes wrong here is logged by the store as a listener's fault and changes nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from grove_server.control.announcements import Announcer
from grove_server.control.clock import Clock
from grove_server.control.dump import DumpWriter
from grove_server.control.events import EventRecorder
from grove_server.control.recent import RecentChanges
from grove_server.control.story import Story, StoryTeller
from grove_server.resources.meta import Key
from grove_server.store.interface import Notice, Store


class Chronicle:
    """Follows the store from ``start`` to ``stop``."""

    def __init__(self, store: Store, clock: Clock, events: EventRecorder) -> None:
        self._store = store
        self._clock = clock
        self._story = StoryTeller(clock)
        self._recent = RecentChanges(clock)
        self._announcer = Announcer(events.note)
        self._noticed_version = 0
        self._unsubscribe: Callable[[], None] | None = None

    def start(self) -> None:
        """Follow changes from now on."""
        self._noticed_version = self._store.read().version
        self._unsubscribe = self._store.subscribe(self._observe)

    def stop(self) -> None:
        """Stop following; what is remembered stays."""
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None

    def story(self, key: Key, *, uid: str = "") -> Story:
        """Return what is remembered of *key*, or only of the resource with *uid*; empty if that is nothing."""
        return self._story.of(key, uid=uid)

    @property
    def is_current(self) -> bool:
        """Whether all that is visible was noticed; a very large commit is visible some steps earlier."""
        return self._noticed_version >= self._store.read().version

    def dump(self, facts: Mapping[str, str]) -> DumpWriter:
        """Take a dump of everything as it is now; *facts* tell where it comes from. Best while ``is_current``."""
        return DumpWriter(self._store.read(), self._recent.all(), now=self._clock.now(), facts=facts)

    def show(self) -> None:
        """Publish how much is remembered."""
        self._story.show()

    def _observe(self, notices: Sequence[Notice]) -> None:
        self._noticed_version = notices[-1].version
        self._recent.observe(notices)
        self._story.observe(notices)
        self._announcer.observe(notices)
