"""Pods whose processes ended with the server or with the machine, and which of them start anew."""

from __future__ import annotations

from dataclasses import replace

import pytest

from grove_server.resources.workload import PodPhase
from grove_server.runtime.process.pod_renewal import anew, interruption_of
from grove_server.runtime.process.runs import REBOOTED, STOPPED, Ended, unknown_run
from tests.unit.runtime.process.played import agent_of, container

LOST = Ended(exit_code=137, signal=None, finished_at=5.0, reason="Lost")
RUN = unknown_run(("uid", "main", 0), LOST)


def test_something_that_runs_keeps_a_pod_from_starting_anew() -> None:
    """Only a pod of which nothing runs was interrupted, and a boot says more than a stop."""
    stopped, booted = replace(RUN, interrupted=STOPPED), replace(RUN, interrupted=REBOOTED)
    assert interruption_of([RUN]) == ""
    assert interruption_of([RUN, stopped]) == STOPPED
    assert interruption_of([stopped, booted]) == REBOOTED
    assert interruption_of([booted, replace(RUN, ended=None)]) == ""


@pytest.mark.parametrize(("reason", "count"), [(STOPPED, 0), (REBOOTED, 1)])
def test_a_pod_begins_with_its_init_containers(reason: str, count: int) -> None:
    """The row is that of a pod that waits for its init containers; the count grows after a boot alone."""
    agent = agent_of(container("main"), inits=[container("one")]).ends("one")
    assert agent.row.phase is PodPhase.RUNNING
    row = anew(agent.row, agent.plan, reason=reason, now=agent.now + 7)
    assert row is not None
    assert (row.phase, row.ready_at, row.started_at, row.unready_at) == (PodPhase.PENDING, None, None, agent.now + 7)
    assert [(each.has_run, each.waiting_reason) for each in row.containers] == [(False, "PodInitializing")] * 2
    assert [each.restart_count for each in row.containers] == [count, count]
    assert (row.pod_ip, row.node) == (agent.row.pod_ip, agent.row.node)


def test_what_was_to_run_once_is_not_repeated() -> None:
    """A pod that never restarts stays as it is, and what succeeded with OnFailure stays over, with what prepared it."""
    never = agent_of(container("main"), restartPolicy="Never")
    assert anew(never.row, never.plan, reason=REBOOTED, now=9.0) is None
    half = agent_of(container("a"), container("b"), inits=[container("one")], restartPolicy="OnFailure")
    half.ends("one").ends("a")
    row = anew(half.row, half.plan, reason=STOPPED, now=9.0)
    assert row is not None
    assert {each.name: each.has_run for each in row.containers} == {"one": True, "a": True, "b": False}


def test_a_pod_that_is_over_or_leaves_does_not_start_anew() -> None:
    """Neither a pod that was deleted nor one that has failed comes back."""
    agent = agent_of(container("main"))
    deleted = replace(agent.row, metadata=replace(agent.row.metadata, deleted_at=1.0))
    for row in (deleted, replace(agent.row, phase=PodPhase.FAILED)):
        assert anew(row, agent.plan, reason=STOPPED, now=9.0) is None
