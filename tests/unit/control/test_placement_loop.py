"""Who gets nodes when: order over all sets, waiting and being woken, topologies and nodes that come and go."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from grove_server.control.drafts import CopyDraft, StandingOf
from grove_server.control.placement_loop import PlacementLoop
from grove_server.placement.waiting import TOPOLOGY_UNAVAILABLE, WAITING_FOR_BASE
from grove_server.resources.cluster import ClusterTopologyBinding, Event, Node
from grove_server.resources.meta import Condition, Kind, find_condition, key_of
from grove_server.resources.workload import GangPhase, PodCliqueSet, PodGang, SetPhase
from grove_server.store.interface import Change, Delete, Put, Reader
from tests.lifecycle_cases import Json, clique, deleted, group, manifest, pack
from tests.planes import Plane, binding, gang_key, worker


def workload1(name: str = "s", **more: int) -> Json:
    """Return Grove's WL1: ten pods whose minimum is all of them."""
    cliques = [clique("pc-a", 2, 2), clique("pc-b", 1, 1), clique("pc-c", 3, 3)]
    return manifest(cliques, [group("sg-x", ["pc-b", "pc-c"], 2, 2)], name=name, **more)


def workload2(name: str = "s", **more: int) -> Json:
    """Return Grove's WL2: ten pods whose base gang needs three of them."""
    cliques = [clique("pc-a", 2, 1), clique("pc-b", 1, 1), clique("pc-c", 3, 1)]
    return manifest(cliques, [group("sg-x", ["pc-b", "pc-c"], 2, 1)], name=name, **more)


def gang_events(plane: Plane) -> list[tuple[str, int]]:
    """Return the events of gangs, with how often each happened."""
    return [(event.reason, event.count) for event in plane.all(Event) if event.involved_kind is Kind.POD_GANG]


async def with_workers(plane: Plane, count: int, cordoned: int) -> None:
    """Add workers with room for one pod each, the last ones cordoned."""
    await plane.put(*(worker(i, unschedulable=i >= count - cordoned) for i in range(count)))


async def uncordon(plane: Plane, count: int) -> None:
    """Uncordon so many nodes as one change."""
    names = [node.metadata.name for node in plane.all(Node) if node.unschedulable][:count]
    await plane.set_nodes(*names, unschedulable=False)


async def settled(plane: Plane, pods: int, running: int) -> None:
    """Wait for exactly so many pods, so many of them ready and the others without a node."""
    await plane.until(
        lambda: len(plane.pods()) == pods and plane.ready_count() == running, f"{running} of {pods} pods run"
    )
    await plane.until_quiet()
    assert (len(plane.pods()), plane.ready_count()) == (pods, running)
    assert sum(1 for pod in plane.pods() if not pod.node) == pods - running
    nodes = [pod.node for pod in plane.pods() if pod.node]
    assert len(nodes) == len(set(nodes))


async def test_a_gang_places_all_or_nothing(plane: Plane) -> None:
    """GS1: with one node too few nothing of the gang is placed; one node more and all of it is."""
    await with_workers(plane, 10, 1)
    await plane.apply(workload1())
    await settled(plane, 10, 0)
    assert {pod.waiting_reason for pod in plane.pods()} == {"Unschedulable"}
    await uncordon(plane, 1)
    await settled(plane, 10, 10)
    assert {pod.waiting_reason for pod in plane.pods()} == {""}


async def test_scaled_gangs_follow(plane: Plane) -> None:
    """GS2: a further group replica is a gang of its own, placed when four nodes are there."""
    await with_workers(plane, 14, 5)
    await plane.apply(workload1())
    await settled(plane, 10, 0)
    await uncordon(plane, 1)
    await settled(plane, 10, 10)
    await plane.scale_group("s-0-sg-x", 3)
    await settled(plane, 14, 10)
    await uncordon(plane, 4)
    await settled(plane, 14, 14)


async def test_minimum_before_surplus(plane: Plane) -> None:
    """GS5: two nodes are not enough for three pods; the third runs exactly these, seven more run the rest."""
    await with_workers(plane, 10, 8)
    await plane.apply(workload2())
    await settled(plane, 10, 0)
    await uncordon(plane, 1)
    await settled(plane, 10, 3)
    assert sorted(pod.identity.clique for pod in plane.pods() if pod.node) == ["pc-a", "pc-b", "pc-c"]
    await uncordon(plane, 7)
    await settled(plane, 10, 10)


