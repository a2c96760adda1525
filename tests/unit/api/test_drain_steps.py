"""What a drain watch makes of a pod watch: each drain begins once and ends once, for new readers and resumed ones."""

from __future__ import annotations

from typing import Any

from grove.v1 import endpoint_pb2 as pb
from grove_server.api.conversions.drains import DrainSteps
from grove_server.resources.workload import Pod
from grove_server.store.interface import EventType, WatchEvent
from tests.unit.runtime.simulated import EPOCH_S, pod

DRAINING: dict[str, Any] = {"draining_at": EPOCH_S, "drain_deadline": EPOCH_S + 30, "stop_reason": "Update"}
STOPPING: dict[str, Any] = {**DRAINING, "deleted_at": EPOCH_S + 1}


def step(steps: DrainSteps, type_: EventType, resource: Pod | None) -> str:
    """Return the type of the step that an event becomes, "" if it becomes none."""
    payload = steps.encode(WatchEvent(type_, resource, 1, "token"))
    if payload is None:
        return ""
    message = pb.EndpointServiceWatchDrainsResponse.FromString(payload)
    assert message.resume_token == "token"
    assert message.HasField("object") is (resource is not None)
    return message.type


def test_a_drain_from_begin_to_end() -> None:
    """A pod that serves is nothing; then the drain begins, is answered, and is over once, though the pod goes twice."""
    steps = DrainSteps(is_resumed=False)
    assert step(steps, EventType.ADDED, pod()) == ""
    assert step(steps, EventType.SYNCED, None) == "SYNCED"
    assert step(steps, EventType.MODIFIED, pod(**DRAINING)) == "ADDED"
    assert step(steps, EventType.MODIFIED, pod(**DRAINING, drain_acks=("r1",))) == "MODIFIED"
    assert step(steps, EventType.MODIFIED, pod(**STOPPING)) == "DELETED"
    assert step(steps, EventType.MODIFIED, pod(**STOPPING)) == ""
    assert step(steps, EventType.DELETED, pod(**STOPPING)) == ""
    assert step(steps, EventType.BOOKMARK, None) == "BOOKMARK"
    assert (steps._told, steps._over) == (set(), set())


def test_a_pod_that_goes_without_a_word() -> None:
    """A draining pod whose row vanishes, with its node for example, is over as well."""
    steps = DrainSteps(is_resumed=False)
    step(steps, EventType.ADDED, pod(**DRAINING))
    assert step(steps, EventType.DELETED, pod(**DRAINING)) == "DELETED"
    assert (steps._told, steps._over) == (set(), set())


def test_a_new_reader_is_not_told_of_what_is_over() -> None:
    """Drains that had ended before the watch began are nobody's business; stops without a drain never are."""
    steps = DrainSteps(is_resumed=False)
    assert step(steps, EventType.ADDED, pod(**STOPPING)) == ""
    assert step(steps, EventType.DELETED, pod(**STOPPING)) == ""
    assert step(steps, EventType.DELETED, pod(deleted_at=EPOCH_S)) == ""


def test_a_resumed_reader_is_told_of_every_end() -> None:
    """It may know drains that the stream does not: their end is told, once each, whichever event shows it."""
    steps = DrainSteps(is_resumed=True)
    assert step(steps, EventType.MODIFIED, pod(**STOPPING)) == "DELETED"
    assert step(steps, EventType.DELETED, pod(**STOPPING)) == ""
    assert step(steps, EventType.DELETED, pod(**DRAINING)) == "DELETED"
    assert step(steps, EventType.MODIFIED, pod(**DRAINING, drain_acks=("r1",))) == "ADDED"
    assert step(steps, EventType.DELETED, pod(deleted_at=EPOCH_S)) == ""


def test_what_a_router_needs_to_know() -> None:
    """A drain carries the pod's place in the set, its address, and the times; no group is no group replica."""
    payload = DrainSteps(is_resumed=False).encode(
        WatchEvent(EventType.ADDED, pod(**DRAINING, pod_ip="10.0.0.7"), 1, "t")
    )
    assert payload is not None
    drain = pb.EndpointServiceWatchDrainsResponse.FromString(payload).object
    assert (drain.address, drain.reason, drain.node) == ("10.0.0.7", "Update", "n0")
    assert (drain.started_at, drain.deadline) == ("1970-01-12T13:46:40.000Z", "1970-01-12T13:47:10.000Z")
    assert drain.HasField("copy")
    assert not drain.HasField("group_replica")
