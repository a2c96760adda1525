"""The queue of keys: each once, in order, never twice at a time; soon, at a time, and again."""

from __future__ import annotations

import random

import pytest

from grove_server.control.workqueue import WorkQueue


@pytest.fixture
def queue() -> WorkQueue[str]:
    """Return an empty queue with a delay of one second."""
    return WorkQueue(soon_s=1.0, patience_s=3.0)


def drain(queue: WorkQueue[str], now: float) -> list[str]:
    """Take and finish everything that is due."""
    taken = []
    while (key := queue.take(now)) is not None:
        queue.done(key)
        taken.append(key)
    return taken


def test_keys_come_once_and_in_order(queue: WorkQueue[str]) -> None:
    """A key that is added twice comes once, where it stood first."""
    for key in ("a", "b", "a", "c"):
        queue.add(key)
    assert len(queue) == 3
    assert drain(queue, 0) == ["a", "b", "c"]
    assert queue.is_idle
    assert queue.next_due_at() is None


def test_a_key_in_work_comes_again_when_it_is_done(queue: WorkQueue[str]) -> None:
    """A change during the work is not lost, and does not start a second piece of work beside it."""
    queue.add("a")
    assert queue.take(0) == "a"
    queue.add("a")
    queue.add_soon("a", 0)
    assert queue.take(100) is None
    assert not queue.is_idle
    queue.done("a")
    assert drain(queue, 0) == ["a"]
    assert queue.is_idle


def test_soon_waits_and_absorbs(queue: WorkQueue[str]) -> None:
    """Changes within the delay are one piece of work; it is due a delay after the first."""
    queue.add_soon("a", 0)
    queue.add_soon("a", 0.9)
    assert queue.next_due_at() == 1.0
    assert queue.take(0.99) is None
    assert drain(queue, 1.0) == ["a"]
    assert drain(queue, 10) == []


def test_urgent_overtakes_soon(queue: WorkQueue[str]) -> None:
    """A key that waits is taken at once when it becomes urgent, and not a second time when its delay is over."""
    queue.add_soon("a", 0)
    queue.add_soon("b", 0)
    queue.add("b")
    assert queue.next_due_at() == 0.0
    assert drain(queue, 0) == ["b"]
    assert drain(queue, 1) == ["a"]


def test_a_delay_that_was_overtaken_does_not_count_for_the_next_change(queue: WorkQueue[str]) -> None:
    """What is left of an overtaken delay makes a later change come early at worst, and once."""
    queue.add_soon("a", 0)
    queue.add("a")
    assert drain(queue, 0) == ["a"]
    queue.add_soon("a", 0.5)
    assert drain(queue, 5) == ["a"]
    assert queue.next_due_at() is None


def test_at_a_time_the_earliest_counts(queue: WorkQueue[str]) -> None:
    """Several times given for a key are one wake-up, at the earliest."""
    queue.add_at("a", 30)
    queue.add_at("a", 10)
    queue.add_at("a", 20)
    assert queue.is_idle
    assert queue.next_due_at() == 10
    assert drain(queue, 9.9) == []
    assert drain(queue, 10) == ["a"]
    assert drain(queue, 100) == []


def test_a_time_that_comes_during_work_is_kept(queue: WorkQueue[str]) -> None:
    """A wake-up that falls due while its key is being worked on is work afterwards."""
    queue.add("a")
    assert queue.take(0) == "a"
    queue.add_at("a", 5)
    assert queue.take(6) is None
    queue.done("a")
    assert drain(queue, 6) == ["a"]


@pytest.mark.parametrize("seed", range(20))
def test_nothing_is_lost_and_nothing_runs_twice_at_a_time(queue: WorkQueue[str], seed: int) -> None:
    """In any mixture of additions, takes and ends, the last change of each key is followed by a piece of work."""
    dice = random.Random(seed)
    now = 0.0
    changed: dict[str, float] = {}
    started: dict[str, float] = {}
    working: set[str] = set()
    for step in range(400):
        now += dice.choice((0.0, 0.0, 0.3, 2.0))
        key = dice.choice("abcde")
        match dice.randrange(7):
            case 0:
                queue.add(key)
                changed[key] = step
            case 1:
                queue.add_soon(key, now)
                changed[key] = step
            case 2:
                queue.add_at(key, now + dice.random() * 5)
                changed[key] = step
            case 3:
                queue.add_calm(key, now + dice.random(), is_last=dice.random() < 0.5)
                changed[key] = step
            case 4 if working:
                done = dice.choice(sorted(working))
                working.discard(done)
                queue.done(done)
            case _:
                taken = queue.take(now, is_calm=dice.random() < 0.5)
                if taken is not None:
                    assert taken not in working
                    working.add(taken)
                    started[taken] = step
    for key in sorted(working):
        queue.done(key)
    for key in drain(queue, now + 100):
        started[key] = 1_000
    assert all(started[key] > step for key, step in changed.items())
    assert queue.is_idle


def test_work_ends_earlier_waits() -> None:
    """Work on a key decides when to come back: a wait that it does not ask for again is over."""
    queue: WorkQueue[str] = WorkQueue(soon_s=1.0)
    queue.add_at("a", 100.0)
    queue.add("a")
    assert queue.take(0.0) == "a"
    queue.done("a")
    assert queue.take(200.0) is None
    assert queue.next_due_at() is None


def test_waits_that_are_over_take_no_room() -> None:
    """A key that is worked on again and again, and each time asks for a far time, holds a bounded number of waits."""
    queue: WorkQueue[str] = WorkQueue(soon_s=1.0)
    for when in range(10_000):
        queue.add("a")
        assert queue.take(0.0) == "a"
        queue.add_at("a", 50_000.0 + when)
        queue.done("a")
    assert len(queue._timed) < 2_000
    assert queue.take(59_999.0) == "a"


def test_what_waits_for_calm_waits_no_longer_than_a_bound() -> None:
    """It is due at its time when it is calm, and otherwise when its patience is over; those behind come after it."""
    queue: WorkQueue[str] = WorkQueue(soon_s=1.0, patience_s=10.0)
    queue.add_calm("set", 1.0, is_last=True)
    queue.add_calm("copy", 2.0)
    assert queue.next_due_at() == 1.0
    assert queue.next_due_at(is_calm=False) == 11.0
    assert queue.take(10.9, is_calm=False) is None
    assert queue.take(11.0, is_calm=False) == "set"
    queue.done("set")
    queue.add_calm("set", 2.0, is_last=True)
    assert drain(queue, 2.0) == ["copy", "set"]
    assert queue.next_due_at() is None


def test_what_waits_for_calm_is_overtaken() -> None:
    """A change that does not wait for calm takes what waits with it, once."""
    queue: WorkQueue[str] = WorkQueue(soon_s=1.0, patience_s=10.0)
    queue.add_calm("a", 0.0)
    queue.add_soon("a", 0.0)
    assert not queue.is_idle
    assert queue.take(1.0, is_calm=False) == "a"
    queue.done("a")
    assert queue.take(100.0) is None
    assert queue.next_due_at() is None
    assert queue.is_idle
