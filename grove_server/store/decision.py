"""Deciding a commit: against the visible state and everything decided before it that waits for the disk.

Pure bookkeeping on one thread. The waiting changes form an overlay: key → the newest undecided-by-disk write. When a
batch turns out not to be durable, the whole overlay goes, because what was decided later may rest on it.

Versions of changes that failed are not used again, so no two states of a resource ever shared a number.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from grove_server.resources.meta import Key, Resource
from grove_server.store.interface import (
    Applied,
    Change,
    Conflict,
    Delete,
    Exists,
    Missing,
    Outcome,
    Put,
    Skipped,
)
from grove_server.store.state import State, Write, versioned


class Decision(NamedTuple):
    """What a commit comes to. ``rests_on_waiting``: it looked at something that is not durable yet."""

    outcomes: tuple[Outcome, ...]
    writes: list[Write]
    rests_on_waiting: bool


class Decider:
    """Decides commits in order and hands out versions."""

    def __init__(self, state: State) -> None:
        """Start from the visible state."""
        self._state = state
        self._waiting: dict[Key, Write] = {}
        self.version = state.version

    def decide(self, changes: Sequence[Change], *, atomic: bool) -> Decision:
        """Decide *changes* in their order, later ones seeing the earlier."""
        staged: dict[Key, Write] = {}
        writes: list[Write] = []
        outcomes: list[Outcome] = []
        version = self.version
        waiting = self._waiting
        find = self._state.find
        rests_on_waiting = False
        for change in changes:
            key = _key_of(change)
            write = staged.get(key)
            if write is None:
                write = waiting.get(key)
                if write is not None:
                    rests_on_waiting = True
            if write is None:
                current = find(key)
                current_version = 0 if current is None else current.resource_version
            else:
                current = write.resource
                current_version = write.version
            refusal = _refusal(change, key, current, current_version)
            if refusal is not None:
                outcomes.append(refusal)
                continue
            version += 1
            resource = versioned(change.resource, version) if isinstance(change, Put) else None
            staged[key] = made = Write(key, resource, version)
            writes.append(made)
            outcomes.append(Applied(key, version, resource))
        if atomic and len(writes) < len(outcomes):
            return Decision(_all_refused(outcomes), [], rests_on_waiting)
        self.version = version
        waiting.update(staged)
        return Decision(tuple(outcomes), writes, rests_on_waiting)

    def settle(self, writes: Iterable[Write]) -> None:
        """Take note that *writes* are visible now."""
        waiting = self._waiting
        for write in writes:
            if waiting.get(write[0]) is write:
                del waiting[write[0]]

    def forget(self) -> None:
        """Drop everything that waits: it will not become durable."""
        self._waiting.clear()


def _key_of(change: Change) -> Key:
    if isinstance(change, Delete):
        return change.key
    metadata = change.resource.metadata
    return Key(change.resource.kind, metadata.namespace, metadata.name)


def _refusal(change: Change, key: Key, current: Resource | None, current_version: int) -> Outcome | None:
    expected = change.expected
    if current is None:
        if isinstance(change, Put) and not expected:
            return None
        return Missing(key)
    if isinstance(change, Put):
        if expected == 0:
            return Exists(key)
        if expected is None or expected == current_version:
            uid = change.resource.metadata.uid
            return None if uid == current.metadata.uid else Exists(key)
        return Conflict(key, current_version)
    if expected is None or expected == current_version:
        return None
    return Conflict(key, current_version)


def _all_refused(outcomes: Sequence[Outcome]) -> tuple[Outcome, ...]:
    return tuple(Skipped(outcome.key) if isinstance(outcome, Applied) else outcome for outcome in outcomes)
