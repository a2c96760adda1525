"""Tells how queues stand: their status, and metrics.

Rules: written at most once in REST_S, and only what changed; a status is for people and dashboards, nothing is decided
by it. A queue shows itself together with all queues below it. Queues that nobody stored (the default one, if nobody
changed it) have metrics and no status.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from grove_server.control.precedence import Precedence
from grove_server.control.queue_book import QueueBook
from grove_server.placement.queues import QueueTree, quota_amounts, scale_of
from grove_server.placement.requests import GPU_RESOURCE
from grove_server.resources.quantity import Form, Quantity
from grove_server.resources.queues import Queue
from grove_server.resources.workload import PodGang
from grove_server.store.errors import StoreUnavailableError
from grove_server.store.interface import Change, Outcome, Put, Store
from grove_server.telemetry import metrics

REST_S: Final = 1.0

_CAUSE: Final = "queues"
_SLICE: Final = 500
_MILLI: Final = 1000
_NANO: Final = 10**9
_IN_MILLI: Final = ("cpu", GPU_RESOURCE)
_IN_BYTES: Final = ("memory", "ephemeral-storage")


class QueueStatuses:
    """Statuses of all queues of a server."""

    def __init__(self, store: Store, queues: QueueBook, precedence: Precedence) -> None:
        self._store = store
        self._queues = queues
        self._precedence = precedence
        self._was_in_use = False
        self.is_stale = False

    def note_change(self) -> None:
        """Note that some queue may stand otherwise now."""
        self.is_stale = self.is_stale or self._queues.is_in_use or self._was_in_use

    async def show(self) -> None:
        """Write the statuses that changed, and publish all of them."""
        self.is_stale = False
        self._was_in_use = self._queues.is_in_use
        running, pending = await self._gangs()
        tree = self._queues.tree
        used, fair = self._precedence.used(), self._precedence.fair()
        running, pending = _with_below(tree, running), _with_below(tree, pending)
        held = {resource: _with_below(tree, amounts) for resource, amounts in _by_resource(used).items()}
        due = {name: {r: int(share * scale_of(r)) for r, share in amounts.items()} for name, amounts in fair.items()}
        shares = {name: {r: _units(r, share) for r, share in amounts.items()} for name, amounts in due.items()}
        uses = {name: {r: _units(r, amounts[name]) for r, amounts in held.items()} for name in tree.numbers}
        metrics.show_queues(used=uses, fair=shares, pending=pending)
        changes: list[Change] = []
        for queue in self._store.read().sorted_list(Queue):
            name = queue.metadata.name
            if name not in tree.numbers:
                continue
            status = replace(
                queue.status,
                observed_generation=queue.metadata.generation,
                used=_quantities({resource: amounts[name] for resource, amounts in held.items()}),
                fair_share=_quantities(due.get(name, {})),
                running_gangs=running[name],
                pending_gangs=pending[name],
            )
            if status != queue.status:
                changes.append(Put(replace(queue, status=status), queue.resource_version))
        if changes:
            self._store.commit_soon(changes, atomic=False, cause=_CAUSE).add_done_callback(_look_at)

    async def _gangs(self) -> tuple[Counter[str], Counter[str]]:
        """Return how many gangs of each queue have places, and how many wait; by slices, for there may be many."""
        running: Counter[str] = Counter()
        pending: Counter[str] = Counter()
        for number, gang in enumerate(list(self._store.read().list(PodGang)), start=1):
            if gang.status.scheduled_at is not None:
                running[self._queues.name_of(gang)] += 1
            elif gang.metadata.deleted_at is None:
                pending[self._queues.name_of(gang)] += 1
            if number % _SLICE == 0:
                await asyncio.sleep(0)
        return running, pending


def _look_at(future: asyncio.Future[tuple[Outcome, ...]]) -> None:
    """Let faults be seen; a store that takes no changes tells that by itself, and a lost race is made good later."""
    error = future.exception()
    if error is not None and not isinstance(error, StoreUnavailableError):
        raise error


def _by_resource(used: Mapping[str, Mapping[str, int]]) -> dict[str, Counter[str]]:
    """Return amounts by resource and queue."""
    found: dict[str, Counter[str]] = {}
    for queue, amounts in used.items():
        for resource, amount in quota_amounts(amounts).items():
            if amount:
                found.setdefault(resource, Counter())[queue] += amount
    return found


def _with_below(tree: QueueTree, own: Mapping[str, int]) -> Counter[str]:
    """Return a number of each queue with those of all queues below it."""
    total: Counter[str] = Counter()
    for name, number in own.items():
        for above in tree.lineage(name) if name in tree.numbers else ():
            total[above] += number
    return total


def _quantities(amounts: Mapping[str, int]) -> dict[str, str]:
    return {
        resource: str(Quantity(_nano(resource, amount), _form(resource)))
        for resource, amount in sorted(amounts.items())
        if amount
    }


def _nano(resource: str, amount: int) -> int:
    return amount * _NANO // _MILLI if resource in _IN_MILLI else amount * _NANO


def _units(resource: str, amount: int) -> float:
    return amount / _MILLI if resource in _IN_MILLI else float(amount)


def _form(resource: str) -> Form:
    return Form.BINARY if resource in _IN_BYTES or resource.startswith("hugepages-") else Form.DECIMAL
