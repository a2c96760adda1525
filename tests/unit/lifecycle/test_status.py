"""Statuses: counts and conditions with Grove's reasons, of cliques, groups and sets."""

from __future__ import annotations

from dataclasses import replace

import pytest

from grove_server.lifecycle.copy import CopySummary
from grove_server.lifecycle.copy_totals import CopyTotals
from grove_server.lifecycle.machine import SetObservation
from grove_server.lifecycle.set_pass import (
    GANG_STATUSES_MAX,
    observe,
    pod_template,
    stale_templates,
    topology_condition,
    with_set_status,
)
from grove_server.resources.workload import (
    GangPhase,
    GangSummary,
    PodClique,
    PodCliqueScalingGroup,
    PodPhase,
    SetPhase,
)
from tests.lifecycle_cases import (
    NOW,
    World,
    admitted,
    bound,
    clique,
    condition,
    deleted,
    group,
    lost,
    manifest,
    ready,
    world,
)


def clique_of(made: World, name: str = "s-0-a") -> PodClique:
    """Return a clique after a pass."""
    made.settle()
    return made.one(PodClique, name)


def test_a_clique_from_start_to_loss() -> None:
    """Grove's conditions and reasons follow the pods: waiting, placed and starting, serving, lost."""
    made = world([clique("a", 3, 2)])
    seen = clique_of(made)
    assert condition(seen, "PodCliqueScheduled").reason == "InsufficientScheduledPods"
    assert condition(seen, "MinAvailableBreached").reason == "ScheduledReplicasBelowMinAvailable"
    assert seen.status.schedule_gated_replicas == 3
    made.change_pods(bound, made.pods()[:2])
    seen = clique_of(made)
    assert condition(seen, "PodCliqueScheduled").reason == "SufficientScheduledPods"
    # Pods that are still starting are not lost.
    assert condition(seen, "MinAvailableBreached").reason == "SufficientReadyPods"
    assert (seen.status.scheduled_replicas, seen.status.schedule_gated_replicas) == (2, 1)
    assert seen.status.first_scheduled_at == NOW
    made.run()
    assert clique_of(made).status.ready_replicas == 3
    made.now += 5
    made.change_pods(lost, made.pods()[:2])
    seen = clique_of(made)
    breached = condition(seen, "MinAvailableBreached")
    assert (breached.status, breached.reason, breached.last_transition_at) == (
        "True",
        "InsufficientReadyPods",
        made.now,
    )
    assert condition(seen, "PodCliqueScheduled").last_transition_at == NOW
    assert seen.status.first_scheduled_at == NOW


def test_ready_is_ready() -> None:
    """A ready pod with an old crash is healthy."""
    made = world([clique("a", 2)])
    made.settle()
    made.change_pods(lambda pod: replace(ready(pod), last_exit_code=137, restart_count=4, unready_at=NOW - 60))
    assert condition(clique_of(made), "MinAvailableBreached").status == "False"


@pytest.mark.parametrize("phase", [PodPhase.FAILED, PodPhase.SUCCEEDED])
def test_finished_pods_count_as_nothing(phase: PodPhase) -> None:
    """A finished pod neither exists, nor is it scheduled or ready."""
    made = world([clique("a", 2)])
    made.settle()
    made.run()
    made.change_pods(lambda pod: replace(pod, phase=phase, attempt=3, finished_at=NOW, started_at=NOW), made.pods()[:1])
    status = clique_of(made).status
    assert (status.replicas, status.scheduled_replicas, status.ready_replicas) == (1, 1, 1)


def test_updated_replicas_count_the_current_template() -> None:
    """Pods of an older template are not updated; new ones are."""
    made = world([clique("a", 2, 1)])
    made.settle()
    made.run()
    made.apply(manifest([clique("a", 3, 1)], priorityClassName="high"))
    seen = clique_of(made)
    assert (seen.status.replicas, seen.status.updated_replicas) == (3, 1)
    assert seen.template.hash == made.owner.revision.clique_hashes["a"] != seen.status.current_pod_template_hash
    assert made.owner.status.updated_replicas == 0


