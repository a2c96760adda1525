"""Pods that start anew: their processes ended with the server that was told to stop them, or with the machine. Pure.

Such an end is no failure of a container. The pod begins again as if it had just been placed: init containers first, no
back-off, held back again by start order. Its name, address, volumes and GPUs are what they were. Restarts are counted
as by the kubelet, which makes a new sandbox after a reboot: one more for each container that had run. A stop on purpose
counts none.

As with the kubelet, what was to run once only stays over: containers of a pod with the restart policy Never, which
fails, and with OnFailure those that ended with exit code 0.

Not here: how it is known (``launching``), and who writes the row (the node agent).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from grove_server.resources.containers import CONTAINER_CREATING, POD_INITIALIZING, ContainerStatus
from grove_server.resources.workload import Pod, PodPhase
from grove_server.runtime.process.observation import Remark
from grove_server.runtime.process.pod_plan import PodPlan
from grove_server.runtime.process.runs import REBOOTED, Run

REASON_STARTED_ANEW: Final = "StartedAnew"
_WORDS: Final = {True: "the machine was started anew", False: "it was stopped with the server"}


def interruption_of(runs: Sequence[Run]) -> str:
    """Return why runs of a pod were interrupted, REBOOTED before STOPPED; empty if none was, or something runs."""
    if any(run.ended is None for run in runs):
        return ""
    found = {run.interrupted for run in runs} - {""}
    return min(found, default="")


def anew(pod: Pod, plan: PodPlan, *, reason: str, now: float) -> Pod | None:
    """Return the row of a pod that starts anew at epoch second *now*; None if it is not to start again."""
    if pod.is_terminating or pod.phase in (PodPhase.FAILED, PodPhase.SUCCEEDED) or plan.restart_policy == "Never":
        return None
    keeps_results = plan.restart_policy == "OnFailure"
    mains = {container.name for container in plan.containers}
    done = {each.name for each in pod.containers if keeps_results and each.name in mains and _has_succeeded(each)}
    if done:
        # Some of its work is there: what prepared it is not repeated.
        done |= {container.name for container in plan.init_containers if not container.is_sidecar}
    waiting = POD_INITIALIZING if plan.init_containers else CONTAINER_CREATING
    count = 1 if reason == REBOOTED else 0
    return replace(
        pod,
        containers=tuple(each if each.name in done else _first(each, waiting, count) for each in pod.containers),
        phase=PodPhase.PENDING,
        waiting_reason="",
        waiting_message="",
        started_at=None,
        ready_at=None,
        unready_at=pod.unready_at if pod.ready_at is None else now,
        released_at=None if pod.is_ordered else pod.released_at,
    )


def started_anew(reason: str) -> Remark:
    """Return what people are told of it."""
    return Remark(reason=REASON_STARTED_ANEW, message=f"starts anew: {_WORDS[reason == REBOOTED]}", is_warning=False)


def _has_succeeded(status: ContainerStatus) -> bool:
    return status.started_at is None and status.last_end is not None and status.last_end.exit_code == 0


def _first(status: ContainerStatus, waiting_reason: str, count: int) -> ContainerStatus:
    return replace(
        status,
        restart_count=status.restart_count + (count if status.has_run else 0),
        quick_end_count=0,
        started_at=None,
        is_started=False,
        is_ready=False,
        waiting_reason=waiting_reason,
        waiting_message="",
        last_end=None,
    )
