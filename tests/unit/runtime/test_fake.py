"""The fake runtime's loop over a real store, in a time that moves only when told."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import replace

import pytest

from grove_server.lifecycle.plan import Note
from grove_server.resources.cluster import Node
from grove_server.resources.meta import Key, Kind
from grove_server.resources.workload import NODE_NOT_READY, Pod, PodPhase
from grove_server.runtime.fake import REASON_BAD_ANNOTATION, REASON_EXITED, FakeRuntime
from grove_server.store import SqliteStore
from grove_server.store.engine import EmbeddedStore
from grove_server.store.interface import Delete, Notice, Outcome, Put
from grove_server.store.journal import Commit, VolatileJournal
from tests.unit.runtime.conftest import StartRuntime
from tests.unit.runtime.simulated import EPOCH_S, SteppedClock, node, pod, put, template
from tests.waiting import until


def read(store: SqliteStore, name: str = "p0") -> Pod:
    """Return a pod that exists."""
    found = store.read().get(Pod, "default", name)
    assert found is not None
    return found


def ignore(_notes: Iterable[Note]) -> None:
    """Tell nobody."""


def is_ready(store: SqliteStore, name: str = "p0") -> bool:
    """Return whether a pod exists and serves."""
    found = store.read().get(Pod, "default", name)
    return found is not None and found.is_ready


async def test_a_pod_that_is_bound_becomes_ready(store: SqliteStore, start_runtime: StartRuntime) -> None:
    """A pod is left alone until it has a node; then it is Running and Ready with an address, in one change."""
    await start_runtime()
    seen: list[Notice] = []
    store.subscribe(seen.extend)
    await put(store, pod(node="", scheduled_at=None))
    await put(store, pod())
    await until(lambda: is_ready(store), "the pod is ready")
    ready = read(store)
    assert (ready.phase, ready.started_at, ready.ready_at, ready.pod_ip) == (
        PodPhase.RUNNING,
        EPOCH_S,
        EPOCH_S,
        "10.0.0.1",
    )
    assert len(seen) == 3


async def test_delays_pass_in_the_clocks_time(
    store: SqliteStore, clock: SteppedClock, start_runtime: StartRuntime
) -> None:
    """Start and ready delays are waited out one after the other, and nothing happens before."""
    slow = template({"start-delay": "5s", "ready-delay": "10s"}, name="slow")
    await put(store, slow, pod(template=slow), pod("p1"))
    await start_runtime()
    await until(lambda: is_ready(store, "p1"), "the pod without delays is ready")
    assert read(store).phase is PodPhase.PENDING
    clock.advance(5)
    await until(lambda: read(store).phase is PodPhase.RUNNING, "the pod runs")
    assert read(store).ready_at is None
    clock.advance(10)
    await until(lambda: is_ready(store), "the pod is ready")
    assert (read(store).started_at, read(store).ready_at) == (EPOCH_S + 5, EPOCH_S + 15)


async def test_waiting_costs_nothing(store: SqliteStore, clock: SteppedClock, start_runtime: StartRuntime) -> None:
    """While a pod waits for its time the loop rests, and being woken without a cause costs one look at the clock."""
    slow = template({"start-delay": "60s"}, name="slow")
    await put(store, slow, pod(template=slow), pod("p1"))
    runtime = await start_runtime()
    await until(lambda: is_ready(store, "p1") and not runtime.health().backlog_count, "only the slow pod waits")
    before = clock.look_count
    runtime._wake.set()
    for _ in range(100):
        await asyncio.sleep(0)
    assert clock.look_count - before <= 2


async def test_a_crashing_pod_restarts_and_backs_off(
    store: SqliteStore, clock: SteppedClock, start_runtime: StartRuntime, notes: list[Note]
) -> None:
    """The first crash is followed by a restart at once, the second by one after ten seconds, the third never comes.

    Each is told to people.
    """
    crashing = template({"crash-after": "60s", "crash-times": "2", "exit-code": "3"}, name="crashing")
    seen: list[Notice] = []
    await put(store, crashing, pod(template=crashing))
    await start_runtime()
    await until(lambda: is_ready(store), "the pod is ready")
    store.subscribe(seen.extend)
    clock.advance(60)
    await until(lambda: is_ready(store) and read(store).restart_count == 1, "the pod has restarted")
    assert [n.resource.ready_at for n in seen if isinstance(n.resource, Pod)] == [None, EPOCH_S + 60]
    clock.advance(60)
    await until(lambda: read(store).waiting_reason == "CrashLoopBackOff", "the pod backs off")
    clock.advance(10)
    await until(lambda: is_ready(store), "the pod is ready again")
    clock.advance(3600)
    await put(store, pod("p1"))
    await until(lambda: is_ready(store, "p1"), "the runtime has looked at the time")
    last = read(store)
    assert (last.restart_count, last.last_exit_code, last.started_at) == (2, 3, EPOCH_S + 130)
    assert [(note.reason, note.message) for note in notes] == [
        (REASON_EXITED, "containers ended with exit code 3; they are started again at once"),
        (REASON_EXITED, "containers ended with exit code 3; back-off 10s restarting containers"),
    ]


async def test_a_pod_that_is_asked_to_stop_is_removed(
    store: SqliteStore, clock: SteppedClock, start_runtime: StartRuntime
) -> None:
    """Pods go at once by default, and after the grace period when they ignore SIGTERM; unbound ones are not ours."""
    stubborn = template({"ignore-sigterm": "true"}, name="stubborn", terminationGracePeriodSeconds=7)
    await start_runtime()
    await put(store, stubborn, pod(), pod("p1", template=stubborn), pod("p2", node="", scheduled_at=None))
    await until(lambda: is_ready(store) and is_ready(store, "p1"), "both pods are ready")
    for name in ("p0", "p1", "p2"):
        running = read(store, name)
        await put(store, replace(running, metadata=replace(running.metadata, deleted_at=clock.now())))
    await until(lambda: store.read().get(Pod, "default", "p0") is None, "the first pod is gone")
    assert read(store, "p1").is_ready
    clock.advance(7)
    await until(lambda: store.read().get(Pod, "default", "p1") is None, "the stubborn pod is gone")
    assert read(store, "p2").is_terminating


async def test_running_pods_are_adopted_after_a_restart(
    store: SqliteStore, clock: SteppedClock, start_runtime: StartRuntime
) -> None:
    """A new runtime leaves running pods as they are, goes on with waiting ones, and gives no address out twice."""
    slow = template({"start-delay": "60s"}, name="slow")
    first = await start_runtime()
    await put(store, slow, pod(), pod("p1"), pod("p2", template=slow))
    await until(lambda: is_ready(store) and is_ready(store, "p1"), "both pods are ready")
    await first.stop()
    await store.commit([Delete(Key(Kind.POD, "default", "p0"))])
    before = read(store, "p1")
    clock.advance(60)
    await start_runtime()
    await put(store, pod("p3"))
    await until(lambda: is_ready(store, "p2") and is_ready(store, "p3"), "the waiting and the new pod are ready")
    assert read(store, "p1") == before
    assert read(store, "p2").started_at == EPOCH_S + 60
    assert len({read(store, name).pod_ip for name in ("p1", "p2", "p3")}) == 3


async def test_a_node_that_is_down_takes_readiness_from_its_pods_alone(
    store: SqliteStore, start_runtime: StartRuntime
) -> None:
    """Pods follow the readiness of their own node, without being restarted."""
    await put(store, node("n1"), pod(), pod("p1", node="n1"))
    await start_runtime()
    await until(lambda: is_ready(store) and is_ready(store, "p1"), "both pods are ready")
    before = read(store, "p1")
    await put(store, node(ready=False, ready_changed_at=EPOCH_S))
    await until(lambda: not is_ready(store), "the pod is not ready")
    assert read(store).waiting_reason == NODE_NOT_READY
    await put(store, node(ready_changed_at=EPOCH_S))
    await until(lambda: is_ready(store), "the pod is ready again")
    assert (read(store).restart_count, read(store).waiting_reason) == (0, "")
    assert read(store, "p1") == before


async def test_a_node_that_is_removed_takes_its_pods_with_it(store: SqliteStore, start_runtime: StartRuntime) -> None:
    """The pods of a node that no longer exists are removed."""
    await put(store, node("n1"), pod(), pod("p1", node="n1"))
    await start_runtime()
    await until(lambda: is_ready(store) and is_ready(store, "p1"), "both pods are ready")
    await store.commit([Delete(Key(Kind.NODE, "", "n0"))])
    await until(lambda: store.read().get(Pod, "default", "p0") is None, "the pod is gone")
    assert read(store, "p1").is_ready


async def test_an_unreadable_annotation_is_reported_once_per_template(
    store: SqliteStore, start_runtime: StartRuntime, notes: list[Note]
) -> None:
    """All pods of the template run with the default, and one event names the annotation."""
    wrong = template({"ready-delay": "soon"}, name="wrong")
    await start_runtime()
    await put(store, wrong, pod(template=wrong), pod("p1", template=wrong))
    await until(lambda: is_ready(store) and is_ready(store, "p1"), "both pods are ready")
    (note,) = notes
    assert (note.type, note.reason, note.kind, note.name) == ("Warning", REASON_BAD_ANNOTATION, Kind.POD, "p0")
    assert 'fake.grove.io/ready-delay: must be a duration such as 1m30s, got "soon"' in note.message


async def test_annotations_of_the_pod_override_the_template(
    store: SqliteStore, clock: SteppedClock, start_runtime: StartRuntime
) -> None:
    """One pod of a template may behave differently."""
    late = pod("p1")
    late = replace(late, metadata=replace(late.metadata, annotations={"fake.grove.io/ready-delay": "5s"}))
    await put(store, pod(), late)
    await start_runtime()
    await until(lambda: is_ready(store) and read(store, "p1").phase is PodPhase.RUNNING, "both pods run")
    assert not is_ready(store, "p1")
    clock.advance(5)
    await until(lambda: is_ready(store, "p1"), "the other pod is ready")


async def test_a_lost_race_is_decided_again(store: SqliteStore, start_runtime: StartRuntime) -> None:
    """A pod that somebody else changes between its binding and the runtime's report ends up with both changes."""
    await start_runtime()
    versions: list[int] = []
    commits: list[asyncio.Future[tuple[Outcome, ...]]] = []

    def change_at_once(notices: Sequence[Notice]) -> None:
        for notice in notices:
            if isinstance(notice.resource, Pod):
                versions.append(notice.version)
                if len(versions) == 1:
                    # Decided before the runtime looks, visible only afterwards.
                    commits.append(store.commit_soon([Put(replace(notice.resource, gpu_ids=(3,)))], cause="test"))

    store.subscribe(change_at_once)
    await put(store, pod())
    await until(lambda: is_ready(store), "the pod is ready")
    assert read(store).gpu_ids == (3,)
    assert len(versions) == 3


