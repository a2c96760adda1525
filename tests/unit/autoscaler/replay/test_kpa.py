"""The port of Knative's autoscaler: two windows, panic, rates; each vector is worked out in its comment."""

import pytest

from autoscaler.replay.kpa import Autoscaler, Settings, Wish


def pods(wish: Wish | None) -> int:
    """Return the pods of a wish."""
    assert wish is not None
    return wish.pods


@pytest.mark.parametrize(
    ("ready", "stable", "panic", "expected"),
    [
        (10, 100.0, 100.0, 10),
        (10, 101.0, 101.0, 11),
        # Less by half at most, rounded down: of 10 to 5, of 1 to 0.
        (10, 10.0, 10.0, 5),
        (1, 0.0, 0.0, 0),
        # Panic asks for 19 of 10, below twice: the stable 12 holds.
        (10, 120.0, 190.0, 12),
        # Panic asks for 20 of 10: it is what counts.
        (10, 120.0, 200.0, 20),
        # No pod is ready: it counts as one.
        (0, 50.0, 10.0, 5),
    ],
)
def test_the_first_wish(ready: int, stable: float, panic: float, expected: int) -> None:
    """Ten requests a pod are the target."""
    assert pods(Autoscaler(settings=Settings(target=10.0, total=100.0)).decide(0.0, ready, stable, panic)) == expected


def test_growth_is_limited() -> None:
    """With a rate of ten, three pods become thirty at most."""
    settings = Settings(target=10.0, total=100.0, up_rate_max=10.0)
    assert pods(Autoscaler(settings=settings).decide(0.0, 3, 10_000.0, 10_000.0)) == 30


def test_panic_never_shrinks_and_ends_after_the_stable_window() -> None:
    """It keeps its largest wish until 60 s have passed since the last time above the threshold."""
    autoscaler = Autoscaler(settings=Settings(target=10.0, total=100.0))
    assert pods(autoscaler.decide(0.0, 2, 20.0, 60.0)) == 6
    assert pods(autoscaler.decide(2.0, 2, 20.0, 45.0)) == 6
    assert pods(autoscaler.decide(4.0, 2, 20.0, 30.0)) == 6
    assert pods(autoscaler.decide(62.0, 6, 20.0, 20.0)) == 6
    # 60 s since 2 s, when it was above for the last time (45 / 10 = 5 of 2): now it has left it.
    assert pods(autoscaler.decide(64.0, 6, 20.0, 20.0)) == 3


def test_a_restart_panics() -> None:
    """Just started with more than one pod it does not shrink for a stable window; with one there is nothing to keep."""
    settings = Settings(target=10.0, total=100.0)
    autoscaler = Autoscaler.started(settings, 0.0, 8)
    assert pods(autoscaler.decide(0.0, 8, 10.0, 10.0)) == 8
    assert pods(autoscaler.decide(60.0, 8, 10.0, 10.0)) == 8
    assert pods(autoscaler.decide(62.0, 8, 10.0, 10.0)) == 4
    assert pods(Autoscaler.started(settings, 0.0, 1).decide(0.0, 1, 0.0, 0.0)) == 0


def test_without_data_it_holds() -> None:
    """No average is no wish."""
    autoscaler = Autoscaler(settings=Settings(target=10.0, total=100.0))
    assert autoscaler.decide(0.0, 3, None, 1.0) is None
    assert autoscaler.decide(0.0, 3, 1.0, None) is None


def test_a_delay_keeps_the_largest_wish() -> None:
    """With 30 s of delay the wish falls when the larger one is 30 s old."""
    autoscaler = Autoscaler(settings=Settings(target=10.0, total=100.0, down_delay_s=30.0))
    assert pods(autoscaler.decide(0.0, 6, 60.0, 60.0)) == 6
    assert pods(autoscaler.decide(28.0, 6, 40.0, 40.0)) == 6
    assert pods(autoscaler.decide(30.0, 6, 40.0, 40.0)) == 4


def test_an_activation_scale_lifts_only_what_is_wanted_at_all() -> None:
    """Three pods come instead of one, none instead of none."""
    settings = Settings(target=10.0, total=100.0, activation_scale=3)
    assert pods(Autoscaler(settings=settings).decide(0.0, 1, 1.0, 1.0)) == 3
    assert pods(Autoscaler(settings=settings).decide(0.0, 1, 0.0, 0.0)) == 0


def test_room_for_a_burst() -> None:
    """Three pods of 100, less 211 and the 50 there are, leave 39; unreachable, everything may go."""
    settings = Settings(target=70.0, total=100.0)
    wish = Autoscaler(settings=settings).decide(0.0, 3, 50.0, 50.0)
    assert wish is not None
    assert wish.excess_burst_capacity == 39
    gone = Settings(target=70.0, total=100.0, is_reachable=False)
    assert pods(Autoscaler(settings=gone).decide(0.0, 8, 0.0, 0.0)) == 0
