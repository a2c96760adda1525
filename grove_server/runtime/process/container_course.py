"""What becomes of one container: its status from what is seen, its next start, and its end in good order. Pure.

Sources: Kubernetes, "Pod Lifecycle" and "Container Lifecycle Hooks", and the kubelet (pkg/kubelet/kuberuntime):

* The first restart follows at once, later ones wait 10 s, doubling up to 5 min; a run of 10 min starts that anew.
* An end in good order is the preStop hook, then the stop signal, then SIGKILL when the grace period, which began with
  the hook, is over. A hook or a turn that used it up leaves 2 s between the signal and SIGKILL.
* A container has started once its postStart hook is done and its startup probe has passed. A hook may run twice if the
  server ends meanwhile (Kubernetes promises "at least once").
* A run whose record is gone, or whose end nobody saw, ended "Lost" with exit code 137.

Not here: which container's turn it is (``pod_course``).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final, NamedTuple

from grove_server.resources.containers import (
    CONTAINER_CREATING,
    LOST,
    POD_INITIALIZING,
    START_ERROR,
    ContainerEnd,
    ContainerStatus,
)
from grove_server.resources.workload import CRASH_LOOP_BACK_OFF
from grove_server.runtime.process import probes
from grove_server.runtime.process.observation import NEVER, Action, Ask, ContainerSeen, HookKind, Kill, RunHook, Signal
from grove_server.runtime.process.pod_plan import ContainerPlan, PodPlan
from grove_server.runtime.process.probes import ContainerProbes
from grove_server.runtime.process.runs import LOST_EXIT_CODE, Run
from grove_server.runtime.schedule import BACKOFF_FORGOTTEN_AFTER_S, backoff_after_s

# Containerd and runc report a process that could not be started like this.
START_ERROR_EXIT_CODE: Final = 128
# The kubelet's minimumGracePeriodInSeconds.
SIGNAL_WINDOW_S: Final = 2.0
# Kubernetes lets a postStart hook hang for ever; here it fails after ten minutes.
POST_START_MAX_S: Final = 600.0


class Part(NamedTuple):
    """One container of a pod: what it should be, what is true of it, what is seen of it."""

    plan: ContainerPlan
    status: ContainerStatus
    seen: ContainerSeen

    @property
    def live(self) -> Run | None:
        """The present run, if there is one."""
        return self.seen.live

    @property
    def is_busy(self) -> bool:
        """Whether it runs or is being started."""
        return self.seen.is_starting or self.seen.live is not None


class Ending(NamedTuple):
    """What to do about a container that has to end, and when to look again."""

    actions: tuple[Action, ...]
    due_at: float


def first_status(container: ContainerPlan, *, waits_for_init: bool) -> ContainerStatus:
    """Return the status of a container that was never started."""
    reason = POD_INITIALIZING if waits_for_init else CONTAINER_CREATING
    return ContainerStatus(
        name=container.name, is_init=container.is_init or container.is_sidecar, waiting_reason=reason
    )


def probes_of(status: ContainerStatus | None, seen: ContainerSeen) -> ContainerProbes:
    """Return what probes say of the present run; before the first answer, what the stored *status* says of it."""
    if seen.probes is not None:
        return seen.probes
    run = seen.live
    if run is None or status is None or not _is_of(status, run):
        return ContainerProbes()
    return probes.adopted(is_started=status.is_started, is_ready=status.is_ready, at=run.started_at)


def has_hook_open(container: ContainerPlan, status: ContainerStatus, seen: ContainerSeen) -> bool:
    """Return whether the present run has a postStart hook that has not succeeded."""
    if container.post_start is None or (status.is_started and seen.post_start is None):
        return False
    hook = seen.post_start
    return hook is None or hook.done_at is None or hook.failure != ""


def wants_restart(container: ContainerPlan, restart_policy: str, end: ContainerEnd) -> bool:
    """Return whether a container that ended like this is started again."""
    if container.is_sidecar:
        return True
    if restart_policy == "Never":
        return False
    # An init container has done its work; the policy Always means OnFailure for it.
    return end.exit_code != 0 or (restart_policy == "Always" and not container.is_init)


def status_now(
    container: ContainerPlan, old: ContainerStatus, seen: ContainerSeen, plan: PodPlan, now: float
) -> ContainerStatus:
    """Return what is true of a container, *old* being what was last written of it."""
    run, failure = seen.run, seen.failure
    if failure is not None and failure.attempt == next_attempt(old, run):
        end = ContainerEnd(
            exit_code=START_ERROR_EXIT_CODE, reason=START_ERROR, message=failure.message, finished_at=failure.at
        )
        return _ended(container, old, failure.attempt, end, plan)
    if run is None or (old.has_run and run.attempt < old.restart_count):
        if old.started_at is None:
            return old
        end = ContainerEnd(
            exit_code=LOST_EXIT_CODE,
            reason=LOST,
            message="nothing is known of its end",
            started_at=old.started_at,
            finished_at=now,
        )
        return _ended(container, old, old.restart_count, end, plan)
    if run.ended is None:
        return _running(container, old, seen, run)
    if run.attempt == old.restart_count and old.started_at is None and old.last_end is not None:
        return old
    ended = run.ended
    end = ContainerEnd(
        exit_code=ended.exit_code,
        signal=ended.signal,
        reason=ended.reason,
        message=ended.message,
        started_at=run.started_at,
        finished_at=ended.finished_at,
    )
    return _ended(container, old, run.attempt, end, plan)


def next_attempt(status: ContainerStatus, run: Run | None) -> int:
    """Return the number of the next start: after all that were stored, and after all that are seen."""
    # A pod that starts anew keeps its count although nothing of it has run since.
    stored = status.restart_count + 1 if status.has_run else status.restart_count
    return stored if run is None else max(stored, run.attempt + 1)


def start_at(status: ContainerStatus, now: float) -> float:
    """Return when a container that does not run may be started, in epoch seconds; 0 if it may be at once.

    An end that is still to come, because the clock was set back, puts nothing off.
    """
    if status.last_end is None or status.last_end.finished_at > now:
        return 0.0
    return status.last_end.finished_at + backoff_after_s(status.quick_end_count)


def is_ending(seen: ContainerSeen) -> bool:
    """Return whether the end of the present run was begun."""
    return not (seen.pre_stop is None and seen.signalled_at is None and seen.killed_at is None)


def ending(part: Part, *, since: float, grace_s: float, now: float, is_its_turn: bool = True) -> Ending:
    """Return how the present run is brought to its end, which began at *since*; nothing if none runs.

    ``is_its_turn`` False withholds the signal until the grace period is over.
    """
    plan, _, seen = part
    run = part.live
    if run is None or seen.killed_at is not None:
        return Ending((), NEVER)
    kill = Kill(container=plan.name, attempt=run.attempt)
    if grace_s <= 0:
        return Ending((kill,), NEVER)
    deadline = since + grace_s
    if seen.signalled_at is not None:
        kill_at = _kill_at(deadline, seen.signalled_at, grace_s)
        return Ending((kill,), NEVER) if kill_at <= now else Ending((), kill_at)
    if now < deadline:
        hook = seen.pre_stop
        if plan.pre_stop is not None and hook is None:
            begin = RunHook(
                container=plan.name,
                attempt=run.attempt,
                kind=HookKind.PRE_STOP,
                action=plan.pre_stop,
                timeout_s=deadline - now,
            )
            return Ending((begin,), deadline)
        if not is_its_turn or (hook is not None and hook.done_at is None):
            return Ending((), deadline)
    signal = Signal(container=plan.name, attempt=run.attempt, number=plan.stop_signal)
    return Ending((signal,), _kill_at(deadline, now, grace_s))


def _kill_at(deadline: float, signalled_at: float, grace_s: float) -> float:
    """Return when a run that was signalled is killed.

    Whoever was signalled in good time has all of the grace period, others a short window; nobody has more than the
    period after the signal, though the clock was set back since the end began.
    """
    window_s = min(SIGNAL_WINDOW_S, grace_s)
    return min(max(deadline, signalled_at + window_s), signalled_at + grace_s)


def care(part: Part, now: float) -> Ending:
    """Return what a run that is to go on needs: its postStart hook, then its probes."""
    plan, status, seen = part
    run = part.live
    if run is None:
        return Ending((), NEVER)
    if has_hook_open(plan, status, seen):
        if seen.post_start is not None or plan.post_start is None:
            return Ending((), NEVER)
        begin = RunHook(
            container=plan.name,
            attempt=run.attempt,
            kind=HookKind.POST_START,
            action=plan.post_start,
            timeout_s=POST_START_MAX_S,
        )
        return Ending((begin,), NEVER)
    states = probes_of(status, seen)
    asks: list[Action] = []
    due_at = NEVER
    for probe in probes.active(plan, states):
        if probe.kind in seen.asking:
            continue
        at = probes.due_at(states.of(probe.kind), probe, run.started_at, now)
        if at <= now:
            asks.append(Ask(container=plan.name, attempt=run.attempt, probe=probe))
        else:
            due_at = min(due_at, at)
    return Ending(tuple(asks), due_at)


def _is_of(status: ContainerStatus, run: Run) -> bool:
    return status.restart_count == run.attempt and status.started_at == run.started_at


def _running(container: ContainerPlan, old: ContainerStatus, seen: ContainerSeen, run: Run) -> ContainerStatus:
    if not _is_of(old, run):
        old = replace(old, restart_count=run.attempt, started_at=run.started_at, is_started=False, is_ready=False)
    states = probes_of(old, seen)
    is_started = not has_hook_open(container, old, seen) and probes.has_started(container, states)
    return replace(
        old,
        is_started=is_started,
        is_ready=is_started and probes.is_ready(container, states),
        waiting_reason="",
        waiting_message="",
    )


def _ended(
    container: ContainerPlan, old: ContainerStatus, attempt: int, end: ContainerEnd, plan: PodPlan
) -> ContainerStatus:
    ran_s = 0.0 if end.started_at is None else end.finished_at - end.started_at
    is_fresh = old.last_end is None or ran_s >= BACKOFF_FORGOTTEN_AFTER_S
    quick_end_count = 0 if is_fresh else old.quick_end_count + 1
    wait_s = backoff_after_s(quick_end_count) if wants_restart(container, plan.restart_policy, end) else 0.0
    reason, message = "", ""
    if wait_s:
        reason = CRASH_LOOP_BACK_OFF
        message = f"back-off {wait_s:g}s restarting container {container.name}"
        if end.message:
            message = f"{message}: {end.message}"
    return replace(
        old,
        restart_count=attempt,
        quick_end_count=quick_end_count,
        started_at=None,
        is_started=False,
        is_ready=False,
        waiting_reason=reason,
        waiting_message=message,
        last_end=end,
    )
