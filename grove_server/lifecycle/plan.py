"""What to do next, as data: a plan proposes, only the control loop changes the world.

A plan is complete: carrying it out leaves nothing for the same pass to find again. So a loop may ignore the
notifications that its own plan causes, unless one of the changes lost a race.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from grove_server.resources.meta import Kind, Resource
from grove_server.resources.workload import Pod

EVENT_NORMAL = "Normal"
EVENT_WARNING = "Warning"
REASONS_MAX = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Something to tell people about a resource; becomes an Event."""

    kind: Kind
    namespace: str
    name: str
    uid: str
    reason: str
    message: str
    type: str = EVENT_NORMAL


@dataclass(slots=True)
class Plan:
    """Changes of one pass.

    ``updates`` carry the version they were decided on. ``reasons`` say in short sentences why, for the story of what is
    changed; most plans need none, because what they change tells it. ``wake_at`` (epoch seconds) is when to look again
    although nothing changed.
    """

    creates: list[Resource] = field(default_factory=list)
    updates: list[Resource] = field(default_factory=list)
    deletes: list[Resource] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    wake_at: float | None = None

    def wake(self, at: float) -> None:
        """Ask for another pass at *at*, or earlier if one was asked for already."""
        if self.wake_at is None or at < self.wake_at:
            self.wake_at = at

    def because(self, reason: str) -> None:
        """Say why something is done; the first REASONS_MAX different reasons are kept."""
        if reason not in self.reasons and len(self.reasons) < REASONS_MAX:
            self.reasons.append(reason)

    def revise(self, pods: Mapping[str, Pod]) -> None:
        """Put changed pods, by name, in place of what the plan already says of them."""
        left = dict(pods)
        for resources in (self.creates, self.updates):
            for position, resource in enumerate(resources):
                if isinstance(resource, Pod) and resource.metadata.name in left:
                    resources[position] = left.pop(resource.metadata.name)
        self.updates.extend(left.values())

    @property
    def is_empty(self) -> bool:
        """Whether nothing changes (a wake-up may still be asked for)."""
        return not (self.creates or self.updates or self.deletes)