async def test_many_pods_share_batches_and_have_addresses_of_their_own(
    store: SqliteStore, start_runtime: StartRuntime
) -> None:
    """A thousand pods bound together are ready together, each with its own address, on any number of nodes."""
    nodes = [node(f"n{index}") for index in range(10)]
    await put(store, *nodes)
    runtime = await start_runtime()
    await put(store, *(pod(f"p{index}", node=f"n{index % 10}") for index in range(1000)))
    pods = store.read().list(Pod)
    await until(lambda: all(p.is_ready for p in store.read().list(Pod)), "all pods are ready")
    pods = store.read().list(Pod)
    assert len({p.pod_ip for p in pods}) == 1000
    assert runtime.health().pod_count == 1000


async def test_health_tells_whether_the_loop_runs(store: SqliteStore, clock: SteppedClock) -> None:
    """A runtime is unhealthy before it starts and after it stops; stopping twice is harmless."""
    runtime = FakeRuntime(store, clock, note=ignore)
    assert not runtime.health().is_healthy
    await runtime.start()
    assert runtime.health().is_healthy
    await runtime.stop()
    await runtime.stop()
    assert runtime.health().message == "stopped"


class BreakableJournal(VolatileJournal):
    """A disk that is full when told so."""

    is_full = False

    def submit(self, commits: Sequence[Commit]) -> None:
        """Report the commits as durable, or the failure."""
        if self.is_full:
            self._loop.call_soon(self._events.failed, "the disk is full")
        else:
            super().submit(commits)

    def make_room(self) -> None:
        """Let writing work again."""
        self.is_full = False
        self._events.recovered()


