"""Clusters with gangs that run on them, for the tests of preemption, reclaim and consolidation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from hypothesis import strategies as st

from grove_server.placement import (
    CliqueRequest,
    Cluster,
    GangRequest,
    GpuConflictError,
    GroupRequest,
    Placement,
    place,
)
from grove_server.placement.occupancy import GangFacts, Occupancy, Seat
from tests.placement_cases import clusters, gangs


@dataclass
class Running:
    """A cluster and who sits on it, kept in step."""

    cluster: Cluster
    occupancy: Occupancy = field(default_factory=Occupancy)
    seats: dict[str, Seat] = field(default_factory=dict)
    facts: dict[str, GangFacts] = field(default_factory=dict)

    def start(self, request: GangRequest, facts: GangFacts) -> bool:
        """Place a gang and let it run; False if it has no room."""
        result = place(self.cluster, request)
        if not isinstance(result, Placement):
            return False
        self.cluster.reserve(result)
        seats = [
            Seat(
                pod=f"{facts.name}-{clique.name}-{index}",
                gang=facts.name,
                clique=clique.name,
                index=index,
                node=binding.node,
                shape=clique.shape,
                gpu_ids=binding.gpu_ids,
            )
            for clique in result.cliques
            for index, binding in enumerate(clique.bindings)
        ]
        self.sit(facts, seats)
        return True

    def sit(self, facts: GangFacts, seats: Iterable[Seat]) -> None:
        """Add a gang whose places are reserved already."""
        seats = list(seats)
        self.facts[facts.name] = facts
        self.seats.update((seat.pod, seat) for seat in seats)
        self.occupancy.set_gang(facts)
        self.occupancy.add_pods(seats)

    def without(self, pods: Iterable[str]) -> Cluster:
        """Return a copy of the cluster without some pods."""
        copy = self.cluster.fork()
        for pod in pods:
            seat = self.seats[pod]
            copy.release_pod(seat.node, seat.shape, seat.gpu_ids)
        return copy

    def rebuilt(self) -> Occupancy:
        """Return an occupancy of the same facts, entered in reverse order."""
        other = Occupancy()
        for facts in reversed(self.facts.values()):
            other.set_gang(facts)
        other.add_pods(reversed(self.seats.values()))
        return other


def minimums(request: GangRequest | GroupRequest | CliqueRequest) -> Iterator[tuple[str, int]]:
    """Yield the minimum of every clique."""
    if isinstance(request, CliqueRequest):
        yield request.name, request.minimum
        return
    for member in request.members:
        yield from minimums(member)


def fits_by_number(cluster: Cluster, placement: Placement) -> bool:
    """Return whether a placement's nodes have room for its pods, whichever GPUs they would get."""
    copy = cluster.fork()
    for clique in placement.cliques:
        for binding in clique.bindings:
            free = copy.free_of(binding.node)
            if free["pods"] < 1 or any(free.get(key, 0) < amount for key, amount in clique.shape.requests if amount):
                return False
            try:
                copy.bind_pod(binding.node, clique.shape)
            except GpuConflictError:
                return False
    return True


@st.composite
def scenes(draw: st.DrawFn, *, nodes_max: int = 5, gangs_max: int = 6, budgets: bool = True) -> Running:
    """Draw a small cluster with gangs of several priorities and queues on it, some of them scaled gangs of others."""
    running = Running(draw(clusters(nodes_max=nodes_max)))
    for number in range(draw(st.integers(1, gangs_max))):
        request = draw(gangs(pods_max=2))
        bases = [each.name for each in running.facts.values() if not each.base_gang]
        budget = draw(st.sampled_from([None, None, 0, 1])) if budgets else None
        cliques = dict(minimums(request))
        facts = GangFacts(
            name=f"g{number}",
            minimums=tuple(cliques.items()),
            priority=draw(st.integers(0, 3)),
            queue=draw(st.sampled_from(["red", "blue"])),
            base_gang=draw(st.sampled_from(["", "", *bases])),
            started_at_s=float(draw(st.integers(0, 3))),
            is_preemptible=draw(st.sampled_from([True, True, True, False])),
            evictable_surplus=() if budget is None else tuple((clique, budget) for clique in cliques),
        )
        running.start(request, facts)
    return running
