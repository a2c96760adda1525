"""How many pods, cliques, group replicas and copies there are, who goes first, and who may say so."""

from __future__ import annotations

from dataclasses import replace

import pytest

from grove_server.lifecycle.clique_pass import free_indices
from grove_server.resources.manifest import ON_DELETE
from grove_server.resources.meta import key_of
from grove_server.resources.workload import (
    Pod,
    PodClique,
    PodCliqueScalingGroup,
    PodGang,
    PodTemplate,
    ScaleOwner,
    SetPhase,
)
from tests.lifecycle_cases import (
    NOW,
    Json,
    World,
    admitted,
    bound,
    clique,
    condition,
    deleted,
    failed,
    group,
    manifest,
    minimums,
    ready,
    world,
)


def test_free_indices() -> None:
    """The lowest free indices are taken, holes first."""
    assert free_indices(set(), 3) == [0, 1, 2]
    assert free_indices({0, 2}, 3) == [1, 3, 4]
    assert free_indices({5}, 0) == []
    assert free_indices({0}, -1) == []


@pytest.mark.parametrize("gone", ["removed", "terminating", "failed"])
def test_a_hole_is_filled_with_its_own_index(gone: str) -> None:
    """The pod that takes the place of one that went, stops or failed has the same index and another name."""
    made = world([clique("a", 3)])
    made.settle()
    made.run()
    made.settle()
    middle = made.pods()[1]
    changes: dict[str, Pod | None] = {"removed": None, "terminating": deleted(middle), "failed": failed(middle)}
    made.change_pods(lambda _: changes[gone], [middle])
    made.settle()
    assert [pod.index for pod in made.pods()] == [0, 1, 2]
    assert middle.metadata.name not in {pod.metadata.name for pod in made.pods()}


def test_scale_in_order() -> None:
    """Unplaced pods go first, then pending, then not ready, then of an old template, then the youngest."""
    document = manifest([clique("a", 6, 1)])
    # Any other strategy would replace the old pod before its turn.
    document["spec"]["updateStrategy"] = {"type": ON_DELETE}
    made = World(owner=admitted(document))
    made.settle()
    unplaced, pending, unready, old, young, first = made.pods()
    assert isinstance(old.template, PodTemplate)
    older = replace(old.template, hash="older", restart_hash="older")
    made.put(bound(pending))
    made.put(replace(ready(unready), ready_at=None))
    made.put(replace(ready(old), template=older))
    made.put(replace(ready(young), metadata=replace(young.metadata, created_at=NOW + 1)))
    made.put(ready(first))
    gone: list[str] = []
    for size in (5, 4, 3, 2, 1):
        made.scale_clique("s-0-a", size)
        before = {pod.metadata.name for pod in made.pods()}
        made.settle()
        gone += before - {pod.metadata.name for pod in made.pods()}
        made.reap()
    assert gone == [pod.metadata.name for pod in (unplaced, pending, unready, old, young)]


def test_terminating_pods_are_no_candidates_and_count_nowhere() -> None:
    """A pod that stops is neither counted nor chosen again, and its clique says that it is still there."""
    made = world([clique("a", 3, 1)])
    made.settle()
    made.run()
    made.change_pods(deleted, made.pods()[:1])
    made.scale_clique("s-0-a", 2)
    made.settle()
    status = made.one(PodClique, "s-0-a").status
    assert (status.replicas, status.ready_replicas, status.scheduled_replicas) == (2, 2, 2)
    assert status.terminating_replicas == 1


def test_unplaced_pods_that_somebody_deleted_are_forgotten() -> None:
    """Nobody runs a pod without a node, so the plan removes it when it was asked to stop."""
    made = world([clique("a", 2)])
    made.settle()
    victim = made.pods()[0]
    made.change_pods(deleted, [victim])
    made.settle()
    assert victim.metadata.name not in made.names(Pod)
    assert len(made.pods()) == 2
    assert made.one(PodClique, "s-0-a").status.terminating_replicas == 0


