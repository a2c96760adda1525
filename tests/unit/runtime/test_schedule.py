"""What becomes of one fake pod, case by case."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from grove_server.resources.workload import CRASH_LOOP_BACK_OFF, NODE_NOT_READY, WAITING_FOR_PARENTS, Pod, PodPhase
from grove_server.runtime.behaviour import Behaviour, read_behaviour
from grove_server.runtime.schedule import (
    NEVER,
    Step,
    advance,
    backoff_s,
)
from tests.unit.runtime.simulated import EPOCH_S, node, pod

NOW = EPOCH_S + 100


def step(subject: Pod, *, now: float = NOW, ready: bool = True, **behaviour: Any) -> Step:  # noqa: ANN401 -- any field of the resource
    """Advance *subject* on a node that has been up for long."""
    return advance(subject, Behaviour(**behaviour), node(ready=ready), pod_ip="10.0.0.1", now=now)


def running(**fields: Any) -> Pod:  # noqa: ANN401 -- any field of the resource
    """Return a pod that has been running and ready for ten seconds."""
    values = {"phase": PodPhase.RUNNING, "started_at": NOW - 10, "ready_at": NOW - 10, "pod_ip": "10.0.0.1"}
    return pod(**{**values, **fields})


def fields_of(subject: Pod | None, *names: str) -> tuple[Any, ...]:
    """Return some fields of the pod a step writes."""
    assert subject is not None
    return tuple(getattr(subject, name) for name in names)


def test_a_bound_pod_is_running_and_ready_in_one_write() -> None:
    """Without delays the first write makes a bound pod Running and Ready."""
    written = step(pod(waiting_reason="Unschedulable")).pod
    assert fields_of(written, "phase", "started_at", "ready_at", "pod_ip", "waiting_reason", "restart_count") == (
        PodPhase.RUNNING,
        NOW,
        NOW,
        "10.0.0.1",
        "",
        0,
    )


def test_a_started_pod_knows_the_address_of_its_node() -> None:
    """The address of the host is that of the node, where it has one."""
    addressed = node(address="192.0.2.7")
    started = advance(pod(), Behaviour(), addressed, pod_ip="10.0.0.1", now=NOW).pod
    assert fields_of(started, "pod_ip", "host_ip") == ("10.0.0.1", "192.0.2.7")


def test_a_start_delay_counts_from_binding() -> None:
    """A pod stays Pending until its start delay is over, counted from when it was bound."""
    assert step(pod(), now=EPOCH_S + 4, start_delay_s=5) == Step(due_at=EPOCH_S + 5)
    assert step(pod(), now=EPOCH_S + 5, start_delay_s=5).pod is not None


def test_a_start_delay_begins_anew_when_the_node_comes_back() -> None:
    """A pod bound to a node that was down starts a start delay after the node's return."""
    back = node(ready_changed_at=NOW - 1)
    assert advance(pod(), Behaviour(start_delay_s=5), back, pod_ip="", now=NOW) == Step(due_at=NOW + 4)


def test_a_ready_delay_counts_from_the_start() -> None:
    """A pod is Running without being Ready until its ready delay is over."""
    started = step(pod(), ready_delay_s=5).pod
    assert fields_of(started, "phase", "ready_at") == (PodPhase.RUNNING, None)
    assert started is not None
    assert step(started, now=NOW + 1, ready_delay_s=5) == Step(due_at=NOW + 5)
    assert fields_of(step(started, now=NOW + 5, ready_delay_s=5).pod, "started_at", "ready_at") == (NOW, NOW + 5)


def test_a_running_pod_is_left_alone() -> None:
    """A ready pod that never crashes has nothing to wait for."""
    assert step(running()) == Step(due_at=NEVER)


def test_the_first_restart_follows_at_once() -> None:
    """The first crash is visible as not ready, counted, and already restarted."""
    crash = step(running(), crash_after_s=10, exit_code=7)
    assert fields_of(crash.pod, "phase", "started_at", "ready_at", "unready_at", "last_exit_code", "restart_count") == (
        PodPhase.RUNNING,
        NOW,
        None,
        NOW,
        7,
        1,
    )
    assert crash.pod is not None
    assert fields_of(step(crash.pod, crash_after_s=10).pod, "ready_at") == (NOW,)


