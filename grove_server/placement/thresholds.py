"""Who has to be asked again when queues use less: waiting gangs by the amounts that a queue must not exceed for them.

Rules: a gang waits until one of its ways is open; a way is some ceilings, each for what one queue, with all below it,
has of one resource. A way is filed under one ceiling that is exceeded, so a change of use costs a look per queue and
resource, whoever waits; where that one holds again, the way moves to the next one that does not. Gangs that wait for
the same share a record, and of a record no more wake than there could be room for, the first in order. A way that is
open when it is filed did not help and is left out. Method: watched literals, as in `wake_ups`.

Not here: what is used (the caller says it each time), who waits for places (`wake_ups`).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeAlias, TypeVar

from grove_server.placement.queues import UNLIMITED, QueueTree, quota_amounts

K = TypeVar("K", bound=Hashable)

Totals: TypeAlias = Callable[[str, str], int]
"""Returns what a queue has of a resource, with all below it."""


class Ceiling(NamedTuple):
    """A queue may have so much of a resource at most; with each gang that comes it has `each` more."""

    queue: str
    resource: str
    most: int
    each: int


Way: TypeAlias = tuple[Ceiling, ...]


@dataclass(slots=True, eq=False)
class _Record(Generic[K]):
    """Gangs that wait for the same, in order; `watched`: by way the ceiling that is exceeded, None = none is."""

    number: int
    ways: tuple[Way, ...]
    members: list[tuple[tuple[object, ...], K]] = field(default_factory=list)
    watched: dict[int, Ceiling | None] = field(default_factory=dict)


class Thresholds(Generic[K]):
    """Waiting gangs of one tree of queues, by a key of the caller's."""

    def __init__(self) -> None:
        self._records: dict[tuple[Way, ...], _Record[K]] = {}
        self._by_number: dict[int, _Record[K]] = {}
        self._of_key: dict[K, tuple[_Record[K], tuple[object, ...]]] = {}
        self._watched: dict[tuple[str, str], list[tuple[int, int, int]]] = {}
        self._open: dict[int, _Record[K]] = {}
        self._count = 0

    def __len__(self) -> int:
        return len(self._of_key)

    def file(self, key: K, ways: Iterable[Way], totals: Totals, *, order: tuple[object, ...]) -> bool:
        """Note what a gang waits for, in place of what was noted before; nothing if no way of it is shut.

        Return whether others may have what it did not take.
        """
        shut = tuple(way for way in ways if _exceeded(way, totals) is not None)
        before = self._of_key.get(key)
        if before is not None and before[0].ways == shut and before[1] == order:
            self._settle(before[0], totals)
            return False
        is_left = self.drop(key)
        if not shut:
            return is_left
        record = self._records.get(shut)
        if record is None:
            self._count += 1
            record = self._records[shut] = self._by_number[self._count] = _Record(self._count, shut)
        insort(record.members, (order, key))
        self._of_key[key] = record, order
        self._settle(record, totals)
        return is_left

    def drop(self, key: K) -> bool:
        """Forget a gang; return whether others may have what it did not take."""
        found = self._of_key.pop(key, None)
        if found is None:
            return False
        record, order = found
        del record.members[bisect_left(record.members, (order, key))]
        is_open = record.number in self._open
        if not record.members:
            self._unwatch(record)
            del self._records[record.ways], self._by_number[record.number]
        return is_open and bool(record.members)

    def woken(self, totals: Totals) -> list[K]:
        """Return the gangs for which a way is open now: of each record as many as there could be room for."""
        for place, line in list(self._watched.items()):
            reached = bisect_left(line, (totals(*place), 0, 0))
            for number in dict.fromkeys(number for _, number, _ in line[reached:]):
                self._settle(self._by_number[number], totals)
        found: dict[K, None] = {}
        for record in list(self._open.values()):
            self._settle(record, totals)
            most = max((_room(way, totals) for way in record.ways), default=0)
            found.update((key, None) for _, key in record.members[:most])
        return list(found)

    # -- inside --------------------------------------------------------------------------------------------------

    def _settle(self, record: _Record[K], totals: Totals) -> None:
        """File each way of a record under what is exceeded now; it is open if nothing of one is."""
        self._unwatch(record)
        for at, way in enumerate(record.ways):
            ceiling = record.watched[at] = _exceeded(way, totals)
            if ceiling is not None:
                line = self._watched.setdefault((ceiling.queue, ceiling.resource), [])
                insort(line, (ceiling.most, record.number, at))
        if any(ceiling is None for ceiling in record.watched.values()):
            self._open[record.number] = record

    def _unwatch(self, record: _Record[K]) -> None:
        self._open.pop(record.number, None)
        for at, ceiling in record.watched.items():
            if ceiling is not None:
                place = ceiling.queue, ceiling.resource
                line = self._watched[place]
                del line[bisect_left(line, (ceiling.most, record.number, at))]
                if not line:
                    del self._watched[place]
        record.watched.clear()


def _exceeded(way: Way, totals: Totals) -> Ceiling | None:
    """Return the first ceiling that is exceeded."""
    return next((each for each in way if totals(each.queue, each.resource) > each.most), None)


def _room(way: Way, totals: Totals) -> int:
    """Return how many gangs could come at once; 0 if none could."""
    return max(0, min(1 + (each.most - totals(each.queue, each.resource)) // each.each for each in way))


def ways_within_limits(tree: QueueTree, queue: str, amounts: Mapping[str, int]) -> tuple[Way, ...]:
    """Return what has to hold so that amounts come within the limits of a queue and those above it; () if none bind."""
    amounts = quota_amounts(amounts)
    way = tuple(
        Ceiling(name, resource, int(tree.limit[row, tree.numbers[name]]) - amounts[resource], amounts[resource])
        for name in tree.lineage(queue)
        for resource, row in tree.resources.items()
        if amounts.get(resource) and tree.limit[row, tree.numbers[name]] < UNLIMITED
    )
    return (way,) if way else ()


def ways_within_guarantee(tree: QueueTree, queue: str, amounts: Mapping[str, int]) -> tuple[Way, ...]:
    """Return by queue, from the given one up, what has to hold so that it is guaranteed amounts more."""
    amounts = quota_amounts(amounts)
    asked = [name for name, row in tree.resources.items() if amounts.get(name) and tree.guarantee[row].any()]
    ways = []
    for name in tree.lineage(queue):
        number = tree.numbers[name]
        bounds = [(each, int(tree.guarantee[tree.resources[each], number]) - amounts[each]) for each in asked]
        if bounds and all(most >= 0 for _, most in bounds):
            ways.append(tuple(Ceiling(name, each, most, amounts[each]) for each, most in bounds))
    return tuple(ways)
