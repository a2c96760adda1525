"""Pods leave nodes that are lost or drained, and rows of pods that cannot stop are removed as the policy says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from grove_server.lifecycle.budget import room
from grove_server.lifecycle.orders import CopyOrders, NodeTrouble, RouterLease
from grove_server.lifecycle.rollout.progress import advance
from grove_server.lifecycle.set_pass import with_set_status
from grove_server.resources.workload import Pod, PodClique
from tests.lifecycle_cases import NOW, Json, World, admitted, clique, deleted, group, lost, manifest, ready, world


def running(cliques: list[Any], groups: list[Any] | None = None) -> World:
    """Return a copy that runs, each pod on a node of its own that is called as its clique and index."""
    made = world(cliques, groups or [], terminationDelay="never")
    made.settle()
    made.change_pods(lambda pod: ready(replace(pod, node=place(pod))))
    made.settle()
    return made


def place(pod: Pod) -> str:
    """Return the node a pod gets."""
    return f"{pod.identity.name.removeprefix('s-0-')}-{pod.index}"


def down(*nodes: str, since: float = NOW, **more: Any) -> CopyOrders:  # noqa: ANN401 -- any field of the orders
    """Return orders with nodes that are not ready."""
    return CopyOrders(nodes={node: NodeTrouble(not_ready_since=since) for node in nodes}, **more)


def draining(*nodes: str, **more: Any) -> CopyOrders:  # noqa: ANN401 -- any field of the orders
    """Return orders with nodes that are drained."""
    return CopyOrders(nodes={node: NodeTrouble(draining_since=NOW) for node in nodes}, **more)


def leaving(made: World) -> dict[str, str]:
    """Return the nodes of pods that were asked to stop or drain, and why."""
    return {pod.node: pod.stop_reason for pod in made.of(Pod) if pod.is_terminating or pod.is_draining}


def replace_left(made: World) -> None:
    """Let what left be gone and its replacements serve on new nodes."""
    made.reap()
    made.run([pod for pod in made.pods() if not pod.node])
    made.settle()


def test_pods_of_a_node_that_is_not_ready_are_replaced() -> None:
    """#434: after the eviction delay the pods of a node that does not answer are stopped and made anew."""
    made = running([clique("a", 2)])
    made.orders = down("a-0")
    made.change_pods(lost, made.pods()[:1])
    made.settle()
    assert made.plan()[0].wake_at == NOW + 300
    made.now += 299
    made.settle()
    assert leaving(made) == {}
    made.now += 1
    made.settle()
    assert leaving(made) == {"a-0": "NodeLost"}
    assert [(p.index, p.node) for p in made.pods()] == [(0, ""), (1, "a-1")]


def test_a_flapping_node_keeps_its_pods() -> None:
    """Each time the node comes back its time begins anew."""
    made = running([clique("a")])
    for _ in range(5):
        made.now += 299
        made.orders = down("a-0", since=made.now)
        made.settle()
        made.orders = CopyOrders()
        made.settle()
    assert leaving(made) == {}


def test_the_delay_is_a_setting() -> None:
    """A delay of 0 evicts at once."""
    made = running([clique("a")])
    made.orders = down("a-0", node_eviction_delay_s=0)
    made.settle()
    assert leaving(made) == {"a-0": "NodeLost"}


def test_a_stuck_pod_is_removed_after_its_grace_and_a_while() -> None:
    """#401, #466: a pod that cannot confirm its end does not hold its place for ever."""
    made = running([clique("a", 2)])
    made.change_pods(deleted, made.pods()[:1])
    made.orders = down("a-0")
    made.settle()
    assert made.one(PodClique, "s-0-a").status.terminating_replicas == 1
    assert made.plan()[0].wake_at == NOW + 90
    made.now += 90
    plan = made.step()
    assert [(note.reason, note.type) for note in plan.notes] == [("StuckPodRemoved", "Warning")]
    assert "a-0 is not ready" in plan.notes[0].message
    assert len(made.of(Pod)) == 2
    assert made.one(PodClique, "s-0-a").status.terminating_replicas == 0