def test_later_restarts_back_off() -> None:
    """From the second crash on the pod waits in CrashLoopBackOff and counts the restart when it happens."""
    waiting = step(running(restart_count=1), crash_after_s=10).pod
    assert fields_of(waiting, "phase", "started_at", "waiting_reason", "restart_count", "last_exit_code") == (
        PodPhase.RUNNING,
        None,
        CRASH_LOOP_BACK_OFF,
        1,
        1,
    )
    assert waiting is not None
    assert step(waiting, crash_after_s=10) == Step(due_at=NOW + 10)
    restarted = step(waiting, now=NOW + 10, crash_after_s=10).pod
    assert fields_of(restarted, "started_at", "ready_at", "waiting_reason", "restart_count") == (
        NOW + 10,
        NOW + 10,
        "",
        2,
    )


@pytest.mark.parametrize(
    ("restart_count", "expected_s"), [(0, 0), (1, 10), (2, 20), (3, 40), (4, 80), (5, 160), (6, 300), (10_000, 300)]
)
def test_back_off_doubles_to_five_minutes(restart_count: int, expected_s: float) -> None:
    """The wait before a restart is the kubelet's, but for the first."""
    assert backoff_s(restart_count, Behaviour(crash_after_s=1)) == expected_s


def test_a_long_run_forgets_the_back_off() -> None:
    """A pod that ran for ten minutes restarts at once, however often it crashed before."""
    assert backoff_s(9, Behaviour(crash_after_s=600)) == 0
    assert backoff_s(9, Behaviour(crash_after_s=599)) == 300


def test_crash_times_ends_the_crashes() -> None:
    """After crash-times starts that ended in a crash the pod keeps running."""
    assert step(running(restart_count=2), crash_after_s=10, crash_times=2) == Step(due_at=NEVER)
    assert step(running(restart_count=1), crash_after_s=10, crash_times=2).pod is not None


def test_a_crash_before_readiness_comes_first() -> None:
    """A pod whose crash is due before its readiness never becomes ready."""
    late = running(ready_at=None, started_at=NOW - 60)
    assert fields_of(step(late, crash_after_s=5, ready_delay_s=6).pod, "last_exit_code", "ready_at") == (1, None)
    assert fields_of(step(late, crash_after_s=6, ready_delay_s=5).pod, "last_exit_code", "ready_at") == (None, NOW)


def test_a_pod_that_crashes_at_once_is_seen_running_first() -> None:
    """With crash-after 0s the start is one write and the crash the next."""
    started = step(pod(), crash_after_s=0).pod
    assert fields_of(started, "phase", "ready_at", "last_exit_code") == (PodPhase.RUNNING, None, None)
    assert started is not None
    assert fields_of(step(started, crash_after_s=0).pod, "last_exit_code", "restart_count") == (1, 1)


@pytest.mark.parametrize(
    ("policy", "exit_code", "phase", "restarts"),
    [
        ("Always", 1, PodPhase.RUNNING, 1),
        ("Always", 0, PodPhase.RUNNING, 1),
        ("OnFailure", 1, PodPhase.RUNNING, 1),
        ("OnFailure", 0, PodPhase.SUCCEEDED, 0),
        ("Never", 1, PodPhase.FAILED, 0),
        ("Never", 0, PodPhase.SUCCEEDED, 0),
    ],
)
def test_the_restart_policy_decides_what_follows_an_exit(
    policy: str, exit_code: int, phase: PodPhase, restarts: int
) -> None:
    """Containers restart, or the pod ends as Failed or Succeeded, by restart policy and exit code."""
    crash = step(running(), crash_after_s=10, exit_code=exit_code, restart_policy=policy)
    assert fields_of(crash.pod, "phase", "restart_count", "last_exit_code", "ready_at", "unready_at") == (
        phase,
        restarts,
        exit_code,
        None,
        NOW,
    )


