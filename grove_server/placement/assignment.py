"""Which GPU ids the pods of a gang get, once their nodes are known.

Rules: whole GPUs alone are alike, so their ids are given clique by clique. Where a gang wants shares too, ids are given
in the order in which the search put the pods down: best fit depends on it, and the same order ends with the same
amounts. Nothing is taken from the ledger here.

Not here: the rule for one pod (`gpus`), the choice of nodes (`search`).
"""

from __future__ import annotations

from grove_server.placement import gpus
from grove_server.placement.ledger import Ledger
from grove_server.placement.requests import GPU_RESOURCE
from grove_server.placement.search import Search
from grove_server.resources.gpu_annotations import GPU_MILLI


class GpuDealer:
    """Gives out the GPUs of nodes for one gang."""

    def __init__(self, search: Search) -> None:
        self._ledger: Ledger = search.cluster.ledger
        self._free: dict[int, int] = {}
        self._open: dict[int, dict[int, int]] = {}
        self._dealt: dict[tuple[int, int], list[tuple[int, ...]]] = {}
        if any(clique.request_class is not None and clique.request_class.shape.gpu_milli for clique in search.cliques):
            self._deal_all(search)

    def whole(self, slot: int, gpu_count: int, pod_count: int) -> tuple[tuple[int, ...], ...]:
        """Return the ids of equal pods that want whole GPUs."""
        ledger = self._ledger
        free = self._free.get(slot, ledger.gpu_free[slot])
        ids, self._free[slot] = gpus.take_for_pods(free, gpu_count, pod_count, ledger.gpu_islands[slot])
        return ids

    def dealt(self, clique: int, slot: int, pod_count: int) -> list[tuple[int, ...]] | None:
        """Return the ids of a clique's pods on a node if they were given out in the search's order; None if not."""
        ids = self._dealt.get((clique, slot))
        assert ids is None or len(ids) == pod_count
        return ids

    def _deal_all(self, search: Search) -> None:
        for placed in search.placed:
            request_class = placed.scope.request_class
            assert request_class is not None
            shape = request_class.shape
            gpu_count = shape.amount(GPU_RESOURCE)
            slots = search.layout.slots[placed.runs.positions].tolist()
            for slot, pod_count in zip(slots, placed.runs.counts.tolist(), strict=True):
                given = self._dealt.setdefault((placed.scope.index, slot), [])
                if shape.gpu_milli:
                    given += [(self._share(slot, shape.gpu_milli),) for _ in range(pod_count)]
                else:
                    given += self.whole(slot, gpu_count, pod_count)

    def _share(self, slot: int, milli: int) -> int:
        ledger = self._ledger
        free = self._free.get(slot, ledger.gpu_free[slot])
        open_milli = self._open.setdefault(slot, ledger.open_of(slot))
        gpu_id = gpus.take_share(open_milli, free, milli, ledger.gpu_islands[slot])
        open_milli[gpu_id] = open_milli.get(gpu_id, GPU_MILLI) - milli
        self._free[slot] = free & ~(1 << gpu_id)
        return gpu_id
