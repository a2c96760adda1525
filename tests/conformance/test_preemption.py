"""Priorities and queues, end to end: grovectl against a server process, on four nodes with room for one pod each."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

import grove_client
from grove_client import GroveClient
from tests.conformance.command import Answer, grovectl
from tests.conformance.drains import Router
from tests.server import ServerProcess
from tests.waiting import until_seen

CLUSTER: Final = Path(__file__).parent / "clusters" / "four-nodes.yaml"
CLASSES: Final = """\
{apiVersion: scheduling.k8s.io/v1, kind: PriorityClass, metadata: {name: batch}, value: -100}
---
{apiVersion: scheduling.k8s.io/v1, kind: PriorityClass, metadata: {name: serving}, value: 1000}
---
{apiVersion: scheduling.k8s.io/v1, kind: PriorityClass, metadata: {name: patient}, value: 1000, preemptionPolicy: Never}
---
{apiVersion: grove.io/v1alpha1, kind: Queue, metadata: {name: lender}, spec: {guarantee: {cpu: 2}}}
---
{apiVersion: grove.io/v1alpha1, kind: Queue, metadata: {name: borrower}}
---
{apiVersion: grove.io/v1alpha1, kind: Queue, metadata: {name: small}, spec: {limit: {cpu: 1}}}
---
{apiVersion: grove.io/v1alpha1, kind: Queue, metadata: {name: hurried}, spec: {earmarkAfter: 1s}}
"""


UNDER_A_LIMIT: Final = """\
{apiVersion: grove.io/v1alpha1, kind: Queue, metadata: {name: top}, spec: {limit: {cpu: 2}}}
---
{apiVersion: grove.io/v1alpha1, kind: Queue, metadata: {name: a}, spec: {parent: top, guarantee: {cpu: 1}}}
---
{apiVersion: grove.io/v1alpha1, kind: Queue, metadata: {name: b}, spec: {parent: top}}
"""


def wanted(
    name: str,
    pods: int,
    minimum: int | None = None,
    *,
    priority: str = "",
    queue: str = "",
    rack: bool = False,
) -> str:
    """Return a set of pods that fill a node each, if asked for in one rack."""
    spec = {"roleName": "main", "replicas": pods, "minAvailable": minimum or pods}
    requests = {"resources": {"requests": {"cpu": "1"}}}
    clique = {"name": "a", "spec": spec | {"podSpec": {"containers": [{"name": "main", "image": "i"} | requests]}}}
    template: dict[str, Any] = {"cliques": [clique]}
    if rack:
        template["topologyConstraint"] = {"topologyName": "grove-topology", "pack": {"required": "rack"}}
    if priority:
        template["priorityClassName"] = priority
    return json.dumps(
        {
            "apiVersion": "grove.io/v1alpha1",
            "kind": "PodCliqueSet",
            "metadata": {"name": name, "labels": {"grove.io/queue": queue} if queue else {}},
            "spec": {"replicas": 1, "template": template},
        }
    )


class Stage:
    """A server, and what a user sees of it."""

    def __init__(self, server: ServerProcess, grove: GroveClient, path: Path) -> None:
        self.server = server
        self.grove = grove
        self._path = path

    async def run(self, *words: str) -> Answer:
        """Run grovectl; it has to succeed."""
        answer = await grovectl(self.server, *words)
        assert answer.code == 0, answer
        return answer

    async def apply(self, text: str) -> None:
        """Apply a text as a file."""
        self._path.write_text(text, encoding="utf-8")
        await self.run("apply", "-f", str(self._path))

    async def pods(self, set_name: str) -> dict[str, str]:
        """Return the nodes of a set's ready pods that do not leave, by pod name."""
        answer = await self.run("get", "pods", "-o", "json", "-l", f"app.kubernetes.io/part-of={set_name}")
        found = {}
        for pod in json.loads("\n".join(answer.lines))["items"]:
            ready = any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", ()))
            if ready and not pod["metadata"].get("deletionTimestamp"):
                found[pod["metadata"]["name"]] = pod["spec"]["nodeName"]
        return found

    async def runs(self, set_name: str, count: int) -> dict[str, str]:
        """Wait until so many pods of a set are ready."""
        return await until_seen(
            lambda: self.pods(set_name), lambda seen: len(seen) == count, lambda seen: f"{count} of {set_name}: {seen}"
        )

    async def gang(self, name: str) -> dict[str, Any]:
        """Return a gang's status."""
        answer = await grovectl(self.server, "get", "pg", name, "-o", "json")
        status: dict[str, Any] = json.loads("\n".join(answer.lines))["status"] if answer.code == 0 else {}
        return status

    async def waits(self, gang: str, reason: str) -> dict[str, Any]:
        """Wait until a gang says why it waits."""
        return await until_seen(
            lambda: self.gang(gang), lambda seen: seen.get("reason") == reason, lambda seen: f"{reason}: {seen}"
        )


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    """Run a server of the test's own."""
    with ServerProcess(tmp_path / "data", cluster=CLUSTER) as process:
        yield process


