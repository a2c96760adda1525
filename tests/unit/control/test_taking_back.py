"""Taking back between queues while much happens at once: bounds hold, and whom a change concerns is asked again."""

from __future__ import annotations

from typing import Any

import pytest

from grove_server.control.drafts import CopyDraft
from grove_server.control.gang_desk import GangDesk
from grove_server.resources.cluster import Event
from grove_server.resources.meta import find_condition
from grove_server.resources.queues import QUEUE, Queue
from grove_server.resources.workload import Pod, PodGang
from tests.lifecycle_cases import Json, clique, manifest
from tests.planes import Plane
from tests.unit.control.test_preemption import HIGH, LOW, classes
from tests.unit.control.test_queues import gang_reason, queue, workers

SLOW_STOP_S = 20.0


def slow_in_queue(name: str, in_: str, size: int = 1, *, rack: str = "", **template: Any) -> Json:  # noqa: ANN401 -- any field of a template
    """Return a set in a queue whose pods take their time to stop; in one rack, if that is given."""
    slow = clique("a", size) | {"annotations": {"fake.grove.io/stop-delay": f"{SLOW_STOP_S:g}s"}}
    if rack:
        slow["spec"]["podSpec"]["nodeSelector"] = {"example.com/rack": rack}
    document = manifest([slow], name=name, **template)
    return document | {"metadata": {"name": name, "labels": {QUEUE: in_}}}


def running(plane: Plane, prefix: str) -> int:
    """Return how many pods with a node do not leave, of the sets whose names begin like this."""
    return sum(1 for pod in plane.pods() if pod.identity.set_name.startswith(prefix) and pod.node)


async def apply_many(plane: Plane, prefix: str, in_: str, count: int) -> None:
    """Apply sets of one pod, one after the other; each is decided on before the next comes."""
    for number in range(count):
        name = f"{prefix}{number}"
        await plane.apply(slow_in_queue(name, in_), uid=name)
        await plane.until(lambda: plane.get(PodGang, f"{name}-0") is not None, "its gang is there")  # noqa: B023 -- run at once
        await plane.until_quiet()


async def test_what_was_promised_counts_while_victims_stop(plane: Plane) -> None:
    """Many gangs are asked for while the first victims still stop: both queues end with what they are guaranteed."""
    await workers(plane, 8)
    await plane.put(queue("owner", guarantee={"pods": "4"}), queue("borrower", guarantee={"pods": "2"}))
    await apply_many(plane, "b", "borrower", 8)
    await plane.until_ready(8)
    await apply_many(plane, "o", "owner", 8)
    assert running(plane, "b") == 4
    assert sum(gang.status.nomination is not None for gang in plane.all(PodGang)) == 4
    assert gang_reason(plane, "o0-0") == "WaitingForVictims"
    plane.clock.advance(SLOW_STOP_S + 1)
    await plane.until(lambda: running(plane, "o") == 4, "four of the owner run")
    await plane.until_quiet()
    assert (running(plane, "o"), running(plane, "b")) == (4, 4)


async def test_a_guarantee_holds_under_a_limit_that_is_reached(plane: Plane) -> None:
    """Where the limit of the queue above is used up, a sibling gives up what it borrows, and no more than that."""
    await workers(plane, 8)
    await plane.put(
        queue("top", limit={"pods": "4"}),
        queue("owner", parent="top", guarantee={"pods": "2"}),
        queue("borrower", parent="top"),
    )
    await apply_many(plane, "b", "borrower", 4)
    await plane.until_ready(4)
    await apply_many(plane, "o", "owner", 3)
    assert running(plane, "b") == 2
    assert gang_reason(plane, "o0-0") == gang_reason(plane, "o1-0") == "WaitingForVictims"
    assert gang_reason(plane, "o2-0") == "QueueLimit"
    assert sum(1 for pod in plane.all(Pod) if pod.node) == 4, "the limit holds while pods still stop"
    plane.clock.advance(SLOW_STOP_S + 1)
    await plane.until(lambda: running(plane, "o") == 2, "the owner runs what it is guaranteed")
    await plane.until_quiet()
    assert (running(plane, "o"), running(plane, "b")) == (2, 2)
    plane.clock.advance(2.0)
    # Two are guaranteed, and of the two that are left each gets one; what waits for the limit is wanted, too.
    await plane.until(lambda: share_of(plane, "owner") == "3", "its wish counts in its fair share")


def share_of(plane: Plane, name: str) -> str:
    """Return how many pods are fair for a queue."""
    found = plane.store.read().get(Queue, "", name)
    return "" if found is None else found.status.fair_share.get("pods", "")


async def test_a_higher_priority_gets_under_its_queues_limit(plane: Plane) -> None:
    """Over the limit a gang displaces the lower priority of its queue, though nodes are free; an equal one waits."""
    await workers(plane, 8)
    await plane.put(*classes(), queue("q", limit={"pods": "3"}))
    for number in range(3):
        await plane.apply(slow_in_queue(f"low{number}", "q", priorityClassName=LOW), uid=f"low{number}")
    await plane.until_ready(3)
    await plane.apply(slow_in_queue("high", "q", 2, priorityClassName=HIGH), uid="high")
    await plane.until(lambda: gang_reason(plane, "high-0") == "WaitingForVictims", "it waits for others to leave")
    await plane.until_quiet()
    assert running(plane, "low") == 1
    assert running(plane, "high") == 0, "it takes free nodes only when the limit lets it"
    plane.clock.advance(SLOW_STOP_S + 1)
    await plane.until(lambda: running(plane, "high") == 2, "it runs")
    await plane.until_quiet()
    await plane.apply(slow_in_queue("equal", "q", 1, priorityClassName=LOW), uid="equal")
    await plane.until(lambda: gang_reason(plane, "equal-0") == "QueueLimit", "an equal one waits")
    await plane.until_quiet()
    assert (running(plane, "low"), running(plane, "high"), running(plane, "equal")) == (1, 2, 0)


