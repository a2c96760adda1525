"""Partly used GPUs: what pods hold of them, and what is still free of them, by slot.

Rules: `used` is the truth by GPU id, broken GPUs included. `open` is what can be given out: the free milli of each
partly used GPU that works, ascending, without ids, because GPUs with as much free are alike. A share goes to the
fullest GPU that holds it (best fit) and opens a wholly free one only if there is none; so for shares of one size the
number that fits is exact: sum of floor(free / size), and floor(1000 / size) for each wholly free GPU.
The same numbers stand in a matrix with a row per slot, for all nodes at once; it is as wide as the most partly used
GPUs that one node ever had, and empty until somebody asks for a share.

Not here: wholly free GPUs (`ledger`), which id a share gets (`gpus`).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from grove_server.placement.topology import IntArray
from grove_server.resources.gpu_annotations import GPU_MILLI

OpenMilli: TypeAlias = tuple[int, ...]
"""Free milli of a node's partly used GPUs, ascending; a GPU without any left is not in it."""

_COLUMNS_MIN: Final = 8


class GpuShares:
    """The partly used GPUs of all slots."""

    __slots__ = ("_matrix", "open", "used")

    def __init__(self) -> None:
        self.used: dict[int, dict[int, int]] = {}
        self.open: dict[int, OpenMilli] = {}
        self._matrix: npt.NDArray[np.int16] = np.zeros((0, _COLUMNS_MIN), dtype=np.int16)

    def fork(self) -> GpuShares:
        """Return an independent copy."""
        other = GpuShares()
        other.used = {slot: dict(used) for slot, used in self.used.items()}
        other.open = dict(self.open)
        other._matrix = self._matrix.copy()
        return other

    def add(self, slot: int, gpu_id: int, milli: int) -> None:
        """Note that pods hold so much more (or less, if negative) of a GPU; what nobody holds is forgotten."""
        used = self.used.setdefault(slot, {})
        used[gpu_id] = used.get(gpu_id, 0) + milli
        if used[gpu_id] <= 0:
            del used[gpu_id]
        if not used:
            del self.used[slot]

    def set_open(self, slot: int, open_milli: OpenMilli) -> None:
        """Set what can be given out of a slot's partly used GPUs."""
        if self.open.get(slot, ()) == open_milli:
            return
        if open_milli:
            self.open[slot] = open_milli
        else:
            del self.open[slot]
        rows, columns = self._matrix.shape
        if slot >= rows or len(open_milli) > columns:
            self._grow(slot + 1, len(open_milli))
        self._matrix[slot, : len(open_milli)] = open_milli
        self._matrix[slot, len(open_milli) :] = 0

    def rows(self, slots: IntArray) -> npt.NDArray[np.int16]:
        """Return what is open on some slots: int16[slots, columns], milli, 0 where a row has no more."""
        if len(slots) and int(slots.max()) >= len(self._matrix):
            self._grow(int(slots.max()) + 1, 0)
        return self._matrix[slots]

    def fitting(self, slots: IntArray, milli: int) -> IntArray:
        """Return by slot how many shares of one size the partly used GPUs hold: int64[slots]."""
        if not self.open:
            return np.zeros(len(slots), dtype=np.int64)
        counts: IntArray = (self.rows(slots) // np.int16(milli)).sum(axis=1, dtype=np.int64)
        return counts

    def fitting_at(self, slot: int, milli: int) -> int:
        """Return the same for one slot."""
        return sum([left // milli for left in self.open.get(slot, ())])

    def sums(self, slots: IntArray) -> IntArray:
        """Return by slot the milli that are free of partly used GPUs: int64[slots]."""
        if not self.open:
            return np.zeros(len(slots), dtype=np.int64)
        sums: IntArray = self.rows(slots).sum(axis=1, dtype=np.int64)
        return sums

    def _grow(self, rows_min: int, columns_min: int) -> None:
        rows, columns = self._matrix.shape
        rows = max(rows, 2 * rows_min) if rows_min > rows else rows
        columns = max(columns, 2 * columns_min) if columns_min > columns else columns
        matrix = np.zeros((rows, columns), dtype=np.int16)
        matrix[: self._matrix.shape[0], : self._matrix.shape[1]] = self._matrix
        self._matrix = matrix


def shares_taken(open_milli: OpenMilli, milli: int, count: int) -> tuple[OpenMilli, int]:
    """Return (what is open, how many free GPUs had to be opened) after `count` shares of one size were given out."""
    left = list(open_milli)
    opened = 0
    for _ in range(count):
        at = bisect_left(left, milli)
        if at == len(left):
            opened += 1
            rest = GPU_MILLI - milli
        else:
            rest = left.pop(at) - milli
        if rest:
            insort(left, rest)
    return tuple(left), opened
