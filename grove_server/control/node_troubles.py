"""Which nodes are in trouble (not ready, or being drained) and since when, kept current for the passes over copies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from grove_server.lifecycle.orders import NodeTrouble
from grove_server.resources.cluster import Node
from grove_server.store.interface import ChangeType, Notice, Store


class NodeTroubles:
    """The nodes in trouble by name; most of the time there is none."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._troubles: dict[str, NodeTrouble] = {}
        self._changed: dict[str, None] = {}
        self._unsubscribe: Callable[[], None] | None = None

    def start(self) -> None:
        """Look at every node once, then follow changes."""
        self._unsubscribe = self._store.subscribe(self._observe)
        for node in self._store.read().list(Node):
            self._see(node)

    def stop(self) -> None:
        """Stop following."""
        if self._unsubscribe is not None:
            self._unsubscribe()

    @property
    def by_name(self) -> Mapping[str, NodeTrouble]:
        """The nodes in trouble; the mapping is the same object while it lasts."""
        return self._troubles

    @property
    def has_changed(self) -> bool:
        """Whether nodes came into trouble or out of it that nobody has looked at yet."""
        return bool(self._changed)

    def take_changed(self) -> str | None:
        """Return the name of such a node, which counts as looked at from then on; None if there is none."""
        if not self._changed:
            return None
        name = next(iter(self._changed))
        del self._changed[name]
        return name

    def _observe(self, notices: Sequence[Notice]) -> None:
        for notice in notices:
            if isinstance(notice.resource, Node):
                if notice.kind is ChangeType.DELETED:
                    self._troubles.pop(notice.resource.metadata.name, None)
                else:
                    self._see(notice.resource)

    def _see(self, node: Node) -> None:
        name, trouble = node.metadata.name, trouble_of(node)
        if trouble == self._troubles.get(name):
            return
        self._changed[name] = None
        if trouble is None:
            del self._troubles[name]
        else:
            self._troubles[name] = trouble


def trouble_of(node: Node) -> NodeTrouble | None:
    """Return what is wrong with *node*, None if it is well."""
    if node.ready and node.draining_since is None:
        return None
    return NodeTrouble(
        not_ready_since=None if node.ready else node.ready_changed_at, draining_since=node.draining_since
    )
