"""A set's update in the strict model: who has its turn, what goes, what comes back, and when it ends."""

from __future__ import annotations

from dataclasses import replace

import pytest

from grove_server.resources.manifest import COHERENT, ON_DELETE, ROLLING_RECREATE
from grove_server.resources.rollout import UpdateProgress
from grove_server.resources.workload import Pod, PodClique, PodCliqueScalingGroup
from tests.lifecycle_cases import Json, World, admitted, clique, condition, deleted, group, lost, manifest


def image(version: int) -> Json:
    """Return a pod spec that has to be started anew."""
    return {"containers": [{"name": "main", "image": f"registry.example/app:{version}"}]}


def wl1(version_a: int = 1, version_b: int = 1, *, replicas: int = 1, strategy: str = "") -> Json:
    """Return Grove's workload WL1: two pods of pc-a, and two replicas of a group of pc-b and pc-c; ten pods a copy."""
    cliques = [
        clique("pc-a", 2, 2, podSpec=image(version_a)),
        clique("pc-b", 1, 1, podSpec=image(version_b)),
        clique("pc-c", 3, 3, podSpec=image(1)),
    ]
    document = manifest(cliques, [group("sg-x", ["pc-b", "pc-c"], 2, 1)], replicas=replicas)
    if strategy:
        document["spec"]["updateStrategy"] = {"type": strategy}
    return document


def running(document: Json) -> World:
    """Return the world of a set that runs."""
    made = World(owner=admitted(document))
    made.settle()
    made.run()
    made.settle()
    return made


def progress(made: World) -> UpdateProgress:
    """Return the progress of an update that must have begun."""
    found = made.owner.status.update_progress
    assert found is not None
    return found


def old_pods(made: World, clique_name: str = "") -> list[Pod]:
    """Return the active pods that are not of the set's revision."""
    hashes = made.owner.revision.clique_hashes
    return [pod for pod in made.pods(clique_name) if pod.template.hash != hashes[pod.identity.clique]]


def one_round(made: World) -> set[str]:
    """Let the runtime stop and start pods once and look again; return the pods that were stopped meanwhile."""
    made.reap()
    before = {pod.metadata.name for pod in made.pods()}
    made.run()
    made.settle()
    return before - {pod.metadata.name for pod in made.pods()}


def finish(made: World, rounds: int = 100) -> list[set[str]]:
    """Go on until the update ends; return what was stopped round by round."""
    stopped = []
    for _ in range(rounds):
        stopped.append(one_round(made))
        if not progress(made).is_active:
            return stopped
    message = f"the update did not end: {progress(made)}"
    raise AssertionError(message)


def test_ru7_one_pod_of_a_clique_at_a_time() -> None:
    """RU7: a change of pc-a takes its pods one at a time, one copy at a time, and leaves the rest alone."""
    made = running(wl1(replicas=2))
    kept = {pod.metadata.uid for pod in made.pods() if pod.identity.clique != "pc-a"}
    made.apply(wl1(2, replicas=2))
    made.settle()
    assert len(old_pods(made)) == 3
    assert progress(made).currently_updating[0].replica_index == 0
    assert condition(made.one(PodClique, "s-0-pc-a"), "MinAvailableBreached").reason == "UpdateInProgress"
    stopped = finish(made)
    assert [len(names) for names in stopped] == [1, 1, 1, 0]
    assert kept <= {pod.metadata.uid for pod in made.pods()}
    assert made.owner.status.updated_replicas == 2
    assert progress(made).updated_pod_cliques_count == progress(made).total_pod_cliques_count == 2
    assert condition(made.one(PodClique, "s-0-pc-a"), "MinAvailableBreached").status == "False"


def test_ru8_one_group_replica_at_a_time() -> None:
    """RU8: a change of pc-b takes one group replica as a whole, lowest index first, and no pod of pc-a."""
    made = running(wl1())
    made.apply(wl1(1, 2))
    made.settle()
    assert {pod.identity.group_replica for pod in made.pods() if not pod.is_ready} == {0}
    assert len([pod for pod in made.pods() if not pod.is_ready]) == 4
    made.reap()
    made.run(pod for pod in made.pods() if not pod.is_ready)
    made.settle()
    assert {pod.identity.group_replica for pod in made.pods() if not pod.is_ready} == {1}
    finish(made)
    assert not old_pods(made)


