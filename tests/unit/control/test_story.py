"""Stories: what is told of changes, what is merged, what is forgotten, and that reasons and callers arrive."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from grove_server.control.chronicle import Chronicle
from grove_server.control.clock import SystemClock
from grove_server.control.story import MERGE_S, StoryTeller
from grove_server.control.transitions import CHANGES_MAX, Difference, differences
from grove_server.resources.cluster import Event, Node
from grove_server.resources.containers import ContainerStatus
from grove_server.resources.meta import Condition, Key, Kind, Metadata, Resource, key_of
from grove_server.resources.workload import Pod, PodClique, PodCliqueSet, PodPhase, ScaleOwner
from grove_server.store.interface import NO_ORIGIN, ChangeType, Notice, Origin, Put
from tests.lifecycle_cases import World, clique, manifest, world
from tests.planes import Plane, worker


class Teller:
    """A story teller on a clock that stands still, fed by hand."""

    def __init__(self, *, resources_max: int = 100, transitions_max: int = 1_000, per_resource_max: int = 50) -> None:
        self.now_s = 100.0
        self.version = 0
        self.stories = StoryTeller(
            SystemClock(lambda: self.now_s),
            resources_max=resources_max,
            transitions_max=transitions_max,
            per_resource_max=per_resource_max,
        )

    def see(
        self, before: Resource | None, after: Resource | None, cause: str = "test", origin: Origin = NO_ORIGIN
    ) -> None:
        """Let one change become visible."""
        self.version += 1
        shown = after if after is not None else before
        assert shown is not None
        kind = ChangeType.DELETED if after is None else ChangeType.ADDED if before is None else ChangeType.MODIFIED
        self.stories.observe([Notice(kind, shown, before, self.version, cause, origin)])

    def told(self, resource: Resource, *, uid: str = "") -> list[tuple[Difference, ...]]:
        """Return what changed, step by step."""
        return [each.changes for each in self.stories.of(key_of(resource), uid=uid).transitions]


@pytest.fixture
def small_world() -> World:
    """Return a set of one clique of two pods that wait for nodes."""
    made = world([clique("a", 2)])
    made.step()
    return made


@pytest.fixture
def small_clique(small_world: World) -> PodClique:
    """Return the clique."""
    return small_world.one(PodClique, "s-0-a")


def node(name: str = "n", uid: str = "u") -> Node:
    """Return a node."""
    return Node(metadata=Metadata(name=name, uid=uid))


def test_scalars_times_labels_and_conditions_are_told() -> None:
    """Each thing that changed is told once, in words, and a change of a condition's message alone is not."""
    before = node()
    after = replace(
        before,
        unschedulable=True,
        ready_changed_at=7.0,
        allocatable={"cpu": "4"},
        metadata=replace(before.metadata, labels={"rack": "r1"}, deleted_at=5.0),
    )
    assert set(differences(before, after)) == {
        Difference("unschedulable", "false", "true"),
        Difference("allocatable.cpu", "", "4"),
        Difference("labels.rack", "", "r1"),
        Difference("deleted", "no", "yes"),
    }


def test_conditions_are_told_with_reason_and_message(small_clique: PodClique) -> None:
    """A condition is told when its status or reason turns; its message comes along and is nothing by itself."""
    turned = Condition(type="Ready", status="False", reason="TooFew", message="1 of 2")
    others = small_clique.status.conditions
    told = replace(small_clique, status=replace(small_clique.status, conditions=(*others, turned)))
    assert differences(small_clique, told) == (Difference("Ready", "", "False (TooFew): 1 of 2"),)
    again = replace(told, status=replace(told.status, conditions=(*others, replace(turned, message="0 of 2"))))
    assert differences(told, again) == ()
    assert differences(told, small_clique) == (Difference("Ready", "False (TooFew)", ""),)


def test_containers_are_told_by_name(small_world: World) -> None:
    """Init containers stand before the others in a pod's row; a number would name the wrong one."""
    (pod, *_) = small_world.pods()
    before = replace(pod, containers=(ContainerStatus(name="load", is_init=True), ContainerStatus(name="main")))
    containers = tuple(replace(each, restart_count=1) for each in before.containers)
    assert [each.what for each in differences(before, replace(before, containers=containers))] == [
        "initContainers[load].restartCount",
        "containers[main].restartCount",
    ]


def test_many_changes_at_once_are_bounded() -> None:
    """What is beyond the limit is counted."""
    before = node()
    after = replace(before, allocatable={f"r{i:02}": "1" for i in range(3 * CHANGES_MAX)})
    told = differences(before, after)
    assert len(told) == CHANGES_MAX
    assert told[-1] == Difference("more", "", str(2 * CHANGES_MAX + 1))


def test_a_life_is_told_from_beginning_to_end() -> None:
    """Creation, changes and removal are told in order, with cause, caller and reason; what changed nothing is not."""
    teller = Teller()
    first = node()
    cordoned = replace(first, unschedulable=True)
    origin = Origin(actor="alice", request_id="r-1")
    teller.see(None, first, "cluster-file")
    teller.see(first, cordoned, "api.cordon", origin)
    teller.see(cordoned, replace(cordoned, resource_version=9))
    teller.see(cordoned, None, "nodes")
    story = teller.stories.of(key_of(first))
    assert [(each.cause, each.changes[0].what) for each in story.transitions] == [
        ("cluster-file", "created"),
        ("api.cordon", "unschedulable"),
        ("nodes", "removed"),
    ]
    assert story.transitions[1].origin == origin
    assert story.since == 100.0