def test_a_pod_asked_to_stop_long_before_its_node_failed_gets_the_whole_time() -> None:
    """The time of a stuck pod runs from the failure of its node at the earliest."""
    made = running([clique("a")])
    made.change_pods(deleted)
    made.now += 1_000
    made.orders = down("a-0", since=made.now)
    made.settle()
    assert made.plan()[0].wake_at == made.now + 60


@pytest.mark.parametrize("orders", [CopyOrders(), down("a-0", removes_stuck=False), draining("a-0")])
def test_other_stopping_pods_stay(orders: CopyOrders) -> None:
    """On a node that is well, or with the policy Wait, only whoever runs a pod ends it."""
    made = running([clique("a")])
    made.change_pods(deleted)
    made.orders = orders
    made.settle()
    made.now += 1_000_000
    made.settle()
    assert leaving(made) == {"a-0": ""}


def test_a_copy_goes_although_its_node_is_lost() -> None:
    """A copy that is scaled in is gone when its stuck pods are removed."""
    made = running([clique("a")])
    made.orders = down("a-0")
    made.owner = replace(made.owner, spec=replace(made.owner.spec, replicas=0))
    made.settle()
    assert leaving(made) == {"a-0": "ScaleIn"}
    assert made.plan()[0].wake_at == NOW + 90
    made.now += 90
    made.settle()
    assert made.rows == {}


def test_a_drained_node_gives_its_pods_back_one_at_a_time() -> None:
    """Each pod of a clique that serves leaves only when the one before it is replaced and serves."""
    made = running([clique("a", 4)])
    made.orders = draining("a-1", "a-2", "a-3")
    made.settle()
    seen = [leaving(made)]
    for _ in range(2):
        replace_left(made)
        seen.append(leaving(made))
    assert seen == [{node: "NodeDrained"} for node in ("a-1", "a-2", "a-3")]
    replace_left(made)
    assert leaving(made) == {}
    assert len(made.pods()) == 4


def test_nothing_more_leaves_while_a_replacement_waits() -> None:
    """A replacement that finds no node stops the drain there."""
    made = running([clique("a", 3)])
    made.orders = draining("a-0", "a-1")
    made.settle()
    made.reap()
    for _ in range(3):
        made.now += 1_000
        made.settle()
    assert leaving(made) == {}
    assert [pod.node for pod in made.pods()] == ["", "a-1", "a-2"]


def test_pods_that_do_not_serve_leave_at_once() -> None:
    """Replacing what does not serve costs nothing, so it asks no budget; what serves then has to wait."""
    made = running([clique("a", 4, 1)])
    made.change_pods(lost, made.pods()[:2])
    made.settle()
    made.orders = draining("a-0", "a-1", "a-2", "a-3")
    made.settle()
    assert leaving(made) == {"a-0": "NodeDrained", "a-1": "NodeDrained"}


def test_groups_lose_one_replica_at_a_time() -> None:
    """The unit of a group is its replica: its pods on drained nodes leave together, those elsewhere stay."""
    made = running([clique("b"), clique("c", 2)], [group("g", ["b", "c"], 3, 1)])
    made.orders = draining("g-0-b-0", "g-0-c-0", "g-1-b-0", "g-2-c-0", "g-2-c-1")
    made.settle()
    seen = [set(leaving(made))]
    for _ in range(2):
        replace_left(made)
        seen.append(set(leaving(made)))
    assert seen == [{"g-0-b-0", "g-0-c-0"}, {"g-1-b-0"}, {"g-2-c-0", "g-2-c-1"}]


def test_a_group_replica_that_does_not_serve_leaves_at_once() -> None:
    """The pods of a broken replica leave beside those that the budget allows, not in addition to its room."""
    made = running([clique("b"), clique("c")], [group("g", ["b", "c"], 3, 1)])
    made.change_pods(lost, made.pods("s-0-g-2-c"))
    made.settle()
    made.orders = draining("g-0-b-0", "g-2-b-0")
    made.settle()
    assert set(leaving(made)) == {"g-2-b-0"}


def test_cliques_and_groups_have_budgets_of_their_own() -> None:
    """One unit of each clique and group may leave at the same time."""
    made = running([clique("a", 2), clique("x", 2), clique("b")], [group("g", ["b"], 2, 1)])
    made.orders = draining("a-0", "a-1", "x-0", "g-0-b-0", "g-1-b-0")
    made.settle()
    assert set(leaving(made)) == {"a-0", "x-0", "g-0-b-0"}


