"""What is true of a pod of real processes: its row, as it follows from what is seen of its containers. Pure.

Source: Kubernetes, "Pod Lifecycle" (phases, container states, readiness), and the kubelet's ``getPhase``:

* Pending until every init container is through and every container was started once; then Running, until no container
  runs or is to run again.
* Succeeded if every container ended with exit code 0, Failed otherwise, or if an init container failed for good. Both
  only once the sidecars have ended, too.
* Ready while every container and every sidecar is ready; a container that completed is not.
* The addresses are written before anything starts: containers are told of them.

Not here: what to do about it (``pod_course``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from grove_server.resources.cluster import Node
from grove_server.resources.containers import ContainerEnd, ContainerStatus
from grove_server.resources.meta import Condition, with_condition
from grove_server.resources.workload import (
    CRASH_LOOP_BACK_OFF,
    NODE_NOT_READY,
    WAITING_FOR_PARENTS,
    Pod,
    PodPhase,
)
from grove_server.runtime.process.container_course import Part, first_status, status_now, wants_restart
from grove_server.runtime.process.observation import PodSeen
from grove_server.runtime.process.pod_plan import ContainerPlan, PodPlan, Refusal

POD_SPEC_HONOURED: Final = "PodSpecHonoured"
NOT_HONOURED: Final = "FieldsNotHonoured"
CANNOT_RUN: Final = "CannotRun"
# A sentence names so many fields; the number of the others is told.
_NAMED_FIELDS_MAX: Final = 8
_MESSAGE_LENGTH_MAX: Final = 1_024


class Parts(NamedTuple):
    """The containers of a pod by their part in it, each in the order of the manifest."""

    inits: tuple[Part, ...]
    mains: tuple[Part, ...]
    restart_policy: str

    @property
    def all(self) -> tuple[Part, ...]:
        """All containers in the order they start in."""
        return (*self.inits, *self.mains)

    @property
    def sidecars(self) -> tuple[Part, ...]:
        """The init containers that keep running."""
        return tuple(part for part in self.inits if part.plan.is_sidecar)

    @property
    def has_begun(self) -> bool:
        """Whether an ordinary container was started once: init containers are past."""
        return any(part.status.has_run or part.is_busy for part in self.mains)

    @property
    def is_initialized(self) -> bool:
        """Whether ordinary containers may start."""
        return self.has_begun or all(is_through(part) for part in self.inits)

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to do: every container is over, or an init container failed for good."""
        if any(self.is_over(part) and not is_through(part) for part in self.inits if not part.plan.is_sidecar):
            return not any(part.is_busy for part in self.mains)
        return bool(self.mains) and all(self.is_over(part) for part in self.mains)

    def is_over(self, part: Part) -> bool:
        """Return whether a container ended and is not started again."""
        end = part.status.last_end
        if part.is_busy or part.status.started_at is not None or end is None:
            return False
        return not wants_restart(part.plan, self.restart_policy, end)

    def is_to_start(self, part: Part) -> bool:
        """Return whether a container does not run although it is to run again, or for the first time."""
        return part.status.started_at is None and not self.is_over(part)


def is_through(part: Part) -> bool:
    """Return whether an init container lets those after it start: it succeeded, or as a sidecar has started."""
    if part.plan.is_sidecar:
        return part.status.started_at is not None and part.status.is_started
    end = part.status.last_end
    return part.status.started_at is None and not part.is_busy and end is not None and end.exit_code == 0


def parts_of(pod: Pod, plan: PodPlan, seen: PodSeen, now: float) -> Parts:
    """Return the containers of *pod* with what is true of them now."""
    stored = {status.name: status for status in pod.containers}
    waits = bool(plan.init_containers)

    def parts(containers: Sequence[ContainerPlan], *, waits_for_init: bool) -> tuple[Part, ...]:
        made = []
        for container in containers:
            old = stored.get(container.name) or first_status(container, waits_for_init=waits_for_init)
            sight = seen.of(container.name)
            made.append(Part(container, status_now(container, old, sight, plan, now), sight))
        return tuple(made)

    return Parts(
        inits=parts(plan.init_containers, waits_for_init=waits),
        mains=parts(plan.containers, waits_for_init=waits),
        restart_policy=plan.restart_policy,
    )


