"""The amounts of a cluster: what each node has and what is free of it, as arrays, and a log of what changed.

Rules: int64 amounts exactly as given, nothing is rounded. Row 0 is `pods`, row 1 the GPU count, further rows appear
with the first node that has the resource. Free may be negative: a node that shrank under its pods stays truthful. The
GPU row is always the number of free bits of the node's GPU mask: the wholly free GPUs. Those of which a share is used
are kept apart (`shares`). Readers remember how far they read the change log and
catch up on the slots named after that; a reader that is too far behind starts over.

Not here: names, labels and taints (`cluster`), request classes (`counts`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from grove_server.placement import gpus
from grove_server.placement.requests import GPU_RESOURCE, PODS_RESOURCE
from grove_server.placement.shares import GpuShares, OpenMilli, shares_taken
from grove_server.placement.topology import IntArray
from grove_server.resources.gpu_annotations import GPU_MILLI

PODS_ROW: Final = 0
GPU_ROW: Final = 1
RESOURCES_MAX: Final = 64
"""Most different resources in one cluster."""

_LOG_MAX: Final = 32_768


class ChangeLog:
    """Slots in the order in which they changed, with absolute positions; old entries fall off."""

    __slots__ = ("_slots", "end")

    def __init__(self) -> None:
        self._slots: list[int] = []
        self.end = 0
        """The position after the newest entry; a plain attribute because it is read several times per decision."""

    def add(self, slot: int) -> None:
        """Append one slot."""
        self._slots.append(slot)
        self.end += 1
        if len(self._slots) > _LOG_MAX:
            self._trim()

    def extend(self, slots: list[int]) -> None:
        """Append several slots."""
        self._slots.extend(slots)
        self.end += len(slots)
        if len(self._slots) > _LOG_MAX:
            self._trim()

    def since(self, position: int) -> list[int] | None:
        """Return the slots changed from `position` on, each once, in order; None if that is too long ago."""
        start = position - self.end + len(self._slots)
        if start < 0:
            return None
        return list(dict.fromkeys(self._slots[start:]))

    def _trim(self) -> None:
        del self._slots[: len(self._slots) // 2]


class Ledger:
    """Allocatable and free amounts by (resource row, slot), GPU masks and partly used GPUs by slot."""

    __slots__ = (
        "allocatable",
        "changes",
        "free",
        "gpu_free",
        "gpu_islands",
        "gpu_promised",
        "gpu_taken",
        "gpu_usable",
        "promised",
        "rows",
        "shares",
    )

    def __init__(self) -> None:
        self.rows: dict[str, int] = {PODS_RESOURCE: PODS_ROW, GPU_RESOURCE: GPU_ROW}
        self.allocatable: IntArray = np.zeros((2, 0), dtype=np.int64)
        self.free: IntArray = np.zeros((2, 0), dtype=np.int64)
        self.gpu_usable: list[int] = []
        self.gpu_taken: list[int] = []
        self.gpu_free: list[int] = []
        self.gpu_islands: list[gpus.Islands] = []
        self.shares = GpuShares()
        # What is promised (see `promises`): taken from what is free, although others may still sit on it.
        self.promised: dict[tuple[int, int], int] = {}
        self.gpu_promised: dict[int, int] = {}
        self.changes = ChangeLog()

    def fork(self) -> Ledger:
        """Return an independent copy with an empty change log."""
        other = Ledger()
        other.rows = dict(self.rows)
        other.allocatable = self.allocatable.copy()
        other.free = self.free.copy()
        other.gpu_usable = list(self.gpu_usable)
        other.gpu_taken = list(self.gpu_taken)
        other.gpu_free = list(self.gpu_free)
        other.gpu_islands = list(self.gpu_islands)
        other.shares = self.shares.fork()
        other.promised = dict(self.promised)
        other.gpu_promised = dict(self.gpu_promised)
        return other

    def add_slot(self) -> int:
        """Return a new slot that has nothing."""
        slot = len(self.gpu_free)
        if slot == self.free.shape[1]:
            more = np.zeros((len(self.rows), max(64, slot)), dtype=np.int64)
            self.allocatable = np.concatenate([self.allocatable, more], axis=1)
            self.free = np.concatenate([self.free, more], axis=1)
        self.gpu_usable.append(0)
        self.gpu_taken.append(0)
        self.gpu_free.append(0)
        self.gpu_islands.append(())
        return slot

    def set_allocatable(self, slot: int, amounts: Mapping[str, int], gpu_busy: frozenset[int]) -> bool:
        """Give a slot new amounts, keep what is used on it, and return whether anything grew."""
        for resource in amounts:
            self._row(resource)
        new = np.zeros(len(self.rows), dtype=np.int64)
        for resource, amount in amounts.items():
            new[self.rows[resource]] = amount
        delta = new - self.allocatable[:, slot]
        self.allocatable[:, slot] = new
        self.free[:, slot] += delta
        usable_before = self.gpu_usable[slot]
        self.gpu_usable[slot] = ((1 << int(new[GPU_ROW])) - 1) & ~gpus.mask_of(gpu_busy)
        self._set_gpus(slot, self.gpu_taken[slot])
        self.changes.add(slot)
        return bool((delta > 0).any()) or bool(self.gpu_usable[slot] & ~usable_before & ~self.gpu_taken[slot])

    def move(self, slot: int, costs: tuple[tuple[int, int], ...], pod_count: int) -> None:
        """Take (pod_count > 0) or give back (< 0) the cost of equal pods, GPUs aside."""
        for row, amount in costs:
            if row != GPU_ROW:
                self.free[row, slot] -= amount * pod_count
        self.changes.add(slot)

    def take_gpus(self, slot: int, mask: int) -> None:
        """Mark GPUs as taken."""
        self._set_gpus(slot, self.gpu_taken[slot] | mask)

    def give_gpus(self, slot: int, mask: int) -> None:
        """Mark GPUs as no longer taken."""
        self._set_gpus(slot, self.gpu_taken[slot] & ~mask)

    def promise(self, slot: int, costs: tuple[tuple[int, int], ...], pod_count: int) -> None:
        """Set the cost of equal pods aside (pod_count > 0) or let go of it (< 0), GPUs aside; free may get negative."""
        for row, amount in costs:
            if row != GPU_ROW:
                left = self.promised.get((row, slot), 0) + amount * pod_count
                if left:
                    self.promised[row, slot] = left
                else:
                    del self.promised[row, slot]
        self.move(slot, costs, pod_count)

    def promise_gpus(self, slot: int, mask: int) -> None:
        """Set GPUs aside, also such that are taken still: `mask` is all that is promised of the slot, 0 = nothing."""
        if mask:
            self.gpu_promised[slot] = mask
        else:
            self.gpu_promised.pop(slot, None)
        self._set_gpus(slot, self.gpu_taken[slot])

    def take_share(self, slot: int, gpu_id: int, milli: int) -> None:
        """Note that a pod holds so many milli of a GPU; a negative number gives them back."""
        self.shares.add(slot, gpu_id, milli)
        self._set_gpus(slot, self.gpu_taken[slot])

    def open_of(self, slot: int) -> dict[int, int]:
        """Return the free milli of the partly used GPUs of a slot that work, by id; 0 for those that are used up."""
        usable = self.gpu_usable[slot] & ~self.gpu_taken[slot] & ~self.gpu_promised.get(slot, 0)
        used = self.shares.used.get(slot, {})
        return {gpu_id: GPU_MILLI - milli for gpu_id, milli in sorted(used.items()) if usable >> gpu_id & 1}

    def try_shares(self, slot: int, milli: int, count: int) -> tuple[OpenMilli, int]:
        """Take shares tentatively, without ids; return what `untry_shares` needs, to be undone in reverse order."""
        before = self.shares.open.get(slot, ())
        after, opened = shares_taken(before, milli, count)
        self.shares.set_open(slot, after)
        self.free[GPU_ROW, slot] -= opened
        self.changes.add(slot)
        return before, opened

    def untry_shares(self, slot: int, undo: tuple[OpenMilli, int]) -> None:
        """Take back what `try_shares` did."""
        self.shares.set_open(slot, undo[0])
        self.free[GPU_ROW, slot] += undo[1]
        self.changes.add(slot)

    def shares_fitting(self, slots: IntArray, milli: int) -> IntArray:
        """Return by slot how many shares of one size fit, GPUs that are wholly free included: int64[slots]."""
        counts: IntArray = np.maximum(self.free[GPU_ROW][slots], 0) * (GPU_MILLI // milli)
        return counts + self.shares.fitting(slots, milli)

    def shares_fitting_at(self, slot: int, milli: int) -> int:
        """Return the same for one slot."""
        whole = max(0, self.free.item(GPU_ROW, slot))
        return whole * (GPU_MILLI // milli) + self.shares.fitting_at(slot, milli)

    def gpu_milli_free(self, slots: IntArray) -> IntArray:
        """Return by slot all that is free of its GPUs, in milli: int64[slots]."""
        sums: IntArray = np.maximum(self.free[GPU_ROW][slots], 0) * GPU_MILLI
        return sums + self.shares.sums(slots)

    def costs(self, requests: tuple[tuple[str, int], ...]) -> tuple[tuple[int, int], ...]:
        """Return (row, amount) of one pod, its `pods` unit included; for pods that run, so resources are known."""
        amounts = {PODS_ROW: 1}
        for resource, amount in requests:
            if amount > 0:
                amounts[self._row(resource)] = amount
        return tuple(sorted(amounts.items()))

    def known_costs(self, requests: tuple[tuple[str, int], ...]) -> tuple[tuple[int, int], ...] | None:
        """Return the same for pods that are only asked for; None if they want a resource that no node ever had."""
        if any(amount > 0 and resource not in self.rows for resource, amount in requests):
            return None
        return self.costs(requests)

    def is_unused(self, slot: int) -> bool:
        """Return whether nothing is reserved on a slot."""
        others = np.arange(len(self.rows)) != GPU_ROW
        is_gpu_held = self.gpu_taken[slot] or slot in self.shares.used
        return not is_gpu_held and bool((self.free[others, slot] == self.allocatable[others, slot]).all())

    def _set_gpus(self, slot: int, taken: int) -> None:
        self.gpu_taken[slot] = taken
        free = self.gpu_usable[slot] & ~taken & ~self.gpu_promised.get(slot, 0)
        shares = self.shares
        if slot in shares.used or slot in shares.open:
            free &= ~gpus.mask_of(shares.used.get(slot, ()))
            shares.set_open(slot, tuple(sorted(left for left in self.open_of(slot).values() if left > 0)))
        self.gpu_free[slot] = free
        self.free[GPU_ROW, slot] = self.gpu_free[slot].bit_count()

    def _row(self, resource: str) -> int:
        row = self.rows.get(resource)
        if row is None:
            if len(self.rows) >= RESOURCES_MAX:
                raise ValueError(f"more than {RESOURCES_MAX} different resources; {resource!r} is one too many")
            row = len(self.rows)
            self.rows[resource] = row
            more = np.zeros((1, self.free.shape[1]), dtype=np.int64)
            self.allocatable = np.concatenate([self.allocatable, more])
            self.free = np.concatenate([self.free, more])
        return row