@pytest.fixture
async def stage(server: ServerProcess, tmp_path: Path) -> AsyncIterator[Stage]:
    """Give the server its classes and queues."""
    async with grove_client.connect(server.address) as grove:
        made = Stage(server, grove, tmp_path / "applied.yaml")
        await made.apply(CLASSES)
        yield made


async def test_a_higher_priority_gets_the_places_of_drained_pods(stage: Stage) -> None:
    """Low priority fills the cluster behind a router; high priority waits for its drain and gets exactly its places."""
    await stage.apply(wanted("low", 4, 2, priority="batch"))
    before = await stage.runs("low", 4)
    async with Router(stage.server.address, "r1", "low") as router:
        await stage.apply(wanted("high", 1, priority="serving"))
        status = await stage.waits("high-0", "WaitingForVictims")
        assert "surplus pod" in status["message"]
        [place] = status["nominatedPlaces"]
        [leaving] = [name for name, node in before.items() if node == place["node"]]
        explained = "\n".join((await stage.run("explain", "pg", "high-0")).lines)
        assert place["node"] in explained
        [told] = await router.until_told("ADDED", 1)
        assert told == leaving
        await router.acknowledge(told)
    assert set((await stage.runs("high", 1)).values()) == {before[leaving]}
    after = await stage.runs("low", 3)
    assert leaving not in after
    events = "\n".join((await stage.run("events")).lines)
    assert "Preempting" in events
    assert "Preempted" in events


async def test_never_displaces_nobody(stage: Stage) -> None:
    """A class with preemptionPolicy Never waits for room like everybody else."""
    await stage.apply(wanted("low", 4, priority="batch"))
    before = await stage.runs("low", 4)
    await stage.apply(wanted("high", 1, priority="patient"))
    status = await stage.waits("high-0", "InsufficientCapacity")
    assert await stage.pods("low") == before
    assert "never preempts" in status["message"]


async def test_queues_limit_lend_and_take_back(stage: Stage) -> None:
    """A limit holds; what is not used is borrowed; a guarantee is taken back, and `get q` shows it."""
    await stage.apply(wanted("capped", 2, queue="small"))
    status = await stage.waits("capped-0", "QueueLimit")
    assert "queue small would use" in status["message"]
    await stage.run("delete", "pcs", "capped")
    await stage.apply(wanted("guest", 4, 1, queue="borrower"))
    await stage.runs("guest", 4)
    await stage.apply(wanted("owner", 2, queue="lender"))
    await stage.runs("owner", 2)
    assert len(await stage.pods("guest")) == 2

    async def queues() -> str:
        return "\n".join((await stage.run("get", "q")).lines)

    await until_seen(queues, lambda text: any(line.split()[:1] == ["lender"] for line in text.splitlines()), str)
    shown = json.loads("\n".join((await stage.run("get", "q", "lender", "-o", "json")).lines))
    assert shown["kind"] == "Queue"

    async def used() -> str:
        answer = await stage.run("get", "q", "lender", "-o", "json")
        return str(json.loads("\n".join(answer.lines)).get("status", {}).get("used", {}).get("cpu", ""))

    await until_seen(used, lambda seen: seen == "2", lambda seen: f"lender uses 2 cpu: {seen}")


