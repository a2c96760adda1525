"""Which routers serve which set, and until when each is believed to live.

A router is stored when it first speaks, and forgotten when its lease has run out or it says that it leaves. The lease
itself is counted in steady time and in memory: renewing costs no write, setting the clock harms nobody, and after a
restart every router has a whole lease to come back. A router with an open watch is alive as long as it watches.

Not here: what a pod waits for (``lifecycle.removal``).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from grove_server.control.clock import Clock
from grove_server.control.indexes import ROUTERS_BY_SET
from grove_server.control.supervision import Supervised
from grove_server.lifecycle.orders import RouterLease
from grove_server.resources.meta import Key, Kind, Metadata, key_of
from grove_server.resources.routing import RouterRegistration, registration_key
from grove_server.store.errors import StoreUnavailableError
from grove_server.store.interface import Delete, Missing, Notice, Put, Store
from grove_server.telemetry.logs import get_logger

CAUSE: Final = "routers"
LEASE_S: Final = 15.0
# Each pod carries the names of the routers that acknowledged its drain, so a set has a bounded number of them.
ROUTERS_PER_SET_MAX: Final = 64
ROUTERS_MAX: Final = 10_000
_RETRY_S: Final = 1.0

_log = get_logger("control")


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownRouter:
    """A registered router: what is stored, its open watches, and what is left of its lease in seconds."""

    registration: RouterRegistration
    watches: int
    left_s: float


class TooManyRoutersError(RuntimeError):
    """A set, or the server, has as many routers as it may have."""

    def __init__(self, count_max: int, *, of_set: bool) -> None:
        super().__init__(f"there are {count_max} routers already")
        self.count_max = count_max
        self.of_set = of_set


class Routers(Supervised):
    """The registrations in the store and the leases on them."""

    def __init__(self, store: Store, clock: Clock) -> None:
        super().__init__("routers")
        self._store = store
        self._clock = clock
        # Steady seconds. What is missing here was stored before the start and has a whole lease from then on.
        self._due_s: dict[Key, float] = {}
        self._watches: Counter[Key] = Counter()
        self._leaving: set[Key] = set()
        self._any = asyncio.Event()
        self._unsubscribe: Callable[[], None] | None = None

    def start(self) -> None:
        """Count every lease anew and forget routers from now on when theirs has run out."""
        self._unsubscribe = self._store.subscribe(self._observe)
        due_s = self._clock.steady() + LEASE_S
        self._due_s = {key_of(known): due_s for known in self._store.read().list(RouterRegistration)}
        if self._due_s:
            self._any.set()
        self.run_task(self._run)

    async def stop(self) -> None:
        """Stop counting; registrations stay."""
        if self._unsubscribe is not None:
            self._unsubscribe()
        await self.stop_task()

    def leases(self, namespace: str, set_name: str) -> tuple[RouterLease, ...]:
        """Return the leases of all routers that serve a set, by name; the end of each is an epoch time."""
        reader = self._store.read()
        if not reader.count(Kind.ROUTER_REGISTRATION):
            return ()
        now, steady_s = self._clock.now(), self._clock.steady()
        left_s: dict[str, float] = {}
        for scope in (set_name, ""):
            for known in reader.indexed(ROUTERS_BY_SET, (namespace, scope)):
                left_s[known.router] = max(left_s.get(known.router, 0.0), self._left_s(key_of(known), steady_s))
        return tuple(RouterLease(router=name, expires_at=now + left) for name, left in sorted(left_s.items()) if left)

    def known(self, namespace: str, set_name: str) -> list[KnownRouter]:
        """Return the routers of a set and those of its whole namespace, by name."""
        steady_s = self._clock.steady()
        rows = [
            row for scope in {set_name, ""} for row in self._store.read().indexed(ROUTERS_BY_SET, (namespace, scope))
        ]
        return [
            KnownRouter(
                registration=row, watches=self._watches[key_of(row)], left_s=self._left_s(key_of(row), steady_s)
            )
            for row in sorted(rows, key=lambda row: (row.router, row.set_name))
        ]

    def is_known(self, namespace: str, set_name: str, router: str) -> bool:
        """Return whether the router is registered for the set, or for all sets of the namespace."""
        reader = self._store.read()
        keys = [registration_key(namespace, scope, router) for scope in {set_name, ""}]
        return any(reader.get(key.kind, key.namespace, key.name) is not None for key in keys)

    async def renew(self, namespace: str, set_name: str, router: str) -> bool:
        """Give a router a whole lease; return whether it was new. From the return on, drains wait for it.

        Raises TooManyRoutersError or StoreUnavailableError.
        """
        key = registration_key(namespace, set_name, router)
        known = self._store.read().get(RouterRegistration, namespace, key.name)
        if known is not None and key not in self._leaving:
            self._due_s[key] = self._clock.steady() + LEASE_S
            return False
        self._demand_room(namespace, set_name)
        # Not conditional: another call may register the same router at the same time, and it may just be leaving.
        await self._store.commit([Put(self._registration(key, set_name, router))], cause=CAUSE)
        self._due_s[key] = self._clock.steady() + LEASE_S
        return True

    def touch(self, namespace: str, set_name: str, router: str) -> None:
        """Renew what leases the router has on the set; any call of its shows that it lives."""
        due_s = self._clock.steady() + LEASE_S
        for scope in (set_name, ""):
            key = registration_key(namespace, scope, router)
            if key in self._due_s:
                self._due_s[key] = due_s

    async def end(self, namespace: str, set_name: str, router: str) -> bool:
        """Forget a router that leaves; return whether it was known. Raises StoreUnavailableError."""
        return (await self._remove([registration_key(namespace, set_name, router)]))[0]

    @contextmanager
    def watching(self, namespace: str, set_name: str, router: str) -> Iterator[None]:
        """Keep a registered router's lease alive; a whole one is left at the end."""
        key = registration_key(namespace, set_name, router)
        self._watches[key] += 1
        try:
            yield
        finally:
            self._watches[key] -= 1
            if not self._watches[key]:
                del self._watches[key]
            if key in self._due_s:
                self._due_s[key] = self._clock.steady() + LEASE_S

    def _demand_room(self, namespace: str, set_name: str) -> None:
        reader = self._store.read()
        if len(reader.indexed(ROUTERS_BY_SET, (namespace, set_name))) >= ROUTERS_PER_SET_MAX:
            raise TooManyRoutersError(ROUTERS_PER_SET_MAX, of_set=True)
        if reader.count(Kind.ROUTER_REGISTRATION) >= ROUTERS_MAX:
            raise TooManyRoutersError(ROUTERS_MAX, of_set=False)

    def _registration(self, key: Key, set_name: str, router: str) -> RouterRegistration:
        return RouterRegistration(
            metadata=Metadata(
                name=key.name,
                namespace=key.namespace,
                uid=f"{key.namespace}/{key.name}",
                created_at=self._clock.now(),
            ),
            router=router,
            set_name=set_name,
        )

    def _left_s(self, key: Key, steady_s: float) -> float:
        if key in self._watches:
            return LEASE_S
        return max(0.0, self._due_s.get(key, steady_s + LEASE_S) - steady_s)

    def _observe(self, notices: Sequence[Notice]) -> None:
        if any(isinstance(notice.resource, RouterRegistration) for notice in notices):
            self._any.set()

    async def _run(self) -> None:
        while True:
            await self._any.wait()
            steady_s = self._clock.steady()
            known = [key_of(each) for each in self._store.read().list(RouterRegistration)]
            left_s = {key: self._left_s(key, steady_s) for key in known}
            over = sorted(key for key, left in left_s.items() if not left)
            if over:
                try:
                    await self._remove(over)
                except StoreUnavailableError:
                    # Nobody waits for them all the same: what counts is the lease.
                    await self._clock.sleep(_RETRY_S)
                    continue
                for key in over:
                    _log.info("router_lease_ran_out", namespace=key.namespace, router=key.name)
            elif left_s:
                await self._clock.sleep(min(left_s.values()))
            else:
                self._due_s.clear()
                self._any.clear()

    async def _remove(self, keys: Sequence[Key]) -> list[bool]:
        """Remove registrations; return of each whether it was there. A renewal meanwhile registers anew."""
        self._leaving.update(keys)
        try:
            outcomes = await self._store.commit([Delete(key) for key in keys], atomic=False, cause=CAUSE)
        finally:
            self._leaving.difference_update(keys)
        for key in keys:
            if self._store.read().get(key.kind, key.namespace, key.name) is None:
                self._due_s.pop(key, None)
        return [not isinstance(outcome, Missing) for outcome in outcomes]
