"""Updates of random sets with random failures: no plan takes more than the budget, surge is bounded, all of it ends.

The world is the strict model of the passes. Pods start, crash, vanish and finish as chance wants; a plan may only take
serving units while enough others serve, whatever happened before.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from grove_server.lifecycle.rollout.coherent import Component, checkpoints
from grove_server.resources.workload import Pod
from tests.lifecycle_cases import Json, World, admitted, clique, failed, group, lost, manifest, ready

MEMBERS: Final = {"m": 1, "n": 2}
ACTIONS: Final = ("start", "start", "start", "crash", "vanish", "fail", "reap", "edit")
_SETTINGS: Final = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@dataclass(frozen=True, slots=True)
class Shape:
    """A set of one clique and one group: sizes, minimums, units that may be missing and added."""

    strategy: str
    size: int
    minimum: int
    unavailable: int
    surge: int
    replicas: int
    group_minimum: int
    group_unavailable: int
    group_surge: int
    copies: int

    def document(self, version: int) -> Json:
        """Return the manifest of one version."""
        spec: Json = {"podSpec": {"containers": [{"name": "main", "image": f"registry.example/app:{version}"}]}}
        members = [clique(name, count, count, **spec) for name, count in MEMBERS.items()]
        document = manifest(
            [clique("a", self.size, self.minimum, **spec), *members],
            [group("g", MEMBERS, self.replicas, self.group_minimum)],
            replicas=self.copies,
        )
        template = document["spec"]["template"]
        template["cliques"][0]["rollingUpdate"] = self._budget(self.unavailable, self.surge)
        template["podCliqueScalingGroups"][0]["rollingUpdate"] = self._budget(self.group_unavailable, self.group_surge)
        document["spec"]["updateStrategy"] = {"type": self.strategy}
        return document

    def _budget(self, unavailable: int, surge: int) -> Json:
        return {"maxUnavailable": unavailable} | ({"maxSurge": surge} if self.strategy != "Coherent" else {})


@st.composite
def shapes(draw: st.DrawFn, strategy: str) -> Shape:
    """Return a shape that admission accepts."""
    minimum, group_minimum = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    surge, group_surge = (0, 0) if strategy == "Coherent" else (draw(st.integers(0, 2)), draw(st.integers(0, 2)))
    low, group_low = (
        (minimum, group_minimum) if strategy == "Coherent" else (0 if surge else 1, 0 if group_surge else 1)
    )
    return Shape(
        strategy=strategy,
        size=draw(st.integers(minimum, 6)),
        minimum=minimum,
        unavailable=draw(st.integers(low, 3)),
        surge=surge,
        replicas=draw(st.integers(group_minimum, 4)),
        group_minimum=group_minimum,
        group_unavailable=draw(st.integers(group_low, 3)),
        group_surge=group_surge,
        copies=draw(st.integers(1, 2)),
    )


def serving(world: World, copy: int) -> tuple[int, int]:
    """Return the pods of the clique and the whole replicas of the group that serve."""
    counts = Counter(pod.identity.name for pod in world.pods() if pod.is_ready)
    return counts[f"s-{copy}-a"], len(_whole(counts, copy))


def _whole(counts: Counter[str], copy: int) -> list[int]:
    return [j for j in range(8) if all(counts[f"s-{copy}-g-{j}-{name}"] >= count for name, count in MEMBERS.items())]


def new_units(world: World) -> tuple[int, int]:
    """Return the new pods of the clique and the replicas of the group whose pods are all new."""
    hashes = world.owner.revision.clique_hashes
    new = [pod for pod in world.pods() if pod.template.hash == hashes[pod.identity.clique]]
    counts = Counter(pod.identity.name for pod in new)
    return counts["s-0-a"], len(_whole(counts, 0))


def checked_pass(world: World, shape: Shape) -> None:
    """Look at everything once; what is taken fits the budget."""
    for copy in range(shape.copies):
        before = serving(world, copy)
        world.step(copy)
        after = serving(world, copy)
        floors = (shape.size - shape.unavailable, shape.replicas - shape.group_unavailable)
        for was, now, floor in zip(before, after, floors, strict=True):
            assert now >= min(was, floor), (before, after, floors)
        pods = [pod for pod in world.pods() if pod.identity.name == f"s-{copy}-a"]
        assert len(pods) <= shape.size + shape.surge
        replicas = {pod.identity.group_replica for pod in world.pods() if pod.identity.copy == copy} - {-1}
        assert len(replicas) <= shape.replicas + shape.group_surge
    world.settle()


def act(world: World, shape: Shape, action: str, chance: int, version: int) -> int:
    """Let something happen to one pod; return the version that is now wanted."""
    pods = world.pods()
    pod = pods[chance % len(pods)]
    match action:
        case "start":
            world.change_pods(lambda p: ready(p, world.now), [pod])
        case "crash":
            world.change_pods(lambda p: lost(p, world.now), [pod])
        case "vanish":
            world.change_pods(lambda _: None, [pod])
        case "fail":
            world.change_pods(lambda p: failed(p, world.now), [pod])
        case "reap":
            world.reap()
        case _:
            version += 1
            world.apply(shape.document(version))
    return version


def finish(world: World) -> None:
    """Let everything start; the update must end with nothing old and nothing above its size."""
    for _ in range(80):
        world.now += 400.0
        world.reap()
        world.change_pods(lambda pod: pod if pod.is_ready else ready(pod, world.now))
        world.settle()
        progress = world.owner.status.update_progress
        if progress is not None and not progress.is_active:
            break
    progress = world.owner.status.update_progress
    assert progress is not None
    assert not progress.is_active
    hashes = world.owner.revision.clique_hashes
    assert all(pod.template.hash == hashes[pod.identity.clique] for pod in world.pods())


def began(shape: Shape) -> World:
    """Return a world that runs, with an update under way."""
    world = World(owner=admitted(shape.document(1)))
    world.settle()
    world.run()
    world.settle()
    world.apply(shape.document(2))
    return world


@_SETTINGS
@given(
    shape=st.one_of(shapes("RollingRecreate"), shapes("Coherent")),
    happenings=st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 50)), max_size=30),
)
def test_no_plan_takes_more_than_the_budget(shape: Shape, happenings: list[tuple[str, int]]) -> None:
    """Whatever happens, a pass takes serving units only above the floor, adds only the surge, and the update ends."""
    world = began(shape)
    version = 2
    for action, chance in happenings:
        world.now += 1.0
        version = act(world, shape, action, chance, version)
        checked_pass(world, shape)
    finish(world)
    sizes = Counter(pod.identity.name for pod in world.pods())
    assert all(sizes[f"s-{copy}-a"] == shape.size for copy in range(shape.copies))
    assert len(world.pods()) == shape.copies * (shape.size + shape.replicas * sum(MEMBERS.values()))


@_SETTINGS
@given(shape=shapes("Coherent"), starts=st.lists(st.integers(0, 50), max_size=40))
def test_coherent_keeps_the_ratio(shape: Shape, starts: list[int]) -> None:
    """Without failures the new units are at every moment those of one of the points of the published sequence."""
    points = checkpoints(
        [
            Component(name="a", size=shape.size, minimum=shape.minimum, max_unavailable=shape.unavailable),
            Component(
                name="g", size=shape.replicas, minimum=shape.group_minimum, max_unavailable=shape.group_unavailable
            ),
        ]
    )
    world = began(shape)
    for chance in starts:
        world.settle()
        assert new_units(world) in [(0, 0), *points]
        waiting = [pod for pod in world.pods() if not pod.is_ready]
        if waiting:
            _start(world, waiting[chance % len(waiting)])
        if chance % 3 == 0:
            world.reap()
    finish(world)


def _start(world: World, pod: Pod) -> None:
    world.change_pods(lambda p: ready(p, world.now), [pod])


@_SETTINGS
@given(
    shape=shapes("RollingRecreate"),
    happenings=st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 50)), max_size=15),
)
def test_the_same_history_makes_the_same_pods(shape: Shape, happenings: list[tuple[str, int]]) -> None:
    """Plans depend on nothing but the state and the time."""

    def history() -> list[tuple[str, int, str]]:
        world, version = began(shape), 2
        for action, chance in happenings:
            world.now += 1.0
            version = act(world, shape, action, chance, version)
            world.settle()
        return [(pod.metadata.name, pod.index, pod.template.hash) for pod in world.of(Pod)]

    assert history() == history()
