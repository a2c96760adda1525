"""The cluster as it would be without some of its pods: copies for what-ifs, made at the cost of a few vector steps.

Rules: the pods stand in the order of their nodes' slots, so that the GPU ids of any choice of them are gathered per
node in one step. A GPU that its node reports as broken does not come free with its pod. Pods whose node is not in the
cluster free nothing and are left out.

Not here: which pods (`eviction`).
"""

from __future__ import annotations

import numpy as np

from grove_server.placement.cluster import Cluster
from grove_server.placement.ledger import GPU_ROW
from grove_server.placement.occupancy import Occupancy
from grove_server.placement.topology import BoolArray, IntArray

_WORD_BITS = 64


class Vacating:
    """Some pods of an occupancy, ready to be taken off copies of a cluster.

    `order`: which of the given pods are on nodes of the cluster, by slot; `slots` int64[pods] and `amounts`
    int64[ledger row, pods] follow it: what would come free with each.
    """

    def __init__(self, cluster: Cluster, occupancy: Occupancy, pods: IntArray) -> None:
        self.cluster = cluster
        nodes = cluster.slots_at(occupancy.nodes)
        slot_of = np.full(max(occupancy.nodes.values(), default=-1) + 1, -1, dtype=np.int64)
        slot_of[list(occupancy.nodes.values())] = nodes
        slots = slot_of[occupancy.pod_node[pods]] if len(pods) else np.zeros(0, dtype=np.int64)
        order = np.argsort(slots, kind="stable")
        self.order: IntArray = order[int(np.searchsorted(slots[order], 0)) :]
        self.slots: IntArray = slots[self.order]
        self.pods: IntArray = pods[self.order]
        self._sharing = np.flatnonzero(occupancy.milli[self.pods])
        self.has_shares = len(self._sharing) > 0
        self._occupancy = occupancy
        self._masks = occupancy.masks[:, self.pods]
        rows = cluster.ledger.rows
        self.amounts: IntArray = np.zeros((len(rows), len(self.pods)), dtype=np.int64)
        for resource, row in occupancy.resources.items():
            if resource in rows:
                self.amounts[rows[resource]] = occupancy.amounts[row, self.pods]
        self.amounts[GPU_ROW] = np.bitwise_count(self._masks & self._usable()).sum(axis=0)

    def cluster_without(self, going: BoolArray) -> Cluster:
        """Return a copy of the cluster in which the pods marked (bool by `order`) are gone."""
        copy = self.cluster.fork()
        ledger = copy.ledger
        rows = np.flatnonzero(going)
        if not len(rows):
            return copy
        slots = self.slots[rows]
        for row, amounts in enumerate(self.amounts):
            if row != GPU_ROW:
                np.add.at(ledger.free[row], slots, amounts[rows])
        starts = np.flatnonzero(np.append(True, slots[1:] != slots[:-1]))
        for slot, mask in zip(slots[starts].tolist(), self._joined(rows, starts), strict=True):
            if mask:
                ledger.give_gpus(slot, mask)
        for at in self._sharing[going[self._sharing]].tolist():
            seat = self._occupancy.seat(int(self.pods[at]))
            for gpu_id in seat.gpu_ids:
                ledger.take_share(int(self.slots[at]), gpu_id, -seat.shape.gpu_milli)
        ledger.changes.extend(slots[starts].tolist())
        return copy

    def _joined(self, rows: IntArray, starts: IntArray) -> list[int]:
        """Return by node the GPU ids of its pods among some rows, as masks."""
        words = np.bitwise_or.reduceat(self._masks[:, rows], starts, axis=1)
        masks: list[int] = words[0].tolist()
        for at, word in enumerate(words[1:], start=1):
            masks = [mask | int(more) << (_WORD_BITS * at) for mask, more in zip(masks, word.tolist(), strict=True)]
        return masks

    def _usable(self) -> np.ndarray[tuple[int, ...], np.dtype[np.uint64]]:
        """Return uint64[word, pod]: the GPUs of each pod's node that work."""
        usable = self.cluster.ledger.gpu_usable
        words = np.zeros((len(self._masks), len(usable)), dtype=np.uint64)
        for at in range(len(words)):
            words[at] = [mask >> (_WORD_BITS * at) & (2**_WORD_BITS - 1) for mask in usable]
        return words[:, self.slots]