async def test_base_before_scaled_before_surplus(plane: Plane) -> None:
    """GS8: one node places the base minimum, four more both scaled minimums, and only then come surplus pods."""
    await with_workers(plane, 14, 12)
    await plane.apply(workload2())
    await settled(plane, 10, 0)
    await plane.scale_group("s-0-sg-x", 3)
    await settled(plane, 14, 0)
    scaled = plane.control.placement.decision(gang_key("s-0-sg-x-0"))
    assert scaled is not None
    assert scaled.reason == WAITING_FOR_BASE
    await uncordon(plane, 1)
    await settled(plane, 14, 3)
    await uncordon(plane, 4)
    await settled(plane, 14, 7)
    assert {pod.identity.gang for pod in plane.pods() if pod.node} == {"s-0", "s-0-sg-x-0", "s-0-sg-x-1"}
    await uncordon(plane, 7)
    await settled(plane, 14, 14)


async def test_order_over_several_sets(plane: Plane) -> None:
    """The base gangs of all sets come before any scaled gang, and these before any surplus; the older set first."""
    await with_workers(plane, 20, 20)
    await plane.apply(workload2("s"), uid="older")
    await plane.apply(workload2("t"), uid="younger")
    await settled(plane, 20, 0)
    steps = [(3, {"s-0"}), (3, {"s-0", "t-0"}), (2, {"s-0", "t-0", "s-0-sg-x-0"})]
    steps.append((2, {"s-0", "t-0", "s-0-sg-x-0", "t-0-sg-x-0"}))
    running = 0
    for count, gangs in steps:
        await uncordon(plane, count)
        running += count
        await settled(plane, 20, running)
        assert {pod.identity.gang for pod in plane.pods() if pod.node} == gangs
    await uncordon(plane, 10)
    await settled(plane, 20, 20)


async def test_cordon_and_uncordon_of_several_nodes_are_one_change(plane: Plane) -> None:
    """What frees and takes nodes in one commit is never seen half done."""
    await with_workers(plane, 4, 2)
    changes = [replace(plane.one(Node, f"n{i}"), unschedulable=i < 2) for i in range(4)]
    await plane.put(*changes)
    await plane.apply(manifest([clique("a", 2)]))
    await settled(plane, 2, 2)
    assert {pod.node for pod in plane.pods()} == {"n2", "n3"}


# Nodes.


async def test_pods_of_a_removed_node_run_elsewhere(plane: Plane) -> None:
    """A node that is removed takes its pods along; they are made anew, and a node that comes back is free."""
    await plane.put(worker(0, pods=2), worker(1, pods=2))
    await plane.apply(manifest([clique("a", 2)]))
    await settled_any(plane, 2)
    [home] = {pod.node for pod in plane.pods()}
    removed = plane.one(Node, home)
    await plane.remove(removed)
    await plane.until(
        lambda: plane.ready_count() == 2 and all(pod.node != home for pod in plane.pods()), "they run elsewhere"
    )
    await plane.put(replace(removed, resource_version=0))
    await plane.until_quiet()
    assert plane.control.placement.cluster.free_of(home)["pods"] == 2
    await plane.delete_set()
    await plane.until(lambda: plane.get(PodCliqueSet, "s") is None, "the set is gone")
    await plane.until_quiet()
    plane.check_nothing_is_left()


async def settled_any(plane: Plane, count: int) -> None:
    """Wait for so many ready pods, on whatever nodes."""
    await plane.until_ready(count)
    await plane.until_quiet()


async def test_pods_without_room_elsewhere_wait_for_the_node(plane: Plane) -> None:
    """When the only node goes the gang waits; when it comes back it runs again."""
    node = worker(0, pods=2)
    await plane.put(node)
    await plane.apply(manifest([clique("a", 2)]))
    await settled_any(plane, 2)
    await plane.remove(plane.one(Node, "n0"))
    await plane.until(lambda: len(plane.pods()) == 2 and not any(pod.node for pod in plane.pods()), "they wait")
    await plane.until(lambda: plane.one(PodGang, "s-0").status.phase is GangPhase.PENDING, "the gang waits")
    await plane.put(node)
    await settled_any(plane, 2)


async def test_a_node_that_comes_and_goes_in_one_change_harms_nobody(plane: Plane) -> None:
    """A node added and removed in one commit, beside a pod that goes, leaves the account right."""
    await plane.put(worker(0, pods=2))
    await plane.apply(manifest([clique("a", 2, 1)]))
    await settled_any(plane, 2)
    brief = worker(7)
    [pod, _] = plane.pods()
    failures: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    await plane.store.commit([Put(brief), Delete(key_of(brief)), Delete(key_of(pod))], cause="test")
    await settled_any(plane, 2)
    assert failures == []
    assert plane.control.placement.cluster.free_of("n0")["pods"] == 0


