"""A watch that does not end: it resumes by token, reads anew when the token is too old, and waits when told to.

What the caller sees is one unbroken story: each resource's changes in order, deletions never missed. How:

* Any end of the stream (server drains or restarts, connection ages, reader was too slow, no sign of life for three
  bookmark intervals) is followed by a new stream from the last token, after a delay with jitter.
* A token that is too old (OUT_OF_RANGE) leads to a fresh read of the present state. It is compared with what was
  reported before: unchanged resources are not reported again, and those that vanished in the gap are reported as
  DELETED, with their identity only.
* A burst of new streams makes a server drop some at their start with CANCELLED; that is tried again, too.

Errors that repeating cannot cure (wrong request, no permission) are raised.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar, cast

import grpc
from google.protobuf.message import Message

from grove.v1.meta_pb2 import ObjectMeta
from grove_client.errors import (
    CancelledByServerError,
    GroveError,
    ResourceExhaustedError,
    TokenExpiredError,
    UnavailableError,
    from_rpc_error,
)

ADDED: Final = "ADDED"
MODIFIED: Final = "MODIFIED"
DELETED: Final = "DELETED"
SYNCED: Final = "SYNCED"
BOOKMARK: Final = "BOOKMARK"

_RESUMABLE: Final = (UnavailableError, ResourceExhaustedError, CancelledByServerError, TokenExpiredError)


class Resource(Protocol):
    """A message that mirrors a Kubernetes object."""

    api_version: str
    kind: str

    @property
    def metadata(self) -> ObjectMeta:
        """Its identity."""


R = TypeVar("R", bound=Resource)
Stream = grpc.aio.UnaryStreamCall[Message, Message]


@dataclass(frozen=True, slots=True)
class WatchEvent(Generic[R]):
    """One step: *object* after it (before it, for DELETED; None for SYNCED).

    *resume_token* continues after it; one from before SYNCED begins again.
    """

    type: str
    object: R | None
    resume_token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchPolicy:
    """How patient a watch is. `open_patience_s` bounds the time to the first message, `patience_s` each later gap.

    None means for ever. `silence_max_s` is three times the server's bookmark interval.
    """

    delay_min_s: float = 0.1
    delay_max_s: float = 5.0
    open_patience_s: float | None = 10.0
    patience_s: float | None = None
    silence_max_s: float = 45.0


class _Step(Protocol[R]):
    """The fields that the WatchResponse of every service has."""

    type: str
    object: R
    resume_token: str


class _Story(Generic[R]):
    """What was told to the caller so far, and how a new step continues it."""

    def __init__(self, make: Callable[[], R], resume_token: str) -> None:
        self._make = make
        self._known: dict[tuple[str, str], tuple[str, str]] = {}
        self._seen: set[tuple[str, str]] = set()
        # Without a token from the caller the first stream tells everything, so the story is complete.
        self._complete = not resume_token
        self._replaying = not resume_token
        self._synced = False
        self.token = resume_token

    @property
    def can_replay(self) -> bool:
        """Whether all that the caller knows is known here, so that a fresh read can be compared with it."""
        return self._complete

    def opened(self) -> None:
        """Begin a new stream; without a token it will tell the present state from the start."""
        self._replaying = not self.token
        self._seen.clear()

    def forget_token(self) -> None:
        """Make the next stream read the present state."""
        self.token = ""

    def tell(self, step: _Step[R]) -> list[WatchEvent[R]]:
        """Return the events that *step* means for the caller; none for a bookmark or what is known."""
        # Until SYNCED a token only begins the present state again, and here that is done without one: then it is
        # known that the state is told anew, and it is compared.
        if step.resume_token and (not self._replaying or step.type == SYNCED):
            self.token = step.resume_token
        if step.type in {ADDED, MODIFIED}:
            return self._upsert(step)
        if step.type == DELETED:
            self._known.pop(_key(step.object), None)
            return [WatchEvent(DELETED, step.object, step.resume_token)]
        if step.type == SYNCED:
            return self._sync(step)
        return []

    def _upsert(self, step: _Step[R]) -> list[WatchEvent[R]]:
        key = _key(step.object)
        version = (step.object.metadata.uid, step.object.metadata.resource_version)
        known = self._known.get(key)
        self._known[key] = version
        if not self._replaying:
            return [WatchEvent(step.type, step.object, step.resume_token)]
        self._seen.add(key)
        if known is None:
            return [WatchEvent(ADDED, step.object, step.resume_token)]
        if known == version:
            return []
        if known[0] == version[0]:
            return [WatchEvent(MODIFIED, step.object, step.resume_token)]
        gone = WatchEvent(DELETED, self._gone(step.object, key, known[0]), step.resume_token)
        return [gone, WatchEvent(ADDED, step.object, step.resume_token)]

    def _sync(self, step: _Step[R]) -> list[WatchEvent[R]]:
        events: list[WatchEvent[R]] = []
        if self._replaying:
            for key in sorted(self._known.keys() - self._seen):
                uid, _ = self._known.pop(key)
                events.append(WatchEvent(DELETED, self._gone(None, key, uid), step.resume_token))
            self._replaying = False
            self._seen.clear()
        if not self._synced:
            self._synced = True
            events.append(WatchEvent(SYNCED, None, step.resume_token))
        return events

    def _gone(self, like: R | None, key: tuple[str, str], uid: str) -> R:
        """Return the identity of a resource that vanished unseen."""
        gone = self._make()
        if like is not None:
            gone.api_version, gone.kind = like.api_version, like.kind
        gone.metadata.namespace, gone.metadata.name = key
        gone.metadata.uid = uid
        return gone


async def watch(
    open_stream: Callable[[str], Stream],
    make: Callable[[], R],
    *,
    resume_token: str = "",
    policy: WatchPolicy | None = None,
) -> AsyncGenerator[WatchEvent[R], None]:
    """Yield the events of a watch for ever; *open_stream* opens one stream from a token, *make* an empty resource.

    Yields ADDED for the present state, SYNCED once, then changes; with *resume_token* changes, SYNCED, changes.
    GroveError when repeating does not help or patience is over. TokenExpiredError only for a token that the caller
    gave: what it knew is unknown here, so it has to list anew.
    """
    policy = policy or WatchPolicy()
    story: _Story[R] = _Story(make, resume_token)
    loop = asyncio.get_running_loop()
    heard_at_s, ever_heard, failures = loop.time(), False, 0
    while True:
        story.opened()
        call = open_stream(story.token)
        error: GroveError | None = None
        try:
            while (message := await _read(call, policy.silence_max_s)) is not None:
                heard_at_s, ever_heard, failures = loop.time(), True, 0
                for event in story.tell(cast("_Step[R]", message)):
                    yield event
        except grpc.aio.AioRpcError as failure:
            error = from_rpc_error(failure)
            if not isinstance(error, _RESUMABLE) or (isinstance(error, TokenExpiredError) and not story.can_replay):
                raise error from None
            if isinstance(error, TokenExpiredError):
                story.forget_token()
        finally:
            call.cancel()
        patience_s = policy.patience_s if ever_heard else policy.open_patience_s
        delay_s = _delay_s(policy, failures, error)
        if patience_s is not None and loop.time() + delay_s - heard_at_s > patience_s:
            raise error or UnavailableError("the watch ended", code=grpc.StatusCode.UNAVAILABLE)
        failures += 1
        await asyncio.sleep(delay_s)


async def _read(call: Stream, silence_max_s: float) -> Message | None:
    """Return the next message, None when the stream ended in peace or nothing came for too long."""
    try:
        async with asyncio.timeout(silence_max_s):
            message = await call.read()
    except TimeoutError:
        return None
    return message if isinstance(message, Message) else None


def _delay_s(policy: WatchPolicy, failures: int, error: GroveError | None) -> float:
    """Return how long to wait: doubling with jitter, or what the server asked for, if that is longer."""
    ceiling_s = min(policy.delay_max_s, policy.delay_min_s * 2.0 ** min(failures, 16))
    delay_s = ceiling_s * random.uniform(0.5, 1.0)  # noqa: S311 -- spreads reconnects, protects nothing
    asked_s = error.retry_after_s if error is not None and error.retry_after_s is not None else 0.0
    return max(delay_s, min(asked_s, policy.delay_max_s))


def _key(resource: Resource) -> tuple[str, str]:
    """Return namespace and name."""
    return resource.metadata.namespace, resource.metadata.name