def test_members_publish_no_selector() -> None:
    """Standalone cliques and groups can be scaled by an autoscaler; members of a group are not meant to be."""
    made = world([clique("a"), clique("b")], [group("g", ["b"])])
    made.settle()
    assert "s-0-a" in made.one(PodClique, "s-0-a").status.hpa_pod_selector
    assert made.one(PodClique, "s-0-g-0-b").status.hpa_pod_selector == ""
    assert "s-0-g" in made.one(PodCliqueScalingGroup, "s-0-g").status.selector


def test_a_group_counts_group_replicas() -> None:
    """A group replica is scheduled, available or whole only with all of its cliques."""
    made = world([clique("b"), clique("c", 2, 1)], [group("g", ["b", "c"], 3, 2)])
    made.settle()
    made.change_pods(bound, [*made.pods("s-0-g-0-b"), *made.pods("s-0-g-0-c"), *made.pods("s-0-g-1-b")])
    made.settle()
    seen = made.one(PodCliqueScalingGroup, "s-0-g")
    assert (seen.status.scheduled_replicas, seen.status.available_replicas) == (1, 0)
    breached = condition(seen, "MinAvailableBreached")
    assert (breached.status, breached.reason) == ("True", "InsufficientAvailablePodCliqueScalingGroupReplicas")
    made.run()
    made.now += 5
    made.settle()
    seen = made.one(PodCliqueScalingGroup, "s-0-g")
    assert (seen.status.scheduled_replicas, seen.status.available_replicas, seen.status.updated_replicas) == (3, 3, 3)
    breached = condition(seen, "MinAvailableBreached")
    assert (breached.status, breached.reason) == ("False", "SufficientAvailablePodCliqueScalingGroupReplicas")
    assert seen.status.first_available_at == made.now
    made.change_pods(lost, made.pods("s-0-g-0-c"))
    made.settle()
    assert condition(made.one(PodCliqueScalingGroup, "s-0-g"), "MinAvailableBreached").status == "False"
    made.change_pods(lost, made.pods("s-0-g-1-b"))
    made.settle()
    assert condition(made.one(PodCliqueScalingGroup, "s-0-g"), "MinAvailableBreached").status == "True"


def test_a_copy_needs_every_standalone_clique_and_group() -> None:
    """A copy is available when each standalone clique and each group has its minimum ready."""
    made = world([clique("a", 2, 1), clique("b")], [group("g", ["b"], 2, 1)])
    made.settle()
    made.run(made.pods("s-0-a")[:1])
    assert made.settle().status.available_replicas == 0
    made.run(made.pods("s-0-g-1-b"))
    assert made.settle().status.available_replicas == 1
    made.change_pods(deleted, [pod for pod in made.pods("s-0-a") if pod.is_ready])
    assert made.settle().status.available_replicas == 0


# The set.


def test_a_set_from_start_to_end() -> None:
    """A set waits, starts, runs, is degraded and is deleted; its condition says how many copies serve."""
    made = world([clique("a")], replicas=2)
    owner = made.settle()
    assert (owner.status.phase, owner.status.replicas) == (SetPhase.PENDING, 2)
    assert condition(owner, "Available").message == "0 of 2 copies are available"
    made.run(made.pods("s-0-a"))
    assert made.settle().status.phase is SetPhase.STARTING
    made.run()
    owner = made.settle()
    assert (owner.status.phase, owner.status.available_replicas) == (SetPhase.RUNNING, 2)
    assert condition(owner, "Available").reason == "AllCopiesAvailable"
    assert owner.status.pod_gang_phase_counts == {GangPhase.RUNNING: 2}
    assert [summary.name for summary in owner.status.pod_gang_statuses] == ["s-0", "s-1"]
    made.change_pods(lost, made.pods("s-1-a"))
    owner = made.settle()
    assert (owner.status.phase, owner.status.available_replicas) == (SetPhase.DEGRADED, 1)
    assert owner.status.pod_gang_phase_counts == {GangPhase.RUNNING: 1, GangPhase.STARTING: 1}
    made.owner = replace(owner, metadata=replace(owner.metadata, deleted_at=NOW))
    assert made.settle().status.phase is SetPhase.DELETING


