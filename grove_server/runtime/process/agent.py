"""The process runtime: the node agent of this machine, whose pods are real processes.

One loop. Changes of rows, ends of runs, answers of probes and moments that have come mark pods for a look; a look asks
``pod_course.advance`` what is to be done, carries that out and writes what is true. Writes of one round go to the store
together; each carries the version it was decided on, and its own notice marks the pod again.

Rules:

* Level-triggered: what to do follows from rows and from runs on disk. The server may be killed at any point; the next
  one adopts the runs that are there and goes on, with the same processes.
* A pod whose row is gone has no processes: whatever of it still runs is ended at once, also after a restart.
* A pod that has a GPU which is out of service goes on while its processes do; once they end, it has failed, so that its
  clique makes another one, on other GPUs.
* A slice of a round handles at most ``_LOOKS_PER_SLICE`` pods and then lets others run.

Not here: what happens next (``pod_course``), carrying it out (``pod_care``), the node's row (``node_keeping``).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from grove_server.lifecycle.plan import EVENT_NORMAL, EVENT_WARNING, Note
from grove_server.resources.cluster import Node
from grove_server.resources.meta import Key, Kind, key_of
from grove_server.resources.workload import Pod, PodPhase
from grove_server.runtime.due_times import DueTimes
from grove_server.runtime.interface import Clock, PodsOnExit, RuntimeHealth
from grove_server.runtime.process.launching import Launcher
from grove_server.runtime.process.names import AddressesSpentError, LoopbackAddresses
from grove_server.runtime.process.node_keeping import LOOPBACK, NodeKeeper
from grove_server.runtime.process.observation import NEVER, Ask, Remark, Start
from grove_server.runtime.process.outfit import Outfitter, pinned
from grove_server.runtime.process.pod_care import PodCare, Tools
from grove_server.runtime.process.pod_course import advance
from grove_server.runtime.process.pod_plan import NodeFacts, PodPlan
from grove_server.runtime.process.pod_reading import read_plan
from grove_server.runtime.process.pod_renewal import anew, interruption_of, started_anew
from grove_server.runtime.process.probing import Prober
from grove_server.runtime.process.runs import Run
from grove_server.store.errors import StoreUnavailableError
from grove_server.store.interface import Applied, Change, ChangeType, Delete, Notice, Outcome, Put, Store
from grove_server.telemetry import metrics
from grove_server.telemetry.logs import get_logger

# A look costs some 100 µs, actions that are begun included: a slice stays under 5 ms.
_LOOKS_PER_SLICE: Final = 16
_LOST_RACE_RETRY_S: Final = 0.05
_RETRY_S: Final = 1.0
# How often a pod that could get no address, or a machine that refused its hosts file, is tried again.
_SPENT_RETRY_S: Final = 5.0

REASON_GPU: Final = "GpuOutOfService"
REASON_NO_ADDRESS: Final = "NoAddress"
REASON_HOSTS: Final = "HostsFileNotWritten"

_log = get_logger("runtime")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the agent is made of. *launcher* reports ends to the agent, which sets its ``on_end``."""

    launcher: Launcher
    prober: Prober
    outfitter: Outfitter
    addresses: LoopbackAddresses
    node: NodeKeeper
    facts: NodeFacts


async def _give_way() -> None:
    await asyncio.sleep(0)


def _look_away(commit: asyncio.Future[tuple[Outcome, ...]]) -> None:
    if not commit.cancelled():
        commit.exception()


