"""What becomes of a pod of real processes, rule by rule, as the kubelet has them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from grove_server.resources.workload import CRASH_LOOP_BACK_OFF, NODE_NOT_READY, WAITING_FOR_PARENTS, PodPhase
from grove_server.runtime.process.observation import Ask, HookKind, Kill, Signal, Start
from grove_server.runtime.process.pod_plan import ProbeKind, Refusal
from tests.unit.runtime.process.played import POD_IP, PlayedAgent, agent_of, container, held, names, pod_of, probe
from tests.unit.runtime.simulated import node

STARTUP, READINESS, LIVENESS = ProbeKind.STARTUP, ProbeKind.READINESS, ProbeKind.LIVENESS
SLEEP_HOOK = {"sleep": {"seconds": 5}}


# Starting.


def test_a_pod_without_probes_is_ready_once_all_its_containers_run() -> None:
    """Without probes a container that runs is started and ready, and so is its pod."""
    agent = agent_of(container("a"), container("b"))
    row = agent.row
    assert names(agent.did, Start) == ["a", "b"]
    assert (row.phase, row.started_at, row.ready_at) == (PodPhase.RUNNING, agent.now, agent.now)
    assert (row.pod_ip, row.host_ip, row.waiting_reason) == (POD_IP, "192.0.2.1", "")
    assert [(s.is_started, s.is_ready, s.restart_count) for s in row.containers] == [(True, True, 0)] * 2


def test_the_address_is_written_before_anything_starts() -> None:
    """A server that ends in between finds the address that the containers were told in the row."""
    agent = PlayedAgent(pod_of())
    agent.starts_hang = True
    agent.settle()
    assert (agent.row.pod_ip, agent.row.phase) == (POD_IP, PodPhase.PENDING)
    assert agent.status().waiting_reason == "ContainerCreating"
    assert names(agent.did, Start) == ["main"]


def test_a_start_under_way_is_not_repeated() -> None:
    """Nothing is started again while its start has not come to an end."""
    agent = PlayedAgent(pod_of())
    agent.starts_hang = True
    agent.settle().wait(100)
    assert len(agent.did) == 1
    assert agent.start_ends().row.phase is PodPhase.RUNNING


def test_init_containers_run_one_after_the_other_before_all_else() -> None:
    """Each init container starts when the one before has ended with exit code 0, the others after the last."""
    agent = agent_of(inits=[container("one"), container("two")])
    assert (agent.live_names, agent.row.phase) == (["one"], PodPhase.PENDING)
    assert agent.status("main").waiting_reason == "PodInitializing"
    agent.ends("one")
    assert agent.live_names == ["two"]
    agent.ends("two")
    assert (agent.live_names, agent.row.phase) == (["main"], PodPhase.RUNNING)
    assert agent.row.restart_count == 0
    assert agent.remarks == []


@pytest.mark.parametrize("policy", ["Always", "OnFailure"])
def test_an_init_container_that_fails_is_repeated(policy: str) -> None:
    """With restartPolicy Always and OnFailure an init container is started until it succeeds, with back-off."""
    agent = agent_of(inits=[container("one")], restartPolicy=policy).ends("one", 1)
    assert agent.status("one").restart_count == 1
    agent.ends("one", 1)
    assert (agent.row.phase, agent.row.waiting_reason) == (PodPhase.PENDING, CRASH_LOOP_BACK_OFF)
    assert agent.wait_until_due() == 10
    agent.ends("one")
    assert agent.row.phase is PodPhase.RUNNING


def test_an_init_container_that_fails_ends_a_pod_that_never_restarts() -> None:
    """With restartPolicy Never a failed init container fails the pod, and nothing else of it starts."""
    agent = agent_of(inits=[container("one")], restartPolicy="Never").ends("one", 3)
    assert (agent.row.phase, agent.row.last_exit_code, agent.row.finished_at) == (PodPhase.FAILED, 3, agent.now)
    assert names(agent.did, Start) == ["one"]


def test_a_sidecar_holds_back_what_follows_until_it_has_started() -> None:
    """An init container with restartPolicy Always lets the next one start once its startup probe has passed."""
    sidecar = container("proxy", restartPolicy="Always", startupProbe=probe())
    agent = agent_of(inits=[sidecar, container("one")])
    assert agent.live_names == ["proxy"]
    agent.answers(STARTUP, success=True, name="proxy")
    assert agent.live_names == ["proxy", "one"]
    agent.ends("one")
    assert agent.live_names == ["proxy", "main"]
    assert agent.row.ready_at == agent.now


def test_a_sidecar_that_is_not_ready_keeps_its_pod_from_being_ready() -> None:
    """The readiness of sidecars counts for the pod."""
    agent = agent_of(inits=[container("proxy", restartPolicy="Always", readinessProbe=probe())])
    assert (agent.row.phase, agent.row.ready_at) == (PodPhase.RUNNING, None)
    assert agent.answers(READINESS, success=True, name="proxy").row.ready_at == agent.now


def test_a_sidecar_is_restarted_whatever_the_policy_of_the_pod() -> None:
    """A sidecar that ends while the pod runs is started again, even with restartPolicy Never."""
    agent = agent_of(inits=[container("proxy", restartPolicy="Always")], restartPolicy="Never").ends("proxy", 0)
    assert agent.live_names == ["proxy", "main"]
    assert agent.status("proxy").restart_count == 1


def test_sidecars_do_not_keep_a_pod_from_ending() -> None:
    """When all containers are over, sidecars are asked to end, and then the pod has succeeded."""
    agent = agent_of(inits=[container("proxy", restartPolicy="Always")], restartPolicy="OnFailure").ends("main")
    assert (agent.row.phase, names(agent.did, Signal)) == (PodPhase.RUNNING, ["proxy"])
    agent.ends("proxy", 143, signal=15)
    assert (agent.row.phase, agent.live_names) == (PodPhase.SUCCEEDED, [])
    assert {status.waiting_reason for status in agent.row.containers} == {""}


def test_a_failed_start_is_an_end_with_the_reason_start_error() -> None:
    """A program that is not there counts as an attempt, with exit code 128, and is tried again after a back-off."""
    agent = PlayedAgent(pod_of())
    agent.starts_hang = True
    agent.settle().start_ends(failure="CommandNotFound: no such file")
    end = agent.status().last_end
    assert end is not None
    assert (end.exit_code, end.reason, end.message) == (128, "StartError", "CommandNotFound: no such file")
    assert agent.start_ends(failure="CommandNotFound: no such file").row.phase is PodPhase.RUNNING
    assert "CommandNotFound" in agent.row.waiting_message
    assert agent.wait_until_due() == 10
    assert agent.start_ends().status().restart_count == 2


def test_a_pod_that_cannot_run_says_why_and_starts_nothing() -> None:
    """A container without a command gives a condition; no container of its pod is started."""
    agent = agent_of({"name": "model", "image": "vllm"}, container("other"))
    (condition,) = agent.row.conditions
    assert agent.did == []
    assert (agent.row.phase, agent.row.waiting_reason) == (PodPhase.PENDING, "CannotRun")
    assert (condition.type, condition.status, condition.reason) == ("PodSpecHonoured", "False", "CannotRun")
    assert condition.message.startswith("containers[0]: has no command")
    assert [(remark.reason, remark.message) for remark in agent.remarks] == [("CannotRun", condition.message)]
    assert agent.is_deleted().is_gone


def test_what_is_not_honoured_is_told_once_and_the_pod_runs() -> None:
    """A field that cannot be honoured gives a condition and an event, and keeps nothing from starting."""
    agent = agent_of(container(tty=True)).ends(code=1)
    (condition,) = agent.row.conditions
    assert (condition.reason, condition.message) == (
        "FieldsNotHonoured",
        "containers[0].tty: containers have no terminal",
    )
    assert [remark.reason for remark in agent.remarks] == ["FieldsNotHonoured", "ContainersExited"]
    assert agent.row.is_ready


def test_a_pod_without_containers_has_not_succeeded() -> None:
    """A pod spec whose containers cannot be read is refused, and is not taken for one that is over."""
    agent = PlayedAgent(pod_of())
    agent.plan = replace(agent.plan, containers=(), cannot_run=(Refusal(path="containers", why="must be a list"),))
    assert (agent.settle().row.phase, agent.row.waiting_reason) == (PodPhase.PENDING, "CannotRun")


# Restarts.


@pytest.mark.parametrize(
    ("policy", "code", "phase"),
    [
        ("Always", 0, PodPhase.RUNNING),
        ("Always", 1, PodPhase.RUNNING),
        ("OnFailure", 0, PodPhase.SUCCEEDED),
        ("OnFailure", 1, PodPhase.RUNNING),
        ("Never", 0, PodPhase.SUCCEEDED),
        ("Never", 1, PodPhase.FAILED),
    ],
)
def test_the_restart_policy_decides_what_follows_an_end(policy: str, code: int, phase: PodPhase) -> None:
    """Always restarts, OnFailure only after a failure, Never not at all."""
    agent = agent_of(restartPolicy=policy).ends(code=code)
    assert agent.row.phase is phase
    assert bool(agent.live_names) == (phase is PodPhase.RUNNING)
    assert (agent.row.last_exit_code, agent.row.restart_count) == (code, int(phase is PodPhase.RUNNING))


def test_restarts_wait_longer_each_time() -> None:
    """The first restart follows at once; then 10 s, doubling, at most 5 minutes."""
    agent = agent_of().ends(code=1)
    waits = []
    for _ in range(7):
        agent.ends(code=1)
        assert (agent.row.waiting_reason, agent.row.started_at) == (CRASH_LOOP_BACK_OFF, None)
        waits.append(agent.wait_until_due())
    assert waits == [10, 20, 40, 80, 160, 300, 300]
    assert agent.row.restart_count == 8


def test_a_long_run_starts_the_back_off_anew() -> None:
    """After a run of ten minutes the next restart follows at once."""
    agent = agent_of().ends(code=1).ends(code=1)
    agent.wait_until_due()
    agent.wait(600).ends(code=1)
    assert (agent.live_names, agent.row.restart_count) == (["main"], 3)
    agent.ends(code=1)
    assert agent.wait_until_due() == 10


def test_containers_restart_each_by_themselves() -> None:
    """One container's end and back-off leave the other alone; the pod is not ready meanwhile."""
    agent = agent_of(container("a"), container("b")).ends("a", 1).ends("a", 1)
    assert (agent.live_names, agent.row.phase) == (["b"], PodPhase.RUNNING)
    assert (agent.row.ready_at, agent.row.started_at, agent.row.unready_at) == (None, None, agent.now)
    agent.wait_until_due()
    assert (agent.live_names, agent.row.ready_at) == (["a", "b"], agent.now)
    assert [status.restart_count for status in agent.row.containers] == [2, 0]


