"""What happened: every durable change hashed, the last ones kept to be shown."""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from typing import Final

from grove_server.resources import codec
from grove_server.resources.meta import Key, Resource
from grove_server.resources.workload import Pod, PodClique, PodCliqueScalingGroup, PodCliqueSet, PodGang
from grove_server.store.journal import Commit

KEPT: Final = 40


class History:
    """The log of one run. ``is_thorough`` hashes every changed row, not only its key, version, cause and time."""

    def __init__(self, *, is_thorough: bool) -> None:
        self._digest = hashlib.blake2b(digest_size=16)
        self._is_thorough = is_thorough
        self._lines: deque[tuple[float, str, Key | None, int, Resource | None]] = deque(maxlen=KEPT)
        self.changes: Counter[str] = Counter()
        self.actions: Counter[str] = Counter()

    @property
    def digest(self) -> str:
        """A hash of everything so far."""
        return self._digest.hexdigest()

    def commit(self, now_s: float, commit: Commit) -> None:
        """Add one durable commit."""
        cause = commit.cause
        self.changes[cause] += len(commit.writes)
        for key, resource, version in commit.writes:
            self._digest.update(f"{now_s!r} {cause} {key[0]} {key[1]} {key[2]} {version}\n".encode())
            if self._is_thorough and resource is not None:
                self._digest.update(codec.encode(resource))
            self._lines.append((now_s, cause, key, version, resource))

    def act(self, now_s: float, name: str, detail: str) -> None:
        """Add what a user or a fault did."""
        self.actions[name] += 1
        self._digest.update(f"{now_s!r} {name} {detail}\n".encode())
        self._lines.append((now_s, f"! {name} {detail}", None, 0, None))

    def last(self) -> list[str]:
        """Return the last transitions in words, oldest first."""
        return [_line(*entry) for entry in self._lines]


def _line(now_s: float, cause: str, key: Key | None, version: int, resource: Resource | None) -> str:
    if key is None:
        return f"{now_s:12.6f}  {cause}"
    return f"{now_s:12.6f}  v{version} {cause}: {key.kind} {key.namespace}/{key.name} {_words(resource)}"


def _words(resource: Resource | None) -> str:
    match resource:
        case None:
            return "removed"
        case Pod():
            leaving = " leaving" if resource.is_terminating else ""
            ready = " ready" if resource.is_ready else ""
            where = f"[{resource.index}] {resource.phase} on {resource.node or '-'}"
            return f"{where}{ready}{leaving} ({resource.waiting_reason})"
        case PodGang():
            groups = {group.name: (len(group.pods), group.min_replicas) for group in resource.pod_groups}
            return f"{resource.status.phase} {resource.status.reason} {groups}"
        case PodClique():
            status = resource.status
            sizes = f"{status.ready_replicas}/{status.scheduled_replicas}/{status.replicas}"
            return f"size {resource.replicas} by {resource.scale_owner}, ready/scheduled/there {sizes}"
        case PodCliqueScalingGroup():
            return f"size {resource.replicas} by {resource.scale_owner}, available {resource.status.available_replicas}"
        case PodCliqueSet():
            leaving = " leaving" if resource.metadata.deleted_at is not None else ""
            available = resource.status.available_replicas
            return f"{resource.spec.replicas} copies, {resource.status.phase}, available {available}{leaving}"
        case _:
            return ""
