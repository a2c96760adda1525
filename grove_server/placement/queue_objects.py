"""From Queue resources to the specs that the tree of queues is built of, and which of them can take gangs.

Quantities become placement's units (thousandths for cpu, whole pieces or bytes for the rest). Only queues that make a
tree come out, so that building the tree cannot fail: what two changes at the same moment have broken waits with a
reason instead (``resources.queues.queue_problem``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from grove_server.placement.queues import Blocking, QueueSpec
from grove_server.placement.shapes import amount
from grove_server.resources.duration import parse_duration
from grove_server.resources.queues import EARMARK_NEVER, Queue, sound_queues
from grove_server.resources.queues import QueueSpec as Wanted


def queue_specs(queues: Iterable[Queue]) -> tuple[QueueSpec, ...]:
    """Return the specs of all queues that make a tree, the default one among them, by name."""
    sound = sound_queues({queue.metadata.name: queue.spec for queue in queues})
    return tuple(_spec(name, wanted) for name, wanted in sorted(sound.items()))


def _spec(name: str, wanted: Wanted) -> QueueSpec:
    never = wanted.earmark_after == EARMARK_NEVER
    guarantee, limit = _amounts(wanted.guarantee), _amounts(wanted.limit)
    if not wanted.weight:
        # What never borrows has its guarantee for a limit.
        limit |= guarantee
    return QueueSpec(
        name=name,
        parent=wanted.parent,
        guarantee=guarantee,
        limit=limit,
        weight=wanted.weight,
        priority=wanted.priority,
        blocking=Blocking(wanted.blocking),
        earmark_after_s=None if never else parse_duration(wanted.earmark_after),
    )


def _amounts(quantities: Mapping[str, str]) -> dict[str, int]:
    return {resource: amount(resource, quantity) for resource, quantity in sorted(quantities.items())}
