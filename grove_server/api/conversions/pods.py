"""A pod as Kubernetes would show it, made from its few stored fields and its shared template.

Conditions follow from times and phase, so they cannot contradict each other:

* PodScheduled since ``scheduled_at``; before, False with reason Unschedulable or SchedulingGated.
* Initialized since ``scheduled_at``: init containers are the runtime's; a started pod has passed them. Where the
runtime
  knows single containers, False until all init containers have done their work.
* Draining since ``draining_at``, for as long as it is; Ready stays true meanwhile, since the pod still serves.
* ContainersReady and Ready since ``ready_at``; False since ``unready_at`` once it had been ready.

Why a pod does not serve stands where Kubernetes' users look: without a node in PodScheduled, in a back-off in the
waiting container, on a node that is down, or behind parents in the start order, in ``status.reason``.

A runtime that knows single containers says what is true of each, and of the pod in conditions of its own, which stand
behind ours. Of a runtime that knows only pods, all containers share the pod's state.

The spec is most of a pod's bytes and nearly the same for all pods of a clique, so it is written to the wire form
directly. The host's address is the one its node had when the pod started: a cached pod must not go stale with another
object.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from grove.v1 import meta_pb2, pod_pb2
from grove_server.api.conversions.containers import initialized, known_statuses
from grove_server.api.conversions.metadata import condition_messages, object_meta, owner_reference
from grove_server.api.conversions.timestamps import optional_rfc3339, rfc3339
from grove_server.api.conversions.wire import nested, struct_bytes
from grove_server.lifecycle.pod_manifest import pod_annotations, pod_spec
from grove_server.resources.meta import API_VERSIONS, Kind
from grove_server.resources.workload import WAITING_FOR_PARENTS, Pod, PodPhase

_SPEC_FIELD = pod_pb2.Pod.DESCRIPTOR.fields_by_name["spec"].number
_UNSCHEDULABLE = ("SchedulingGated", "Unschedulable")


def pod_bytes(pod: Pod) -> bytes:
    """Return the serialized message of *pod*."""
    metadata = pod.metadata
    head = pod_pb2.Pod(
        api_version=API_VERSIONS[Kind.POD],
        kind=Kind.POD.value,
        metadata=object_meta(
            metadata,
            pod.resource_version,
            owner=owner_reference(Kind.POD_CLIQUE, pod.identity.name, metadata.owner_uid),
            annotations=pod_annotations(pod),
        ),
        status=_status(pod),
    )
    return head.SerializeToString() + nested(_SPEC_FIELD, struct_bytes(pod_spec(pod)))


def pod_message(pod: Pod) -> pod_pb2.Pod:
    """Return the message of *pod*."""
    return pod_pb2.Pod.FromString(pod_bytes(pod))


def _status(pod: Pod) -> pod_pb2.PodStatus:
    spec = pod.template.pod_spec
    # With a node, a reason is a container's back-off, or the node itself, or whom the pod starts after.
    is_held = pod.node != "" and (not _is_backing_off(pod) or pod.waiting_reason == WAITING_FOR_PARENTS)
    return pod_pb2.PodStatus(
        phase=pod.phase.value,
        conditions=_conditions(pod),
        reason=pod.waiting_reason if is_held else "",
        message=pod.waiting_message if is_held else "",
        host_ip=pod.host_ip,
        host_ips=[pod_pb2.PodAddress(ip=pod.host_ip)] if pod.host_ip else (),
        pod_ip=pod.pod_ip,
        pod_ips=[pod_pb2.PodAddress(ip=pod.pod_ip)] if pod.pod_ip else (),
        start_time=optional_rfc3339(pod.scheduled_at),
        init_container_statuses=_init_container_statuses(spec.get("initContainers") or (), pod),
        container_statuses=(
            known_statuses(spec.get("containers") or (), pod)
            if pod.containers
            else _container_statuses(spec.get("containers") or (), pod)
        ),
    )


def _conditions(pod: Pod) -> list[meta_pb2.Condition]:
    created = rfc3339(pod.metadata.created_at)
    scheduled = rfc3339(pod.scheduled_at) if pod.scheduled_at is not None else None
    if scheduled is None:
        reason = pod.waiting_reason if pod.waiting_reason in _UNSCHEDULABLE else _UNSCHEDULABLE[1]
        # The reason of the gang ("Fragmented") stands in front of its sentence, since Kubernetes knows only two words.
        message = pod.waiting_message
        if pod.waiting_reason and pod.waiting_reason != reason:
            message = f"{pod.waiting_reason}: {message}" if message else pod.waiting_reason
        return [_condition("PodScheduled", created, reason=reason, message=message)]
    conditions = [
        _condition("PodScheduled", scheduled, holds=True),
        initialized(pod, scheduled),
    ]
    if pod.ready_at is not None:
        since, holds, reason = rfc3339(pod.ready_at), True, ""
    else:
        since, holds = rfc3339(pod.unready_at) if pod.unready_at is not None else scheduled, False
        is_over = pod.phase in (PodPhase.SUCCEEDED, PodPhase.FAILED)
        reason = "PodCompleted" if is_over else "ContainersNotReady"
    conditions += (
        _condition("ContainersReady", since, holds=holds, reason=reason),
        _condition("Ready", since, holds=holds, reason=reason),
    )
    if pod.draining_at is not None:
        conditions.append(_draining(pod, pod.draining_at))
    conditions += condition_messages(pod.conditions)
    return conditions


def _draining(pod: Pod, since: float) -> meta_pb2.Condition:
    message = f"routers are leaving it; stopped by {optional_rfc3339(pod.drain_deadline)} at the latest"
    if pod.drain_acks:
        message += f"; left by {', '.join(pod.drain_acks)}"
    return _condition("Draining", rfc3339(since), holds=True, reason=pod.stop_reason, message=message)


def _condition(
    type_: str, since: str, *, holds: bool = False, reason: str = "", message: str = ""
) -> meta_pb2.Condition:
    return meta_pb2.Condition(
        type=type_, status="True" if holds else "False", reason=reason, message=message, last_transition_time=since
    )


def _container_statuses(containers: Iterable[Mapping[str, Any]], pod: Pod) -> list[pod_pb2.ContainerStatus]:
    if not pod.node:
        return []
    state = _state(pod)
    last = None
    if pod.restart_count and pod.last_exit_code is not None:
        last = pod_pb2.ContainerState(terminated=_terminated(pod.last_exit_code, ""))
    return [
        pod_pb2.ContainerStatus(
            name=container.get("name", ""),
            state=state,
            last_state=last,
            ready=pod.ready_at is not None,
            restart_count=pod.restart_count,
            image=container.get("image", ""),
            started=pod.phase is PodPhase.RUNNING and not _is_backing_off(pod),
        )
        for container in containers
    ]


def _is_backing_off(pod: Pod) -> bool:
    return pod.phase is PodPhase.RUNNING and pod.started_at is None


def _state(pod: Pod) -> pod_pb2.ContainerState:
    match pod.phase:
        case PodPhase.RUNNING if _is_backing_off(pod):
            return pod_pb2.ContainerState(
                waiting=pod_pb2.ContainerStateWaiting(reason=pod.waiting_reason, message=pod.waiting_message)
            )
        case PodPhase.RUNNING:
            return pod_pb2.ContainerState(
                running=pod_pb2.ContainerStateRunning(started_at=optional_rfc3339(pod.started_at))
            )
        case PodPhase.SUCCEEDED | PodPhase.FAILED:
            code = pod.last_exit_code if pod.last_exit_code is not None else int(pod.phase is PodPhase.FAILED)
            return pod_pb2.ContainerState(terminated=_terminated(code, optional_rfc3339(pod.finished_at)))
        case _:
            reason = "PodInitializing" if pod.is_held else "ContainerCreating"
            return pod_pb2.ContainerState(waiting=pod_pb2.ContainerStateWaiting(reason=reason))


def _terminated(exit_code: int, finished_at: str) -> pod_pb2.ContainerStateTerminated:
    return pod_pb2.ContainerStateTerminated(
        exit_code=exit_code, reason="Completed" if exit_code == 0 else "Error", finished_at=finished_at
    )


def _init_container_statuses(containers: Iterable[Mapping[str, Any]], pod: Pod) -> list[pod_pb2.ContainerStatus]:
    if pod.containers:
        return known_statuses(containers, pod)
    if not pod.node:
        return []
    is_past = pod.phase is not PodPhase.PENDING
    state = (
        pod_pb2.ContainerState(terminated=_terminated(0, ""))
        if is_past
        else pod_pb2.ContainerState(waiting=pod_pb2.ContainerStateWaiting(reason="PodInitializing"))
    )
    return [
        pod_pb2.ContainerStatus(
            name=container.get("name", ""),
            state=state,
            ready=is_past,
            restart_count=0,
            image=container.get("image", ""),
        )
        for container in containers
    ]
