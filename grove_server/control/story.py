"""The story of each resource: its last transitions, with what changed and why.

Made from the store's notices alone, so that it tells what everybody saw, and kept in memory alone: it begins when the
server starts. What must outlive that is in conditions and events.

Bounded three ways: transitions per resource, resources, and transitions in all. The resource that changed longest ago
is forgotten first, whether or not it still exists, so that a story also tells how a resource ended. A count that moves
on in small steps is one transition that says how far it came.

Pods, cliques and gangs change by the ten thousand and few are asked about: of them both states are kept, and put into
words for whoever asks. Sets and nodes may be large, so that their changes are put into words at once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from grove_server.control.clock import Clock
from grove_server.control.transitions import CREATED, REMOVED, Difference, differences
from grove_server.resources.meta import Key, Kind, Resource
from grove_server.resources.workload import Pod, PodClique
from grove_server.store.interface import NO_ORIGIN, ChangeType, Notice, Origin
from grove_server.telemetry import metrics

TRANSITIONS_PER_RESOURCE_MAX: Final = 50
RESOURCES_MAX: Final = 20_000
# About 60 MB; the other two bounds together would allow a million.
TRANSITIONS_MAX: Final = 200_000
# Steps of a count that follow one another within this time are told as one.
MERGE_S: Final = 5.0

# Events tell of others, and templates are part of what refers to them.
_UNTOLD: Final = frozenset({Kind.EVENT, Kind.POD_TEMPLATE, Kind.ROUTER_REGISTRATION, Kind.AUTOSCALER_ROSTER})
# Small, and many: their states are kept.
_KEPT: Final = frozenset({Kind.POD, Kind.POD_CLIQUE, Kind.POD_GANG})
_COUNTS: Final = frozenset(
    {
        "availableReplicas",
        "podSerial",
        "readyReplicas",
        "replicas",
        "scheduleGatedReplicas",
        "scheduledReplicas",
        "terminatingReplicas",
        "updatedReplicas",
    }
)


class Transition(NamedTuple):
    """One step of a resource's life. Times are epoch seconds.

    ``cause`` is who wrote it ("workload", "placement", "runtime", "api.scale"), ``origin`` tells more of that where it
    is known. ``steps`` steps between ``since`` and ``at`` are told as one.
    """

    at: float
    version: int
    uid: str
    cause: str
    origin: Origin
    changes: tuple[Difference, ...]
    steps: int
    since: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """What is remembered of one name: of all resources that had it one after the other, the oldest first.

    ``forgotten_count`` earlier transitions are no longer known; nothing is known from before ``since``.
    """

    transitions: tuple[Transition, ...]
    forgotten_count: int
    since: float


class _Seen(NamedTuple):
    """A change that nobody asked about yet."""

    at: float
    version: int
    cause: str
    origin: Origin
    before: Resource
    after: Resource
    steps: int
    since: float


@dataclass(slots=True)
class _Pages:
    transitions: list[Transition | _Seen]
    forgotten_count: int = 0


class StoryTeller:
    """Listens to the store. All methods belong to the event loop."""

    def __init__(
        self,
        clock: Clock,
        *,
        resources_max: int = RESOURCES_MAX,
        transitions_max: int = TRANSITIONS_MAX,
        per_resource_max: int = TRANSITIONS_PER_RESOURCE_MAX,
    ) -> None:
        self._clock = clock
        self._resources_max = resources_max
        self._transitions_max = transitions_max
        self._per_resource_max = per_resource_max
        self._pages: OrderedDict[tuple[Kind, str, str], _Pages] = OrderedDict()
        self._transition_count = 0
        self._began_at = clock.now()

    def observe(self, notices: Sequence[Notice]) -> None:
        """Write down what became visible."""
        now = self._clock.now()
        for notice in notices:
            if notice.resource.kind not in _UNTOLD:
                self._observe(notice, now)
        self._forget()

    def of(self, key: Key, *, uid: str = "") -> Story:
        """Return what is remembered of *key*, or only of the resource with *uid*; empty if that is nothing."""
        pages = self._pages.get((key.kind, key.namespace, key.name))
        if pages is None:
            return Story(transitions=(), forgotten_count=0, since=self._began_at)
        told = (_told(each) for each in pages.transitions)
        return Story(
            transitions=tuple(each for each in told if each.changes and uid in ("", each.uid)),
            forgotten_count=pages.forgotten_count,
            since=self._began_at,
        )

    def show(self) -> None:
        """Publish how much is remembered."""
        metrics.STORY_RESOURCES.set(len(self._pages))
        metrics.STORY_TRANSITIONS.set(self._transition_count)

    def _observe(self, notice: Notice, now: float) -> None:
        resource, previous = notice.resource, notice.previous
        if previous is not None and resource.kind in _KEPT and notice.kind is ChangeType.MODIFIED:
            self._write(_Seen(now, notice.version, notice.cause, notice.origin, previous, resource, 1, now), resource)
            return
        if notice.kind is ChangeType.DELETED:
            changes: tuple[Difference, ...] = _REMOVED
        elif previous is None:
            changes = _CREATED
        else:
            changes = differences(previous, resource)
            if not changes:
                return
        uid, origin = resource.metadata.uid, _origin(notice, resource)
        self._write(Transition(now, notice.version, uid, notice.cause, origin, changes, 1, now), resource)

    def _write(self, fresh: Transition | _Seen, resource: Resource) -> None:
        metadata = resource.metadata
        key = (resource.kind, metadata.namespace, metadata.name)
        pages = self._pages.get(key)
        if pages is None:
            pages = self._pages[key] = _Pages([])
        else:
            self._pages.move_to_end(key)
        transitions = pages.transitions
        merged = _merged(transitions[-1], fresh) if transitions else None
        if merged is not None:
            transitions[-1] = merged
            return
        transitions.append(fresh)
        if len(transitions) > self._per_resource_max:
            del transitions[0]
            pages.forgotten_count += 1
        else:
            self._transition_count += 1

    def _forget(self) -> None:
        """Keep the bounds: whole stories go, the one that went on longest ago first."""
        while len(self._pages) > self._resources_max or (
            self._transition_count > self._transitions_max and len(self._pages) > 1
        ):
            _, pages = self._pages.popitem(last=False)
            self._transition_count -= len(pages.transitions)
            metrics.STORY_FORGOTTEN.inc()


_CREATED: Final = (Difference(CREATED),)
_REMOVED: Final = (Difference(REMOVED),)


def _told(seen: Transition | _Seen) -> Transition:
    if isinstance(seen, Transition):
        return seen
    at, version, cause, origin, before, after, steps, since = seen
    return Transition(at, version, after.metadata.uid, cause, origin, differences(before, after), steps, since)


def _origin(notice: Notice, resource: Resource) -> Origin:
    """Return what is known of a change; a pod that stops says itself why."""
    if notice.origin is NO_ORIGIN and notice.kind is ChangeType.DELETED and isinstance(resource, Pod):
        return Origin(reason=str(resource.stop_reason)) if resource.stop_reason else NO_ORIGIN
    return notice.origin


def _merged(last: Transition | _Seen, fresh: Transition | _Seen) -> Transition | _Seen | None:
    """Return both as one if they are steps of the same counts, else None."""
    if last.cause != fresh.cause or fresh.at - last.since > MERGE_S or last.origin != fresh.origin:
        return None
    if isinstance(last, Transition):
        return _merged_words(last, fresh) if isinstance(fresh, Transition) else None
    if isinstance(fresh, _Seen) and _are_counts(last) and _are_counts(fresh):
        return fresh._replace(before=last.before, steps=last.steps + 1, since=last.since)
    return None


def _merged_words(last: Transition, fresh: Transition) -> Transition | None:
    if last.uid != fresh.uid or len(last.changes) != len(fresh.changes):
        return None
    for old, new in zip(last.changes, fresh.changes, strict=True):
        if old.what != new.what or new.what not in _COUNTS:
            return None
    changes = tuple(
        Difference(new.what, old.before, new.after) for old, new in zip(last.changes, fresh.changes, strict=True)
    )
    return fresh._replace(changes=changes, steps=last.steps + 1, since=last.since)


def _are_counts(seen: _Seen) -> bool:
    """Return whether only counts in a clique's status changed; seen at a glance, so that some others pass for more."""
    before, after = seen.before, seen.after
    return (
        isinstance(before, PodClique)
        and isinstance(after, PodClique)
        and before.replicas == after.replicas
        and before.template is after.template
        and before.metadata is after.metadata
        and before.status.conditions == after.status.conditions
    )
