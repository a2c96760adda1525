"""What the parts of the workload loop share: what waits to be looked at, and what is remembered of each set."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from grove_server.control.set_state import SetState
from grove_server.control.workkeys import WorkKey
from grove_server.control.workqueue import WorkQueue
from grove_server.resources.workload import PodCliqueSet
from grove_server.store.interface import Store

# Changes of pods come in bursts (bound, running, ready): one pass serves them all.
SOON_S: Final = 0.01
# What only tells of places and counts waits for calm, and then it is told once; this long at the most.
PATIENCE_S: Final = 1.0
# Calm is when no more changes than these wait for the disk: about what two small copies make.
_CALM_CHANGES_MAX: Final = 16


class WorkBook:
    """The queue, the sets' memory, and how often topology changed.

    ``wake`` is set when the loop may have something to do.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.queue: WorkQueue[WorkKey] = WorkQueue(soon_s=SOON_S, patience_s=PATIENCE_S)
        self.sets: dict[str, SetState] = {}
        self.topology_epoch = 0
        self.wake = asyncio.Event()

    @property
    def is_calm(self) -> bool:
        """Whether few changes are on their way, so that what can be told now will hardly be told anew at once."""
        return self._store.health().queued_changes <= _CALM_CHANGES_MAX

    def owner(self, key: WorkKey) -> PodCliqueSet | None:
        """Return the set of *key* as it is, None if it is gone."""
        owner = self._store.read().get(PodCliqueSet, key.namespace, key.set_name)
        return owner if owner is not None and owner.metadata.uid == key.set_uid else None

    def state(self, set_uid: str) -> SetState:
        """Return what is remembered of a set, with an empty memory to begin with."""
        state = self.sets.get(set_uid)
        if state is None:
            state = self.sets[set_uid] = SetState()
        return state

    def queue_copies(self, owner: PodCliqueSet, copies: Sequence[int]) -> None:
        """Look at these copies of *owner* soon; until then their summaries are not known."""
        metadata = owner.metadata
        self.state(metadata.uid).unvisited.update(copies)
        for copy in copies:
            self.queue.add(WorkKey(metadata.namespace, metadata.name, metadata.uid, copy))