async def test_a_store_that_refuses_is_tried_again(clock: SteppedClock) -> None:
    """While the store takes no reports the runtime says so; when it does again, nothing has been forgotten."""
    journal = BreakableJournal()
    store = EmbeddedStore(journal)
    await store.open()
    slow = template({"start-delay": "5s"})
    names = [f"p{index}" for index in range(200)]
    await put(store, slow, node(), *(pod(name, template=slow) for name in names))
    runtime = FakeRuntime(store, clock, note=ignore)
    await runtime.start()
    journal.is_full = True
    clock.advance(5)
    await until(lambda: not runtime.health().is_healthy, "the runtime reports the failure")
    assert runtime.health().message == "the store takes no reports: the disk is full"
    journal.make_room()
    clock.advance(1)
    await until(lambda: all(pod.is_ready for pod in store.read().list(Pod)), "all pods are ready")
    await until(lambda: runtime.health().is_healthy, "the runtime is well again")
    await runtime.stop()
    await store.close()


@pytest.mark.parametrize("count", [1, 62, 63, 300])
async def test_addresses_of_stopped_pods_are_free_again(
    store: SqliteStore, start_runtime: StartRuntime, count: int
) -> None:
    """Pods that come after others have gone get the lowest addresses again."""
    await start_runtime()
    names = [f"p{index}" for index in range(count)]
    for _ in range(2):
        await put(store, *(pod(name) for name in names))
        await until(lambda: all(p.is_ready for p in store.read().list(Pod)), "all pods are ready")
        addresses = {p.pod_ip for p in store.read().list(Pod)}
        assert len(addresses) == count
        assert "10.0.0.1" in addresses
        await store.commit([Delete(Key(Kind.POD, "default", name)) for name in names])
    assert store.read().get(Node, "", "n0") is not None
