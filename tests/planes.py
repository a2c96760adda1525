"""The loops over a real SQLite store and the fake runtime, in one process, for tests that look inside.

Time runs as it does outside and can be moved on. The journal can be held (what was decided waits to become durable) and
broken (the disk refuses), so that races and failures happen when the test says so.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeVar

from grove_server.control.consolidator import Consolidation
from grove_server.control.indexes import store_indexes
from grove_server.control.plane import ControlPlane
from grove_server.control.solver_pool import SolverPool
from grove_server.resources import codec
from grove_server.resources.cluster import ClusterTopologyBinding, Node
from grove_server.resources.manifest import ClusterTopologyBindingSpec, TopologyLevel
from grove_server.resources.meta import CLUSTER_SCOPED, Key, Kind, Metadata, Resource, key_of
from grove_server.resources.workload import (
    Pod,
    PodClique,
    PodCliqueScalingGroup,
    PodCliqueSet,
    PodGang,
    PodTemplate,
    ScaleOwner,
)
from grove_server.runtime.fake import FakeRuntime
from grove_server.store.engine import EmbeddedStore
from grove_server.store.interface import Applied, Delete, Listener, Outcome, Put
from grove_server.store.journal import Commit, JournalEvents, Loaded
from grove_server.store.sqlite.writer import SqliteJournal
from tests.lifecycle_cases import DOMAINS, Json, admitted, deleted
from tests.waiting import until

R = TypeVar("R", bound=Resource)

EPOCH_S: Final = 1_000_000.0
CHILDREN: Final = (Kind.POD_CLIQUE, Kind.POD_CLIQUE_SCALING_GROUP, Kind.POD_GANG, Kind.POD, Kind.POD_TEMPLATE)


class MovableClock:
    """Epoch seconds that pass as usual, and can be moved on at once."""

    def __init__(self) -> None:
        self._shift_s = EPOCH_S - time.monotonic()
        self._set_by_s = 0.0
        self._moved = asyncio.Event()

    def now(self) -> float:
        """Return the epoch time in seconds."""
        return self.steady() + self._set_by_s

    def steady(self) -> float:
        """Return seconds that only go forward."""
        return time.monotonic() + self._shift_s

    async def sleep(self, duration_s: float) -> None:
        """Return when so many seconds have passed."""
        await self._sleep_until(self.steady, self.steady() + duration_s)

    async def sleep_until(self, when_s: float) -> None:
        """Return when ``now()`` has reached *when_s*."""
        await self._sleep_until(self.now, when_s)

    async def _sleep_until(self, read: Callable[[], float], when_s: float) -> None:
        while (left_s := when_s - read()) > 0:
            moved = self._moved
            try:
                # Not wait_for: it loses a cancellation that comes with the event (until Python 3.12).
                async with asyncio.timeout(left_s):
                    await moved.wait()
            except TimeoutError:
                return

    def advance(self, duration_s: float) -> None:
        """Move on by *duration_s*."""
        self._shift_s += duration_s
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    def set_by(self, duration_s: float) -> None:
        """Set the clock by *duration_s*, forward or back, while time passes as before."""
        self._set_by_s += duration_s
        self.advance(0.0)


class GatedJournal:
    """A real journal behind a gate that the test holds, and a disk that refuses when the test says so."""

    def __init__(self, path: Path) -> None:
        self._inner = SqliteJournal(path, codec)
        self._held: list[Commit] | None = None
        self._is_broken = False

    async def open(self, events: JournalEvents) -> Loaded:
        """Open the database."""
        self._events = events
        return await self._inner.open(events)

    def submit(self, commits: Sequence[Commit]) -> None:
        """Pass commits on, keep them back or refuse them."""
        if self._is_broken:
            asyncio.get_running_loop().call_soon(self._events.failed, "the disk is full")
        elif self._held is not None:
            self._held.extend(commits)
        else:
            self._inner.submit(commits)

    def reset(self) -> None:
        """Forget what was kept back."""
        if self._held is not None:
            self._held = []
        if not self._is_broken:
            self._inner.reset()

    async def close(self) -> None:
        """Close the database."""
        await self._inner.close()

    def hold(self) -> None:
        """Let nothing become durable from now on."""
        self._held = []

    def release(self) -> None:
        """Pass on what was kept back."""
        held, self._held = self._held or [], None
        if held:
            self._inner.submit(held)

    def fail(self) -> None:
        """Refuse everything, what is kept back included."""
        self._is_broken = True
        if self._held is not None:
            self._held = None
            self._events.failed("the disk is full")

    def mend(self) -> None:
        """Take commits again."""
        self._is_broken = False
        self._events.recovered()


class Plane:
    """Store, loops and runtime of one server; ``restart`` keeps the database alone."""

    def __init__(self, path: Path, *, solver: SolverPool | None = None, moves_per_hour: int = 0) -> None:
        self._path = path
        self._consolidation = Consolidation(moves_per_hour_max=moves_per_hour)
        self._solver = solver
        self.clock = MovableClock()

    async def start(self, *, has_runtime: bool = True, listener: Listener | None = None) -> None:
        """Open the store and start everything; *listener* hears of all changes from the first on."""
        self.journal = GatedJournal(self._path)
        self.store = EmbeddedStore(self.journal, indexes=store_indexes())
        await self.store.open()
        if listener is not None:
            self.store.subscribe(listener)
        self.control = ControlPlane(
            self.store,
            self.clock,
            lambda: False,
            update_settle_s=0.0,
            solver=self._solver,
            consolidation=self._consolidation,
        )
        self.control.start()
        self.runtime = FakeRuntime(self.store, self.clock, note=self.control.events.note)
        if has_runtime:
            await self.runtime.start()

    async def stop(self) -> None:
        """Stop everything and close the store."""
        await self.control.stop()
        await self.runtime.stop()
        await self.store.close()

    async def restart(self) -> None:
        """Stop, and start anew from the database."""
        await self.stop()
        await self.start()

    # Reading.

    def get(self, kind: type[R], name: str) -> R | None:
        """Return a resource, if it is there."""
        namespace = "" if kind.kind in CLUSTER_SCOPED else "default"
        return self.store.read().get(kind, namespace, name)

    def one(self, kind: type[R], name: str) -> R:
        """Return a resource that must be there."""
        found = self.get(kind, name)
        assert found is not None, f"there is no {kind.__name__} {name}"
        return found

    def all(self, kind: type[R]) -> list[R]:
        """Return all resources of a kind by name."""
        return list(self.store.read().sorted_list(kind))

    def pods(self, clique: str = "") -> list[Pod]:
        """Return the active pods (of one clique) by name."""
        return [pod for pod in self.all(Pod) if pod.is_active and clique in ("", pod.identity.name)]

    def ready_count(self, clique: str = "") -> int:
        """Return how many pods (of one clique) serve."""
        return sum(1 for pod in self.pods(clique) if pod.is_ready)

    def child_count(self) -> int:
        """Return how many resources there are under sets, templates included."""
        return sum(self.store.read().count(kind) for kind in CHILDREN)

    def status(self, name: str = "s") -> Any:  # noqa: ANN401 -- the status of a set
        """Return the status of a set."""
        return self.one(PodCliqueSet, name).status

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is being decided and nothing is on its way to the disk."""
        return (
            self.control.is_idle and not self.runtime.health().backlog_count and not self.store.health().queued_changes
        )

    # Acting.

    async def put(self, *resources: Resource) -> None:
        """Write resources, whatever is there, as one change."""
        outcomes = await self.store.commit([Put(resource) for resource in resources], cause="test")
        assert all(isinstance(outcome, Applied) for outcome in outcomes), outcomes

    async def remove(self, *resources: Resource) -> None:
        """Remove resources as one change."""
        await self.store.commit([Delete(key_of(resource)) for resource in resources], cause="test")

    async def apply(self, document: Json, uid: str = "set-uid") -> None:
        """Apply a manifest as the API does."""
        await self.put(
            admitted(document, self.get(PodCliqueSet, document["metadata"]["name"]), uid=uid, now=self.clock.now())
        )

    async def delete_set(self, name: str = "s") -> None:
        """Ask for the deletion of a set."""
        await self.put(_deleted(self.one(PodCliqueSet, name), self.clock.now()))

    async def scale_clique(self, name: str, replicas: int) -> None:
        """Scale a clique as the scale call does: on the row that it saw, and anew if that has changed meanwhile."""
        outcome: Outcome | None = None
        while not isinstance(outcome, Applied):
            seen = self.one(PodClique, name)
            scaled = replace(seen, replicas=replicas, scale_owner=ScaleOwner.USER)
            (outcome,) = await self.store.commit([Put(scaled, seen.resource_version)], cause="test")

    async def scale_group(self, name: str, replicas: int) -> None:
        """Scale a group as the scale call does."""
        await self.put(replace(self.one(PodCliqueScalingGroup, name), replicas=replicas, scale_owner=ScaleOwner.USER))

    async def set_nodes(self, *names: str, unschedulable: bool) -> None:
        """Cordon or uncordon nodes as one change."""
        await self.put(*(replace(self.one(Node, name), unschedulable=unschedulable) for name in names))

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Return once *condition* holds."""
        await until(condition, what, within_s=10)

    async def until_quiet(self) -> None:
        """Return once nothing happens any more, timers aside."""
        await until(lambda: self.is_quiet, "nothing happens any more", within_s=10)

    async def until_ready(self, count: int, clique: str = "") -> None:
        """Return once exactly so many pods exist and serve."""
        await self.until(
            lambda: self.ready_count(clique) == len(self.pods(clique)) == count, f"{count} pods of {clique!r} are ready"
        )

    def check_templates(self) -> None:
        """Check that every pod and clique refers to a template that is stored."""
        held = {template.metadata.name for template in self.all(PodTemplate)}
        used = {pod.template.metadata.name for pod in self.all(Pod)}
        used |= {clique.template.metadata.name for clique in self.all(PodClique)}
        assert used <= held

    def check_nothing_is_left(self) -> None:
        """Check that no resource, no reservation and no memory of a set is left."""
        assert self.child_count() == 0
        assert self.all(PodCliqueSet) == []
        placement, workload = self.control.placement, self.control.workload
        for node in self.all(Node):
            name = node.metadata.name
            assert placement.cluster.free_of(name)["pods"] == int(node.allocatable["pods"]), name
        assert len(placement.desk.holdings) == 0
        assert (placement.desk.waiting, placement.desk.placed, placement._drafts_in_flight) == ({}, {}, {})
        assert workload.book.sets == {}


def _deleted(resource: Any, now: float) -> Any:  # noqa: ANN401 -- as lifecycle's deleted, for sets
    return deleted(resource, now)


def worker(index: int, *, pods: int = 1, **fields: Any) -> Node:  # noqa: ANN401 -- any field of the resource
    """Return node ``n<index>``: with room for so many pods; two nodes share a rack, four a block."""
    name = f"n{index}"
    labels = {"host": name, "rack": f"r{index // 2}", "block": f"b{index // 4}", "zone": "z0"}
    return Node(
        metadata=Metadata(
            name=name, uid=f"node-{name}", labels={f"example.com/{level}": value for level, value in labels.items()}
        ),
        allocatable={"pods": str(pods), "cpu": "64"},
        **fields,
    )


def binding(*domains: str) -> ClusterTopologyBinding:
    """Return the topology binding of the workers, with the levels given or all."""
    levels = tuple(TopologyLevel(domain=domain, key=f"example.com/{domain}") for domain in domains or DOMAINS)
    return ClusterTopologyBinding(
        metadata=Metadata(name="grove-topology", uid="binding"), spec=ClusterTopologyBindingSpec(levels=levels)
    )


def gang_key(name: str) -> Key:
    """Return the key of a gang."""
    return Key(PodGang.kind, "default", name)
