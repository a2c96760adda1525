"""Consolidation in the background: who is helped, how many pods may move, and when nothing is done."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from grove_server.control.consolidator import LOOK_EVERY_S, PATIENCE_S, Consolidation, Consolidator
from grove_server.control.decisions import Decision
from grove_server.placement import GPU_RESOURCE, Cluster, GangRequest, Placement, PodShape, Verdict, place
from grove_server.placement.consolidation import ConsolidationLimits
from grove_server.placement.gang_facts import Spare
from grove_server.placement.occupancy import GangFacts, Occupancy, Seat
from grove_server.placement.relief import Relief, plan_relief
from grove_server.resources.cluster import Event, Node
from grove_server.resources.meta import Key
from tests.lifecycle_cases import Json, manifest
from tests.lifecycle_cases import clique as clique_template
from tests.placement_cases import clique, gang, gpu_node, gpus
from tests.planes import MovableClock, Plane, gang_key, worker
from tests.waiting import until


class _Scene:
    """Two servers of eight GPUs, half full with surplus pods of one GPU each, and who waits for them."""

    def __init__(self, *, moves_per_hour: int, budget: int = 8) -> None:
        self.clock = MovableClock()
        self.budget = budget
        self.cluster = Cluster(gpu_node(f"n{i}") for i in range(3))
        self.cluster.bind_pod("n2", gpus(5))
        self.occupancy = Occupancy()
        self.occupancy.set_gang(GangFacts(name="small", minimums=(("c", 1),)))
        for index, node in enumerate(("n0", "n1", "n0", "n1")):
            gpu_ids = self.cluster.bind_pod(node, gpus(1))
            seat = Seat(
                pod=f"p{index}", gang="small", clique="c", index=index, node=node, shape=gpus(1), gpu_ids=gpu_ids
            )
            self.occupancy.add_pods([seat])
        self.waiting: dict[Key, Decision] = {}
        self.handed: list[tuple[Key, Relief]] = []
        self.asked = 0
        self.consolidator = Consolidator(
            Consolidation(moves_per_hour_max=moves_per_hour),
            self.clock,
            waiting=self.waiting,
            generation=lambda: self.cluster.generation,
            plan=self._plan,
            hand_over=lambda key, relief: self.handed.append((key, relief)),
        )

    async def _plan(self, request: GangRequest, pods_max: int) -> Relief | Verdict:
        self.asked += 1
        limits = ConsolidationLimits(pods_max=pods_max)
        return plan_relief(
            self.cluster,
            self.occupancy,
            request,
            request_of=_request_of,
            budgets_of=lambda _: Spare((("c", self.budget),)),
            limits=limits,
        )

    def wait(self, name: str, shape: PodShape) -> None:
        """Let a gang of one pod wait from now on."""
        request = gang(clique("big", 1, shape), name=name)
        outcome = place(self.cluster, request)
        assert not isinstance(outcome, Placement)
        self.waiting[gang_key(name)] = Decision(request=request, outcome=outcome, since=self.clock.now())


def _request_of(name: str, seats: tuple[Seat, ...]) -> GangRequest:
    return gang(clique("c", len(seats), seats[0].shape), name=name)


async def test_surplus_moves_for_a_gang_that_has_waited() -> None:
    """A gang that lacks a whole server waits a minute; then few surplus pods move, and the plan is handed over."""
    scene = _Scene(moves_per_hour=10)
    scene.wait("big", gpus(8))
    assert not await scene.consolidator.look()
    assert scene.asked == 0
    scene.clock.advance(PATIENCE_S)
    assert await scene.consolidator.look()
    ((key, relief),) = scene.handed
    assert key == gang_key("big")
    assert len(relief.seats) <= 2
    assert relief.still_holds(scene.cluster)


async def test_the_budget_of_an_hour_is_kept() -> None:
    """What moves within an hour is no more than the policy says; after the hour it may go on."""
    scene = _Scene(moves_per_hour=2)
    scene.wait("big", gpus(8))
    scene.clock.advance(PATIENCE_S)
    assert await scene.consolidator.look()
    moved = len(scene.handed[0][1].seats)
    assert scene.consolidator.moves_left == 2 - moved == 0
    scene.cluster.set_schedulable(["n2"], schedulable=False)
    assert not await scene.consolidator.look()
    assert len(scene.handed) == 1
    scene.clock.advance(3_601)
    scene.cluster.set_schedulable(["n2"], schedulable=True)
    assert scene.consolidator.moves_left == 2
    assert await scene.consolidator.look()


async def test_nothing_moves_beyond_an_availability_budget() -> None:
    """If no surplus pod may be missing, or none would help, no plan is made, and nobody asks twice on one state."""
    scene = _Scene(moves_per_hour=10, budget=0)
    scene.wait("big", gpus(8))
    scene.clock.advance(PATIENCE_S)
    assert not await scene.consolidator.look()
    assert not await scene.consolidator.look()
    assert (scene.asked, scene.handed) == (1, [])


async def test_who_lacks_more_than_pieces_is_left_alone() -> None:
    """A gang that no node could hold is not planned for."""
    scene = _Scene(moves_per_hour=10)
    scene.wait("huge", gpus(16))
    scene.clock.advance(PATIENCE_S)
    assert not await scene.consolidator.look()
    assert scene.asked == 0


async def test_it_is_off_unless_moves_are_allowed() -> None:
    """Without moves the loop does not run; with some it looks from time to time."""
    off = _Scene(moves_per_hour=0)
    off.consolidator.start()
    assert off.consolidator.problem == ""
    assert off.consolidator._task is None
    scene = _Scene(moves_per_hour=10)
    scene.wait("big", gpus(8))
    scene.consolidator.start()

    def is_handed_over() -> bool:
        scene.clock.advance(LOOK_EVERY_S)
        return bool(scene.handed)

    await until(is_handed_over, "a plan was handed over")
    await scene.consolidator.stop()


async def test_a_gang_gets_the_node_that_surplus_left(tmp_path: Path) -> None:
    """Two half used nodes, a gang that needs a whole one: a surplus pod moves beside its clique, and all run."""
    plane = Plane(tmp_path / "grove.db", moves_per_hour=5)
    await plane.start()
    await plane.put(_node(0), _node(1))
    await plane.apply(manifest([_clique("c", 1, 1)], name="first"), uid="first")
    await plane.until_ready(1)
    await plane.apply(manifest([_clique("c", 2, 1)], name="small"), uid="small")
    await plane.until_ready(3)
    await plane.delete_set("first")
    await plane.until_ready(2)
    await plane.until_quiet()
    assert {pod.node for pod in plane.pods()} == {"n0", "n1"}
    await plane.apply(manifest([_clique("c", 1, 1, gpus=2)], name="big"), uid="big")
    await plane.until_quiet()
    assert plane.ready_count("big-0-c") == 0
    plane.clock.advance(PATIENCE_S)

    def is_running() -> bool:
        plane.clock.advance(LOOK_EVERY_S)
        return plane.ready_count("big-0-c") == 1

    await plane.until(is_running, "the gang runs on a whole node")
    await plane.until_ready(3)
    await plane.until_quiet()
    (node,) = {pod.node for pod in plane.pods("small-0-c")}
    assert [pod.node for pod in plane.pods("big-0-c")] != [node]
    await plane.until(
        lambda: any(each.reason == "Consolidated" and each.involved_name == "small-0" for each in plane.all(Event)),
        "told",
    )
    await plane.stop()


def _node(index: int) -> Node:
    node = worker(index, pods=9)
    return replace(node, allocatable={**node.allocatable, GPU_RESOURCE: "2"})


def _clique(name: str, replicas: int, minimum: int, *, gpus: int = 1) -> Json:
    container = {"name": "main", "image": "i", "resources": {"limits": {GPU_RESOURCE: str(gpus)}}}
    return clique_template(name, replicas, minimum, podSpec={"containers": [container]})