async def test_queues_that_take_back_at_once_keep_each_others_guarantees(stage: Stage) -> None:
    """Four owners come while the first victims still stop: both queues end with what they are guaranteed."""
    await stage.apply(
        "{apiVersion: grove.io/v1alpha1, kind: Queue, metadata: {name: borrower}, spec: {guarantee: {cpu: 1}}}"
    )
    for number in range(4):
        await stage.apply(slow(wanted(f"guest{number}", 1, queue="borrower")))
    for number in range(4):
        await stage.runs(f"guest{number}", 1)
    owners = [wanted(f"owner{number}", 1, queue="lender") for number in range(4)]
    await stage.apply(owners[0])
    told = await stage.waits("owner0-0", "WaitingForVictims")
    assert "queue lender takes back from queue borrower" in told["message"]
    await stage.apply("\n---\n".join(owners[1:]))

    async def staying() -> dict[str, int]:
        return {name: sum([len(await stage.pods(f"{name}{at}")) for at in range(4)]) for name in ("owner", "guest")}

    await until_seen(staying, lambda seen: seen["owner"] == 2, lambda seen: f"the owner has what is guaranteed: {seen}")
    assert await staying() == {"owner": 2, "guest": 2}
    await stage.waits("owner3-0", "InsufficientCapacity")


async def test_a_guarantee_holds_where_the_limit_above_is_reached(stage: Stage) -> None:
    """A sibling that borrows gives up what a queue is guaranteed, though nodes are free."""
    await stage.apply(UNDER_A_LIMIT)
    for number in range(2):
        await stage.apply(slow(wanted(f"guest{number}", 1, queue="b")))
        await stage.runs(f"guest{number}", 1)
    await stage.apply(wanted("mine", 1, queue="a"))
    await stage.waits("mine-0", "WaitingForVictims")
    await stage.runs("mine", 1)
    assert [len(await stage.pods(f"guest{number}")) for number in range(2)] in ([1, 0], [0, 1])


def slow(text: str) -> str:
    """Return a set whose pods take a moment to stop."""
    document = json.loads(text)
    for clique in document["spec"]["template"]["cliques"]:
        clique["annotations"] = {"fake.grove.io/stop-delay": "8s"}
    return json.dumps(document)


async def test_a_large_gang_outwaits_a_stream_of_small_ones(stage: Stage) -> None:
    """Small gangs come and go for ever; the large one gets its rack after its queue's earmarkAfter all the same."""
    for number in range(4):
        await stage.apply(wanted(f"small{number}", 1, queue="hurried"))
    for number in range(4):
        await stage.runs(f"small{number}", 1)
    await stage.apply(wanted("large", 2, queue="hurried", rack=True))
    status = await stage.waits("large-0", "InsufficientCapacity")
    assert status["phase"] == "Pending"

    async def told() -> str:
        return "\n".join((await stage.run("events")).lines)

    await until_seen(told, lambda text: "Earmarked" in text, lambda text: f"a rack is set aside: {text}")
    assert "is set aside for it" in "\n".join((await stage.run("explain", "pg", "large-0")).lines)
    for number in range(4, 10):
        await stage.run("delete", "pcs", f"small{number - 4}")
        await stage.apply(wanted(f"small{number}", 1, queue="hurried"))
        if len(await stage.pods("large")) == 2:
            break
    await stage.runs("large", 2)
