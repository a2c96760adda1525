"""The totals of a set's copies against sums made anew."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from grove_server.lifecycle.copy import CopySummary
from grove_server.lifecycle.copy_totals import CopyTotals
from grove_server.resources.workload import GangPhase, GangSummary

COPIES = 6


@st.composite
def summaries(draw: st.DrawFn) -> CopySummary:
    """Draw the summary of a copy, or that it is gone."""
    copy = draw(st.integers(0, COPIES - 1))
    if draw(st.integers(0, 4)) == 0:
        return CopySummary(copy=copy, exists=False)
    phases = draw(st.lists(st.sampled_from(GangPhase), max_size=2))
    return CopySummary(
        copy=copy,
        exists=True,
        available=draw(st.booleans()),
        has_served=draw(st.booleans()),
        updated=draw(st.booleans()),
        revision=draw(st.sampled_from(("r1", "r2"))),
        is_behind=draw(st.booleans()),
        has_old=draw(st.booleans()),
        is_placed=draw(st.booleans()),
        reached=draw(st.integers(0, 5)),
        updated_cliques=draw(st.integers(0, 3)),
        updated_groups=draw(st.integers(0, 3)),
        gangs=tuple(GangSummary(name=f"s-{copy}-{at}", phase=phase) for at, phase in enumerate(phases)),
        sizes={("clique", "a"): (draw(st.integers(0, 3)), draw(st.integers(0, 3)))},
    )


def expected_gangs(known: dict[int, CopySummary], count_max: int) -> tuple[GangSummary, ...]:
    """Return the gangs to list: by copy, and what does not run first if there are too many."""
    gangs = [gang for copy in sorted(known) for gang in known[copy].gangs]
    if len(gangs) > count_max:
        gangs.sort(key=lambda gang: gang.phase is GangPhase.RUNNING)
    return tuple(gangs[:count_max])


@given(st.lists(st.tuples(summaries(), st.integers(0, COPIES)), max_size=30))
def test_totals_are_what_one_would_add_up(steps: list[tuple[CopySummary, int]]) -> None:
    """Whatever comes and goes and however the size changes, each answer is that of a look at every copy."""
    totals = CopyTotals()
    known: dict[int, CopySummary] = {}
    for summary, wanted in steps:
        serial = totals.members_serial
        is_new = summary.exists != (summary.copy in known)
        changed = totals.put(summary)
        assert changed == (known.get(summary.copy) != summary if summary.exists else summary.copy in known)
        assert (totals.members_serial != serial) == is_new
        known.pop(summary.copy, None)
        if summary.exists:
            known[summary.copy] = summary
        first = [each for copy, each in known.items() if copy < wanted]
        sums = totals.within(wanted)
        assert totals.copies == known
        assert totals.beyond(wanted) == {copy for copy in known if copy >= wanted}
        assert (sums.count, sums.available) == (len(first), sum(each.available for each in first))
        assert sums.lost == sum(each.has_served and not each.available for each in first)
        assert (sums.updated, sums.placed) == (sum(e.updated for e in first), sum(e.is_placed for e in first))
        assert sums.reached == sum(each.reached for each in first)
        assert sums.updated_cliques == sum(each.updated_cliques for each in first)
        assert sums.updated_groups == sum(each.updated_groups for each in first)
        for revision in ("r1", "r2", "r3"):
            assert totals.are_all_at(revision, wanted) == all(each.revision == revision for each in first)
        assert totals.old == {copy for copy, each in known.items() if each.has_old}
        assert totals.behind == {copy for copy, each in known.items() if each.is_behind}
        for count_max in (1, 3, 100):
            assert totals.listed_gangs(count_max) == expected_gangs(known, count_max)