def test_ru9_cliques_and_groups_at_the_same_time() -> None:
    """RU9: in one copy every clique loses one pod and every group one replica at a time."""
    made = running(wl1())
    made.apply(wl1(2, 2))
    made.settle()
    down = [pod for pod in made.pods() if not pod.is_ready]
    assert len([pod for pod in down if pod.identity.clique == "pc-a"]) == 1
    assert len([pod for pod in down if pod.identity.group]) == 4


def test_ru10_nothing_goes_while_the_replacement_waits() -> None:
    """RU10: while nothing can be placed exactly one pod is gone, however often the copy is looked at."""
    made = running(wl1(replicas=2))
    made.apply(wl1(2, replicas=2))
    for _ in range(5):
        made.settle()
        made.reap()
    assert len(old_pods(made)) == 3
    assert [pod.identity.copy for pod in made.pods() if not pod.node] == [0]
    finish(made)
    assert not old_pods(made)


def test_ru11_a_copy_added_in_mid_update_is_new() -> None:
    """RU11: a copy that comes while others are updated begins with the new revision and is not rolled again (#757)."""
    made = running(wl1(replicas=2))
    made.apply(wl1(2, replicas=2))
    made.settle()
    made.apply(wl1(2, replicas=3))
    made.settle()
    added = {pod.metadata.uid for pod in made.pods() if pod.identity.copy == 2}
    assert len(added) == 10
    assert not [pod for pod in old_pods(made) if pod.identity.copy == 2]
    finish(made)
    assert added <= {pod.metadata.uid for pod in made.pods()}
    assert len(made.pods()) == 30


def test_copies_that_wait_keep_their_revision() -> None:
    """A pod that dies in a copy that is not updated yet comes back at the old revision."""
    made = running(wl1(replicas=2))
    made.apply(wl1(2, replicas=2))
    made.settle()
    victim = made.pods("s-1-pc-a")[0]
    made.change_pods(lambda _: None, [victim])
    made.settle()
    assert {pod.template.hash for pod in made.pods("s-1-pc-a")} == {victim.template.hash}
    assert made.one(PodClique, "s-1-pc-a").template.hash == victim.template.hash


def test_a_group_replica_that_waits_keeps_its_revision() -> None:
    """A pod that dies in an old group replica comes back as its neighbours are, though the copy has its turn."""
    made = running(wl1())
    made.apply(wl1(1, 2))
    made.settle()
    made.reap()
    victim = made.pods("s-0-sg-x-1-pc-b")[0]
    made.change_pods(lambda _: None, [victim])
    made.step()
    (back,) = made.pods("s-0-sg-x-1-pc-b")
    assert back.template.hash in {victim.template.hash, made.owner.revision.clique_hashes["pc-b"]}
    finish(made)
    assert not old_pods(made)


def test_ready_is_ready_697() -> None:
    """#697: ready pods with an old crash are not taken together."""
    made = running(wl1())
    made.change_pods(lambda pod: replace(pod, last_exit_code=1, restart_count=3))
    made.apply(wl1(2))
    made.settle()
    assert len(old_pods(made, "s-0-pc-a")) == 1


def test_broken_pods_do_not_block_840() -> None:
    """#840: pods that do not serve are replaced at once, whatever the budget."""
    made = running(wl1())
    made.change_pods(lost, made.pods("s-0-pc-a"))
    made.apply(wl1(2))
    made.settle()
    assert not old_pods(made, "s-0-pc-a")


def test_a_burst_of_edits_is_one_update_565() -> None:
    """#565: edits that follow each other closely start nothing until the template is quiet."""
    made = running(wl1())
    made.settle_s = 1.0
    for version in range(2, 6):
        made.now += 0.5
        made.apply(wl1(version))
        made.settle()
        assert made.owner.status.update_progress is None
        assert len(made.of(Pod)) == 10
    made.now += 1.0
    finish(made)
    assert made.owner.status.update_progress is not None
    assert not old_pods(made)


def test_an_edit_during_an_update_400_315() -> None:
    """#400, #315: an edit during an update aims it anew; it ends when nothing is old, and takes no more at a time."""
    made = running(wl1(replicas=2))
    made.apply(wl1(2, replicas=2))
    made.settle()
    one_round(made)
    made.apply(wl1(3, replicas=2))
    made.settle()
    assert progress(made).is_active
    assert [turn.replica_index for turn in progress(made).currently_updating] == [0]
    for stopped in finish(made):
        assert len(stopped) <= 1
    assert not old_pods(made)