@pytest.mark.parametrize("phase", [PodPhase.FAILED, PodPhase.SUCCEEDED])
def test_a_finished_pod_stays_as_it_is(phase: PodPhase) -> None:
    """Nothing becomes of a pod that is over, whatever happens to its node."""
    finished = running(phase=phase, ready_at=None)
    assert step(finished, crash_after_s=1) == Step()
    assert step(finished, ready=False) == Step()
    assert advance(finished, Behaviour(), None, pod_ip="", now=NOW) == Step()


@pytest.mark.parametrize(
    ("behaviour", "gone_after_s"),
    [
        pytest.param({}, 0, id="at once, whatever the grace period"),
        pytest.param({"stop_delay_s": 5}, 5, id="stop delay"),
        pytest.param({"stop_delay_s": 60}, 30, id="the grace period ends a longer stop delay"),
        pytest.param({"ignores_sigterm": True}, 30, id="only the grace period stops it"),
        pytest.param({"ignores_sigterm": True, "grace_period_s": 5}, 5, id="a short grace period"),
        pytest.param({"ignores_sigterm": True, "grace_period_s": 0}, 0, id="no grace period"),
    ],
)
def test_a_stopping_pod_is_gone_after_its_delay(behaviour: Mapping[str, Any], gone_after_s: float) -> None:
    """A running pod that is asked to stop is removed when its containers have ended."""
    stopping = running(deleted_at=NOW)
    if gone_after_s:
        assert step(stopping, **behaviour) == Step(due_at=NOW + gone_after_s)
    assert step(stopping, now=NOW + gone_after_s, **behaviour) == Step(is_gone=True)


@pytest.mark.parametrize(
    "state",
    [
        pytest.param({"phase": PodPhase.PENDING, "started_at": None, "ready_at": None}, id="not started"),
        pytest.param({"started_at": None, "ready_at": None}, id="in back-off"),
        pytest.param({"phase": PodPhase.FAILED, "ready_at": None}, id="finished"),
    ],
)
def test_a_stopping_pod_without_containers_is_gone_at_once(state: Mapping[str, Any]) -> None:
    """There is no stop to wait for where no container runs."""
    assert step(running(deleted_at=NOW, **state), ignores_sigterm=True) == Step(is_gone=True)


def test_a_node_that_goes_down_takes_readiness_away() -> None:
    """Pods of a node that is not ready stay Running, not ready, with the reason; and only one write says so."""
    lost = step(running(), ready=False).pod
    assert fields_of(lost, "phase", "started_at", "ready_at", "unready_at", "waiting_reason") == (
        PodPhase.RUNNING,
        NOW - 10,
        None,
        NOW,
        NODE_NOT_READY,
    )
    assert lost is not None
    assert step(lost, now=NOW + 1, ready=False) == Step()


def test_pods_are_ready_again_when_their_node_is_back() -> None:
    """Readiness returns with the node; the containers have never stopped."""
    lost = step(running(), ready=False).pod
    assert lost is not None
    assert fields_of(step(lost, now=NOW + 9).pod, "started_at", "ready_at", "waiting_reason", "restart_count") == (
        NOW - 10,
        NOW + 9,
        "",
        0,
    )


def test_a_node_that_is_down_freezes_its_pods() -> None:
    """On a node that is not ready nothing starts, restarts, crashes or stops."""
    assert fields_of(step(pod(), ready=False).pod, "phase", "started_at", "unready_at") == (
        PodPhase.PENDING,
        None,
        None,
    )
    assert step(running(started_at=None, ready_at=None, unready_at=NOW - 99, restart_count=1), ready=False) == Step()
    assert step(running(deleted_at=NOW - 99), ready=False) == Step()


@pytest.mark.parametrize(
    "subject", [pod(), running(), running(deleted_at=NOW)], ids=["not started", "running", "stopping"]
)
def test_a_node_that_is_gone_took_its_pods_with_it(subject: Pod) -> None:
    """Pods of a node that does not exist any more are removed, so that others replace them."""
    assert advance(subject, Behaviour(ignores_sigterm=True), None, pod_ip="", now=NOW) == Step(is_gone=True)


