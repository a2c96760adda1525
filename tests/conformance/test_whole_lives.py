"""Sets from beginning to end on a server process, as a person sees them: to zero and back, told, dumped, removed.

A dump of the real server is taken on by the simulator, which must find that nothing is left to do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

import grove_client
from grove_client import GroveClient
from tests.conformance.command import grovectl
from tests.conformance.observation import Observation
from tests.conformance.scene import WORKLOADS, Scene
from tests.server import ServerProcess
from tests.simulation.dumps import go_on, load_dump
from tests.waiting import until_seen

CLUSTER: Final = WORKLOADS.parent / "clusters" / "thirty-nodes.yaml"
NAME: Final = "workload2"
POLICY: Final = "grove.io/stuck-terminating-policy"
A, G = f"{NAME}-0-pc-a", f"{NAME}-0-sg-x"


async def scaled(server: ServerProcess, scene: Scene, kind: str, name: str, replicas: int, pods: int) -> Observation:
    """Scale something with grovectl; return what is there when so many pods are, and all of them serve."""
    answer = await grovectl(server, "scale", kind, name, "--replicas", str(replicas), namespace=scene.namespace)
    assert (answer.code, answer.errors) == (0, ""), answer
    return await scene.settles(pods=pods, ready=pods)


async def test_to_zero_and_back(server: ServerProcess, scene: Scene) -> None:
    """Clique, group and set go to zero and come back; nothing else is touched, and nothing counts as broken (#677)."""
    await scene.apply(NAME)
    before = await scene.settles(pods=10, ready=10)
    kept = {pod.metadata.uid for pod in before.ready}

    seen = await scaled(server, scene, "pclq", A, 0, 8)
    assert (seen.sets[NAME].status.available_replicas, seen.sets[NAME].status.phase) == (1, "Running")
    assert A not in {group.name for group in seen.gangs[f"{NAME}-0"].spec.podgroups}
    seen = await scaled(server, scene, "pcsg", G, 0, 0)
    assert seen.sets[NAME].status.phase == "Idle"
    assert set(seen.cliques) == {A}
    assert seen.gangs == {}

    seen = await scaled(server, scene, "pclq", A, 2, 2)
    assert seen.sets[NAME].status.phase == "Running"
    kept = {pod.metadata.uid for pod in seen.ready}
    seen = await scaled(server, scene, "pcsg", G, 2, 10)
    assert kept < {pod.metadata.uid for pod in seen.ready}
    assert set(seen.gangs) == {f"{NAME}-0", f"{G}-0"}

    seen = await scaled(server, scene, "pcs", NAME, 0, 0)
    assert (seen.sets[NAME].status.phase, set(seen.cliques), set(seen.groups)) == ("Idle", set(), set())
    seen = await scaled(server, scene, "pcs", NAME, 2, 20)
    assert seen.sets[NAME].status.available_replicas == 2


async def test_a_size_between_zero_and_the_minimum_is_refused(server: ServerProcess, scene: Scene) -> None:
    """Zero or the minimum and more: what lies between is refused with the field, and nothing changes."""
    await scene.apply("workload1")
    before = await scene.settles(pods=10, ready=10)
    answer = await grovectl(server, "scale", "pcsg", "workload1-0-sg-x", "--replicas", "1", namespace=scene.namespace)
    assert answer.code == 1
    assert "replicas" in answer.errors
    assert (await scene.observe()).versions == before.versions


async def test_described_and_dumped(server: ServerProcess, scene: Scene, tmp_path: Path) -> None:
    """Describe tells who did what and why; the simulator loads the dump, and finds nothing to do but what is due."""
    await scene.apply(NAME)
    await scene.settles(pods=10, ready=10)
    await scaled(server, scene, "pclq", A, 3, 11)
    told = await grovectl(server, "describe", "pclq", A, namespace=scene.namespace)
    assert told.code == 0
    story = told.lines[told.lines.index("Story:") :]
    assert any("api.scale" in line and "replicas 2 → 3" in line for line in story), told.lines
    file = tmp_path / "state.jsonl"
    dumped = await grovectl(server, "debug", "dump", str(file))
    assert dumped.code == 0, dumped
    assert file.stat().st_mode & 0o077 == 0
    dump = load_dump(file)
    ended = await asyncio.to_thread(go_on, dump)
    assert ended.differences == []
    assert {key for key in ended.rows if key.kind == "Pod"} == {key for key in dump.state() if key.kind == "Pod"}


@pytest.fixture
def impatient(tmp_path: Path) -> Iterator[ServerProcess]:
    """Run a server that gives pods up soon whose nodes do not answer."""
    with ServerProcess(tmp_path / "data", cluster=CLUSTER, flags=["--stuck-terminating-s", "0.2"]) as process:
        yield process


@pytest.mark.parametrize("policy", ["Force", "Wait"])
async def test_a_set_is_removed_whose_node_is_down(impatient: ServerProcess, policy: str) -> None:
    """#401, #466. Force: it goes when its pods were given up, and says so. Wait: it stays until the node is back."""
    async with grove_client.connect(impatient.address) as grove:
        node = await _lose_a_node(grove, policy)
        answer = await grovectl(impatient, "delete", "pcs", NAME, "--timeout", "20s" if policy == "Force" else "1s")
        assert answer.lines == [f"podcliqueset/{NAME} deleted"]
        if policy == "Force":
            assert answer.code == 0, answer
            await _is_gone(grove)
            await until_seen(
                lambda: _reasons(grove), lambda seen: "StuckPodRemoved" in seen, lambda seen: f"the event, seen {seen}"
            )
            return
        assert (answer.code, answer.errors) == (4, f"error: timed out waiting for podcliqueset/{NAME}\n")
        await until_seen(lambda: _pods(grove), lambda pods: len(pods) == 1, lambda pods: f"one pod is left of {pods}")
        assert (await grove.pod_clique_sets.get(NAME)).metadata.deletion_timestamp
        await grove.nodes.mark_up([node])
        await _is_gone(grove)


async def _lose_a_node(grove: GroveClient, policy: str) -> str:
    text = (WORKLOADS / f"{NAME}.yaml").read_text(encoding="utf-8")
    text = text.replace(f"  name: {NAME}\n", f"  name: {NAME}\n  annotations: {{{POLICY}: {policy}}}\n", 1)
    grace = "podSpec:\n            terminationGracePeriodSeconds: 0\n"
    await grove.apply_manifest(text.replace("podSpec:\n", grace))
    await until_seen(lambda: _pods(grove), lambda pods: len(pods) == 10, str)
    await until_seen(
        lambda: grove.pod_clique_sets.get(NAME), lambda s: s.status.available_replicas == 1, lambda s: str(s.status)
    )
    (node, *_) = sorted(set((await _pods(grove)).values()) - {""})
    await grove.nodes.mark_down([node])
    return node


async def _pods(grove: GroveClient) -> dict[str, str]:
    """Return the node of each pod."""
    return {p.metadata.name: p.spec.fields["nodeName"].string_value async for p in grove.pods.list()}


async def _reasons(grove: GroveClient) -> set[str]:
    return {event.reason async for event in grove.events.list()}


async def _is_gone(grove: GroveClient) -> None:
    async def sets() -> list[str]:
        return [item.metadata.name async for item in grove.pod_clique_sets.list()]

    await until_seen(sets, lambda names: not names, lambda names: f"{names} are gone")
    assert await _pods(grove) == {}