def test_an_end_is_seen_before_the_next_start() -> None:
    """An end is written, and told, before the container is started again."""
    agent = agent_of()
    agent.starts_hang = True
    agent.ends(code=7)
    assert (agent.row.started_at, agent.row.ready_at, agent.row.last_exit_code) == (None, None, 7)
    assert [remark.message for remark in agent.remarks] == ["container main ended with exit code 7 (Error)"]


def test_a_run_that_is_gone_without_a_trace_is_lost() -> None:
    """A container that was running and of which no run is found has ended with exit code 137, and starts again."""
    agent = agent_of()
    agent.runs.clear()
    agent.forget().settle()
    end = agent.status().last_end
    assert end is not None
    assert (end.reason, end.exit_code) == ("Lost", 137)
    assert agent.runs["main"][-1].attempt == agent.row.restart_count == 1


# Start order and nodes.


def test_a_held_pod_starts_nothing_until_it_is_released() -> None:
    """Containers of a pod that starts after others wait for its release."""
    agent = held()
    assert agent.did == []
    assert agent.released().row.phase is PodPhase.RUNNING


def test_what_starts_again_asks_again() -> None:
    """A container of an ordered pod that ended takes the release back and waits for the next one."""
    agent = held().released().ends(code=1)
    assert (agent.row.released_at, agent.row.started_at, agent.live_names) == (None, None, [])
    waiting = replace(agent.row, waiting_reason=WAITING_FOR_PARENTS, waiting_message="waiting for x")
    agent.row = waiting
    agent.settle()
    assert agent.row == waiting
    agent.released()
    assert (agent.live_names, agent.row.restart_count) == (["main"], 1)


