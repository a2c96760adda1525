"""The one way a pod is stopped: drain first if routers use it, then ask whoever runs it, or forget it if nobody does.

A draining pod still runs but counts nowhere, so its replacement is made at once. The drain ends when every living
router has acknowledged it, when the last lease has run out, or at the deadline; then the pod is asked to stop.
Routers that come while a pod drains are waited for as well: their watch tells them of it first of all.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import Final, TypeVar

from grove_server.lifecycle.orders import CopyOrders
from grove_server.lifecycle.plan import EVENT_WARNING, Note, Plan
from grove_server.lifecycle.stuck import stuck_at
from grove_server.resources.duration import DurationError, parse_duration
from grove_server.resources.labels import DRAIN_TIMEOUT, DRAIN_TIMEOUT_MAX_S
from grove_server.resources.meta import Kind
from grove_server.resources.replacing import replace
from grove_server.resources.workload import Pod, PodClique, PodCliqueScalingGroup, PodGang

DRAIN_DEADLINE_PASSED: Final = "DrainDeadlinePassed"

P = TypeVar("P", PodClique, PodCliqueScalingGroup, PodGang)


class StopReason(enum.StrEnum):
    """Why a pod is stopped; low-cardinality, for events, metrics and the pod itself."""

    SCALE_IN = "ScaleIn"
    UPDATE = "Update"
    REPLACED = "Replaced"
    RECYCLED = "Recycled"
    NODE_DRAINED = "NodeDrained"
    NODE_LOST = "NodeLost"
    PREEMPTED = "Preempted"
    RECLAIMED = "Reclaimed"
    CONSOLIDATED = "Consolidated"
    DELETED = "Deleted"


class DrainEnd(enum.StrEnum):
    """How a drain ended, in the order in which it is looked at."""

    DEADLINE = "deadline"
    NOT_READY = "not_ready"
    ACKNOWLEDGED = "acknowledged"
    NO_ROUTERS = "no_routers"
    # By a person who would not wait; never the outcome of a pass.
    CUT_SHORT = "cut_short"


def stop_pod(plan: Plan, pod: Pod, why: StopReason, orders: CopyOrders, now: float) -> None:
    """Plan the stop of *pod*; harmless for one that is stopping already."""
    if not pod.node:
        plan.deletes.append(pod)
        plan.because(f"pods of {pod.identity.name} stop: {why}")
    elif pod.is_terminating or pod.is_draining:
        return
    else:
        stopping = stopped(pod, why, orders, now)
        plan.updates.append(stopping)
        plan.because(f"pods of {pod.identity.name} stop: {why}")
        if stopping.drain_deadline is not None:
            _wake_for_drain(plan, stopping.drain_deadline, orders, now)
        else:
            _wake_if_stuck(plan, stopping, orders, now)


def stopped(pod: Pod, why: StopReason, orders: CopyOrders, now: float) -> Pod:
    """Return *pod*, which has a node and is not stopping, on its way out: draining, or asked to stop at once."""
    if pod.is_ready and orders.drain_timeout_s > 0 and _living(orders, now):
        return replace(pod, draining_at=now, drain_deadline=now + orders.drain_timeout_s, stop_reason=why)
    return _deleted(pod, why, now)


def continue_drains(plan: Plan, pods: Sequence[Pod], orders: CopyOrders, now: float) -> int:
    """Ask draining pods to stop whose drain is over; return how many were asked."""
    ended = 0
    living = _living(orders, now)
    for pod in pods:
        if pod.draining_at is None or pod.is_terminating:
            continue
        deadline = pod.drain_deadline if pod.drain_deadline is not None else now
        if pod.draining_at > now:
            # The clock was set back. The deadline is as far away as it was at the most, not by as much as that.
            deadline = now + orders.drain_timeout_s
            pod = replace(pod, draining_at=now, drain_deadline=deadline)  # noqa: PLW2901 -- the pod as it goes on
            plan.updates.append(pod)
        elif (end := _drain_end(pod, deadline, living, now)) is not None:
            stopping = _deleted(pod, StopReason(pod.stop_reason or StopReason.DELETED), now)
            plan.updates.append(stopping)
            _wake_if_stuck(plan, stopping, orders, now)
            ended += 1
            if end is DrainEnd.DEADLINE and living:
                plan.notes.append(_deadline_passed(pod, living - set(pod.drain_acks)))
            continue
        _wake_for_drain(plan, deadline, orders, now)
    return ended


def leaving(parent: P, now: float) -> P:
    """Return a clique, group or gang that is not wanted any more and waits for its pods; the same object if told so."""
    if parent.metadata.deleted_at is not None:
        return parent
    return replace(parent, metadata=replace(parent.metadata, deleted_at=now))


def staying(parent: P) -> P:
    """Return a clique, group or gang that is wanted, maybe again: what waited for its pods to be removed stays."""
    if parent.metadata.deleted_at is None:
        return parent
    return replace(parent, metadata=replace(parent.metadata, deleted_at=None))


def drain_end(pod: Pod) -> DrainEnd:
    """Return how the drain of *pod*, which was asked to stop, ended; for counting."""
    stopped_at = pod.metadata.deleted_at
    if stopped_at is not None and pod.drain_deadline is not None and stopped_at >= pod.drain_deadline:
        return DrainEnd.DEADLINE
    if not pod.is_ready:
        return DrainEnd.NOT_READY
    return DrainEnd.ACKNOWLEDGED if pod.drain_acks else DrainEnd.NO_ROUTERS


def drain_timeout_s(annotations: Mapping[str, str], default_s: float) -> float:
    """Return how long pods of a set with these *annotations* may drain, in seconds."""
    text = annotations.get(DRAIN_TIMEOUT)
    if text is None:
        return default_s
    try:
        return min(max(parse_duration(text), 0.0), DRAIN_TIMEOUT_MAX_S)
    except DurationError:
        # Admission refuses it now; a set from before that rule keeps the default.
        return default_s


def _drain_end(pod: Pod, deadline: float, living: set[str], now: float) -> DrainEnd | None:
    if deadline <= now:
        return DrainEnd.DEADLINE
    if not pod.is_ready:
        return DrainEnd.NOT_READY
    if not living:
        return DrainEnd.NO_ROUTERS
    return DrainEnd.ACKNOWLEDGED if living <= set(pod.drain_acks) else None


def _deleted(pod: Pod, why: StopReason, now: float) -> Pod:
    return replace(pod, stop_reason=why, metadata=replace(pod.metadata, deleted_at=now))


def _living(orders: CopyOrders, now: float) -> set[str]:
    return {lease.router for lease in orders.routers if lease.expires_at > now}


def _deadline_passed(pod: Pod, silent: set[str]) -> Note:
    metadata = pod.metadata
    return Note(
        kind=Kind.POD,
        namespace=metadata.namespace,
        name=metadata.name,
        uid=metadata.uid,
        reason=DRAIN_DEADLINE_PASSED,
        message=f"stopped although routers did not acknowledge its drain in time: {', '.join(sorted(silent))}",
        type=EVENT_WARNING,
    )


def _wake_if_stuck(plan: Plan, stopping: Pod, orders: CopyOrders, now: float) -> None:
    """Look again when the pod should be gone, if its node cannot say that it is."""
    if orders.nodes and (due_at := stuck_at(stopping, orders, now)) is not None:
        plan.wake(due_at)


def _wake_for_drain(plan: Plan, deadline: float, orders: CopyOrders, now: float) -> None:
    """Look again at the deadline, or when a lease runs out before it."""
    plan.wake(deadline)
    for lease in orders.routers:
        if now < lease.expires_at < deadline:
            plan.wake(lease.expires_at)
