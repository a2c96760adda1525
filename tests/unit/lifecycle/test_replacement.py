"""Pods that finished for good are replaced: at once the first time, then later and later."""

from __future__ import annotations

from dataclasses import replace

from grove_server.lifecycle.clique_pass import (
    REPLACEMENT_DELAY_FIRST_S,
    REPLACEMENT_DELAY_MAX_S,
    REPLACEMENT_FORGOTTEN_S,
)
from grove_server.resources.workload import Pod, PodClique, PodPhase
from tests.lifecycle_cases import World, clique, condition, failed, world


def fail_at_once(made: World) -> None:
    """Let the pod at index 0 fail the moment it runs."""
    made.change_pods(lambda pod: failed(pod, made.now), [pod for pod in made.pods() if pod.index == 0])


def test_the_first_replacement_comes_at_once() -> None:
    """A failed pod is replaced in the same pass, and asked to stop."""
    made = world([clique("a", 2)])
    made.settle()
    made.run()
    old = made.pods()[0]
    fail_at_once(made)
    made.settle()
    assert made.one(Pod, old.metadata.name).is_terminating
    new = made.pods()[0]
    assert (new.index, new.attempt) == (0, 1)
    assert made.last.wake_at is None


def test_repetitions_back_off() -> None:
    """The second replacement waits 10 s, each further one twice as long, 300 s at most; the plan says when to look."""
    made = world([clique("a", 2)])
    made.settle()
    waits = []
    for _ in range(8):
        made.run()
        fail_at_once(made)
        made.settle()
        made.reap()
        if made.last.wake_at is None:
            waits.append(0.0)
            continue
        waits.append(made.last.wake_at - made.now)
        assert len(made.pods()) == 1
        made.now = made.last.wake_at - 0.001
        made.settle()
        assert len(made.pods()) == 1
        made.now = made.last.wake_at or made.now
        made.settle()
        made.reap()
        assert len(made.pods()) == 2
    assert waits == [0, 10, 20, 40, 80, 160, 300, 300]
    assert (REPLACEMENT_DELAY_FIRST_S, REPLACEMENT_DELAY_MAX_S) == (10, 300)


def test_a_pod_that_ran_long_enough_is_forgiven() -> None:
    """Failures long ago do not delay a replacement: a pod that ran ten minutes counts as the first to fail."""
    made = world([clique("a", 2)])
    made.settle()
    for _ in range(3):
        made.run()
        made.now += REPLACEMENT_FORGOTTEN_S
        fail_at_once(made)
        made.settle()
        made.reap()
        assert made.last.wake_at is None
        assert [pod.attempt for pod in made.pods()] == [1, 0]


def test_a_pod_that_succeeded_is_replaced_too() -> None:
    """A clique wants so many pods; one that ended well is as gone as one that failed."""
    made = world([clique("a", 2)])
    made.settle()
    made.run()
    made.change_pods(failed, made.pods()[:1])
    [finished] = [pod for pod in made.of(Pod) if not pod.is_active]
    made.put(replace(finished, phase=PodPhase.SUCCEEDED))
    made.settle()
    assert len(made.pods()) == 2


def test_while_a_replacement_waits_the_clique_is_short() -> None:
    """A pod in back-off counts as neither there nor ready, and its index stays its own."""
    made = world([clique("a", 2)])
    made.settle()
    for _ in range(2):
        made.run()
        fail_at_once(made)
        made.settle()
    status = made.one(PodClique, "s-0-a").status
    assert (status.replicas, status.ready_replicas) == (1, 1)
    assert (
        condition(made.one(PodClique, "s-0-a"), "MinAvailableBreached").reason == "ScheduledReplicasBelowMinAvailable"
    )
    assert [pod.index for pod in made.pods()] == [1]


def test_scaling_in_below_pods_that_wait_for_replacement() -> None:
    """Failed pods beyond the size hold no place back from those that are missing."""
    made = world([clique("a", 4, 1)])
    made.settle()
    for _ in range(2):
        made.run()
        made.change_pods(lambda pod: failed(pod, made.now), [pod for pod in made.pods() if pod.index in (2, 3)])
        made.settle()
    assert [pod.index for pod in made.pods()] == [0, 1]
    made.scale_clique("s-0-a", 2)
    made.settle()
    assert [pod.index for pod in made.pods()] == [0, 1]
    assert not [pod for pod in made.of(Pod) if pod.phase is PodPhase.FAILED and not pod.is_terminating]
    made.scale_clique("s-0-a", 4)
    made.run()
    made.settle()
    for _ in range(2):
        made.run()
        made.change_pods(lambda pod: failed(pod, made.now), [pod for pod in made.pods() if pod.index in (2, 3)])
        made.settle()
    made.change_pods(lambda _: None, made.pods()[:1])
    made.scale_clique("s-0-a", 2)
    made.settle()
    waiting = [pod for pod in made.of(Pod) if not pod.is_active and not pod.is_terminating]
    assert len(made.pods()) + len(waiting) == 2


def test_a_pod_that_failed_a_thousand_times_is_still_replaced() -> None:
    """The delay stays bounded, and its arithmetic too, however often a pod failed."""
    made = world([clique("a")])
    made.settle()
    made.run()
    made.change_pods(lambda pod: replace(failed(pod), attempt=5_000))
    made.settle()
    assert made.last.wake_at == made.now + REPLACEMENT_DELAY_MAX_S
