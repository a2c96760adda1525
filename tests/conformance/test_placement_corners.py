"""Corners of placement, end to end: nearness, crosswise topologies, scaled groups that give way, lost solvers, lies."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest

import grove_client
from tests.conformance.test_preemption import Stage
from tests.server import ServerProcess
from tests.waiting import until_seen

CLUSTER: Final = Path(__file__).parent / "clusters" / "crosswise.yaml"
CLASSES: Final = """\
{apiVersion: scheduling.k8s.io/v1, kind: PriorityClass, metadata: {name: batch}, value: -100}
---
{apiVersion: scheduling.k8s.io/v1, kind: PriorityClass, metadata: {name: serving}, value: 1000}
"""
RACK, FEED = "example.com/rack", "example.com/feed"
REQUIRED: Final = "requiredDuringSchedulingIgnoredDuringExecution"


def clique(name: str, pods: int, minimum: int | None = None, **fields: Any) -> dict[str, Any]:  # noqa: ANN401 -- any field of a clique
    """Return a clique of one-cpu pods; `cpu`, `affinity`, `labels` and `annotations` beside it."""
    container = {"name": "main", "image": "i", "resources": {"requests": {"cpu": fields.pop("cpu", "1")}}}
    pod_spec = {"containers": [container]} | ({"affinity": fields.pop("affinity")} if "affinity" in fields else {})
    spec = {"roleName": name, "replicas": pods, "minAvailable": minimum or pods, "podSpec": pod_spec}
    return {"name": name, "spec": spec, **fields}


def wanted(name: str, *cliques: dict[str, Any], topology: str = "", required: str = "", **template: Any) -> str:  # noqa: ANN401 -- any field of a template
    """Return a set of some cliques, in one domain of a topology if asked for."""
    content: dict[str, Any] = {"cliques": list(cliques), **template}
    if required:
        content["topologyConstraint"] = {"topologyName": topology, "pack": {"required": required}}
    spec = {"replicas": 1, "template": content}
    head = {"apiVersion": "grove.io/v1alpha1", "kind": "PodCliqueSet", "metadata": {"name": name}}
    return json.dumps({**head, "spec": spec})


def apart(*terms: tuple[str, str]) -> dict[str, Any]:
    """Return a required anti-affinity: by node label from pods of a role, each."""
    found = [{"topologyKey": key, "labelSelector": {"matchLabels": {"role": role}}} for key, role in terms]
    return {"podAntiAffinity": {REQUIRED: found}}


def labels(node: str) -> tuple[str | None, str]:
    """Return rack and feed of a node, as the cluster file has them."""
    number = int(node.removeprefix("n"))
    return (f"r{number // 2}" if number < 6 else None), "ab"[number % 2]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    """Run a server of the test's own."""
    with ServerProcess(tmp_path / "data", cluster=CLUSTER) as process:
        yield process


@pytest.fixture
async def stage(server: ServerProcess, tmp_path: Path) -> AsyncIterator[Stage]:
    """Give the server its classes."""
    async with grove_client.connect(server.address) as grove:
        made = Stage(server, grove, tmp_path / "applied.yaml")
        await made.apply(CLASSES)
        yield made


async def test_a_clique_is_near_another_and_stays_so_when_it_grows(stage: Stage) -> None:
    """Prefill pods are in the rack of the decode pods that they want to be near, those that come later too."""
    near = clique("prefill", 1, annotations={"grove.io/near": "decode"})
    await stage.apply(wanted("s", clique("decode", 2), near))
    pods = await stage.runs("s", 3)
    assert len({labels(node)[0] for node in pods.values()}) == 1
    await stage.run("scale", "pclq", "s-0-prefill", "--replicas", "2")
    pods = await stage.runs("s", 4)
    assert len({labels(node)[0] for node in pods.values()}) == 1


async def test_what_one_topology_asks_for_displaces_only_there(stage: Stage) -> None:
    """A gang for one feed displaces pods on that feed alone; one for a rack never uses nodes without the label."""
    await stage.apply(wanted("low", clique("a", 16, 1), priorityClassName="batch"))
    before = await stage.runs("low", 16)
    await stage.apply(wanted("feed", clique("a", 6), topology="wiring", required="zone", priorityClassName="serving"))
    mine = await stage.runs("feed", 6)
    [feed] = {labels(node)[1] for node in mine.values()}
    after = await stage.runs("low", 10)
    assert {labels(before[name])[1] for name in before.keys() - after.keys()} == {feed}
    await stage.apply(wanted("rack", clique("a", 3), topology="racks", required="rack", priorityClassName="serving"))
    racks = {labels(node)[0] for node in (await stage.runs("rack", 3)).values()}
    assert len(racks) == 1
    assert None not in racks
    assert await stage.pods("feed") == mine


async def test_nodes_without_the_label_are_counted_and_serve_others(stage: Stage) -> None:
    """A rack that is too small for a gang is said to be, two nodes have none; these serve who asks for none."""
    await stage.apply(wanted("rack", clique("a", 5), topology="racks", required="rack"))
    status = await stage.waits("rack-0", "DomainTooSmall")
    assert "fits 4 of 5; 8 nodes: 2 without label example.com/rack" in status["message"], status["message"]
    await stage.apply(wanted("any", clique("a", 16)))
    nodes = (await stage.runs("any", 16)).values()
    assert {"n6", "n7"} <= set(nodes)


