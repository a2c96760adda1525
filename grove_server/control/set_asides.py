"""Domains that are set aside for gangs which have waited too long, so that small work does not starve them.

Rules: when a gang has waited for its queue's ``earmarkAfter``, the domain that came closest is set aside for it: work
of no higher priority goes around it, until the gang has its places or goes. One gang of a queue at a time, the one that
has waited longest, or the cluster would be closed piece by piece. A gang that asks for no domain gets the narrowest one
that is large enough. What ran before gets its place back even there, so nothing that runs is hurt.

Not here: what a closed domain means for a decision (``placement.earmarks``).
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from grove_server.control.queue_book import QueueBook
from grove_server.lifecycle.gang_status import SCHEDULED
from grove_server.placement.cluster import Cluster
from grove_server.placement.earmarks import Earmark, closed_slots, earmark_for
from grove_server.placement.gang_facts import full_name
from grove_server.placement.place import place
from grove_server.placement.requests import GangRequest
from grove_server.placement.results import Verdict, short_level
from grove_server.resources.meta import Key, find_condition, key_of
from grove_server.resources.workload import PodGang

EARMARKS_MAX: Final = 32
"""Most domains set aside at a time."""


class SetAsides:
    """Earmarks by gang, and who is next."""

    def __init__(self, cluster: Cluster, queues: QueueBook) -> None:
        self._cluster = cluster
        self._queues = queues
        self._by_gang: dict[Key, tuple[str, Earmark]] = {}
        self._due: list[tuple[float, Key]] = []
        self._timed: dict[Key, float] = {}
        self._overdue: dict[str, dict[Key, None]] = {}

    @property
    def earmarks(self) -> Sequence[Earmark]:
        """The domains that are set aside."""
        return [earmark for _, earmark in self._by_gang.values()]

    @property
    def next_due_at(self) -> float | None:
        """When the next gang will have waited long enough, in epoch seconds."""
        while self._due and self._timed.get(self._due[0][1]) != self._due[0][0]:
            heapq.heappop(self._due)
        return self._due[0][0] if self._due else None

    def take_due(self, now: float) -> list[Key]:
        """Return the gangs that have waited long enough, each once."""
        found = []
        while (due_at := self.next_due_at) is not None and due_at <= now:
            _, key = heapq.heappop(self._due)
            found.append(key)
        return found

    def of(self, key: Key) -> Earmark | None:
        """Return the domain that is set aside for a gang."""
        found = self._by_gang.get(key)
        return None if found is None else found[1]

    def follow(
        self, gang: PodGang, request: GangRequest, verdict: Verdict, topology: tuple[str, ...], now: float
    ) -> Earmark | None:
        """Count on for a gang that found no room; return the domain that is set aside for it from now on, if one is.

        *topology* are levels to look for a domain in if the gang asks for none.
        """
        key = key_of(gang)
        queue = self._queues.name_of(gang)
        tree = self._queues.tree
        after_s = tree.spec(queue).earmark_after_s if queue in tree.numbers else None
        if after_s is None:
            self.drop(key)
            return None
        if key in self._by_gang:
            earmark = self._by_gang[key][1]
            if closed_slots(self._cluster, [earmark], "", earmark.priority).any() and earmark.priority == gang.priority:
                return None
            del self._by_gang[key]
        due_at = waits_since(gang, now) + after_s
        if due_at > now:
            if self._timed.get(key) != due_at:
                self._timed[key] = due_at
                heapq.heappush(self._due, (due_at, key))
            return None
        self._timed[key] = due_at
        if len(self._by_gang) >= EARMARKS_MAX or any(queue == other for other, _ in self._by_gang.values()):
            self._overdue.setdefault(queue, {})[key] = None
            return None
        found = self._found(gang, request, verdict, topology)
        if found is not None:
            self._by_gang[key] = (queue, found)
        return found

    def drop(self, key: Key) -> list[Key]:
        """Set nothing aside for a gang any more; return the gangs that may be next, the one waiting longest first."""
        self._timed.pop(key, None)
        for waiting in self._overdue.values():
            waiting.pop(key, None)
        if self._by_gang.pop(key, None) is None:
            return []
        following = [waiting for waiting in self._overdue.values() if waiting]
        return [min(waiting, key=lambda each: (self._timed.get(each, 0.0), each)) for waiting in following]

    def _found(
        self, gang: PodGang, request: GangRequest, verdict: Verdict, topology: tuple[str, ...]
    ) -> Earmark | None:
        earmark = earmark_for(verdict, gang.priority)
        if earmark is None and request.required is None:
            for level in reversed(topology):
                tried = place(self._cluster, replace(request, topology=topology, required=level))
                earmark = earmark_for(tried, gang.priority) if isinstance(tried, Verdict) else None
                if earmark is not None:
                    break
        name = full_name(gang.metadata.namespace, gang.metadata.name)
        return None if earmark is None else replace(earmark, gang=name)


def domain_text(earmark: Earmark) -> str:
    """Return the domain that is set aside, for people."""
    key, value = earmark.path[-1]
    return f"{short_level(key)} {value}"


def waits_since(gang: PodGang, now: float) -> float:
    """Return since when a gang has no places; a time to come, as after the clock was set back, counts as now."""
    scheduled = find_condition(gang.status.conditions, SCHEDULED)
    since = gang.metadata.created_at if scheduled is None else scheduled.last_transition_at
    return min(since, now)