# Zero.


def test_a_clique_at_zero_is_absent() -> None:
    """At size 0 a clique is in no gang, satisfied, never breached, and its copy is available."""
    made = world([clique("a", 2), clique("b", 2)])
    made.settle()
    made.run()
    made.settle()
    made.scale_clique("s-0-b", 0)
    made.settle()
    made.reap()
    owner = made.settle()
    assert minimums(made.one(PodGang, "s-0")) == {"s-0-a": 2}
    assert condition(made.one(PodClique, "s-0-b"), "MinAvailableBreached").status == "False"
    assert condition(made.one(PodClique, "s-0-b"), "PodCliqueScheduled").status == "True"
    assert (owner.status.available_replicas, owner.status.phase) == (1, SetPhase.RUNNING)


def test_a_clique_that_returns_from_zero_is_back_in_its_gang() -> None:
    """From 0 a clique comes back with its minimum, and the gang is whole only with it."""
    made = world([clique("a", 2), clique("b", 0, 1)])
    made.settle()
    made.run()
    assert made.settle().status.phase is SetPhase.RUNNING
    made.scale_clique("s-0-b", 2)
    owner = made.settle()
    assert minimums(made.one(PodGang, "s-0")) == {"s-0-a": 2, "s-0-b": 1}
    assert condition(made.one(PodGang, "s-0"), "Scheduled").status == "False"
    assert owner.status.available_replicas == 0
    made.run()
    assert made.settle().status.available_replicas == 1


def test_a_group_at_zero_has_no_cliques_and_is_never_breached() -> None:
    """A group at size 0 keeps its object alone; its scaled gangs and cliques are gone."""
    made = world([clique("a"), clique("b"), clique("c", 2)], [group("g", ["b", "c"], 3, 2)])
    made.settle()
    made.run()
    made.settle()
    made.scale_group("s-0-g", 0)
    made.settle()
    made.reap()
    owner = made.settle()
    assert made.names(PodClique) == ["s-0-a"]
    assert made.names(PodGang) == ["s-0"]
    scaled = made.one(PodCliqueScalingGroup, "s-0-g")
    assert condition(scaled, "MinAvailableBreached").status == "False"
    assert (scaled.status.replicas, scaled.status.available_replicas) == (0, 0)
    assert owner.status.available_replicas == 1


def test_a_copy_with_everything_at_zero_is_available_and_has_no_gang() -> None:
    """A hibernating copy has no pods, no gang that would look as if it waited, and counts as available."""
    made = world([clique("a", 2), clique("b")], [group("g", ["b"])])
    made.settle()
    made.run()
    made.settle()
    made.scale_clique("s-0-a", 0)
    made.scale_group("s-0-g", 0)
    made.settle()
    made.reap()
    owner = made.settle()
    assert made.pods() == []
    assert made.names(PodGang) == []
    assert (owner.status.available_replicas, owner.status.phase) == (1, SetPhase.IDLE)
    assert owner.status.pod_gang_phase_counts == {}
    made.scale_clique("s-0-a", 2)
    made.settle()
    assert made.names(PodGang) == ["s-0"]


def test_a_set_at_zero_is_idle() -> None:
    """A set without copies is Idle from the moment it is wanted so, while its last pods stop too."""
    made = world([clique("a", 2)], replicas=2)
    made.settle()
    made.run()
    assert made.settle().status.phase is SetPhase.RUNNING
    made.apply(manifest([clique("a", 2)], replicas=0))
    assert made.settle().status.phase is SetPhase.IDLE
    assert len(made.of(Pod)) == 4
    made.reap()
    owner = made.settle()
    assert made.rows == {}
    assert (owner.status.phase, owner.status.replicas) == (SetPhase.IDLE, 0)


# Template and scale calls.


def sized(size: int, *, group_size: int = 1) -> Json:
    """Return a set of one clique of a size and a group of a size."""
    return manifest([clique("a", size, 1), clique("b")], [group("g", ["b"], group_size)])