def test_an_edit_that_is_taken_back() -> None:
    """Returning to the revision before leads what was changed back, and takes nothing else."""
    made = running(wl1(replicas=2))
    before = {pod.metadata.uid for pod in made.pods() if pod.identity.copy == 1}
    made.apply(wl1(2, replicas=2))
    made.settle()
    made.apply(wl1(1, replicas=2))
    made.settle()
    finish(made)
    assert not old_pods(made)
    assert before == {pod.metadata.uid for pod in made.pods() if pod.identity.copy == 1}


def test_labels_change_in_place() -> None:
    """A change of labels and annotations alone reaches pods where they are; nothing is stopped."""
    made = running(manifest([clique("a", 3)]))
    uids = {pod.metadata.uid for pod in made.pods()}
    made.apply(manifest([clique("a", 3, labels={"tier": "gold"}, annotations={"note": "x"})]))
    made.settle()
    made.settle()
    assert {pod.metadata.uid for pod in made.pods()} == uids
    assert {pod.metadata.labels["tier"] for pod in made.pods()} == {"gold"}
    assert {pod.metadata.annotations["note"] for pod in made.pods()} == {"x"}
    assert not old_pods(made)
    assert not progress(made).is_active


def test_nothing_placed_is_updated_at_once() -> None:
    """Copies that have no node yet are all updated together, and one that cannot be placed blocks nobody."""
    made = World(owner=admitted(wl1(replicas=3)))
    made.settle()
    made.run(pod for pod in made.pods() if pod.identity.copy == 2)
    made.settle()
    made.apply(wl1(2, replicas=3))
    made.settle()
    assert {pod.identity.copy for pod in old_pods(made)} == {2}
    for _ in range(5):
        made.reap()
        made.run(pod for pod in made.pods() if pod.identity.copy == 2)
        made.settle()
    assert not old_pods(made)


def test_an_unavailable_copy_goes_first() -> None:
    """Among copies with nodes the one under its minimum has its turn first."""
    made = running(wl1(replicas=3))
    made.change_pods(lost, made.pods("s-2-pc-a"))
    made.settle()
    made.apply(wl1(2, replicas=3))
    made.settle()
    assert [turn.replica_index for turn in progress(made).currently_updating] == [2]


def test_sizes_follow_during_an_update() -> None:
    """RU13-RU17: scaling in and out in mid-update has its effect at once, and the update ends all the same."""
    made = running(wl1())
    made.apply(wl1(2, 2))
    made.settle()
    made.scale_clique("s-0-pc-a", 4)
    made.scale_group("s-0-sg-x", 3)
    made.settle()
    assert len(made.pods("s-0-pc-a")) == 4
    assert len({pod.identity.group_replica for pod in made.pods() if pod.identity.group}) == 3
    one_round(made)
    made.scale_clique("s-0-pc-a", 2)
    made.scale_group("s-0-sg-x", 1)
    made.settle()
    finish(made)
    assert not old_pods(made)
    assert len(made.pods()) == 6


def test_od1_on_delete_stops_nothing() -> None:
    """OD1: a change deletes nothing and the update counts as ended; cliques carry the new template."""
    made = running(wl1(strategy=ON_DELETE))
    uids = {pod.metadata.uid for pod in made.pods()}
    made.apply(wl1(2, 2, strategy=ON_DELETE))
    made.settle()
    assert {pod.metadata.uid for pod in made.pods()} == uids
    assert progress(made).update_ended_at is not None
    assert made.one(PodClique, "s-0-pc-a").status.updated_replicas == 0
    assert made.one(PodClique, "s-0-pc-a").template.hash == made.owner.revision.clique_hashes["pc-a"]


def test_od2_to_od5_replacements_are_new_and_old_pods_go_first() -> None:
    """OD2-OD5: who is deleted comes back new; scale-in then takes the old one; the same in a member of a group."""
    made = running(wl1(strategy=ON_DELETE))
    made.apply(wl1(2, 2, strategy=ON_DELETE))
    made.settle()
    for name in ("s-0-pc-a", "s-0-sg-x-0-pc-b"):
        made.change_pods(deleted, made.pods(name)[:1])
        made.settle()
        made.reap()
        made.run()
        made.settle()
        assert made.one(PodClique, name).status.updated_replicas == 1
    assert len(old_pods(made, "s-0-pc-a")) == 1
    made.scale_clique("s-0-pc-a", 1)
    made.settle()
    assert not old_pods(made, "s-0-pc-a")
    assert not old_pods(made, "s-0-sg-x-0-pc-b")