def test_a_node_that_is_not_ready_takes_readiness_and_nothing_else() -> None:
    """What runs goes on and is ready again when its node is, without a restart."""
    agent = agent_of()
    agent.node = node(ready=False)
    agent.settle()
    assert (agent.row.ready_at, agent.row.waiting_reason) == (None, NODE_NOT_READY)
    agent.node = node()
    agent.settle()
    assert (agent.row.ready_at, agent.row.waiting_reason, agent.row.restart_count) == (agent.now, "", 0)
    assert names(agent.did, Start) == ["main"]


def test_nothing_starts_on_a_node_that_is_not_ready() -> None:
    """A container that ended is started again only once its node is ready."""
    agent = agent_of()
    agent.node = node(ready=False)
    assert agent.settle().ends(code=1).live_names == []
    agent.node = node()
    assert agent.settle().live_names == ["main"]


def test_a_pod_whose_node_is_no_more_is_ended_at_once() -> None:
    """Processes of a pod whose node does not exist any more are killed; then the pod is gone."""
    agent = agent_of()
    agent.node = None
    agent.settle()
    assert names(agent.did, Kill) == ["main"]
    assert agent.ends(code=137).is_gone


# Probes.


def test_readiness_follows_its_probe() -> None:
    """A container is ready after one success and not any more after three failures in a row, by default."""
    agent = agent_of(container(readinessProbe=probe()))
    assert not agent.row.is_ready
    assert agent.answers(READINESS, success=True).row.ready_at == agent.now
    for is_still_ready in (True, True, False):
        agent.wait_until_due()
        agent.answers(READINESS, success=False)
        assert agent.row.is_ready == is_still_ready
    assert agent.row.unready_at == agent.now
    assert [remark.reason for remark in agent.remarks] == ["Unhealthy"]
    assert agent.live_names == ["main"]


