"""Queues in the running loops: limits, turns, strict lines, what is taken back, and domains set aside."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from grove_server.placement.waiting import QUEUE_BLOCKED, QUEUE_LIMIT
from grove_server.resources.cluster import Event
from grove_server.resources.meta import Metadata, find_condition
from grove_server.resources.queues import QUEUE, QUEUE_NOT_LEAF, QUEUE_UNKNOWN, STRICT, Queue, QueueSpec
from grove_server.resources.workload import Pod, PodCliqueSet, PodGang
from grove_server.telemetry import metrics
from tests.lifecycle_cases import Json, clique, manifest, pack
from tests.planes import Plane, binding, worker


def queue(name: str, **spec: Any) -> Queue:  # noqa: ANN401 -- any field of a spec
    """Return a queue."""
    return Queue(metadata=Metadata(name=name, uid=f"queue-{name}"), spec=QueueSpec(**spec))


def in_queue(name: str, in_: str, size: int, minimum: int | None = None, **template: Any) -> Json:  # noqa: ANN401 -- any field of a template
    """Return a set of one clique in a queue."""
    document = manifest([clique("a", size, minimum)], name=name, **template)
    return document | {"metadata": {"name": name, "labels": {QUEUE: in_}}}


def bound(plane: Plane, name: str) -> list[Pod]:
    """Return the pods of a set that have a node."""
    return [pod for pod in plane.pods() if pod.identity.set_name == name and pod.node]


def gang_reason(plane: Plane, name: str) -> str:
    """Return why a gang waits."""
    found = plane.get(PodGang, name)
    return "" if found is None else found.status.reason


async def runs(plane: Plane, name: str, count: int) -> None:
    """Wait until exactly so many pods of a set have nodes and nothing happens any more."""
    await plane.until(lambda: len(bound(plane, name)) == count, f"{count} pods of {name} have nodes")
    await plane.until_quiet()
    assert len(bound(plane, name)) == count


async def waits(plane: Plane, gang: str, reason: str) -> None:
    """Wait until a gang says why it waits and nothing happens any more."""
    await plane.until(lambda: gang_reason(plane, gang) == reason, f"{gang} waits: {reason}")
    await plane.until_quiet()


async def workers(plane: Plane, count: int, **fields: Any) -> None:  # noqa: ANN401 -- any field of a node
    """Add workers with room for one pod each."""
    await plane.put(*(worker(i, **fields) for i in range(count)))


async def test_a_limit_holds_whatever_is_free(plane: Plane) -> None:
    """A gang over its queue's limit waits with the numbers; it runs when others of the queue are gone."""
    await workers(plane, 4)
    await plane.put(queue("q", limit={"pods": "2"}))
    await plane.apply(in_queue("s", "q", 2), uid="s")
    await runs(plane, "s", 2)
    await plane.apply(in_queue("t", "q", 1), uid="t")
    await waits(plane, "t-0", QUEUE_LIMIT)
    assert plane.one(PodGang, "t-0").status.message == "queue q would use 3 of pods, its limit is 2"
    await plane.delete_set("s")
    await runs(plane, "t", 1)


async def test_a_queue_of_weight_0_never_borrows(plane: Plane) -> None:
    """Without a weight a queue stays within its guarantee of what that names, whatever is free."""
    await workers(plane, 4)
    await plane.put(queue("q", guarantee={"pods": "2"}, weight=0.0))
    await plane.apply(in_queue("s", "q", 4, 1), uid="s")
    await runs(plane, "s", 2)


async def test_a_limit_bounds_surplus_too(plane: Plane) -> None:
    """Surplus pods get what the limit leaves, and more when it is raised."""
    await workers(plane, 6)
    await plane.put(queue("q", limit={"pods": "3"}))
    await plane.apply(in_queue("s", "q", 5, 1), uid="s")
    await runs(plane, "s", 3)
    await plane.put(queue("q", limit={"pods": "4"}))
    await runs(plane, "s", 4)


async def test_a_limit_holds_for_all_queues_below(plane: Plane) -> None:
    """What a queue's sibling uses counts for the limit of the one above both."""
    await workers(plane, 4)
    await plane.put(queue("top", limit={"pods": "2"}), queue("a", parent="top"), queue("b", parent="top"))
    await plane.apply(in_queue("s", "a", 2), uid="s")
    await runs(plane, "s", 2)
    await plane.apply(in_queue("t", "b", 1), uid="t")
    await waits(plane, "t-0", QUEUE_LIMIT)
    assert "queue top would use 3" in plane.one(PodGang, "t-0").status.message


