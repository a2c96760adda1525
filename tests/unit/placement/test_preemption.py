"""Preemption in single scenes: who goes first, who never goes, promises and earmarks."""

from __future__ import annotations

import pytest

from grove_server.placement import (
    Cluster,
    ClusterError,
    InvalidRequestError,
    NodeState,
    StalePlacementError,
    Verdict,
    place,
)
from grove_server.placement.earmarks import Earmark, earmark_for, place_around
from grove_server.placement.eviction import EvictionLimits
from grove_server.placement.occupancy import GangFacts, Occupancy, OccupancyError, Seat
from grove_server.placement.preemption import Preemption, PreemptionPolicy, VictimKind, plan_preemption
from tests.eviction_cases import Running
from tests.placement_cases import RACK, clique, gang, gpu_node, gpus, placed, refused


def _node(name: str, rack: str) -> NodeState:
    return gpu_node(name, zone="z", block="b", rack=rack)


def _running(*nodes: NodeState) -> Running:
    return Running(Cluster(nodes))


def _start(
    running: Running, name: str, gpu_count: int, *, minimum: int = 1, surplus: int = 0, on: str = "", **facts: object
) -> None:
    within = ((RACK, on),) if on else ()
    request = gang(clique("w", minimum, gpus(gpu_count), optional=surplus), name=name, within=within)
    known = GangFacts(name=name, minimums=(("w", minimum),), **facts)  # type: ignore[arg-type]  # passed on as given
    assert running.start(request, known)


def _plan(running: Running, pods: int, gpu_count: int, priority: int = 9, **more: object) -> Preemption | Verdict:
    request = gang(clique("w", pods, gpus(gpu_count)), name="high")
    return plan_preemption(running.cluster, running.occupancy, request, priority=priority, **more)  # type: ignore[arg-type]  # passed on as given


def _victims(plan: Preemption | Verdict) -> list[str]:
    assert isinstance(plan, Preemption), plan.sentence()
    return [victim.gang for victim in plan.victims]


def test_surplus_goes_before_gangs_of_lower_priority() -> None:
    """A surplus pod of priority 5 goes, and a whole gang of priority 1 stays."""
    running = _running(_node("a", "0"), _node("b", "1"))
    _start(running, "whole", 8, on="0", priority=1)
    _start(running, "rich", 4, surplus=1, on="1", priority=5)
    plan = _plan(running, 1, 4)
    assert isinstance(plan, Preemption)
    assert [(victim.kind, victim.pods) for victim in plan.victims] == [(VictimKind.SURPLUS, ("rich-w-1",))]
    assert (plan.cost.gangs_broken, plan.cost.surplus_pods) == (0, 1)
    assert plan.reasons[1] == "who leaves: rich-w-1"


def test_surplus_beyond_its_budget_stays() -> None:
    """With no surplus left to evict the whole gang of lowest priority goes instead."""
    running = _running(_node("a", "0"), _node("b", "1"))
    _start(running, "whole", 8, on="0", priority=1)
    _start(running, "rich", 4, surplus=1, on="1", priority=5, evictable_surplus=(("w", 0),))
    assert _victims(_plan(running, 1, 4)) == ["whole"]


def test_the_lowest_priority_goes_first_and_equal_priority_never() -> None:
    """Strictly lower is what counts, up to the ends of 32 bits."""
    running = _running(_node("a", "0"), _node("b", "1"), _node("c", "2"))
    for rack, (name, priority) in enumerate((("low", -(2**31)), ("mid", 0), ("top", 2**31 - 1))):
        _start(running, name, 8, on=str(rack), priority=priority)
    assert _victims(_plan(running, 1, 8, priority=2**31 - 1)) == ["low"]
    assert _victims(_plan(running, 2, 8, priority=2**31 - 1)) == ["low", "mid"]
    assert isinstance(_plan(running, 3, 8, priority=2**31 - 1), Verdict)
    assert isinstance(_plan(running, 1, 8, priority=-(2**31)), Verdict)
    with pytest.raises(OccupancyError):
        running.occupancy.set_gang(GangFacts(name="low", priority=2**31))


