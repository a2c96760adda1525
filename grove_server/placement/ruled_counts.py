"""How many pods of a clique fit if rules between pods bind them: the request class of one search.

Rules: as `counts`, but on the nodes that the rules leave open, bounded by quotas, and in tiers by what preferred rules
say; counted anew whenever the search has moved pods. Nothing of it is kept beyond the search: what rules say of pods
outside belongs to the request. At every level the counts are at least what really fits; `is_exact` says whether they
are just that.

Not here: what rules mean (`pod_rules`), how quotas count (`quotas`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from grove_server.placement.counts import RequestClass, Tree, tree_of
from grove_server.placement.ledger import Ledger
from grove_server.placement.pod_rules import Closed, RuleBook
from grove_server.placement.quotas import Pieces, Quota, QuotaKind, counted, kept, pieces_of
from grove_server.placement.requests import PodRule
from grove_server.placement.topology import BoolArray, IntArray

TIERS_MAX: Final = 4
"""Most tiers that preferred rules make of nodes."""


class RuledClass(RequestClass):
    """The counts of one clique in one search."""

    __slots__ = ("_book", "_enters", "_fits_now", "_own_tiers", "_pieces", "_version", "_wishes", "is_exact", "name")

    def __init__(self, base: RequestClass, name: str, book: RuleBook, ledger: Ledger) -> None:
        self.name = name
        self.is_exact = True
        self._book = book
        self._enters: BoolArray = base.eligible.copy()
        self._own_tiers: IntArray | None = None if base.tiers is None else base.tiers.copy()
        self._pieces: dict[tuple[str, int], Pieces] = {}
        self._version = -1
        self._fits_now: IntArray = base.everywhere[-1]
        self._wishes: tuple[Quota, ...] = ()
        self.shape = base.shape
        self.layout = base.layout
        self.stranding = None
        self.costs = base.costs
        self._share_milli = base.shape.gpu_milli
        self._rules_read = base.rules_read
        self._rows_known = len(ledger.rows)
        self._changes_read = -1
        self.eligible = self._enters
        self.everywhere = base.everywhere
        self.choices: tuple[Tree, ...] = ()
        self.tiers: IntArray | None = None
        self.refresh(ledger)

    @property
    def has_wishes(self) -> bool:
        """Return whether the tiers are somebody's wish, not only good manners."""
        return bool(self.choices)

    def refresh(self, ledger: Ledger) -> bool:
        """Count anew if anything moved: O(nodes x (resources + levels x quotas))."""
        if self._changes_read == ledger.changes.end and self._version == self._book.version:
            return True
        self._changes_read, self._version = ledger.changes.end, self._book.version
        self.eligible = self._enters.copy()
        for closed in self._book.closed(self.name):
            self.eligible &= ~closed.nodes
        fits = self._fits_now = self._fits(ledger, self.layout.slots) * self.eligible
        quotas = self._book.quotas(self.name, is_wish=False)
        self._wishes = tuple(self._book.quotas(self.name, is_wish=True))
        self.is_exact = len(quotas) <= 1 or (len(quotas) == 2 and quotas[0].is_by_node)  # noqa: PLR2004 -- one finer
        self.everywhere = self._tree(fits, quotas)
        self.tiers = self._tiers()
        wished: tuple[Tree, ...] = ()
        if self.tiers is not None:
            tiers = self.tiers
            limits = range(int(tiers.max(initial=0)) + 1)
            wished = tuple(self._tree(fits * (tiers <= limit), self._wishes) for limit in limits)
        if len(self._wishes) > len(quotas):
            wished = wished or (self._tree(fits, self._wishes),)
        self.choices = wished
        return True

    def closed_nodes(self) -> list[Closed]:
        """Return which nodes, by position, required rules close, rule by rule."""
        return self._book.closed(self.name)

    def without_each_rule(self, ledger: Ledger) -> Iterator[tuple[PodRule, RuledClass]]:
        """Yield for each required rule about the pods the counts as they would be without it."""
        for rule in self._book.required(self.name):
            base = RequestClass.__new__(RequestClass)
            base.shape, base.layout, base.costs = self.shape, self.layout, self.costs
            base.eligible, base.tiers, base.everywhere = self._enters, self._own_tiers, self.everywhere
            base._rules_read = self._rules_read  # noqa: SLF001 -- a class of its own kind
            yield rule, RuledClass(base, self.name, self._book.without(rule), ledger)

    def room_in(self, start: int, end: int, pods: int, *, is_tight: bool = False) -> list[IntArray]:
        """Return the room that the quotas leave on nodes start .. end - 1 for so many pods, by tiers added up.

        What preferred rules ask for comes first, then the lowest tier that does. [] if the pods do not fit. With
        `is_tight` tiers do not count.
        """
        fits = self._fits_now[start:end]
        tiers = None if self.tiers is None or is_tight else self.tiers[start:end]
        limits = [None] if tiers is None else [*range(int(tiers.max(initial=0))), None]
        hard = tuple(self._book.quotas(self.name, is_wish=False))
        for quotas in (self._wishes, hard) if len(self._wishes) > len(hard) else (hard,):
            for limit in limits:
                room = fits if limit is None or tiers is None else fits * (tiers <= limit)
                for quota in quotas:
                    room = kept(quota._replace(codes=quota.codes[start:end]), room, pods)
                if int(room.sum()) >= pods:
                    below = range(len(limits) - 1 if limit is None else limit)
                    return [*([] if tiers is None else [room * (tiers <= lower) for lower in below]), room]
        return []

    def _tree(self, fits: IntArray, quotas: list[Quota] | tuple[Quota, ...]) -> Tree:
        trees = [self._bounded(fits, quota) for quota in quotas] or [tree_of(self.layout, fits)]
        return [np.minimum.reduce(level) for level in zip(*trees, strict=True)] if len(trees) > 1 else trees[0]

    def _bounded(self, fits: IntArray, quota: Quota) -> Tree:
        if quota.kind == QuotaKind.ONE_EACH and quota.is_by_node:
            return tree_of(self.layout, np.where(quota.codes >= 0, np.minimum(fits, 1), fits))
        tree = []
        for number, level in enumerate(self.layout.levels):
            key = (quota.key, number)
            pieces = self._pieces.get(key)
            if pieces is None:
                pieces = self._pieces[key] = pieces_of(self.layout, number, quota.codes)
            tree.append(counted(quota.kind, pieces, fits, level.count))
        return tree

    def _tiers(self) -> IntArray | None:
        """Return the tier of each node: what preferred rules say first, then what the shape prefers; None if alike."""
        scores = self._book.scores(self.name)
        if scores is None:
            return self._own_tiers
        own = np.zeros_like(scores) if self._own_tiers is None else self._own_tiers
        width = int(own.max(initial=0)) + 1
        ranks = own - scores * width
        usable = np.unique(ranks[self._fits_now > 0])
        if len(usable) <= 1:
            return None
        tiers: IntArray = np.minimum(np.searchsorted(usable, ranks), len(usable) - 1)
        if len(usable) > TIERS_MAX:
            between = 1 + (tiers - 1) * (TIERS_MAX - 2) // (len(usable) - 2)
            tiers = np.where(tiers == 0, 0, np.where(tiers == len(usable) - 1, TIERS_MAX - 1, between))
        return tiers
