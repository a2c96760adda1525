"""Who sits where: keeps placement's occupancy in step with what pods hold and with what gangs are.

Rules: it costs nothing until somebody has to give way or queues are in use; then everything is taken in once, in
slices, and from there on only what changed. A pod is in it from the decision on that gives it its place until it has
given it back. Pods that leave already (draining, stopping, or told to in a commit on its way) no longer count for their
gang: they stand under a name of their own as surplus of the same queue and priority, so that a plan takes their places
first and asks nobody else to go for what is about to be free.

Names in the occupancy are ``namespace/name``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

from grove_server.control.decisions import Holdings
from grove_server.control.queue_book import QueueBook
from grove_server.placement.gang_facts import facts_of, facts_of_leaving, full_name, is_leaving
from grove_server.placement.occupancy import GangFacts, Occupancy, Seat
from grove_server.placement.requests import GPU_SHARE, Counting, nobody_counted
from grove_server.resources.meta import Key, Kind
from grove_server.resources.workload import Pod, PodGang
from grove_server.store.interface import Reader, Store

SLICE: Final = 500
"""Pods taken in at once."""


def key_of_name(name: str, kind: Kind) -> Key:
    """Return the key of a full name."""
    namespace, _, own = name.partition("/")
    return Key(kind, namespace, own)


class Seats:
    """The occupancy and what is not in it yet."""

    def __init__(
        self, store: Store, holdings: Holdings, queues: QueueBook, counting: Counting = nobody_counted
    ) -> None:
        self._store = store
        self._holdings = holdings
        self._queues = queues
        self.occupancy = Occupancy(counting)
        self.is_on = False
        # Counts what may have changed what queues use.
        self.version = 0
        self.leaving: set[Key] = set()
        self._stale: dict[Key, None] = {}
        self._stale_gangs: dict[Key, None] = {}
        self._used: dict[str, Counter[str]] | None = {}
        self._held_at: Counter[int] = Counter()

    # What changed.

    def touch(self, keys: Iterable[Key]) -> None:
        """Note that what pods hold, or whether they leave, has changed."""
        if self.is_on:
            self.version += 1
            self._stale.update(dict.fromkeys(keys))

    def touch_gang(self, key: Key) -> None:
        """Note that a gang, or the queue of its set, has changed."""
        if self.is_on:
            self.version += 1
            self._stale_gangs[key] = None

    def begin(self) -> None:
        """Take in everything from now on."""
        if not self.is_on:
            self.is_on = True
            self.version += 1
            self._stale = dict.fromkeys(self._holdings.keys())

    # Coming up to date.

    @property
    def is_current(self) -> bool:
        """Whether everything that is known has been taken in."""
        return not (self._stale or self._stale_gangs)

    def settle(self) -> None:
        """Take in everything; many pods at once only if the caller has taken them in by slices before."""
        while not self.is_current:
            self.take_in()

    def take_in(self) -> None:
        """Take in one slice of what changed."""
        batch = [key for key, _ in zip(self._stale, range(SLICE), strict=False)]
        for key in batch:
            del self._stale[key]
        reader = self._store.read()
        self._remove([name for name in (full_name(*key[1:]) for key in batch) if name in self.occupancy.pods])
        seats = [seat for key in batch if (seat := self._seat(key, reader)) is not None]
        self.occupancy.add_pods(seats)
        for seat in seats:
            self._count(seat, 1)
        if len(batch) < SLICE:
            gangs = [key for key, _ in zip(self._stale_gangs, range(SLICE), strict=False)]
            for key in gangs:
                del self._stale_gangs[key]
                self._follow_gang(key, reader)

    # What it says.

    def used(self) -> dict[str, Counter[str]]:
        """Return what the pods of each queue hold by resource, shares of GPUs in milli under GPU_SHARE."""
        self.settle()
        if self._used is None:
            self._used = {name: Counter(held) for name, held in self.occupancy.used_by_queue().items()}
        return self._used

    def leaving_of(self) -> set[str]:
        """Return the queues of which pods leave."""
        occupancy = self.occupancy
        rows = [row for name, row in occupancy.gangs.items() if is_leaving(name) and occupancy.pods_of(row)]
        return {occupancy.gang(row).queue for row in rows}

    def has_lower(self, priority: int) -> bool:
        """Return whether any pod belongs to a gang of a lower priority: without, nobody can give way."""
        return any(held < priority for held, pods in self._held_at.items() if pods > 0)

    def is_leaving(self, pod: Pod, key: Key) -> bool:
        """Return whether a pod is on its way out."""
        return key in self.leaving or not pod.is_active

    # Inside.

    def _remove(self, names: list[str]) -> None:
        for name in names:
            self._count(self.occupancy.seat(self.occupancy.pods[name]), -1)
        gangs = {self.occupancy.seat(self.occupancy.pods[name]).gang for name in names}
        self.occupancy.remove_pods(names)
        for gang in sorted(gangs):
            self._stale_gangs[key_of_name(gang, Kind.POD_GANG)] = None

    def _count(self, seat: Seat, sign: int) -> None:
        facts = self.occupancy.gang(self.occupancy.gangs[seat.gang])
        self._held_at[facts.priority] += sign
        if not self._held_at[facts.priority]:
            del self._held_at[facts.priority]
        if self._used is not None:
            used = self._used.setdefault(facts.queue, Counter())
            used["pods"] += sign
            for resource, amount in seat.shape.requests:
                if resource != "pods":
                    used[resource] += sign * amount
            if seat.shape.gpu_milli:
                used[GPU_SHARE] += sign * seat.shape.gpu_milli

    def _seat(self, key: Key, reader: Reader) -> Seat | None:
        holding = self._holdings.get(key)
        pod = reader.get(Pod, key.namespace, key.name)
        if holding is None or pod is None:
            return None
        gang = self._gang_of(pod, key, reader)
        return Seat(
            pod=full_name(key.namespace, key.name),
            gang=gang,
            clique=pod.identity.name,
            index=pod.index,
            node=holding.node,
            shape=holding.shape,
            gpu_ids=holding.gpu_ids,
        )

    def _gang_of(self, pod: Pod, key: Key, reader: Reader) -> str:
        """Return the name under which a pod stands, and see to it that the occupancy knows it."""
        name = full_name(key.namespace, pod.identity.gang)
        gang = reader.get(PodGang, key.namespace, pod.identity.gang)
        facts = self._facts(gang) if gang is not None else GangFacts(name=name)
        if self.is_leaving(pod, key):
            facts = facts_of_leaving(facts)
        known = self.occupancy.gangs.get(facts.name)
        if known is None:
            self.occupancy.set_gang(facts)
        elif self.occupancy.gang(known) != facts:
            self._replace(facts)
        return facts.name

    def _facts(self, gang: PodGang) -> GangFacts:
        return facts_of(gang, self._queues.name_of(gang))

    def _follow_gang(self, key: Key, reader: Reader) -> None:
        name = full_name(key.namespace, key.name)
        row = self.occupancy.gangs.get(name)
        if row is None:
            return
        if not self.occupancy.pods_of(row):
            self.occupancy.drop_gang(name)
            return
        gang = reader.get(PodGang, key.namespace, key.name)
        if gang is not None and (facts := self._facts(gang)) != self.occupancy.gang(row):
            self._replace(facts)

    def _replace(self, facts: GangFacts) -> None:
        """Take over what a gang is now; what its pods hold counts for its queue and priority as they are now."""
        row = self.occupancy.gangs[facts.name]
        before = self.occupancy.gang(row)
        self.occupancy.set_gang(facts)
        if before.queue != facts.queue:
            self._used = None
        if before.priority != facts.priority:
            pods = len(self.occupancy.pods_of(row))
            self._held_at[before.priority] -= pods
            self._held_at[facts.priority] += pods
