"""Changed copies: as the standard library makes them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import pytest

from grove_server.resources.meta import Condition, Metadata
from grove_server.resources.replacing import copier_of, replace
from grove_server.resources.workload import (
    CliqueIdentity,
    GangPhase,
    Pod,
    PodClique,
    PodCliqueSet,
    PodGang,
    PodGangStatus,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A value that looks at itself."""

    low: int
    high: int

    def __post_init__(self) -> None:
        """Refuse what is upside down."""
        if self.low > self.high:
            raise ValueError(self.low)


@dataclass
class Open:
    """A value without slots."""

    names: list[str] = field(default_factory=list)
    count: int = 0


@pytest.mark.parametrize(
    "kind", [Metadata, Condition, CliqueIdentity, PodGangStatus, Pod, PodClique, PodCliqueSet, PodGang]
)
def test_the_classes_that_are_copied_most_are_plain(kind: type) -> None:
    """Resources and what they are made of have slots and nothing to do when they are made."""
    assert copier_of(kind) is not None


def test_a_changed_copy_is_that_of_the_standard_library() -> None:
    """Named fields differ, all others are the same objects, and the original stays."""
    metadata = Metadata(name="a", uid="1", labels={"x": "y"})
    changed = replace(metadata, name="b", generation=3)
    assert changed == dataclasses.replace(metadata, name="b", generation=3)
    assert changed.labels is metadata.labels
    assert metadata.name == "a"
    assert replace(PodGangStatus(), phase=GangPhase.RUNNING) == PodGangStatus(phase=GangPhase.RUNNING)


def test_a_field_that_does_not_exist_is_refused() -> None:
    """A wrong name is an error, not a silent copy."""
    with pytest.raises(TypeError, match="Metadata has no field 'colour'"):
        replace(Metadata(name="a", uid="1"), colour="red")  # type: ignore[call-arg]  # the mistake that is looked for


def test_values_that_look_at_themselves_or_have_no_slots_are_made_anew() -> None:
    """What a class does when a value is made is done for a changed copy, too."""
    with pytest.raises(ValueError, match="5"):
        replace(Checked(low=1, high=2), low=5)
    assert replace(Open(names=["a"]), count=2) == Open(names=["a"], count=2)