async def test_a_queue_that_takes_no_gangs(plane: Plane) -> None:
    """Gangs of an unknown queue, and of one with queues below it, wait until that changes."""
    await workers(plane, 2)
    await plane.put(queue("top"), queue("leaf", parent="top"))
    await plane.apply(in_queue("s", "nowhere", 1), uid="s")
    await plane.apply(in_queue("t", "top", 1), uid="t")
    await waits(plane, "s-0", QUEUE_UNKNOWN)
    await waits(plane, "t-0", QUEUE_NOT_LEAF)
    await plane.put(queue("nowhere"))
    await plane.remove(plane.store.read().get(Queue, "", "leaf") or queue("leaf"))
    await runs(plane, "s", 1)
    await runs(plane, "t", 1)


async def test_a_set_that_changes_its_queue(plane: Plane) -> None:
    """Another queue of a waiting set is asked at once; what the set uses counts for the new queue."""
    await workers(plane, 4)
    await plane.put(queue("full", limit={"pods": "0"}), queue("open", limit={"pods": "2"}))
    await plane.apply(in_queue("s", "full", 2), uid="s")
    await waits(plane, "s-0", QUEUE_LIMIT)
    owner = plane.one(PodCliqueSet, "s")
    await plane.put(replace(owner, metadata=replace(owner.metadata, labels={QUEUE: "open"})))
    await runs(plane, "s", 2)
    await plane.apply(in_queue("t", "open", 1), uid="t")
    await waits(plane, "t-0", QUEUE_LIMIT)


async def test_queues_take_turns(plane: Plane) -> None:
    """When room comes, two equal queues share it, whichever has the older sets."""
    await workers(plane, 4, unschedulable=True)
    await plane.put(queue("a"), queue("b"))
    for name in ("s", "t", "u", "v"):
        await plane.apply(in_queue(name, "a", 1), uid=name)
    for name in ("w", "x"):
        await plane.apply(in_queue(name, "b", 1), uid=name)
    await plane.until(lambda: len(plane.control.placement.desk.waiting) == 6, "all wait")
    await plane.until_quiet()
    await plane.set_nodes("n0", "n1", "n2", "n3", unschedulable=False)
    await plane.until(lambda: sum(1 for pod in plane.pods() if pod.node) == 4, "four are placed")
    await plane.until_quiet()
    assert sorted(pod.identity.set_name for pod in plane.pods() if pod.node) == ["s", "t", "w", "x"]


async def test_a_strict_queue_keeps_its_line(plane: Plane) -> None:
    """A small gang behind a large one that waits does so too in a strict queue, and goes first in no other."""
    await workers(plane, 4, unschedulable=False)
    await plane.put(queue("strict", blocking=STRICT), queue("free"))
    await plane.apply(in_queue("s", "strict", 5), uid="s")
    await waits(plane, "s-0", "InsufficientCapacity")
    await plane.apply(in_queue("t", "strict", 1), uid="t")
    await waits(plane, "t-0", QUEUE_BLOCKED)
    await plane.apply(in_queue("u", "free", 1), uid="u")
    await runs(plane, "u", 1)
    assert bound(plane, "t") == []
    await plane.delete_set("s")
    await runs(plane, "t", 1)


async def test_a_guarantee_is_taken_back(plane: Plane) -> None:
    """A queue borrows what another does not use, and gives it back when that one wants what it is guaranteed."""
    await workers(plane, 4)
    await plane.put(queue("lender", guarantee={"pods": "2"}), queue("borrower"))
    await plane.apply(in_queue("s", "borrower", 4, 1), uid="s")
    await runs(plane, "s", 4)
    await plane.apply(in_queue("t", "lender", 2), uid="t")
    await runs(plane, "t", 2)
    assert len(bound(plane, "s")) == 2
    assert plane.one(PodGang, "s-0").status.scheduled_at is not None
    await plane.until(
        lambda: any(each.reason == "Reclaimed" and each.involved_name == "s-0" for each in plane.all(Event)), "told"
    )
    await plane.apply(in_queue("u", "lender", 1), uid="u")
    await waits(plane, "u-0", "InsufficientCapacity")
    assert len(bound(plane, "s")) == 2