def test_few_gangs_go_rather_than_many() -> None:
    """One gang on two nodes goes, not two gangs on one each, although these are younger."""
    running = _running(*(_node(f"n{at}", str(at // 2)) for at in range(4)))
    _start(running, "pair", 8, minimum=2, on="0", started_at_s=1.0)
    _start(running, "one", 8, on="1", started_at_s=5.0)
    _start(running, "two", 8, on="1", started_at_s=6.0)
    assert _victims(_plan(running, 2, 8)) == ["pair"]


def test_the_youngest_goes_among_equals() -> None:
    """Of gangs alike in all else the one that started last is the victim."""
    running = _running(*(_node(f"n{at}", str(at)) for at in range(5)))
    for at, age in enumerate((3.0, 9.0, 1.0, 7.0, 5.0)):
        _start(running, f"g{at}", 8, on=str(at), started_at_s=age)
    assert _victims(_plan(running, 1, 8)) == ["g1"]
    assert _victims(_plan(running, 2, 8)) == ["g1", "g3"]


def test_a_base_gang_takes_its_scaled_gangs_along_and_goes_after_them() -> None:
    """A scaled gang can go alone; if the base has to go, all that depends on it goes; if that may not, it stays."""
    running = _running(_node("a", "0"), _node("b", "1"))
    _start(running, "base", 8, on="0")
    _start(running, "scaled", 8, on="1", base_gang="base")
    assert _victims(_plan(running, 1, 8)) == ["scaled"]
    request = gang(clique("w", 1, gpus(8)), name="high", within=((RACK, "0"),))
    assert _victims(plan_preemption(running.cluster, running.occupancy, request, priority=9)) == ["base", "scaled"]
    running.occupancy.set_gang(GangFacts(name="scaled", minimums=(("w", 1),), base_gang="base", priority=10))
    assert isinstance(plan_preemption(running.cluster, running.occupancy, request, priority=9), Verdict)


def test_policy_never_and_protected_gangs_are_respected() -> None:
    """The verdict says what stands in the way, and nothing is planned."""
    running = _running(_node("a", "0"))
    _start(running, "low", 8, on="0")
    never = _plan(running, 1, 8, policy=PreemptionPolicy.NEVER)
    assert isinstance(never, Verdict)
    assert "never preempts" in never.sentence()
    few = _plan(running, 1, 8, limits=EvictionLimits(pods_max=0))
    assert isinstance(few, Verdict)
    assert "1 pods of lower priority would have to go, 0 may" in few.sentence()
    other = _plan(running, 1, 8, queue="elsewhere")
    assert isinstance(other, Verdict)
    running.occupancy.set_gang(GangFacts(name="low", minimums=(("w", 1),), is_preemptible=False))
    assert isinstance(_plan(running, 1, 8), Verdict)
    too_large = _plan(running, 2, 8)
    assert isinstance(too_large, Verdict)
    with pytest.raises(InvalidRequestError):
        plan_preemption(running.cluster, running.occupancy, gang(clique("w", 0, gpus(1), optional=1)), priority=9)


def test_the_domain_in_which_least_has_to_go_is_taken() -> None:
    """With a required level the rack that is nearly free is used, though the other would be the tighter fit."""
    running = _running(*(_node(f"n{at}", str(at // 2)) for at in range(4)))
    for at in range(2):
        _start(running, f"full{at}", 8, on="0", started_at_s=9.0)
    _start(running, "corner", 1, on="1", started_at_s=1.0)
    request = gang(clique("w", 2, gpus(8)), name="high", required=RACK)
    assert _victims(plan_preemption(running.cluster, running.occupancy, request, priority=9)) == ["corner"]


def test_an_occupancy_refuses_what_cannot_be() -> None:
    """Unknown gangs, pods named twice and gangs that still have pods; nothing is changed then."""
    occupancy = Occupancy()
    seat = Seat(pod="p", gang="g", clique="w", index=0, node="n", shape=gpus(1), gpu_ids=(0,))
    with pytest.raises(OccupancyError):
        occupancy.add_pods([seat])
    occupancy.set_gang(GangFacts(name="g"))
    with pytest.raises(OccupancyError):
        occupancy.add_pods([seat, seat])
    occupancy.add_pods([seat])
    with pytest.raises(OccupancyError):
        occupancy.add_pods([seat])
    with pytest.raises(OccupancyError):
        occupancy.drop_gang("g")
    with pytest.raises(OccupancyError):
        occupancy.remove_pods(["p", "q"])
    assert occupancy.reclaimable_below(1).sum(axis=1).tolist() == [1, 1, 1000]
    occupancy.set_gang(GangFacts(name="g", priority=7))
    assert not occupancy.reclaimable_below(7).any()
    occupancy.remove_pods(["p"])
    occupancy.drop_gang("g")
    assert not occupancy.reclaimable_below(8).any()


def test_a_promise_waits_for_its_victims_and_breaks_with_its_node() -> None:
    """It is refused while GPUs are held, reported when a node goes, and nobody else is placed on it."""
    running = _running(_node("a", "0"), _node("b", "1"))
    cluster = running.cluster
    _start(running, "low", 8, minimum=2)
    plan = _plan(running, 1, 8)
    assert isinstance(plan, Preemption)
    cluster.promise(plan.placement)
    with pytest.raises(ClusterError):
        cluster.promise(plan.placement)
    with pytest.raises(StalePlacementError, match="cannot be kept"):
        cluster.keep("high")
    for pod in plan.pods:
        seat = running.seats[pod]
        cluster.release_pod(seat.node, seat.shape, seat.gpu_ids)
    assert placed(place(cluster, gang(clique("w", 1, gpus(8)), name="thief"))).cliques[0].bindings[0].node == "b"
    refused(place(cluster, gang(clique("w", 2, gpus(8)), name="thief")))
    cluster.remove_node("a")
    assert list(cluster.broken_promises()) == ["high"]
    with pytest.raises(StalePlacementError):
        cluster.keep("high")
    cluster.withdraw("high")
    with pytest.raises(ClusterError):
        cluster.withdraw("high")
    assert cluster.node_names() == ["b"]


def test_lower_work_goes_around_an_earmarked_domain() -> None:
    """The gang that waits and higher priorities may use it; a verdict names it; afterwards all is as before."""
    running = _running(*(_node(f"n{at}", str(at)) for at in range(2)))
    cluster = running.cluster
    _start(running, "old", 1, on="0")
    waits = gang(
        clique("w", 1, gpus(8), required=RACK), clique("v", 1, gpus(1), required=RACK), name="big", required=RACK
    )
    earmark = earmark_for(refused(place(cluster, waits)), priority=5)
    assert earmark is not None
    assert earmark.gang == "big"
    small = gang(clique("w", 1, gpus(1)), name="small")
    other = {"0": "n1", "1": "n0"}[dict(earmark.path)[RACK]]
    before = cluster.free_of("n0"), cluster.free_of("n1")
    assert placed(place_around(cluster, small, [earmark], priority=5)).cliques[0].bindings[0].node == other
    eight = gang(clique("w", 1, gpus(8)), name="eight")
    everything = Earmark(gang="big", path=(), priority=5)
    assert "set aside for big" in refused(place_around(cluster, eight, [everything], priority=5)).sentence()
    placed(place_around(cluster, eight, [everything], priority=6))
    placed(place_around(cluster, eight, [everything], priority=0, gang="big"))
    assert (cluster.free_of("n0"), cluster.free_of("n1")) == before


def test_no_domain_is_set_aside_in_vain() -> None:
    """A gang that even an empty cluster could not hold gets no earmark."""
    cluster = Cluster([_node("a", "0")])
    assert earmark_for(refused(place(cluster, gang(clique("w", 2, gpus(8)), required=RACK))), 5) is None
