"""What becomes of a pod of real processes, and what to do about it now. Pure.

``advance`` looks at the pod's row, its plan, what is seen of its runs, its node's row and the time. Everything follows
from these: a server that was killed at any point goes on where the old one was, with the same runs. Rules, as the
kubelet's (Kubernetes, "Pod Lifecycle", "Init Containers", "Sidecar Containers"):

* Init containers run one after the other; a sidecar among them only has to have started. Then all containers start, in
  the order of the manifest; one with a postStart hook holds back those after it until the hook is done.
* A container that ends is started again as the restart policy says, each with a back-off of its own.
* A startup or liveness probe that fails for good, and a failed postStart hook, end a run in good order.
* A pod that is deleted ends its containers together; sidecars are signalled after them, in reverse order. The grace
  period counts from the deletion. Nothing of it is ever started again.
* A pod that start order holds back starts nothing; what has to start again is held back again.
* On a node that is not ready nothing starts and nobody is ready; what runs goes on. A pod whose node is no more, is
  ended at once.

An end of a container is always a write of its own, before the next start, so that it can be seen.

Not here: carrying it out (the node agent), what the row says in detail (``pod_row``).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from grove_server.resources.cluster import Node
from grove_server.resources.meta import find_condition
from grove_server.resources.workload import Pod, PodPhase
from grove_server.runtime.process import probes
from grove_server.runtime.process.container_course import (
    Ending,
    Part,
    care,
    ending,
    has_hook_open,
    is_ending,
    next_attempt,
    probes_of,
    start_at,
)
from grove_server.runtime.process.observation import (
    NEVER,
    Action,
    ContainerSeen,
    Kill,
    PodSeen,
    Remark,
    Signal,
    Start,
    Step,
)
from grove_server.runtime.process.pod_plan import PodPlan, ProbeKind
from grove_server.runtime.process.pod_row import POD_SPEC_HONOURED, Parts, is_through, parts_of, row_now
from grove_server.runtime.process.probes import ContainerProbes

REASON_EXITED: Final = "ContainersExited"
REASON_UNHEALTHY: Final = "Unhealthy"
REASON_POST_START: Final = "FailedPostStartHook"
REASON_PRE_STOP: Final = "FailedPreStopHook"


def advance(pod: Pod, plan: PodPlan, seen: PodSeen, node: Node | None, *, pod_ip: str, now: float) -> Step:
    """Return the next step of *pod*, which has a node; ``node`` is None if that node does not exist any more.

    *pod_ip* is the address the pod gets if it has none; *plan* is read with it.
    """
    parts = parts_of(pod, plan, seen, now)
    if pod.metadata.deleted_at is not None:
        return _leave(parts, since=pod.metadata.deleted_at, grace_s=plan.grace_s, now=now)
    if node is None:
        return _leave(parts, since=now, grace_s=0.0, now=now)
    if pod.phase is PodPhase.FAILED or pod.phase is PodPhase.SUCCEEDED:
        # Its runs had ended when that was written; what is left of one is not meant to be there.
        leftovers = _end_all(parts, since=now, grace_s=0.0, now=now)
        return Step(actions=leftovers.actions, due_at=leftovers.due_at)
    row = row_now(pod, plan, parts, seen, node, pod_ip=pod_ip, now=now)
    ends, remarks = _end_some(parts, plan, now)
    if row is not pod:
        news = (*_news_of_spec(pod, row), *_exits(pod, parts), *remarks)
        return Step(pod=row, actions=ends.actions, due_at=ends.due_at, remarks=news)
    if not node.ready or plan.cannot_run:
        return Step(actions=ends.actions, due_at=ends.due_at, remarks=remarks)
    starts = Ending((), NEVER) if parts.is_complete else _start_some(parts, is_held=pod.is_held, now=now)
    cares = [care(part, now) for part in parts.all if not _is_to_end(part, parts)]
    sums = _together((ends, starts, *cares))
    return Step(actions=sums.actions, due_at=sums.due_at, remarks=remarks)


def probes_now(pod: Pod, name: str, seen: ContainerSeen) -> ContainerProbes:
    """Return what the probes of container *name* say; an answer is recorded on this with ``told``."""
    status = next((status for status in pod.containers if status.name == name), None)
    return probes_of(status, seen)


# Starting.


def _start_some(parts: Parts, *, is_held: bool, now: float) -> Ending:
    if not parts.is_initialized:
        return _start_next_init(parts, is_held=is_held, now=now)
    begun = [_start(part, now) for part in parts.sidecars]
    if is_held:
        return _together(begun)
    for part in parts.mains:
        if part.live is not None and has_hook_open(part.plan, part.status, part.seen):
            if not part.status.has_run or part.status.restart_count == 0:
                break
        elif not parts.is_over(part):
            begun.append(_start(part, now))
            if part.plan.post_start is not None and not part.status.has_run:
                break
    return _together(begun)


def _start_next_init(parts: Parts, *, is_held: bool, now: float) -> Ending:
    begun: list[Ending] = []
    for part in parts.inits:
        if is_held and not part.status.has_run:
            break
        begun.append(_start(part, now) if not parts.is_over(part) else Ending((), NEVER))
        if not is_through(part):
            break
    return _together(begun)


def _start(part: Part, now: float) -> Ending:
    if part.is_busy:
        return Ending((), NEVER)
    at = start_at(part.status, now)
    if at > now:
        return Ending((), at)
    attempt = next_attempt(part.status, part.seen.run)
    return Ending((Start(container=part.plan.name, attempt=attempt),), NEVER)


# Ending.


def _leave(parts: Parts, *, since: float, grace_s: float, now: float) -> Step:
    """End everything; a pod of which nothing runs is gone."""
    if not any(part.is_busy for part in parts.all):
        return Step(is_gone=True)
    ends = _end_all(parts, since=since, grace_s=grace_s, now=now)
    remarks = tuple(_hook_remarks(parts.all, ends.actions))
    return Step(actions=ends.actions, due_at=ends.due_at, remarks=remarks)


def _end_all(parts: Parts, *, since: float, grace_s: float, now: float) -> Ending:
    """End all that runs: sidecars after the others, the last first."""
    others = [part for part in parts.all if not part.plan.is_sidecar]
    ends = [ending(part, since=since, grace_s=grace_s, now=now) for part in others]
    is_its_turn = not any(part.is_busy for part in others)
    for part in reversed(parts.sidecars):
        ends.append(ending(part, since=since, grace_s=grace_s, now=now, is_its_turn=is_its_turn))
        is_its_turn = is_its_turn and not part.is_busy
    return _together(ends)


def _end_some(parts: Parts, plan: PodPlan, now: float) -> tuple[Ending, tuple[Remark, ...]]:
    """End what must not go on although the pod does: failed runs, and sidecars of a pod that is complete."""
    if parts.is_complete and any(part.is_busy for part in parts.all):
        ended = (part.status.last_end for part in parts.all)
        since = max((end.finished_at for end in ended if end is not None), default=now)
        ends = _end_all(parts, since=since, grace_s=plan.grace_s, now=now)
        return ends, tuple(_hook_remarks(parts.all, ends.actions))
    ends_of_runs: list[Ending] = []
    remarks: list[Remark] = []
    for part in parts.all:
        failure = _failure(part, plan)
        if failure is not None:
            since, grace_s, remark = failure
            end = ending(part, since=since, grace_s=grace_s, now=now)
            ends_of_runs.append(end)
            if end.actions and not is_ending(part.seen):
                remarks.append(remark)
            remarks.extend(_hook_remarks((part,), end.actions))
    return _together(ends_of_runs), tuple(remarks)


def _is_to_end(part: Part, parts: Parts) -> bool:
    return parts.is_complete or is_ending(part.seen) or _failure(part, None) is not None


def _failure(part: Part, plan: PodPlan | None) -> tuple[float, float, Remark] | None:
    """Return since when the present run has to end, in how many seconds, and why; None if it may go on."""
    container, status, seen = part
    run = part.live
    if run is None:
        return None
    grace_s = plan.grace_s if plan is not None else 0.0
    hook = seen.post_start
    if hook is not None and hook.done_at is not None and hook.failure:
        message = f"container {container.name} is ended: its postStart hook failed: {hook.failure}"
        return hook.done_at, grace_s, Remark(reason=REASON_POST_START, message=message)
    failed = probes.failed(container, probes_of(status, seen))
    if failed is None:
        return None
    probe, state = failed
    since = run.started_at if state.decided_at is None else state.decided_at
    message = f"container {container.name} is ended: its {probe.kind} probe failed: {state.message}"
    return since, grace_s if probe.grace_s is None else probe.grace_s, Remark(reason=REASON_UNHEALTHY, message=message)


# What people are told.


def _news_of_spec(pod: Pod, row: Pod) -> Iterable[Remark]:
    """Yield what cannot be honoured of the pod's spec, once."""
    honoured = find_condition(row.conditions, POD_SPEC_HONOURED)
    if honoured is not None and find_condition(pod.conditions, POD_SPEC_HONOURED) is None:
        yield Remark(reason=honoured.reason, message=honoured.message)


