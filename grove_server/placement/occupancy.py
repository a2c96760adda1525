"""Who sits where: the pods that run, by node and gang, as arrays that preemption and consolidation calculate on.

Rules: incremental, and the caller keeps it in step with the cluster: a pod is here as long as its place is reserved.
Which pods are surplus is worked out here: of each clique the first `minimum` pods by index are its minimum, the others
are surplus, so a pod that goes away never leaves the account wrong. What is reclaimable is kept summed up by priority
and node, so "free plus reclaimable below p" is one vector operation. Rows of pods and gangs are reused.

Not here: what may be evicted for whom (`preemption`, `reclaim`), units of eviction (`units`), what is free (`ledger`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from grove_server.placement import gpus
from grove_server.placement.requests import (
    GPU_RESOURCE,
    GPU_SHARE,
    PODS_RESOURCE,
    Counting,
    PodShape,
    nobody_counted,
)
from grove_server.placement.topology import BoolArray, IntArray

PRIORITY_MIN: Final = -(2**31)
PRIORITY_MAX: Final = 2**31 - 1
"""Kubernetes priorities are 32-bit numbers: users' up to 10^9, those of the system's classes from 2 * 10^9."""

SEATS_MAX: Final = 2_000_000
"""Most pods in one occupancy."""

_WORD_BITS: Final = 64


class OccupancyError(ValueError):
    """A pod or gang that is unknown, known already, or out of bounds; nothing was changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GangFacts:
    """What evictions have to know of a gang.

    `minimums`: (clique, pods that must run together). `base_gang` is the gang that a scaled gang depends on, "" for a
    base gang. `evictable_surplus`: (clique, surplus pods that may be evicted now): what is left of the clique's
    availability budget; a clique that is not listed has no such limit. `started_at_s`: when its minimum was placed.
    `is_leaving`: it stands for pods that leave already, whoever asks for their places.
    """

    name: str
    minimums: tuple[tuple[str, int], ...] = ()
    priority: int = 0
    queue: str = ""
    base_gang: str = ""
    started_at_s: float = 0.0
    is_preemptible: bool = True
    evictable_surplus: tuple[tuple[str, int], ...] = ()
    is_leaving: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """One pod on its node; `index` is its place in the clique, `gpu_ids` are its GPUs of that node."""

    pod: str
    gang: str
    clique: str
    index: int
    node: str
    shape: PodShape
    gpu_ids: tuple[int, ...] = ()