def test_a_success_in_between_starts_the_count_of_failures_anew() -> None:
    """Only failures in a row count."""
    agent = agent_of(container(readinessProbe=probe()))
    agent.answers(READINESS, success=True)
    for success in (False, False, True, False, False):
        agent.wait_until_due()
        agent.answers(READINESS, success=success)
    assert agent.row.ready_at is not None


def test_readiness_may_need_several_successes() -> None:
    """With successThreshold 2 one success is not enough."""
    agent = agent_of(container(readinessProbe=probe(successThreshold=2))).answers(READINESS, success=True)
    assert agent.row.ready_at is None
    agent.wait_until_due()
    assert agent.answers(READINESS, success=True).row.ready_at is not None


def test_probes_keep_their_delay_and_period() -> None:
    """The first probe comes after initialDelaySeconds, later ones each periodSeconds after the one before began."""
    agent = agent_of(container(readinessProbe=probe(initialDelaySeconds=7, periodSeconds=3)))
    assert names(agent.did, Ask) == []
    assert agent.wait_until_due() == 7
    asked_at = agent.now
    agent.answers(READINESS, success=False)
    agent.wait_until_due()
    assert agent.now == asked_at + 3


def test_the_other_probes_wait_for_the_startup_probe() -> None:
    """Liveness and readiness are asked only after the startup probe has passed, and then at once."""
    agent = agent_of(container(startupProbe=probe(), livenessProbe=probe(), readinessProbe=probe()))
    assert [a.probe.kind for a in agent.did if isinstance(a, Ask)] == [STARTUP]
    assert (agent.status().is_started, agent.row.started_at) == (False, agent.now)
    agent.taken()
    agent.answers(STARTUP, success=True)
    assert [a.probe.kind for a in agent.did if isinstance(a, Ask)] == [READINESS, LIVENESS]
    assert (agent.status().is_started, agent.row.ready_at) == (True, None)


