"""Which queue a gang is in, and the tree of queues as it is now.

Read from the store when it is asked for and kept until a Queue changes. Where nobody made queues, everything is in the
default one, which has neither guarantee nor limit; ``is_in_use`` is False then, and nothing of this costs anything.
"""

from __future__ import annotations

from grove_server.placement.queue_objects import queue_specs
from grove_server.placement.queues import UNLIMITED, Blocking, QueueTree
from grove_server.resources.queues import DEFAULT_QUEUE, Queue, QueueSpec, queue_of, queue_problem
from grove_server.resources.workload import PodCliqueSet, PodGang
from grove_server.store.interface import Store

# Names are kept per set; past this many the memory starts anew.
_SETS_MAX = 20_000


class QueueBook:
    """The queues, and which set is in which."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._tree: QueueTree | None = None
        self._wanted: dict[str, QueueSpec] = {}
        self._problems: dict[str, tuple[str, str] | None] = {}
        self._names: dict[str, tuple[PodCliqueSet, str]] = {}

    def forget(self) -> None:
        """Read the queues again when they are needed next."""
        self._tree = None

    @property
    def tree(self) -> QueueTree:
        """The tree of the queues that make one."""
        if self._tree is None:
            queues = self._store.read().list(Queue)
            self._wanted = {queue.metadata.name: queue.spec for queue in queues}
            self._problems = {}
            self._tree = QueueTree(queue_specs(queues))
        return self._tree

    @property
    def is_in_use(self) -> bool:
        """Whether there is any queue but the default one, or that has a limit."""
        return len(self.tree.specs) > 1 or self.has_limits

    @property
    def has_limits(self) -> bool:
        """Whether any queue has a limit."""
        return bool((self.tree.limit < UNLIMITED).any())

    @property
    def has_strict(self) -> bool:
        """Whether gangs of any queue may have to wait behind others."""
        return any(spec.blocking is Blocking.STRICT for spec in self.tree.specs)

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

    def problem_of(self, name: str) -> tuple[str, str] | None:
        """Return reason and sentence why no gang can run in a queue; None if gangs can."""
        if name == DEFAULT_QUEUE:
            return None
        self.tree  # noqa: B018 -- reads the queues if they changed
        if name not in self._problems:
            if len(self._problems) >= _SETS_MAX:
                self._problems.clear()
            self._problems[name] = queue_problem(name, self._wanted)
        return self._problems[name]
