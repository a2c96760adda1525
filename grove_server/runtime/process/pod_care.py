"""One pod of this machine in the care of its node agent: what is seen of its containers, and what is being done.

The course (``pod_course``) decides, this carries out: each action shows in what is seen before it begins, runs as a
task of its own, and shows again when it is done, which has the pod looked at anew. What is seen belongs to one run; an
answer that comes when there is another run already counts for nothing.

Rules:

* At most one start of a container is under way.
* A pod that is given up (its row is gone) starts nothing more; a start that was under way is killed when it arrives.
* Whatever fails unexpectedly is reported and leaves the pod to be looked at again.

Not here: when to look (``agent``), what to do (``pod_course``), how (``launching``, ``probing``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from grove_server.resources.meta import Condition, Key
from grove_server.resources.workload import Pod
from grove_server.runtime.interface import Clock
from grove_server.runtime.process.launching import Launcher
from grove_server.runtime.process.node_keeping import GPUS_IN_SERVICE, LIMITS_ENFORCED
from grove_server.runtime.process.observation import (
    Action,
    Ask,
    ContainerSeen,
    HookKind,
    HookSeen,
    Kill,
    PodSeen,
    RunHook,
    Signal,
    Start,
    StartFailure,
)
from grove_server.runtime.process.outfit import Outfitter
from grove_server.runtime.process.pod_course import probes_now
from grove_server.runtime.process.pod_plan import ContainerPlan, PodPlan
from grove_server.runtime.process.probes import due_at
from grove_server.runtime.process.probing import Prober
from grove_server.runtime.process.runs import HOSTS, LaunchError, Run
from grove_server.runtime.process.volumes import VolumeError
from grove_server.telemetry import metrics
from grove_server.telemetry.logs import get_logger

NAMES_RESOLVE: Final = "NamesResolve"

_LAUNCHER_AWAY: Final = "LauncherUnavailable"
# A launcher that died is started again at once; a start waits so long for it, so many times.
_LAUNCHER_WAIT_S: Final = 0.2
_LAUNCHER_TRIES: Final = 25

_log = get_logger("runtime")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What care needs: who starts and ends, who asks, who knows what a container gets; the time; a pod's row now."""

    launcher: Launcher
    prober: Prober
    outfitter: Outfitter
    clock: Clock
    row: Callable[[Key], Pod | None]


