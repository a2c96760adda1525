"""The state machine's tables: every pair is there or left out on purpose, and every phase can be reached and left."""

from __future__ import annotations

from enum import StrEnum
from typing import TypeVar

import pytest

from grove_server.lifecycle.machine import (
    GANG_TRANSITIONS,
    SET_TRANSITIONS,
    GangObservation,
    InvalidTransitionError,
    SetObservation,
    diagram,
    next_gang_phase,
    next_set_phase,
)
from grove_server.resources.workload import GangPhase, SetPhase

P = TypeVar("P", bound=StrEnum)
O = TypeVar("O", bound=StrEnum)  # noqa: E741 -- the letter of the pair (phase, observation)


def reachable(table: dict[tuple[P, O], P], start: P) -> set[P]:
    """Return the phases that can follow *start*, itself included."""
    found = {start}
    while more := {b for (a, _), b in table.items() if a in found} - found:
        found |= more
    return found


def test_every_pair_of_a_gang_is_in_the_table() -> None:
    """Whatever the pods of a gang do, its next phase is known."""
    assert set(GANG_TRANSITIONS) == {(phase, seen) for phase in GangPhase for seen in GangObservation}


def test_every_pair_of_a_set_is_in_the_table_but_the_way_back_from_deletion() -> None:
    """A set that is being deleted observes nothing else: deletion cannot be taken back."""
    missing = {(phase, seen) for phase in SetPhase for seen in SetObservation} - set(SET_TRANSITIONS)
    assert missing == {(SetPhase.DELETING, seen) for seen in SetObservation if seen is not SetObservation.DELETED}


def test_every_phase_is_reachable() -> None:
    """No phase stands in a table without a way to it."""
    assert reachable(dict(GANG_TRANSITIONS), GangPhase.PENDING) == set(GangPhase)
    assert reachable(dict(SET_TRANSITIONS), SetPhase.PENDING) == set(SetPhase)


def test_a_gang_of_any_phase_can_become_any_other() -> None:
    """No phase of a gang is final: pods are replaced."""
    for phase in GangPhase:
        assert reachable(dict(GANG_TRANSITIONS), phase) == set(GangPhase)


def test_one_observation_means_one_phase_for_gangs() -> None:
    """A gang's phase says what is, not what was: it follows from the last observation alone."""
    for seen in GangObservation:
        assert len({GANG_TRANSITIONS[phase, seen] for phase in GangPhase}) == 1


def test_only_a_set_that_ran_can_be_degraded() -> None:
    """Degraded means that something was lost; what never ran starts or waits."""
    sources = {a for (a, _), b in SET_TRANSITIONS.items() if b is SetPhase.DEGRADED}
    assert sources == {SetPhase.RUNNING, SetPhase.SCALING, SetPhase.DEGRADED}


def test_a_move_that_is_not_in_the_table_is_a_fault() -> None:
    """Asking for it names phase and observation."""
    with pytest.raises(InvalidTransitionError, match="Deleting cannot observe: all copies available"):
        next_set_phase(SetPhase.DELETING, SetObservation.AVAILABLE)
    with pytest.raises(InvalidTransitionError, match="cannot observe"):
        next_gang_phase(GangPhase.PENDING, "nonsense")  # type: ignore[arg-type]  # what the table lacks


def test_the_diagram_draws_every_move() -> None:
    """Both tables are drawn once, moves that stay where they are left out."""
    text = diagram()
    moves = [(a, o, b) for (a, o), b in GANG_TRANSITIONS.items() if a != b]
    moves += [(a, o, b) for (a, o), b in SET_TRANSITIONS.items() if a != b]  # type: ignore[misc]  # both kinds of move
    assert text.count(" --> ") == len(moves) + 2
    assert all(f"    {a} --> {b}: {o}\n" in text for a, o, b in moves)
