"""What takes pods away while routers use them: the drain of a node, a recycle, an update. Every pod at every moment.

A pod that drains counts as missing from the first moment on, so the budgets are held to that. The router is a bare gRPC
client; it leaves each pod at once, or never.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import pytest

from tests.conformance.command import grovectl
from tests.conformance.drains import Router
from tests.conformance.observation import Observation, node_of
from tests.conformance.scene import WORKLOADS, Scene
from tests.conformance.updates import HASH_LABEL, Sampler, sampling
from tests.server import ServerProcess
from tests.waiting import until_seen

CLUSTER: Final = WORKLOADS.parent / "clusters" / "thirty-nodes.yaml"
WEB: Final = "chat-0-web"
SET: Final = """\
apiVersion: grove.io/v1alpha1
kind: PodCliqueSet
metadata: {{name: chat, annotations: {{grove.io/drain-timeout: {timeout}, kubernetes.io/change-cause: "{image}"}}}}
spec:
  replicas: 1
  template:
    terminationDelay: 1s
    cliques:
      - name: web
        annotations: {{fake.grove.io/ready-delay: 30ms}}
        spec:
          roleName: web
          replicas: {pods}
          minAvailable: {minimum}
          podSpec: {{containers: [{{name: main, image: "{image}", resources: {{requests: {{memory: {memory}}}}}}}]}}
