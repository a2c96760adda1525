"""What becomes of a fake pod, and when. Pure.

``advance`` looks at one pod's row, its behaviour, its node's row and the time, and answers with at most one write and
with the moment to look again. Everything follows from the rows, so a restarted server goes on where the old one was:

==================================  ===================================================================================
row                                 what it stands for
==================================  ===================================================================================
Pending, has a node                 containers are being created until the start delay is over
held, not running                   its parents do not serve yet: containers wait for ``released_at``
Running, ``started_at``             containers run; Ready once ``ready_at`` is set
Running, no ``started_at``          crashed at ``unready_at`` and waiting out the back-off (CrashLoopBackOff)
Failed, Succeeded                   over: the restart policy asks for no further start
``deleted_at``                      stopping
==================================  ===================================================================================

Rules:

* Start and readiness that are due together are one write. A crash is always a write of its own, so it can be seen.
* The first restart follows at once; later ones wait 10 s, doubling up to 5 min, as the kubelet's back-off does. It
  starts anew after a run of 10 min. ``restart_count`` counts starts after the first, when they happen.
* A node that is not ready takes readiness away from its pods and freezes them: what should have happened meanwhile
  happens when it is back, and a pod that is stopping stays until then, since nobody there can confirm its end.
* A node that does not exist any more took its pods with it: their rows go (as Kubernetes' pod garbage collection).

Not here: who replaces pods that are gone (lifecycle), and how long a stopping pod on a dead node may stay.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

from grove_server.resources.cluster import Node
from grove_server.resources.replacing import replace
from grove_server.resources.workload import CRASH_LOOP_BACK_OFF, NODE_NOT_READY, Pod, PodPhase
from grove_server.runtime.behaviour import Behaviour

NEVER: Final = math.inf

# The kubelet's figures (pkg/kubelet: initial back-off 10 s, at most 5 min, forgotten after twice the maximum).
_BACKOFF_FIRST_S: Final = 10.0
_BACKOFF_MAX_S: Final = 300.0
BACKOFF_FORGOTTEN_AFTER_S: Final = 2 * _BACKOFF_MAX_S
# 10 s doubled five times is over the maximum; the exponent is bounded so that no restart count overflows a float.
_BACKOFF_DOUBLINGS_MAX: Final = 5


class Step(NamedTuple):
    """What to do with a pod now: write ``pod`` if there is one, or remove it, or look again at ``due_at``.

    ``due_at`` is an epoch time in seconds; NEVER means when its row or node changes, which a write of ``pod`` does.
    ``exited`` says in words what followed when the containers ended by themselves, for an event; else it is empty.
    """

    pod: Pod | None = None
    is_gone: bool = False
    due_at: float = NEVER
    exited: str = ""


_NOTHING: Final = Step()
_GONE: Final = Step(is_gone=True)


def advance(pod: Pod, behaviour: Behaviour, node: Node | None, *, pod_ip: str, now: float) -> Step:
    """Return the next step of *pod*, which has a node; ``node`` is None if that node does not exist any more.

    ``pod_ip`` is the address the pod gets when it starts.
    """
    if pod.metadata.deleted_at is not None:
        return _stop(pod, pod.metadata.deleted_at, behaviour, node, now)
    if pod.phase is PodPhase.FAILED or pod.phase is PodPhase.SUCCEEDED:
        return _NOTHING
    if node is None:
        return _GONE
    if not node.ready:
        return _lose_node(pod, node, now)
    if pod.is_held and pod.started_at is None:
        return _hold(pod)
    if pod.phase is PodPhase.PENDING:
        bound_at = pod.metadata.created_at if pod.scheduled_at is None else pod.scheduled_at
        start_at = max(bound_at, node.ready_changed_at, pod.released_at or 0.0) + behaviour.start_delay_s
        addressed = replace(pod, pod_ip=pod_ip, host_ip=node.address)
        return _start(addressed, behaviour, 0, now) if start_at <= now else Step(due_at=start_at)
    if pod.started_at is None:
        crashed_at = now if pod.unready_at is None else pod.unready_at
        start_at = crashed_at + backoff_s(pod.restart_count, behaviour)
        addressed = replace(pod, pod_ip=pod_ip, host_ip=node.address)
        return _start(addressed, behaviour, pod.restart_count + 1, now) if start_at <= now else Step(due_at=start_at)
    return _run(pod, pod.started_at, behaviour, now)


def _hold(pod: Pod) -> Step:
    """Wait for the release, which is a write of the row; what a node that is back said of it is no longer true."""
    if pod.waiting_reason != NODE_NOT_READY:
        return _NOTHING
    return Step(pod=replace(pod, waiting_reason="", waiting_message=""))


def backoff_s(restart_count: int, behaviour: Behaviour) -> float:
    """Return how long a pod that crashed after *restart_count* restarts waits for the next, in seconds."""
    if (behaviour.crash_after_s or 0.0) >= BACKOFF_FORGOTTEN_AFTER_S:
        return 0.0
    return backoff_after_s(restart_count)


def backoff_after_s(quick_end_count: int) -> float:
    """Return the wait for the next start, in seconds, after so many ends that came soon after the one before."""
    if quick_end_count == 0:
        return 0.0
    doublings = min(quick_end_count - 1, _BACKOFF_DOUBLINGS_MAX)
    return min(_BACKOFF_FIRST_S * 2.0**doublings, _BACKOFF_MAX_S)


def _stop(pod: Pod, deleted_at: float, behaviour: Behaviour, node: Node | None, now: float) -> Step:
    if node is None:
        return _GONE
    if not node.ready:
        return _NOTHING
    # Without a running container there is nothing to wait for.
    is_running = pod.phase is PodPhase.RUNNING and pod.started_at is not None
    if not is_running:
        return _GONE
    stop_delay_s = math.inf if behaviour.ignores_sigterm else behaviour.stop_delay_s
    gone_at = deleted_at + min(stop_delay_s, behaviour.grace_period_s)
    return _GONE if gone_at <= now else Step(due_at=gone_at)


def _lose_node(pod: Pod, node: Node, now: float) -> Step:
    if pod.waiting_reason == NODE_NOT_READY:
        return _NOTHING
    if pod.phase is PodPhase.RUNNING and pod.started_at is None:
        # It waits out a back-off that is counted from unready_at, and it is not ready anyhow.
        return _NOTHING
    return Step(
        pod=replace(
            pod,
            ready_at=None,
            unready_at=pod.unready_at if pod.ready_at is None else now,
            waiting_reason=NODE_NOT_READY,
            waiting_message=f"node {node.metadata.name} is not ready",
        )
    )


def _crash_at(restart_count: int, started_at: float, behaviour: Behaviour) -> float:
    if behaviour.crash_after_s is None:
        return NEVER
    if behaviour.crash_times is not None and restart_count >= behaviour.crash_times:
        return NEVER
    return started_at + behaviour.crash_after_s


def _start(pod: Pod, behaviour: Behaviour, restart_count: int, now: float) -> Step:
    is_ready = behaviour.ready_delay_s == 0 and _crash_at(restart_count, now, behaviour) > now
    return Step(
        pod=replace(
            pod,
            phase=PodPhase.RUNNING,
            waiting_reason="",
            waiting_message="",
            started_at=now,
            ready_at=now if is_ready else None,
            restart_count=restart_count,
        )
    )


def _run(pod: Pod, started_at: float, behaviour: Behaviour, now: float) -> Step:
    crash_at = _crash_at(pod.restart_count, started_at, behaviour)
    ready_at = NEVER if pod.ready_at is not None else started_at + behaviour.ready_delay_s
    if crash_at <= now and crash_at <= ready_at:
        return _crash(pod, behaviour, now)
    if ready_at <= now:
        return Step(pod=replace(pod, ready_at=now, waiting_reason="", waiting_message=""))
    return Step(due_at=min(crash_at, ready_at))


def _crash(pod: Pod, behaviour: Behaviour, now: float) -> Step:
    has_failed = behaviour.exit_code != 0
    wait_s = backoff_s(pod.restart_count, behaviour)
    crashed = replace(
        pod,
        waiting_reason="",
        waiting_message="",
        ready_at=None,
        unready_at=now,
        last_exit_code=behaviour.exit_code,
    )
    exited = f"containers ended with exit code {behaviour.exit_code}"
    if behaviour.restart_policy == "Never" or (behaviour.restart_policy == "OnFailure" and not has_failed):
        phase = PodPhase.FAILED if has_failed else PodPhase.SUCCEEDED
        return Step(pod=replace(crashed, phase=phase, finished_at=now), exited=f"{exited}; the pod is {phase}")
    if pod.is_ordered:
        # Whoever starts again asks again: its parents may not serve any more.
        waiting = f"back-off {wait_s:g}s restarting containers" if wait_s else "restarting containers"
        held = replace(
            crashed,
            started_at=None,
            released_at=None,
            waiting_reason=CRASH_LOOP_BACK_OFF,
            waiting_message=waiting,
        )
        return Step(pod=held, exited=f"{exited}; {waiting} when start order allows it")
    if wait_s == 0:
        # NB: not ready in this write even without a ready delay, so that watchers see the crash.
        restarted = replace(crashed, started_at=now, restart_count=pod.restart_count + 1)
        return Step(pod=restarted, exited=f"{exited}; they are started again at once")
    waiting = f"back-off {wait_s:g}s restarting containers"
    backing_off = replace(crashed, started_at=None, waiting_reason=CRASH_LOOP_BACK_OFF, waiting_message=waiting)
    return Step(pod=backing_off, exited=f"{exited}; {waiting}")