async def test_a_node_out_of_bounds_harms_nobody(plane: Plane) -> None:
    """A node that placement cannot take is left out and named; the others of the same change are taken."""
    absurd = replace(worker(0), allocatable={"pods": "1", "nvidia.com/gpu": "5000"})
    await plane.put(absurd, worker(1))
    await plane.apply(manifest([clique("a", 1)]))
    await settled_any(plane, 1)
    assert plane.pods()[0].node == "n1"
    await plane.restart()
    await plane.scale_clique("s-0-a", 2)
    await plane.put(replace(worker(0), metadata=plane.one(Node, "n0").metadata))
    await settled_any(plane, 2)


# Topologies.


def packed(size: int = 2, minimum: int = 2) -> Json:
    """Return a set whose pods must share a rack."""
    return manifest([clique("a", size, minimum)], topologyConstraint=pack("rack"))


async def test_a_missing_topology_keeps_gangs_waiting_until_it_returns(plane: Plane) -> None:
    """Without its binding a set waits with TopologyUnavailable, on gang and set; with it, it runs."""
    await plane.put(*(worker(i) for i in range(4)))
    await plane.apply(packed())
    await plane.until(
        lambda: (
            plane.get(PodGang, "s-0") is not None and plane.one(PodGang, "s-0").status.reason == TOPOLOGY_UNAVAILABLE
        ),
        "the gang says why it waits",
    )
    assert not any(pod.node for pod in plane.pods())
    await plane.until(
        lambda: find_condition(plane.status().conditions, "TopologyLevelsUnavailable") is not None, "told"
    )
    condition = find_condition(plane.status().conditions, "TopologyLevelsUnavailable")
    assert condition is not None
    assert (condition.status, condition.reason) == ("Unknown", "ClusterTopologyNotFound")
    await plane.put(binding())
    await settled_any(plane, 2)
    assert len({racks(plane)[pod.node] for pod in plane.pods()}) == 1
    await plane.until(
        lambda: (found := _about_topology(plane)) is not None and found.status == "False",
        "the set says that it is well again",
    )


async def told(plane: Plane) -> Condition:
    """Return the set's condition about its topology, once it is there."""
    await plane.until(lambda: _about_topology(plane) is not None, "the set tells of its topology")
    found = _about_topology(plane)
    assert found is not None
    return found


def _about_topology(plane: Plane) -> Condition | None:
    return find_condition(plane.status().conditions, "TopologyLevelsUnavailable")


def racks(plane: Plane) -> dict[str, str]:
    """Return the rack of each node."""
    return {node.metadata.name: node.metadata.labels["example.com/rack"] for node in plane.all(Node)}


async def test_what_runs_keeps_running_without_its_topology(plane: Plane) -> None:
    """A binding that disappears stops nothing; what comes later waits for it, and lands in the old domain."""
    await plane.put(binding(), *(worker(i, pods=2) for i in range(4)))
    await plane.apply(packed(2, 1))
    await settled_any(plane, 2)
    before = {pod.metadata.uid: pod.node for pod in plane.pods()}
    home = racks(plane)[plane.pods()[0].node]
    await plane.remove(plane.one(ClusterTopologyBinding, "grove-topology"))
    await plane.until(lambda: plane.one(PodGang, "s-0").topology_error != "", "the gang knows")
    await plane.scale_clique("s-0-a", 4)
    await plane.until(lambda: len(plane.pods()) == 4, "two more pods exist")
    await plane.until_quiet()
    assert plane.ready_count() == 2
    assert before == {pod.metadata.uid: pod.node for pod in plane.pods() if pod.node}
    decision = plane.control.placement.decision(gang_key("s-0"))
    assert decision is not None
    assert decision.reason == TOPOLOGY_UNAVAILABLE
    assert plane.one(PodGang, "s-0").status.phase is GangPhase.RUNNING
    await plane.put(binding())
    await settled_any(plane, 4)
    assert {racks(plane)[pod.node] for pod in plane.pods()} == {home}
    assert plane.control.placement.decision(gang_key("s-0")) is not None


