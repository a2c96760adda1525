"""The containers of a pod as Kubernetes would show them, where the pod's runtime knows them one by one.

Of a container that runs, ``state`` says since when and ``lastState`` how the run before ended; of one that waits for
its next start, or is over, the same end stands in ``lastState`` or ``state``, as in Kubernetes.

Not here: runtimes that know only pods (``pods``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from grove.v1 import meta_pb2, pod_pb2
from grove_server.api.conversions.timestamps import optional_rfc3339, rfc3339
from grove_server.resources.containers import ContainerEnd, ContainerStatus
from grove_server.resources.workload import Pod

_NOT_INITIALIZED = "ContainersNotInitialized"


def known_statuses(containers: Iterable[Mapping[str, Any]], pod: Pod) -> list[pod_pb2.ContainerStatus]:
    """Return the statuses of *containers* (of a pod spec), in their order; those that are not known are left out."""
    known = {status.name: status for status in pod.containers}
    return [_message(known[container["name"]], container) for container in containers if container.get("name") in known]


def initialized(pod: Pod, scheduled: str) -> meta_pb2.Condition:
    """Return the condition Initialized of a pod with a node; *scheduled* is when it got that."""
    inits = [status for status in pod.containers if status.is_init]
    has_begun = any(status.has_run for status in pod.containers if not status.is_init)
    open_names = [] if has_begun else [status.name for status in inits if not _is_through(status)]
    if open_names:
        message = f"containers with incomplete status: [{' '.join(open_names)}]"
        return meta_pb2.Condition(
            type="Initialized", status="False", reason=_NOT_INITIALIZED, message=message, last_transition_time=scheduled
        )
    ends = [status.last_end.finished_at for status in inits if status.last_end is not None and not status.started_at]
    since = max((end for end in ends if end >= (pod.scheduled_at or 0.0)), default=None)
    return meta_pb2.Condition(
        type="Initialized", status="True", last_transition_time=scheduled if since is None else rfc3339(since)
    )


def _is_through(status: ContainerStatus) -> bool:
    """Return whether an init container lets others start: it ended well, or it is one that runs on and has started."""
    if status.started_at is not None:
        return status.is_ready
    return status.last_end is not None and status.last_end.exit_code == 0


def _message(status: ContainerStatus, container: Mapping[str, Any]) -> pod_pb2.ContainerStatus:
    end = status.last_end
    is_over = status.started_at is None and not status.waiting_reason and end is not None
    is_done = is_over and status.is_init and end is not None and end.exit_code == 0
    return pod_pb2.ContainerStatus(
        name=status.name,
        state=_state(status),
        last_state=None if end is None or is_over else pod_pb2.ContainerState(terminated=_terminated(end)),
        # As in Kubernetes, an init container that has done its work counts as ready.
        ready=status.is_ready or is_done,
        restart_count=status.restart_count,
        image=container.get("image", ""),
        started=status.is_started,
    )


def _state(status: ContainerStatus) -> pod_pb2.ContainerState:
    if status.started_at is not None:
        running = pod_pb2.ContainerStateRunning(started_at=rfc3339(status.started_at))
        return pod_pb2.ContainerState(running=running)
    if status.last_end is not None and not status.waiting_reason:
        return pod_pb2.ContainerState(terminated=_terminated(status.last_end))
    waiting = pod_pb2.ContainerStateWaiting(reason=status.waiting_reason, message=status.waiting_message)
    return pod_pb2.ContainerState(waiting=waiting)


def _terminated(end: ContainerEnd) -> pod_pb2.ContainerStateTerminated:
    return pod_pb2.ContainerStateTerminated(
        exit_code=end.exit_code,
        signal=end.signal,
        reason=end.reason,
        message=end.message,
        started_at=optional_rfc3339(end.started_at),
        finished_at=rfc3339(end.finished_at),
    )
