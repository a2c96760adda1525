"""What follows from the answers of one probe."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from grove_server.runtime.process.pod_plan import ContainerPlan, ProbeKind, ProbePlan, TcpSocket
from grove_server.runtime.process.probes import (
    ContainerProbes,
    ProbeResult,
    ProbeState,
    active,
    adopted,
    due_at,
    failed,
    has_started,
    is_ready,
    told,
)

ACTION = TcpSocket(host="127.0.0.1", port=1)
YES, NO = ProbeResult(is_success=True), ProbeResult(is_success=False, message="no")


def plan(kind: ProbeKind = ProbeKind.READINESS, **fields: float) -> ProbePlan:
    """Return a probe with these figures."""
    return ProbePlan(kind=kind, action=ACTION, **fields)  # type: ignore[arg-type]  # counts and seconds alike


@given(
    answers=st.lists(st.booleans(), max_size=40),
    successes=st.integers(1, 4),
    failures=st.integers(1, 4),
    verdict=st.sampled_from([None, True, False]),
)
def test_a_verdict_is_what_enough_answers_in_a_row_say(
    answers: list[bool], successes: int, failures: int, *, verdict: bool | None
) -> None:
    """The verdict is that of the latest row of equal answers that was long enough, else what it was before."""
    probe = plan(successes_needed=successes, failures_needed=failures)
    state = ProbeState(verdict=verdict)
    for number, answer in enumerate(answers):
        state = told(state, probe, YES if answer else NO, asked_at=number, now=number)
    expected = verdict
    for end in range(1, len(answers) + 1):
        for value, needed in ((True, successes), (False, failures)):
            if end >= needed and answers[end - needed : end] == [value] * needed:
                expected = value
    assert state.verdict is expected
    assert state.streak <= max(successes, failures)


def test_no_answer_moves_the_next_question_and_nothing_else() -> None:
    """A probe that could not be asked says nothing of its container."""
    state = told(ProbeState(), plan(failures_needed=1), None, asked_at=7, now=8)
    assert state == ProbeState(asked_at=7)
    assert due_at(state, plan(period_s=5), started_at=0, now=8) == 12


def test_a_period_counts_from_when_the_probe_began() -> None:
    """An answer that took long does not put off the next question; the delay holds for the first."""
    probe = plan(initial_delay_s=3, period_s=5)
    assert due_at(ProbeState(), probe, started_at=10, now=11) == 13
    state = told(ProbeState(), probe, YES, asked_at=13, now=17.9)
    assert due_at(state, probe, started_at=10, now=17.9) == 18


def test_each_stage_of_a_run_asks_its_own_probes() -> None:
    """Startup first and alone, then readiness and liveness, and nothing once the run has to end."""
    startup, readiness, liveness = (plan(kind, failures_needed=1) for kind in ProbeKind)
    container = ContainerPlan(name="c", argv=("x",), startup=startup, readiness=readiness, liveness=liveness)
    new = ContainerProbes()
    assert active(container, new) == (startup,)
    assert not has_started(container, new)
    started = new.told(startup, YES, asked_at=1, now=1)
    assert active(container, started) == (readiness, liveness)
    assert not is_ready(container, started)
    ready = started.told(readiness, YES, asked_at=2, now=2)
    assert is_ready(container, ready)
    for kind, probe, states in (
        (ProbeKind.STARTUP, startup, new),
        (ProbeKind.LIVENESS, liveness, ready),
    ):
        ending = states.told(probe, NO, asked_at=3, now=4)
        found = failed(container, ending)
        assert found is not None
        assert (found[0].kind, found[1].decided_at, found[1].message) == (kind, 4, "no")
        assert active(container, ending) == ()
    assert failed(container, ready.told(readiness, NO, asked_at=3, now=3)) is None


def test_what_was_believed_before_a_restart_is_believed_after_it() -> None:
    """A run that was ready stays so until as many failures in a row as ever say otherwise."""
    container = ContainerPlan(name="c", argv=("x",), startup=plan(ProbeKind.STARTUP), readiness=plan())
    states = adopted(is_started=True, is_ready=True, at=5)
    for _ in range(2):
        states = states.told(plan(), NO, asked_at=6, now=6)
        assert is_ready(container, states)
    assert not is_ready(container, states.told(plan(), NO, asked_at=7, now=7))
    assert not is_ready(container, adopted(is_started=True, is_ready=False, at=5))
