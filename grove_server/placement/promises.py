"""Promised capacity: places that a gang will get when those who sit there are gone.

Rules: what is promised is taken from what is free at once, so nobody else is placed there meanwhile; until the others
are gone free amounts are negative and counts are 0. A promise names GPU ids, those included that victims still hold. It
is kept (turned into a reservation) when everything is there in fact; what other promises wait for does not count
against it. A promise whose node is gone or takes the pods no more is broken, and the caller is told.
Source: kube-scheduler's nominated nodes, made binding.

Not here: who is evicted for it (`preemption`), domains set aside for gangs without places (`earmarks`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from grove_server.placement import gpus
from grove_server.placement.ledger import GPU_ROW, Ledger
from grove_server.placement.requests import PodShape
from grove_server.placement.results import Placement
from grove_server.resources.gpu_annotations import GPU_MILLI


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """A placement that holds later, with what it sets aside: (shape, slot, pods), GPU masks by slot, shares."""

    placement: Placement
    pods: tuple[tuple[PodShape, int, int], ...]
    masks: Mapping[int, int]
    shares: tuple[tuple[int, int, int], ...]

    @property
    def slots(self) -> tuple[int, ...]:
        """Return the slots it lies on, each once."""
        return tuple(dict.fromkeys(slot for _, slot, _ in self.pods))


def promise_of(placement: Placement, slots: Mapping[str, int]) -> Promise:
    """Return what a placement sets aside; `slots` by node name."""
    pods: dict[tuple[PodShape, int], int] = {}
    masks: dict[int, int] = {}
    shares: list[tuple[int, int, int]] = []
    for clique in placement.cliques:
        for node, gpu_ids in clique.bindings:
            slot = slots[node]
            pods[clique.shape, slot] = pods.get((clique.shape, slot), 0) + 1
            if clique.shape.gpu_milli:
                shares += ((slot, gpu_id, clique.shape.gpu_milli) for gpu_id in gpu_ids)
            elif gpu_ids:
                masks[slot] = masks.get(slot, 0) | gpus.mask_of(gpu_ids)
    return Promise(
        placement=placement,
        pods=tuple((shape, slot, count) for (shape, slot), count in pods.items()),
        masks=masks,
        shares=tuple(shares),
    )


def hold(ledger: Ledger, promise: Promise) -> None:
    """Set everything aside."""
    _shift(ledger, promise, 1)
    for slot, mask in promise.masks.items():
        ledger.promise_gpus(slot, ledger.gpu_promised.get(slot, 0) | mask)


def let_go(ledger: Ledger, promise: Promise) -> None:
    """Undo `hold`."""
    for slot, mask in promise.masks.items():
        ledger.promise_gpus(slot, ledger.gpu_promised.get(slot, 0) & ~mask)
    _shift(ledger, promise, -1)


def _shift(ledger: Ledger, promise: Promise, sign: int) -> None:
    for shape, slot, count in promise.pods:
        ledger.promise(slot, ledger.costs(shape.requests), sign * count)
    for slot, gpu_id, milli in promise.shares:
        ledger.take_share(slot, gpu_id, sign * milli)


def obstacles(ledger: Ledger, promise: Promise) -> Iterator[str]:
    """Yield what keeps a promise that is held from being kept now: amounts short and GPUs that others still have."""
    need: dict[tuple[int, int], int] = {}
    for shape, slot, count in promise.pods:
        for row, amount in ledger.costs(shape.requests):
            if row != GPU_ROW:
                need[row, slot] = need.get((row, slot), 0) + amount * count
    names = {row: resource for resource, row in ledger.rows.items()}
    for (row, slot), amount in need.items():
        there = int(ledger.free[row, slot]) + ledger.promised.get((row, slot), 0)
        if there < amount:
            yield f"{amount - there} of {names[row]} are still missing"
    for slot, mask in promise.masks.items():
        others = ledger.gpu_taken[slot] | gpus.mask_of(ledger.shares.used.get(slot, ())) | ~ledger.gpu_usable[slot]
        if mask & others:
            yield f"GPUs {list(gpus.ids_of(mask & others))} are not free yet"
    for slot, gpu_id, _ in promise.shares:
        is_there = (ledger.gpu_usable[slot] & ~ledger.gpu_taken[slot]) >> gpu_id & 1
        if not is_there or ledger.shares.used[slot][gpu_id] > GPU_MILLI:
            yield f"GPU {gpu_id} is not free yet"
