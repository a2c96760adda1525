"""Which queue a gang is in, and the tree of queues as it is now.

Read from the store when it is asked for and kept until a Queue changes. Where nobody made queues, everything is in the
default one, which has neither guarantee nor limit; ``is_in_use`` is False then, and nothing of this costs anything.
"""

from __future__ import annotations

from grove_server.placement.allowances import Allowances
from grove_server.placement.queues import QueueTree
from grove_server.resources.duration import parse_duration
from grove_server.resources.labels import PREEMPTION_DELAY
from grove_server.resources.queues import DEFAULT_QUEUE, Queue, queue_of
from grove_server.resources.workload import PodCliqueSet, PodGang
from grove_server.store.interface import Store

# Names are kept per set; past this many the memory starts anew.
_SETS_MAX = 20_000


def asks_otherwise(before: Queue, after: Queue) -> bool:
    """Return whether anything that gangs have to keep to differs."""
    delays = (each.metadata.annotations.get(PREEMPTION_DELAY) for each in (before, after))
    return before.spec != after.spec or len(set(delays)) > 1


class QueueBook:
    """The queues, and which set is in which."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._allowances: Allowances | None = None
        self._delays_s: dict[str, float] = {}
        self._names: dict[str, tuple[PodCliqueSet, str]] = {}

    def forget(self) -> None:
        """Read the queues again when they are needed next."""
        self._allowances = None
        self._delays_s.clear()

    @property
    def allowances(self) -> Allowances:
        """What the queues let gangs have."""
        if self._allowances is None:
            self._allowances = Allowances(self._store.read().list(Queue))
        return self._allowances

    @property
    def tree(self) -> QueueTree:
        """The tree of the queues that make one."""
        return self.allowances.tree

    @property
    def is_in_use(self) -> bool:
        """Whether there is any queue but the default one, or that has a limit."""
        return self.allowances.is_in_use

    @property
    def has_limits(self) -> bool:
        """Whether any queue has a limit."""
        return self.allowances.has_limits

    @property
    def has_strict(self) -> bool:
        """Whether gangs of any queue may have to wait behind others."""
        return self.allowances.has_strict

    def name_of(self, gang: PodGang) -> str:
        """Return the queue that a gang's set is in; the default one once the set is gone."""
        owner = self._store.read().get(PodCliqueSet, gang.metadata.namespace, gang.set_name)
        if owner is None:
            return DEFAULT_QUEUE
        known = self._names.get(owner.metadata.uid)
        if known is not None and known[0] is owner:
            return known[1]
        if len(self._names) >= _SETS_MAX:
            self._names.clear()
        name = queue_of(owner)
        self._names[owner.metadata.uid] = (owner, name)
        return name

    def preemption_delay_s(self, name: str) -> float:
        """Return how long gangs of a queue wait before others leave for them; 0.0 for an unknown queue."""
        delay_s = self._delays_s.get(name)
        if delay_s is None:
            queue = self._store.read().get(Queue, "", name)
            text = "" if queue is None else queue.metadata.annotations.get(PREEMPTION_DELAY, "")
            delay_s = parse_duration(text) if text else 0.0
            if queue is not None:
                self._delays_s[name] = delay_s
        return delay_s

    def problem_of(self, name: str) -> tuple[str, str] | None:
        """Return reason and sentence why no gang can run in a queue; None if gangs can."""
        return self.allowances.problem_of(name)