async def test_scaled_groups_give_way_surplus_then_scaled_then_the_base_with_all(stage: Stage) -> None:
    """For pods of high priority first surplus goes, then a scaled gang, and the base gang only with the rest."""
    group = {"name": "g", "cliqueNames": ["w"], "replicas": 3, "minAvailable": 1}
    await stage.apply(
        wanted(
            "low",
            clique("r", 4, 2),
            clique("w", 4),
            podCliqueScalingGroups=[group],
            priorityClassName="batch",
        )
    )
    await stage.runs("low", 16)

    async def kept() -> dict[str, int]:
        found: dict[str, int] = {}
        for name in await stage.pods("low"):
            part = name.rsplit("-", 1)[0]
            found[part] = found.get(part, 0) + 1
        return found

    await stage.apply(wanted("one", clique("a", 2), priorityClassName="serving"))
    await stage.runs("one", 2)
    assert await kept() == {"low-0-r": 2, "low-0-g-0-w": 4, "low-0-g-1-w": 4, "low-0-g-2-w": 4}
    await stage.apply(wanted("two", clique("a", 1), priorityClassName="serving"))
    await stage.runs("two", 1)
    left = await until_seen(kept, lambda seen: sum(seen.values()) in {10, 11, 12, 13}, str)
    assert {"low-0-r", "low-0-g-0-w"} < set(left), left
    assert left["low-0-g-0-w"] == 4
    assert len(left) == 3
    await stage.apply(wanted("all", clique("a", 12), priorityClassName="serving"))
    await stage.runs("all", 12)
    assert await kept() == {}


async def test_whom_a_gang_keeps_apart_from_is_displaced_and_nobody_else(stage: Stage) -> None:
    """A gang that must not share a feed with others displaces those of one feed; half of all places are free."""
    await stage.apply(wanted("other", clique("a", 8, 1, labels={"role": "x"}), priorityClassName="batch"))
    before = await stage.runs("other", 8)
    assert {labels(node)[1] for node in before.values()} == {"a", "b"}
    alone = clique("a", 1, affinity=apart((FEED, "x")))
    await stage.apply(wanted("alone", alone, priorityClassName="serving"))
    [node] = (await stage.runs("alone", 1)).values()
    feed = labels(node)[1]
    stay = {name for name, at in before.items() if labels(at)[1] != feed}
    after = await until_seen(
        lambda: stage.pods("other"), lambda seen: stay <= set(seen), lambda seen: f"{stay} stay, seen {seen}"
    )
    assert feed not in {labels(at)[1] for at in after.values()}


async def test_a_node_that_lied_about_its_capacity_gets_nothing_more(tmp_path: Path) -> None:
    """What runs on a node that turns out to be smaller keeps running; a pod that goes is not replaced there."""
    cluster = tmp_path / "cluster.yaml"
    text = CLUSTER.read_text(encoding="utf-8")
    cluster.write_text(text, encoding="utf-8")
    with ServerProcess(tmp_path / "data", cluster=cluster) as server:
        async with grove_client.connect(server.address) as grove:
            stage = Stage(server, grove, tmp_path / "applied.yaml")
            await stage.apply(wanted("s", clique("a", 16, 1)))
            before = await stage.runs("s", 16)
        server.stop()
        head, at, rest = text.partition('cpu: "2"')
        cluster.write_text(f'{head}cpu: "1"{rest}', encoding="utf-8")
        assert at
        server.start()
        async with grove_client.connect(server.address) as grove:
            stage = Stage(server, grove, tmp_path / "applied.yaml")
            assert await stage.runs("s", 16) == before
            gone = next(name for name, node in sorted(before.items()) if node == "n0")
            await stage.run("delete", "pod", gone)
            after = await stage.runs("s", 15)
            assert sum(node == "n0" for node in after.values()) == 1
            await stage.run("delete", "pod", next(name for name, node in sorted(after.items()) if node == "n1"))
            await stage.runs("s", 15)
            await until_seen(
                lambda: stage.pods("s"),
                lambda seen: sum(node == "n1" for node in seen.values()) == 2,
                lambda seen: f"what is free elsewhere is used: {seen}",
            )
            assert sum(node == "n0" for node in (await stage.pods("s")).values()) == 1


def _children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _questions(server: ServerProcess, outcome: str) -> float:
    with urllib.request.urlopen(server.metrics_url, timeout=10) as answer:  # noqa: S310 -- the URL is our own server's
        lines = answer.read().decode().splitlines()
    wanted_line = f'grove_solver_questions_total{{outcome="{outcome}"}} '
    return next((float(line.split()[-1]) for line in lines if line.startswith(wanted_line)), 0.0)


TANGLED: Final = (
    clique("c0", 5, labels={"role": "c0"}, affinity=apart((RACK, "c0"), (FEED, "c2"))),
    clique("c1", 3, labels={"role": "c1"}, affinity=apart((RACK, "c1"))),
    clique("c2", 3, labels={"role": "c2"}),
)
"""A gang for which there is room, but no way that a search without backtracking finds."""


async def test_a_solver_killed_in_mid_search_costs_one_answer(stage: Stage) -> None:
    """A gang that only the solver could place waits with a reason when it is killed, and a new one answers later."""
    await stage.apply(wanted("s", *TANGLED))
    [worker] = await until_seen(
        lambda: _now(lambda: _children(stage.server.pid)), lambda seen: len(seen) == 1, lambda seen: f"a solver: {seen}"
    )
    os.kill(worker, signal.SIGKILL)
    await until_seen(
        lambda: _now(lambda: _questions(stage.server, "budget")),
        lambda seen: seen == 1,
        lambda seen: f"it is told: {seen}",
    )
    await stage.waits("s-0", "BudgetExhausted")
    await stage.apply(wanted("passing", clique("a", 1)))
    await stage.runs("passing", 1)
    await stage.run("delete", "pcs", "passing")
    await stage.runs("s", 11)
    assert worker not in _children(stage.server.pid)


T = TypeVar("T")


async def _now(look: Callable[[], T]) -> T:
    return await asyncio.to_thread(look)
