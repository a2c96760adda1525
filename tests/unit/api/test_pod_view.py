"""How a pod's state looks from outside: in the words that kubectl's users know."""

from __future__ import annotations

from typing import Any

import pytest

from grove_server.api.conversions.pods import pod_message
from grove_server.resources.workload import PodPhase
from grovectl.columns import pod_status
from tests.unit.runtime.simulated import EPOCH_S, pod

UNBOUND: dict[str, Any] = {"node": "", "scheduled_at": None}
RUNNING: dict[str, Any] = {"phase": PodPhase.RUNNING, "started_at": EPOCH_S, "ready_at": EPOCH_S}
LOOPING: dict[str, Any] = {
    "phase": PodPhase.RUNNING,
    "restart_count": 2,
    "last_exit_code": 3,
    "unready_at": EPOCH_S,
    "waiting_reason": "CrashLoopBackOff",
    "waiting_message": "back-off 20s restarting containers",
}
LOST: dict[str, Any] = {
    "phase": PodPhase.RUNNING,
    "started_at": EPOCH_S,
    "unready_at": EPOCH_S,
    "waiting_reason": "NodeNotReady",
    "waiting_message": "node n0 is not ready",
}


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({**UNBOUND, "waiting_reason": "Unschedulable", "waiting_message": "no room"}, "Pending"),
        ({**UNBOUND, "waiting_reason": "SchedulingGated"}, "SchedulingGated"),
        ({}, "ContainerCreating"),
        ({"waiting_reason": "NodeNotReady"}, "NodeNotReady"),
        (RUNNING, "Running"),
        (LOOPING, "CrashLoopBackOff"),
        (LOST, "NodeNotReady"),
        ({**RUNNING, "draining_at": EPOCH_S}, "Draining"),
        ({**RUNNING, "draining_at": EPOCH_S, "deleted_at": EPOCH_S}, "Terminating"),
        ({**RUNNING, "deleted_at": EPOCH_S}, "Terminating"),
        ({"phase": PodPhase.FAILED, "last_exit_code": 1, "finished_at": EPOCH_S}, "Error"),
        ({"phase": PodPhase.SUCCEEDED, "last_exit_code": 0, "finished_at": EPOCH_S}, "Completed"),
    ],
)
def test_one_word_for_each_state(fields: dict[str, Any], status: str) -> None:
    """The STATUS column says what kubectl would say, and names a node that is down."""
    assert pod_status(pod_message(pod(**fields))) == status


def test_a_draining_pod_is_ready_and_says_what_it_waits_for() -> None:
    """Draining stands beside Ready: why the pod is stopped, when at the latest, and who has left it."""
    drained = pod(
        **RUNNING,
        draining_at=EPOCH_S + 1,
        drain_deadline=EPOCH_S + 31,
        drain_acks=("r1", "r2"),
        stop_reason="ScaleIn",
    )
    ready, draining = pod_message(drained).status.conditions[-2:]
    assert (ready.type, ready.status, draining.type, draining.status) == ("Ready", "True", "Draining", "True")
    assert (draining.reason, draining.last_transition_time) == ("ScaleIn", "1970-01-12T13:46:41.000Z")
    assert draining.message == (
        "routers are leaving it; stopped by 1970-01-12T13:47:11.000Z at the latest; left by r1, r2"
    )


def test_a_pod_without_a_node_says_why_in_its_condition_alone() -> None:
    """As in Kubernetes, PodScheduled carries reason and message; status.reason stays empty."""
    status = pod_message(pod(**UNBOUND, waiting_reason="Unschedulable", waiting_message="no room")).status
    assert (status.reason, status.message) == ("", "")
    (condition,) = status.conditions
    assert (condition.reason, condition.message) == ("Unschedulable", "no room")


def test_a_back_off_is_a_waiting_container_that_ended_before() -> None:
    """The container waits with the reason, its last state has the exit code, and it is not started."""
    (container,) = pod_message(pod(**LOOPING)).status.container_statuses
    assert container.state.waiting.reason == "CrashLoopBackOff"
    assert container.state.waiting.message == "back-off 20s restarting containers"
    assert container.last_state.terminated.exit_code == 3
    assert not container.started


def test_a_lost_node_is_named() -> None:
    """A pod on a node that is down keeps its running container and says why it does not serve."""
    status = pod_message(pod(**LOST)).status
    assert (status.reason, status.message) == ("NodeNotReady", "node n0 is not ready")
    assert status.container_statuses[0].state.HasField("running")
