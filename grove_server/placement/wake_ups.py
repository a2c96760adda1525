"""Who has to be asked again when something grew: pending requests by what they lack.

Rules: requests that differ in names alone fail alike, so they share one record and one verdict, which answers the next
of them as long as nothing grew that could help. A record is filed under one thing that it lacks: so many pods of a
shape in one domain of a level. What grows is compared with what the records of that shape and level lack least, so a
change costs a look per shape and level, whoever waits. Where the lack is gone, the record moves to the next one; with
none left it wakes, if what grew is of use to it at all. Of a record no more wake than there could be room for, the
first in order. Sound: whoever could be placed now, and could not before something grew, wakes.
Methods: watched literals of SAT solvers (Moskewicz et al., "Chaff", 2001); one failure for equal pods as in Kueue's
KEP-9694.

Not here: whether a request fits (`place`), when anybody looks (the placement loop).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Final, Generic, NamedTuple, TypeAlias, TypeVar

import numpy as np

from grove_server.placement.cluster import Cluster
from grove_server.placement.requests import CliqueRequest, DomainPath, GangRequest, GroupRequest, PodShape
from grove_server.placement.results import Verdict
from grove_server.placement.topology import IntArray, Layout

K = TypeVar("K", bound=Hashable)

LACKS_MAX: Final = 64
"""Most things that one record may lack; a request with more scopes is judged by its first ones."""

_Scope: TypeAlias = GangRequest | GroupRequest | CliqueRequest


class Place(NamedTuple):
    """Where room is looked for: pods of a shape in one domain of a level ("" = everywhere), inside a domain."""

    topology: tuple[str, ...]
    shape: PodShape
    level: str
    within: DomainPath


class Lack(NamedTuple):
    """So many pods have to fit one domain of a place."""

    place: Place
    pods: int


@dataclass(slots=True, eq=False)
class _Record(Generic[K]):
    """Requests that differ in names alone, in order.

    `lack` is what they are filed under, None = nothing known; `awake`: so many of the first were woken and are still to
    be decided.
    """

    request: GangRequest
    verdict: Verdict
    lacks: tuple[Lack, ...]
    number: int
    members: list[tuple[tuple[object, ...], K]] = field(default_factory=list)
    lack: Lack | None = None
    awake: int = 0


class WakeUps(Generic[K]):
    """Pending requests of one cluster, by a key of the caller's. A key may have several: the parts of a gang."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._records: dict[Hashable, _Record[K]] = {}
        self._of_key: dict[K, dict[Hashable, tuple[object, ...]]] = {}
        self._watched: dict[Place, list[tuple[int, int]]] = {}
        self._by_number: dict[int, _Record[K]] = {}
        self._free: dict[int, _Record[K]] = {}
        self._due: dict[K, None] = {}
        self._count = 0

    def __len__(self) -> int:
        return len(self._of_key)

    @property
    def record_count(self) -> int:
        """Return how many different requests wait."""
        return len(self._records)

    def known(self, request: GangRequest, lane: Hashable = ()) -> Verdict | None:
        """Return the verdict on an equal request if it still holds, with this one's names; None: it has to be asked.

        A proof holds until something grows that could help, any other verdict as long as nothing changes at all.
        """
        record = self._records.get((lane, signature_of(request)))
        if record is None:
            return None
        verdict = record.verdict
        is_lasting = verdict.proof and not request.rules
        if verdict.generation != self._cluster.generation and not (
            is_lasting and not self._cluster.may_help(request, verdict.generation)
        ):
            return None
        return renamed(verdict, record.request, request)

    def file(
        self,
        key: K,
        failed: Iterable[tuple[GangRequest, Verdict]],
        *,
        order: tuple[object, ...],
        lane: Hashable = (),
    ) -> None:
        """Note which requests of a key failed, in place of what was filed before; none: it waits for other things.

        `order` says who wakes first; only requests of one `lane` share a record.
        """
        before = self._of_key.pop(key, {})
        mine = {(lane, signature_of(request)): (request, verdict) for request, verdict in failed}
        for signature, old_order in before.items():
            if signature not in mine or old_order != order:
                self._leave(signature, old_order, key, has_room=signature not in mine)
        for signature, (request, verdict) in mine.items():
            record = self._records.get(signature)
            if record is None:
                self._count += 1
                lacks = () if request.rules else lacks_of(request)
                record = _Record(request, verdict, lacks, self._count)
                self._records[signature] = self._by_number[record.number] = record
                self._watch(record)
            else:
                self._fail_anew(record, verdict)
            if before.get(signature) != order:
                insort(record.members, (order, key))
        if mine:
            self._of_key[key] = dict.fromkeys(mine, order)

    def drop(self, key: K, *, is_gone: bool = False) -> None:
        """Forget a key that waits no more. `is_gone`: it did not take the room that woke it, so the next is due."""
        for signature, order in self._of_key.pop(key, {}).items():
            self._leave(signature, order, key, has_room=is_gone)

    @property
    def has_due(self) -> bool:
        """Return whether somebody is due whatever grew: those before them did not take the room."""
        return bool(self._due)

    def take_due(self) -> list[K]:
        """Return who is due, once."""
        due, self._due = self._due, {}
        return [key for key in due if key in self._of_key]

    def woken(self, generation: int) -> list[K]:
        """Return whom the growth after a generation may help, the first of each record, as many as could be placed."""
        found: dict[K, None] = {}
        for place in list(self._watched):
            waiting = self._watched[place]
            most = self._room(place).max(initial=0)
            reached = bisect_right(waiting, (int(most), self._count))
            for _, number in waiting[:reached]:
                record = self._by_number[number]
                self._unwatch(record)
                self._watch(record)
        for record in list(self._free.values()):
            since = max(generation, record.verdict.generation)
            # Where other pods are opens whole domains, also those in which nothing grew.
            is_moved = bool(record.request.rules) and self._cluster.capacity_grew_since(since)
            if is_moved or self._cluster.may_help(record.request, since):
                record.awake = self._most(record)
                found.update((key, None) for _, key in record.members[: record.awake])
        return list(found)

    def shapes(self) -> dict[PodShape, int]:
        """Return how many pods of each shape wait, optional ones included."""
        pods: dict[PodShape, int] = {}
        for record in self._records.values():
            for clique in _cliques(record.request):
                count = (clique.minimum + clique.optional) * len(record.members)
                pods[clique.shape] = pods.get(clique.shape, 0) + count
        return pods

    # -- inside --------------------------------------------------------------------------------------------------

    def _watch(self, record: _Record[K]) -> None:
        """File a record under the first thing that it lacks now."""
        for lack in record.lacks:
            if int(self._room(lack.place).max(initial=0)) < lack.pods:
                record.lack = lack
                insort(self._watched.setdefault(lack.place, []), (lack.pods, record.number))
                return
        record.lack = None
        self._free[record.number] = record

    def _unwatch(self, record: _Record[K]) -> None:
        if record.lack is None:
            self._free.pop(record.number, None)
            return
        waiting = self._watched[record.lack.place]
        del waiting[bisect_left(waiting, (record.lack.pods, record.number))]
        if not waiting:
            del self._watched[record.lack.place]

    def _fail_anew(self, record: _Record[K], verdict: Verdict) -> None:
        """Note that one of a record failed again: so do the others."""
        record.awake = 0
        if verdict.generation <= record.verdict.generation:
            return
        record.verdict = verdict
        if record.lack is None:
            self._unwatch(record)
            self._watch(record)

    def _leave(self, signature: Hashable, order: tuple[object, ...], key: K, *, has_room: bool) -> None:
        """Take a key out of a record; with `has_room` it leaves what woke it to the next one."""
        record = self._records[signature]
        at = bisect_left(record.members, (order, key))
        del record.members[at]
        if at < record.awake:
            record.awake -= 1
            if has_room and len(record.members) > record.awake:
                self._due[record.members[record.awake][1]] = None
                record.awake += 1
        if not record.members:
            del self._records[signature]
            del self._by_number[record.number]
            self._unwatch(record)

    def _most(self, record: _Record[K]) -> int:
        """Return how many of a record's requests could be placed at most."""
        most = len(record.members)
        for lack in record.lacks:
            most = min(most, int((self._room(lack.place) // lack.pods).sum()))
        return most

    def _room(self, place: Place) -> IntArray:
        """Return how many pods of the shape fit each domain of a place: int64[domains]; empty if it is unknown."""
        layout = self._cluster.layout(place.topology)
        everywhere = self._cluster.request_class(place.shape, layout).everywhere
        level = _level_of(layout, place.level)
        if level is None or len(layout.slots) == 0 or any(layout.level_of(key) is None for key, _ in place.within):
            return np.zeros(0, dtype=np.int64)
        room = everywhere[level] * layout.levels[level].is_named if level else everywhere[0]
        if not place.within:
            return room
        parts = []
        for outer, domain in layout.find(place.within):
            if outer >= level:
                parts.append(everywhere[outer][domain : domain + 1])
            else:
                parts.append(room[slice(*layout.domains_in(level, *layout.span(outer, domain)))])
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)


def _level_of(layout: Layout, key: str) -> int | None:
    return layout.level_of(key) if key else 0


def lacks_of(request: GangRequest) -> tuple[Lack, ...]:
    """Return what a request needs at least, by shape: in one domain for each scope that asks for one, and in all.

    Parts that are all optional need one pod. The narrowest come first: they say most.
    """
    lacks: dict[Place, int] = {}
    _collect(request, request.topology, "", (), lacks)
    depth = {key: index for index, key in enumerate(request.topology, start=1)}
    ordered = sorted(lacks.items(), key=lambda item: -depth.get(item[0].level, 0))
    return tuple(Lack(place, pods) for place, pods in ordered[:LACKS_MAX])


def _collect(
    scope: _Scope, topology: tuple[str, ...], level: str, within: DomainPath, lacks: dict[Place, int]
) -> dict[PodShape, int]:
    """Note what a scope and those below need; return its pods by shape."""
    is_narrower = scope.required is not None and (not level or _deeper(topology, scope.required, level))
    own_level = scope.required if is_narrower and scope.required is not None else level
    own_within = scope.within or within
    if isinstance(scope, CliqueRequest):
        pods = {scope.shape: scope.minimum} if scope.minimum else {}
    else:
        pods = {}
        for member in scope.members:
            for shape, count in _collect(member, topology, own_level, own_within, lacks).items():
                pods[shape] = pods.get(shape, 0) + count
    if isinstance(scope, GangRequest) or is_narrower or scope.within:
        wanted = pods or _only_optional(scope)
        for shape, count in wanted.items():
            place = Place(topology, shape, own_level, own_within)
            lacks[place] = max(lacks.get(place, 0), count)
    return pods


def _only_optional(scope: _Scope) -> dict[PodShape, int]:
    """Return one pod of the only clique of a gang that asks for optional pods alone."""
    if isinstance(scope, GangRequest) and len(scope.members) == 1:
        member: _Scope = scope.members[0]
        while isinstance(member, GroupRequest) and len(member.members) == 1:
            member = member.members[0]
        if isinstance(member, CliqueRequest) and member.optional:
            return {member.shape: 1}
    return {}


def _deeper(topology: tuple[str, ...], one: str, other: str) -> bool:
    return one in topology and (other not in topology or topology.index(one) > topology.index(other))


def _cliques(scope: _Scope) -> Iterator[CliqueRequest]:
    if isinstance(scope, CliqueRequest):
        yield scope
        return
    for member in scope.members:
        yield from _cliques(member)


def renamed(verdict: Verdict, said_of: GangRequest, request: GangRequest) -> Verdict:
    """Return the verdict on one request as that on another of the same signature."""
    names = dict(zip(_names(said_of), _names(request), strict=True))
    return replace(verdict, gang=request.name, scope=names.get(verdict.scope, verdict.scope))


def signature_of(request: GangRequest) -> Hashable:
    """Return what two requests share that differ in names alone."""
    return _signature(request)


def _signature(scope: _Scope) -> Hashable:
    if isinstance(scope, CliqueRequest):
        return tuple(getattr(scope, name) for name in _CLIQUE_FIELDS)
    shared = _GANG_FIELDS if isinstance(scope, GangRequest) else _GROUP_FIELDS
    return (*map(_signature, scope.members), *(getattr(scope, name) for name in shared))


def _fields_of(scope: type[_Scope]) -> tuple[str, ...]:
    return tuple(each.name for each in fields(scope) if each.name not in {"name", "members"})


_CLIQUE_FIELDS: Final = _fields_of(CliqueRequest)
_GROUP_FIELDS: Final = _fields_of(GroupRequest)
_GANG_FIELDS: Final = _fields_of(GangRequest)


def _names(scope: _Scope) -> Iterator[str]:
    yield scope.name
    if not isinstance(scope, CliqueRequest):
        for member in scope.members:
            yield from _names(member)
