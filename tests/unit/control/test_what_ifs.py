"""What-ifs say what an apply then does: rules between pods, copies apart, nearness, queues, places kept for others."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace

import pytest

from grove_server.control.planning import PlannedSets, _while_wanted
from grove_server.placement.clearing import plan_clearing
from grove_server.placement.consolidation import Move
from grove_server.placement.moment import Moment, Running
from grove_server.placement.preemption import VictimKind
from grove_server.placement.requests import Budget
from grove_server.placement.results import CliquePlacement, Placement, PodBinding
from grove_server.placement.rounds import AbandonedError
from grove_server.placement.waiting import NOT_ANSWERED, QUEUE_BLOCKED, QUEUE_LIMIT, WAITING_FOR_PODS
from grove_server.placement.whatif import NO_CHANGE, ClusterChange, WhatIf, ask_what_if
from grove_server.resources.meta import Metadata, key_of
from grove_server.resources.priority import PriorityClass
from grove_server.resources.queues import QUEUE, QUEUE_UNKNOWN, STRICT, Queue, QueueSpec
from grove_server.resources.workload import PodCliqueSet, PodGang
from tests.lifecycle_cases import Json, admitted, clique, deleted, group, manifest, pack
from tests.planes import Plane, binding, worker

RACK, HOST = "example.com/rack", "example.com/host"
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


def affine(kind: str, app: str, key: str = RACK) -> Json:
    """Return a pod spec with one required term about pods of an app."""
    term = {"topologyKey": key, "labelSelector": {"matchLabels": {"app": app}}}
    return {
        "containers": [{"name": "main", "image": "registry.example/app:1"}],
        "affinity": {kind: {REQUIRED: [term]}},
    }


def in_queue(name: str, queue: str, size: int, minimum: int | None = None) -> Json:
    """Return a set of one clique in a queue."""
    document = manifest([clique("a", size, minimum)], name=name)
    return document | {"metadata": {"name": name, "labels": {QUEUE: queue}}}


def a_queue(name: str, **spec: object) -> Queue:
    """Return a queue."""
    return Queue(metadata=Metadata(name=name, uid=f"queue-{name}"), spec=QueueSpec(**spec))  # type: ignore[arg-type]  # any field


async def asked(
    plane: Plane, *documents: Json, queues: tuple[Queue, ...] = (), change: ClusterChange = NO_CHANGE
) -> PlannedSets:
    """Ask what would happen to sets."""
    owners = [
        admitted(
            each,
            plane.get(PodCliqueSet, each["metadata"]["name"]),
            uid=each["metadata"]["name"],
            now=plane.clock.now(),
        )
        for each in documents
    ]
    return await plane.control.planning.simulate(owners, [], gang_count_max=100, queues=queues, change=change)


def told(answer: PlannedSets) -> dict[str, tuple[bool, str]]:
    """Return by gang whether it would fit, and why not."""
    return {gang.name: (gang.fits, "" if gang.fits else gang.decision.reason) for gang in answer.gangs}


def happened(plane: Plane, *sets: str) -> dict[str, tuple[bool, str]]:
    """Return by gang whether its minimum has nodes, and why not."""
    gangs = [gang for gang in plane.all(PodGang) if not sets or gang.set_name in sets]
    return {
        gang.metadata.name: (
            gang.status.scheduled_at is not None,
            "" if gang.status.scheduled_at else gang.status.reason,
        )
        for gang in gangs
    }


async def same(plane: Plane, document: Json) -> dict[str, tuple[bool, str]]:
    """Ask, apply, and check that the one says what the other does; return what that is."""
    name = document["metadata"]["name"]
    said = told(await asked(plane, document))
    await plane.apply(document, uid=name)
    await plane.until(
        lambda: len(found := happened(plane, name)) == len(said) and all(fits or why for fits, why in found.values()),
        "every gang is decided",
    )
    await plane.until_quiet()
    assert happened(plane, name) == said
    return said


async def test_pods_that_run_keep_others_away(plane: Plane) -> None:
    """A set that keeps apart from pods that run, and one that pods which run keep apart from, get the same answer."""
    await plane.put(*(worker(i, pods=4) for i in range(4)))
    await plane.apply(manifest([clique("a", labels={"app": "x"})], name="one"), uid="one")
    await plane.until_ready(1)
    apart = [clique("b", 2, podSpec=affine("podAntiAffinity", "x"), labels={"app": "y"})]
    assert await same(plane, manifest(apart, name="two")) == {"two-0": (True, "")}
    block = [clique("c", podSpec=affine("podAntiAffinity", "x", "example.com/block"))]
    assert not (await same(plane, manifest(block, name="three")))["three-0"][0]
    mine = [clique("d", 8, labels={"app": "x"})]
    assert not (await same(plane, manifest(mine, name="four")))["four-0"][0]


async def test_who_follows_others_is_told_where_they_are(plane: Plane) -> None:
    """Required affinity is answered by pods that run, and by none if there are none."""
    await plane.put(*(worker(i, pods=2) for i in range(4)))
    near = [clique("b", 2, podSpec=affine("podAffinity", "x"))]
    assert not told(await asked(plane, manifest(near, name="two")))["two-0"][0]
    await plane.apply(manifest([clique("a", 2, labels={"app": "x"})], name="one"), uid="one")
    await plane.until_ready(2)
    assert await same(plane, manifest(near, name="two")) == {"two-0": (True, "")}
    assert {pod.node for pod in plane.pods()} in ({"n0", "n1"}, {"n2", "n3"})


async def test_copies_that_must_spread_run_out_of_racks(plane: Plane) -> None:
    """The copy for which no rack is left waits in the answer too, for a new set and for one that is replaced."""
    await plane.put(binding(), *(worker(i, pods=2) for i in range(4)))
    document = manifest([clique("a", 2)], replicas=3)
    document["metadata"]["annotations"] = {"grove.io/spread-copies": "rack", "grove.io/spread-copies-required": "true"}
    found = await same(plane, document)
    assert sorted(fits for fits, _ in found.values()) == [False, True, True]
    assert told(await asked(plane, document)) == found


async def test_equal_gangs_that_do_not_fit_speak_of_themselves(plane: Plane) -> None:
    """Of equal copies without room one is decided; each names its own parts."""
    await plane.put(worker(0))
    document = manifest([clique("a", 2), clique("b", 1)], replicas=3)
    gangs = (await asked(plane, document)).gangs
    texts = [gang.decision.message.replace(gang.name, "s-N") for gang in gangs]
    assert [gang.fits for gang in gangs] == [False] * 3
    assert len(set(texts)) == 1
    scopes = [gang.decision.outcome.scope for gang in gangs]  # type: ignore[union-attr]  # verdicts, all of them
    assert all(
        scope in {"", gang.name} or scope.startswith(gang.name) for scope, gang in zip(scopes, gangs, strict=True)
    )


async def test_near_is_asked_for_in_what_ifs(plane: Plane) -> None:
    """A router near its decoders is put in their rack by the answer, as by the server."""
    await plane.put(binding(), *(worker(i, pods=2) for i in range(8)))
    cliques = [clique("router", annotations={"grove.io/near": "decode"}), clique("leader"), clique("worker", 2)]
    document = manifest(cliques, [group("decode", ["leader", "worker"])])
    [gang] = (await asked(plane, document)).gangs
    placement = gang.decision.outcome
    assert placement is not None
    nodes = {binding.node for each in placement.cliques for binding in each.bindings}  # type: ignore[union-attr]  # it fits
    await same(plane, document)
    assert nodes == {pod.node for pod in plane.pods()}


async def test_a_limit_holds_in_what_ifs(plane: Plane) -> None:
    """Minimum and surplus are bound by limits, also of queues that come with the question."""
    await plane.put(*(worker(i) for i in range(6)), a_queue("q", limit={"pods": "3"}))
    assert await same(plane, in_queue("s", "q", 2)) == {"s-0": (True, "")}
    assert await same(plane, in_queue("t", "q", 2)) == {"t-0": (False, QUEUE_LIMIT)}
    [gang] = (await asked(plane, in_queue("u", "q", 3, 1))).gangs
    assert (gang.fits, gang.surplus_placed, gang.surplus_count) == (True, 0, 2)
    assert gang.decision.message == ""
    for limit, placed in (("5", 0), ("7", 1)):
        # The one that waits is before it.
        raised = a_queue("q", limit={"pods": limit})
        [gang] = (await asked(plane, in_queue("u", "q", 3, 1), queues=(raised,))).gangs
        assert (gang.fits, gang.surplus_placed) == (True, placed)


async def test_an_unknown_queue_takes_no_gangs(plane: Plane) -> None:
    """A gang of a queue that is nowhere waits; if the queue comes with the question it does not."""
    await plane.put(worker(0))
    document = in_queue("s", "nowhere", 1)
    assert told(await asked(plane, document, queues=(a_queue("nowhere"),))) == {"s-0": (True, "")}
    assert await same(plane, document) == {"s-0": (False, QUEUE_UNKNOWN)}


async def test_a_strict_line_holds_in_what_ifs(plane: Plane) -> None:
    """Behind a gang that waits in a strict queue a small one waits too, on the server and in the answer."""
    await plane.put(*(worker(i) for i in range(2)), a_queue("q", blocking=STRICT))
    assert not (await same(plane, in_queue("s", "q", 3)))["s-0"][0]
    assert await same(plane, in_queue("t", "q", 1)) == {"t-0": (False, QUEUE_BLOCKED)}
    without = ClusterChange(sets_gone=(("default", "s"),))
    assert told(await asked(plane, in_queue("t", "q", 1), change=without)) == {"t-0": (True, "")}


async def test_a_queue_takes_back_in_what_ifs(plane: Plane) -> None:
    """Who would have to leave a queue that borrows is named, as the server then lets it go."""
    await plane.put(*(worker(i) for i in range(4)))
    await plane.put(a_queue("red", guarantee={"pods": "2"}), a_queue("blue", guarantee={"pods": "2"}))
    for name in ("a", "b", "c", "d"):
        await plane.apply(in_queue(name, "blue", 1), uid=name)
    await plane.until_ready(4)
    [gang] = (await asked(plane, in_queue("s", "red", 2))).gangs
    assert gang.eviction is not None
    victims = {victim.gang.removeprefix("default/") for victim in gang.eviction.victims}
    await plane.apply(in_queue("s", "red", 2), uid="s")
    await plane.until(lambda: happened(plane, "s").get("s-0", (False, ""))[0], "it takes its places")
    await plane.until_quiet()
    assert {gang for gang, (fits, _) in happened(plane).items() if not fits} == victims
    assert len(victims) == 2


async def test_what_is_set_aside_is_closed_to_what_ifs(plane: Plane) -> None:
    """A domain set aside for a gang that waited is closed to the question, unless that gang's set is asked about."""
    await plane.put(binding(), *(worker(i) for i in range(4)), a_queue("q", earmark_after="10s"))
    await plane.apply(in_queue("old", "q", 1), uid="old")
    await plane.until_ready(1)
    large = manifest([clique("a", 2)], name="large", topologyConstraint=pack(required="rack"))
    large["metadata"]["labels"] = {QUEUE: "q"}
    await plane.set_nodes("n2", "n3", unschedulable=True)
    await plane.apply(large, uid="large")
    await plane.until(lambda: happened(plane, "large").get("large-0", (True, ""))[1] != "", "it waits")
    plane.clock.advance(11)
    await plane.until(lambda: bool(plane.control.placement.room.set_asides.earmarks), "a rack is set aside")
    await plane.until_quiet()
    found = await same(plane, in_queue("new", "q", 1))
    assert not found["new-0"][0]


