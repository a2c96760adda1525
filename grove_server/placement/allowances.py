"""What queues let a gang have: the tree of queues with the questions that come before any question about places.

Rules: a gang waits whatever the capacity if its queue is unknown or takes no gangs, or if a limit of its queue or of
one above it would be exceeded. Surplus pods get what limits leave. Where nobody made queues everything is in the
default one, which has no limit, and all of this costs a comparison. Used alike by the loop and by what-ifs.

Not here: who is in which queue, what is used now (the caller knows both), whose turn it is (`turns`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, TypeAlias

from grove_server.placement.queue_objects import queue_specs
from grove_server.placement.queues import NOTHING, UNLIMITED, Blocking, QueueTree, quota_amounts
from grove_server.placement.requests import GPU_SHARE, CliqueRequest, GangRequest, GroupRequest, PodShape
from grove_server.placement.shapes import shape_of
from grove_server.resources.meta import Metadata
from grove_server.resources.queues import DEFAULT_QUEUE, Queue, QueueSpec, lineage, queue_problem

Used: TypeAlias = Mapping[str, Mapping[str, int]]
"""What each queue has, those below it not counted in, by resource."""

_NAMES_MAX: Final = 20_000
"""Names of queues whose problems are remembered; past this many the memory starts anew."""


class Allowances:
    """The queues as they are at one moment."""

    def __init__(self, queues: Iterable[Queue] = ()) -> None:
        queues = tuple(queues)
        self._wanted = {queue.metadata.name: queue.spec for queue in queues}
        self._problems: dict[str, tuple[str, str] | None] = {}
        self.tree = QueueTree(queue_specs(queues))
        self.has_limits = bool((self.tree.limit < UNLIMITED).any())
        self.has_several = len(self.tree.specs) > 1
        self.is_in_use = self.has_several or self.has_limits
        self.has_strict = any(spec.blocking is Blocking.STRICT for spec in self.tree.specs)

    def problem_of(self, queue: str) -> tuple[str, str] | None:
        """Return reason and sentence why no gang can run in a queue; None if gangs can."""
        if queue == DEFAULT_QUEUE:
            return None
        if queue not in self._problems:
            if len(self._problems) >= _NAMES_MAX:
                self._problems.clear()
            self._problems[queue] = queue_problem(queue, self._wanted)
        return self._problems[queue]

    def is_strict(self, queue: str) -> bool:
        """Return whether gangs of a queue wait behind each other."""
        return queue in self.tree.numbers and self.tree.spec(queue).blocking is Blocking.STRICT

    def over_limit(self, queue: str, amounts: Mapping[str, int], used: Used, held: Used = NOTHING) -> str:
        """Return which limits a gang's amounts would exceed, as one sentence; "" if none. `held`: for other gangs."""
        if not self.has_limits or queue not in self.tree.numbers:
            return ""
        return "; ".join(refusal.sentence() for refusal in self.tree.admits(queue, amounts, used, held))

    def within_limit(self, queue: str, shape: PodShape, wanted: int, used: Used, held: Used = NOTHING) -> int:
        """Return how many of some surplus pods the limits of a queue leave room for."""
        tree = self.tree
        if not self.has_limits or queue not in tree.numbers:
            return wanted
        totals = tree.totals(used, tree.resources)
        totals = totals + tree.held(totals, held)
        each = quota_amounts(amounts_of_pod(shape))
        for name in tree.lineage(queue):
            number = tree.numbers[name]
            for resource, row in tree.resources.items():
                limit = int(tree.limit[row, number])
                if limit < UNLIMITED and each.get(resource):
                    wanted = min(wanted, (limit - int(totals[row, number])) // each[resource])
        return max(0, wanted)


def beyond_limits(
    queue: str, wanted: Mapping[str, QueueSpec], pods: Iterable[tuple[Mapping[str, Any], Mapping[str, str], int]]
) -> str:
    """Return which limits of a queue, or of those above it, a gang exceeds by itself, as one sentence; "" if none.

    `wanted` are all queues by name, `pods` the specs and annotations of its cliques' pods with how many run together.
    """
    above = lineage(queue, wanted) or ()
    if not any(wanted[name].limit or not wanted[name].weight for name in above):
        return ""
    amounts: Counter[str] = Counter()
    for pod_spec, own, count in pods:
        for resource, amount in amounts_of_pod(shape_of(pod_spec, own)).items():
            amounts[resource] += amount * count
    allowances = Allowances(Queue(metadata=Metadata(name=name), spec=wanted[name]) for name in above)
    return allowances.over_limit(queue, amounts, NOTHING)


def amounts_of_pod(shape: PodShape) -> dict[str, int]:
    """Return what one pod uses of its queue, by resource; a share of a GPU in milli, under GPU_SHARE."""
    amounts = {"pods": 1, **dict(shape.requests)}
    if shape.gpu_milli:
        amounts[GPU_SHARE] = shape.gpu_milli
    return amounts


def without_surplus(request: GangRequest, optional: int) -> GangRequest:
    """Return a request for surplus pods of one clique with fewer of them."""
    return replace(request, members=tuple(_fewer(member, optional) for member in request.members))


def surplus_of(members: Sequence[CliqueRequest | GroupRequest]) -> tuple[PodShape, int]:
    """Return shape and number of the pods of a request for surplus pods of one clique."""
    member = members[0]
    while isinstance(member, GroupRequest):
        member = member.members[0]
    return member.shape, member.optional


def _fewer(member: CliqueRequest | GroupRequest, optional: int) -> CliqueRequest | GroupRequest:
    if isinstance(member, CliqueRequest):
        return replace(member, optional=optional)
    return replace(member, members=tuple(_fewer(each, optional) for each in member.members))
