"""Clusters with gangs that run on them, for the tests of preemption, reclaim and consolidation."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from hypothesis import strategies as st

from grove_server.placement import (
    GPU_RESOURCE,
    CliqueRequest,
    Cluster,
    GangRequest,
    GpuConflictError,
    GroupRequest,
    NodeState,
    Placement,
    PodShape,
    place,
)
from grove_server.placement.gang_facts import facts_of_leaving
from grove_server.placement.occupancy import GangFacts, Occupancy, Seat
from tests.placement_cases import BLOCK, HOST, RACK, TOPOLOGY, ZONE


@dataclass
class Running:
    """A cluster and who sits on it, kept in step."""

    cluster: Cluster
    occupancy: Occupancy = field(default_factory=Occupancy)
    seats: dict[str, Seat] = field(default_factory=dict)
    facts: dict[str, GangFacts] = field(default_factory=dict)
    requests: dict[str, GangRequest] = field(default_factory=dict)

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
        self.requests[facts.name] = request
        return True

    def request_of(self, gang: str, seats: tuple[Seat, ...]) -> GangRequest | None:
        """Return what to ask for if some pods of a gang move; surplus of gangs that ask for levels stays."""
        request, counts = self.requests[gang], Counter(seat.clique for seat in seats)
        if len(seats) == sum(seat.gang == gang for seat in self.seats.values()):
            return replace(request, members=tuple(_with_counts(member, counts) for member in request.members))
        if request.required or any(member.required for member in request.members):
            return None
        return replace(request, members=tuple(_with_counts(m, counts) for m in request.members if counts.get(m.name)))

    def sit(self, facts: GangFacts, seats: Iterable[Seat]) -> None:
        """Add a gang whose places are reserved already."""
        seats = list(seats)
        self.facts[facts.name] = facts
        self.seats.update((seat.pod, seat) for seat in seats)
        self.occupancy.set_gang(facts)
        self.occupancy.add_pods(seats)

    def stop(self, gang: str) -> None:
        """Let all pods of a gang go."""
        gone = [seat for seat in self.seats.values() if seat.gang == gang]
        for seat in gone:
            self.cluster.release_pod(seat.node, seat.shape, seat.gpu_ids)
            del self.seats[seat.pod]
        self.occupancy.remove_pods(seat.pod for seat in gone)
        self.occupancy.drop_gang(gang)
        del self.facts[gang]

    def leave(self, pods: Iterable[str]) -> None:
        """Tell pods to leave: they hold their places, and no longer count for their gangs."""
        moved = [self.seats[pod] for pod in pods]
        self.occupancy.remove_pods(seat.pod for seat in moved)
        for seat in moved:
            facts = self.facts[seat.gang]
            facts = facts if facts.is_leaving else facts_of_leaving(facts)
            self.sit(facts, [replace(seat, gang=facts.name)])

    def go(self) -> None:
        """Let all pods go that leave."""
        for gang in [facts.name for facts in self.facts.values() if facts.is_leaving]:
            self.stop(gang)

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


def _with_counts(member: CliqueRequest | GroupRequest, counts: Mapping[str, int]) -> CliqueRequest:
    assert isinstance(member, CliqueRequest)
    return replace(member, minimum=counts.get(member.name, 0), optional=0)


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


_LEVELS = st.sampled_from([None, None, None, ZONE, HOST])


@st.composite
def dense_requests(draw: st.DrawFn, name: str = "gang", *, plain: bool = False) -> GangRequest:
    """Draw a gang that a small node or two can hold: one to three cliques of GPUs, shares of one, or CPUs."""
    members = []
    for number in range(1 if plain else draw(st.integers(1, 3))):
        milli = draw(st.sampled_from([0, 0, 0, 300, 600]))
        gpu_count = 0 if milli else draw(st.sampled_from([0, 1, 1, 2]))
        shape = PodShape(requests=(("cpu", draw(st.integers(1, 3))), (GPU_RESOURCE, gpu_count)), gpu_milli=milli)
        members.append(
            CliqueRequest(
                name=f"c{number}",
                shape=shape,
                minimum=draw(st.integers(1, 3)),
                optional=draw(st.sampled_from([0, 0, 1, 2])),
                required=draw(_LEVELS),
            )
        )
    return GangRequest(name=name, members=tuple(members), topology=TOPOLOGY, required=draw(_LEVELS))


@st.composite
def scenes(draw: st.DrawFn, *, nodes_max: int = 4, gangs_max: int = 8, budgets: bool = True) -> Running:
    """Draw a small cluster, and fill it with gangs of several priorities and queues, some of them scaled gangs."""
    running = Running(Cluster(draw(_dense_node(f"n{at}")) for at in range(draw(st.integers(1, nodes_max)))))
    for number in range(draw(st.integers(2, gangs_max))):
        request = draw(dense_requests(f"g{number}"))
        bases = [each.name for each in running.facts.values() if not each.base_gang]
        cliques = dict(minimums(request))
        budget = draw(st.sampled_from([None, None, 0, 1])) if budgets else None
        facts = GangFacts(
            name=request.name,
            minimums=tuple(cliques.items()),
            priority=draw(st.integers(0, 3)),
            queue=draw(st.sampled_from(["red", "blue"])),
            base_gang=draw(st.sampled_from(["", "", *bases])),
            started_at_s=float(draw(st.integers(0, 3))),
            is_preemptible=draw(st.sampled_from([True] * 7 + [False])),
            evictable_surplus=() if budget is None else tuple((clique, budget) for clique in cliques),
        )
        running.start(request, facts)
    return running


@st.composite
def _dense_node(draw: st.DrawFn, name: str) -> NodeState:
    return NodeState(
        name=name,
        labels={HOST: name, ZONE: draw(st.sampled_from(["0", "1"])), BLOCK: "0", RACK: "0"},
        allocatable={"cpu": draw(st.integers(4, 9)), "pods": 8, GPU_RESOURCE: draw(st.sampled_from([0, 2, 4]))},
        gpu_busy=draw(st.sampled_from([frozenset[int]()] * 5 + [frozenset({0})])),
    )


def crowded(seed: int, *, nodes: int = 5, departures: float = 0.0) -> Running:
    """Return a cluster of four-GPU nodes that gangs filled up, some of which then left again, by seed.

    Generated by chance rather than drawn, because drawn scenes tend to be small and then nothing has to give way.
    """
    chance = random.Random(seed)
    running = Running(
        Cluster(
            NodeState(
                name=f"n{at}",
                labels={HOST: f"n{at}", RACK: str(at), BLOCK: "0", ZONE: str(at % 2)},
                allocatable={"cpu": 16, "pods": 12, GPU_RESOURCE: 4},
            )
            for at in range(nodes)
        )
    )
    for number in range(6 * nodes):
        bases = [each.name for each in running.facts.values() if not each.base_gang]
        request = crowded_request(chance, f"g{number}")
        facts = GangFacts(
            name=request.name,
            minimums=tuple(minimums(request)),
            priority=chance.randint(0, 3),
            queue=chance.choice(["red", "blue", "blue"]),
            base_gang=chance.choice(bases) if bases and chance.random() < 0.2 else "",
            started_at_s=float(chance.randint(0, 5)),
            is_preemptible=chance.random() < 0.95,
            evictable_surplus=(("c0", 1),) if chance.random() < 0.2 else (),
        )
        running.start(request, facts)
    for name in [name for name in running.facts if chance.random() < departures]:
        running.stop(name)
    return running


def crowded_request(chance: random.Random, name: str, *, gpus_max: int = 2) -> GangRequest:
    """Return a gang of one or two cliques of GPUs or shares of one, with surplus now and then."""
    members = []
    for number in range(chance.choice([1, 1, 2])):
        milli = chance.choice([0, 0, 0, 500])
        shape = PodShape(
            requests=(("cpu", 1), (GPU_RESOURCE, 0 if milli else chance.randint(1, gpus_max))), gpu_milli=milli
        )
        optional = chance.choice([0, 0, 1, 2])
        members.append(CliqueRequest(name=f"c{number}", shape=shape, minimum=chance.randint(1, 2), optional=optional))
    required = chance.choice([None, None, HOST, ZONE])
    return GangRequest(name=name, members=tuple(members), topology=TOPOLOGY, required=required)
