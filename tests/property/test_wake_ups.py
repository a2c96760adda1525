"""Nobody is forgotten: whoever fits after something grew is woken, although few are asked."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from grove_server.placement import Cluster, GangRequest, Placement, Verdict, place
from grove_server.placement.wake_ups import WakeUps
from tests.placement_cases import clusters, gangs, node_states


class _Waiting:
    """Requests that wait, and what holds room, as a placement loop keeps them."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.wake_ups: WakeUps[str] = WakeUps(cluster)
        self.waiting: dict[str, tuple[GangRequest, Verdict]] = {}
        self.placed: list[Placement] = []
        self.looked_at = cluster.generation

    def ask(self, key: str, request: GangRequest) -> None:
        """Decide one request."""
        known = self.wake_ups.known(request)
        if known is not None:
            assert not known.proof or isinstance(place(self.cluster, request), Verdict)
            assert known.gang == request.name
        outcome = known or place(self.cluster, request)
        if isinstance(outcome, Verdict):
            self.waiting[key] = (request, outcome)
            self.wake_ups.file(key, [(request, outcome)], order=(key,))
            return
        self.cluster.reserve(outcome)
        self.placed.append(outcome)
        self.waiting.pop(key, None)
        self.wake_ups.drop(key)

    def settle(self) -> None:
        """Ask those that wake, until nobody does."""
        while self.wake_ups.has_due or self.cluster.capacity_grew_since(self.looked_at):
            since, self.looked_at = self.looked_at, self.cluster.generation
            for key in sorted({*self.wake_ups.take_due(), *self.wake_ups.woken(since)}):
                self.ask(key, self.waiting[key][0])

    def check(self) -> None:
        """Nobody waits who would fit, those aside for whom the search stopped without a proof."""
        for key, (request, verdict) in self.waiting.items():
            if verdict.proof:
                outcome = place(self.cluster, request)
                assert isinstance(outcome, Verdict), f"{key} fits and was not woken"


@settings(max_examples=120, deadline=None)
@given(clusters(nodes_max=8), st.lists(gangs(pods_max=4), min_size=1, max_size=5), st.data())
def test_whoever_fits_after_growth_is_woken(cluster: Cluster, requests: list[GangRequest], data: st.DataObject) -> None:
    """After each release, new label, repaired, new or lost node, and each gang that leaves, no waiting gang fits."""
    loop = _Waiting(cluster)
    for number in range(3):
        for index, request in enumerate(requests):
            loop.ask(f"{number}-{index}", replace(request, name=f"gang-{number}-{index}"))
    loop.check()
    for _ in range(6):
        _happen(loop, data)
        loop.settle()
        loop.check()


def _happen(loop: _Waiting, data: st.DataObject) -> None:
    """Let one thing happen."""
    event = data.draw(st.sampled_from(["release", "node", "uncordon", "leave", "new node"]))
    names = loop.cluster.node_names()
    if event == "release" and loop.placed:
        loop.cluster.release(loop.placed.pop(data.draw(st.integers(0, len(loop.placed) - 1))))
    elif event == "node" and names:
        loop.cluster.upsert_node(data.draw(node_states(data.draw(st.sampled_from(names)))))
    elif event == "uncordon" and names:
        loop.cluster.set_schedulable(names, schedulable=data.draw(st.booleans()))
    elif event == "leave" and loop.waiting:
        key = data.draw(st.sampled_from(sorted(loop.waiting)))
        del loop.waiting[key]
        loop.wake_ups.drop(key, is_gone=True)
    else:
        loop.cluster.upsert_node(data.draw(node_states(f"new-{len(names)}")))


@settings(max_examples=60, deadline=None)
@given(clusters(nodes_max=8), gangs(pods_max=4), st.data())
def test_a_gang_that_goes_leaves_its_turn_to_the_next(
    cluster: Cluster, request: GangRequest, data: st.DataObject
) -> None:
    """If those that woke go away before they are decided, the ones behind them are asked instead."""
    loop = _Waiting(cluster)
    for number in range(4):
        loop.ask(f"{number}", replace(request, name=f"gang-{number}"))
    _happen(loop, data)
    since, loop.looked_at = loop.looked_at, loop.cluster.generation
    for key in loop.wake_ups.woken(since):
        del loop.waiting[key]
        loop.wake_ups.drop(key, is_gone=True)
    loop.settle()
    loop.check()