@pytest.mark.parametrize("kind", [STARTUP, LIVENESS])
def test_a_failed_startup_or_liveness_probe_restarts_its_container(kind: ProbeKind) -> None:
    """After so many failures the container is ended in good order and started again; other containers go on."""
    failing = {**container(), f"{kind}Probe": probe(failureThreshold=2)}
    agent = agent_of(failing, container("other"))
    agent.answers(kind, success=False)
    agent.wait_until_due()
    agent.taken()
    agent.answers(kind, success=False)
    assert names(agent.taken(), Signal) == ["main"]
    assert [(remark.reason, "it says no" in remark.message) for remark in agent.remarks] == [("Unhealthy", True)]
    agent.wait(1)
    assert agent.taken() == []
    agent.ends(code=143, signal=15)
    assert (agent.status().restart_count, agent.status("other").restart_count) == (1, 0)
    assert names(agent.taken(), Ask) == ["main"]


def test_the_grace_period_of_a_probe_goes_before_that_of_the_pod() -> None:
    """A container whose liveness probe has a grace period of its own is killed when that is over."""
    agent = agent_of(container(livenessProbe=probe(failureThreshold=1, terminationGracePeriodSeconds=4)))
    agent.answers(LIVENESS, success=False)
    assert agent.wait_until_due() == 4
    assert names(agent.did, Kill) == ["main"]


# Other servers.


def test_a_new_server_takes_over_without_a_restart_or_a_change() -> None:
    """The same row and the same runs: the same pid, the same counts, and readiness stays until a probe denies it."""
    agent = agent_of(container(startupProbe=probe(), readinessProbe=probe(), lifecycle={"postStart": SLEEP_HOOK}))
    agent.hook_ends(HookKind.POST_START).answers(STARTUP, success=True).answers(READINESS, success=True)
    row = agent.row
    assert row.ready_at is not None
    agent.taken()
    agent.now += 3600
    agent.forget().settle()
    assert agent.row == row
    assert [type(action) for action in agent.did] == [Ask]
    for _ in range(3):
        assert agent.row.ready_at is not None
        agent.answers(READINESS, success=False)
        agent.wait_until_due()
    assert agent.row.ready_at is None


def test_what_ended_while_no_server_ran_is_found() -> None:
    """An end that nobody saw is in the run's record, with its exit code and its time."""
    agent = agent_of(restartPolicy="OnFailure")
    agent.now += 50
    ended_at = agent.now
    agent.ends_unseen(code=0)
    agent.now += 50
    agent.forget().settle()
    assert (agent.row.phase, agent.row.finished_at) == (PodPhase.SUCCEEDED, ended_at)


# Clocks.


def test_a_clock_that_is_set_back_puts_nothing_off() -> None:
    """Probes are asked and restarts happen although the times that they count from are still to come."""
    agent = agent_of(container(readinessProbe=probe())).answers(READINESS, success=True)
    agent.taken()
    agent.now -= 3600
    assert names(agent.settle().taken(), Ask) == ["main"]
    agent.answers(READINESS, success=True)
    assert agent.wait_until_due() == 10
    agent.ends(code=1).ends(code=1)
    assert agent.row.waiting_reason == CRASH_LOOP_BACK_OFF
    agent.now -= 3600
    assert agent.settle().live_names == ["main"]