class ProcessRuntime:
    """Runs the pods that are bound to this machine."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        *,
        parts: Parts,
        note: Callable[[Iterable[Note]], None],
        exit_grace_s: float,
        breathe: Callable[[], Awaitable[None]] = _give_way,
    ) -> None:
        """Work on *store*. Pods that are stopped with the server get at most *exit_grace_s* for it."""
        self._store = store
        self._clock = clock
        self._parts = parts
        self._note = note
        self._exit_grace_s = exit_grace_s
        self._breathe = breathe
        self._cares: dict[Key, PodCare] = {}
        self._by_uid: dict[str, PodCare] = {}
        self._reaping: dict[str, asyncio.Task[None]] = {}
        self._marked: dict[Key, None] = {}
        self._due = DueTimes()
        self._wake = asyncio.Event()
        self._unsubscribe: Callable[[], None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._problem = "not started"
        self._tools = Tools(
            launcher=parts.launcher, prober=parts.prober, outfitter=parts.outfitter, clock=clock, row=self._row
        )
        parts.launcher.on_end = self._take_end

    async def start(self) -> None:
        """Adopt the pods of the store with their runs, end what belongs to none, and begin to work."""
        if self._task is not None:
            return
        await self._parts.launcher.start()
        await self._parts.node.start()
        self._unsubscribe = self._store.subscribe(self._observe)
        await self._adopt_rows()
        await self._adopt_runs()
        self._problem = ""
        self._task = asyncio.create_task(self._run(), name="process-runtime")

    async def stop(self, *, pods: PodsOnExit = PodsOnExit.KEEP) -> None:
        """End all work; with STOP also every process of every pod."""
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
        if self._task is not None:
            task, self._task = self._task, None
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._problem = "stopped"
        await self._parts.node.stop()
        cares = list(self._cares.values())
        if pods is PodsOnExit.STOP:
            await asyncio.gather(*(care.end(self._exit_grace_s, comes_again=True) for care in cares))
            for care in cares:
                # Made anew at the next start; what is in their volumes is kept for it.
                self._parts.outfitter.groups.remove(care.uid)
        else:
            await asyncio.gather(*(care.pause() for care in cares))
        if self._reaping:
            await asyncio.wait(list(self._reaping.values()))
        await self._parts.launcher.stop()

    def health(self) -> RuntimeHealth:
        """Return whether the loop runs and the store takes its reports."""
        return RuntimeHealth(
            is_healthy=self._problem == "",
            message=self._problem,
            pod_count=len(self._cares),
            backlog_count=len(self._marked),
        )

    # What changed.

    def _mark(self, key: Key) -> None:
        self._marked[key] = None
        self._wake.set()

    def _hasten(self, key: Key, at: float) -> None:
        first_at = self._due.first_at
        self._due.hasten(key, at)
        if first_at is None or at < first_at:
            # The alarm is set for later.
            self._wake.set()

    def _observe(self, notices: Sequence[Notice]) -> None:
        for notice in notices:
            resource = notice.resource
            if isinstance(resource, Pod):
                key = key_of(resource)
                care = self._cares.get(key)
                is_gone = notice.kind is ChangeType.DELETED or not resource.node
                if care is not None and (is_gone or care.uid != resource.metadata.uid):
                    self._give_up(care)
                if not is_gone:
                    self._mark(key)
            elif isinstance(resource, Node):
                previous = notice.previous
                if not isinstance(previous, Node) or notice.kind is ChangeType.DELETED:
                    changed = True
                else:
                    changed = previous.ready != resource.ready or previous.broken_gpus != resource.broken_gpus
                if changed:
                    self._marked.update(dict.fromkeys(self._cares))
                    self._wake.set()

    def _take_end(self, run: Run) -> None:
        if run.ended is not None:
            metrics.CONTAINER_ENDS.labels(run.ended.reason).inc()
        care = self._by_uid.get(run.pod_uid)
        if care is not None:
            care.take(run)

    def _row(self, key: Key) -> Pod | None:
        return self._store.read().get(Pod, key.namespace, key.name)

    # Taking over and giving up.

    async def _adopt_rows(self) -> None:
        """Read all rows: addresses in use first, before any is given out."""
        pods = [pod for pod in self._store.read().list(Pod) if pod.node]
        there = {pod.metadata.uid for pod in pods}
        for care in [care for care in self._cares.values() if care.uid not in there]:
            self._give_up(care)
        for pod in pods:
            if pod.pod_ip:
                self._parts.addresses.adopt(pod.metadata.uid, pod.pod_ip)
        self._due = DueTimes()
        self._marked = {}
        for number, pod in enumerate(pods, start=1):
            key = key_of(pod)
            with contextlib.suppress(AddressesSpentError):
                self._care(key, pod)
            self._mark(key)
            if number % _LOOKS_PER_SLICE == 0:
                await self._breathe()

    async def _adopt_runs(self) -> None:
        """Give each run on disk to its pod; what belongs to no pod is ended and removed."""
        runs: dict[str, list[Run]] = {}
        for run in self._parts.launcher.adopt():
            runs.setdefault(run.pod_uid, []).append(run)
        strangers = {uid: found for uid, found in runs.items() if uid not in self._by_uid}
        renewed = await self._renew({uid: found for uid, found in runs.items() if uid in self._by_uid})
        for uid, found in runs.items():
            if uid not in strangers and uid not in renewed:
                for run in found:
                    self._by_uid[uid].take(run)
        outfitter = self._parts.outfitter
        uids = strangers.keys() | outfitter.volumes.leftovers() | outfitter.groups.leftovers()
        for uid in sorted(uids - self._by_uid.keys()):
            self._reap(uid, None, strangers.get(uid, []))

    async def _renew(self, runs: Mapping[str, Sequence[Run]]) -> set[str]:
        """Let pods start anew whose runs ended with the last server, or with the machine; return their uids.

        Their records go only once the row is written: a server that is killed in between comes here again.
        """
        changes: dict[Key, tuple[str, Put]] = {}
        for uid, found in runs.items():
            care = self._by_uid[uid]
            pod = self._row(care.key)
            reason = interruption_of(found)
            row = None if pod is None or not reason else anew(pod, care.plan, reason=reason, now=self._clock.now())
            if pod is not None and row is not None:
                changes[care.key] = uid, Put(row, pod.resource_version)
        if not changes:
            return set()
        outcomes = await self._store.commit_soon(
            [change for _, change in changes.values()], atomic=False, cause="runtime"
        )
        renewed: set[str] = set()
        for outcome in outcomes:
            uid, change = changes[outcome.key]
            if isinstance(outcome, Applied) and isinstance(change.resource, Pod):
                self._parts.launcher.forget(uid)
                self._tell(change.resource, started_anew(interruption_of(runs[uid])))
                renewed.add(uid)
        return renewed

    def _care(self, key: Key, pod: Pod) -> PodCare:
        """Return the care of *pod*, which begins with an address and a plan. Raises AddressesSpentError."""
        care = self._cares.get(key)
        if care is None:
            address = pod.pod_ip or self._parts.addresses.assign(pod.metadata.uid)
            care = PodCare(
                key=key,
                uid=pod.metadata.uid,
                plan=self._plan(pod, address),
                tools=self._tools,
                changed=self._mark,
                due=self._hasten,
            )
            self._cares[key] = care
            self._by_uid[care.uid] = care
            self._parts.outfitter.hosts.add(key, pod, address)
        return care

    def _plan(self, pod: Pod, address: str) -> PodPlan:
        # What the node offers may change, and containers that start later are told what it offers then.
        node = self._store.read().get(Node, "", pod.node)
        facts = self._parts.facts if node is None else replace(self._parts.facts, allocatable=node.allocatable)
        plan = read_plan(pod, replace(facts, name=pod.node, address=LOOPBACK), pod_ip=address)
        return pinned(plan, self._parts.node.roster)

    def _give_up(self, care: PodCare) -> None:
        """Let go of a pod whose row is gone: end what is left of it, and forget it."""
        care.is_given_up = True
        self._cares.pop(care.key, None)
        self._marked.pop(care.key, None)
        self._due.drop(care.key)
        self._parts.outfitter.hosts.remove(care.key)
        self._reap(care.uid, care, [])

    def _reap(self, uid: str, care: PodCare | None, runs: Sequence[Run]) -> None:
        if uid in self._reaping:
            return
        task = asyncio.create_task(self._reaped(uid, care, runs), name=f"reap pod {uid}")
        self._reaping[uid] = task

        def finished(done: asyncio.Task[None]) -> None:
            self._reaping.pop(uid, None)
            if not done.cancelled() and (error := done.exception()) is not None:
                # Nothing is lost: the next start of the server finds what is left on disk.
                metrics.INTERNAL_ERRORS.labels("process-runtime").inc()
                _log.error("pod_not_reaped", uid=uid, exc_info=error)

        task.add_done_callback(finished)

    async def _reaped(self, uid: str, care: PodCare | None, runs: Sequence[Run]) -> None:
        launcher = self._parts.launcher
        if care is not None:
            await care.end(0)
        for run in runs:
            if run.ended is None:
                _log.warning("run_without_pod_ended", pod=run.pod_name, namespace=run.namespace, pid=run.pid)
                await launcher.kill(run)
        self._by_uid.pop(uid, None)
        launcher.forget(uid)
        # The address is free only now: until here somebody may still have listened on it.
        self._parts.addresses.release(uid)
        await asyncio.to_thread(self._parts.outfitter.discard, uid)

    # The loop.

    async def _run(self) -> None:
        while True:
            try:
                await self._work()
            except StoreUnavailableError as error:
                self._problem = f"the store takes no reports: {error}"
                _log.warning("process_runtime_reports_refused", error=str(error), retry_s=_RETRY_S)
            except Exception as error:  # noqa: BLE001 -- a supervised loop: it reports, pauses and starts anew
                metrics.INTERNAL_ERRORS.labels("process-runtime").inc()
                self._problem = f"failed on {type(error).__name__}"
                _log.exception("process_runtime_failed", retry_s=_RETRY_S)
            await self._clock.sleep(_RETRY_S)
            await self._adopt_rows()

    async def _work(self) -> None:
        while True:
            await self._tick()
            self._problem = ""
            await self._rest()

    async def _tick(self) -> None:
        now = self._clock.now()
        self._wake.clear()
        self._marked.update(dict.fromkeys(self._due.take(now)))
        work, self._marked = list(self._marked), {}
        commits: list[asyncio.Future[tuple[Outcome, ...]]] = []
        for start in range(0, len(work), _LOOKS_PER_SLICE):
            changes = self._look(work[start : start + _LOOKS_PER_SLICE], now)
            if changes:
                commit = self._store.commit_soon(changes, atomic=False, cause="runtime")
                commit.add_done_callback(_look_away)
                commits.append(commit)
            await self._breathe()
        if commits:
            # Not gather: a cancelled round must not cancel the store's futures.
            await asyncio.wait(commits)
        for commit in commits:
            for outcome in commit.result():
                if not isinstance(outcome, Applied) and outcome.key in self._cares:
                    self._due.set(outcome.key, now + _LOST_RACE_RETRY_S)

    def _look(self, keys: Iterable[Key], now: float) -> list[Change]:
        """Return what is to be written for the marked pods; begin what is to be done."""
        changes: list[Change] = []
        starts: list[tuple[PodCare, Start]] = []
        for key in keys:
            pod = self._row(key)
            if pod is None or not pod.node:
                continue
            try:
                care = self._care(key, pod)
            except AddressesSpentError as error:
                self._tell(pod, Remark(reason=REASON_NO_ADDRESS, message=str(error)))
                self._due.set(key, now + _SPENT_RETRY_S)
                continue
            change = self._look_at(care, pod, now, starts)
            if change is not None:
                changes.append(change)
        if starts:
            self._write_hosts(starts)
            for care, start in starts:
                care.act(start)
                self._mark(care.key)
        return changes

    def _look_at(self, care: PodCare, pod: Pod, now: float, starts: list[tuple[PodCare, Start]]) -> Change | None:
        node = self._store.read().get(Node, "", pod.node)
        self._see_gpus(care, pod, node)
        failed = self._failed_for_gpus(care, pod, now)
        if failed is not None:
            return Put(failed, pod.resource_version)
        address = pod.pod_ip or self._parts.addresses.assign(care.uid)
        step = advance(pod, care.plan, care.seen(pod), node, pod_ip=address, now=now)
        for remark in step.remarks:
            self._tell(pod, remark)
        for action in step.actions:
            if isinstance(action, Start):
                starts.append((care, action))
            else:
                care.act(action)
                if not isinstance(action, Ask):
                    # What comes after it may be due at a moment; after a question comes its answer.
                    self._mark(care.key)
        if step.due_at != NEVER:
            self._due.set(care.key, step.due_at)
        if step.is_gone:
            return Delete(care.key, pod.resource_version)
        return None if step.pod is None else Put(step.pod, pod.resource_version)

    def _see_gpus(self, care: PodCare, pod: Pod, node: Node | None) -> None:
        broken = () if node is None else tuple(sorted(set(pod.gpu_ids) & set(node.broken_gpus)))
        if broken == care.broken_gpus:
            return
        care.broken_gpus = broken
        if broken:
            words = ", ".join(map(str, broken))
            message = f"GPU {words} of the pod is out of service; when its processes end, it is replaced"
            self._tell(pod, Remark(reason=REASON_GPU, message=message))

    def _failed_for_gpus(self, care: PodCare, pod: Pod, now: float) -> Pod | None:
        """Return the row of a pod that could only start again on a broken GPU; None if that is not so."""
        if not care.broken_gpus or pod.is_terminating or pod.phase in (PodPhase.FAILED, PodPhase.SUCCEEDED):
            return None
        mains = [care.containers.get(container.name) for container in care.plan.containers]
        if any(seen is not None and (seen.is_starting or seen.live is not None) for seen in mains):
            return None
        return replace(
            pod,
            phase=PodPhase.FAILED,
            ready_at=None,
            unready_at=pod.unready_at if pod.ready_at is None else now,
            started_at=None,
            finished_at=now,
            waiting_reason=REASON_GPU,
            waiting_message=f"GPU {', '.join(map(str, care.broken_gpus))} of the pod is out of service",
        )

    def _write_hosts(self, starts: Sequence[tuple[PodCare, Start]]) -> None:
        """Bring the hosts files up to date before anything starts that may ask for a name."""
        try:
            self._parts.outfitter.hosts.write()
        except OSError as error:
            _log.warning("hosts_not_written", error=str(error))
            for care, _ in starts:
                pod = self._row(care.key)
                if pod is not None:
                    message = f"names of other pods may not resolve: {error.filename}: {error.strerror}"
                    self._tell(pod, Remark(reason=REASON_HOSTS, message=message))

    def _tell(self, pod: Pod, remark: Remark) -> None:
        metadata = pod.metadata
        note = Note(
            kind=Kind.POD,
            namespace=metadata.namespace,
            name=metadata.name,
            uid=metadata.uid,
            reason=remark.reason,
            message=remark.message,
            type=EVENT_WARNING if remark.is_warning else EVENT_NORMAL,
        )
        self._note((note,))

    async def _rest(self) -> None:
        """Wait until something changes or is due."""
        if self._marked:
            return
        hosts = self._parts.outfitter.hosts
        if hosts.is_stale:
            self._write_hosts(())
        first_at = self._due.first_at
        if first_at is None:
            await self._wake.wait()
            return
        alarm = asyncio.create_task(self._clock.sleep_until(first_at), name="process-runtime-alarm")
        alarm.add_done_callback(lambda rung: None if rung.cancelled() else self._wake.set())
        try:
            await self._wake.wait()
        finally:
            alarm.cancel()