def test_a_template_edit_scales() -> None:
    """An edit of a template's sizes is followed while nobody else owns the size."""
    made = world([clique("a", 2, 1), clique("b")], [group("g", ["b"])])
    made.settle()
    made.apply(sized(4, group_size=3))
    made.settle()
    assert made.one(PodClique, "s-0-a").replicas == 4
    assert made.one(PodCliqueScalingGroup, "s-0-g").replicas == 3


def test_a_scaled_size_survives_other_edits() -> None:
    """A scale call's size stays until the template's size itself is edited; then the template owns it again."""
    made = world([clique("a", 2, 1), clique("b")], [group("g", ["b"])])
    made.settle()
    made.scale_clique("s-0-a", 5)
    made.scale_group("s-0-g", 2)
    made.apply(manifest([clique("a", 2, 1, labels={"x": "y"}), clique("b")], [group("g", ["b"])]))
    made.settle()
    assert (made.one(PodClique, "s-0-a").replicas, made.one(PodCliqueScalingGroup, "s-0-g").replicas) == (5, 2)
    made.apply(sized(3, group_size=3))
    made.settle()
    scaled = made.one(PodClique, "s-0-a")
    assert (scaled.replicas, scaled.scale_owner) == (3, ScaleOwner.SPEC)
    assert made.one(PodCliqueScalingGroup, "s-0-g").replicas == 3


def test_an_autoscaler_keeps_its_size_with_one_warning() -> None:
    """A template edit does not move what the autoscaler owns, and says so once."""
    made = world([clique("a", 2, 1), clique("b")], [group("g", ["b"])])
    made.settle()
    made.scale_clique("s-0-a", 5, ScaleOwner.AUTOSCALER)
    made.scale_group("s-0-g", 2, ScaleOwner.AUTOSCALER)
    made.settle()
    made.apply(sized(3, group_size=4))
    made.settle()
    assert [(note.name, note.reason) for note in made.last.notes] == [
        ("s-0-a", "ScaleOwnedByAutoscaler"),
        ("s-0-g", "ScaleOwnedByAutoscaler"),
    ]
    assert (made.one(PodClique, "s-0-a").replicas, made.one(PodCliqueScalingGroup, "s-0-g").replicas) == (5, 2)
    made.settle()
    assert made.last.notes == []


def test_new_group_replicas_have_the_templates_sizes() -> None:
    """A member that was scaled by hand keeps its size; a new group replica starts from the template."""
    made = world([clique("b", 2)], [group("g", ["b"])])
    made.settle()
    made.scale_clique("s-0-g-0-b", 4)
    made.scale_group("s-0-g", 2)
    made.settle()
    assert [c.replicas for c in made.of(PodClique)] == [4, 2]


def test_new_pods_of_a_group_count_its_edited_template() -> None:
    """After an edit of a member's size, new pods are told the template's present number of pods per group replica."""
    made = world([clique("leader"), clique("worker", 2, 1)], [group("g", ["leader", "worker"])])
    made.settle()
    made.apply(manifest([clique("leader"), clique("worker", 4, 1)], [group("g", ["leader", "worker"])]))
    made.settle()
    old, _, new, _ = made.pods("s-0-g-0-worker")
    assert (old.identity.group_pod_count, new.identity.group_pod_count) == (3, 5)
    assert made.one(PodClique, "s-0-g-0-worker").identity.group_pod_count == 5


# Groups.


def test_group_scale_in_takes_the_highest_indices_despite_holes() -> None:
    """Scaling in removes by index: with replica 1 gone by hand, going from 4 to 2 keeps 0 and 1."""
    made = world([clique("b")], [group("g", ["b"], 4)])
    made.settle()
    made.run()
    made.settle()
    del made.rows[key_of(made.one(PodClique, "s-0-g-1-b"))], made.rows[key_of(made.one(PodGang, "s-0-g-0"))]
    made.change_pods(lambda _: None, made.pods("s-0-g-1-b"))
    made.scale_group("s-0-g", 2)
    made.settle()
    made.reap()
    made.settle()
    assert made.names(PodClique) == ["s-0-g-0-b", "s-0-g-1-b"]
    assert made.names(PodGang) == ["s-0", "s-0-g-0"]


