"""Expansion and convergence over random sets: counts, names, gangs, and a fixpoint whatever happened to the pods."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from grove_server.resources.names import hostname
from grove_server.resources.workload import (
    GangPhase,
    Pod,
    PodClique,
    PodCliqueScalingGroup,
    PodGang,
    ScaleOwner,
)
from tests.lifecycle_cases import (
    Json,
    World,
    admitted,
    bound,
    clique,
    condition,
    deleted,
    failed,
    group,
    lost,
    manifest,
    minimums,
    ready,
)

ROUNDS_MAX = 12


@st.composite
def sizes(draw: st.DrawFn, most: int) -> tuple[int, int]:
    """Return a size and a minimum that admission accepts: 0, or at least the minimum."""
    minimum = draw(st.integers(1, most))
    return draw(st.one_of(st.just(0), st.integers(minimum, most))), minimum


@st.composite
def documents(draw: st.DrawFn) -> Json:
    """Return a manifest of up to six cliques, some of them in up to two groups, in up to three copies."""
    names = [f"c{index}" for index in range(draw(st.integers(1, 6)))]
    cliques = [clique(name, *draw(sizes(3))) for name in names]
    groups = []
    free = list(names)
    for index in range(draw(st.integers(0, 2))):
        members = draw(st.lists(st.sampled_from(free), unique=True, max_size=3)) if free else []
        if members:
            free = [name for name in free if name not in members]
            groups.append(group(f"g{index}", members, *draw(sizes(3))))
    return manifest(cliques, groups, replicas=draw(st.integers(0, 3)))


def expected_counts(document: Json) -> tuple[int, int]:
    """Return (pods, gangs) after Grove's formulas; gangs whose members are all at size 0 do not exist here."""
    template = document["spec"]["template"]
    size = {c["name"]: c["spec"]["replicas"] for c in template["cliques"]}
    groups = template["podCliqueScalingGroups"]
    members = {name for g in groups for name in g["cliqueNames"]}
    alone = sum(count for name, count in size.items() if name not in members)
    pods, base, scaled = alone, alone, 0
    for g in groups:
        unit = sum(size[name] for name in g["cliqueNames"])
        pods += g["replicas"] * unit
        base += min(g["replicas"], g["minAvailable"]) * unit
        scaled += max(0, g["replicas"] - g["minAvailable"]) if unit else 0
    copies = document["spec"]["replicas"]
    return copies * pods, copies * (scaled + (base > 0))


def check_gangs(world: World) -> None:
    """Check that gangs partition the active pods, and cliques above size 0."""
    listed = Counter(name for gang in world.of(PodGang) for g in gang.pod_groups for name in g.pods)
    assert listed == Counter(pod.metadata.name for pod in world.pods())
    wanted = [c for c in world.of(PodClique) if c.replicas and is_wanted(world, c)]
    groups = Counter(name for gang in world.of(PodGang) for name in minimums(gang))
    assert groups == Counter(c.metadata.name for c in wanted)
    homes = {name: gang.metadata.name for gang in world.of(PodGang) for name in minimums(gang)}
    assert all(homes[pod.identity.name] == pod.identity.gang for pod in world.pods())
    minimum = {c.metadata.name: min(c.min_available, c.replicas) for c in wanted}
    assert all(minimum[name] == least for gang in world.of(PodGang) for name, least in minimums(gang).items())


def is_wanted(world: World, of_set: PodClique) -> bool:
    """Return whether a clique belongs to a copy and a group replica that are wanted."""
    identity = of_set.identity
    if world.owner.metadata.deleted_at is not None or identity.copy >= (world.owner.spec.replicas or 0):
        return False
    if not identity.group:
        return True
    return identity.group_replica < world.one(PodCliqueScalingGroup, identity.group_name).replicas


@given(documents())
def test_expansion_follows_the_formulas(document: Json) -> None:
    """Pods and gangs are as many as the formulas say, and all names are unique."""
    world = World(owner=admitted(document))
    world.settle()
    assert (len(world.pods()), len(world.of(PodGang))) == expected_counts(document)
    hostnames = [hostname(pod.identity.name, pod.index) for pod in world.pods()]
    assert len(hostnames) == len(set(hostnames))
    uids = [row.metadata.uid for row in world.rows.values()]
    assert len(uids) == len(set(uids))
    check_gangs(world)


@given(documents())
def test_everything_runs_and_goes(document: Json) -> None:
    """A set whose pods all serve is fully available; a deleted one leaves nothing behind."""
    world = World(owner=admitted(document))
    world.settle()
    world.run()
    owner = world.settle()
    assert owner.status.available_replicas == document["spec"]["replicas"]
    assert {gang.status.phase for gang in world.of(PodGang)} <= {GangPhase.RUNNING}
    assert all(condition(c, "MinAvailableBreached").status == "False" for c in world.of(PodClique))
    world.owner = _deleted(world.owner)
    world.settle()
    world.reap()
    world.settle()
    assert world.rows == {}
    assert (world.totals.copies, world.totals.sums.available, world.totals.gang_phases) == ({}, 0, {})


def _deleted(owner: Any) -> Any:  # noqa: ANN401 -- a set, either way; a pod would do too
    return deleted(owner)


