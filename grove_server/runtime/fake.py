"""The fake runtime: plays the kubelets of all nodes at once, without running anything.

One loop. Changes of pods and nodes mark pods for a look; waits (start and ready delays, crashes, back-offs, grace
periods) sit in a heap of due times. A tick looks at every marked pod, asks ``schedule.advance`` what becomes of it and
reports the answers in batches that go to the disk together. Each write carries the version it was decided on, and its
own notice marks the pod again, so there is nothing to remember about writes under way.

Rules:

* A slice of a tick handles at most ``_LOOKS_PER_SLICE`` pods and then lets others run.
* A tick ends when its writes are durable; pods bound meanwhile make the next tick's batch.
* A failure of the store ends the round: after a pause everything is read anew, and the rows say all there is to know.

Not here: what the annotations mean (``behaviour``), what happens next (``schedule``), why pods exist (lifecycle).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

from grove_server.lifecycle.plan import EVENT_WARNING, Note
from grove_server.resources.cluster import Node
from grove_server.resources.meta import Key, Kind, key_of
from grove_server.resources.workload import Pod
from grove_server.runtime.addresses import PodAddresses
from grove_server.runtime.behaviour import PREFIX, Behaviour, read_behaviour
from grove_server.runtime.due_times import DueTimes
from grove_server.runtime.interface import Clock, PodsOnExit, RuntimeHealth
from grove_server.runtime.schedule import NEVER, advance
from grove_server.store.errors import StoreUnavailableError
from grove_server.store.interface import Applied, Change, ChangeType, Delete, Notice, Outcome, Put, Store
from grove_server.telemetry import metrics
from grove_server.telemetry.logs import get_logger

# At some 40 µs per pod, the store's part included, a slice stays well under 5 ms.
_LOOKS_PER_SLICE: Final = 64
# A lost race is normally looked at again when the winner becomes visible; if the winner failed, after this time.
_LOST_RACE_RETRY_S: Final = 0.05
# How long to leave a store alone that refuses writes.
_RETRY_S: Final = 1.0
# Behaviours are kept per template; past this many the cache starts anew.
_BEHAVIOURS_MAX: Final = 10_000

REASON_BAD_ANNOTATION: Final = "FakeAnnotationInvalid"
REASON_EXITED: Final = "ContainersExited"

_log = get_logger("runtime")


async def _give_way() -> None:
    await asyncio.sleep(0)


def _look_away(commit: asyncio.Future[tuple[Outcome, ...]]) -> None:
    if not commit.cancelled():
        commit.exception()


class FakeRuntime:
    """Turns bound pods Running and Ready, and stopping pods into nothing, as their annotations say."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        *,
        note: Callable[[Iterable[Note]], None],
        breathe: Callable[[], Awaitable[None]] = _give_way,
    ) -> None:
        """Work on *store* in the time of *clock*.

        *note* takes what people should know of (crashes, unreadable annotations); *breathe* lets others run between
        two slices of work.
        """
        self._store = store
        self._clock = clock
        self._note = note
        self._breathe = breathe
        self._marked: dict[Key, None] = {}
        self._due = DueTimes()
        self._node_of: dict[Key, str] = {}
        self._pods_on: dict[str, dict[Key, None]] = {}
        self._addresses = PodAddresses()
        self._behaviours: dict[tuple[object, ...], Behaviour] = {}
        self._wake = asyncio.Event()
        self._unsubscribe: Callable[[], None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._problem = "not started"

    async def start(self) -> None:
        """Adopt the pods of the store and begin to work."""
        if self._task is not None:
            return
        self._unsubscribe = self._store.subscribe(self._observe)
        await self._adopt()
        self._problem = ""
        self._task = asyncio.create_task(self._run(), name="fake-runtime")

    async def stop(self, *, pods: PodsOnExit = PodsOnExit.KEEP) -> None:
        """End all work. Fake pods exist in the store alone, so there is nothing that *pods* could stop."""
        del pods
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
        if self._task is not None:
            task, self._task = self._task, None
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._problem = "stopped"

    def health(self) -> RuntimeHealth:
        """Return whether the loop runs and the store takes its reports."""
        return RuntimeHealth(
            is_healthy=self._problem == "",
            message=self._problem,
            pod_count=len(self._node_of),
            backlog_count=len(self._marked),
        )

    # What changed.

    def _observe(self, notices: Sequence[Notice]) -> None:
        for notice in notices:
            resource = notice.resource
            if isinstance(resource, Pod):
                if resource.node and notice.kind is not ChangeType.DELETED:
                    self._track(key_of(resource), resource.node)
                else:
                    self._forget(key_of(resource))
            elif isinstance(resource, Node):
                previous = notice.previous
                readiness = previous.ready if isinstance(previous, Node) else None
                if notice.kind is not ChangeType.MODIFIED or readiness != resource.ready:
                    self._marked.update(self._pods_on.get(resource.metadata.name, {}))
        if self._marked:
            self._wake.set()

    def _track(self, key: Key, node: str) -> None:
        if self._node_of.get(key) != node:
            self._forget(key)
            self._node_of[key] = node
            self._pods_on.setdefault(node, {})[key] = None
        self._marked[key] = None

    def _forget(self, key: Key) -> None:
        node = self._node_of.pop(key, None)
        if node is None:
            return
        pods = self._pods_on[node]
        del pods[key]
        if not pods:
            del self._pods_on[node]
        self._due.drop(key)
        self._marked.pop(key, None)
        self._addresses.release(key)

    async def _adopt(self) -> None:
        """Read everything anew: addresses in use first, before any is given out."""
        self._marked = {}
        self._due = DueTimes()
        self._node_of, self._pods_on = {}, {}
        self._addresses = PodAddresses()
        keys = [key_of(pod) for pod in self._store.read().list(Pod) if pod.node]
        for start in range(0, len(keys), _LOOKS_PER_SLICE):
            for key in keys[start : start + _LOOKS_PER_SLICE]:
                pod = self._store.read().get(Pod, key.namespace, key.name)
                if pod is None or not pod.node:
                    continue
                self._track(key, pod.node)
                if pod.pod_ip:
                    self._addresses.adopt(key, pod.node, pod.pod_ip)
            await self._breathe()

    # The loop.

    async def _run(self) -> None:
        while True:
            try:
                await self._work()
            except StoreUnavailableError as error:
                self._problem = f"the store takes no reports: {error}"
                _log.warning("fake_runtime_reports_refused", error=str(error), retry_s=_RETRY_S)
            except Exception as error:  # noqa: BLE001 -- a supervised loop: it reports, pauses and starts anew
                metrics.INTERNAL_ERRORS.labels("fake-runtime").inc()
                self._problem = f"failed on {type(error).__name__}"
                _log.exception("fake_runtime_failed", retry_s=_RETRY_S)
            await self._clock.sleep(_RETRY_S)
            await self._adopt()

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
            changes = self._decide(work[start : start + _LOOKS_PER_SLICE], now)
            if changes:
                commit = self._store.commit_soon(changes, atomic=False, cause="runtime")
                # One failed commit ends the tick; nobody then asks the others for their failure.
                commit.add_done_callback(_look_away)
                commits.append(commit)
            await self._breathe()
        if commits:
            # Not gather: a cancelled tick must not cancel the store's futures.
            await asyncio.wait(commits)
        for commit in commits:
            self._settle(commit.result(), now)

    def _decide(self, keys: Iterable[Key], now: float) -> list[Change]:
        """Return what is to be written for the marked pods; note when to look again at the others."""
        reader = self._store.read()
        changes: list[Change] = []
        for key in keys:
            pod = reader.get(Pod, key.namespace, key.name)
            if pod is None or not pod.node:
                continue
            behaviour = self._behaviour(pod)
            node = reader.get(Node, "", pod.node)
            pod_ip = pod.pod_ip or self._addresses.assign(key, pod.node)
            step = advance(pod, behaviour, node, pod_ip=pod_ip, now=now)
            if step.pod is not None:
                changes.append(Put(step.pod, pod.resource_version))
                if step.exited:
                    self._note((_warning(pod, REASON_EXITED, step.exited),))
            elif step.is_gone:
                changes.append(Delete(key, pod.resource_version))
            elif step.due_at != NEVER:
                self._due.set(key, step.due_at)
        return changes

    def _settle(self, outcomes: Sequence[Outcome], now: float) -> None:
        for outcome in outcomes:
            if not isinstance(outcome, Applied) and outcome.key in self._node_of:
                self._due.set(outcome.key, now + _LOST_RACE_RETRY_S)

    async def _rest(self) -> None:
        """Wait until something changes or is due."""
        if self._marked:
            return
        first_at = self._due.first_at
        if first_at is None:
            await self._wake.wait()
            return
        alarm = asyncio.create_task(self._clock.sleep_until(first_at), name="fake-runtime-alarm")
        # NB: an alarm that was cancelled must not wake the next rest, or the loop would turn for ever.
        alarm.add_done_callback(lambda rung: None if rung.cancelled() else self._wake.set())
        try:
            await self._wake.wait()
        finally:
            alarm.cancel()

    # What the annotations say.

    def _behaviour(self, pod: Pod) -> Behaviour:
        template = pod.template
        own = pod.metadata.annotations
        identity: tuple[object, ...] = (template.metadata.namespace, template.metadata.name)
        if own:
            identity = (*identity, *sorted(item for item in own.items() if item[0].startswith(PREFIX)))
        behaviour = self._behaviours.get(identity)
        if behaviour is None:
            read = read_behaviour(template.annotations, own, template.pod_spec)
            if read.problems:
                self._note((_warning(pod, REASON_BAD_ANNOTATION, "; ".join(read.problems)),))
            if len(self._behaviours) >= _BEHAVIOURS_MAX:
                self._behaviours.clear()
            behaviour = self._behaviours[identity] = read.behaviour
        return behaviour


def _warning(pod: Pod, reason: str, message: str) -> Note:
    metadata = pod.metadata
    return Note(
        kind=Kind.POD,
        namespace=metadata.namespace,
        name=metadata.name,
        uid=metadata.uid,
        reason=reason,
        message=message,
        type=EVENT_WARNING,
    )
