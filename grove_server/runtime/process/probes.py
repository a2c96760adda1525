"""What follows from the results of a probe: when to ask next, and what is believed. Pure.

Source: Kubernetes, "Configure Liveness, Readiness and Startup Probes", and the kubelet's prober (pkg/kubelet/prober):

* The first probe comes ``initial_delay_s`` after the container started, later ones ``period_s`` after the one before
  began.
* A verdict changes only after so many equal results in a row. Until then liveness counts as good, readiness as not
  ready, startup as not started.
* Liveness and readiness are asked only once the startup probe has passed, and then without a further wait.
* After a startup or liveness probe has failed for good, nothing is asked of that run any more: it is being ended.

Not here: how to ask (``probing``), what the verdict leads to (``pod_course``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from grove_server.runtime.process.pod_plan import ContainerPlan, ProbeKind, ProbePlan


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """One answer; ``message`` says in words what was wrong, empty after a success."""

    is_success: bool
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeState:
    """What is known of one probe of one run of a container; times are epoch seconds.

    ``verdict`` is None until the first change of mind. ``decided_at`` is when it came about, ``message`` what the last
    failure said. ``asked_at`` is when the last probe that has answered began.
    """

    asked_at: float | None = None
    streak: int = 0
    last_success: bool | None = None
    verdict: bool | None = None
    decided_at: float | None = None
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerProbes:
    """The three probes of one run."""

    startup: ProbeState = ProbeState()
    readiness: ProbeState = ProbeState()
    liveness: ProbeState = ProbeState()

    def of(self, kind: ProbeKind) -> ProbeState:
        """Return the state of one probe."""
        match kind:
            case ProbeKind.STARTUP:
                return self.startup
            case ProbeKind.READINESS:
                return self.readiness
            case ProbeKind.LIVENESS:
                return self.liveness

    def told(self, plan: ProbePlan, result: ProbeResult | None, *, asked_at: float, now: float) -> ContainerProbes:
        """Return the states after one answer to *plan*'s question, which was asked at *asked_at*.

        No answer (None: it could not be asked) changes nothing but when to ask again.
        """
        state = told(self.of(plan.kind), plan, result, asked_at=asked_at, now=now)
        match plan.kind:
            case ProbeKind.STARTUP:
                return replace(self, startup=state)
            case ProbeKind.READINESS:
                return replace(self, readiness=state)
            case ProbeKind.LIVENESS:
                return replace(self, liveness=state)


def adopted(*, is_started: bool, is_ready: bool, at: float) -> ContainerProbes:
    """Return the states of a run that was known before: what its row says stays believed until probes say otherwise.

    So a server that starts again takes readiness from nobody.
    """
    return ContainerProbes(
        startup=ProbeState(verdict=True, decided_at=at) if is_started else ProbeState(),
        readiness=ProbeState(verdict=True, decided_at=at) if is_ready else ProbeState(),
    )


def told(state: ProbeState, plan: ProbePlan, result: ProbeResult | None, *, asked_at: float, now: float) -> ProbeState:
    """Return what is known after one more answer, which was asked for at *asked_at* and came at *now*."""
    if result is None:
        return replace(state, asked_at=asked_at)
    streak = state.streak + 1 if result.is_success == state.last_success else 1
    needed = plan.successes_needed if result.is_success else plan.failures_needed
    is_decided = streak >= needed and state.verdict != result.is_success
    return ProbeState(
        asked_at=asked_at,
        # Bounded: a probe that has answered alike for years needs no larger number.
        streak=min(streak, needed),
        last_success=result.is_success,
        verdict=result.is_success if is_decided else state.verdict,
        decided_at=now if is_decided else state.decided_at,
        message=state.message if result.is_success else result.message,
    )


def due_at(state: ProbeState, plan: ProbePlan, started_at: float, now: float) -> float:
    """Return when to ask next; *started_at* is when the container started.

    What it counts from may be still to come, because the clock was set back; then that wait counts as over.
    """
    first_at = now if started_at > now else started_at + plan.initial_delay_s
    if state.asked_at is None or state.asked_at > now:
        return first_at
    return max(first_at, state.asked_at + plan.period_s)


def has_started(container: ContainerPlan, probes: ContainerProbes) -> bool:
    """Return whether the startup probe has passed; True if there is none."""
    return container.startup is None or probes.startup.verdict is True


def is_ready(container: ContainerPlan, probes: ContainerProbes) -> bool:
    """Return whether the container serves: it has started, and its readiness probe says so if it has one."""
    return has_started(container, probes) and (container.readiness is None or probes.readiness.verdict is True)


def failed(container: ContainerPlan, probes: ContainerProbes) -> tuple[ProbePlan, ProbeState] | None:
    """Return the probe because of which the run has to end, and its state; None if there is none."""
    for plan in (container.startup, container.liveness):
        if plan is not None and probes.of(plan.kind).verdict is False:
            return plan, probes.of(plan.kind)
    return None


def active(container: ContainerPlan, probes: ContainerProbes) -> tuple[ProbePlan, ...]:
    """Return the probes that are to be asked at this stage of a run."""
    if failed(container, probes) is not None:
        return ()
    if not has_started(container, probes):
        return () if container.startup is None else (container.startup,)
    return tuple(plan for plan in (container.readiness, container.liveness) if plan is not None)
