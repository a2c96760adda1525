"""Clearing: moving what runs so that whole domains come free, for gangs that need them whole.

Rules: as in consolidation: whole gangs move (with the scaled gangs that depend on them) or surplus pods, each once per
plan, all of them to places that are there in fact. The domains with the fewest pods are cleared first; pods go to
domains that are in use, never to empty ones, so every domain cleared is one more. A domain that took pods in stays.

Not here: moves for the sake of one gang (`consolidation`).
"""

from __future__ import annotations

import numpy as np

from grove_server.placement.cluster import Cluster
from grove_server.placement.consolidation import (
    DEFAULT_LIMITS,
    ConsolidationLimits,
    Move,
    Moves,
    RequestOf,
    moved_pods,
    size_of,
)
from grove_server.placement.eviction import Disruption
from grove_server.placement.ledger import PODS_ROW
from grove_server.placement.occupancy import Occupancy
from grove_server.placement.place import DEFAULT_BUDGET
from grove_server.placement.preemption import VictimKind
from grove_server.placement.requests import Budget
from grove_server.placement.topology import BoolArray, IntArray, Layout


def plan_clearing(
    cluster: Cluster,
    occupancy: Occupancy,
    topology: tuple[str, ...],
    level: str,
    *,
    request_of: RequestOf,
    domains_max: int | None = None,
    limits: ConsolidationLimits = DEFAULT_LIMITS,
    budget: Budget = DEFAULT_BUDGET,
) -> Moves:
    """Return the moves that free many whole domains of a level; KeyError if the topology has no such level.

    `limits.tries_max` bounds the domains that are tried in vain. Greedy: the most that can be freed may be more.
    """
    layout = cluster.layout(topology)
    number = layout.level_of(level)
    if number is None:
        raise KeyError(level)
    return _Clearing(cluster, occupancy, layout, number, request_of, limits, budget).run(domains_max)