async def test_a_level_that_disappears_counts_like_the_binding(plane: Plane) -> None:
    """A binding without the level that a set asks for keeps it waiting, and the set names the level."""
    await plane.put(binding("zone", "block"), *(worker(i) for i in range(4)))
    await plane.apply(packed())
    await plane.until(
        lambda: plane.get(PodGang, "s-0") is not None and "no level 'rack'" in plane.one(PodGang, "s-0").status.message,
        "the gang says what is missing",
    )
    await plane.until(
        lambda: find_condition(plane.status().conditions, "TopologyLevelsUnavailable") is not None, "told"
    )
    condition = find_condition(plane.status().conditions, "TopologyLevelsUnavailable")
    assert condition is not None
    assert condition.reason == "ClusterTopologyLevelsUnavailable"
    await plane.put(binding())
    await settled_any(plane, 2)


async def test_a_scaled_gang_stays_in_the_domain_of_its_base(plane: Plane) -> None:
    """Constraints add up: a later group replica lands in the copy's block, and in one rack of it."""
    await plane.put(binding(), *(worker(i, pods=1) for i in range(8)))
    document = manifest(
        [clique("b", 2)],
        [group("g", ["b"], 1, 1, topologyConstraint=pack("rack"))],
        topologyConstraint=pack("block"),
    )
    await plane.apply(document)
    await settled_any(plane, 2)
    await plane.scale_group("s-0-g", 2)
    await settled_any(plane, 4)
    blocks = {node.metadata.name: node.metadata.labels["example.com/block"] for node in plane.all(Node)}
    assert len({blocks[pod.node] for pod in plane.pods()}) == 1
    assert len({racks(plane)[pod.node] for pod in plane.pods("s-0-g-1-b")}) == 1
    await plane.scale_group("s-0-g", 3)
    await plane.until(lambda: len(plane.pods()) == 6, "the third exists")
    await plane.until_quiet()
    assert plane.ready_count() == 4


# Races and bounds.


async def test_a_gang_deleted_during_a_round_is_forgotten(plane: Plane) -> None:
    """A round that began before a gang's deletion leaves no verdict on it behind."""
    await plane.apply(manifest([clique("a", 2)]))
    await plane.until(lambda: plane.get(PodGang, "s-0") is not None, "the gang exists")
    known = plane.one(PodGang, "s-0")
    await plane.delete_set()
    await plane.until(lambda: plane.get(PodCliqueSet, "s") is None, "the set is gone")
    await plane.until_quiet()
    loop = plane.control.placement
    await loop._try(known, loop.desk.decide_minimum)
    plane.check_nothing_is_left()


