"""Nodes labelled, tainted, made and removed while gangs run and wait, as a user does it; and the next start."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

import pytest

import grove_client
from tests.conformance.command import grovectl
from tests.conformance.test_placement_corners import clique, wanted
from tests.conformance.test_preemption import Stage
from tests.server import ServerProcess
from tests.waiting import until_seen

RACK: Final = "example.com/rack"
BINDING: Final = """\
---
apiVersion: grove.io/v1alpha1
kind: ClusterTopologyBinding
metadata: {name: racks}
spec: {levels: [{domain: rack, key: example.com/rack}]}
"""


def node(name: str, rack: str, *, cpu: int = 2, more: str = "") -> str:
    """Return the manifest of a node."""
    return (
        f"---\napiVersion: v1\nkind: Node\nmetadata: {{name: {name}, labels: {{{RACK}: {rack}}}}}\n"
        f'spec: {{{more}}}\nstatus: {{allocatable: {{cpu: "{cpu}"}}}}\n'
    )


@pytest.fixture
def cluster(tmp_path: Path) -> Path:
    """Write a cluster of two racks of two nodes, for two one-cpu pods each."""
    path = tmp_path / "cluster.yaml"
    path.write_text("".join(node(f"n{i}", f"r{i // 2}") for i in range(4)) + BINDING)
    return path


@pytest.fixture
def server(tmp_path: Path, cluster: Path) -> Iterator[ServerProcess]:
    """Run a server of the test's own."""
    with ServerProcess(tmp_path / "data", cluster=cluster) as process:
        yield process


@pytest.fixture
async def stage(server: ServerProcess, tmp_path: Path) -> AsyncIterator[Stage]:
    """Give the test its tools."""
    async with grove_client.connect(server.address) as grove:
        yield Stage(server, grove, tmp_path / "applied.yaml")


async def test_a_label_lets_in_who_waits_and_moves_nobody(stage: Stage) -> None:
    """A gang for which a rack is too small runs once a node is labelled into it; one that runs stays where it is."""
    await stage.apply(wanted("runs", clique("a", 2), topology="racks", required="rack"))
    before = await stage.runs("runs", 2)
    await stage.apply(wanted("waits", clique("a", 6), topology="racks", required="rack"))
    await stage.waits("waits-0", "DomainTooSmall")
    await stage.apply(node("n4", "r9") + node("n5", "r9"))
    assert "node/n0 labeled" in (await stage.run("label", "no", "n0", f"{RACK}=r9")).lines
    if set(before.values()) & {"n0"}:
        await stage.run("label", "no", "n3", f"{RACK}=r9")
    pods = await stage.runs("waits", 6)
    assert set(pods.values()) <= {"n0", "n3", "n4", "n5"}
    assert await stage.pods("runs") == before
    assert "node/n0 not labeled" in (await stage.run("label", "no", "n0", f"{RACK}=r9")).lines


async def test_a_taint_keeps_new_pods_away_until_it_is_taken_off(stage: Stage) -> None:
    """Tainted nodes keep their pods and take no more; without the taint they take those that wait."""
    await stage.apply(wanted("first", clique("a", 1)))
    [there] = (await stage.runs("first", 1)).values()
    names = ["n0", "n1", "n2", "n3"]
    await stage.run("taint", "no", *names, "dedicated=x:NoSchedule")
    await stage.apply(wanted("second", clique("a", 1)))
    status = await stage.waits("second-0", "NoNodeMatches")
    assert "dedicated=x:NoSchedule" in status["message"]
    assert list((await stage.pods("first")).values()) == [there]
    await stage.run("taint", "no", "n2", "dedicated-")
    assert list((await stage.runs("second", 1)).values()) == ["n2"]


async def test_pods_of_a_removed_node_come_back_elsewhere(stage: Stage) -> None:
    """A gang whose node is removed gets its pods anew on the nodes that are left."""
    await stage.apply(wanted("s", clique("a", 2)))
    [gone] = set((await stage.runs("s", 2)).values())
    assert f"node/{gone} deleted" in (await stage.run("delete", "no", gone)).lines

    async def moved() -> dict[str, str]:
        pods = await stage.runs("s", 2)
        return {} if gone in pods.values() else pods

    await until_seen(moved, bool, lambda seen: f"its pods run elsewhere: {seen}")


async def test_what_was_done_by_hand_outlives_a_restart(stage: Stage, server: ServerProcess, cluster: Path) -> None:
    """Nodes made by hand and labels set by hand stay; a removed node of the file is back; a changed file wins."""
    await stage.apply(node("extra", "r7"))
    await stage.run("label", "no", "n1", "n2", "by=hand")
    await stage.run("delete", "no", "n0")
    cluster.write_text(cluster.read_text().replace("name: n2, labels: {", "name: n2, labels: {by: file, "))
    server.stop()
    server.start()
    async with grove_client.connect(server.address) as grove:
        nodes = {each.metadata.name: dict(each.metadata.labels) async for each in grove.nodes.list()}
    assert sorted(nodes) == ["extra", "n0", "n1", "n2", "n3"]
    assert nodes["extra"][RACK] == "r7"
    assert (nodes["n1"]["by"], nodes["n2"]["by"]) == ("hand", "file")


async def test_wrong_nodes_are_refused_with_all_that_is_wrong(stage: Stage, tmp_path: Path) -> None:
    """Every mistake of a text is told with its path, and nothing of it is stored."""
    text = node("good", "r1") + node("Bad_Name", "r1", cpu=-2, more="taints: [{key: k, effect: Never}]")
    path = tmp_path / "wrong.yaml"
    path.write_text(text, encoding="utf-8")
    answer = await grovectl(stage.server, "apply", "-f", str(path))
    for field in ("metadata.name", "spec.taints[0].effect", "status.allocatable[cpu]"):
        assert f"document[2].{field}: " in answer.errors
    assert "good" not in "\n".join((await stage.run("get", "no")).lines)
    answer = await grovectl(stage.server, "taint", "no", "n0", "k=v:Never")
    assert "taints[0].effect: must be one of NoSchedule" in answer.errors
