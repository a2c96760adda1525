"""Gangs: phases and conditions that are true, minimums, and constraints that add up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from grove_server.lifecycle.blueprint import TopologyLevels
from grove_server.lifecycle.gang_status import PodGroupCounts, observe, with_gang_status
from grove_server.lifecycle.machine import GangObservation
from grove_server.resources.gang_parts import LevelConstraint
from grove_server.resources.workload import GangPhase, Pod, PodGang
from tests.lifecycle_cases import (
    LEVELS,
    World,
    bound,
    clique,
    condition,
    deleted,
    group,
    lost,
    manifest,
    minimums,
    pack,
    ready,
    world,
)

C = PodGroupCounts
OBSERVED = [
    pytest.param([], GangObservation.UNPLACED, id="no-pod-groups"),
    pytest.param([C(2, 0, 0, 0)], GangObservation.UNPLACED, id="no-pods-yet"),
    pytest.param([C(2, 2, 1, 0)], GangObservation.UNPLACED, id="part-placed"),
    pytest.param([C(1, 2, 1, 0), C(1, 1, 1, 0)], GangObservation.PLACED, id="minimums-placed"),
    pytest.param([C(1, 2, 2, 2), C(1, 1, 1, 0)], GangObservation.PLACED, id="one-group-not-ready"),
    pytest.param([C(1, 2, 1, 1), C(1, 1, 1, 1)], GangObservation.READY, id="minimums-ready"),
    pytest.param([C(2, 0, 0, 0, failed=1)], GangObservation.LOST, id="all-failed"),
    pytest.param([C(2, 0, 0, 0, failed=1, succeeded=1)], GangObservation.LOST, id="failed-counts-more"),
    pytest.param([C(2, 0, 0, 0, succeeded=2)], GangObservation.FINISHED, id="all-succeeded"),
    pytest.param([C(2, 1, 1, 1, failed=1)], GangObservation.UNPLACED, id="one-left"),
]


@pytest.mark.parametrize(("counts", "expected"), OBSERVED)
def test_observation(counts: list[PodGroupCounts], expected: GangObservation) -> None:
    """What the pod groups look like together follows from their counts."""
    assert observe(counts) is expected


def started(minimum: int = 1) -> World:
    """Return a set of two cliques whose pods exist."""
    made = world([clique("a", 2, minimum), clique("b", 1)])
    made.settle()
    return made


def gang_of(made: World) -> PodGang:
    """Return the base gang after a pass."""
    made.settle()
    return made.one(PodGang, "s-0")


def test_life_of_a_gang() -> None:
    """Phase, conditions and times follow the pods of the minimum: placed, serving, lost, back."""
    made = started()
    gang = gang_of(made)
    assert gang.status.phase is GangPhase.PENDING
    assert (condition(gang, "Initialized").status, condition(gang, "Scheduled").reason) == ("True", "Pending")
    made.change_pods(bound, [made.pods("s-0-a")[0], *made.pods("s-0-b")])
    made.now += 1
    gang = gang_of(made)
    assert (gang.status.phase, gang.status.scheduled_at) == (GangPhase.STARTING, made.now)
    assert condition(gang, "Scheduled").reason == "PodGangScheduled"
    made.run()
    made.now += 1
    gang = gang_of(made)
    assert (gang.status.phase, gang.status.ready_at) == (GangPhase.RUNNING, made.now)
    assert condition(gang, "Ready").last_transition_at == made.now
    made.change_pods(lost, made.pods("s-0-b"))
    gang = gang_of(made)
    assert (gang.status.phase, gang.status.ready_at) == (GangPhase.STARTING, None)
    assert condition(gang, "Ready").reason == "PodGangNotReady"
    made.change_pods(deleted, made.pods("s-0-b"))
    gang = gang_of(made)
    assert (gang.status.phase, gang.status.scheduled_at) == (GangPhase.PENDING, None)
    assert condition(gang, "Scheduled").status == "False"


def test_a_pod_above_the_minimum_changes_no_phase() -> None:
    """Losing a pod that the gang can do without leaves it Running."""
    made = started()
    made.run()
    assert gang_of(made).status.phase is GangPhase.RUNNING
    made.change_pods(lost, made.pods("s-0-a")[:1])
    assert gang_of(made).status.phase is GangPhase.RUNNING


def test_why_a_gang_waits_is_kept_until_it_is_placed() -> None:
    """Placement's reason stands in the status and the condition while the gang waits, and goes when it is placed."""
    made = started()
    gang = gang_of(made)
    made.put(replace(gang, status=replace(gang.status, reason="NoCapacity", message="no room")))
    gang = gang_of(made)
    scheduled = condition(gang, "Scheduled")
    assert (scheduled.status, scheduled.reason, scheduled.message) == ("False", "NoCapacity", "no room")
    made.run()
    gang = gang_of(made)
    assert (gang.status.reason, gang.status.message) == ("", "")
    assert condition(gang, "Scheduled").message == ""


