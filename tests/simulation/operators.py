"""People that steer: they hold up updates and take them back, empty nodes, and delete pods one by one.

They ask the real services; ``Users`` counts how their calls end, as it does for its own.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final

from grove_server.resources.cluster import Node
from grove_server.resources.meta import key_of
from tests.simulation.books import Books
from tests.simulation.server import SimServer
from tests.simulation.users import Users

VERBS: Final = ("pause", "resume", "undo", "restart")


class Operators:
    """Each method is one call; it returns what to call it in the log, empty if there was nothing to do."""

    def __init__(self, rng: random.Random, users: Users, books: Books) -> None:
        self._rng = rng
        self._users = users
        self._books = books

    def steer(self, server: SimServer, verb: str) -> str:
        """Pause, resume, undo or restart the update of a set; one that is paused is resumed more often than not."""
        owner = self._users.some_set()
        if owner is None or (verb == "resume" and owner.paused_at is None):
            return ""
        key = key_of(owner)
        self._ask(server, lambda: server.services.steer(verb, key))
        return f"{key.namespace}/{key.name}"

    def resume_all(self, server: SimServer) -> None:
        """Let every update go on."""
        for uid in list(self._books.sets):
            owner = self._books.set_of(uid)
            if owner is not None and owner.paused_at is not None and owner.metadata.deleted_at is None:
                self._ask(server, partial(server.services.steer, "resume", key_of(owner)))

    def delete_pods(self, server: SimServer, *, skip_drain: bool) -> str:
        """Ask one to three pods to stop, as one change, those that drain already too."""
        pods = {pod.metadata.name: pod for _ in range(self._rng.randint(1, 3)) if (pod := self._users.some_pod())}
        namespaces = {pod.metadata.namespace for pod in pods.values()}
        if not pods:
            return ""
        namespace = min(namespaces)
        names = sorted(name for name, pod in pods.items() if pod.metadata.namespace == namespace)
        self._ask(server, lambda: server.services.delete_pods(namespace, names, skip_drain=skip_drain))
        return ", ".join(names)

    def cordon(self, server: SimServer) -> str:
        """Keep new pods off some nodes."""
        names = self._users.some_nodes(3)
        return self._on_nodes(server, names, server.services.cordon_nodes)

    def uncordon(self, server: SimServer) -> str:
        """Let some nodes have pods again."""
        return self._on_nodes(server, self._users.some_nodes(3), server.services.uncordon_nodes)

    def drain_nodes(self, server: SimServer) -> str:
        """Empty some nodes."""
        return self._on_nodes(server, self._users.some_nodes(2), server.services.drain_nodes)

    def uncordon_all(self, server: SimServer) -> str:
        """Let every node have pods again."""
        rows = self._books.rows.values()
        names = sorted(row.metadata.name for row in rows if isinstance(row, Node) and row.unschedulable)
        return self._on_nodes(server, names, server.services.uncordon_nodes)

    def _on_nodes(
        self, server: SimServer, names: list[str], call: Callable[[list[str]], Coroutine[Any, Any, None]]
    ) -> str:
        if not names:
            return ""
        self._ask(server, lambda: call(names))
        return ", ".join(names)

    def _ask(self, server: SimServer, call: Callable[[], Coroutine[Any, Any, None]]) -> None:
        server.call(lambda: self._users.end(call()))