def test_group_scale_in_and_out_while_pods_stop() -> None:
    """A group replica that is wanted again before its pods have stopped gets new pods and keeps its clique."""
    made = world([clique("b", 2)], [group("g", ["b"], 2)])
    made.settle()
    made.run()
    made.settle()
    made.scale_group("s-0-g", 1)
    made.settle()
    made.scale_group("s-0-g", 2)
    made.settle()
    assert len(made.pods("s-0-g-1-b")) == 2
    assert made.one(PodClique, "s-0-g-1-b").status.terminating_replicas == 2
    made.reap()
    made.settle()
    assert made.one(PodClique, "s-0-g-1-b").status.terminating_replicas == 0
    assert len(made.of(Pod)) == 4


def test_a_clique_on_its_way_out_is_not_ready() -> None:
    """While the pods of a removed group replica stop, its clique does not look as if it served."""
    made = world([clique("b", 2)], [group("g", ["b"], 2)])
    made.settle()
    made.run()
    made.settle()
    made.scale_group("s-0-g", 1)
    made.settle()
    status = made.one(PodClique, "s-0-g-1-b").status
    assert (status.replicas, status.ready_replicas, status.terminating_replicas) == (0, 0, 2)


# Copies.


def test_copy_scale_in_removes_the_highest_and_pods_first() -> None:
    """A copy that is not wanted stops its pods; cliques, group and gangs go when the last has stopped."""
    made = world([clique("a", 2), clique("b")], [group("g", ["b"], 2)], replicas=2)
    made.settle()
    made.run()
    made.settle()
    made.apply(manifest([clique("a", 2), clique("b")], [group("g", ["b"], 2)], replicas=1))
    owner = made.settle()
    assert {pod.identity.copy for pod in made.pods()} == {0}
    assert made.names(PodGang) == ["s-0", "s-0-g-0", "s-1", "s-1-g-0"]
    assert (owner.status.replicas, owner.status.available_replicas, owner.status.phase) == (1, 1, SetPhase.RUNNING)
    made.reap()
    made.settle()
    assert made.names(PodGang) == ["s-0", "s-0-g-0"]
    assert made.view(1).is_empty


def test_a_copy_that_never_had_a_node_goes_at_once() -> None:
    """Without a placed pod there is nothing to wait for: one plan removes the whole copy."""
    made = world([clique("a", 2), clique("b")], [group("g", ["b"], 2)], replicas=2)
    made.settle()
    made.owner = replace(made.owner, metadata=replace(made.owner.metadata, deleted_at=NOW))
    owner = made.settle()
    assert made.rows == {}
    assert owner.status.phase is SetPhase.DELETING


def test_a_copy_that_is_wanted_again_while_it_stops() -> None:
    """Scaling out before the copy is gone brings it back whole."""
    made = world([clique("a", 2)], replicas=2)
    made.settle()
    made.run()
    made.settle()
    made.apply(manifest([clique("a", 2)], replicas=1))
    made.settle()
    made.apply(manifest([clique("a", 2)], replicas=2))
    made.settle()
    made.reap()
    made.run()
    assert made.settle().status.available_replicas == 2
    assert len(made.of(Pod)) == 4


def test_a_failed_pod_of_an_unwanted_copy_is_removed() -> None:
    """Finished pods with a node are asked to stop like the others, so nothing of the copy stays."""
    made = world([clique("a", 2)])
    made.settle()
    made.run()
    made.change_pods(failed, made.pods()[:1])
    made.owner = replace(made.owner, metadata=replace(made.owner.metadata, deleted_at=NOW))
    made.settle()
    made.reap()
    made.settle()
    assert made.rows == {}
