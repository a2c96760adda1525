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
import heapq
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import structlog

from grove_server.resources.cluster import Event, Node
from grove_server.resources.meta import Key, Kind, Metadata, key_of
from grove_server.resources.workload import Pod
from grove_server.runtime.addresses import PodAddresses
from grove_server.runtime.behaviour import PREFIX, Behaviour, read_behaviour
from grove_server.runtime.interface import Clock, PodsOnExit, RuntimeHealth
from grove_server.runtime.schedule import NEVER, advance
from grove_server.store.errors import StoreUnavailableError
from grove_server.store.interface import Applied, Change, ChangeType, Delete, Exists, Notice, Outcome, Put, Store

# At some 40 µs per pod, the store's part included, a slice stays well under 5 ms.
_LOOKS_PER_SLICE: Final = 64
# A lost race is normally looked at again when the winner becomes visible; if the winner failed, after this time.
_LOST_RACE_RETRY_S: Final = 0.05
# How long to leave a store alone that refuses writes.
_RETRY_S: Final = 1.0
# Outdated entries the heap of due times may hold before it is made anew.
_DUE_SLACK: Final = 1024
# Behaviours are kept per template; past this many the cache starts anew.
_BEHAVIOURS_MAX: Final = 10_000

REASON_BAD_ANNOTATION: Final = "FakeAnnotationInvalid"

_log = structlog.get_logger(__name__)


def _random_uid() -> str:
    return str(uuid.uuid4())


class FakeRuntime:
    """Turns bound pods Running and Ready, and stopping pods into nothing, as their annotations say."""

    def __init__(self, store: Store, clock: Clock, *, new_uid: Callable[[], str] = _random_uid) -> None:
        """Work on *store* in the time of *clock*; *new_uid* names the events it writes."""
        self._store = store
        self._clock = clock
        self._new_uid = new_uid
        self._marked: dict[Key, None] = {}
        self._due: list[tuple[float, Key]] = []
        self._due_at: dict[Key, float] = {}
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
        self._due_at.pop(key, None)
        self._marked.pop(key, None)
        self._addresses.release(key)

    async def _adopt(self) -> None:
        """Read everything anew: addresses in use first, before any is given out."""
        self._marked = {}
        self._due, self._due_at = [], {}
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
            await asyncio.sleep(0)

    # The loop.

    async def _run(self) -> None:
        while True:
            try:
                await self._work()
            except StoreUnavailableError as error:
                self._problem = f"the store takes no reports: {error}"
                _log.warning("fake_runtime_reports_refused", error=str(error), retry_s=_RETRY_S)
            except Exception as error:  # noqa: BLE001 -- a supervised loop: it reports, pauses and starts anew
                self._problem = f"failed on {type(error).__name__}"
                _log.exception("fake_runtime_failed", retry_s=_RETRY_S)
            await self._clock.sleep_until(self._clock.now() + _RETRY_S)
            await self._adopt()

    async def _work(self) -> None:
        while True:
            await self._tick()
            self._problem = ""
            await self._rest()

    async def _tick(self) -> None:
        now = self._clock.now()
        self._wake.clear()
        while self._due and self._due[0][0] <= now:
            due_at, key = heapq.heappop(self._due)
            if self._due_at.get(key) == due_at:
                del self._due_at[key]
                self._marked[key] = None
        work, self._marked = list(self._marked), {}
        commits: list[tuple[list[Change], asyncio.Future[tuple[Outcome, ...]]]] = []
        for start in range(0, len(work), _LOOKS_PER_SLICE):
            changes = self._decide(work[start : start + _LOOKS_PER_SLICE], now)
            if changes:
                commits.append((changes, self._store.commit_soon(changes, atomic=False, cause="runtime")))
            await asyncio.sleep(0)
        if commits:
            # Not gather: a cancelled tick must not cancel the store's futures.
            await asyncio.wait([future for _, future in commits])
        for changes, future in commits:
            self._settle(changes, future.result(), now)

    def _decide(self, keys: Iterable[Key], now: float) -> list[Change]:
        """Return what is to be written for the marked pods; note when to look again at the others."""
        reader = self._store.read()
        changes: list[Change] = []
        for key in keys:
            pod = reader.get(Pod, key.namespace, key.name)
            if pod is None or not pod.node:
                continue
            behaviour = self._behaviour(pod, now, changes)
            node = reader.get(Node, "", pod.node)
            pod_ip = pod.pod_ip or self._addresses.assign(key, pod.node)
            step = advance(pod, behaviour, node, pod_ip=pod_ip, now=now)
            if step.pod is not None:
                changes.append(Put(step.pod, pod.resource_version))
            elif step.is_gone:
                changes.append(Delete(key, pod.resource_version))
            elif step.due_at != NEVER:
                self._look_again(key, step.due_at)
        return changes

    def _look_again(self, key: Key, due_at: float) -> None:
        if self._due_at.get(key) != due_at:
            self._due_at[key] = due_at
            heapq.heappush(self._due, (due_at, key))
        if len(self._due) > 2 * len(self._due_at) + _DUE_SLACK:
            # Entries of pods that are gone, or due at another time by now, would otherwise stay until they are due.
            self._due = [(at, pod) for pod, at in self._due_at.items()]
            heapq.heapify(self._due)

    def _settle(self, changes: Sequence[Change], outcomes: Sequence[Outcome], now: float) -> None:
        for change, outcome in zip(changes, outcomes, strict=True):
            if isinstance(outcome, Applied | Exists) or outcome.key.kind is not Kind.POD:
                continue
            if isinstance(change, Put) and outcome.key not in self._node_of:
                continue
            self._look_again(outcome.key, now + _LOST_RACE_RETRY_S)

    async def _rest(self) -> None:
        """Wait until something changes or is due."""
        if self._marked:
            return
        if not self._due:
            await self._wake.wait()
            return
        alarm = asyncio.create_task(self._clock.sleep_until(self._due[0][0]), name="fake-runtime-alarm")
        alarm.add_done_callback(lambda _: self._wake.set())
        try:
            await self._wake.wait()
        finally:
            alarm.cancel()

    # What the annotations say.

    def _behaviour(self, pod: Pod, now: float, changes: list[Change]) -> Behaviour:
        template = pod.template
        own = pod.metadata.annotations
        identity: tuple[object, ...] = (template.metadata.namespace, template.metadata.name)
        if own:
            identity = (*identity, *sorted(item for item in own.items() if item[0].startswith(PREFIX)))
        behaviour = self._behaviours.get(identity)
        if behaviour is None:
            read = read_behaviour(template.annotations, own, template.pod_spec)
            if read.problems:
                changes.append(Put(self._warning(pod, read.problems, now), 0))
            if len(self._behaviours) >= _BEHAVIOURS_MAX:
                self._behaviours.clear()
            behaviour = self._behaviours[identity] = read.behaviour
        return behaviour

    def _warning(self, pod: Pod, problems: Sequence[str], now: float) -> Event:
        """Return the event that names a template's unreadable annotations; one per template, whatever restarts."""
        template = pod.template.metadata
        return Event(
            metadata=Metadata(
                name=f"{template.name}.fake-annotations",
                namespace=pod.metadata.namespace,
                uid=self._new_uid(),
                created_at=now,
            ),
            involved_kind=Kind.POD,
            involved_name=pod.metadata.name,
            involved_uid=pod.metadata.uid,
            type="Warning",
            reason=REASON_BAD_ANNOTATION,
            message="; ".join(problems),
            first_at=now,
            last_at=now,
        )
