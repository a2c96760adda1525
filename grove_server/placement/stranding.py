"""Which node a few pods take, so that the least GPU is stranded for the pods that usually come.

Rules: a node's worth is the GPU that the usual mix of pods could use on it: for each shape of the mix, the pods of it
that the node still fits times their GPU milli, by weight. The node that loses the least of its worth is taken; of
equals the tightest, then the first by name. So pods with much CPU per GPU leave nodes alone whose CPU the GPUs need,
and odd shares go where nothing usual fits any more. Worths are whole numbers, so equals are equal; no chance is needed.
Only where one node holds all the pods asked for, and there are few of them.
Method: after fragmentation gradient descent (Weng et al., "Beware of Fragmentation", USENIX ATC 2023), which asks
whether one more pod of each shape fits; here nodes are thought filled up with each shape, which sees the shortage of
CPU before it is there, and does not hang on how ties are broken (`tests/bench/openb.py` has both figures).
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
from grove_server.placement.topology import BoolArray, IntArray
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
        # Shapes without GPUs use none, whatever room they have.
        self._shapes = [(shape, weight) for shape, weight in mix.shapes if weight and shape.needs_gpu]
        milli = [shape.gpu_milli or GPU_MILLI * shape.amount(GPU_RESOURCE) for shape, _ in self._shapes]
        weights = [weight for _, weight in self._shapes]
        self._value: FloatArray = np.array(milli, dtype=np.float64) * np.array(weights, dtype=np.float64)
        self._is_share: BoolArray = np.array([shape.gpu_milli > 0 for shape, _ in self._shapes], dtype=np.bool_)
        self._whole: FloatArray = np.array(
            [max(1, shape.amount(GPU_RESOURCE)) for shape, _ in self._shapes], dtype=float
        )
        self._sizes, self._size_of = np.unique(
            np.array([shape.gpu_milli for shape, _ in self._shapes if shape.gpu_milli], dtype=np.int16),
            return_inverse=True,
        )
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
        states = len(self._rules.states)
        self._eligible: BoolArray = np.zeros((len(self._shapes), self._slot_count), dtype=np.bool_)
        costs = np.zeros((len(ledger.rows), len(self._shapes)), dtype=np.float64)
        for i, (shape, _) in enumerate(self._shapes):
            known = ledger.known_costs(shape.requests)
            if known is not None:  # Otherwise no node has what the shape needs, and it stays eligible nowhere.
                self._eligible[i, :states] = self._rules.eligibility(shape)[0]
                for row, amount in known:
                    costs[row, i] = amount
        costs[GPU_ROW] = 0
        self._costs = [(row, cost.nonzero()[0], cost[cost > 0]) for row, cost in enumerate(costs) if cost.any()]
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
            for i, (shape, _) in enumerate(self._shapes):
                is_known = ledger.known_costs(shape.requests) is not None
                for slot in slots:
                    self._eligible[i, slot] = is_known and rules.eligibility_at(shape, slot)[0]
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
        whole = free[GPU_ROW]
        fits = np.floor(whole / self._whole[:, None])
        if len(self._sizes):
            of_open = (shares // self._sizes[:, None, None]).sum(axis=2, dtype=np.float64)
            of_size = of_open + whole * (GPU_MILLI // self._sizes)[:, None]
            fits[self._is_share] = of_size[self._size_of]
        for row, which, costs in self._costs:
            fits[which] = np.minimum(fits[which], np.floor(free[row] / costs[:, None]))
        fits *= self._eligible[:, slots]
        worths: FloatArray = self._value @ fits
        return worths


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