async def test_a_drained_gang_whose_other_pod_leaves_waits_for_it(plane: Plane) -> None:
    """Its successor does not exist yet: the gang says so, and its other pod waits with it."""
    await plane.put(*(worker(i) for i in range(4)))
    await plane.apply(manifest([clique("a"), clique("b")]))
    await plane.until_ready(2)
    a, b = plane.pods()
    pods = [a, deleted(b, plane.clock.now())]
    held = plane.control.placement.desk.holdings
    running = [Running(pod, *holding) for pod in pods if (holding := held.get(key_of(pod)))]
    moment = Moment(plane.control.placement.cluster.fork(), plane.all(PodGang), running, {})
    assert [seat.gang[0] for seat in moment.occupancy().seats if seat] == ["d", "~"]
    [displaced] = moment.drain([a.node])
    assert moment.trial().decide_minimum(displaced).waiting_reason == WAITING_FOR_PODS


async def test_a_class_that_comes_with_the_question_counts(plane: Plane) -> None:
    """A PriorityClass of the question lets its gang displace what has less."""
    await plane.put(worker(0))
    await plane.apply(manifest([clique("a")]))
    await plane.until_ready(1)
    high = PriorityClass(metadata=Metadata(name="high"), value=10)
    owner = admitted(manifest([clique("a")], name="t", priorityClassName="high"), uid="t", now=plane.clock.now())
    answer = await plane.control.planning.simulate([owner], [], gang_count_max=10, classes=[high])
    [gang] = answer.gangs
    assert gang.eviction is not None
    assert [victim.gang for victim in gang.eviction.victims] == ["default/s-0"]


