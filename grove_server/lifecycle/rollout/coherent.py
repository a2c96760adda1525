"""Coherent updates: the changed cliques and groups of a copy move to the new revision together, in their ratio.

Parts of different revisions must not work together (a prefill cannot hand its cache to a decode of another version), so
at every point where the update waits there are as many new units of each component as the ratio says. The steps are
those of Grove's proposal GREP-393, in whole numbers:

    steps    = min over components of size // minimum
    target   = minimum + (size - steps * minimum) // steps      (units per step)
    leftover = size - steps * target

Each step first moves the minimum of everything, then the rest of its target in sub-steps of at most max_unavailable;
the leftover follows in the same way. The next sub-step begins when every new unit serves. Different on purpose: where
an update stands is read off the units, so that scaling or another edit in mid-way needs no special case, and a unit
that is lost comes back at the revision that the ratio wants.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from grove_server.lifecycle.rollout.units import Unit


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """A changed clique or group: its size, minimum and budget in units, and the units there are (active ones)."""

    name: str
    size: int
    minimum: int
    max_unavailable: int
    units: tuple[Unit, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether there are units and none of them has pods: then it has no part in the ratio."""
        return bool(self.units) and all(unit.is_empty for unit in self.units)

    @property
    def new_count(self) -> int:
        """Units of the new revision."""
        return sum(not unit.is_old for unit in self.units)


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """What one component does in this pass: old units to stop, and how many units there are to be of the new revision.

    What is missing beyond ``new_target`` comes back at the old revision.
    """

    stop: tuple[Unit, ...] = ()
    new_target: int = 0


def checkpoints(components: Sequence[Component]) -> list[tuple[int, ...]]:
    """Return, for each point at which the update waits, how many units of each component are new; the last is all.

    Components of size 0 are absent and move nothing.
    """
    present = [c for c in components if c.size]
    if not present:
        return []
    steps = max(1, min(c.size // max(1, c.minimum) for c in present))
    done = dict.fromkeys((c.name for c in components), 0)
    points: list[tuple[int, ...]] = []

    def move(amounts: Mapping[str, int]) -> None:
        if not any(amounts.values()):
            return
        for name, amount in amounts.items():
            done[name] += amount
        points.append(tuple(done[c.name] for c in components))

    def drain(amounts: dict[str, int]) -> None:
        while any(amounts.values()):
            part = {c.name: min(amounts[c.name], max(1, c.max_unavailable)) for c in present}
            move(part)
            for name, amount in part.items():
                amounts[name] -= amount

    first = {c.name: min(max(1, c.minimum), c.size) for c in present}
    tail = {c.name: max(0, c.size - steps * first[c.name]) // steps for c in present}
    for _ in range(steps):
        move(first)
        drain(dict(tail))
    drain({c.name: c.size - done[c.name] for c in present})
    return points


def plan_moves(components: Sequence[Component]) -> dict[str, Move]:
    """Return the next move of each component by name."""
    points = checkpoints(components)
    if not points:
        return {c.name: Move(stop=tuple(u for u in c.units if u.is_old)) for c in components}
    all_serve = all(unit.is_available for c in components for unit in c.units if not unit.is_old)
    position = max(_reached(points, at, min(c.new_count, c.size)) for at, c in enumerate(components))
    at_point = all(c.new_count >= points[position][at] for at, c in enumerate(components)) if position >= 0 else True
    if at_point and all_serve and position + 1 < len(points):
        position += 1
    target = points[position] if position >= 0 else tuple(0 for _ in components)
    return {c.name: _move(c, target[at], may_stop=all_serve) for at, c in enumerate(components)}


def _reached(points: Sequence[tuple[int, ...]], at: int, count: int) -> int:
    """Return the first point at which a component has at least *count* new units; -1 if it has none."""
    if count == 0:
        return -1
    return next((index for index, point in enumerate(points) if point[at] >= count), len(points) - 1)


def _move(component: Component, target: int, *, may_stop: bool) -> Move:
    old = [unit for unit in component.units if unit.is_old]
    missing = max(0, component.size - len(component.units))
    wanted = max(0, target - component.new_count - missing)
    if not may_stop or not wanted:
        return Move(new_target=max(target, component.new_count))
    idle = sorted((u for u in old if not u.is_available), key=_order)
    serving = sorted((u for u in old if u.is_available), key=_order)
    available = sum(unit.is_available for unit in component.units)
    spare = max(0, available - (component.size - component.max_unavailable))
    stop = idle[:wanted]
    stop += serving[: min(wanted - len(stop), spare)]
    return Move(stop=tuple(stop), new_target=max(target, component.new_count))


def _order(unit: Unit) -> tuple[float, int, str]:
    return (unit.created_at, unit.index, unit.name)
