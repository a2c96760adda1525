"""What the runtime's tests share: a clock that moves when told, and resources with few words."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable, Mapping
from typing import Any

from grove_server.resources.cluster import Node
from grove_server.resources.meta import Metadata
from grove_server.resources.workload import CliqueIdentity, Pod, PodTemplate
from grove_server.store.interface import Put, Store

EPOCH_S = 1_000_000.0


class SteppedClock:
    """A clock that stands still until ``advance``."""

    def __init__(self) -> None:
        self._now = EPOCH_S
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()
        self.look_count = 0

    def now(self) -> float:
        """Return the epoch time in seconds, and count who asks."""
        self.look_count += 1
        return self._now

    def steady(self) -> float:
        """Return seconds since the clock was made; it is never set, only moved on."""
        return self._now - EPOCH_S

    async def sleep_until(self, when_s: float) -> None:
        """Return when the clock was moved to *when_s*."""
        if when_s <= self._now:
            return
        sleeper: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (when_s, next(self._order), sleeper))
        await sleeper

    async def sleep(self, duration_s: float) -> None:
        """Return when the clock was moved on by so many seconds."""
        await self.sleep_until(self._now + duration_s)

    def advance(self, duration_s: float) -> None:
        """Move on by *duration_s* and wake whoever waited for a time up to then."""
        self._now += duration_s
        while self._sleepers and self._sleepers[0][0] <= self._now:
            sleeper = heapq.heappop(self._sleepers)[2]
            if not sleeper.done():
                sleeper.set_result(None)


def template(annotations: Mapping[str, str] | None = None, *, name: str = "router-x", **pod_spec: Any) -> PodTemplate:  # noqa: ANN401 -- any field of the resource
    """Return a pod template with the given ``fake.grove.io/`` annotations, named without the prefix."""
    return PodTemplate(
        metadata=Metadata(name=name, namespace="default", uid=f"template-{name}"),
        clique="router",
        hash="x",
        annotations={f"fake.grove.io/{key}": value for key, value in (annotations or {}).items()},
        pod_spec={"containers": [{"name": "main"}], **pod_spec},
    )


IDENTITY = CliqueIdentity(
    set_name="s", set_uid="set-uid", copy=0, clique="router", name="s-0-router", gang="s-0", headless_service="s-0"
)


def node(name: str = "n0", **fields: Any) -> Node:  # noqa: ANN401 -- any field of the resource
    """Return a node that is ready."""
    return Node(metadata=Metadata(name=name), allocatable={"pods": "110"}, **fields)


def pod(name: str = "p0", *, deleted_at: float | None = None, **fields: Any) -> Pod:  # noqa: ANN401 -- any field of the resource
    """Return a pod that was just bound to node n0."""
    values: dict[str, Any] = {
        "identity": IDENTITY,
        "index": 0,
        "template": template(),
        "node": "n0",
        "scheduled_at": EPOCH_S,
    }
    metadata = Metadata(
        name=name, namespace="default", uid=f"uid-{name}", created_at=EPOCH_S - 1, deleted_at=deleted_at
    )
    return Pod(metadata=metadata, **{**values, **fields})


async def until(store: Store, condition: Callable[[], bool]) -> None:
    """Return once *condition* holds; it is looked at after every change of *store*."""
    changed = asyncio.Event()
    unsubscribe = store.subscribe(lambda _: changed.set())
    try:
        async with asyncio.timeout(5):
            while not condition():
                changed.clear()
                await changed.wait()
    finally:
        unsubscribe()


async def put(store: Store, *resources: Any) -> None:  # noqa: ANN401 -- any resource
    """Write *resources*, whatever is there."""
    await store.commit([Put(resource) for resource in resources], cause="test")