def row_now(pod: Pod, plan: PodPlan, parts: Parts, seen: PodSeen, node: Node, *, pod_ip: str, now: float) -> Pod:
    """Return the row that says what is true now; the same one if it does already."""
    is_ready = node.ready and _is_ready(parts)
    phase = _phase(parts)
    is_finished = phase in (PodPhase.SUCCEEDED, PodPhase.FAILED)
    reason, message = _waiting(pod, plan, parts, node)
    last_end = _last_end(parts)
    row = replace(
        pod,
        containers=tuple(_at_rest(part.status) if parts.is_complete else part.status for part in parts.all),
        conditions=_conditions(pod.conditions, plan, seen, now),
        phase=phase,
        waiting_reason=reason,
        waiting_message=message,
        started_at=_started_at(parts, phase),
        ready_at=(now if pod.ready_at is None else pod.ready_at) if is_ready else None,
        unready_at=now if pod.ready_at is not None and not is_ready else pod.unready_at,
        finished_at=last_end.finished_at if is_finished and last_end is not None else pod.finished_at,
        released_at=None if _asks_anew(pod, parts) else pod.released_at,
        pod_ip=pod.pod_ip or pod_ip,
        host_ip=pod.host_ip or node.address,
        restart_count=sum(part.status.restart_count for part in parts.mains),
        last_exit_code=pod.last_exit_code if last_end is None else last_end.exit_code,
    )
    return pod if row == pod else row


def _at_rest(status: ContainerStatus) -> ContainerStatus:
    """Return the status of a container of a pod that is complete: nothing waits for a start any more."""
    return replace(status, waiting_reason="", waiting_message="") if status.waiting_reason else status


def _phase(parts: Parts) -> PodPhase:
    if parts.is_complete and not any(part.is_busy for part in parts.all):
        ends = [part.status.last_end for part in parts.mains]
        has_succeeded = all(end is not None and end.exit_code == 0 for end in ends)
        return PodPhase.SUCCEEDED if has_succeeded else PodPhase.FAILED
    if parts.mains and all(part.status.has_run for part in parts.mains):
        return PodPhase.RUNNING
    return PodPhase.PENDING


def _is_ready(parts: Parts) -> bool:
    if not parts.is_initialized or not parts.mains:
        return False
    return all(part.status.is_ready for part in (*parts.mains, *parts.sidecars))


def _started_at(parts: Parts, phase: PodPhase) -> float | None:
    if phase is PodPhase.PENDING or any(parts.is_to_start(part) for part in parts.mains):
        return None
    starts = [_last_start(part.status) for part in parts.mains]
    return max((at for at in starts if at is not None), default=None)


def _last_start(status: ContainerStatus) -> float | None:
    if status.started_at is not None:
        return status.started_at
    return None if status.last_end is None else status.last_end.started_at


def _last_end(parts: Parts) -> ContainerEnd | None:
    """Return the latest end of a container, or of an init container while none was started."""
    for group in (parts.mains, parts.inits):
        ends = [part.status.last_end for part in group if part.status.last_end is not None]
        if ends:
            return max(ends, key=lambda end: end.finished_at)
    return None


def _asks_anew(pod: Pod, parts: Parts) -> bool:
    """Return whether a container of an ordered pod has ended since the row was written and has to start again.

    Whoever starts again asks again: its parents may not serve any more.
    """
    if not pod.is_ordered:
        return False
    stored = {status.name: status.last_end for status in pod.containers}
    return any(
        part.status.last_end != stored.get(part.plan.name) and parts.is_to_start(part)
        for part in parts.mains
        if part.status.last_end is not None
    )


def _waiting(pod: Pod, plan: PodPlan, parts: Parts, node: Node) -> tuple[str, str]:
    if plan.cannot_run:
        return CANNOT_RUN, sentence(plan.cannot_run)
    if not node.ready:
        return NODE_NOT_READY, f"node {node.metadata.name} is not ready"
    if pod.is_held and pod.waiting_reason == WAITING_FOR_PARENTS:
        # The sentence belongs to whoever keeps the start order.
        return pod.waiting_reason, pod.waiting_message
    for part in () if parts.is_complete else parts.all:
        if part.status.waiting_reason == CRASH_LOOP_BACK_OFF:
            return CRASH_LOOP_BACK_OFF, part.status.waiting_message
    return "", ""


def _conditions(old: tuple[Condition, ...], plan: PodPlan, seen: PodSeen, now: float) -> tuple[Condition, ...]:
    conditions = old
    if refused := (*plan.cannot_run, *plan.not_honoured):
        reason = CANNOT_RUN if plan.cannot_run else NOT_HONOURED
        honoured = Condition(type=POD_SPEC_HONOURED, status="False", reason=reason, message=sentence(refused))
        conditions = with_condition(conditions, replace(honoured, last_transition_at=now))
    for condition in seen.conditions:
        conditions = with_condition(conditions, replace(condition, last_transition_at=now))
    return conditions


def sentence(refusals: Sequence[Refusal]) -> str:
    """Return *refusals* in words, bounded."""
    words = "; ".join(str(refusal) for refusal in refusals[:_NAMED_FIELDS_MAX])
    if len(words) > _MESSAGE_LENGTH_MAX:
        words = f"{words[:_MESSAGE_LENGTH_MAX]}…"
    more = len(refusals) - _NAMED_FIELDS_MAX
    return f"{words}; and {more} more" if more > 0 else words