@dataclass(slots=True)
class PodCare:
    """What the agent holds of one pod.

    *changed* is called when something new is seen of it, *due* when it is to be looked at again at a moment although
    nothing new is seen.
    """

    key: Key
    uid: str
    plan: PodPlan
    tools: Tools
    changed: Callable[[Key], None]
    due: Callable[[Key, float], None]
    containers: dict[str, ContainerSeen] = field(default_factory=dict)
    limits_refused: dict[str, str] = field(default_factory=dict)
    broken_gpus: tuple[int, ...] = ()
    is_given_up: bool = False
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _starting: set[asyncio.Task[None]] = field(default_factory=set)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    # What is seen.

    @property
    def live_runs(self) -> tuple[Run, ...]:
        """The runs that have not ended."""
        return tuple(seen.live for seen in self.containers.values() if seen.live is not None)

    @property
    def is_busy(self) -> bool:
        """Whether anything of the pod runs or is being started."""
        return any(seen.is_starting or seen.live is not None for seen in self.containers.values())

    def take(self, run: Run) -> None:
        """Take over a run as it is now: one that was found at the start, or that has ended."""
        seen = self.containers.get(run.container)
        known = None if seen is None else seen.run
        if seen is not None and known is not None and known.key == run.key:
            # What was begun in this run is still of interest after its end.
            self.containers[run.container] = replace(seen, run=run)
        elif known is None or known.attempt < run.attempt:
            self.containers[run.container] = ContainerSeen.of(run)
        self._news.set()
        self.changed(self.key)

    def seen(self, pod: Pod) -> PodSeen:
        """Return what is seen of *pod* now."""
        return PodSeen(containers=dict(self.containers), conditions=tuple(self._conditions(pod)))

    def _conditions(self, pod: Pod) -> list[Condition]:
        found = []
        runs = [seen.run for seen in self.containers.values() if seen.run is not None]
        shortfalls = [(run, shortfall) for run in runs for shortfall in run.shortfalls]
        if runs:
            unnamed = sorted({shortfall.message for _, shortfall in shortfalls if shortfall.about == HOSTS})
            found.append(_condition(NAMES_RESOLVE, unnamed, "HostsFileMounted", "HostsFileRefused"))
        refused = {f"{run.container}: {short.message}" for run, short in shortfalls if short.about != HOSTS}
        refused |= {f"{name}: {message}" for name, message in self.limits_refused.items()}
        missing = _limits_missing(self.plan, self.tools.outfitter.groups.enforced)
        if missing:
            refused.add(f"{missing} cannot be limited on this machine")
        if refused or _has_limits(self.plan):
            found.append(_condition(LIMITS_ENFORCED, sorted(refused), "ControlGroups", "LimitsRefused"))
        if self.broken_gpus:
            lost = [f"GPU {gpu_id} is out of service" for gpu_id in self.broken_gpus]
            found.append(_condition(GPUS_IN_SERVICE, lost, "AllInService", "GpusOutOfService"))
        elif pod.gpu_ids and any(each.type == GPUS_IN_SERVICE for each in pod.conditions):
            found.append(_condition(GPUS_IN_SERVICE, [], "AllInService", "GpusOutOfService"))
        return found

    # What is done.

    def act(self, action: Action) -> None:
        """Begin an action; what is seen says so when this returns."""
        seen = self.containers.get(action.container, ContainerSeen())
        now = self.tools.clock.now()
        if isinstance(action, Start):
            self.containers[action.container] = replace(seen, is_starting=True)
            self._spawn(self._start(action), self._starting)
            return
        run = seen.live
        if run is None or run.attempt != action.attempt:
            # It ended between the decision and now; that is seen at the next look.
            return
        match action:
            case RunHook():
                begun = HookSeen(began_at=now)
                is_stop = action.kind == HookKind.PRE_STOP
                seen = replace(seen, pre_stop=begun) if is_stop else replace(seen, post_start=begun)
                self._spawn(self._run_hook(run, action), self._tasks)
            case Signal():
                self.tools.launcher.signal(run, action.number)
                seen = replace(seen, signalled_at=now)
            case Kill():
                seen = replace(seen, killed_at=now)
                self._spawn(self._kill(run), self._tasks)
            case Ask():
                seen = replace(seen, asking=seen.asking | {action.probe.kind})
                self._spawn(self._ask(run, action, now), self._tasks)
        self.containers[action.container] = seen

    async def end(self, grace_s: float, *, comes_again: bool = False) -> None:
        """End everything of the pod in good order, within *grace_s*; return when nothing of it is left.

        *comes_again*: the next server is to start the pod anew, as if nothing had happened to it.
        """
        self.is_given_up = True
        await _settled(self._starting)
        if comes_again:
            for run in self.live_runs:
                self.tools.launcher.mark_stopped(run)
        if grace_s > 0 and self.live_runs:
            try:
                async with asyncio.timeout(min(grace_s, self.plan.grace_s)):
                    await asyncio.gather(*(self._ask_to_end(run) for run in self.live_runs))
                    await self._ended()
            except TimeoutError:
                _log.info("pod_killed", pod=self.key.name, namespace=self.key.namespace)
        for run in self.live_runs:
            await self.tools.launcher.kill(run)
        self.cancel()

    async def pause(self) -> None:
        """Begin nothing more and let go of what is under way; what runs goes on."""
        self.is_given_up = True
        await _settled(self._starting)
        self.cancel()

    def cancel(self) -> None:
        """Give up what is under way, starts excepted."""
        for task in self._tasks:
            task.cancel()

    async def _ask_to_end(self, run: Run) -> None:
        container = self.plan.container(run.container)
        if container.pre_stop is not None:
            await self.tools.prober.run_hook(run, container.pre_stop, timeout_s=self.plan.grace_s)
        self.tools.launcher.signal(run, container.stop_signal)

    async def _ended(self) -> None:
        while self.live_runs:
            self._news.clear()
            await self._news.wait()

    async def _start(self, action: Start) -> None:
        name = action.container
        try:
            outcome = await self._launched(action)
        except BaseException:
            self.containers[name] = replace(self.containers[name], is_starting=False)
            raise
        if isinstance(outcome, StartFailure):
            self.containers[name] = replace(self.containers[name], is_starting=False, failure=outcome)
            self.changed(self.key)
            return
        metrics.CONTAINER_STARTS.labels("started").inc()
        if action.attempt:
            metrics.CONTAINER_RESTARTS.inc()
        known = self.containers[name].run
        if known is not None and known.key == outcome.key:
            # It ended before its start was answered.
            self.containers[name] = replace(self.containers[name], is_starting=False)
        else:
            self.containers[name] = ContainerSeen.of(outcome)
        self.changed(self.key)

    async def _launched(self, action: Start) -> Run | StartFailure:
        pod = self.tools.row(self.key)
        if pod is None or pod.metadata.uid != self.uid or self.is_given_up:
            return self._failure(action, "the pod is gone", "PodGone")
        container = self.plan.container(action.container)
        try:
            order, problems = self.tools.outfitter.order(pod, container, action.attempt)
        except VolumeError as error:
            return self._failure(action, str(error), "VolumeRefused")
        if problems:
            self.limits_refused[container.name] = "; ".join(problems)
        else:
            self.limits_refused.pop(container.name, None)
        tries = 0
        while True:
            try:
                return await self.tools.launcher.launch(order)
            except LaunchError as error:
                tries += 1
                if error.reason != _LAUNCHER_AWAY or tries == _LAUNCHER_TRIES or self.is_given_up:
                    return self._failure(action, f"{error.reason}: {error.message}", error.reason)
            await self.tools.clock.sleep(_LAUNCHER_WAIT_S)

    def _failure(self, action: Start, message: str, outcome: str) -> StartFailure:
        metrics.CONTAINER_STARTS.labels(outcome).inc()
        return StartFailure(attempt=action.attempt, at=self.tools.clock.now(), message=message)

    async def _run_hook(self, run: Run, action: RunHook) -> None:
        failure = await self.tools.prober.run_hook(run, action.action, timeout_s=action.timeout_s)
        metrics.HOOKS.labels(action.kind, "failed" if failure else "done").inc()
        seen = self._of(run)
        if seen is None:
            return
        done = self.tools.clock.now()
        if action.kind == HookKind.PRE_STOP and seen.pre_stop is not None:
            seen = replace(seen, pre_stop=replace(seen.pre_stop, done_at=done, failure=failure))
        elif seen.post_start is not None:
            seen = replace(seen, post_start=replace(seen.post_start, done_at=done, failure=failure))
        self.containers[run.container] = seen
        self.changed(self.key)

    async def _kill(self, run: Run) -> None:
        await self.tools.launcher.kill(run)
        self.changed(self.key)

    async def _ask(self, run: Run, action: Ask, asked_at: float) -> None:
        probe = action.probe
        with metrics.PROBE_SECONDS.labels(probe.kind.value).time():
            result = await self.tools.prober.ask(run, probe)
        if result is None:
            # It could not be asked, which is nobody's verdict.
            await self.tools.clock.sleep(_LAUNCHER_WAIT_S)
            if (unasked := self._of(run)) is not None:
                self.containers[run.container] = replace(unasked, asking=unasked.asking - {probe.kind})
                self.changed(self.key)
            return
        metrics.PROBES.labels(probe.kind.value, "success" if result.is_success else "failure").inc()
        seen, pod = self._of(run), self.tools.row(self.key)
        if seen is None or pod is None or pod.metadata.uid != self.uid:
            return
        probes = probes_now(pod, run.container, seen)
        now = self.tools.clock.now()
        told = probes.told(probe, result, asked_at=asked_at, now=now)
        self.containers[run.container] = replace(seen, probes=told, asking=seen.asking - {probe.kind})
        if told.of(probe.kind).verdict == probes.of(probe.kind).verdict:
            # Most answers are the same as the one before; all that follows is the next question.
            self.due(self.key, due_at(told.of(probe.kind), probe, run.started_at, now))
        else:
            self.changed(self.key)

    def _of(self, run: Run) -> ContainerSeen | None:
        """Return what is seen of *run*; None if there is a later one."""
        seen = self.containers.get(run.container)
        return seen if seen is not None and seen.run is not None and seen.run.key == run.key else None

    def _spawn(self, work: Coroutine[Any, Any, None], tasks: set[asyncio.Task[None]]) -> None:
        task = asyncio.create_task(work, name=f"pod {self.key.namespace}/{self.key.name}")
        tasks.add(task)

        def finished(done: asyncio.Task[None]) -> None:
            tasks.discard(done)
            if done.cancelled():
                return
            error = done.exception()
            if error is not None:
                metrics.INTERNAL_ERRORS.labels("process-runtime").inc()
                _log.error("pod_action_failed", pod=self.key.name, namespace=self.key.namespace, exc_info=error)
                self.changed(self.key)

        task.add_done_callback(finished)


async def _settled(tasks: set[asyncio.Task[None]]) -> None:
    while tasks:
        await asyncio.wait(list(tasks))
        # Their callbacks take them out of the set.
        await asyncio.sleep(0)


def _condition(type_: str, problems: list[str], good: str, bad: str) -> Condition:
    return Condition(
        type=type_,
        status="False" if problems else "True",
        reason=bad if problems else good,
        message="; ".join(problems),
    )


def _has_limits(plan: PodPlan) -> bool:
    return any(_limited(container) for container in plan.all_containers)


def _limited(container: ContainerPlan) -> Mapping[str, int]:
    amounts = {"memory": container.memory_bytes_max, "cpu": container.cpu_milli_max}
    return {name: amount for name, amount in amounts.items() if amount is not None}


def _limits_missing(plan: PodPlan, enforced: tuple[str, ...]) -> str:
    wanted = {name for container in plan.all_containers for name in _limited(container)}
    return " and ".join(sorted(wanted - set(enforced)))
