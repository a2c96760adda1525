"""Thresholds over random uses of queues: who may come is asked, and nobody who may not."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from grove_server.placement.queues import QueueSpec, QueueTree
from grove_server.placement.thresholds import Thresholds, Way, ways_within_guarantee, ways_within_limits

TREE = QueueTree(
    [
        QueueSpec(name="top", limit={"gpu": 12}, guarantee={"gpu": 8}),
        QueueSpec(name="a", parent="top", limit={"gpu": 8, "cpu": 20}, guarantee={"gpu": 4}),
        QueueSpec(name="b", parent="top", guarantee={"gpu": 2, "cpu": 6}),
    ]
)
_USES = st.fixed_dictionaries({name: st.integers(0, 12) for name in ("a.gpu", "b.gpu", "a.cpu", "b.cpu")})
_ASKS = st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 4), st.integers(0, 6))


def _used(use: dict[str, int]) -> dict[str, Counter[str]]:
    found: dict[str, Counter[str]] = {}
    for name, amount in use.items():
        queue, _, resource = name.partition(".")
        found.setdefault(queue, Counter())[resource] = amount
    return found


def _may(queue: str, amounts: dict[str, int], used: dict[str, Counter[str]], *, guaranteed: bool) -> bool:
    if guaranteed:
        return TREE.is_within_guarantee(queue, amounts, used)
    return not TREE.admits(queue, amounts, used)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(_ASKS, st.booleans()), min_size=1, max_size=12), st.lists(_USES, min_size=2, max_size=6))
def test_exactly_those_wake_who_may_come(
    asks: list[tuple[tuple[str, int, int], bool]], uses: list[dict[str, int]]
) -> None:
    """After each change of use: who wakes may come, and of gangs alike the first wakes if they may."""
    thresholds: Thresholds[int] = Thresholds()
    ways: dict[int, tuple[Way, ...]] = {}
    for use in uses:
        used = _used(use)
        totals = TREE.totals(used, TREE.resources)

        def total(queue: str, resource: str, totals: object = totals) -> int:
            return int(totals[TREE.resources[resource], TREE.numbers[queue]])  # type: ignore[index]  # an array

        woken = thresholds.woken(total)
        before, may = dict(ways), {}
        for key, ((queue, gpu, cpu), guaranteed) in enumerate(asks):
            amounts = {name: amount for name, amount in (("gpu", gpu), ("cpu", cpu)) if amount}
            may[key] = _may(queue, amounts, used, guaranteed=guaranteed)
            if key in woken:
                assert may[key]
            elif key in before and may[key]:
                alike = [other for other, way in before.items() if way == before[key] and other < key]
                assert alike, f"{asks[key]} may come, and is not asked"
            make = ways_within_guarantee if guaranteed else ways_within_limits
            ways.pop(key, None)
            thresholds.file(key, make(TREE, queue, amounts), total, order=(key,))
            if not may[key] and make(TREE, queue, amounts):
                ways[key] = make(TREE, queue, amounts)
        assert len(thresholds) >= len(ways)