"""


def chat(*, pods: int = 4, minimum: int = 1, timeout: str = "5m", image: str = "web:1", memory: str = "20Mi") -> str:
    """Return a set of one clique; seven of its pods would fit on a node."""
    return SET.format(pods=pods, minimum=minimum, timeout=timeout, image=image, memory=memory)


async def serve(scene: Scene, sampler: Sampler, manifest: str, pods: int) -> Observation:
    """Let a set run; from then on it counts."""
    await scene.apply_text(manifest)
    seen = await scene.settles(pods=pods, ready=pods)
    await sampler.catches_up(scene)
    sampler.begin()
    return seen


@asynccontextmanager
async def leaving_at_once(router: Router) -> AsyncIterator[None]:
    """Let a router leave every pod the moment it is told."""

    async def answer() -> None:
        done = 0
        while True:
            names = await router.until_told("ADDED", done + 1)
            await router.acknowledge(*names[done:])
            done = len(names)

    task = asyncio.create_task(answer())
    try:
        yield
    finally:
        task.cancel()


async def drained(server: ServerProcess, scene: Scene, sampler: Sampler, seen: Observation) -> str:
    """Drain the fullest node with grovectl, within the budget of one; return its name."""
    ((node, count),) = Counter(node_of(pod) for pod in seen.ready).most_common(1)
    assert count > 1
    on_node = {pod.metadata.uid for pod in seen.ready if node_of(pod) == node}
    answer = await grovectl(server, "drain", node, "--timeout", "25s")
    assert (answer.code, answer.errors) == (0, "")
    assert (answer.lines[0], answer.lines[-1]) == (f"node/{node} draining", f"node/{node} drained")
    after = await scene.settles(pods=len(seen.ready), ready=len(seen.ready))
    await sampler.catches_up(scene)
    assert not [pod for pod in after.ready if node_of(pod) == node]
    assert sampler.least[WEB] == len(seen.ready) - 1, "never more than one was missing"
    assert [pod.metadata.uid for pod in sampler.stopped if pod.metadata.uid not in on_node] == []
    assert len(sampler.stopped) == count
    assert (await grovectl(server, "drain", node, "--timeout", "25s")).lines[0] == f"node/{node} already draining"
    return node


async def test_draining_a_node_without_a_router(server: ServerProcess, scene: Scene) -> None:
    """Its pods leave one after the other, each when the one before is replaced; no other pod is touched."""
    async with sampling(scene, Sampler()) as sampler:
        seen = await serve(scene, sampler, chat(), 4)
        node = await drained(server, scene, sampler, seen)
        assert (await grovectl(server, "uncordon", node)).code == 0


@pytest.mark.parametrize("answers", [True, False])
async def test_draining_a_node_behind_a_router(server: ServerProcess, scene: Scene, *, answers: bool) -> None:
    """Each pod is announced once, and stops when the router has left it, or at the deadline if it never does."""
    async with sampling(scene, Sampler()) as sampler:
        seen = await serve(scene, sampler, chat(timeout="5m" if answers else "300ms"), 4)
        async with Router(server.address, "r1", "chat", namespace=scene.namespace) as router:
            if answers:
                async with leaving_at_once(router):
                    node = await drained(server, scene, sampler, seen)
            else:
                node = await drained(server, scene, sampler, seen)
            told = [(step.object.pod, step.object.reason) for step in router.steps if step.type == "ADDED"]
            assert told == [(pod.metadata.name, "NodeDrained") for pod in sampler.stopped]
            assert await router.leave()
        assert (await grovectl(server, "uncordon", node)).code == 0


async def test_a_drain_without_room_elsewhere_goes_on_when_the_command_is_gone(
    server: ServerProcess, scene: Scene
) -> None:
    """One pod waits for room, the others serve on; with room the node empties though nobody asks any more."""
    async with sampling(scene, Sampler()) as sampler:
        seen = await serve(scene, sampler, chat(), 4)
        ((node, count),) = Counter(node_of(pod) for pod in seen.ready).most_common(1)
        others = sorted(scene.nodes.keys() - {node})
        await scene.grove.nodes.cordon(others)
        answer = await grovectl(server, "drain", node, "--timeout", "1s")
        assert (answer.code, answer.errors) == (4, f"error: timed out with {count - 1} pods left; the drain goes on\n")
        assert len((await scene.observe()).ready) == 3
        await scene.grove.nodes.uncordon(others)
        after = await scene.settles(pods=4, ready=4)
        assert not [pod for pod in after.ready if node_of(pod) == node]
        await sampler.catches_up(scene)
        assert sampler.least[WEB] == 3
        assert (await grovectl(server, "uncordon", node)).code == 0


async def test_a_recycle_behind_a_router(server: ServerProcess, scene: Scene) -> None:
    """The pods of a copy that is recycled drain first, all together; each stops when the router has left it."""
    async with sampling(scene, Sampler()) as sampler:
        seen = await serve(scene, sampler, chat(pods=3, minimum=3, memory="80Mi"), 3)
        before = {pod.metadata.uid for pod in seen.ready}
        victim = seen.ready[0]
        free = sorted(scene.nodes.keys() - {node_of(pod) for pod in seen.ready})
        async with Router(server.address, "r1", "chat", namespace=scene.namespace) as router:
            await scene.grove.nodes.cordon([*free, node_of(victim)])
            await scene.grove.pods.delete_now([victim.metadata.name], namespace=scene.namespace)
            names = await router.until_told("ADDED", 2)
            assert {step.object.reason for step in router.steps if step.type == "ADDED"} == {"Recycled"}
            now = await scene.observe()
            assert {now.pods[name].metadata.uid for name in names} == before - {victim.metadata.uid}
            assert not [pod for pod in now.pods.values() if pod.metadata.deletion_timestamp]
            await scene.grove.nodes.uncordon([*free, node_of(victim)])
            await router.acknowledge(*names)
            await router.until_told("DELETED", 2)
            after = await scene.settles(pods=3, ready=3)
            assert not before & {pod.metadata.uid for pod in after.ready}
            gang = after.gangs["chat-0"]
            assert [(each.scope, each.count) for each in gang.status.recycles] == [("Copy", 1)]
            assert await router.leave()


async def test_an_update_behind_a_router(server: ServerProcess, scene: Scene) -> None:
    """Pause, undo, resume and history while pods drain: one is missing at a time, and each was announced."""
    words = (server, "rollout")
    async with sampling(scene, Sampler()) as sampler:
        seen = await serve(scene, sampler, chat(pods=3), 3)
        first = {pod.metadata.labels[HASH_LABEL] for pod in seen.ready}
        async with Router(server.address, "r1", "chat", namespace=scene.namespace) as router:
            # Without room for a successor the update stops at the first pod.
            await scene.grove.nodes.cordon(sorted(scene.nodes))
            await scene.apply_text(chat(pods=3, image="web:2"))
            (name,) = await router.until_told("ADDED", 1)
            paused = await grovectl(*words, "pause", "pcs", "chat", namespace=scene.namespace)
            assert paused.lines == ["podcliqueset/chat paused"]
            # The drain is never taken back; the pod goes, its successor is there, and nobody else is asked to go.
            await router.acknowledge(name)
            await router.until_told("DELETED", 1)
            await scene.grove.nodes.uncordon(sorted(scene.nodes))
            await scene.settles(pods=3, ready=3)
            assert router.told("ADDED") == [name]
            undone = await grovectl(*words, "undo", "pcs", "chat", namespace=scene.namespace)
            assert undone.lines == ["podcliqueset/chat rolled back"]
            async with leaving_at_once(router):
                await grovectl(*words, "resume", "pcs", "chat", namespace=scene.namespace)
                status = await grovectl(*words, "status", "pcs", "chat", namespace=scene.namespace)
                assert status.lines[-1] == "podcliqueset/chat is up to date: 1 of 1 copies are updated, 1 available"
                after = await scene.settles(pods=3, ready=3)
                assert await router.leave()
            await sampler.catches_up(scene)
            assert {pod.metadata.labels[HASH_LABEL] for pod in after.ready} == first
            assert sampler.least[WEB] == 2
            assert router.told("ADDED") == [pod.metadata.name for pod in sampler.stopped]
            assert len(sampler.stopped) == 2, "the pod that was updated, and its successor on the way back"
            history = await grovectl(*words, "history", "pcs", "chat", namespace=scene.namespace)
            assert [line.split()[0] for line in history.lines] == ["REVISION", "2", "3*"]


async def test_removing_a_set_whose_router_is_silent(server: ServerProcess, scene: Scene) -> None:
    """A set that is deleted waits for its routers, as long as its drains may last, and is gone then."""
    async with sampling(scene, Sampler()) as sampler:
        await serve(scene, sampler, chat(timeout="500ms"), 4)
        async with Router(server.address, "mute", "chat", namespace=scene.namespace) as router:
            answer = await grovectl(server, "delete", "pcs", "chat", namespace=scene.namespace)
            assert answer.code == 0, answer
            await router.until_told("DELETED", 4)
            await until_seen(
                scene.observe, lambda seen: not seen.versions, lambda seen: f"the set is gone, seen {sorted(seen.sets)}"
            )
            assert len(router.told("ADDED")) == 4