def test_a_status_that_did_not_change_is_the_same_object() -> None:
    """Nothing is written where nothing changed."""
    gang = gang_of(started())
    counts = [C(1, 2, 0, 0), C(1, 1, 0, 0)]
    assert with_gang_status(gang, counts, now=2_000.0) is gang


def test_minimums_follow_the_clique_and_not_its_size() -> None:
    """A gang asks for each clique's minimum, or all its pods if these are fewer."""
    made = world([clique("a", 4, 2)])
    made.settle()
    assert minimums(made.one(PodGang, "s-0")) == {"s-0-a": 2}
    made.scale_clique("s-0-a", 9)
    assert minimums(gang_of(made)) == {"s-0-a": 2}


def test_scaling_out_a_standalone_clique_adds_to_its_pod_group() -> None:
    """More pods of a standalone clique join the base gang; its minimum and generation tell of the change."""
    made = world([clique("a", 2)])
    made.settle()
    before = made.one(PodGang, "s-0")
    made.scale_clique("s-0-a", 3)
    after = gang_of(made)
    assert [len(g.pods) for g in after.pod_groups] == [3]
    assert after.metadata.generation == before.metadata.generation + 1


def test_every_pod_is_listed_by_its_gang() -> None:
    """The pods a gang lists are exactly the active ones that name it."""
    made = world([clique("a", 2), clique("b", 3, 1)], [group("g", ["b"], 3, 1)])
    made.settle()
    for gang in made.of(PodGang):
        listed = [name for pod_group in gang.pod_groups for name in pod_group.pods]
        named = [pod.metadata.name for pod in made.pods() if pod.identity.gang == gang.metadata.name]
        assert sorted(listed) == sorted(named)


# Topology.


def packed() -> World:
    """Return a set with a constraint at each level."""
    cliques = [
        clique("a", 2, topologyConstraint=pack("rack")),
        clique("b", 2, topologyConstraint=pack("host", "host")),
    ]
    groups = [group("g", ["b"], 3, 2, topologyConstraint=pack("rack", "host"))]
    made = world(cliques, groups, topologyConstraint=pack("block", "rack"))
    made.settle()
    return made


def test_constraints_are_translated_to_label_keys() -> None:
    """Set, group and clique constraints stand in the base gang as node label keys, each at its own place."""
    gang = packed().one(PodGang, "s-0")
    assert gang.topology_constraint == LevelConstraint(required="example.com/block", preferred="example.com/rack")
    assert [(t.name, t.pod_group_names) for t in gang.topology_groups] == [
        ("s-0-g-0", ("s-0-g-0-b",)),
        ("s-0-g-1", ("s-0-g-1-b",)),
    ]
    assert gang.topology_groups[0].topology_constraint == LevelConstraint(
        required="example.com/rack", preferred="example.com/host"
    )
    assert [g.topology_constraint for g in gang.pod_groups] == [
        LevelConstraint(required="example.com/rack"),
        *[LevelConstraint(required="example.com/host", preferred="example.com/host")] * 2,
    ]
    assert gang.topology_name == "grove-topology"
    assert gang.metadata.annotations["grove.io/topology-name"] == "grove-topology"


