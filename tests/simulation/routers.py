"""Routers: they watch the drains of a set or a namespace, leave pods, and say so. Or late, or never, or they die.

A router outlives the server: it comes back to the next one and resumes. The fleet knows which routers surely live, so
that the invariants can ask whether a pod was stopped before they had left it.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from grove.v1 import endpoint_pb2
from grove_server.admission.findings import InvalidResourceError
from grove_server.api.reasons import ApiError
from grove_server.resources.workload import Pod
from grove_server.store.errors import (
    StoreClosedError,
    StoreUnavailableError,
    TokenExpiredError,
    TokenInvalidError,
    WatchTooSlowError,
)
from tests.simulation.server import SimServer

ROUTERS_MAX: Final = 6
NEVER: Final = math.inf
# How long a router stays away when it hangs up, well inside of a lease, and how often it tries again after a failure.
_AWAY_S: Final = 5.0
_RETRY_S: Final = 0.5


@dataclass(slots=True, kw_only=True)
class Manners:
    """How a router behaves: the longest time it takes to leave a pod (never is one), and how often it hangs up."""

    ack_s: float = 0.0
    hang_up_chance: float = 0.0


@dataclass(slots=True, eq=False, kw_only=True)
class Router:
    """One router. ``watched_since_s`` is when its open watch was answered first, None while it has none."""

    name: str
    namespace: str
    set_name: str
    manners: Manners
    rng: random.Random
    token: str = ""
    watched_since_s: float | None = None
    acknowledged: int = 0
    task: asyncio.Task[None] | None = field(default=None, repr=False)

    def serves(self, pod: Pod) -> bool:
        """Return whether the router sends requests to *pod*."""
        return self.namespace == pod.metadata.namespace and self.set_name in ("", pod.identity.set_name)

    async def follow(self, server: SimServer) -> None:
        """Watch one start of the server until it ends."""
        try:
            while True:
                try:
                    await self._watch(server)
                except (TokenExpiredError, TokenInvalidError):
                    self.token = ""
                except WatchTooSlowError:
                    continue
                except StoreClosedError:
                    return
                except (ApiError, InvalidResourceError, StoreUnavailableError):
                    await server.loop.pause(_RETRY_S)
        finally:
            self.watched_since_s = None

    async def _watch(self, server: SimServer) -> None:
        watching = server.loop.create_task(
            server.services.watch_drains(
                self.namespace, self.set_name, self.name, self.token, partial(self._take, server)
            )
        )
        try:
            while self.rng.random() >= self.manners.hang_up_chance:
                if watching.done():
                    break
                await asyncio.wait({watching}, timeout=1.0 + 9.0 * self.rng.random())
            if watching.done():
                watching.result()
        finally:
            self.watched_since_s = None
            watching.cancel()
        await asyncio.wait({watching})
        # It is away and lives all the same: its lease tells so, and after half of the time it is renewed.
        await server.loop.pause(self.rng.random() * _AWAY_S)
        await server.services.renew_lease(self.namespace, self.set_name, self.name)
        await server.loop.pause(self.rng.random() * _AWAY_S)

    async def _take(self, server: SimServer, payload: bytes) -> None:
        step = endpoint_pb2.EndpointServiceWatchDrainsResponse.FromString(payload)
        if self.watched_since_s is None:
            self.watched_since_s = server.loop.time()
        if step.resume_token:
            self.token = step.resume_token
        drain = step.object
        if step.type not in ("ADDED", "MODIFIED") or self.name in drain.acknowledged_by:
            return
        if self.manners.ack_s != NEVER:
            server.run_aside(self._acknowledge(server, drain.namespace, drain.pod), "acknowledge")
        await asyncio.sleep(0)

    async def _acknowledge(self, server: SimServer, namespace: str, pod: str) -> None:
        await server.loop.pause(self.rng.random() * self.manners.ack_s)
        try:
            await server.services.acknowledge_drain(namespace, [pod], self.name)
        except (ApiError, StoreUnavailableError):
            return
        self.acknowledged += 1


class Fleet:
    """All routers of a run."""

    def __init__(self, stream: Callable[[str], random.Random]) -> None:
        self._stream = stream
        self._rng = stream("routers")
        self._count = 0
        self.routers: list[Router] = []

    def join(self, server: SimServer, namespace: str, set_name: str) -> str:
        """Let a router come, for a set or for all of a namespace; return what to call it."""
        if len(self.routers) >= ROUTERS_MAX:
            return ""
        self._count += 1
        router = Router(
            name=f"router-{self._count}",
            namespace=namespace,
            set_name=set_name if self._rng.random() < 0.7 else "",
            manners=self._draw_manners(),
            rng=self._stream(f"router {self._count}"),
        )
        self.routers.append(router)
        self._begin(server, router)
        return f"{router.name} for {namespace}/{router.set_name or '*'}, {router.manners}"

    def leave(self, server: SimServer) -> str:
        """Let a router say that it leaves."""
        router = self._take()
        if router is None:
            return ""

        async def end() -> None:
            try:
                await server.services.end_lease(router.namespace, router.set_name, router.name)
            except (ApiError, StoreUnavailableError):
                return

        server.run_aside(end(), "leave")
        return router.name

    def die(self) -> str:
        """Let a router vanish without a word."""
        router = self._take()
        return "" if router is None else router.name

    def change_manners(self) -> str:
        """Let a router become quick, slow or deaf."""
        if not self.routers:
            return ""
        router = self._rng.choice(self.routers)
        router.manners = self._draw_manners()
        return f"{router.name} {router.manners}"

    def calm(self) -> None:
        """Let every router be quick and stay on the line."""
        for router in self.routers:
            router.manners = Manners()

    def cut(self) -> None:
        """Note that the server went away and took all watches with it."""
        for router in self.routers:
            router.watched_since_s = None

    def come_back(self, server: SimServer) -> None:
        """Let the routers follow a server that has just begun to serve."""
        for router in self.routers:
            self._begin(server, router)

    def surely_alive(self, pod: Pod, at_s: float) -> list[str]:
        """Return the routers of *pod* that have had a watch open without a break since before *at_s*."""
        return [
            router.name
            for router in self.routers
            if router.watched_since_s is not None and router.watched_since_s < at_s and router.serves(pod)
        ]

    def _begin(self, server: SimServer, router: Router) -> None:
        router.watched_since_s = None
        router.task = server.begin(router.follow(server), router.name)

    def _take(self) -> Router | None:
        if not self.routers:
            return None
        router = self.routers.pop(self._rng.randrange(len(self.routers)))
        router.watched_since_s = None
        if router.task is not None:
            router.task.cancel()
        return router

    def _draw_manners(self) -> Manners:
        return Manners(
            ack_s=self._rng.choice((0.0, 0.5, 10.0, 100.0, NEVER)),
            hang_up_chance=self._rng.choice((0.0, 0.0, 0.2)),
        )
