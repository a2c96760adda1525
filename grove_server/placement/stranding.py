"""Which node a few pods take, so that the least GPU is stranded for the pods that usually come.

Rules: a node's worth is the GPU that the usual mix of pods could use on it, in milli, by weight of each shape, as the
answer to two questions that count alike. If one more pod of the shape fits: how much is free of GPUs that are large
enough for it. And if the node were filled up with the shape: how much its pods would use. The node that loses the
least of its worth is taken; of equals the tightest, then the first by name. So pods with much CPU per GPU leave nodes
alone whose CPU the GPUs need, and odd shares go where nothing usual fits any more. Worths are whole numbers, so equals
are equal; no chance is needed. Only where one node holds all the pods asked for, and there are few of them.
Method: the first question is that of fragmentation gradient descent (Weng et al., "Beware of Fragmentation", USENIX ATC
2023). The second one sees a shortage of CPU before it is there; with it alone, or both, little hangs on how ties are
broken (`tests/bench/openb.py` has the figures).
Worths are kept per slot, losses per shape and slot; what changed is counted anew when somebody asks for it.

Not here: which domain to take (`choice`, `candidates`), where the mix comes from.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from grove_server.placement.ledger import GPU_ROW, Ledger
from grove_server.placement.requests import GPU_RESOURCE, PodShape
from grove_server.placement.rules import NodeRules
from grove_server.placement.topology import IntArray
from grove_server.resources.gpu_annotations import GPU_MILLI

MIX_MAX: Final = 512
"""Most shapes of a mix."""

WEIGHT_MAX: Final = 1_000_000
"""Largest weight of a shape; worths must stay whole in 53 bits."""

CANDIDATES_MAX: Final = 2_048
"""Nodes that are compared at most: the tightest ones."""

_LOSSES_MAX: Final = 512
_PATCH_MAX: Final = 16

FloatArray: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """The pods that usually come: shapes and how often each does. ValueError if it is out of bounds.

    `pods_max`: up to so many pods of one shape are placed by it; more are placed for locality, as without a mix.
    """

    shapes: tuple[tuple[PodShape, int], ...]
    pods_max: int = 8

    def __post_init__(self) -> None:
        """Check the bounds."""
        if len(self.shapes) > MIX_MAX:
            raise ValueError(f"a mix has at most {MIX_MAX} shapes, not {len(self.shapes)}")
        if any(not 0 <= weight <= WEIGHT_MAX for _, weight in self.shapes):
            raise ValueError(f"weights of a mix lie between 0 and {WEIGHT_MAX}")


class _Losses:
    """What nodes would lose by so many pods of one shape: float64[slots], NaN where it has to be counted anew."""

    __slots__ = ("by_slot", "read")

    def __init__(self, slot_count: int, read: int) -> None:
        self.by_slot: FloatArray = np.full(slot_count, np.nan)
        self.read = read


class Stranding:
    """Worths and losses of a cluster's nodes by one mix."""

    def __init__(self, mix: Mix, ledger: Ledger, rules: NodeRules) -> None:
        self.mix = mix
        self._ledger = ledger
        self._rules = rules
        # Shapes without GPUs use none, whatever room they have. Those of equal amounts are counted once.
        self._shapes = [(shape, weight) for shape, weight in mix.shapes if weight and shape.needs_gpu]
        kinds: dict[PodShape, int] = {}
        self._kind_of = [
            kinds.setdefault(PodShape(requests=shape.requests, gpu_milli=shape.gpu_milli), len(kinds))
            for shape, _ in self._shapes
        ]
        self._kinds = list(kinds)
        # What GPUs hold is asked once per size of share, then once per number of whole GPUs.
        self._sizes = np.array(sorted({kind.gpu_milli for kind in kinds} - {0}), dtype=np.int16)
        wholes = sorted({kind.amount(GPU_RESOURCE) for kind in kinds} - {0})
        answers = [*((int(size), 0) for size in self._sizes), *((0, count) for count in wholes)]
        self._answer_of = np.array([answers.index((kind.gpu_milli, kind.amount(GPU_RESOURCE))) for kind in kinds])
        self._wholes: FloatArray = np.array(wholes, dtype=np.float64)[:, None]
        milli = np.array([kind.gpu_milli or GPU_MILLI * kind.amount(GPU_RESOURCE) for kind in kinds], dtype=np.float64)
        self._milli: FloatArray = milli[:, None]
        self._reset()

    def best(self, shape: PodShape, slots: IntArray, room: IntArray, pod_count: int) -> int | None:
        """Return which of some nodes to take, as an index into `slots`; None if none has room for all the pods.

        `slots` int64[n] in the order of names, `room` int64[n]: how many of the pods fit each.
        """
        fitting = (room >= pod_count).nonzero()[0]
        if len(fitting) > CANDIDATES_MAX:
            fitting = np.sort(fitting[room[fitting].argsort(kind="stable")[:CANDIDATES_MAX]])
        if len(fitting) <= 1 or not self._shapes:
            return None if len(fitting) == 0 else int(fitting[room[fitting].argmin()])
        loss = self._losses(shape, slots[fitting], pod_count)
        equal = fitting[loss == loss.min()]
        return int(equal[room[equal].argmin()])

    # -- what is kept ------------------------------------------------------------------------------------------------

    def _reset(self) -> None:
        """Forget all that was counted: the cluster has more slots, more resources, or other rules."""
        ledger = self._ledger
        self._slot_count = ledger.free.shape[1]
        self._rows_known = len(ledger.rows)
        self._rules_read = self._rules.changes.end
        self._weights: FloatArray = np.zeros((len(self._kinds), self._slot_count), dtype=np.float64)
        costs = np.zeros((len(ledger.rows), len(self._kinds)), dtype=np.float64)
        for i, kind in enumerate(self._kinds):
            for row, amount in ledger.known_costs(kind.requests) or ():
                costs[row, i] = amount
        for kind_index, (shape, weight) in zip(self._kind_of, self._shapes, strict=True):
            if ledger.known_costs(shape.requests) is not None:  # Otherwise no node has what the shape needs.
                eligible = self._rules.eligibility(shape)[0]
                self._weights[kind_index, : len(eligible)] += weight * eligible
        costs[GPU_ROW] = 0
        self._costs = [
            (row, cost.nonzero()[0], cost[cost > 0][:, None]) for row, cost in enumerate(costs) if cost.any()
        ]
        self._worths: FloatArray = np.full(self._slot_count, np.nan)
        self._worths_read = ledger.changes.end
        self._kept: OrderedDict[tuple[PodShape, int], _Losses] = OrderedDict()

    def _catch_up_with_rules(self) -> None:
        ledger, rules = self._ledger, self._rules
        if self._slot_count != ledger.free.shape[1] or self._rows_known != len(ledger.rows):
            self._reset()
        elif self._rules_read != rules.changes.end:
            slots = rules.changes.since(self._rules_read)
            if slots is None or len(slots) > _PATCH_MAX:
                self._reset()
                return
            self._rules_read = rules.changes.end
            self._weights[:, slots] = 0
            for kind_index, (shape, weight) in zip(self._kind_of, self._shapes, strict=True):
                is_known = ledger.known_costs(shape.requests) is not None
                for slot in slots:
                    self._weights[kind_index, slot] += weight * (is_known and rules.eligibility_at(shape, slot)[0])
            for by_slot in (self._worths, *(losses.by_slot for losses in self._kept.values())):
                by_slot[slots] = np.nan

    def _losses(self, shape: PodShape, slots: IntArray, pod_count: int) -> FloatArray:
        """Return what some nodes lose by the pods."""
        self._catch_up_with_rules()
        changes = self._ledger.changes
        key = shape, pod_count
        kept = self._kept.get(key)
        if kept is None:
            kept = self._kept[key] = _Losses(self._slot_count, changes.end)
            if len(self._kept) > _LOSSES_MAX:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        kept.read = self._forget_changed(kept.by_slot, kept.read)
        losses: FloatArray = kept.by_slot[slots]
        unknown = np.isnan(losses).nonzero()[0]
        if len(unknown):
            fresh = slots[unknown]
            losses[unknown] = kept.by_slot[fresh] = self._worths_of(fresh) - self._worths_after(fresh, shape, pod_count)
        return losses

    def _forget_changed(self, by_slot: FloatArray, read: int) -> int:
        """Mark what changed since a position of the log, and return the new position."""
        changes = self._ledger.changes
        if read != changes.end:
            slots = changes.since(read)
            by_slot[slice(None) if slots is None else slots] = np.nan
        return changes.end

    def _worths_of(self, slots: IntArray) -> FloatArray:
        """Return what nodes are worth as they are."""
        self._worths_read = self._forget_changed(self._worths, self._worths_read)
        worths: FloatArray = self._worths[slots]
        unknown = np.isnan(worths).nonzero()[0]
        if len(unknown):
            fresh = slots[unknown]
            ledger = self._ledger
            free = ledger.free[:, fresh].astype(np.float64)
            worths[unknown] = self._worths[fresh] = self._count(fresh, free, ledger.shares.rows(fresh))
        return worths

    def _worths_after(self, slots: IntArray, shape: PodShape, pod_count: int) -> FloatArray:
        """Return what nodes would be worth with the pods on them."""
        ledger = self._ledger
        free = ledger.free[:, slots].astype(np.float64)
        for row, amount in ledger.known_costs(shape.requests) or ():
            free[row] -= amount * pod_count
        shares = ledger.shares.rows(slots)
        if shape.gpu_milli:
            shares = _with_shares(shares, free[GPU_ROW], shape.gpu_milli, pod_count)
        return self._count(slots, free, shares)

    def _count(self, slots: IntArray, free: FloatArray, shares: npt.NDArray[np.int16]) -> FloatArray:
        """Return worths: free float64[rows, n], shares int16[n, columns]."""
        np.maximum(free, 0, out=free)
        fits, usable = self._gpu_answers(free[GPU_ROW], shares)
        fits, usable = fits[self._answer_of], usable[self._answer_of]
        for row, which, costs in self._costs:
            most = np.floor(free[row] / costs)
            if len(which) == len(fits):
                np.minimum(fits, most, out=fits)
            else:
                fits[which] = np.minimum(fits[which], most)
        usable *= fits > 0
        fits *= self._milli
        usable += fits
        usable *= self._weights[:, slots]
        worths: FloatArray = usable.sum(axis=0)
        return worths

    def _gpu_answers(self, whole: FloatArray, shares: npt.NDArray[np.int16]) -> tuple[FloatArray, FloatArray]:
        """Return by answer and node (pods that GPUs alone hold, milli of GPUs that are large enough for one)."""
        fits = np.empty((len(self._sizes) + len(self._wholes), len(whole)), dtype=np.float64)
        usable = np.empty_like(fits)
        usable[:] = GPU_MILLI * whole
        count = len(self._sizes)
        fits[count:] = np.floor(whole / self._wholes)
        if count:
            fits[:count] = whole * (GPU_MILLI // self._sizes)[:, None]
            sizes = self._sizes[:, None, None]
            ones = np.ones(shares.shape[1], dtype=np.float32)  # A product sums short rows fastest; 24 bits hold them.
            fits[:count] += (shares // sizes).astype(np.float32) @ ones
            usable[:count] += (shares * (shares >= sizes)).astype(np.float32) @ ones
        return fits, usable


def _with_shares(shares: npt.NDArray[np.int16], whole: FloatArray, milli: int, pod_count: int) -> npt.NDArray[np.int16]:
    """Return what is open after each node got so many shares, best fit; `whole` float64[n] is changed in place."""
    columns = shares.shape[1]
    after = np.pad(shares, ((0, 0), (0, pod_count)))
    nodes = np.arange(len(after))
    for turn in range(pod_count):
        holding = np.where(after >= milli, after, GPU_MILLI)
        at = holding.argmin(axis=1)
        holds = holding[nodes, at] < GPU_MILLI
        after[nodes[holds], at[holds]] -= milli
        after[nodes[~holds], columns + turn] = GPU_MILLI - milli
        whole[~holds] -= 1
    return after
