"""Ways to put pods of a few shapes on a few nodes: plain numbers, no arrays, microseconds.

Rules: greedy, in three ways that fail on different things; a way that fails proves nothing. Amounts are whole numbers
per resource row; nodes are numbered from the first of the region they were copied from. Shapes that need much of what
is scarce go first. Method: best fit and the norm-based greedy of Panigrahy, Talwar, Uyeda and Wieder, "Heuristics for
Vector Bin Packing" (2011).

Not here: which domain to fill (`depth`), one shape on arrays (`choice`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple, TypeAlias

from grove_server.placement.work import Work

NORM_CELLS_MAX: Final = 4_000
"""Pods times nodes up to which pods are put down one by one."""

Filling: TypeAlias = tuple[tuple[int, int, int], ...]
"""(class, node, pods), each pair of class and node once."""


Place: TypeAlias = tuple[int, int]
"""First and last (excluded) node of a domain, counted from the region's first."""

Way: TypeAlias = "Callable[[Nodes, Place, int, int], dict[int, int] | None]"
"""From nodes, domain, class and pods to pods by node; None if they do not all find room."""


class Load(NamedTuple):
    """The pods of one scope: (class, count), each class once, in the order in which to put them down."""

    parts: tuple[tuple[int, int], ...]


class Nodes:
    """Free amounts of a region's nodes, changed in place and changed back.

    `free[node][row]`; `costs[class]` lists (row, amount), no zero amounts; `allowed[class][node]`.
    """

    __slots__ = ("allowed", "costs", "free", "scale")

    def __init__(
        self, free: list[list[int]], costs: list[tuple[tuple[int, int], ...]], allowed: list[list[bool]]
    ) -> None:
        self.free = free
        self.costs = costs
        self.allowed = allowed
        rows = len(free[0]) if free else 0
        # What is scarce weighs most: amounts count as shares of all that is free of their kind in the region.
        self.scale = [1.0 / max(1, sum(max(0, each[row]) for each in free)) for row in range(rows)]

    def room(self, kind: int, node: int) -> int:
        """Return how many pods of a class a node holds now."""
        if not self.allowed[kind][node]:
            return 0
        free = self.free[node]
        return max(0, min([free[row] // amount for row, amount in self.costs[kind]]))

    def room_in(self, kind: int, place: Place, enough: int) -> int:
        """Return how many pods of a class a domain holds now, counted until there are enough."""
        free, allowed, costs = self.free, self.allowed[kind], self.costs[kind]
        total = 0
        for node in range(*place):
            if allowed[node]:
                here = free[node]
                total += max(0, min([here[row] // amount for row, amount in costs]))
                if total >= enough:
                    break
        return total

    def move(self, filling: Iterable[tuple[int, int, int]], sign: int) -> None:
        """Take (1) or give back (-1) what a filling costs."""
        for kind, node, pods in filling:
            free = self.free[node]
            for row, amount in self.costs[kind]:
                free[row] -= amount * pods * sign

    def profile(self, place: Place) -> tuple[object, ...]:
        """Return what two domains have in common if they offer the same, whatever the order of their nodes."""
        return tuple(sorted((*self.free[node], *(allowed[node] for allowed in self.allowed)) for node in range(*place)))

    def useful(self, place: Place, kinds: int) -> list[int]:
        """Return by row what is free on nodes that hold a pod of any of some classes (a bit mask of them).

        Rounded down to what the classes' amounts can add up to: pods of two and four GPUs cannot use a fifth one.
        """
        wanted = [kind for kind in range(len(self.costs)) if kinds >> kind & 1]
        rows = range(len(self.scale))
        step = [math.gcd(*(amount for kind in wanted for at, amount in self.costs[kind] if at == row)) for row in rows]
        total = [0] * len(self.scale)
        for node in range(*place):
            if any(self.room(kind, node) for kind in wanted):
                free = self.free[node]
                for row in rows:
                    if step[row]:
                        total[row] += free[row] - free[row] % step[row]
        return total

    def left_over(self, place: Place) -> float:
        """Return how much is free in a domain, as shares of the region's amounts added up."""
        return sum(
            amount * scale for node in range(*place) for amount, scale in zip(self.free[node], self.scale, strict=True)
        )

    def in_order(self, load: Load) -> Load:
        """Return a load with the classes first that need most of what is scarce."""
        return Load(tuple(sorted(load.parts, key=lambda part: (-self.weight(part[0]), part[0]))))

    def weight(self, kind: int) -> float:
        """Return how much of what is scarce one pod needs."""
        return max((amount * self.scale[row] for row, amount in self.costs[kind]), default=0.0)


class Ways:
    """The different ways to put a load on the nodes first .. last - 1 as they were when this was made.

    Found one by one, because most are never asked for: the nodes have to be as they were whenever `get` is called.
    """

    __slots__ = ("_found", "_load", "_place", "_untried")

    def __init__(self, nodes: Nodes, place: Place, load: Load, turn: int, work: Work) -> None:
        self._place = place
        self._load = load
        self._found: list[Filling] = []
        self._untried = [_WAYS[(turn + i) % WAYS_MAX] for i in range(WAYS_MAX)][::-1]
        work.spend(1 + (place[1] - place[0]) * len(load.parts) // 2)
        if any(nodes.room_in(kind, place, pods) < pods for kind, pods in load.parts):
            self._untried.clear()

    def get(self, index: int, nodes: Nodes, work: Work) -> Filling | None:
        """Return the way with a number from 0 on; None if there are not so many."""
        while len(self._found) <= index and self._untried:
            filling = _filled(nodes, self._place, self._load.parts, self._untried.pop(), work)
            if filling is not None and filling not in self._found:
                self._found.append(filling)
        return self._found[index] if index < len(self._found) else None


def _filled(nodes: Nodes, place: Place, parts: tuple[tuple[int, int], ...], how: Way, work: Work) -> Filling | None:
    """Return what one way makes of a load; the nodes are as before."""
    filling: list[tuple[int, int, int]] = []
    is_complete = True
    for kind, pods in parts:
        taken = how(nodes, place, kind, pods)
        work.spend(4 + 2 * (place[1] - place[0]))
        if how is _least_left_over:
            work.spend(pods * (place[1] - place[0]))
        if taken is None:
            is_complete = False
            break
        part = [(kind, node, count) for node, count in sorted(taken.items())]
        nodes.move(part, 1)
        filling += part
    nodes.move(filling, -1)
    return tuple(filling) if is_complete else None


def _fewest_nodes(nodes: Nodes, place: Place, kind: int, pods: int) -> dict[int, int] | None:
    """Use the largest nodes up, and give the rest to the tightest that holds it."""
    rooms = sorted(((nodes.room(kind, node), node) for node in range(*place)), key=lambda each: (each[0], -each[1]))
    taken: dict[int, int] = {}
    while pods and rooms:
        at = next((i for i, each in enumerate(rooms) if each[0] >= pods), len(rooms) - 1)
        room, node = rooms.pop(at)
        if not room:
            break
        taken[node] = min(room, pods)
        pods -= taken[node]
    return None if pods else taken


def _fullest_first(nodes: Nodes, place: Place, kind: int, pods: int) -> dict[int, int] | None:
    """Use up the nodes with the least room, so that large ones stay whole."""
    taken: dict[int, int] = {}
    for room, node in sorted((nodes.room(kind, node), node) for node in range(*place)):
        if room and pods:
            taken[node] = min(room, pods)
            pods -= taken[node]
    return None if pods else taken


def _least_left_over(nodes: Nodes, place: Place, kind: int, pods: int) -> dict[int, int] | None:
    """Put each pod where the least is left over afterwards, as the norm of the vector of what is left."""
    rooms = {node: room for node in range(*place) if (room := nodes.room(kind, node))}
    if pods * len(rooms) > NORM_CELLS_MAX:
        return None
    costs = [(row, amount, nodes.scale[row]) for row, amount in nodes.costs[kind]]
    norms = {}
    for node in rooms:
        free = nodes.free[node]
        norms[node] = sum(((free[row] - amount) * scale) ** 2 for row, amount, scale in costs)
    taken: dict[int, int] = {}
    for _ in range(pods):
        if not norms:
            return None
        node = min(norms, key=lambda each: (norms[each], each))
        count = taken[node] = taken.get(node, 0) + 1
        if count == rooms[node]:
            del norms[node]
            continue
        free = nodes.free[node]
        norms[node] = sum(((free[row] - (count + 1) * amount) * scale) ** 2 for row, amount, scale in costs)
    return taken


_WAYS: Final[tuple[Way, ...]] = (_fewest_nodes, _least_left_over, _fullest_first)

WAYS_MAX: Final = len(_WAYS)