def test_a_set_that_grows_is_scaling_until_its_new_copies_serve() -> None:
    """New copies that do not serve yet are no loss; one that served and does not any more is, whatever else is new."""
    made = world([clique("a")])
    made.settle()
    made.run()
    assert made.settle().status.phase is SetPhase.RUNNING
    made.apply(manifest([clique("a")], replicas=3))
    owner = made.settle()
    assert (owner.status.phase, owner.status.available_replicas) == (SetPhase.SCALING, 1)
    made.run(made.pods("s-1-a"))
    assert made.settle().status.phase is SetPhase.SCALING
    made.change_pods(lost, made.pods("s-1-a"))
    assert made.settle().status.phase is SetPhase.DEGRADED
    made.run(made.pods("s-1-a"))
    assert made.settle().status.phase is SetPhase.SCALING
    made.run(made.pods("s-2-a"))
    assert made.settle().status.phase is SetPhase.RUNNING
    made.apply(manifest([clique("a")], replicas=2))
    assert made.settle().status.phase is SetPhase.RUNNING


def test_a_settled_set_is_not_written_again() -> None:
    """The same totals make the same object."""
    made = world([clique("a")])
    made.settle()
    owner = made.settle()
    assert with_set_status(owner, made.totals, None, now=NOW + 60) is owner


def test_copies_beyond_the_size_are_not_available() -> None:
    """Right after a scale-in, what is about to go counts for nothing: never more available than wanted."""
    made = world([clique("a")], replicas=3)
    made.settle()
    made.run(made.pods("s-2-a"))
    made.settle()
    made.apply(manifest([clique("a")], replicas=1))
    owner = with_set_status(made.owner, made.totals, None, now=NOW)
    assert (owner.status.replicas, owner.status.available_replicas, owner.status.updated_replicas) == (1, 0, 1)
    assert owner.status.phase is not SetPhase.RUNNING


def summary(copy: int, phase: GangPhase = GangPhase.RUNNING, *, available: bool = True) -> CopySummary:
    """Return the summary of a copy with one gang."""
    gang = GangSummary(name=f"s-{copy}", phase=phase)
    sizes = {("clique", "a"): (2, 2 if available else 0)}
    return CopySummary(copy=copy, exists=True, available=available, updated=True, gangs=(gang,), sizes=sizes)


def test_totals_add_up_as_summaries_come_and_go() -> None:
    """Totals follow each summary, say whether anything changed, and end where they began."""
    totals = CopyTotals()
    assert totals.put(summary(0))
    assert not totals.put(summary(0))
    assert totals.put(summary(1, GangPhase.PENDING, available=False))
    assert (totals.sums.available, totals.sums.updated) == (1, 2)
    assert totals.gang_phases == {"Running": 1, "Pending": 1}
    assert totals.sizes == {("clique", "a"): (4, 2)}
    assert totals.put(summary(1))
    assert (totals.sums.available, totals.gang_phases) == (2, {"Running": 2})
    for copy in (0, 1):
        assert totals.put(CopySummary(copy=copy, exists=False))
        assert not totals.put(CopySummary(copy=copy, exists=False))
    assert (totals.copies, totals.sums.available, totals.sums.updated, totals.gang_phases) == ({}, 0, 0, {})
    assert totals.sizes == {("clique", "a"): (0, 0)}