async def test_a_queue_below_its_guarantee_is_asked_again(plane: Plane) -> None:
    """When a queue uses less than it is guaranteed, its gang that waits takes back, though no node it needs is free."""
    await workers(plane, 4)
    await plane.put(queue("owner", guarantee={"pods": "2"}), queue("borrower"))
    await plane.apply(slow_in_queue("first", "owner", 2, rack="r0"), uid="first")
    await plane.until_ready(2)
    await apply_many(plane, "b", "borrower", 4)
    await plane.until(lambda: plane.ready_count() == 4, "all nodes are used")
    await plane.apply(slow_in_queue("second", "owner", 2, rack="r1"), uid="second")
    await plane.until(lambda: gang_reason(plane, "second-0") == "InsufficientCapacity", "it waits")
    await plane.until_quiet()
    await plane.delete_set("first")
    await plane.until(lambda: sum(not pod.is_active for pod in plane.all(Pod)) == 2, "the first one stops")
    await plane.until_quiet()
    assert running(plane, "b") == 2, "what still stops counts"
    plane.clock.advance(SLOW_STOP_S + 1)
    await plane.until(lambda: running(plane, "b") == 4, "others get the nodes that it cannot use")
    await plane.until_quiet()
    plane.clock.advance(2.0)
    await plane.until(lambda: gang_reason(plane, "second-0") == "WaitingForVictims", "it takes back")
    plane.clock.advance(SLOW_STOP_S + 1)
    await plane.until(lambda: running(plane, "second") == 2, "it runs")


async def test_a_gang_takes_back_what_is_borrowed_later(plane: Plane) -> None:
    """Nobody borrows yet; when another queue goes over its due elsewhere, the gang that waits is asked about again."""
    await workers(plane, 4)
    await plane.put(queue("owner", guarantee={"pods": "2"}), queue("other", guarantee={"pods": "2"}))
    await plane.apply(slow_in_queue("b0", "other", 2, rack="r1"), uid="b0")
    await plane.until_ready(2)
    await plane.apply(slow_in_queue("o0", "owner", 2, rack="r1"), uid="o0")
    await plane.until(lambda: gang_reason(plane, "o0-0") == "InsufficientCapacity", "it waits")
    await plane.until_quiet()
    await plane.apply(slow_in_queue("b1", "other", 2, rack="r0"), uid="b1")
    await plane.until(lambda: running(plane, "b1") == 2, "the other queue borrows")
    await plane.until_quiet()
    plane.clock.advance(2.0)
    await plane.until(lambda: gang_reason(plane, "o0-0") == "WaitingForVictims", "it takes back")


async def test_a_change_of_use_asks_as_many_as_may_come(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many gangs that wait for a limit one is decided anew when one leaves, the oldest, whatever else waits."""
    await workers(plane, 8)
    await plane.put(queue("q", limit={"pods": "2"}), queue("full", limit={"pods": "0"}))
    await apply_many(plane, "w", "q", 2)
    await plane.until_ready(2)
    await plane.apply(slow_in_queue("t", "q") | {"spec": in_copies(slow_in_queue("t", "q"), 30)}, uid="t")
    await plane.apply(slow_in_queue("u", "full"), uid="u")
    await plane.until(lambda: len(plane.control.placement.desk.waiting) == 31, "all wait")
    await plane.until_quiet()
    decided: list[str] = []
    decide = GangDesk.decide_minimum

    def counted(desk: GangDesk, gang: PodGang, draft: CopyDraft) -> None:
        decided.append(gang.metadata.name)
        decide(desk, gang, draft)

    monkeypatch.setattr(GangDesk, "decide_minimum", counted)
    await plane.delete_set("w0")
    await plane.until(lambda: any(not pod.is_active for pod in plane.all(Pod)), "it stops")
    plane.clock.advance(SLOW_STOP_S + 1)
    await plane.until(lambda: running(plane, "t") == 1, "one more runs")
    await plane.until_quiet()
    assert {name for name in decided if name != "w0-0"} == {"t-0"}


def in_copies(document: Json, copies: int) -> Json:
    """Return the spec of a set with so many copies."""
    spec: Json = document["spec"] | {"replicas": copies}
    return spec


async def test_who_loses_and_who_takes_hears_of_the_queues(plane: Plane) -> None:
    """The victims are told which queue took back, the taker from which; no word of priorities."""
    await workers(plane, 1)
    await plane.put(queue("owner", guarantee={"pods": "1"}), queue("borrower"))
    await apply_many(plane, "b", "borrower", 1)
    await plane.until_ready(1)
    await apply_many(plane, "o", "owner", 1)
    message = plane.one(PodGang, "o0-0").status.message
    assert "queue owner takes back from queue borrower: 1 gang ends: 1 pod in all" in message
    target = find_condition(plane.one(PodGang, "b0-0").status.conditions, "DisruptionTarget")
    assert target is not None
    right = "gang default/o0-0, by which queue owner takes back what it is guaranteed"
    assert (target.reason, target.message) == ("Reclaimed", f"its places go to {right}")
    await plane.until(lambda: any(right in each.message for each in plane.all(Event)), "the victim hears")
