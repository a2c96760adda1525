"""Which nodes are in trouble (not ready, or being drained) and since when, kept current for the passes over copies.

How long a trouble lasts is measured in steady time: when the clock is set, forward or back, what passes are told of its
beginning is set by as much. A beginning that lies ahead when it is first seen counts as now.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from grove_server.control.clock import Clock
from grove_server.lifecycle.orders import NodeTrouble
from grove_server.resources.cluster import Node
from grove_server.store.interface import ChangeType, Notice, Store

# Smaller steps are those of a clock that is kept in time.
_STEP_S_MIN: Final = 1.0


class NodeTroubles:
    """The nodes in trouble by name; most of the time there is none."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        # As the nodes say, and as the clock now stands.
        self._said: dict[str, NodeTrouble] = {}
        self._troubles: dict[str, NodeTrouble] = {}
        self._epoch_ahead_s = 0.0
        self._changed: dict[str, None] = {}
        self._unsubscribe: Callable[[], None] | None = None

    def start(self) -> None:
        """Look at every node once, then follow changes."""
        self._epoch_ahead_s = self._clock.now() - self._clock.steady()
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
        self._follow_clock()
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
                    self._said.pop(notice.resource.metadata.name, None)
                    self._troubles.pop(notice.resource.metadata.name, None)
                else:
                    self._see(notice.resource)

    def _see(self, node: Node) -> None:
        name, trouble = node.metadata.name, trouble_of(node)
        if trouble == self._said.get(name):
            return
        self._changed[name] = None
        if trouble is None:
            del self._said[name]
            del self._troubles[name]
            return
        self._follow_clock()
        now = self._clock.now()
        said, known = self._said.get(name, NodeTrouble()), self._troubles.get(name, NodeTrouble())
        self._said[name] = trouble
        # What did not change goes on as it is counted; a drain that is asked for moves no failure.
        self._troubles[name] = NodeTrouble(
            not_ready_since=known.not_ready_since
            if trouble.not_ready_since == said.not_ready_since
            else _begun(trouble.not_ready_since, now),
            draining_since=known.draining_since
            if trouble.draining_since == said.draining_since
            else _begun(trouble.draining_since, now),
        )

    def _follow_clock(self) -> None:
        """Move what is remembered with the clock, if that was set."""
        ahead_s = self._clock.now() - self._clock.steady()
        step_s = ahead_s - self._epoch_ahead_s
        if abs(step_s) < _STEP_S_MIN:
            return
        self._epoch_ahead_s = ahead_s
        for name, trouble in self._troubles.items():
            self._troubles[name] = replace(
                trouble,
                not_ready_since=None if trouble.not_ready_since is None else trouble.not_ready_since + step_s,
                draining_since=None if trouble.draining_since is None else trouble.draining_since + step_s,
            )


def trouble_of(node: Node) -> NodeTrouble | None:
    """Return what is wrong with *node*, None if it is well."""
    if node.ready and node.draining_since is None:
        return None
    return NodeTrouble(
        not_ready_since=None if node.ready else node.ready_changed_at, draining_since=node.draining_since
    )


def _begun(at: float | None, now: float) -> float | None:
    return None if at is None else min(at, now)