def test_one_name_may_have_several_lives() -> None:
    """The story of a name goes on with the next resource of that name, and can be narrowed to one of them."""
    teller = Teller()
    teller.see(None, node(uid="a"))
    teller.see(node(uid="a"), None)
    teller.see(None, node(uid="b"))
    assert len(teller.told(node())) == 3
    assert len(teller.told(node(), uid="b")) == 1


def test_steps_of_a_count_are_one_transition(small_clique: PodClique) -> None:
    """A count that moves on within seconds is told once, with how far it came; others are not merged."""
    teller = Teller()
    states = [replace(small_clique, status=replace(small_clique.status, ready_replicas=n)) for n in range(5)]
    for before, after in pairwise(states):
        teller.see(before, after)
        teller.now_s += MERGE_S / 10
    (merged,) = teller.stories.of(key_of(small_clique)).transitions
    assert (merged.changes, merged.steps) == ((Difference("readyReplicas", "0", "4"),), 4)
    assert merged.since < merged.at
    teller.now_s += 2 * MERGE_S
    teller.see(states[4], states[3])
    assert len(teller.told(small_clique)) == 2


def test_stories_are_bounded() -> None:
    """The oldest transitions of a resource go first, and of all resources the one that changed longest ago."""
    teller = Teller(resources_max=3, per_resource_max=4)
    state = node("n0")
    teller.see(None, state)
    for _ in range(6):
        changed = replace(state, unschedulable=not state.unschedulable)
        teller.see(state, changed)
        state = changed
    story = teller.stories.of(key_of(state))
    assert (len(story.transitions), story.forgotten_count) == (4, 3)
    for name in ("n1", "n2", "n3"):
        teller.see(None, node(name))
    assert teller.told(node("n0")) == []
    assert len(teller.told(node("n3"))) == 1


def test_transitions_are_bounded_in_all() -> None:
    """However few the resources, whole stories go when there are too many transitions."""
    teller = Teller(transitions_max=10)
    for number in range(30):
        teller.see(None, node(f"n{number}"))
    assert sum(len(teller.told(node(f"n{number}"))) for number in range(30)) == 10


async def test_a_pod_tells_why_it_stopped_and_a_clique_who_scaled_it(plane: Plane) -> None:
    """From the running loops: reasons of plans and callers of calls arrive in stories and events."""
    await plane.put(worker(0, pods=9))
    await plane.apply(manifest([clique("a", 2)]))
    await plane.until_ready(2)
    smaller = replace(plane.one(PodClique, "s-0-a"), replicas=1, scale_owner=ScaleOwner.USER)
    await plane.store.commit([Put(smaller)], cause="api.scale", origin=Origin(actor="bob", request_id="q-7"))
    names = {pod.metadata.name for pod in plane.all(Pod)}
    await plane.until(lambda: len(plane.all(Pod)) == 1, "one pod is left")
    (gone,) = names - {pod.metadata.name for pod in plane.all(Pod)}
    chronicle = plane.control.chronicle
    life = chronicle.story(Key(Kind.POD, "default", gone)).transitions
    whats = [change.what for each in life for change in each.changes]
    assert whats[0] == "created"
    assert whats[-1] == "removed"
    assert {"node", "phase", "ready", "stopReason", "deleted"} <= set(whats)
    assert any("pods of s-0-a stop: ScaleIn" in each.origin.reason for each in life)
    assert "s-0-a lacks 2 of 2 pods" in life[0].origin.reason
    scaled = [each for each in chronicle.story(key_of(smaller)).transitions if each.cause == "api.scale"]
    assert [each.origin.actor for each in scaled] == ["bob"]
    await plane.until(lambda: "2 → 1 replicas, by bob" in messages(plane), "the event is written")


async def test_sets_and_nodes_are_announced(plane: Plane) -> None:
    """What others do to sets and nodes becomes events with fixed reasons."""
    await plane.put(worker(0, pods=9))
    await plane.apply(manifest([clique("a", 1)]))
    await plane.until_ready(1)
    state = plane.one(Node, worker(0).metadata.name)
    await plane.put(replace(state, ready=False))
    await plane.put(replace(plane.one(Node, state.metadata.name), ready=True, unschedulable=True))
    await plane.apply(manifest([clique("a", 1)], replicas=2))
    await plane.delete_set()
    await plane.until(lambda: plane.get(PodCliqueSet, "s") is None, "the set is gone")
    await plane.remove(plane.one(Node, state.metadata.name))
    wanted = {
        *("NodeAdded", "NodeNotReady", "NodeReady", "NodeCordoned", "NodeRemoved"),
        *("Created", "Scaled", "DeletionRequested", "Deleted"),
    }
    await plane.until(lambda: wanted <= {event.reason for event in plane.all(Event)}, "all is announced")


async def test_a_stopped_chronicle_hears_nothing(plane: Plane) -> None:
    """After the stop nothing is remembered any more; what was remembered stays."""
    chronicle: Chronicle = plane.control.chronicle
    await plane.put(worker(0, pods=9))
    chronicle.stop()
    await plane.put(worker(1))
    assert len(chronicle.story(key_of(worker(0))).transitions) == 1
    assert chronicle.story(key_of(worker(1))).transitions == ()


def messages(plane: Plane) -> set[str]:
    """Return what all events say."""
    return {event.message for event in plane.all(Event)}


def test_phases_are_told_as_plain_text(small_world: World) -> None:
    """A member of an enumeration is told by its value, a place by its name, a moment by yes and no."""
    before = small_world.pods()[0]
    after = replace(before, phase=PodPhase.RUNNING, node="n7", gpu_ids=(0, 3), ready_at=3.0)
    assert differences(before, after) == (
        Difference("node", "", "n7"),
        Difference("gpuIds", "", "0,3"),
        Difference("phase", "Pending", "Running"),
        Difference("ready", "no", "yes"),
    )
