"""Headroom: room under the limits of queues that is set aside for a gang which waits for it.

Rules: a limit is a place like a domain: where small gangs come and go, a large one that waits until enough of it is
free at once would starve. So what it needs is held under the limits of its queue and of those above it: gangs of no
higher priority, and surplus, get only what that leaves, of what is free. A gang of another queue that takes no more
than its queue is guaranteed is not bound: a guarantee is not lent to those who wait. What is held is held at every
limit at once, since the gang needs all of them.

Pure. Not here: when a gang has waited long enough, domains (`earmarks`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from grove_server.placement.earmarks import Earmark
from grove_server.placement.queues import QueueTree
from grove_server.placement.reclaim import amounts_of
from grove_server.placement.requests import GangRequest
from grove_server.placement.thresholds import ways_within_limits


@dataclass(frozen=True, slots=True, kw_only=True)
class Asker:
    """Who asks for something under limits: a gang by full name, its queue and priority, and what it asks for."""

    gang: str
    queue: str
    priority: int
    amounts: Mapping[str, int]


def with_headroom(earmark: Earmark, tree: QueueTree, queue: str, request: GangRequest) -> Earmark:
    """Return an earmark that holds what a gang of a queue asks for under the limits that bind it, if any does.

    Nothing is held for a gang that alone is more than a limit: it would be held for ever.
    """
    amounts = amounts_of(request)
    ways = ways_within_limits(tree, queue, amounts) if queue in tree.numbers else ()
    limits = tuple(dict.fromkeys(ceiling.queue for way in ways for ceiling in way))
    if any(ceiling.most < 0 for way in ways for ceiling in way):
        limits = ()
    return earmark.holding(queue, amounts, limits) if limits else earmark.holding("", {}, ())


def held_from(
    asker: Asker, earmarks: Iterable[Earmark], tree: QueueTree, used: Mapping[str, Mapping[str, int]]
) -> dict[str, Counter[str]]:
    """Return by queue what is held for other gangs and binds the one that asks; {} if nothing does."""
    found: dict[str, Counter[str]] = {}
    guarantors: tuple[str, ...] | None = None
    for each in earmarks:
        if not each.limits or each.gang == asker.gang or asker.priority > each.priority:
            continue
        if each.queue not in tree.numbers or asker.queue not in tree.numbers:
            continue
        if each.queue != asker.queue:
            guarantors = tree.guarantors(asker.queue, asker.amounts, used) if guarantors is None else guarantors
            if set(guarantors) - set(tree.lineage(each.queue)):
                continue
        found.setdefault(each.queue, Counter()).update(each.amounts)
    return found
