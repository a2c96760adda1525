"""What was decided: the last decisions of each scope with their outcomes, those who watch, and a log of JSON lines.

Everything is bounded: decisions kept per scope and in all, watchers, what waits for each of them, and the log, of
which an old file is kept beside the new one. A scope's unchanged decisions are written once a while, not at every
tick. Owned by the event loop; the file is written in a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import orjson

from autoscaler.acting.scaling import UNCHANGED, Outcome
from autoscaler.decision import Decision
from autoscaler.service.messages import decision_message

KEPT_PER_SCOPE: Final = 8
WATCHERS_MAX: Final = 64
WATCHER_QUEUE_MAX: Final = 256
LOG_BYTES_MAX: Final = 64 << 20
SAME_AGAIN_S: Final = 300.0
Decided = tuple[Decision, Outcome]


class TooManyWatchersError(Exception):
    """No more watches are taken."""


class Watcher:
    """A reader of decisions; what does not fit into its queue is missed and counted."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Decided] = asyncio.Queue(WATCHER_QUEUE_MAX)
        self._missed = 0

    def put(self, decided: Decided) -> None:
        """Offer a decision."""
        try:
            self._queue.put_nowait(decided)
        except asyncio.QueueFull:
            self._missed += 1

    async def get(self) -> tuple[Decided, int]:
        """Return the next decision, and how many were missed before it."""
        decided = await self._queue.get()
        missed, self._missed = self._missed, 0
        return decided, missed


class Journal:
    """The decisions of all scopes."""

    def __init__(self, log: Path | None = None) -> None:
        """*log* is the file of JSON lines, None for none."""
        self._log = log
        self._scopes: OrderedDict[str, deque[Decided]] = OrderedDict()
        self._of_policy: dict[str, list[str]] = {}
        self._watchers: set[Watcher] = set()
        self._written: dict[str, tuple[float, tuple[object, ...]]] = {}

    def of_policy(self, key: str) -> list[Decided]:
        """Return the last decision of each copy of a policy, by copy."""
        return [self._scopes[scope][-1] for scope in self._of_policy.get(key, ())]

    def find(self, decision_id: str) -> Decided | None:
        """Return a decision that is still kept."""
        kept = self._scopes.get(decision_id.rpartition("@")[0], ())
        return next((each for each in kept if each[0].id == decision_id), None)

    def last(self) -> Iterator[Decided]:
        """Yield the last decision of each scope."""
        for kept in self._scopes.values():
            yield kept[-1]

    @contextlib.contextmanager
    def watching(self) -> Iterator[Watcher]:
        """Give a watcher for the length of the block. TooManyWatchersError."""
        if len(self._watchers) >= WATCHERS_MAX:
            raise TooManyWatchersError(f"at most {WATCHERS_MAX} watches at a time")
        watcher = Watcher()
        self._watchers.add(watcher)
        try:
            yield watcher
        finally:
            self._watchers.discard(watcher)

    def take(self, decided: Sequence[Decided]) -> list[Decided]:
        """Keep the decisions of one tick, tell watchers, and return those that are worth a line of the log."""
        there = {decision.scope for decision, _ in decided}
        for scope in [scope for scope in self._scopes if scope not in there]:
            del self._scopes[scope]
            self._written.pop(scope, None)
        telling = []
        self._of_policy = {}
        for each in sorted(decided, key=lambda of: of[0].copy):
            self._of_policy.setdefault(each[0].key, []).append(each[0].scope)
        for each in decided:
            decision = each[0]
            self._scopes.setdefault(decision.scope, deque(maxlen=KEPT_PER_SCOPE)).append(each)
            for watcher in self._watchers:
                watcher.put(each)
            if self._is_news(each):
                telling.append(each)
        return telling

    async def write(self, decided: Sequence[Decided]) -> None:
        """Append decisions to the log. OSError."""
        if self._log is not None and decided:
            await asyncio.to_thread(_append, self._log, decided)

    def _is_news(self, decided: Decided) -> bool:
        decision, outcome = decided
        mark: tuple[object, ...] = (
            outcome.word,
            decision.generation,
            *((role.current, role.replicas, role.reason) for role in decision.roles),
        )
        before = self._written.get(decision.scope)
        is_old = before is None or decision.at - before[0] >= SAME_AGAIN_S
        if not is_old and before is not None and before[1] == mark and outcome.word in (UNCHANGED, "Recommended"):
            return False
        self._written[decision.scope] = (decision.at, mark)
        return True


def _append(path: Path, decided: Sequence[Decided]) -> None:
    from google.protobuf.json_format import MessageToDict  # noqa: PLC0415 -- 20 ms that a start need not wait for

    data = b"".join(orjson.dumps(MessageToDict(decision_message(*each))) + b"\n" for each in decided)
    with path.open("ab") as file:
        file.write(data)
        size = file.tell()
    if size > LOG_BYTES_MAX:
        path.replace(path.with_name(f"{path.name}.1"))