class _Clearing:
    """Clears domains one after the other on a copy of the cluster; one that cannot be cleared stays as it is."""

    def __init__(
        self,
        cluster: Cluster,
        occupancy: Occupancy,
        layout: Layout,
        level: int,
        request_of: RequestOf,
        limits: ConsolidationLimits,
        budget: Budget,
    ) -> None:
        self.cluster = cluster.fork()
        self.occupancy = occupancy
        self.layout = layout
        self.level = layout.levels[level]
        self.names = [layout.value_of(level, each) for each in range(self.level.count)]
        self.request_of = request_of
        self.limits = limits
        self.budget = budget
        domains = {node: self._domain_at(int(slot)) for node, slot in self._slots(list(occupancy.nodes))}
        self.by_domain: dict[int, list[int]] = {}
        self.counts: IntArray = np.zeros(self.level.count, dtype=np.int64)
        for name in sorted(occupancy.pods):
            row = occupancy.pods[name]
            domain = domains[occupancy.seat(row).node]
            if domain >= 0:
                self.by_domain.setdefault(domain, []).append(row)
                self.counts[domain] += 1
        self.domains = domains
        self.has_received: BoolArray = np.zeros(self.level.count, dtype=np.bool_)
        self.moves: dict[str, Move] = {}
        self.gone: set[int] = set()
        self.pods_moved = 0

    def run(self, domains_max: int | None) -> Moves:
        """Clear domains, those with the fewest pods first."""
        at_first = self.counts.copy()
        vain = 0
        for domain in np.argsort(at_first, kind="stable").tolist():
            freed = np.flatnonzero((at_first > 0) & (self.counts == 0) & self.level.is_named)
            if vain >= self.limits.tries_max or (domains_max is not None and len(freed) >= domains_max):
                break
            if not self.counts[domain] or not self.level.is_named[domain] or self.has_received[domain]:
                continue
            vain += not self._clear(domain)
        freed = np.flatnonzero((at_first > 0) & (self.counts == 0) & self.level.is_named)
        return Moves(
            moves=tuple(self.moves[name] for name in sorted(self.moves)),
            target=None,
            freed=tuple(self.names[each] or self._node_of(each) for each in freed.tolist()),
            pods_placed=0,
            cost=self._cost(),
        )

    def _clear(self, domain: int) -> bool:
        """Move all that runs in a domain into others in use; False, and nothing moved, if not all of it has a place."""
        units = self._units([row for row in self.by_domain[domain] if row not in self.gone])
        if units is None or any(gang in self.moves for gang in units):
            return False
        if self.pods_moved + sum(map(len, units.values())) > self.limits.pods_max:
            return False
        if len(self.moves) + len(units) > self.limits.gangs_max:
            return False
        trial = self.cluster.fork()
        self._release(trial, units)
        closed = self.counts == 0
        closed[domain] = True
        slots = self.layout.slots[closed[self.level.domain_at]]
        trial.ledger.free[PODS_ROW, slots] = np.minimum(trial.ledger.free[PODS_ROW, slots], 0)
        moves: list[Move] = []
        for gang, rows in sorted(units.items(), key=lambda unit: (-self._size(unit[1]), unit[0])):
            is_whole = len(rows) == len(self.occupancy.pods_of(self.occupancy.gangs[gang]))
            seats = tuple(self.occupancy.seat(row) for row in rows)
            kind = VictimKind.GANG if is_whole else VictimKind.SURPLUS
            move = moved_pods(trial, gang, kind, seats, self.request_of, self.budget)
            if move is None:
                return False
            moves.append(move)
        self._release(self.cluster, units)
        for rows in units.values():
            self.gone.update(rows)
            for row in rows:
                self._count(self.occupancy.seat(row).node, -1)
        for move in moves:
            self._settle(move)
        return True

    def _settle(self, move: Move) -> None:
        self.cluster.reserve(move.placement)
        self.moves[move.gang] = move
        self.pods_moved += len(move.pods)
        for clique in move.placement.cliques:
            for binding in clique.bindings:
                self._count(binding.node, 1)
                self.has_received[self._domain_of(binding.node)] = True

    def _units(self, rows: list[int]) -> dict[str, list[int]] | None:
        """Return by gang the rows that move with some pods: surplus alone, else all; None if one may not move."""
        occupancy, surplus = self.occupancy, self.occupancy.is_surplus
        units: dict[int, list[int]] = {}
        for row in rows:
            units.setdefault(int(occupancy.pod_gang[row]), []).append(row)
        whole = [gang for gang, mine in units.items() if not all(surplus[row] for row in mine)]
        whole += [
            each for gang in whole for each in np.flatnonzero(occupancy.is_present & (occupancy.base == gang)).tolist()
        ]
        units.update((gang, pods) for gang in whole if (pods := occupancy.pods_of(gang)))
        if not all(occupancy.is_preemptible[gang] for gang in units):
            return None
        for gang in units.keys() - set(whole):  # unordered -- any one that is over its budget decides
            budgets = dict(occupancy.gang(gang).evictable_surplus)
            cliques = [occupancy.seat(row).clique for row in units[gang]]
            if any(cliques.count(clique) > budgets.get(clique, len(cliques)) for clique in cliques):
                return None
        return {occupancy.gang(gang).name: mine for gang, mine in units.items()}

    def _release(self, cluster: Cluster, units: dict[str, list[int]]) -> None:
        for rows in units.values():
            for row in rows:
                seat = self.occupancy.seat(row)
                cluster.release_pod(seat.node, seat.shape, seat.gpu_ids)

    def _size(self, rows: list[int]) -> int:
        return size_of([self.occupancy.seat(row) for row in rows])

    def _count(self, node: str, sign: int) -> None:
        domain = self._domain_of(node)
        if domain >= 0:
            self.counts[domain] += sign

    def _domain_of(self, node: str) -> int:
        if node not in self.domains:
            self.domains[node] = self._domain_at(int(self.cluster.slots_at([node])[0]))
        return self.domains[node]

    def _domain_at(self, slot: int) -> int:
        position = int(self.layout.positions[slot]) if slot >= 0 else -1
        return int(self.level.domain_at[position]) if position >= 0 else -1

    def _slots(self, nodes: list[str]) -> list[tuple[str, int]]:
        return list(zip(nodes, self.cluster.slots_at(nodes).tolist(), strict=True))

    def _node_of(self, domain: int) -> str:
        state = self.cluster.rules.states[int(self.layout.slots[self.level.starts[domain]])]
        return state.name if state is not None else ""

    def _cost(self) -> Disruption:
        gangs = [self.occupancy.gangs[move.gang] for move in self.moves.values() if move.kind == VictimKind.GANG]
        return Disruption(
            gangs_broken=len(gangs),
            priority_highest=max((int(self.occupancy.priority[gang]) for gang in gangs), default=None),
            surplus_pods=sum(len(move.pods) for move in self.moves.values() if move.kind == VictimKind.SURPLUS),
            pods=self.pods_moved,
            oldest_s=min((float(self.occupancy.started_at_s[gang]) for gang in gangs), default=0.0),
        )
