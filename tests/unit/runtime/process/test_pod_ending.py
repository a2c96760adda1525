"""How a pod of real processes ends, and what its hooks have to do with it, as the kubelet has it."""

from __future__ import annotations

from dataclasses import replace

from grove_server.resources.workload import PodPhase
from grove_server.runtime.process.observation import NEVER, Ask, HookKind, Kill, RunHook, Signal
from grove_server.runtime.process.pod_plan import Sleep
from tests.unit.runtime.process.played import PlayedAgent, agent_of, container, held, names, pod_of, probe

SLEEP_HOOK = {"sleep": {"seconds": 5}}


# Hooks.


def test_a_container_has_started_only_after_its_post_start_hook() -> None:
    """The hook runs first, then probes; later containers wait for it."""
    first = container("a", lifecycle={"postStart": SLEEP_HOOK}, readinessProbe=probe())
    agent = agent_of(first, container("b"))
    assert agent.live_names == ["a"]
    assert (agent.row.phase, names(agent.did, Ask)) == (PodPhase.PENDING, [])
    agent.hook_ends(HookKind.POST_START, name="a")
    assert (agent.live_names, names(agent.did, Ask)) == (["a", "b"], ["a"])


def test_a_failed_post_start_hook_restarts_its_container() -> None:
    """A container whose postStart hook fails is ended and started again."""
    agent = agent_of(container(lifecycle={"postStart": SLEEP_HOOK}))
    agent.hook_ends(HookKind.POST_START, "exit code 1")
    assert (names(agent.did, Signal), [r.reason for r in agent.remarks]) == (["main"], ["FailedPostStartHook"])
    assert agent.row.ready_at is None
    agent.ends(code=143)
    assert agent.status().restart_count == 1


# Stopping.


def test_a_deleted_pod_is_signalled_and_gone_when_its_containers_have_ended() -> None:
    """SIGTERM comes at once to all containers; the pod is gone with the last."""
    agent = agent_of(container("a"), container("b")).is_deleted()
    assert [(a.container, a.number) for a in agent.did if isinstance(a, Signal)] == [("a", 15), ("b", 15)]
    assert not agent.ends("a", 143).is_gone
    assert agent.ends("b", 143).is_gone


def test_who_ignores_the_signal_is_killed_after_the_grace_period() -> None:
    """SIGKILL comes when terminationGracePeriodSeconds are over, counted from the deletion."""
    agent = agent_of(terminationGracePeriodSeconds=12).is_deleted()
    assert agent.wait_until_due() == 12
    assert names(agent.did, Kill) == ["main"]
    assert agent.due_at == NEVER


def test_without_a_grace_period_a_pod_is_killed_at_once() -> None:
    """A terminationGracePeriodSeconds of 0 leaves no time at all."""
    agent = agent_of(terminationGracePeriodSeconds=0).is_deleted()
    assert (names(agent.did, Kill), names(agent.did, Signal)) == (["main"], [])


def test_the_pre_stop_hook_comes_before_the_signal_and_uses_the_grace_period() -> None:
    """The signal waits for the hook; what the hook took is gone from the grace period."""
    agent = agent_of(container(lifecycle={"preStop": SLEEP_HOOK}), terminationGracePeriodSeconds=20).is_deleted()
    (hook,) = [a for a in agent.did if isinstance(a, RunHook)]
    assert (hook.kind, hook.action, hook.timeout_s) == (HookKind.PRE_STOP, Sleep(duration_s=5), 20)
    assert names(agent.did, Signal) == []
    agent.wait(5).hook_ends(HookKind.PRE_STOP)
    assert names(agent.did, Signal) == ["main"]
    assert agent.wait_until_due() == 15
    assert names(agent.did, Kill) == ["main"]


def test_a_hook_that_takes_all_the_time_leaves_two_seconds() -> None:
    """After a hook that used up the grace period the container has two more seconds (the kubelet's minimum)."""
    agent = agent_of(container(lifecycle={"preStop": SLEEP_HOOK}), terminationGracePeriodSeconds=20).is_deleted()
    assert agent.wait_until_due() == 20
    assert (names(agent.did, Signal), names(agent.did, Kill)) == (["main"], [])
    assert agent.wait_until_due() == 2
    assert names(agent.did, Kill) == ["main"]


def test_a_failed_pre_stop_hook_is_told_and_changes_nothing() -> None:
    """The signal follows a failed hook as well."""
    agent = agent_of(container(lifecycle={"preStop": SLEEP_HOOK})).is_deleted()
    agent.hook_ends(HookKind.PRE_STOP, "exit code 1")
    assert (names(agent.did, Signal), [r.reason for r in agent.remarks]) == (["main"], ["FailedPreStopHook"])


def test_the_stop_signal_may_be_another() -> None:
    """lifecycle.stopSignal is sent instead of SIGTERM."""
    agent = agent_of(container(lifecycle={"stopSignal": "SIGUSR1"})).is_deleted()
    assert [a.number for a in agent.did if isinstance(a, Signal)] == [10]


def test_sidecars_end_after_the_others_the_last_first() -> None:
    """Sidecars are signalled when the containers have ended, in reverse order."""
    sidecars = [container("one", restartPolicy="Always"), container("two", restartPolicy="Always")]
    agent = agent_of(inits=sidecars).is_deleted()
    assert names(agent.taken(), Signal) == ["main"]
    agent.ends("main", 143)
    assert names(agent.taken(), Signal) == ["two"]
    agent.ends("two", 143)
    assert names(agent.taken(), Signal) == ["one"]
    assert agent.ends("one", 143).is_gone


def test_sidecars_do_not_outlive_the_grace_period() -> None:
    """When the grace period is over sidecars are signalled although others still run, and killed two seconds later."""
    agent = agent_of(inits=[container("proxy", restartPolicy="Always")], terminationGracePeriodSeconds=10)
    agent.is_deleted().taken()
    agent.wait_until_due()
    assert (names(agent.did, Kill), names(agent.taken(), Signal)) == (["main"], ["proxy"])
    assert agent.wait_until_due() == 2
    assert names(agent.did, Kill) == ["proxy"]


def test_a_pod_that_is_deleted_while_it_starts_is_ended_when_it_has_started() -> None:
    """A start under way is waited for, and then ended; nothing is left behind."""
    agent = PlayedAgent(pod_of())
    agent.starts_hang = True
    agent.settle().is_deleted()
    assert not agent.is_gone
    agent.start_ends()
    assert names(agent.did, Signal) == ["main"]
    assert agent.ends(code=143).is_gone


def test_a_pod_that_never_started_is_gone_at_once() -> None:
    """Without a run there is nothing to wait for."""
    assert held().is_deleted().is_gone


def test_a_clock_that_is_set_back_does_not_stretch_the_grace_period() -> None:
    """Who was signalled after the clock was set back has the grace period and no more."""
    agent = agent_of(terminationGracePeriodSeconds=12)
    agent.row = replace(agent.row, metadata=replace(agent.row.metadata, deleted_at=agent.now + 3600))
    agent.settle()
    assert names(agent.taken(), Signal) == ["main"]
    assert agent.wait_until_due() == 12
    assert names(agent.taken(), Kill) == ["main"]