async def test_a_caller_who_leaves_stops_the_thread(plane: Plane) -> None:
    """The thread hears of it, and the next question is answered."""
    planning = plane.control.planning
    began, ended = threading.Event(), threading.Event()

    def body(is_abandoned: Callable[[], bool]) -> None:
        began.set()
        while not is_abandoned():
            pass
        ended.set()

    task = asyncio.create_task(planning._think(body))
    await plane.until(began.is_set, "it began")
    task.cancel()
    await plane.until(ended.is_set, "it ended")
    assert await planning.draw() is not None


async def test_a_plan_of_moves_ends_when_nobody_waits(plane: Plane) -> None:
    """The first gang that would move asks, and the plan ends there."""
    await plane.put(*(replace(worker(i, pods=2), unschedulable=i > 0) for i in range(2)))
    await plane.apply(manifest([clique("a")], name="one"), uid="one")
    await plane.until_ready(1)
    await plane.set_nodes("n0", unschedulable=True)
    await plane.set_nodes("n1", unschedulable=False)
    await plane.apply(manifest([clique("a")], name="two"), uid="two")
    await plane.until_ready(2)
    await plane.set_nodes("n0", unschedulable=False)
    await plane.until_quiet()
    moment = plane.control.planning._moment({})()
    request_of = _while_wanted(moment.request_of, lambda: True)
    with pytest.raises(AbandonedError):
        plan_clearing(moment.cluster, moment.occupancy(), (HOST,), HOST, request_of=request_of)


