"""What holds of a pod of real processes whatever happens to it, and whenever the server ends."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from grove_server.resources.containers import ContainerStatus
from grove_server.resources.workload import PodPhase
from grove_server.runtime.process.observation import NEVER, HookKind
from grove_server.runtime.process.pod_plan import ProbeKind
from tests.unit.runtime.process.played import PlayedAgent, container, pod_of
from tests.unit.runtime.simulated import node

PROBES = st.fixed_dictionaries(
    {},
    optional={
        f"{kind}Probe": st.fixed_dictionaries(
            {"tcpSocket": st.just({"port": 80}), "periodSeconds": st.integers(1, 20)},
            optional={"failureThreshold": st.integers(1, 3), "initialDelaySeconds": st.integers(0, 20)},
        )
        for kind in ProbeKind
    },
)
HOOKS = st.fixed_dictionaries(
    {}, optional={name: st.just({"sleep": {"seconds": 3}}) for name in (HookKind.POST_START, HookKind.PRE_STOP)}
)
MAINS = st.lists(st.tuples(PROBES, HOOKS), min_size=1, max_size=3)
INITS = st.lists(st.one_of(st.none(), st.tuples(PROBES, HOOKS)), max_size=2)


class PodLife(RuleBasedStateMachine):
    """One pod, its played processes, and a world that is not kind to it.

    The played agent itself complains of a second start while one is under way or a run lives, of a start of a pod that
    stops, of actions for runs that have ended, and of a course that does not come to rest.
    """

    @initialize(
        mains=MAINS,
        inits=INITS,
        policy=st.sampled_from(["Always", "OnFailure", "Never"]),
        grace_s=st.integers(0, 30),
        is_ordered=st.booleans(),
    )
    def bind(self, mains: list[Any], inits: list[Any], policy: str, grace_s: int, is_ordered: bool) -> None:
        """Bind a pod of any shape; an init container of None runs to its end, others are sidecars."""
        containers = [container(f"m{n}", lifecycle=hooks, **probes) for n, (probes, hooks) in enumerate(mains)]
        firsts = [
            container(f"i{n}")
            if shape is None
            else container(f"i{n}", restartPolicy="Always", lifecycle=shape[1], **shape[0])
            for n, shape in enumerate(inits)
        ]
        subject = pod_of(*containers, inits=firsts, restartPolicy=policy, terminationGracePeriodSeconds=grace_s)
        self.agent = PlayedAgent(replace(subject, is_ordered=is_ordered))
        self.before: dict[str, ContainerStatus] = {}
        self.agent.settle()

    @property
    def alive(self) -> bool:
        """Whether there is a pod to do something with."""
        return not self.agent.is_gone

    @precondition(lambda self: self.alive and self.agent.live_names)
    @rule(data=st.data(), code=st.sampled_from([0, 1, 137]), is_seen=st.booleans())
    def end(self, data: st.DataObject, code: int, is_seen: bool) -> None:
        """A process ends, with the server there or away."""
        name = data.draw(st.sampled_from(self.agent.live_names))
        if is_seen:
            self.agent.ends(name, code)
        else:
            self.agent.ends_unseen(name, code).forget().settle()

    @precondition(lambda self: not self.alive)
    @rule()
    def be_gone(self) -> None:
        """Nothing happens any more."""
        assert self.agent.live_names == []

    @precondition(lambda self: self.alive)
    @rule()
    def crash(self) -> None:
        """The server ends, and another takes over."""
        self.agent.forget().settle()

    @precondition(lambda self: self.alive and not self.agent.starts_hang)
    @rule()
    def crash_before_the_last_write(self) -> None:
        """The server ends before its last write; the new one finds the older row beside the runs."""
        self.agent.lose_last_write().settle()

    @precondition(lambda self: self.alive and any(seen.asking for seen in self.agent.seen.values()))
    @rule(data=st.data(), success=st.booleans())
    def answer(self, data: st.DataObject, success: bool) -> None:
        """A probe answers."""
        asked = [
            (name, kind)
            for name, seen in self.agent.seen.items()
            if seen.live is not None
            for kind in sorted(seen.asking)
        ]
        if asked:
            name, kind = data.draw(st.sampled_from(asked))
            self.agent.answers(kind, success=success, name=name)

    @precondition(lambda self: self.alive)
    @rule(data=st.data(), failure=st.sampled_from(["", "exit code 1"]))
    def end_hook(self, data: st.DataObject, failure: str) -> None:
        """A hook ends, well or not."""
        running = [
            (name, kind)
            for name, seen in self.agent.seen.items()
            for kind, hook in ((HookKind.POST_START, seen.post_start), (HookKind.PRE_STOP, seen.pre_stop))
            if hook is not None and hook.done_at is None and seen.live is not None
        ]
        if running:
            name, kind = data.draw(st.sampled_from(running))
            self.agent.hook_ends(kind, failure, name=name)

    @precondition(lambda self: self.alive)
    @rule(duration_s=st.floats(0.1, 700))
    def wait(self, duration_s: float) -> None:
        """Time passes."""
        self.agent.wait(duration_s)

    @precondition(lambda self: self.alive)
    @rule(by_s=st.floats(0.1, 700))
    def set_the_clock_back(self, by_s: float) -> None:
        """Somebody sets the clock."""
        self.agent.wait(-by_s)

    @precondition(lambda self: self.alive and self.agent.due_at != NEVER)
    @rule()
    def wait_until_due(self) -> None:
        """The next thing becomes due."""
        self.agent.wait_until_due()

    @precondition(lambda self: self.alive and self.agent.row.is_held)
    @rule()
    def release(self) -> None:
        """Start order lets the pod start."""
        self.agent.released()

    @precondition(lambda self: self.alive)
    @rule(ready=st.booleans())
    def change_node(self, ready: bool) -> None:
        """The node becomes ready, or is not any more."""
        self.agent.node = node(ready=ready)
        self.agent.settle()

    @precondition(lambda self: self.alive and self.agent.row.metadata.deleted_at is None)
    @rule()
    def delete(self) -> None:
        """The pod is asked to stop."""
        self.agent.is_deleted()

    @invariant()
    def restarts_are_counted_up(self) -> None:
        """A restart count never goes down, and is the number of the latest run."""
        if not hasattr(self, "agent"):
            return
        for status in self.agent.row.containers:
            old = self.before.get(status.name)
            assert old is None or status.restart_count >= old.restart_count
        self.before = {status.name: status for status in self.agent.row.containers}

    @invariant()
    def readiness_implies_a_start(self) -> None:
        """A container that is ready runs and has started; a pod that is ready has only such containers."""
        if not hasattr(self, "agent"):
            return
        row = self.agent.row
        for status in row.containers:
            assert not status.is_ready or status.is_started
            assert not status.is_started or status.started_at is not None
        if row.is_ready:
            mains = [status for status in row.containers if not status.is_init]
            assert all(status.is_ready for status in mains)
            assert row.phase is PodPhase.RUNNING
            assert row.started_at is not None

    @invariant()
    def what_is_over_stays_over(self) -> None:
        """A pod that has failed or succeeded has no processes."""
        if hasattr(self, "agent") and self.agent.row.phase in (PodPhase.FAILED, PodPhase.SUCCEEDED):
            assert self.agent.live_names == []

    def teardown(self) -> None:
        """Whatever has happened: a pod that is deleted is gone once its processes have ended."""
        if not hasattr(self, "agent") or self.agent.is_gone:
            return
        agent = self.agent
        if agent.row.metadata.deleted_at is None:
            agent.is_deleted()
        for _ in range(20):
            if agent.is_gone:
                return
            if agent.due_at == NEVER:
                for name in agent.live_names:
                    agent.ends(name, 137)
            else:
                agent.wait_until_due()
        raise AssertionError(f"a deleted pod stays: {agent.live_names}, {agent.did[-5:]}")


PodLife.TestCase.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
TestPodLife = PodLife.TestCase