def test_constraints_add_up_in_scaled_gangs() -> None:
    """A scaled gang keeps the set's constraint beside its group's and its clique's."""
    gang = packed().one(PodGang, "s-0-g-0")
    assert gang.topology_constraint == LevelConstraint(required="example.com/block", preferred="example.com/rack")
    assert [(t.name, t.pod_group_names) for t in gang.topology_groups] == [("s-0-g-2", ("s-0-g-2-b",))]
    assert gang.pod_groups[0].topology_constraint == LevelConstraint(
        required="example.com/host", preferred="example.com/host"
    )


def test_a_group_without_constraint_is_no_topology_group() -> None:
    """Only a group that asks for something appears among a gang's topology groups."""
    made = world([clique("a"), clique("b")], [group("g", ["b"], 2)], topologyConstraint=pack("rack"))
    made.settle()
    assert made.one(PodGang, "s-0").topology_groups == ()
    assert made.one(PodGang, "s-0-g-0").topology_groups == ()
    assert made.one(PodGang, "s-0-g-0").topology_constraint == LevelConstraint(required="example.com/rack")


@pytest.mark.parametrize(
    ("topologies", "error"),
    [
        pytest.param({}, "'grove-topology' does not exist", id="no-binding"),
        pytest.param({"grove-topology": LEVELS[:1]}, "'grove-topology' has no level", id="no-level"),
    ],
)
def test_what_cannot_be_translated_is_an_error_of_all_gangs(topologies: TopologyLevels, error: str) -> None:
    """A missing binding or level is said on every gang of the set, and healing takes the error away."""
    made = packed()
    made.topologies = topologies
    made.settle()
    [said] = {gang.topology_error for gang in made.of(PodGang)}
    assert error in said
    made.topologies = {"grove-topology": LEVELS}
    made.settle()
    assert {gang.topology_error for gang in made.of(PodGang)} == {""}
    assert made.one(PodGang, "s-0").topology_constraint == LevelConstraint(
        required="example.com/block", preferred="example.com/rack"
    )


def test_a_set_without_constraints_needs_no_topology() -> None:
    """Nothing asked, nothing missing."""
    made = world([clique("a")], topologies={})
    made.settle()
    gang = made.one(PodGang, "s-0")
    assert (gang.topology_error, gang.topology_name, gang.topology_constraint) == ("", "", None)


def test_edits_that_change_no_gang_write_none() -> None:
    """A new image makes no new gang spec: sizes and constraints are the same."""
    made = world([clique("a", 2)])
    made.settle()
    made.run()
    made.settle()
    before = made.one(PodGang, "s-0")
    made.apply(manifest([clique("a", 2, labels={"v": "2"})]))
    made.settle()
    assert made.one(PodGang, "s-0") == before


def test_priority_follows_the_set() -> None:
    """An edit of the priority class reaches the gangs and the pods, at once where nothing is placed."""
    made = world([clique("a", 2)])
    made.settle()
    made.apply(manifest([clique("a", 3, 2)], priorityClassName="high"))
    made.settle()
    assert made.one(PodGang, "s-0").priority_class_name == "high"
    assert [pod.template.priority_class_name for pod in made.pods()] == ["high", "high", "high"]


def test_pods_of_a_gang_that_stops_are_listed_no_more() -> None:
    """A terminating pod is in no gang: its gang waits for the one that takes its place."""
    made = started()
    made.run()
    victim = made.pods("s-0-a")[0]
    made.change_pods(deleted, [victim])
    gang = gang_of(made)
    assert victim.metadata.name not in gang.pod_groups[0].pods
    assert len(gang.pod_groups[0].pods) == 2
    assert made.one(Pod, victim.metadata.name).is_terminating
    made.change_pods(ready)
