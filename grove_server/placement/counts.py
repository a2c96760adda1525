"""How many pods of one shape fit, on every node and in every domain: the request class.

Rules: k[node] = min over resources of floor(free / request), 0 where the pod may not run; a share of a GPU counts what
partly used and wholly free GPUs hold of it (`Ledger.shares_fitting`); K[level] are its sums over domains. Both are kept
per (shape, layout) and brought up to date for touched nodes only, when somebody asks. Pods that take some nodes before
others (no GPUs wanted: nodes without GPUs; PreferNoSchedule; preferred node affinity) get further trees: over the nodes
of the first tier alone, of the first two, and so on. For pods of one shape
K >= m is necessary and sufficient, which is what makes one-class gangs exact.

Not here: which of the fitting domains to take (`choice`), the cache of classes (`cluster`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

import numpy as np

from grove_server.placement.ledger import Ledger
from grove_server.placement.matching import tier_count
from grove_server.placement.requests import PodShape
from grove_server.placement.stranding import Stranding
from grove_server.placement.topology import BoolArray, IntArray, Layout

Tree: TypeAlias = list[IntArray]
"""Pods that fit per domain, by level: [0] is the whole cluster (one entry), [-1] the nodes by position."""

Eligibility: TypeAlias = tuple[BoolArray, IntArray | None]
"""By slot: may run there; and the tier of the node (0 is taken first), None if every eligible node is of tier 0."""

SlotEligibility: TypeAlias = tuple[bool, int]

_SCALAR_MAX: Final = 8
"""Up to this many touched nodes plain Python is faster than a dozen numpy calls."""


class RequestClass:
    """Cached counts of one shape over one layout; `stranding` if few pods are placed by what they strand."""

    __slots__ = (
        "_changes_read",
        "_rows_known",
        "_rules_read",
        "_share_milli",
        "choices",
        "costs",
        "eligible",
        "everywhere",
        "layout",
        "shape",
        "stranding",
        "tiers",
    )

    def __init__(
        self, shape: PodShape, layout: Layout, ledger: Ledger, eligibility: Eligibility, rules_read: int
    ) -> None:
        self.shape = shape
        self._share_milli = shape.gpu_milli
        self.stranding: Stranding | None = None
        self.layout = layout
        self.costs: tuple[tuple[int, int], ...] | None = None
        self.everywhere: Tree = []
        self.choices: tuple[Tree, ...] = ()
        self.tiers: IntArray | None = None
        self.rebuild(ledger, eligibility, rules_read)

    def rebuild(self, ledger: Ledger, eligibility: Eligibility, rules_read: int) -> None:
        """Count anew on all nodes: O(resources x nodes)."""
        slots = self.layout.slots
        self.costs = ledger.known_costs(self.shape.requests)
        self._rows_known = len(ledger.rows)
        self.eligible = eligibility[0][slots]
        tiers = self.tiers = None if eligibility[1] is None else eligibility[1][slots]
        fits = self._fits(ledger, slots) * self.eligible
        self.everywhere = tree_of(self.layout, fits)
        self.choices = ()
        if tiers is not None:
            self.choices = tuple(
                tree_of(self.layout, fits * (tiers <= tier)) for tier in range(tier_count(self.shape) - 1)
            )
        self._changes_read = ledger.changes.end
        self._rules_read = rules_read

    def refresh(self, ledger: Ledger) -> bool:
        """Catch up with the amounts that changed; False if that is too much and `rebuild` is due."""
        changes = ledger.changes
        if self._rows_known != len(ledger.rows) and self.costs is None:
            return False
        if self._changes_read == changes.end:
            return True
        slots = changes.since(self._changes_read)
        if slots is None or 4 * len(slots) > len(self.layout.slots) + 4 * _SCALAR_MAX:
            return False
        self._changes_read = changes.end
        if len(slots) <= _SCALAR_MAX:
            for slot in slots:
                self._recount(ledger, slot)
        else:
            self._recount_many(ledger, np.array(slots, dtype=np.int64))
        return True

    def refresh_rules(self, slots: list[int] | None, end: int, ask: Callable[[int], SlotEligibility]) -> bool:
        """Catch up with changed labels, taints, cordons of a few nodes; False if `rebuild` is due."""
        if slots is None or len(slots) > 4 * _SCALAR_MAX:
            return False
        for slot in slots:
            position = int(self.layout.positions[slot]) if slot < len(self.layout.positions) else -1
            if position < 0:
                return False
            eligible, tier = ask(slot)
            if self.tiers is None and eligible and tier:
                return False
            self.eligible[position] = eligible
            if self.tiers is not None:
                self.tiers[position] = tier
        self._rules_read = end
        return True

    @property
    def has_wishes(self) -> bool:
        """Return whether the tiers are somebody's wish, not only good manners."""
        return bool(self.shape.preferences)

    @property
    def first_choice(self) -> Tree | None:
        """Return the counts over the nodes that are taken first; None if all are alike."""
        return self.choices[0] if self.choices else None

    @property
    def rules_read(self) -> int:
        """Return how far the log of changed rules was read."""
        return self._rules_read

    def recount(self, ledger: Ledger, slots: list[int]) -> None:
        """Count some nodes anew, whatever the change log says."""
        for slot in slots:
            self._recount(ledger, slot)

    def _fits(self, ledger: Ledger, slots: IntArray) -> IntArray:
        if self.costs is None:
            return np.zeros(len(slots), dtype=np.int64)
        (row, amount), *others = self.costs
        fits: IntArray = ledger.free[row][slots] // amount
        for row, amount in others:
            np.minimum(fits, ledger.free[row][slots] // amount, out=fits)
        if self._share_milli:
            np.minimum(fits, ledger.shares_fitting(slots, self._share_milli), out=fits)
        np.maximum(fits, 0, out=fits)
        return fits

    def _recount(self, ledger: Ledger, slot: int) -> None:
        position = int(self.layout.positions[slot])
        if position < 0:
            return
        fits = 0
        if self.eligible[position] and self.costs is not None:
            item = ledger.free.item
            fits = max(0, min([item(row, slot) // amount for row, amount in self.costs]))
            if self._share_milli and fits:
                fits = min(fits, ledger.shares_fitting_at(slot, self._share_milli))
        _shift(self.layout, self.everywhere, position, fits)
        if self.tiers is not None:
            own = int(self.tiers[position])
            for tier, tree in enumerate(self.choices):
                _shift(self.layout, tree, position, fits if own <= tier else 0)

    def _recount_many(self, ledger: Ledger, slots: IntArray) -> None:
        positions = self.layout.positions[slots]
        laid_out = positions >= 0
        slots, positions = slots[laid_out], positions[laid_out]
        fits = self._fits(ledger, slots) * self.eligible[positions]
        _shift_many(self.layout, self.everywhere, positions, fits)
        if self.tiers is not None:
            own = self.tiers[positions]
            for tier, tree in enumerate(self.choices):
                _shift_many(self.layout, tree, positions, fits * (own <= tier))


def tree_of(layout: Layout, fits: IntArray) -> Tree:
    """Return the sums of per-node counts for every level."""
    tree = [fits]
    for level in reversed(layout.levels[:-1]):
        tree.append(np.add.reduceat(tree[-1], level.child_starts[:-1]) if len(fits) else np.zeros(0, dtype=np.int64))
    return tree[::-1]


def _shift(layout: Layout, tree: Tree, position: int, fits: int) -> None:
    """Set one node's count and carry the difference up."""
    delta = fits - tree[-1].item(position)
    if delta:
        for level, sums in zip(layout.levels, tree, strict=True):
            sums[level.domain_at.item(position)] += delta


def _shift_many(layout: Layout, tree: Tree, positions: IntArray, fits: IntArray) -> None:
    """Set the counts of several different nodes and carry the differences up."""
    delta = fits - tree[-1][positions]
    tree[-1][positions] = fits
    for level, sums in zip(layout.levels[:-1], tree[:-1], strict=True):
        np.add.at(sums, level.domain_at[positions], delta)
