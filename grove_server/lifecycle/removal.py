"""The one way a pod is stopped: drain first if routers use it, then ask whoever runs it, or forget it if nobody does.

A draining pod still runs but counts nowhere, so its replacement is made at once. The drain ends when every living
router has acknowledged it, when the last lease has run out, or at the deadline; then the pod is asked to stop.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import replace

from grove_server.lifecycle.orders import CopyOrders
from grove_server.lifecycle.plan import Plan
from grove_server.resources.workload import Pod


class StopReason(enum.StrEnum):
    """Why a pod is stopped; low-cardinality, for events, metrics and the pod itself."""

    SCALE_IN = "ScaleIn"
    UPDATE = "Update"
    REPLACED = "Replaced"
    RECYCLED = "Recycled"
    NODE_DRAINED = "NodeDrained"
    NODE_LOST = "NodeLost"
    DELETED = "Deleted"


def stop_pod(plan: Plan, pod: Pod, why: StopReason, orders: CopyOrders, now: float) -> None:
    """Plan the stop of *pod*; harmless for one that is stopping already."""
    if not pod.node:
        plan.deletes.append(pod)
    elif pod.is_terminating or pod.is_draining:
        return
    elif pod.is_ready and _living(orders, now):
        deadline = now + orders.drain_timeout_s
        plan.updates.append(replace(pod, draining_at=now, drain_deadline=deadline, stop_reason=why))
        _wake_for_drain(plan, deadline, orders, now)
    else:
        plan.updates.append(_deleted(pod, why, now))


def continue_drains(plan: Plan, pods: Sequence[Pod], orders: CopyOrders, now: float) -> int:
    """Ask draining pods to stop whose drain is over; return how many were asked."""
    ended = 0
    living = _living(orders, now)
    for pod in pods:
        if not pod.is_draining or pod.is_terminating:
            continue
        deadline = pod.drain_deadline if pod.drain_deadline is not None else now
        if deadline <= now or not pod.is_ready or living <= set(pod.drain_acks):
            plan.updates.append(_deleted(pod, StopReason(pod.stop_reason or StopReason.DELETED), now))
            ended += 1
        else:
            _wake_for_drain(plan, deadline, orders, now)
    return ended


def _deleted(pod: Pod, why: StopReason, now: float) -> Pod:
    return replace(pod, stop_reason=why, metadata=replace(pod.metadata, deleted_at=now))


def _living(orders: CopyOrders, now: float) -> set[str]:
    return {lease.router for lease in orders.routers if lease.expires_at > now}


def _wake_for_drain(plan: Plan, deadline: float, orders: CopyOrders, now: float) -> None:
    """Look again at the deadline, or when a lease runs out before it."""
    plan.wake(deadline)
    for lease in orders.routers:
        if now < lease.expires_at < deadline:
            plan.wake(lease.expires_at)
