"""Sums over the copies of one set, kept up to date copy by copy.

The set's own pass runs after every turn of an update and whenever a copy's summary changed. What it asks is answered
here without a look at each copy, so that a set of thousands of copies costs the same as one of two.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from grove_server.lifecycle.copy import CopySummary
from grove_server.resources.workload import GangPhase, GangSummary


@dataclass(slots=True)
class CopySums:
    """Numbers of copies, of those of them that are so or were so, and what they count together.

    ``lost`` copies served once and do not now; ``reached``, ``updated_cliques`` and ``updated_groups`` are the sums of
    what the summaries say.
    """

    count: int = 0
    available: int = 0
    lost: int = 0
    updated: int = 0
    placed: int = 0
    reached: int = 0
    updated_cliques: int = 0
    updated_groups: int = 0

    def add(self, summary: CopySummary, sign: int = 1) -> None:
        """Add a copy, or take it away with *sign* -1."""
        self.count += sign
        self.available += sign * summary.available
        self.lost += sign * (summary.has_served and not summary.available)
        self.updated += sign * summary.updated
        self.placed += sign * summary.is_placed
        self.reached += sign * summary.reached
        self.updated_cliques += sign * summary.updated_cliques
        self.updated_groups += sign * summary.updated_groups

    def minus(self, others: Iterable[CopySummary]) -> CopySums:
        """Return the sums without *others*."""
        left = CopySums(
            count=self.count,
            available=self.available,
            lost=self.lost,
            updated=self.updated,
            placed=self.placed,
            reached=self.reached,
            updated_cliques=self.updated_cliques,
            updated_groups=self.updated_groups,
        )
        for summary in others:
            left.add(summary, -1)
        return left


@dataclass(slots=True)
class CopyTotals:
    """The summaries of a set's copies by index, with their sums; those beyond the size are in it until they are gone.

    ``old`` are the copies with anything old, ``behind`` those with an old clique, ``faulty`` those with a gang that
    does not run. ``members_serial`` grows whenever a copy comes or goes.
    """

    copies: dict[int, CopySummary] = field(default_factory=dict)
    sums: CopySums = field(default_factory=CopySums)
    sizes: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    gang_phases: dict[str, int] = field(default_factory=dict)
    old: set[int] = field(default_factory=set)
    behind: set[int] = field(default_factory=set)
    faulty: set[int] = field(default_factory=set)
    members_serial: int = 0
    _revisions: Counter[str] = field(default_factory=Counter)
    _size: int = 0
    _beyond: set[int] = field(default_factory=set)

    def put(self, summary: CopySummary) -> bool:
        """Take the newest summary of a copy; return whether anything changed."""
        copy = summary.copy
        old = self.copies.get(copy)
        if old == summary or (old is None and not summary.exists):
            return False
        if old is not None:
            self._add(old, -1)
        if summary.exists:
            self.copies[copy] = summary
            self._add(summary, 1)
        else:
            self.copies.pop(copy, None)
        if (old is not None) is not summary.exists:
            self.members_serial += 1
            _file(self._beyond, copy, is_in=summary.exists and copy >= self._size)
        _file(self.old, copy, is_in=summary.exists and summary.has_old)
        _file(self.behind, copy, is_in=summary.exists and summary.is_behind)
        is_faulty = any(gang.phase is not GangPhase.RUNNING for gang in summary.gangs)
        _file(self.faulty, copy, is_in=summary.exists and is_faulty)
        return True

    def within(self, wanted: int) -> CopySums:
        """Return the sums of the first *wanted* copies; those beyond are on their way out."""
        beyond = self.beyond(wanted)
        return self.sums.minus(self.copies[copy] for copy in beyond) if beyond else self.sums

    def beyond(self, wanted: int) -> set[int]:
        """Return the copies beyond the first *wanted* ones."""
        if wanted != self._size:
            self._size = wanted
            self._beyond = {copy for copy in self.copies if copy >= wanted}
        return self._beyond

    def are_all_at(self, revision: str, wanted: int) -> bool:
        """Return whether the summaries of the first *wanted* copies, as far as known, were made against *revision*."""
        others = len(self.copies) - self._revisions[revision]
        return others == sum(self.copies[copy].revision != revision for copy in self.beyond(wanted))

    def listed_gangs(self, count_max: int) -> tuple[GangSummary, ...]:
        """Return gangs by copy, at most *count_max*; beyond that, those that do not run come first."""
        if sum(self.gang_phases.values()) <= count_max:
            return tuple(gang for copy in sorted(self.copies) for gang in self.copies[copy].gangs)
        found: list[GangSummary] = []
        for is_wanted_running, copies in ((False, self.faulty), (True, self.copies)):
            for gang in self._gangs_of(copies, is_running=is_wanted_running):
                if len(found) == count_max:
                    return tuple(found)
                found.append(gang)
        return tuple(found)

    def _gangs_of(self, copies: Iterable[int], *, is_running: bool) -> Iterator[GangSummary]:
        for copy in sorted(copies):
            for gang in self.copies[copy].gangs:
                if (gang.phase is GangPhase.RUNNING) is is_running:
                    yield gang

    def _add(self, summary: CopySummary, sign: int) -> None:
        self.sums.add(summary, sign)
        self._revisions[summary.revision] += sign
        if not self._revisions[summary.revision]:
            del self._revisions[summary.revision]
        for key, (wanted, ready) in summary.sizes.items():
            wanted_before, ready_before = self.sizes.get(key, (0, 0))
            self.sizes[key] = (wanted_before + sign * wanted, ready_before + sign * ready)
        for gang in summary.gangs:
            count = self.gang_phases.get(gang.phase, 0) + sign
            if count:
                self.gang_phases[gang.phase] = count
            else:
                self.gang_phases.pop(gang.phase, None)


def _file(copies: set[int], copy: int, *, is_in: bool) -> None:
    if is_in:
        copies.add(copy)
    else:
        copies.discard(copy)