async def test_a_question_without_work_left_says_so(plane: Plane) -> None:
    """Gangs that the budget did not reach are told to be unanswered, and those before them as they are."""
    await plane.put(*(worker(i) for i in range(4)))
    take = plane.control.planning._moment()
    owners = [admitted(manifest([clique("a")], name=f"s{n}"), uid=f"s{n}") for n in range(4)]
    answer = ask_what_if(take(), WhatIf(sets=owners, budget=Budget(steps_max=4)))
    assert answer.is_cut
    assert [each.fits for each in answer.answers] == [True, True, False, False]
    assert {each.waiting_reason for each in answer.answers if not each.fits} == {NOT_ANSWERED}
    whole = ask_what_if(take(), WhatIf(sets=owners))
    assert not whole.is_cut


async def test_who_waits_takes_the_room_that_a_question_frees(plane: Plane) -> None:
    """A what-if that frees a place does not promise it to a new set when an older one waits for it."""
    await plane.put(worker(0))
    await same(plane, manifest([clique("a")], name="first"))
    await same(plane, manifest([clique("a")], name="second"))
    without = ClusterChange(sets_gone=(("default", "first"),))
    assert not told(await asked(plane, manifest([clique("a")], name="third"), change=without))["third-0"][0]


async def test_a_pod_that_may_stay_is_no_move(plane: Plane) -> None:
    """Of a gang that moves, pods whose node is among the new places stay there and are not listed."""
    await plane.put(*(worker(i) for i in range(3)))
    await plane.apply(manifest([clique("a", 2)]))
    await plane.until_ready(2)
    moment = plane.control.planning._moment()()
    pods = tuple(f"default/{pod.metadata.name}" for pod in plane.pods())
    there = [pod.node for pod in plane.pods()]
    (free,) = {"n0", "n1", "n2"} - set(there)
    shape = moment.stage.shape_of(plane.pods()[0].template)
    bindings = (PodBinding(free, ()), PodBinding(there[0], ()))
    places = CliquePlacement(name=plane.pods()[0].identity.name, shape=shape, minimum=2, bindings=bindings)
    placement = Placement(gang="s-0", cliques=(places,), domains=(), score=1.0, reasons=(), generation=0)
    move = Move(gang="default/s-0", kind=VictimKind.GANG, pods=pods, placement=placement)
    assert [(each.from_node, each.to_node) for each in moment.moved(move)] == [(there[1], free)]