def test_the_list_of_gangs_is_bounded_and_starts_with_what_is_wrong() -> None:
    """At most a hundred gangs are listed, those that do not run first; all are counted."""
    owner = admitted(manifest([clique("a")], replicas=GANG_STATUSES_MAX + 100))
    totals = CopyTotals()
    for copy in range(GANG_STATUSES_MAX + 100):
        totals.put(summary(copy, GangPhase.PENDING if copy == GANG_STATUSES_MAX + 50 else GangPhase.RUNNING))
    status = with_set_status(owner, totals, None, now=NOW).status
    assert len(status.pod_gang_statuses) == GANG_STATUSES_MAX
    assert status.pod_gang_statuses[0].name == f"s-{GANG_STATUSES_MAX + 50}"
    assert status.pod_gang_phase_counts == {"Pending": 1, "Running": GANG_STATUSES_MAX + 99}


def test_what_copies_look_like_together() -> None:
    """Nothing placed is Unplaced; one placed gang is enough to be partly there."""
    owner = admitted(manifest([clique("a")], replicas=2))
    totals = CopyTotals()
    assert observe(owner, totals) is SetObservation.UNPLACED
    totals.put(summary(0, GangPhase.STARTING, available=False))
    assert observe(owner, totals) is SetObservation.PARTLY
    totals.put(summary(0))
    assert observe(owner, totals) is SetObservation.GROWING
    totals.put(replace(summary(1, available=False), has_served=True))
    assert observe(owner, totals) is SetObservation.PARTLY
    totals.put(summary(1))
    assert observe(owner, totals) is SetObservation.AVAILABLE
    assert observe(replace(owner, metadata=replace(owner.metadata, deleted_at=1.0)), totals) is SetObservation.DELETED


def test_a_set_whose_cliques_are_all_scaled_to_nothing_is_idle() -> None:
    """Copies of no pods are available, but nothing runs in them; a pod in any copy is wanted again."""
    owner = admitted(manifest([clique("a")], replicas=2))
    totals = CopyTotals()
    nothing = {("clique", "a"): (0, 0), ("group", "g"): (1, 1)}
    for copy in range(2):
        totals.put(CopySummary(copy=copy, exists=True, available=True, updated=True, sizes=nothing))
    assert observe(owner, totals) is SetObservation.EMPTY
    assert with_set_status(owner, totals, None, now=NOW).status.phase is SetPhase.IDLE
    totals.put(summary(1))
    assert observe(owner, totals) is SetObservation.AVAILABLE


@pytest.mark.parametrize(
    ("error", "binding_exists", "status", "reason"),
    [
        ("", True, "False", "AllClusterTopologyLevelsAvailable"),
        ("no level", True, "True", "ClusterTopologyLevelsUnavailable"),
        ("no binding", False, "Unknown", "ClusterTopologyNotFound"),
    ],
)
def test_topology_condition(error: str, *, binding_exists: bool, status: str, reason: str) -> None:
    """TopologyLevelsUnavailable has Grove's three states."""
    made = topology_condition(error, binding_exists=binding_exists, generation=3, now=NOW)
    assert (made.type, made.status, made.reason, made.message) == ("TopologyLevelsUnavailable", status, reason, error)


# Templates.


def test_templates_are_named_after_their_content() -> None:
    """The same content has the same name; an edit makes another one, and going back the first again."""
    owner = admitted(manifest([clique("a")]))
    first = pod_template(owner, owner.spec.template.cliques[0], NOW)
    edited = admitted(manifest([clique("a", labels={"v": "2"})]), owner)
    second = pod_template(edited, edited.spec.template.cliques[0], NOW)
    back = admitted(manifest([clique("a")]), edited)
    assert first.metadata.name != second.metadata.name
    assert pod_template(back, back.spec.template.cliques[0], NOW) == first


def test_stale_templates() -> None:
    """What neither a pod nor the current revision refers to is stale."""
    owner = admitted(manifest([clique("a"), clique("b"), clique("c")]))
    templates = {c.name: pod_template(owner, c, NOW) for c in owner.spec.template.cliques}
    held = {template.metadata.name: template for template in templates.values()}
    name = {clique_name: template.metadata.name for clique_name, template in templates.items()}
    assert stale_templates(held, {name["a"]}, {name["b"]}) == [templates["c"]]
