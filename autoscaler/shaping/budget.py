"""One budget of GPUs over roles, copies and models. Pure.

What is held counts whole, pods that drain and replicas that wait for a place included; what shrinks is free only when
it is gone. Where growth does not fit, replicas are given one at a time: roles below their minimum first, then by
priority, then to the role that has the least part of what it wants, because the first replicas help most. Nothing is
taken away for a budget, and a role is refused with a reason rather than set to zero.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from autoscaler.decision import Reason
from autoscaler.shaping.draft import Draft


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A role that draws on a budget; a higher ``priority`` is served first."""

    draft: Draft
    priority: int
    name: str


def held_gpus(draft: Draft) -> float:
    """Return the GPUs that a role holds or was promised."""
    return (draft.current + draft.state.draining) * draft.gpus


def share_out(gpus: int, claims: Sequence[Claim]) -> float:
    """Keep the growth of *claims* within *gpus*; return what they hold now."""
    held = sum(held_gpus(claim.draft) for claim in claims)
    growing = [claim for claim in claims if claim.draft.size > claim.draft.current and claim.draft.gpus > 0]
    free = gpus - held
    asked = sum((claim.draft.size - claim.draft.current) * claim.draft.gpus for claim in growing)
    if asked <= free or not growing:
        return held
    given = _given(free, growing)
    leaving = sum(claim.draft.state.draining * claim.draft.gpus for claim in claims)
    for claim, size in zip(growing, given, strict=True):
        if size < claim.draft.size:
            message = f"{held:g} of {gpus} GPUs are held" + (f", {leaving:g} of them leave" if leaving else "")
            claim.draft.clamp(size, Reason.BUDGET_CAP, message)
    return held


def _given(free: float, growing: Sequence[Claim]) -> list[int]:
    """Return the size that each claim gets of *free* GPUs."""
    sizes = [claim.draft.current for claim in growing]
    heap = [_entry(claim, index, claim.draft.current) for index, claim in enumerate(growing)]
    heapq.heapify(heap)
    while heap:
        index = heapq.heappop(heap)[-1]
        draft = growing[index].draft
        # From nothing a gang comes whole or not at all.
        step = max(1, draft.state.min_available) if sizes[index] == 0 else 1
        step = min(step, draft.size - sizes[index])
        if step * draft.gpus > free:
            # It has all it can get; a role with smaller replicas may still find room.
            continue
        free -= step * draft.gpus
        sizes[index] += step
        if sizes[index] < draft.size:
            heapq.heappush(heap, _entry(growing[index], index, sizes[index]))
    return sizes


def _entry(claim: Claim, index: int, size: int) -> tuple[bool, int, float, str, int]:
    has_minimum = size >= claim.draft.role.min_replicas
    return has_minimum, -claim.priority, size / claim.draft.size, claim.name, index
