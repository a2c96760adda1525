"""Pods that were asked to stop on nodes that cannot say that they did.

Such a pod holds its place. With the set's policy ``Force`` its row is removed some time after its grace period and the
failure of its node; a node that comes back later ends what it still runs, as it finds no row for it. With ``Wait`` only
its node, or the removal of the node, ends it. Kubernetes waits for ever; Grove's users ask for both (#401, #466).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from grove_server.lifecycle.orders import CopyOrders
from grove_server.lifecycle.plan import EVENT_WARNING, Note, Plan
from grove_server.resources.meta import Kind
from grove_server.resources.workload import Pod

STUCK_POD_REMOVED: Final = "StuckPodRemoved"
GRACE_PERIOD_S: Final = 30.0


def remove_stuck(plan: Plan, stopping: Sequence[Pod], orders: CopyOrders, now: float) -> list[Pod]:
    """Remove the rows of pods whose nodes cannot say that they stopped, as the policy allows; return the others."""
    if not orders.nodes:
        return list(stopping)
    left = []
    for pod in stopping:
        due_at = stuck_at(pod, orders, now)
        if due_at is None or due_at > now:
            left.append(pod)
            if due_at is not None:
                plan.wake(due_at)
            continue
        plan.deletes.append(pod)
        plan.notes.append(_stuck_note(pod, now))
    return left


def stuck_at(pod: Pod, orders: CopyOrders, now: float) -> float | None:
    """Return when the row of a stopping pod may be removed; None if its node is well or the policy is to wait.

    A stop that lies ahead was asked for before the clock was set back. Nobody knows how long ago that was, so the
    failure of the node counts alone, which is measured in steady time.
    """
    trouble = orders.nodes.get(pod.node)
    deleted_at = pod.metadata.deleted_at
    if trouble is None or trouble.not_ready_since is None or deleted_at is None or not orders.removes_stuck:
        return None
    grace_s = pod.template.pod_spec.get("terminationGracePeriodSeconds")
    asked_at = deleted_at if deleted_at <= now else trouble.not_ready_since
    ended_at = asked_at + (GRACE_PERIOD_S if grace_s is None else float(grace_s))
    return max(ended_at, trouble.not_ready_since) + orders.stuck_terminating_s


def _stuck_note(pod: Pod, now: float) -> Note:
    metadata = pod.metadata
    asked_s = max(0.0, now - (metadata.deleted_at if metadata.deleted_at is not None else now))
    return Note(
        kind=Kind.POD,
        namespace=metadata.namespace,
        name=metadata.name,
        uid=metadata.uid,
        reason=STUCK_POD_REMOVED,
        message=f"removed {asked_s:.0f} s after it was asked to stop, because node {pod.node} is not ready",
        type=EVENT_WARNING,
    )