def test_annotations_are_read_as_behaviour() -> None:
    """Every annotation sets what it says; those of the pod override those of the template."""
    read = read_behaviour(
        {
            "fake.grove.io/start-delay": "1m30s",
            "fake.grove.io/ready-delay": "250ms",
            "fake.grove.io/crash-after": "0s",
            "fake.grove.io/crash-times": "3",
            "fake.grove.io/exit-code": "0",
            "fake.grove.io/stop-delay": "2s",
            "fake.grove.io/ignore-sigterm": "false",
            "example.com/other": "x",
        },
        {"fake.grove.io/ignore-sigterm": "true"},
        {"terminationGracePeriodSeconds": 5, "restartPolicy": "Never"},
    )
    assert read.problems == ()
    assert read.behaviour == Behaviour(
        start_delay_s=90.0,
        ready_delay_s=0.25,
        crash_after_s=0.0,
        crash_times=3,
        exit_code=0,
        stop_delay_s=2.0,
        ignores_sigterm=True,
        grace_period_s=5.0,
        restart_policy="Never",
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("start-delay", "fast"),
        ("ready-delay", "-1s"),
        ("ready-delay", "8761h"),
        ("crash-after", ""),
        ("crash-times", "1.5"),
        ("crash-times", "1000001"),
        ("exit-code", "256"),
        ("exit-code", "-1"),
        ("exit-code", "\u0663"),
        ("ignore-sigterm", "yes"),
        ("stop-delay", "x" * 1000),
        ("start-dealy", "5s"),
    ],
)
def test_an_annotation_that_cannot_be_read_counts_as_the_default(name: str, value: str) -> None:
    """A bad value changes nothing and is reported with its key, in a message of bearable length."""
    read = read_behaviour({f"fake.grove.io/{name}": value}, {}, {})
    assert read.behaviour == Behaviour()
    (problem,) = read.problems
    assert problem.startswith(f"fake.grove.io/{name}: ")
    assert len(problem) < 250


def test_a_held_pod_waits_for_its_release() -> None:
    """Containers of an ordered pod are not created before it is released, and their start delay counts from there."""
    held = pod(is_ordered=True, waiting_reason=WAITING_FOR_PARENTS)
    assert step(held) == Step()
    released = pod(is_ordered=True, released_at=NOW)
    assert step(released, start_delay_s=5) == Step(due_at=NOW + 5)
    assert fields_of(step(released).pod, "phase", "ready_at") == (PodPhase.RUNNING, NOW)


def test_an_ordered_pod_asks_again_after_a_crash() -> None:
    """The crash of an ordered pod takes its release back; it starts when it is released and its back-off is over."""
    crash = step(running(is_ordered=True, released_at=NOW - 20), crash_after_s=10)
    assert fields_of(crash.pod, "started_at", "released_at", "waiting_reason", "restart_count") == (
        None,
        None,
        CRASH_LOOP_BACK_OFF,
        0,
    )
    assert "start order" in crash.exited
    assert crash.pod is not None
    assert step(crash.pod, now=NOW + 400) == Step()
    again = running(is_ordered=True, released_at=NOW, started_at=None, ready_at=None, unready_at=NOW, restart_count=1)
    assert step(again, crash_after_s=10) == Step(due_at=NOW + 10)
    assert fields_of(step(again, now=NOW + 10, crash_after_s=10).pod, "started_at", "restart_count") == (NOW + 10, 2)


def test_a_held_pod_on_a_node_that_comes_back() -> None:
    """A held pod says that its node is down, and stops saying so when it is back."""
    down = step(pod(is_ordered=True), ready=False).pod
    assert down is not None
    assert down.waiting_reason == NODE_NOT_READY
    assert step(down, ready=False) == Step()
    assert fields_of(step(down).pod, "waiting_reason", "phase") == ("", PodPhase.PENDING)
