"""A change of strategy in mid-life, and what Progressing says of a template that is not rolled out yet."""

from __future__ import annotations

from dataclasses import replace

import pytest

from grove_server.lifecycle.rollout.deadline import goes_back
from grove_server.resources.manifest import COHERENT, ON_DELETE, ROLLING_RECREATE
from grove_server.resources.meta import Metadata
from grove_server.resources.workload import PodCliqueScalingGroup
from tests.lifecycle_cases import Json, World, clique, condition, group, lost, manifest
from tests.unit.lifecycle.rollout.test_turns import finish, image, old_pods, one_round, progress, running, wl1


def progressing(made: World) -> tuple[str, str]:
    """Return status and reason of the condition Progressing."""
    found = condition(made.owner, "Progressing")
    return found.status, found.reason


@pytest.mark.parametrize("strategy", [ROLLING_RECREATE, COHERENT])
def test_what_on_delete_left_is_rolled_out_by_the_next_strategy(strategy: str) -> None:
    """A set that leaves OnDelete replaces the pods that nobody has deleted, within its budget."""
    made = running(wl1(strategy=ON_DELETE))
    made.apply(wl1(2, 2, strategy=ON_DELETE))
    made.settle()
    made.apply(wl1(2, 2, strategy=strategy))
    made.settle()
    assert progress(made).is_active
    assert set(progress(made).changed) == {"pc-a", "pc-b"}
    assert progressing(made) == ("True", "UpdateInProgress")
    finish(made)
    assert not old_pods(made)
    assert made.owner.status.updated_replicas == 1


def test_edits_under_on_delete_add_up() -> None:
    """What several edits under OnDelete have left is all known to change when another strategy replaces it."""
    made = running(wl1(strategy=ON_DELETE))
    for versions in ((2, 1), (2, 2)):
        made.apply(wl1(*versions, strategy=ON_DELETE))
        made.settle()
    assert set(progress(made).changed) == {"pc-a", "pc-b"}
    made.apply(wl1(2, 2, strategy=ROLLING_RECREATE))
    made.settle()
    finish(made)
    assert not old_pods(made)


def surging(version: int, strategy: str) -> Json:
    """Return a set of one group of two replicas; where replicas can be added, two are."""
    document = manifest([clique("m", 1, podSpec=image(version))], [group("g", ["m"], 2, 1)])
    document["spec"]["updateStrategy"] = {"type": strategy}
    if strategy == ROLLING_RECREATE:
        document["spec"]["updateStrategy"]["rollingUpdate"] = {"maxUnavailable": 0, "maxSurge": 2}
    return document


def test_an_update_goes_on_after_an_interruption_by_on_delete() -> None:
    """An update that OnDelete interrupted is taken to its end by the strategy after that."""
    made = running(surging(1, ROLLING_RECREATE))
    made.apply(surging(2, ROLLING_RECREATE))
    made.settle()
    one_round(made)
    made.apply(surging(2, ON_DELETE))
    made.settle()
    assert not progress(made).is_active
    assert not progress(made).currently_updating
    made.apply(surging(2, COHERENT))
    made.settle()
    finish(made)
    assert not old_pods(made)


@pytest.mark.parametrize("strategy", [ON_DELETE, COHERENT])
def test_replicas_that_stand_in_for_others_stay_until_those_serve(strategy: str) -> None:
    """Extra replicas of an update whose strategy is another now go only when those serve that they stand in for."""

    def serving() -> set[int]:
        return {pod.identity.group_replica for pod in made.pods() if pod.is_ready}

    made = running(surging(1, ROLLING_RECREATE))
    made.apply(surging(2, ROLLING_RECREATE))
    made.settle()
    made.run([pod for pod in made.pods() if not pod.is_ready])
    made.settle()
    assert serving() == {2, 3}
    made.apply(surging(2, strategy))
    for _ in range(3):
        made.settle()
        made.reap()
        assert serving() == {2, 3}
    made.run([pod for pod in made.pods("s-0-g-0-m") if not pod.is_ready])
    made.settle()
    assert serving() == {0, 2}
    made.run([pod for pod in made.pods() if not pod.is_ready])
    made.settle()
    assert serving() == {0, 1}
    made.reap()
    made.settle()
    assert made.one(PodCliqueScalingGroup, "s-0-g").status.replicas == 2
    assert not progress(made).is_active


@pytest.mark.parametrize("strategy", [ON_DELETE, COHERENT])
def test_scale_in_takes_replicas_at_once(strategy: str) -> None:
    """Replicas above a size that has become smaller stand in for nobody, whoever serves below it."""
    document = surging(1, strategy)
    document["spec"]["template"]["podCliqueScalingGroups"][0]["replicas"] = 3
    made = running(document)
    made.change_pods(lost, made.pods("s-0-g-0-m"))
    made.scale_group("s-0-g", 2)
    made.put(replace(made.one(PodCliqueScalingGroup, "s-0-g"), metadata=_edited(made)))
    made.settle()
    assert {pod.identity.group_replica for pod in made.pods()} == {0, 1}


def _edited(made: World) -> Metadata:
    metadata = made.one(PodCliqueScalingGroup, "s-0-g").metadata
    return replace(metadata, generation=metadata.generation + 1)


def test_an_edit_ends_what_was_said_of_the_update_before() -> None:
    """From the first look at an edit on, a stuck or complete update is no longer that of the set."""

    def document(version: int) -> Json:
        made = wl1(version)
        made["spec"]["updateStrategy"] = {"rollingUpdate": {"progressDeadline": "60s", "autoRollback": True}}
        return made

    made = running(document(1))
    made.settle_s = 1.0
    made.apply(document(2))
    made.settle()
    assert progressing(made) == ("True", "UpdateInProgress")
    made.now += 1
    made.settle()
    made.now += 61
    made.settle()
    assert progressing(made) == ("False", "ProgressDeadlineExceeded")
    made.apply(document(3))
    made.settle()
    assert made.owner.status.observed_generation == made.owner.metadata.generation
    assert progressing(made) == ("True", "UpdateInProgress")
    assert not goes_back(made.owner, progress(made), made.now)
    made.now += 1
    finish(made)
    assert progressing(made) == ("True", "UpdateComplete")
    made.apply(document(4))
    made.settle()
    assert progressing(made) == ("True", "UpdateInProgress")


def test_an_edit_of_a_paused_set_is_not_complete() -> None:
    """A template that was edited during a pause has not been rolled out, and the set says that it is paused."""
    made = running(wl1())
    made.apply(wl1(2))
    made.settle()
    finish(made)
    made.owner = replace(made.owner, paused_at=made.now)
    made.apply(wl1(3))
    made.settle()
    assert progressing(made) == ("Unknown", "UpdatePaused")
    made.owner = replace(made.owner, paused_at=None)
    made.settle()
    finish(made)
    assert progressing(made) == ("True", "UpdateComplete")
