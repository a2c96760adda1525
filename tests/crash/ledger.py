"""What clients were told about their sets, so that after a crash it can be held against what is there.

Each set has one client, which makes one call at a time. So at a crash a set is in the state that was acknowledged last,
or in the one that the call under way asks for: whether that became durable nobody was told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from grove.v1.pod_clique_set_pb2 import PodCliqueSet

STEP: Final = "test/step"


@dataclass(frozen=True, slots=True)
class State:
    """What a client knows of its set. Absent sets have no copies and no step; `generation` is a lower bound.

    `group_size` is that of the first copy's group; 0 if it was not scaled since the copy was made.
    """

    is_there: bool = False
    copies: int = 0
    group_size: int = 0
    step: str = ""
    uid: str = ""
    generation: int = 0
    version: int = 0

    def is_shown_by(self, found: PodCliqueSet | None, group_size: int) -> bool:
        """Return whether what was found is this state."""
        if not self.is_there:
            # On its way out counts as gone, if it is the one that was deleted.
            return found is None or (bool(found.metadata.deletion_timestamp) and found.metadata.uid == self.uid)
        return (
            found is not None
            and not found.metadata.deletion_timestamp
            and found.spec.replicas == self.copies
            and found.metadata.annotations.get(STEP, "") == self.step
            and (not self.uid or found.metadata.uid == self.uid)
            and found.metadata.generation >= self.generation
            and int(found.metadata.resource_version) >= self.version
            and self.group_size in (0, group_size)
        )


@dataclass(slots=True)
class Ledger:
    """All sets of all clients."""

    acknowledged: dict[str, State] = field(default_factory=dict)
    under_way: dict[str, State] = field(default_factory=dict)
    answers: int = 0

    def state(self, name: str) -> State:
        """Return what was acknowledged last."""
        return self.acknowledged.get(name, State())

    def begin(self, name: str, wanted: State) -> None:
        """Note that a call is on its way."""
        self.under_way[name] = wanted

    def answer(self, name: str, told: State) -> None:
        """Note the answer: this is what must be there from now on."""
        del self.under_way[name]
        self.acknowledged[name] = told
        self.answers += 1

    def refuse(self, name: str) -> None:
        """Note that the call was refused: nothing changed."""
        del self.under_way[name]
        self.answers += 1

    def settle(self, found: Mapping[str, PodCliqueSet], group_sizes: Mapping[str, int]) -> list[str]:
        """Compare with what is there after a crash; return what was lost, and go on from what was found.

        *group_sizes* are those of the first copies' groups, by the names of the sets.
        """
        lost = []
        for name in sorted(self.acknowledged.keys() | self.under_way.keys()):
            told, wanted, seen = self.state(name), self.under_way.get(name), found.get(name)
            size = group_sizes.get(name, 0)
            if not told.is_shown_by(seen, size) and not (wanted is not None and wanted.is_shown_by(seen, size)):
                lost.append(f"{name}: told {told}, under way {wanted}, found {_words(seen)} and group size {size}")
            # After a call without an answer the copy may just be being made anew.
            self.acknowledged[name] = replace(_state_of(seen), group_size=0 if wanted is not None else told.group_size)
        self.under_way.clear()
        strangers = found.keys() - self.acknowledged.keys()
        return lost + [f"{name} was never made" for name in sorted(strangers)]


def told_by(resource: PodCliqueSet, group_size: int = 0) -> State:
    """Return the state that an answer shows; *group_size* is what is known of the group."""
    metadata = resource.metadata
    return State(
        is_there=True,
        copies=resource.spec.replicas,
        group_size=group_size if resource.spec.replicas else 0,
        step=metadata.annotations.get(STEP, ""),
        uid=metadata.uid,
        generation=metadata.generation,
        version=int(metadata.resource_version),
    )


def deleted(state: State) -> State:
    """Return the state after a deletion."""
    return replace(state, is_there=False, group_size=0)


def _state_of(found: PodCliqueSet | None) -> State:
    if found is None:
        return State()
    state = told_by(found)
    return deleted(state) if found.metadata.deletion_timestamp else state


def _words(found: PodCliqueSet | None) -> str:
    if found is None:
        return "nothing"
    return f"{_state_of(found)}, deleted at {found.metadata.deletion_timestamp or 'no time'}"
