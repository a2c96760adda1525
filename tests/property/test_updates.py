"""Updates of random sets with random failures: no plan takes more than the budget, surge is bounded, all of it ends.

The world is the strict model of the passes. Pods start, crash, vanish and finish as chance wants, people edit, scale
and pause; a plan may only take serving units while enough others serve, whatever happened before. Every single pass
over a copy is checked, also those that follow because a copy got its turn.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from grove_server.lifecycle.removal import StopReason
from grove_server.lifecycle.rollout.coherent import Component, checkpoints
from grove_server.lifecycle.rollout.progress import advance, turns
from grove_server.lifecycle.set_pass import with_set_status
from grove_server.resources.rollout import UpdateProgress
from grove_server.resources.workload import Pod, PodClique, PodCliqueScalingGroup
from tests.lifecycle_cases import Json, World, admitted, clique, failed, group, lost, manifest, ready

MEMBERS: Final = {"m": 1, "n": 2}
FAILURES: Final = ("start", "start", "start", "crash", "vanish", "fail", "reap")
ACTIONS: Final = (*FAILURES, "edit", "pause", "grow", "shrink", "more copies", "fewer copies")
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


def serving(world: World, copy: int) -> tuple[int, list[int]]:
    """Return how many pods of the clique and which replicas of the group serve."""
    counts = Counter(pod.identity.name for pod in world.pods() if pod.is_ready)
    return counts[f"s-{copy}-a"], _whole(counts, copy)


def _whole(counts: Counter[str], copy: int) -> list[int]:
    return [j for j in range(8) if all(counts[f"s-{copy}-g-{j}-{name}"] >= count for name, count in MEMBERS.items())]


def new_units(world: World) -> tuple[int, int]:
    """Return the new pods of the clique and the replicas of the group whose pods are all new."""
    hashes = world.owner.revision.clique_hashes
    new = [pod for pod in world.pods() if pod.template.hash == hashes[pod.identity.clique]]
    counts = Counter(pod.identity.name for pod in new)
    return counts["s-0-a"], len(_whole(counts, 0))


def checked_settle(world: World, shape: Shape, scaled_in: tuple[int, int] | None = None) -> None:
    """Look at everything until no turn changes; what each pass takes fits the budget, and only turns update.

    *scaled_in* are copy and index of a group replica that somebody just took away.
    """
    while True:
        had = turns(world.owner)
        placed = [turn for turn in _progress(world).currently_updating if turn.was_placed]
        assert len(placed) <= 1, placed
        for copy in sorted({pod.identity.copy for pod in world.of(Pod)} | set(range(world.owner.spec.replicas or 0))):
            gone = scaled_in[1] if scaled_in is not None and scaled_in[0] == copy else -1
            checked_pass(world, shape, copy, gone, has_turn=copy in had)
        update = advance(world.owner, world.totals, now=world.now, settle_s=0.0)
        world.owner = with_set_status(world.owner, world.totals, None, update, now=world.now)
        if turns(world.owner) == had:
            return


def checked_pass(world: World, shape: Shape, copy: int, gone: int, *, has_turn: bool) -> None:
    """Look at one copy once; nobody is asked for the group replica that is *gone*."""
    before = serving(world, copy)
    updating = _updating(world)
    world.step(copy)
    assert has_turn or _updating(world) == updating, "a copy was updated out of turn"
    if copy >= (world.owner.spec.replicas or 0):
        return
    size, replicas = sizes(world, copy)
    after = serving(world, copy)
    assert after[0] >= min(before[0], size - shape.unavailable), (before, after, size)
    # Scale-in goes by index: it may take a replica that serves and leave one that does not.
    had = sum(j != gone for j in before[1])
    assert len(after[1]) >= min(had, replicas - shape.group_unavailable), (before, after, replicas)
    assert len(world.pods(f"s-{copy}-a")) <= size + shape.surge
    indices = {pod.identity.group_replica for pod in world.pods() if pod.identity.copy == copy} - {-1}
    assert len(indices) <= replicas + shape.group_surge


def sizes(world: World, copy: int) -> tuple[int, int]:
    """Return how many pods of the clique and replicas of the group are wanted."""
    return world.one(PodClique, f"s-{copy}-a").replicas, world.one(PodCliqueScalingGroup, f"s-{copy}-g").replicas


def _updating(world: World) -> int:
    return sum(pod.stop_reason == StopReason.UPDATE for pod in world.of(Pod))


def _progress(world: World) -> UpdateProgress:
    return world.owner.status.update_progress or UpdateProgress(update_started_at=world.now)


@dataclass(slots=True)
class Game:
    """A set whose update is under way, and what may happen to it."""

    shape: Shape
    world: World
    version: int = 2
    scaled_in: tuple[int, int] | None = None

    def play(self, action: str, chance: int) -> None:
        """Let something happen, and check all passes that follow."""
        self.world.now += 1.0
        self.scaled_in = None
        self.act(action, chance)
        checked_settle(self.world, self.shape, self.scaled_in)

    def act(self, action: str, chance: int) -> None:
        """Let something happen to one pod, or let a person do something."""
        world, now = self.world, self.world.now
        pods = world.pods()
        pod = [pods[chance % len(pods)]] if pods else []
        match action:
            case "start":
                world.change_pods(lambda p: ready(p, now), pod)
            case "crash":
                world.change_pods(lambda p: lost(p, now), pod)
            case "vanish":
                world.change_pods(lambda _: None, pod)
            case "fail":
                world.change_pods(lambda p: failed(p, now), pod)
            case "reap":
                world.reap()
            case "pause":
                world.owner = replace(world.owner, paused_at=None if world.owner.paused_at else now)
            case "grow" | "shrink":
                self._scale(chance % self.shape.copies, 1 if action == "grow" else -1, is_group=chance % 2 == 0)
            case _:
                self._edit(action)

    def finish(self) -> None:
        """Let everything start; the update must end with nothing old and nothing above its size."""
        world = self.world
        world.owner = replace(world.owner, paused_at=None)
        for _ in range(100):
            world.now += 400.0
            world.reap()
            world.change_pods(lambda pod: pod if pod.is_ready else ready(pod, world.now))
            checked_settle(world, self.shape)
            if not _progress(world).is_active:
                break
        assert not _progress(world).is_active
        hashes = world.owner.revision.clique_hashes
        assert all(pod.template.hash == hashes[pod.identity.clique] for pod in world.pods())
        wanted = [sizes(world, copy) for copy in range(self.shape.copies)]
        assert len(world.pods()) == sum(size + replicas * sum(MEMBERS.values()) for size, replicas in wanted)

    def _scale(self, copy: int, step: int, *, is_group: bool) -> None:
        size, replicas = sizes(self.world, copy)
        if is_group:
            self.scaled_in = (copy, replicas - 1) if step < 0 else None
            self.world.scale_group(f"s-{copy}-g", min(5, max(self.shape.group_minimum, replicas + step)))
        else:
            self.world.scale_clique(f"s-{copy}-a", min(7, max(self.shape.minimum, size + step)))

    def _edit(self, action: str) -> None:
        copies = self.shape.copies + {"more copies": 1, "fewer copies": -1}.get(action, 0)
        self.version += action == "edit"
        self.shape = replace(self.shape, copies=min(3, max(1, copies)))
        self.world.apply(self.shape.document(self.version))


def began(shape: Shape) -> Game:
    """Return a set that runs, with an update under way."""
    world = World(owner=admitted(shape.document(1)))
    world.settle()
    world.run()
    world.settle()
    world.apply(shape.document(2))
    return Game(shape, world)


def happenings(actions: tuple[str, ...], count: int) -> st.SearchStrategy[list[tuple[str, int]]]:
    """Return histories of at most so many actions."""
    return st.lists(st.tuples(st.sampled_from(actions), st.integers(0, 50)), max_size=count)


@_SETTINGS
@given(shape=st.one_of(shapes("RollingRecreate"), shapes("Coherent")), history=happenings(ACTIONS, 30))
def test_no_plan_takes_more_than_the_budget(shape: Shape, history: list[tuple[str, int]]) -> None:
    """Whatever happens, a pass takes serving units only above the floor, adds only the surge, and the update ends."""
    game = began(shape)
    for action, chance in history:
        game.play(action, chance)
    game.finish()


def points_of(shape: Shape) -> list[tuple[int, ...]]:
    """Return the published sequence of a shape: what is new where the update waits, beginning with nothing."""
    clique_part = Component(name="a", size=shape.size, minimum=shape.minimum, max_unavailable=shape.unavailable)
    group_part = Component(
        name="g", size=shape.replicas, minimum=shape.group_minimum, max_unavailable=shape.group_unavailable
    )
    return [(0, 0), *checkpoints([clique_part, group_part])]


@_SETTINGS
@given(shape=shapes("Coherent"), starts=st.lists(st.integers(0, 50), max_size=40))
def test_coherent_keeps_the_ratio(shape: Shape, starts: list[int]) -> None:
    """Without failures the new units are at every moment those of one of the points of the published sequence."""
    game, points = began(replace(shape, copies=1)), points_of(shape)
    for chance in starts:
        checked_settle(game.world, game.shape)
        assert new_units(game.world) in points
        waiting = [pod for pod in game.world.pods() if not pod.is_ready]
        if waiting:
            _start(game.world, waiting[chance % len(waiting)])
        if chance % 3 == 0:
            game.world.reap()
    game.finish()


@_SETTINGS
@given(shape=shapes("Coherent"), history=happenings((*FAILURES, "edit"), 40))
def test_coherent_keeps_the_ratio_whatever_fails(shape: Shape, history: list[tuple[str, int]]) -> None:
    """With failures and edits in between, too, what is new lies between one point of the sequence and the next."""
    game, points = began(replace(shape, copies=1)), points_of(shape)
    for action, chance in history:
        game.play(action, chance)
        new = new_units(game.world)
        assert any(
            all(low <= count <= high for low, count, high in zip(before, new, after, strict=True))
            for before, after in pairwise(points)
        ), (new, points)
    game.finish()


def _start(world: World, pod: Pod) -> None:
    world.change_pods(lambda p: ready(p, world.now), [pod])


@_SETTINGS
@given(shape=shapes("RollingRecreate"), history=happenings(ACTIONS, 15))
def test_the_same_history_makes_the_same_pods(shape: Shape, history: list[tuple[str, int]]) -> None:
    """Plans depend on nothing but the state and the time."""

    def played() -> list[tuple[str, int, str]]:
        game = began(shape)
        for action, chance in history:
            game.world.now += 1.0
            game.act(action, chance)
            game.world.settle()
        return [(pod.metadata.name, pod.index, pod.template.hash) for pod in game.world.of(Pod)]

    assert played() == played()
