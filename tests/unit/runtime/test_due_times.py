"""Moments at which pods are due."""

from __future__ import annotations

from grove_server.resources.meta import Key, Kind
from grove_server.runtime.due_times import DueTimes

A, B = Key(Kind.POD, "default", "a"), Key(Kind.POD, "default", "b")


def test_what_is_due_is_taken_once_in_order() -> None:
    """Keys come when their moment has come, the earliest first, and not again."""
    due = DueTimes()
    due.set(A, 3.0)
    due.set(B, 2.0)
    assert (due.first_at, len(due)) == (2.0, 2)
    assert due.take(1.0) == []
    assert due.take(3.0) == [B, A]
    assert (due.take(9.0), len(due)) == ([], 0)


def test_a_key_is_due_at_its_last_moment_alone() -> None:
    """A moment that was replaced, or dropped, does not count."""
    due = DueTimes()
    due.set(A, 1.0)
    due.set(A, 5.0)
    due.set(B, 1.0)
    due.drop(B)
    assert due.take(4.0) == []
    assert due.take(5.0) == [A]


def test_hastening_never_delays() -> None:
    """An earlier moment replaces a later one, and a later one nothing."""
    due = DueTimes()
    due.hasten(A, 5.0)
    due.hasten(A, 7.0)
    assert due.take(5.0) == [A]
    due.set(A, 9.0)
    due.hasten(A, 8.0)
    assert due.take(8.0) == [A]


def test_replaced_moments_do_not_pile_up() -> None:
    """However often a key is set anew, the heap stays small."""
    due = DueTimes()
    for moment in range(10_000):
        due.set(A, float(moment))
    assert len(due._heap) < 3_000
    assert due.take(10_000.0) == [A]
