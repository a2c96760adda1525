"""Whole updates as exact sequences: what each unit is after every step, for each strategy and budget.

A step: what was asked to stop is gone, what had no place serves, and the set is looked at until nothing changes. A
letter is a unit by its index, a pod or a group replica: O old and serving, N new and serving, n new and starting, o
old and not serving; a dot is a hole. So a row says at a glance how many serve, how many are missing, and how many
there are too many.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import pytest

from grove_server.resources.manifest import COHERENT, ON_DELETE
from grove_server.resources.rollout import UpdateProgress
from grove_server.resources.workload import Pod, PodClique, PodCliqueScalingGroup, PodGang
from tests.lifecycle_cases import Json, World, admitted, clique, deleted, group, lost, manifest

Budget = tuple[int, int] | None


def document(version: int, *cliques: Json, groups: tuple[Json, ...] = (), strategy: str = "", copies: int = 1) -> Json:
    """Return a set whose cliques all run *version*."""
    for each in cliques:
        each["spec"]["podSpec"]["containers"][0]["image"] = f"registry.example/app:{version}"
    made = manifest(cliques, groups, replicas=copies)
    if strategy:
        made["spec"]["updateStrategy"] = {"type": strategy}
    return made


def pods(version: int, size: int, budget: Budget, *, copies: int = 1, strategy: str = "") -> Json:
    """Return a set of one clique of so many pods; the budget is what may be missing, and what may be added."""
    part = clique("a", size, 1)
    if budget is not None:
        part["rollingUpdate"] = {"maxUnavailable": budget[0], "maxSurge": budget[1]}
    return document(version, part, copies=copies, strategy=strategy)


def replicas(version: int, size: int, budget: Budget) -> Json:
    """Return a set of one group of so many replicas, each of one and of two pods."""
    part = group("g", ["m", "n"], size, 1)
    if budget is not None:
        part["rollingUpdate"] = {"maxUnavailable": budget[0], "maxSurge": budget[1]}
    return document(version, clique("m", 1), clique("n", 2), groups=(part,))


def coherent(version: int, size: int, minimum: int, group_size: int, group_minimum: int, unavailable: int = 0) -> Json:
    """Return a set of a clique and a group that move together."""
    a, g = clique("a", size, minimum), group("g", ["m", "n"], group_size, group_minimum)
    if unavailable:
        a["rollingUpdate"] = g["rollingUpdate"] = {"maxUnavailable": unavailable}
    return document(version, a, clique("m", 1), clique("n", 2), groups=(g,), strategy=COHERENT)


def running(manifest_: Json) -> World:
    """Return a set that runs."""
    world = World(owner=admitted(manifest_))
    world.settle()
    step(world)
    return world


def step(world: World) -> None:
    """Let stopping pods go and all others serve, and look again."""
    world.now += 1.0
    world.reap()
    world.run([pod for pod in world.pods() if not pod.is_ready])
    world.settle()


def states(world: World) -> str:
    """Return the units of every copy: its clique's pods, then its group's replicas."""
    words = []
    for copy in range(world.owner.spec.replicas or 0):
        if any(c.metadata.name == f"s-{copy}-a" for c in world.of(PodClique)):
            words.append(_word({pod.index: [pod] for pod in world.pods(f"s-{copy}-a")}, 1, world))
        if any(g.copy == copy for g in world.of(PodCliqueScalingGroup)):
            members: dict[int, list[Pod]] = {}
            for pod in world.pods():
                if pod.identity.copy == copy and pod.identity.group:
                    members.setdefault(pod.identity.group_replica, []).append(pod)
            words.append(_word(members, 3, world))
    return " ".join(words)


def _word(units: dict[int, list[Pod]], whole: int, world: World) -> str:
    letters = []
    for index in range(max(units) + 1 if units else 0):
        of_unit = units.get(index, [])
        new = {pod.template.hash == world.owner.revision.clique_hashes[pod.identity.clique] for pod in of_unit}
        assert len(new) < 2, "a group replica is of two revisions"
        serves = sum(pod.is_ready for pod in of_unit) == whole
        letters.append(("N" if serves else "n") if new == {True} else ("O" if serves else "o") if new else ".")
    return "".join(letters)


def progress(world: World) -> UpdateProgress:
    """Return how far the update is."""
    found = world.owner.status.update_progress
    assert found is not None
    return found


def sequence(world: World, *, steps_max: int = 40) -> list[str]:
    """Return the states after each step until the update ends."""
    world.settle()
    found = [states(world)]
    while progress(world).is_active:
        assert len(found) < steps_max, found
        step(world)
        found.append(states(world))
    return found


# Pods, (may be missing, may be added) → the states.
PODS: Final[tuple[tuple[int, Budget, str], ...]] = (
    # By default one is missing and none is added, as in Grove.
    (1, None, "n N"),
    (2, None, "nO Nn"),
    (5, None, "nOOOO NnOOO NNnOO NNNnO NNNNn"),
    (3, (2, 0), "nnO NNn"),
    (5, (2, 0), "nnOOO NNnnO NNNNn"),
    (3, (5, 0), "nnn NNN"),
    # Nothing is missing: the new pod serves before the old one goes, and stays at its index.
    (1, (0, 1), "On .N"),
    (2, (0, 1), "OOn nON N.N"),
    (3, (0, 1), "OOOn nOON NnON NN.N"),
    (3, (0, 2), "OOOnn n.ONN N..NN"),
    (3, (0, 5), "OOOnnn ...NNN"),
    # Both at once.
    (1, (1, 1), "n N"),
    (3, (1, 1), "nOOn Nn.N"),
    (3, (2, 1), "nnOn NN.N"),
    (5, (1, 1), "nOOOOn NnnOON NNNn.N"),
    (5, (2, 1), "nnOOOn NNnn.N"),
)


@pytest.mark.parametrize(("size", "budget", "expected"), PODS)
def test_pods_of_a_clique(size: int, budget: Budget, expected: str) -> None:
    """RollingRecreate of a standalone clique, for combinations of maxUnavailable and maxSurge."""
    world = running(pods(1, size, budget))
    world.apply(pods(2, size, budget))
    assert sequence(world) == expected.split()


REPLICAS: Final[tuple[tuple[int, Budget, str], ...]] = (
    (1, None, "n N"),
    (3, None, "nOO NnO NNn"),
    (3, (2, 0), "nnO NNn"),
    # Extra replicas stand in until the last one below the size serves.
    (1, (0, 1), "On nN N"),
    (2, (0, 1), "OOn nON NnN NN"),
    (3, (0, 1), "OOOn nOON NnON NNnN NNN"),
    (3, (0, 2), "OOOnn nnONN NNnN NNN"),
    (2, (1, 1), "nOn NnN NN"),
    (3, (1, 1), "nOOn NnnN NNN"),
)


@pytest.mark.parametrize(("size", "budget", "expected"), REPLICAS)
def test_replicas_of_a_group(size: int, budget: Budget, expected: str) -> None:
    """RollingRecreate of a group, for combinations of maxUnavailable and maxSurge; replicas go and come whole."""
    world = running(replicas(1, size, budget))
    world.apply(replicas(2, size, budget))
    assert sequence(world) == expected.split()


# Clique size and minimum, group size and minimum, maxUnavailable (0: the default) → the states of both.
COHERENT_STEPS: Final[tuple[tuple[tuple[int, ...], list[str]], ...]] = (
    ((2, 1, 2, 1), ["nO nO", "Nn Nn"]),
    ((4, 2, 2, 1), ["nnOO nO", "NNnn Nn"]),
    # A leftover comes last.
    ((3, 1, 2, 1), ["nOO nO", "NnO Nn", "NNn NN"]),
    ((5, 2, 3, 1), ["nnOOO nOO", "NNnnO NnO", "NNNNn NNn"]),
    # What a step holds beyond the minimum comes in sub-steps of the budget.
    ((4, 1, 1, 1), ["nOOO n", "NnOO N", "NNnO N", "NNNn N"]),
    ((4, 1, 1, 1, 2), ["nOOO n", "NnnO N", "NNNn N"]),
    ((1, 1, 4, 2), ["n nnOO", "N NNnn"]),
    (
        (7, 1, 2, 1),
        ["nOOOOOO nO", "NnOOOOO NO", "NNnOOOO NO", "NNNnOOO Nn", "NNNNnOO NN", "NNNNNnO NN", "NNNNNNn NN"],
    ),
    ((7, 1, 2, 1, 2), ["nOOOOOO nO", "NnnOOOO NO", "NNNnOOO Nn", "NNNNnnO NN", "NNNNNNn NN"]),
)


@pytest.mark.parametrize(("shape", "expected"), COHERENT_STEPS)
def test_coherent(shape: tuple[int, ...], expected: list[str]) -> None:
    """Coherent: steps, sub-steps and the leftover of a clique and a group that change together."""
    world = running(coherent(1, *shape))
    world.apply(coherent(2, *shape))
    assert sequence(world) == expected


def test_coherent_brings_back_what_is_lost() -> None:
    """A new unit that is lost comes back new, an old one old, and the next step waits for both."""
    world = running(coherent(1, 3, 1, 3, 1))
    world.apply(coherent(2, 3, 1, 3, 1))
    world.settle()
    assert states(world) == "nOO nOO"
    new, old = world.pods("s-0-a")[0], world.pods("s-0-a")[2]
    world.change_pods(lambda _: None, [new, old])
    world.settle()
    assert states(world) == "nOo nOO"
    step(world)
    assert states(world) == "NnO NnO"
    assert sequence(world) == ["NnO NnO", "NNn NNn"]


def test_coherent_while_a_group_is_scaled_in() -> None:
    """Scale-in takes what it takes; between those that stay the ratio holds, and the update goes on by itself."""
    world = running(coherent(1, 2, 1, 3, 1))
    world.apply(coherent(2, 2, 1, 3, 1))
    world.scale_group("s-0-g", 2)
    world.settle()
    assert sequence(world) == ["nO nO", "Nn Nn"]


def test_coherent_while_a_clique_is_scaled_in() -> None:
    """The same for pods: those that scale-in takes are old ones, and no part of the ratio."""
    world = running(coherent(1, 4, 1, 2, 1))
    world.apply(coherent(2, 4, 1, 2, 1))
    world.settle()
    assert states(world) == "nOOO nO"
    step(world)
    assert states(world) == "NnOO NO"
    step(world)
    world.scale_clique("s-0-a", 2)
    # The pod that was starting and the old one go: what does least is taken first.
    assert sequence(world) == ["NN Nn"]


def test_copies_go_one_after_the_other() -> None:
    """The next copy has its turn when all of the one before is new and its minimum serves."""
    world = running(pods(1, 2, None, copies=3))
    world.apply(pods(2, 2, None, copies=3))
    assert sequence(world) == ["nO OO OO", "Nn nO OO", "NN Nn nO", "NN NN Nn"]


def test_on_delete() -> None:
    """OnDelete: nothing moves; who is deleted comes back new; scale-in takes old ones, scale-out adds new ones."""
    world = running(pods(1, 3, None, strategy=ON_DELETE))
    world.apply(pods(2, 3, None, strategy=ON_DELETE))
    assert sequence(world) == ["OOO"]
    step(world)
    assert states(world) == "OOO"
    world.change_pods(deleted, world.pods()[1:2])
    world.settle()
    assert states(world) == "OnO"
    step(world)
    world.scale_clique("s-0-a", 4)
    world.settle()
    assert states(world) == "ONOn"
    step(world)
    world.scale_clique("s-0-a", 2)
    world.settle()
    assert states(world) == ".N.N"


def test_an_edit_on_the_way() -> None:
    """An edit makes what is in between old again; no more is missing than before."""
    world = running(pods(1, 3, None))
    world.apply(pods(2, 3, None))
    assert sequence(world, steps_max=40)[-1] == "NNn"
    step(world)
    world.apply(pods(3, 3, None))
    world.settle()
    assert states(world) == "nOO"
    step(world)
    assert states(world) == "NnO"
    world.apply(pods(4, 3, None))
    world.settle()
    # The pod that was starting served nobody: it is replaced at once, and none that serves goes with it.
    assert states(world) == "OnO"
    assert sequence(world)[-1] == "nNN"


def test_a_turn_lasts_as_long_as_its_extra_replicas() -> None:
    """The minimum alone ends no turn: extra replicas would go with it, before those they stand in for serve."""
    world = running(replicas(1, 1, (0, 1)))
    world.apply(replicas(2, 1, (0, 1)))
    world.settle()
    step(world)
    assert states(world) == "nN"
    for _ in range(3):
        world.settle()
    assert progress(world).is_active
    assert states(world) == "nN"


def test_a_pause_takes_no_extra_replica_away() -> None:
    """A copy that is paused keeps the extra replica that serves for another, until the other serves."""
    world = running(replicas(1, 2, (0, 1)))
    world.apply(replicas(2, 2, (0, 1)))
    world.settle()
    step(world)
    assert states(world) == "nON"
    world.owner = replace(world.owner, paused_at=world.now)
    world.settle()
    assert states(world) == "nON"
    step(world)
    assert states(world) == "NO"
    world.owner = replace(world.owner, paused_at=None)
    assert sequence(world)[-1] == "NN"


def test_updated_replicas_follow_an_edit_during_an_update_671() -> None:
    """#671: after an edit in mid-update the counts of what is updated start anew, and end at the size."""
    world = running(pods(1, 3, None))
    world.apply(pods(2, 3, None))
    world.settle()
    step(world)
    assert world.one(PodClique, "s-0-a").status.updated_replicas == 2
    world.apply(pods(3, 3, None))
    world.settle()
    assert world.one(PodClique, "s-0-a").status.updated_replicas == 1
    assert world.owner.status.updated_replicas == 0
    sequence(world)
    assert world.one(PodClique, "s-0-a").status.updated_replicas == 3
    assert world.owner.status.updated_replicas == 1


def test_gangs_know_their_pods_at_every_step_316() -> None:
    """#316: after every pass of an update each gang that stays lists exactly the pods there are."""
    world = running(replicas(1, 3, (1, 1)))
    world.apply(replicas(2, 3, (1, 1)))
    world.settle()
    while True:
        gangs = [gang for gang in world.of(PodGang) if gang.metadata.deleted_at is None]
        listed = sorted(name for gang in gangs for part in gang.pod_groups for name in part.pods)
        assert listed == sorted(pod.metadata.name for pod in world.pods())
        if not progress(world).is_active:
            return
        step(world)


def test_broken_replicas_do_not_hold_up_the_fix_840() -> None:
    """#840: replicas that do not serve are replaced together, though they use up the budget; the others stay."""
    world = running(replicas(1, 3, None))
    world.change_pods(lost, [*world.pods("s-0-g-1-m"), *world.pods("s-0-g-2-m")])
    world.settle()
    world.apply(replicas(2, 3, None))
    assert sequence(world) == ["Onn", "nNN"]