class Occupancy:
    """Pods and gangs by row; read the arrays, change them only through methods.

    By pod row: `pod_node`, `pod_gang` (row, -1 = vacant), `amounts` int64[resource, pod], `masks` uint64[word, pod] of
    whole GPUs' ids, `milli` of a share of one GPU, `is_surplus`. By gang row: `priority`, `queue` (number),
    `started_at_s`, `is_preemptible`, `is_leaving`, `base` (row of the base gang, -1 = none or gone), `is_present`.
    """

    def __init__(self, counting: Counting = nobody_counted) -> None:
        """Begin empty; `counting` tells whom rules between pods count, and so what these say without some."""
        self.counting = counting
        self.resources: dict[str, int] = {PODS_RESOURCE: 0, GPU_RESOURCE: 1}
        self.nodes: dict[str, int] = {}
        self.queues: dict[str, int] = {"": 0}
        self.gangs: dict[str, int] = {}
        self.pods: dict[str, int] = {}
        self.facts: list[GangFacts | None] = []
        self.seats: list[Seat | None] = []
        self.pod_node: IntArray = np.zeros(0, dtype=np.int64)
        self.pod_gang: IntArray = np.zeros(0, dtype=np.int64)
        self.amounts: IntArray = np.zeros((2, 0), dtype=np.int64)
        self.masks = np.zeros((1, 0), dtype=np.uint64)
        self.milli: IntArray = np.zeros(0, dtype=np.int64)
        self.priority: IntArray = np.zeros(0, dtype=np.int64)
        self.queue: IntArray = np.zeros(0, dtype=np.int64)
        self.started_at_s = np.zeros(0, dtype=np.float64)
        self.is_preemptible: BoolArray = np.zeros(0, dtype=np.bool_)
        self.is_leaving: BoolArray = np.zeros(0, dtype=np.bool_)
        self.is_present: BoolArray = np.zeros(0, dtype=np.bool_)
        self._is_surplus: BoolArray = np.zeros(0, dtype=np.bool_)
        self._base: IntArray = np.zeros(0, dtype=np.int64)
        self._bands: dict[int, IntArray] = {}
        self._members: list[dict[str, dict[int, int]]] = []
        self._unsorted: dict[int, None] = {}
        self._bases_known = True
        self._pods_on: list[int] = []
        self._vacant_pods: list[int] = []
        self._vacant_gangs: list[int] = []
        self._vacant_nodes: list[int] = []

    # -- changes -------------------------------------------------------------------------------------------------

    def set_gang(self, facts: GangFacts) -> None:
        """Add a gang or replace what is known of it; OccupancyError for a priority that is no 32-bit number."""
        if not PRIORITY_MIN <= facts.priority <= PRIORITY_MAX:
            raise OccupancyError(f"gang {facts.name}: priority {facts.priority} is not a 32-bit number")
        if any(count < 0 for _, count in (*facts.minimums, *facts.evictable_surplus)):
            raise OccupancyError(f"gang {facts.name}: a count is negative")
        row = self.gangs.get(facts.name)
        if row is None:
            row = self._new_gang()
            self.gangs[facts.name] = row
        before = self.facts[row]
        moves = before is not None and (before.priority, before.is_preemptible) != (
            facts.priority,
            facts.is_preemptible,
        )
        pods = self.pods_of(row) if moves else []
        self._count(pods, -1)
        self.facts[row] = facts
        self.priority[row] = facts.priority
        self.queue[row] = self.queues.setdefault(facts.queue, len(self.queues))
        self.started_at_s[row] = facts.started_at_s
        self.is_preemptible[row] = facts.is_preemptible
        self.is_leaving[row] = facts.is_leaving
        self.is_present[row] = True
        self._count(pods, 1)
        self._unsorted[row] = None
        if before is None or before.base_gang != facts.base_gang:
            self._bases_known = False

    def drop_gang(self, name: str) -> None:
        """Forget a gang without pods; OccupancyError if it has some or is unknown."""
        row = self._gang_row(name)
        if any(self._members[row].values()):
            raise OccupancyError(f"gang {name} still has pods")
        del self.gangs[name]
        self.facts[row] = None
        self.is_present[row] = False
        self._members[row] = {}
        self._unsorted.pop(row, None)
        self._vacant_gangs.append(row)
        self._bases_known = False

    def add_pods(self, seats: Iterable[Seat]) -> None:
        """Add pods; OccupancyError (nothing changed) if one is known, its gang is not, or there are too many."""
        seats = tuple(seats)
        names = {seat.pod for seat in seats}
        known = sorted(names & self.pods.keys())
        if known or len(names) != len(seats):
            raise OccupancyError(f"pods are known or named twice: {known[:5]}")
        if len(self.pods) + len(seats) > SEATS_MAX:
            raise OccupancyError(f"more than {SEATS_MAX} pods")
        gangs = [self._gang_row(seat.gang) for seat in seats]
        rows = [self._add(seat, gang) for seat, gang in zip(seats, gangs, strict=True)]
        self._count(rows, 1)

    def remove_pods(self, names: Iterable[str]) -> None:
        """Remove pods; OccupancyError (and nothing changed) if one is unknown."""
        names = dict.fromkeys(names)
        unknown = sorted(names.keys() - self.pods.keys())
        if unknown:
            raise OccupancyError(f"unknown pods: {unknown[:5]}")
        rows = [self.pods.pop(name) for name in names]
        self._count(rows, -1)
        for row in rows:
            seat, gang = self.seat(row), int(self.pod_gang[row])
            del self._members[gang][seat.clique][row]
            self.seats[row] = None
            self.pod_gang[row] = -1
            self._is_surplus[row] = False
            self.masks[:, row] = 0
            self.amounts[:, row] = 0
            self._unsorted[gang] = None
            self._leave(seat.node)
        self._vacant_pods += rows

    # -- views ---------------------------------------------------------------------------------------------------

    def seat(self, row: int) -> Seat:
        """Return the pod of a row in use."""
        seat = self.seats[row]
        assert seat is not None
        return seat

    def gang(self, row: int) -> GangFacts:
        """Return the gang of a row in use."""
        facts = self.facts[row]
        assert facts is not None
        return facts

    def pods_of(self, gang: int) -> list[int]:
        """Return the pod rows of a gang, by clique and index."""
        members = self._members[gang]
        return [row for clique in sorted(members) for row in self._by_index(members[clique])]

    @property
    def is_surplus(self) -> BoolArray:
        """Return by pod row whether the pod is above the minimum of its clique."""
        for gang in self._unsorted:
            minimums = dict(self.gang(gang).minimums)
            for clique, members in self._members[gang].items():
                minimum = minimums.get(clique, 0)
                for rank, row in enumerate(self._by_index(members)):
                    self._is_surplus[row] = rank >= minimum
        self._unsorted.clear()
        return self._is_surplus

    @property
    def base(self) -> IntArray:
        """Return by gang row the row of its base gang; -1 where there is none."""
        if not self._bases_known:
            for facts, row in ((self.gang(row), row) for row in self.gangs.values()):
                self._base[row] = self.gangs.get(facts.base_gang, -1) if facts.base_gang else -1
            self._bases_known = True
        return self._base

    def reclaimable_below(self, priority: int) -> IntArray:
        """Return int64[resource, node] of what preemptible pods of lower priorities hold.

        `resources` numbers the rows, `nodes` the columns.
        """
        columns = len(self._pods_on)
        total: IntArray = np.zeros((len(self.resources), columns), dtype=np.int64)
        for band, held in self._bands.items():
            if band < priority:
                total[: held.shape[0], : held.shape[1]] += held[:, :columns]
        return total

    def used_by_queue(self, *, is_leaving_counted: bool = True) -> dict[str, dict[str, int]]:
        """Return what the pods of each queue hold, by resource; shares of GPUs, in milli, under GPU_SHARE.

        Pods that leave already hold their places until they are gone; not `is_leaving_counted`: what will be left.
        """
        rows = np.flatnonzero(self.pod_gang >= 0)
        if not is_leaving_counted and self.is_leaving.any():
            rows = rows[~self.is_leaving[self.pod_gang[rows]]]
        queues = self.queue[self.pod_gang[rows]]
        used: dict[str, dict[str, int]] = {name: {} for name in self.queues}
        held = {resource: self.amounts[at] for resource, at in self.resources.items()}
        for resource, amounts in (*held.items(), (GPU_SHARE, self.milli)):
            sums = np.zeros(len(self.queues), dtype=np.int64)
            np.add.at(sums, queues, amounts[rows])
            for name, number in self.queues.items():
                used[name][resource] = int(sums[number])
        return used

    # -- inside --------------------------------------------------------------------------------------------------

    def _gang_row(self, name: str) -> int:
        row = self.gangs.get(name)
        if row is None:
            raise OccupancyError(f"there is no gang {name}")
        return row

    def _by_index(self, members: dict[int, int]) -> list[int]:
        return sorted(members, key=lambda row: (members[row], self.seat(row).pod))

    def _add(self, seat: Seat, gang: int) -> int:
        row = self._vacant_pods.pop() if self._vacant_pods else self._new_pod()
        self.pods[seat.pod] = row
        self.seats[row] = seat
        self.pod_gang[row] = gang
        self.pod_node[row] = self._enter(seat.node)
        self.amounts[0, row] = 1
        for resource, amount in seat.shape.requests:
            if resource != PODS_RESOURCE and amount > 0:
                at = self._resource(resource)
                self.amounts[at, row] = amount
        self.milli[row] = seat.shape.gpu_milli
        if seat.gpu_ids and not seat.shape.gpu_milli:
            self._set_mask(row, gpus.mask_of(seat.gpu_ids))
        self._members[gang].setdefault(seat.clique, {})[row] = seat.index
        self._unsorted[gang] = None
        return row

    def _enter(self, node: str) -> int:
        """Return the column of a pod's node, a new one for its first pod."""
        column = self.nodes.get(node)
        if column is None:
            column = self._vacant_nodes.pop() if self._vacant_nodes else len(self._pods_on)
            if column == len(self._pods_on):
                self._pods_on.append(0)
            self.nodes[node] = column
        self._pods_on[column] += 1
        return column

    def _leave(self, node: str) -> None:
        """Forget a node with its last pod, so that nodes which come and go cannot make the arrays grow for ever."""
        column = self.nodes[node]
        self._pods_on[column] -= 1
        if not self._pods_on[column]:
            del self.nodes[node]
            self._vacant_nodes.append(column)

    def _set_mask(self, row: int, mask: int) -> None:
        words = -(-mask.bit_length() // _WORD_BITS)
        if words > len(self.masks):
            more = np.zeros((words - len(self.masks), self.masks.shape[1]), dtype=np.uint64)
            self.masks = np.concatenate([self.masks, more])
        for word in range(words):
            self.masks[word, row] = (mask >> (_WORD_BITS * word)) & (2**_WORD_BITS - 1)

    def _count(self, pods: Sequence[int], sign: int) -> None:
        """Add (1) or take away (-1) what pods hold in the bands of their priorities."""
        if not pods:
            return
        rows = np.array(pods, dtype=np.int64)
        gangs = self.pod_gang[rows]
        rows = rows[self.is_preemptible[gangs]]
        priorities = self.priority[self.pod_gang[rows]]
        for priority in np.unique(priorities).tolist():
            mine = rows[priorities == priority]
            band = self._band(priority)
            for held, amounts in zip(band, self.amounts, strict=True):
                np.add.at(held, self.pod_node[mine], sign * amounts[mine])
            if not band[0].any():
                del self._bands[priority]

    def _band(self, priority: int) -> IntArray:
        """Return the array of a priority, grown to all resources and nodes."""
        held = self._bands.get(priority)
        rows, columns = len(self.resources), len(self._pods_on)
        if held is None or held.shape[0] < rows or held.shape[1] < columns:
            wide = 0 if held is None else held.shape[1] if held.shape[1] >= columns else 2 * held.shape[1]
            grown = np.zeros((rows, max(columns, wide)), dtype=np.int64)
            if held is not None:
                grown[: held.shape[0], : held.shape[1]] = held
            held = self._bands[priority] = grown
        return held

    def _resource(self, resource: str) -> int:
        row = self.resources.setdefault(resource, len(self.resources))
        if row == len(self.amounts):
            self.amounts = np.concatenate([self.amounts, np.zeros((1, self.amounts.shape[1]), dtype=np.int64)])
        return row

    def _new_pod(self) -> int:
        row = len(self.seats)
        self.seats.append(None)
        if row == len(self.pod_gang):
            size = max(64, row)
            self.pod_gang = np.concatenate([self.pod_gang, np.full(size, -1, dtype=np.int64)])
            self.pod_node = np.concatenate([self.pod_node, np.zeros(size, dtype=np.int64)])
            self.milli = np.concatenate([self.milli, np.zeros(size, dtype=np.int64)])
            self._is_surplus = np.concatenate([self._is_surplus, np.zeros(size, dtype=np.bool_)])
            self.amounts = np.concatenate([self.amounts, np.zeros((len(self.amounts), size), dtype=np.int64)], axis=1)
            self.masks = np.concatenate([self.masks, np.zeros((len(self.masks), size), dtype=np.uint64)], axis=1)
        return row

    def _new_gang(self) -> int:
        if self._vacant_gangs:
            return self._vacant_gangs.pop()
        row = len(self.facts)
        self.facts.append(None)
        self._members.append({})
        if row == len(self.priority):
            size = max(64, row)
            self.priority = np.concatenate([self.priority, np.zeros(size, dtype=np.int64)])
            self.queue = np.concatenate([self.queue, np.zeros(size, dtype=np.int64)])
            self.started_at_s = np.concatenate([self.started_at_s, np.zeros(size, dtype=np.float64)])
            self.is_preemptible = np.concatenate([self.is_preemptible, np.zeros(size, dtype=np.bool_)])
            self.is_leaving = np.concatenate([self.is_leaving, np.zeros(size, dtype=np.bool_)])
            self.is_present = np.concatenate([self.is_present, np.zeros(size, dtype=np.bool_)])
            self._base = np.concatenate([self._base, np.full(size, -1, dtype=np.int64)])
        return row
