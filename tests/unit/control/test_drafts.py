"""Drafts and scenes: what a round decided for a copy, seen by its later decisions, and written as one commit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from grove_server.control.decisions import Decision
from grove_server.control.drafts import MESSAGE_REFRESH_S, CopyDraft, CopyKey
from grove_server.control.scenes import Scenes
from grove_server.placement.cluster import Cluster
from grove_server.placement.gangs import ask_minimum
from grove_server.placement.old_places import taken
from grove_server.placement.place import place
from grove_server.placement.results import Placement
from grove_server.placement.shapes import node_state
from grove_server.placement.waiting import WAITING_FOR_BASE
from grove_server.resources.meta import Key, key_of
from grove_server.resources.workload import GangPhase, Pod, PodGang
from grove_server.store.interface import Put
from tests.lifecycle_cases import NOW, World, clique, world
from tests.planes import worker


class WorldReader:
    """The part of a store's reader that scenes and drafts use, over a world."""

    def __init__(self, made: World) -> None:
        self._world = made

    def get(self, kind: Any, namespace: str, name: str) -> Any:  # noqa: ANN401 -- as the reader's
        """Return one resource."""
        return self._world.rows.get(Key(kind.kind, namespace, name))

    def list(self, kind: Any) -> Sequence[Any]:  # noqa: ANN401 -- as the reader's
        """Return all resources of a kind."""
        return self._world.of(kind)

    def indexed(self, index: str, value: tuple[Any, ...]) -> Sequence[Pod]:
        """Return the pods of a gang or a copy."""
        if index == "pods_by_gang":
            return [pod for pod in self._world.of(Pod) if pod.identity.gang == value[1]]
        return [pod for pod in self._world.of(Pod) if pod.identity.copy == value[1]]


def prepared(size: int, minimum: int, *, rooms: int) -> tuple[World, WorldReader, Scenes, Cluster, CopyDraft]:
    """Return a set of one clique, and what a round needs to place it on a node with so many rooms."""
    made = world([clique("a", size, minimum)])
    made.settle()
    reader = WorldReader(made)
    cluster = Cluster([node_state(worker(0, pods=rooms))])
    store: Any = SimpleNamespace(read=lambda: reader)
    return made, reader, Scenes(store, cluster), cluster, CopyDraft(CopyKey("set-uid", 0))


def take_minimum(made: World, scenes: Scenes, cluster: Cluster, draft: CopyDraft) -> Placement:
    """Decide the minimum of the base gang and put it into the draft."""
    gang = made.one(PodGang, "s-0")
    [ask] = ask_minimum(scenes.scene(gang, draft))
    placement = place(cluster, ask.request)
    assert isinstance(placement, Placement)
    part = taken(cluster, ask, placement)
    draft.take(gang, ask, part, NOW)
    return part


def test_a_taken_minimum_is_one_commit_with_its_gang() -> None:
    """Pods get their node at the version they were decided on, and the gang says that it is placed."""
    made, reader, scenes, cluster, draft = prepared(3, 2, rooms=3)
    part = take_minimum(made, scenes, cluster, draft)
    assert [len(c.bindings) for c in part.cliques] == [2]
    any_reader: Any = reader
    changes = draft.changes(any_reader, NOW, scenes.standing)
    puts = {key_of(change.resource): change for change in changes if isinstance(change, Put)}
    pods = [change.resource for change in puts.values() if isinstance(change.resource, Pod)]
    assert {pod.node for pod in pods} == {"n0"}
    assert len(pods) == 2
    for change in puts.values():
        assert change.expected == made.rows[key_of(change.resource)].resource_version
    [gang] = [change.resource for change in puts.values() if isinstance(change.resource, PodGang)]
    assert (gang.status.phase, gang.status.scheduled_at) == (GangPhase.STARTING, NOW)
    assert [g.metadata.name for g in draft.newly_placed] == ["s-0"]


def test_a_scene_sees_the_rounds_own_decisions() -> None:
    """What the draft took is bound in the next scene of the same round, though nothing is written yet."""
    made, _, scenes, cluster, draft = prepared(3, 2, rooms=3)
    gang = made.one(PodGang, "s-0")
    assert scenes.scene(gang, draft).pods.bound == {}
    take_minimum(made, scenes, cluster, draft)
    scene = scenes.scene(gang, draft)
    assert len(scene.pods.bound["s-0-a"]) == 2
    assert len(scene.pods.unbound["s-0-a"]) == 1
    assert scenes.scene(gang, CopyDraft(draft.key)).pods.bound == {}


def test_waiting_is_written_once() -> None:
    """A new reason goes to gang and pods; the same one writes nothing, a new sentence only after a while."""
    made, reader, scenes, _, draft = prepared(2, 2, rooms=1)
    any_reader: Any = reader
    gang = made.one(PodGang, "s-0")
    decision = Decision(waiting_reason=WAITING_FOR_BASE, waiting_message="its base is not placed")
    draft.wait(gang, scenes.scene(gang, draft), decision, NOW)
    assert draft.touched == {key_of(gang)}
    changes = draft.changes(any_reader, NOW, scenes.standing)
    [told] = [c.resource for c in changes if isinstance(c, Put) and isinstance(c.resource, PodGang)]
    assert (told.status.reason, told.status.message) == (WAITING_FOR_BASE, "its base is not placed")
    made.put(told)
    other = replace(decision, waiting_message="another sentence")
    for later_s, is_written in ((0.0, False), (MESSAGE_REFRESH_S, True)):
        again = CopyDraft(draft.key)
        again.wait(told, scenes.scene(told, again), other, NOW + later_s)
        written = [
            c
            for c in again.changes(any_reader, NOW, scenes.standing)
            if isinstance(c, Put) and isinstance(c.resource, PodGang)
        ]
        assert bool(written) is is_written


def test_a_gang_that_is_gone_is_left_out() -> None:
    """A draft about a gang that was removed meanwhile does not bring it back."""
    made, reader, scenes, cluster, draft = prepared(2, 2, rooms=2)
    take_minimum(made, scenes, cluster, draft)
    del made.rows[key_of(made.one(PodGang, "s-0"))]
    any_reader: Any = reader
    changes = draft.changes(any_reader, NOW, scenes.standing)
    assert not [c for c in changes if isinstance(c, Put) and isinstance(c.resource, PodGang)]