async def test_a_round_that_breaks_off_is_begun_anew(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a broken round had reserved is free again, and every gang is looked at when the loop is back."""
    await plane.put(*(worker(i) for i in range(4)))
    breaks = [RuntimeError("broken"), RuntimeError("broken again")]
    submit = PlacementLoop._submit

    def broken(loop: PlacementLoop, draft: CopyDraft) -> None:
        if breaks:
            loop._drafts[draft.key] = draft
            raise breaks.pop()
        submit(loop, draft)

    monkeypatch.setattr(PlacementLoop, "_submit", broken)
    await plane.apply(manifest([clique("a", 4)]))
    await plane.until_ready(4)
    assert breaks == []
    assert plane.control.problems() == {}


async def test_a_draft_that_cannot_be_written_is_decided_anew(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault in one copy's draft gives its nodes back, and after a while the copy is decided again."""
    await plane.put(*(worker(i) for i in range(2)))
    breaks = [ValueError("broken")]
    changes = CopyDraft.changes

    def broken(draft: CopyDraft, reader: Reader, now: float, standing_of: StandingOf) -> list[Change]:
        if breaks:
            raise breaks.pop()
        return changes(draft, reader, now, standing_of)

    monkeypatch.setattr(CopyDraft, "changes", broken)
    await plane.apply(manifest([clique("a", 2)]))
    await plane.until(lambda: not breaks, "the fault has happened")
    await plane.until_quiet()
    assert [plane.control.placement.cluster.free_of(f"n{i}")["pods"] for i in range(2)] == [1, 1]
    plane.clock.advance(5)
    await plane.until_ready(2)


async def test_a_waiting_gang_tells_once(plane: Plane) -> None:
    """One event says that a gang waits; trying again and again adds none."""
    await with_workers(plane, 6, 5)
    await plane.apply(manifest([clique("a", 6)]))
    await plane.until(lambda: plane.get(PodGang, "s-0") is not None, "the gang exists")
    for _ in range(4):
        await uncordon(plane, 1)
        await plane.until_quiet()
    await plane.until(lambda: bool(gang_events(plane)), "the event is written")
    assert gang_events(plane) == [("Unschedulable", 1)]
    await uncordon(plane, 1)
    await settled_any(plane, 6)
    await plane.until(lambda: plane.status().phase is SetPhase.RUNNING, "the set runs")


async def test_gang_and_pods_become_visible_together(plane: Plane) -> None:
    """The change that gives a gang its nodes says that it is placed: no reader sees half of it."""
    await plane.put(*(worker(i) for i in range(4)))
    wrong: list[str] = []

    def look(notices: object) -> None:
        for gang in plane.all(PodGang):
            pods = [pod for pod in plane.pods() if pod.identity.gang == gang.metadata.name]
            placed = sum(1 for pod in pods if pod.node)
            if placed not in (0, 4) or (gang.status.scheduled_at is not None) != (placed == 4):
                wrong.append(f"{placed} pods, scheduled at {gang.status.scheduled_at}")
        del notices

    plane.store.subscribe(look)
    await plane.apply(manifest([clique("a", 4)]))
    await settled_any(plane, 4)
    assert wrong == []


async def test_explanations_are_there(plane: Plane) -> None:
    """Every gang has an answer to why it runs or waits; one placed before a restart too."""
    await with_workers(plane, 4, 0)
    await plane.apply(manifest([clique("a", 2)], [], name="s"))
    await plane.apply(manifest([clique("a", 5)], [], name="t"), uid="t")
    await settled_partly(plane)
    planning = plane.control.planning
    waiting = planning.explain("default", "t-0")
    assert waiting is not None
    assert waiting.reason
    placed = planning.explain("default", "s-0")
    assert placed is not None
    assert placed.outcome is not None
    assert planning.explain("default", "none") is None
    await plane.restart()
    await plane.until_quiet()
    adopted = plane.control.planning.explain("default", "s-0")
    assert adopted is not None
    assert adopted.since == plane.one(PodGang, "s-0").status.scheduled_at


async def settled_partly(plane: Plane) -> None:
    """Wait for the small set to run and the large one to wait."""
    await plane.until(lambda: plane.ready_count() == 2 and len(plane.pods()) == 7, "two of seven pods run")
    await plane.until_quiet()


async def test_a_base_gang_made_whole_by_scaling_in_wakes_its_scaled_gangs(plane: Plane) -> None:
    """When what a base gang lacks is scaled to 0 it is placed without a binding, and its scaled gangs may go."""
    await with_workers(plane, 4, 1)
    await plane.apply(manifest([clique("a"), clique("b"), clique("c")], [group("g", ["c"])]))
    await settled(plane, 3, 3)
    [victim] = plane.pods("s-0-b")
    await plane.set_nodes(victim.node, unschedulable=True)
    await plane.put(deleted(victim, plane.clock.now()))
    await settled(plane, 3, 2)
    await plane.scale_group("s-0-g", 2)
    await settled(plane, 4, 2)
    await plane.put(replace(plane.one(Node, victim.node), unschedulable=False, allocatable={"pods": "0"}))
    await plane.until_quiet()
    await plane.scale_clique("s-0-b", 0)
    await settled(plane, 3, 2)
    await uncordon(plane, 1)
    await settled(plane, 3, 3)


async def test_surplus_that_waits_tells_once(plane: Plane) -> None:
    """Trying surplus pods again adds no events."""
    await with_workers(plane, 6, 5)
    await plane.apply(manifest([clique("a", 6, 1)]))
    await settled(plane, 6, 1)
    for running in range(2, 6):
        await uncordon(plane, 1)
        await settled(plane, 6, running)
    await plane.until(lambda: bool(gang_events(plane)), "the event is written")
    assert gang_events(plane) == [("Unschedulable", 1)]


async def test_a_node_that_comes_back_after_a_restart_brings_its_pods(plane: Plane) -> None:
    """Pods whose node was away when the server started hold their room again when it returns before they are gone."""
    await plane.put(worker(0, pods=2))
    await plane.apply(manifest([clique("a", 2)]))
    await plane.until_ready(2)
    await plane.runtime.stop()
    node = plane.one(Node, worker(0).metadata.name)
    await plane.remove(node)
    await plane.stop()
    await plane.start(has_runtime=False)
    await plane.put(replace(node, resource_version=0))
    await plane.apply(manifest([clique("a", 1)], name="t"), uid="other-uid")
    await plane.until(lambda: len(plane.pods()) == len(["s", "s", "t"]), "all pods are there")
    await plane.until_quiet()
    assert [pod.node != "" for pod in plane.pods()] == [True, True, False]
