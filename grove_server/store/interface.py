"""What a store is: read, commit, subscribe, watch.

Rules every implementation keeps:

* One increasing integer numbers all changes of all kinds; each change has its own, and a commit's are consecutive.
* ``commit_soon`` decides at once, against what is visible **and** what waits to become durable. Its future resolves
  when the changes are durable and visible in ``read()``; nothing is visible earlier.
* Changes become visible in the order in which they were decided.
* ``atomic`` is an ability a store declares. A store without it answers per object, and its callers compensate.
* The view of ``read()`` is the live state, consistent as long as the caller does not await.

Deliberately not here: how anything is stored (``sqlite``), and queries beyond key, namespace and declared indexes.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar, overload

from grove_server.resources.meta import Key, Kind, Resource

R = TypeVar("R", bound=Resource)


@dataclass(frozen=True, slots=True)
class Put:
    """Create or replace one resource.

    ``expected`` None: unconditional; 0: it must not exist; n: it must be at version n. The version of ``resource``
    itself is ignored. A different uid under an existing key is another object: it meets Exists.
    """

    resource: Resource
    expected: int | None = None


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove one resource. ``expected`` n: it must be at version n."""

    key: Key
    expected: int | None = None


Change = Put | Delete


@dataclass(frozen=True, slots=True)
class Applied:
    """The change was made. ``resource`` is the stored state; None for a deletion."""

    key: Key
    version: int
    resource: Resource | None


@dataclass(frozen=True, slots=True)
class Conflict:
    """The resource is at another version than expected."""

    key: Key
    current_version: int


@dataclass(frozen=True, slots=True)
class Exists:
    """The resource was to be new, but one of that name exists."""

    key: Key


@dataclass(frozen=True, slots=True)
class Missing:
    """There is no such resource to delete or to replace."""

    key: Key


@dataclass(frozen=True, slots=True)
class Skipped:
    """Nothing was wrong with this change, but another of the same atomic commit failed."""

    key: Key


Outcome = Applied | Conflict | Exists | Missing | Skipped


class ChangeType(enum.StrEnum):
    """What happened to a resource."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"


@dataclass(frozen=True, slots=True)
class Origin:
    """Who wanted a commit and why: the caller of a call and its request id, or the sentence of a plan.

    Carried from commit to notices and never stored, so that the story of a resource can tell why it changed.
    """

    actor: str = ""
    request_id: str = ""
    reason: str = ""


NO_ORIGIN: Final = Origin()


@dataclass(slots=True)
class Notice:
    """One visible change, for the server's own loops. A deletion carries the last state in both places.

    ``cause`` and ``origin`` are those given to ``commit_soon``; by the cause a loop can tell its own changes from those
    of others.
    """

    kind: ChangeType
    resource: Resource
    previous: Resource | None
    version: int
    cause: str = ""
    origin: Origin = NO_ORIGIN


class EventType(enum.StrEnum):
    """What an event of a watch says."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    SYNCED = "SYNCED"
    BOOKMARK = "BOOKMARK"


@dataclass(slots=True, eq=False)
class WatchEvent:
    """One event of a watch. Events are shared between watchers: nobody changes them but for ``wire``.

    ``resource`` is None for SYNCED and BOOKMARK. ``token`` resumes after this event; it is empty before
    SYNCED of a list, which can only be told anew. ``wire`` is a place for the serialised form: whoever serialises first
    leaves it here for the other streams.
    """

    type: EventType
    resource: Resource | None
    version: int
    token: str
    wire: bytes | None = None


class Selector(Protocol):
    """A condition on labels. Equal selectors must be equal and hash alike: their watchers share the matching."""

    def __hash__(self) -> int: ...

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Return whether *labels* satisfy the condition."""


@dataclass(frozen=True, slots=True)
class LabelsEqual:
    """The simplest selector: every given label has the given value."""

    required: frozenset[tuple[str, str]]

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Return whether all required labels are there."""
        return all(labels.get(name) == value for name, value in self.required)


class Watch(Protocol):
    """A running watch: current state (or what changed since the token), SYNCED, then changes as they come.

    Per object in order; intermediate states are skipped when the reader is slow, deletions never are. An object that
    stops matching the filters is DELETED. A token taken before SYNCED starts the list again.
    """

    @property
    def token(self) -> str:
        """Resumes after the last event that was taken."""

    async def batch(self, count_max: int = 256) -> Sequence[WatchEvent]:
        """Return the next events, at least one; wait for them if need be.

        Raises WatchTooSlowError when the reader fell behind, StoreClosedError when the store or the watch is closed.
        """

    def close(self) -> None:
        """End the watch and free what it holds. Closing twice is fine."""