def test_paused_sets_rest() -> None:
    """While a set is paused nothing is replaced and nobody gets a turn; resuming goes on where it was."""
    made = running(wl1(replicas=2))
    made.apply(wl1(2, replicas=2))
    made.settle()
    made.owner = replace(made.owner, paused_at=made.now)
    for _ in range(3):
        one_round(made)
    assert len(old_pods(made)) == 3
    made.owner = replace(made.owner, paused_at=None)
    made.settle()
    finish(made)
    assert not old_pods(made)


def test_a_group_counts_the_replicas_that_an_update_adds() -> None:
    """While an update surges, a group's status counts what is there, so that no part of it is more than the whole."""

    def document(version: int) -> Json:
        surging = group("g", ["m"], 2, 1)
        surging["rollingUpdate"] = {"maxUnavailable": 0, "maxSurge": 1}
        return manifest([clique("m", 1, podSpec=image(version))], [surging])

    made = running(document(0))
    made.apply(document(1))
    made.settle()
    made.run([pod for pod in made.pods() if not pod.is_ready and pod.identity.group_replica == 2])
    made.settle()
    status = made.one(PodCliqueScalingGroup, "s-0-g").status
    assert (status.replicas, status.updated_replicas) == (3, 2)
    assert status.available_replicas <= status.replicas


@pytest.mark.parametrize("strategy", [ROLLING_RECREATE, COHERENT])
def test_replicas_without_pods_are_updated_at_once(strategy: str) -> None:
    """A group whose cliques are all at size 0 has nobody to wait for, so nothing would wake its update again."""
    made = running(wl1(strategy=strategy))
    for name in ("s-0-sg-x-0-pc-b", "s-0-sg-x-1-pc-b", "s-0-sg-x-0-pc-c", "s-0-sg-x-1-pc-c"):
        made.scale_clique(name, 0)
    made.settle()
    made.reap()
    made.settle()
    after = wl1(version_b=2, strategy=strategy)
    if strategy == ROLLING_RECREATE:
        after["spec"]["updateStrategy"]["rollingUpdate"] = {"maxUnavailable": 0, "maxSurge": 1}
    made.apply(after)
    made.settle()
    assert not progress(made).is_active
    assert made.one(PodCliqueScalingGroup, "s-0-sg-x").status.replicas == 2


def test_a_step_of_replicas_without_pods_asks_for_the_next() -> None:
    """Under Coherent one step follows the other when its units serve; those without pods bring no news of that."""
    made = running(wl1(strategy=COHERENT))
    for name in ("s-0-sg-x-1-pc-b", "s-0-sg-x-1-pc-c"):
        made.scale_clique(name, 0)
    made.settle()
    made.reap()
    made.settle()
    made.apply(wl1(version_b=2, strategy=COHERENT))
    made.settle()
    made.reap()
    made.run([pod for pod in made.pods() if not pod.is_ready])
    plan, _ = made.plan()
    assert "s-0-sg-x-1-pc-b" in {each.metadata.name for each in plan.updates if isinstance(each, PodClique)}
    assert plan.wake_at == made.now


def test_extra_replicas_on_their_way_out_ask_for_nothing() -> None:
    """A group that is emptied while it surges waits for the end of the pods of extra replicas, and does not spin."""

    def document(version: int) -> Json:
        surging = group("g", ["m"], 2, 1)
        surging["rollingUpdate"] = {"maxUnavailable": 0, "maxSurge": 1}
        return manifest([clique("m", 1, podSpec=image(version))], [surging])

    made = running(document(0))
    made.apply(document(1))
    made.settle()
    made.run([pod for pod in made.pods() if pod.identity.group_replica == 2])
    for replica in range(3):
        made.scale_clique(f"s-0-g-{replica}-m", 0)
    made.apply(document(2))
    made.settle()
    assert {pod.identity.group_replica for pod in made.of(Pod)} == {0, 1, 2}