async def test_a_large_gang_is_not_starved(plane: Plane) -> None:
    """After earmarkAfter a rack is set aside: small gangs go around it, and the large one gets it when it is free."""
    await plane.put(binding(), *(worker(i) for i in range(4)))
    await plane.put(queue("q", earmark_after="5m0s"))
    for name in ("a", "b", "c", "d"):
        await plane.apply(in_queue(name, "q", 1), uid=name)
    await plane.until_ready(4)
    await plane.apply(in_queue("large", "q", 2, topologyConstraint=pack("rack")), uid="large")
    await waits(plane, "large-0", "InsufficientCapacity")
    assert not plane.control.placement.room.set_asides.earmarks
    plane.clock.advance(301.0)
    await plane.until(lambda: bool(plane.control.placement.room.set_asides.earmarks), "a rack is set aside")
    await plane.until_quiet()
    [earmark] = plane.control.placement.room.set_asides.earmarks
    assert earmarked(plane, "large-0")[0] == "True"
    assert "is set aside for it" in earmarked(plane, "large-0")[1]
    rack = dict(earmark.path)["example.com/rack"]
    await plane.until(lambda: any(each.reason == "Earmarked" for each in plane.all(Event)), "told")
    inside = [
        pod.identity.set_name
        for pod in plane.pods()
        if pod.node in {f"n{2 * int(rack[1])}", f"n{2 * int(rack[1]) + 1}"}
    ]
    await plane.delete_set(inside[0])
    await plane.until(lambda: plane.get(PodCliqueSet, inside[0]) is None, "one place is free")
    await plane.apply(in_queue("small", "q", 1), uid="small")
    await waits(plane, "small-0", "InsufficientCapacity")
    assert "set aside for default/large-0" in plane.one(PodGang, "small-0").status.message
    await plane.delete_set(inside[1])
    await runs(plane, "large", 2)
    assert earmarked(plane, "large-0") == ("False", "")
    assert earmarked(plane, "small-0") == ("", "")
    assert not plane.control.placement.room.set_asides.earmarks
    [other, *_] = [pod.identity.set_name for pod in plane.pods() if pod.identity.set_name not in ("large", "small")]
    await plane.delete_set(other)
    await runs(plane, "small", 1)
    condition = find_condition(plane.one(PodGang, "small-0").status.conditions, "Scheduled")
    assert condition is not None


def earmarked(plane: Plane, gang: str) -> tuple[str, str]:
    """Return what a gang says of a domain that is set aside for it."""
    condition = find_condition(plane.one(PodGang, gang).status.conditions, "Earmarked")
    return ("", "") if condition is None else (condition.status, condition.message)


async def test_an_earmark_that_is_given_up_is_told(plane: Plane) -> None:
    """A queue that sets nothing aside any more has its gang say so."""
    await plane.put(binding(), *(worker(i) for i in range(2)))
    await plane.put(queue("q", earmark_after="5m0s"))
    await plane.apply(in_queue("a", "q", 1), uid="a")
    await plane.until_ready(1)
    await plane.apply(in_queue("large", "q", 2, topologyConstraint=pack("rack")), uid="large")
    await waits(plane, "large-0", "InsufficientCapacity")
    plane.clock.advance(301.0)
    await plane.until(lambda: earmarked(plane, "large-0")[0] == "True", "a rack is set aside")
    await plane.put(queue("q", earmark_after="never"))
    await plane.until(lambda: earmarked(plane, "large-0")[0] == "False", "and is not any more")


async def test_a_queue_shows_how_it_stands(plane: Plane) -> None:
    """Its status follows what it and the queues below it use, and how many gangs run and wait there."""
    await workers(plane, 2)
    await plane.put(queue("top"), queue("leaf", parent="top", limit={"pods": "1"}))
    await plane.apply(in_queue("s", "leaf", 1), uid="s")
    await plane.apply(in_queue("t", "leaf", 1), uid="t")
    await plane.until(lambda: len(plane.pods()) == 2, "the pods exist")
    await plane.until_quiet()
    plane.clock.advance(2.0)

    def shown(name: str) -> tuple[str, int, int]:
        found = plane.store.read().get(Queue, "", name)
        assert found is not None
        return found.status.used.get("pods", ""), found.status.running_gangs, found.status.pending_gangs

    await plane.until(lambda: shown("top") == shown("leaf") == ("1", 1, 1), "both queues tell")
    assert metrics.QUEUE_PENDING_GANGS.labels("leaf")._value.get() == 1
    await plane.delete_set("s")
    await runs(plane, "t", 1)
    plane.clock.advance(2.0)
    await plane.until(lambda: shown("leaf") == ("1", 1, 0), "nothing waits")
