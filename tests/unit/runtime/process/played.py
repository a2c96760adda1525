"""A node agent whose processes are played: it carries out what the course of a pod asks for, in virtual time.

It keeps what a real agent keeps, the row as a store would, and the runs as the disk would; ``forget`` is the end of the
server: all but row and runs is lost. It complains at once of what no agent may be asked for.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from grove_server.resources.cluster import Node
from grove_server.resources.containers import ContainerStatus
from grove_server.resources.workload import Pod
from grove_server.runtime.process.observation import (
    NEVER,
    Action,
    Ask,
    ContainerSeen,
    HookKind,
    HookSeen,
    Kill,
    PodSeen,
    Remark,
    RunHook,
    Signal,
    Start,
    StartFailure,
)
from grove_server.runtime.process.pod_course import advance, probes_now
from grove_server.runtime.process.pod_plan import NodeFacts, PodPlan, ProbeKind
from grove_server.runtime.process.pod_reading import read_plan
from grove_server.runtime.process.probes import ProbeResult
from grove_server.runtime.process.runs import Ended, Run
from tests.unit.runtime.simulated import EPOCH_S, node, pod, template

POD_IP = "127.64.0.1"
FACTS = NodeFacts(
    name="n0", address="192.0.2.1", allocatable={"cpu": "8", "memory": "16Gi"}, environment={"PATH": "/usr/bin:/bin"}
)
# A course that has not come to rest after so many looks at one moment never will.
_LOOKS_MAX = 100


def container(name: str = "main", **fields: Any) -> dict[str, Any]:  # noqa: ANN401 -- any field of a container
    """Return a container that sleeps."""
    return {"name": name, "command": ["sleep", "inf"], **fields}


def pod_of(*containers: dict[str, Any], inits: list[dict[str, Any]] | None = None, **spec: Any) -> Pod:  # noqa: ANN401 -- any field of a pod spec
    """Return a pod that was just bound, with the given containers."""
    fields = {"containers": list(containers) or [container()], **spec}
    if inits:
        fields["initContainers"] = inits
    return pod(template=template(**fields))


def plan_of(subject: Pod) -> PodPlan:
    """Return what *subject* runs on the played machine."""
    return read_plan(subject, FACTS, pod_ip=POD_IP)


class PlayedAgent:
    """Leads one pod through its life."""

    def __init__(self, subject: Pod, *, now: float = EPOCH_S + 10) -> None:
        self.row = self.row_before = subject
        self.plan = plan_of(subject)
        self.node: Node | None = node(address="192.0.2.1")
        self.now = now
        self.is_gone = False
        self.due_at = NEVER
        self.runs: dict[str, list[Run]] = {}
        self.seen: dict[str, ContainerSeen] = {}
        self.did: list[Action] = []
        self.remarks: list[Remark] = []
        self.starts_hang = False

    # What the agent does.

    def settle(self) -> PlayedAgent:
        """Look at the pod and carry out what is asked for until nothing more is asked for at this moment."""
        for _ in range(_LOOKS_MAX):
            if self.is_gone:
                return self
            seen = PodSeen(containers=dict(self.seen))
            step = advance(self.row, self.plan, seen, self.node, pod_ip=POD_IP, now=self.now)
            self.remarks += step.remarks
            self.due_at = step.due_at
            assert step.due_at > self.now
            for action in step.actions:
                self._carry_out(action)
            if step.is_gone:
                assert not step.actions
                assert not self.live_names
                self.is_gone = True
            elif step.pod is not None:
                assert step.pod != self.row
                assert not any(isinstance(action, Start) for action in step.actions)
                self.row_before, self.row = self.row, step.pod
            elif not step.actions:
                return self
        raise AssertionError(f"the course does not come to rest: {self.did[-5:]}")

    def wait(self, duration_s: float) -> PlayedAgent:
        """Let time pass and do what is due at its end."""
        self.now += duration_s
        return self.settle()

    def wait_until_due(self) -> float:
        """Let time pass until something is due, do it, and return how long that took."""
        assert self.due_at != NEVER
        waited = self.due_at - self.now
        self.now = self.due_at
        self.settle()
        return waited

    def forget(self) -> PlayedAgent:
        """Be a new server on the same row and the same runs."""
        self.seen = {name: ContainerSeen.of(runs[-1]) for name, runs in self.runs.items()}
        return self

    def lose_last_write(self) -> PlayedAgent:
        """Be a new server that finds the row as it was before the last write of the old one."""
        last, before = self.row, self.row_before
        is_only_ours = last.metadata == before.metadata and last.released_at == before.released_at
        if is_only_ours and last.finished_at is None:
            self.row = before
        return self.forget()

    # What happens to it.

    def ends(self, name: str = "main", code: int = 0, *, signal: int | None = None) -> PlayedAgent:
        """Let the present run of a container end."""
        run = self.runs[name][-1]
        assert run.ended is None
        reason = "Completed" if code == 0 else "Error"
        ended = replace(run, ended=Ended(exit_code=code, signal=signal, finished_at=self.now, reason=reason))
        self.runs[name][-1] = ended
        if name in self.seen:
            self.seen[name] = replace(self.seen[name], run=ended)
        return self.settle()

    def ends_unseen(self, name: str = "main", code: int = 0) -> PlayedAgent:
        """Let the present run of a container end while no server runs."""
        run = self.runs[name][-1]
        self.runs[name][-1] = replace(
            run, ended=Ended(exit_code=code, signal=None, finished_at=self.now, reason="Error" if code else "Completed")
        )
        return self

    def answers(self, kind: ProbeKind, *, success: bool, name: str = "main") -> PlayedAgent:
        """Let the probe that is being asked answer now."""
        seen = self.seen[name]
        assert kind in seen.asking, (kind, seen)
        probe = next(probe for probe in self.plan.container(name).probes if probe.kind is kind)
        result = ProbeResult(is_success=success, message="" if success else "it says no")
        states = probes_now(self.row, name, seen).told(probe, result, asked_at=self.now, now=self.now)
        self.seen[name] = replace(seen, probes=states, asking=seen.asking - {kind})
        return self.settle()

    def hook_ends(self, kind: str, failure: str = "", *, name: str = "main") -> PlayedAgent:
        """Let the hook that runs end."""
        seen = self.seen[name]
        hook = seen.post_start if kind == HookKind.POST_START else seen.pre_stop
        assert hook is not None
        done = replace(hook, done_at=self.now, failure=failure)
        change = {"post_start": done} if kind == HookKind.POST_START else {"pre_stop": done}
        self.seen[name] = replace(seen, **change)  # type: ignore[arg-type]  # one of two fields of the same type
        return self.settle()

    def start_ends(self, name: str = "main", failure: str = "") -> PlayedAgent:
        """Let a start that hangs come to its end."""
        action = next(a for a in reversed(self.did) if isinstance(a, Start) and a.container == name)
        self.seen[name] = replace(self.seen[name], is_starting=False)
        self._started(action, failure)
        return self.settle()

    def is_deleted(self) -> PlayedAgent:
        """Ask the pod to stop, as its row says."""
        self.row = replace(self.row, metadata=replace(self.row.metadata, deleted_at=self.now))
        return self.settle()

    def released(self) -> PlayedAgent:
        """Let start order allow the pod to start, as its row says."""
        self.row = replace(self.row, released_at=self.now, waiting_reason="", waiting_message="")
        return self.settle()

    # What is true.

    @property
    def live_names(self) -> list[str]:
        """The containers that run."""
        return [name for name, runs in self.runs.items() if runs[-1].ended is None]

    def status(self, name: str = "main") -> ContainerStatus:
        """Return what the row says of a container."""
        return next(status for status in self.row.containers if status.name == name)

    def taken(self) -> list[Action]:
        """Return what was done since the last time this was asked."""
        done, self.did = self.did, []
        return done

    def _carry_out(self, action: Action) -> None:
        self.did.append(action)
        name = action.container
        seen = self.seen.get(name, ContainerSeen())
        if isinstance(action, Start):
            assert self.row.metadata.deleted_at is None, "a pod that stops is not started"
            assert not seen.is_starting, "a start is under way"
            runs = self.runs.get(name, [])
            assert not runs or runs[-1].ended is not None, "it runs already"
            assert action.attempt == (runs[-1].attempt + 1 if runs else 0) or seen.failure or self.status(name).has_run
            if self.starts_hang:
                self.seen[name] = replace(seen, is_starting=True)
            else:
                self._started(action)
            return
        run = self.runs[name][-1]
        assert run.ended is None
        assert run.attempt == action.attempt
        match action:
            case RunHook(kind=HookKind.POST_START):
                assert seen.post_start is None
                self.seen[name] = replace(seen, post_start=HookSeen(began_at=self.now))
            case RunHook():
                assert seen.pre_stop is None
                self.seen[name] = replace(seen, pre_stop=HookSeen(began_at=self.now))
            case Signal():
                assert seen.signalled_at is None
                self.seen[name] = replace(seen, signalled_at=self.now)
            case Kill():
                assert seen.killed_at is None
                self.seen[name] = replace(seen, killed_at=self.now)
            case Ask():
                assert action.probe.kind not in seen.asking
                self.seen[name] = replace(seen, asking=seen.asking | {action.probe.kind})

    def _started(self, action: Start, failure: str = "") -> None:
        name = action.container
        if failure:
            failed = StartFailure(attempt=action.attempt, at=self.now, message=failure)
            self.seen[name] = replace(self.seen.get(name, ContainerSeen()), failure=failed)
            return
        run = Run(
            pod_uid=self.row.metadata.uid,
            namespace="default",
            pod_name=self.row.metadata.name,
            container=name,
            attempt=action.attempt,
            keeper_pid=1,
            keeper_ticks=1,
            pid=2,
            pid_ticks=2,
            started_at=self.now,
        )
        self.runs.setdefault(name, []).append(run)
        self.seen[name] = ContainerSeen.of(run)


def probe(**fields: Any) -> dict[str, Any]:  # noqa: ANN401 -- any field of a probe
    """Return a probe that opens a connection."""
    return {"tcpSocket": {"port": 8000}, **fields}


def agent_of(*containers: dict[str, Any], **spec: Any) -> PlayedAgent:  # noqa: ANN401 -- any field of a pod spec
    """Return an agent that has done what is to be done at first."""
    return PlayedAgent(pod_of(*containers, **spec)).settle()


def names(actions: list[Action], sort: type[Action]) -> list[str]:
    """Return the containers of all actions of one sort, in order."""
    return [action.container for action in actions if isinstance(action, sort)]


def held(*containers: dict[str, Any]) -> PlayedAgent:
    """Return an agent of a pod whose clique starts after others."""
    return PlayedAgent(replace(pod_of(*containers), is_ordered=True)).settle()