def _exits(pod: Pod, parts: Parts) -> Iterable[Remark]:
    """Yield what was not known of the containers when *pod* was written: ends, and readiness that was lost."""
    stored = {status.name: status for status in pod.containers}
    for part in parts.all:
        old, new = stored.get(part.plan.name), part.status
        end = new.last_end
        if end is not None and (old is None or old.last_end != end):
            if end.exit_code == 0 and part.plan.is_init and not part.plan.is_sidecar:
                continue
            message = f"container {part.plan.name} ended with exit code {end.exit_code} ({end.reason})"
            yield Remark(reason=REASON_EXITED, message=f"{message}: {end.message}" if end.message else message)
        elif old is not None and old.is_ready and not new.is_ready and part.live is not None:
            state = probes_of(old, part.seen).of(ProbeKind.READINESS)
            if state.verdict is False:
                message = f"container {part.plan.name} is not ready: its readiness probe failed: {state.message}"
                yield Remark(reason=REASON_UNHEALTHY, message=message)


def _hook_remarks(parts: Iterable[Part], actions: tuple[Action, ...]) -> Iterable[Remark]:
    """Yield the preStop hooks that failed, once: when what comes after them is done."""
    next_ones = {action.container for action in actions if isinstance(action, Signal | Kill)}
    for part in parts:
        hook = part.seen.pre_stop
        if part.plan.name in next_ones and hook is not None and hook.failure and part.seen.signalled_at is None:
            message = f"the preStop hook of container {part.plan.name} failed: {hook.failure}"
            yield Remark(reason=REASON_PRE_STOP, message=message)


def _together(ends: Iterable[Ending]) -> Ending:
    """Return all the actions, and the earliest moment to look again."""
    actions: list[Action] = []
    due_at = NEVER
    for end in ends:
        actions.extend(end.actions)
        due_at = min(due_at, end.due_at)
    return Ending(tuple(actions), due_at)