def test_routers_leave_a_drained_node_first() -> None:
    """A ready pod on a drained node drains its routers before it stops, and counts as unavailable meanwhile."""
    made = running([clique("a", 2)])
    made.orders = draining("a-0", "a-1", routers=(RouterLease(router="r", expires_at=NOW + 1_000),))
    made.settle()
    assert {pod.node for pod in made.of(Pod) if pod.is_draining} == {"a-0"}
    assert not any(pod.is_terminating for pod in made.of(Pod))


def test_ending_a_drain_ends_it() -> None:
    """When people take the drain back, what has not left stays."""
    made = running([clique("a", 3)])
    made.orders = draining("a-0", "a-1", "a-2")
    made.settle()
    made.orders = CopyOrders()
    replace_left(made)
    assert leaving(made) == {}
    assert {pod.node for pod in made.pods()} >= {"a-1", "a-2"}


def test_a_drain_knows_the_size_that_is_wanted_now() -> None:
    """When an edit of the template makes a clique larger in the same pass, a drain counts from the new size."""
    made = running([clique("a", 3, 1)])
    made.orders = draining("a-0", "a-1", "a-2")
    made.apply(manifest([clique("a", 5, 1)], terminationDelay="never"))
    made.step()
    assert leaving(made) == {}
    assert len(made.pods()) == 5


def test_an_update_and_a_drain_in_one_pass_share_the_budget() -> None:
    """A drain goes first, and an update takes what that leaves of the budget; the plan leaves nothing to do again."""
    made = running([clique("a", 4, 1), clique("b")], [group("g", ["b"], 4, 1)])
    image: dict[str, Any] = {"podSpec": {"containers": [{"name": "main", "image": "registry.example/app:2"}]}}
    made.apply(
        manifest(
            [clique("a", 4, 1, **image), clique("b", **image)], [group("g", ["b"], 4, 1)], terminationDelay="never"
        )
    )
    made.owner = with_set_status(
        made.owner, made.totals, None, advance(made.owner, made.totals, now=made.now, settle_s=0.0), now=made.now
    )
    made.orders = draining("a-2", "g-2-b-0")
    made.step()
    assert leaving(made) == {"a-2": "NodeDrained", "g-2-b-0": "NodeDrained"}
    assert len([pod for pod in made.pods() if pod.is_ready]) == 6


@pytest.mark.parametrize(
    ("desired", "available", "max_unavailable", "expected"),
    [(3, 3, 1, 1), (3, 2, 1, 0), (3, 0, 1, 0), (3, 5, 1, 3), (3, 3, 5, 3), (0, 2, 1, 2), (3, 3, 0, 0)],
)
def test_the_room_of_a_budget(desired: int, available: int, max_unavailable: int, expected: int) -> None:
    """What serves may be taken down to the wanted size less what may be missing, and never more than there is."""
    assert room(desired=desired, available=available, max_unavailable=max_unavailable) == expected


def test_an_extra_replica_that_stands_in_for_others_stays() -> None:
    """While an update surges, an extra replica counts as one of those that serve, for the drain of its node, too."""

    def document(version: int) -> Json:
        image = {"containers": [{"name": "main", "image": f"registry.example/app:{version}"}]}
        surging = group("g", ["m"], 3, 1)
        surging["rollingUpdate"] = {"maxUnavailable": 0, "maxSurge": 1}
        return manifest([clique("m", podSpec=image)], [surging])

    made = World(owner=admitted(document(0)))
    made.settle()
    made.run()
    made.settle()
    made.apply(document(1))
    made.settle()
    made.change_pods(lambda pod: ready(replace(pod, node=place(pod))))
    made.settle()
    # The extra one serves, one of the others is made anew, and another is lost.
    made.change_pods(lost, [pod for pod in made.pods() if pod.identity.group_replica == 1])
    made.settle()
    assert sorted(pod.identity.group_replica for pod in made.pods() if pod.is_ready) == [2, 3]
    made.orders = draining("g-3-m-0")
    made.settle()
    assert "g-3-m-0" not in leaving(made)