class Reader(Protocol):
    """The live state. Kinds may be given as Kind or as the resource's class, which types the answer."""

    @property
    def version(self) -> int:
        """Version of the newest visible change."""

    @overload
    def get(self, kind: type[R], namespace: str, name: str) -> R | None: ...
    @overload
    def get(self, kind: Kind, namespace: str, name: str) -> Resource | None: ...

    @overload
    def list(self, kind: type[R], namespace: str | None = None) -> Sequence[R]: ...
    @overload
    def list(self, kind: Kind, namespace: str | None = None) -> Sequence[Resource]: ...

    @overload
    def sorted_list(self, kind: type[R], namespace: str | None = None) -> Sequence[R]: ...
    @overload
    def sorted_list(self, kind: Kind, namespace: str | None = None) -> Sequence[Resource]: ...

    def indexed(self, index: str, value: Hashable) -> Collection[Any]:
        """Return what the index filed under *value*, in no order; Any because the index fixes the type, not the call.

        Raises KeyError for an index that was not declared.
        """

    def count(self, kind: Kind) -> int:
        """Return how many resources of the kind there are."""


# A secondary index: the kind it covers, and the values one resource is filed under.
Index = tuple[Kind, Callable[[Any], Iterable[Hashable]]]

Listener = Callable[[Sequence[Notice]], None]


@dataclass(frozen=True, slots=True)
class Health:
    """Whether changes are accepted now. ``reason`` is for operators, empty when all is well."""

    ok: bool
    reason: str = ""
    queued_changes: int = 0


class Store(Protocol):
    """The one interface to what is known."""

    @property
    def atomic(self) -> bool:
        """Whether a commit of several changes is one change to everybody, crash included."""

    async def open(self) -> None:
        """Load everything, on the running event loop. Raises StoreError subclasses that name the file."""

    async def close(self) -> None:
        """Finish what was accepted, end the watches, release the files."""

    def read(self) -> Reader:
        """Return the live view."""

    def commit_soon(
        self, changes: Sequence[Change], *, atomic: bool = True, cause: str = "", origin: Origin = NO_ORIGIN
    ) -> asyncio.Future[tuple[Outcome, ...]]:
        """Decide *changes* now; the future has one outcome per change, in order, once they are durable and visible.

        ``cause`` names the caller for logs and metrics, ``origin`` tells more of it. The future fails with
        StoreUnavailableError when nothing of it was made durable.
        """

    async def commit(
        self, changes: Sequence[Change], *, atomic: bool = True, cause: str = "", origin: Origin = NO_ORIGIN
    ) -> tuple[Outcome, ...]:
        """Do the same and wait."""

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call *listener* on the event loop with each batch of visible changes; return how to stop."""

    def watch(
        self,
        kind: Kind,
        *,
        namespace: str | None = None,
        name: str | None = None,
        labels: Selector | None = None,
        token: str | None = None,
    ) -> Watch:
        """Start a watch. Raises TokenInvalidError or TokenExpiredError."""

    def token(self) -> str:
        """Return the token of the visible state, so that a list can be followed by a watch without a gap."""

    def health(self) -> Health:
        """Return whether changes are accepted."""


class Codec(Protocol):
    """How resources become rows. ``grove_server.resources.codec`` is the real one."""

    @property
    def DECODE_ORDER(self) -> Sequence[Kind]:  # noqa: N802 -- a module's constant, the codec is a module
        """All kinds a database may hold; what others refer to comes first."""

    def encode(self, resource: Resource, /) -> bytes:
        """Return the row of *resource*."""

    def decode(self, kind: Kind, payload: bytes, templates: Callable[[str], Any], /) -> Resource:
        """Return the resource of a row. Raises ValueError if there is none in it."""


class StoreObserver(Protocol):
    """What the store tells about itself, always on the event loop."""

    def batch_durable(self, *, commits: int, changes: int, rows: int, payload_bytes: int, duration_s: float) -> None:
        """Report that one transaction, one fsync, made this many commits durable in this time."""

    def commit_visible(self, *, cause: str, changes: int, latency_s: float) -> None:
        """Report that one commit became visible, this long after it was decided."""

    def degraded(self, reason: str) -> None:
        """Report that changes are refused from now on."""

    def recovered(self) -> None:
        """Report that changes are accepted again."""

    def watches(self, open_count: int) -> None:
        """Report that the number of open watches changed."""

    def watch_too_slow(self) -> None:
        """Report that a watch was ended because its reader fell behind."""


class SilentObserver:
    """The observer that looks away."""

    def batch_durable(self, *, commits: int, changes: int, rows: int, payload_bytes: int, duration_s: float) -> None:
        """Ignore it."""

    def commit_visible(self, *, cause: str, changes: int, latency_s: float) -> None:
        """Ignore it."""

    def degraded(self, reason: str) -> None:
        """Ignore it."""

    def recovered(self) -> None:
        """Ignore it."""

    def watches(self, open_count: int) -> None:
        """Ignore it."""

    def watch_too_slow(self) -> None:
        """Ignore it."""