CHANGES = st.sampled_from(["bind", "ready", "lose", "fail", "delete", "vanish"])
ACTIONS = st.one_of(
    st.tuples(st.just("pods"), CHANGES, st.lists(st.integers(0, 60), min_size=1, max_size=8)),
    st.tuples(st.just("clique"), st.integers(0, 20), st.integers(0, 4)),
    st.tuples(st.just("group"), st.integers(0, 20), st.integers(0, 4)),
    st.tuples(st.just("copies"), st.integers(0, 3), st.just(0)),
    st.tuples(st.just("template"), st.integers(0, 5), st.integers(0, 3)),
    st.tuples(st.just("time"), st.sampled_from([1, 20, 400]), st.just(0)),
    st.tuples(st.just("reap"), st.just(0), st.just(0)),
    st.tuples(st.just("pass"), st.integers(0, 3), st.just(0)),
)


class Story:
    """Carries actions out on a world, as users, runtime and placement would."""

    def __init__(self, document: Json) -> None:
        self.document = document
        self.world = World(owner=admitted(document))

    def act(self, action: tuple[str, Any, Any]) -> None:
        """Do one thing."""
        getattr(self, f"_{action[0]}")(*action[1:])

    def _pods(self, change: str, chosen: list[int]) -> None:
        pods = self.world.pods()
        now = self.world.now
        changes: dict[str, Any] = {
            "bind": lambda pod: bound(pod, now),
            "ready": lambda pod: ready(pod, now),
            "lose": lambda pod: lost(pod, now),
            "fail": lambda pod: failed(pod, now),
            "delete": lambda pod: deleted(pod, now),
            "vanish": lambda _: None,
        }
        picked = {index % len(pods) for index in chosen} if pods else set()
        self.world.change_pods(changes[change], [pods[index] for index in sorted(picked)])

    def _clique(self, chosen: int, size: int) -> None:
        cliques = self.world.of(PodClique)
        if cliques:
            target = cliques[chosen % len(cliques)]
            wanted = size if size >= target.min_available else 0
            self.world.scale_clique(target.metadata.name, wanted, _owner(chosen))

    def _group(self, chosen: int, size: int) -> None:
        groups = self.world.of(PodCliqueScalingGroup)
        if groups:
            target = groups[chosen % len(groups)]
            wanted = size if size >= target.min_available else 0
            self.world.scale_group(target.metadata.name, wanted, _owner(chosen))

    def _copies(self, count: int, _: int) -> None:
        self.document["spec"]["replicas"] = count
        self.world.apply(self.document)

    def _template(self, chosen: int, size: int) -> None:
        cliques = self.document["spec"]["template"]["cliques"]
        edited = cliques[chosen % len(cliques)]
        edited["labels"] = {"v": str(size)}
        if size >= edited["spec"]["minAvailable"]:
            edited["spec"]["replicas"] = size
        self.world.apply(self.document)

    def _time(self, duration_s: int, _: int) -> None:
        self.world.now += duration_s

    def _reap(self, *_: int) -> None:
        self.world.reap()

    def _pass(self, copy: int, _: int) -> None:
        self.world.step(copy)

    def converge(self) -> None:
        """Let passes, runtime and time go on until nothing changes any more."""
        world = self.world
        for _ in range(ROUNDS_MAX):
            before = dict(world.rows)
            world.settle()
            world.reap()
            world.run([pod for pod in world.pods() if not pod.is_ready])
            world.now += 400
            if world.rows == before:
                return
        raise AssertionError("no fixpoint")


def _owner(chosen: int) -> ScaleOwner:
    return ScaleOwner.AUTOSCALER if chosen % 2 else ScaleOwner.USER


@given(documents(), st.lists(ACTIONS, max_size=12))
def test_whatever_happens_it_converges(document: Json, actions: list[tuple[str, Any, Any]]) -> None:
    """After any edits and any fate of the pods, everything wanted is there once, serves, and is told truly."""
    story = Story(document)
    for action in actions:
        story.act(action)
    story.converge()
    world = story.world
    copies = world.owner.spec.replicas or 0
    assert {c.identity.copy for c in world.of(PodClique)} <= set(range(copies))
    for found in world.of(PodClique):
        pods = [pod for pod in world.of(Pod) if pod.identity.name == found.metadata.name]
        # Victims are chosen by what they are worth, so a scale-in may leave holes; an index is never used twice.
        assert len({pod.index for pod in pods}) == len(pods) == found.replicas
        status = found.status
        counts = (status.replicas, status.ready_replicas, status.scheduled_replicas, status.terminating_replicas)
        assert counts == (found.replicas, found.replicas, found.replicas, 0)
    for of_group in world.of(PodCliqueScalingGroup):
        replicas = {
            c.identity.group_replica for c in world.of(PodClique) if c.identity.group_name == of_group.metadata.name
        }
        assert replicas == set(range(of_group.replicas))
        assert of_group.status.available_replicas == of_group.replicas
    check_gangs(world)
    assert {gang.status.phase for gang in world.of(PodGang)} <= {GangPhase.RUNNING}
    assert world.owner.status.available_replicas == copies
    world.owner = _deleted(world.owner)
    story.converge()
    assert world.rows == {}
