"""Draining, end to end: a server in a process of its own, and routers that are bare gRPC clients.

Every test counts pods by what the API shows. Waiting for a deadline or a lease is waiting for a condition; timeouts are
short where a test lets them pass, and long where it proves that something else ended the drain.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Final

import grpc
import pytest

import grove_client
from grove.v1 import endpoint_pb2 as pb
from grove.v1.meta_pb2 import Condition
from grove.v1.pod_pb2 import Pod
from grove_client import GroveClient
from tests.conformance.drains import Router
from tests.server import ServerProcess
from tests.tidy.sources import ROOT
from tests.waiting import until_seen

CLUSTER: Final = ROOT / "examples" / "clusters" / "one-pod-per-node.yaml"
SET: Final = """\
apiVersion: grove.io/v1alpha1
kind: PodCliqueSet
metadata: {{name: chat, annotations: {{grove.io/drain-timeout: {timeout}}}}}
spec:
  replicas: {copies}
  template:
    cliques:
      - name: web
        spec:
          roleName: web
          replicas: {pods}
          minAvailable: 1
          podSpec: {{containers: [{{name: main, image: "{image}", resources: {{requests: {{cpu: 1m}}}}}}]}}
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    """Run a server of the test's own: it may be killed."""
    with ServerProcess(tmp_path / "data", cluster=CLUSTER) as process:
        yield process


@pytest.fixture
async def grove(server: ServerProcess) -> AsyncIterator[GroveClient]:
    """Connect to it."""
    async with grove_client.connect(server.address) as client:
        yield client


async def serve(grove: GroveClient, *, pods: int = 3, copies: int = 1, drain: str = "5m", image: str = "web:1") -> None:
    """Run the set and wait until all pods serve."""
    await grove.apply_manifest(SET.format(pods=pods, copies=copies, timeout=drain, image=image))
    await shown(grove, lambda seen: len(seen) == pods * copies and all(is_true(pod, "Ready") for pod in seen))


def condition(pod: Pod, type_: str) -> Condition | None:
    """Return a condition of a pod."""
    return next((found for found in pod.status.conditions if found.type == type_), None)


def is_true(pod: Pod, type_: str) -> bool:
    """Return whether a condition of a pod holds."""
    found = condition(pod, type_)
    return found is not None and found.status == "True"


async def pods_of(grove: GroveClient) -> list[Pod]:
    """Return all pods."""
    return [pod async for pod in grove.pods.list()]


async def shown(grove: GroveClient, accepts: Callable[[list[Pod]], bool]) -> list[Pod]:
    """Return the pods once they are as wanted."""
    return await until_seen(
        lambda: pods_of(grove),
        accepts,
        lambda seen: str([(pod.metadata.name, [c.type for c in pod.status.conditions if c.status]) for pod in seen]),
    )


async def count(grove: GroveClient, pods: int) -> None:
    """Wait until exactly so many pods are there, draining ones included."""
    await shown(grove, lambda seen: len(seen) == pods)


async def scale_in(grove: GroveClient) -> None:
    """Take one pod of three away."""
    await grove.pod_cliques.scale("chat-0-web", 2)


async def delete_one(grove: GroveClient) -> None:
    """Delete a pod."""
    (name, *_) = sorted(pod.metadata.name for pod in await pods_of(grove))
    await grove.pods.delete([name])


async def test_scale_in_takes_the_pods_with_the_least_to_do(grove: GroveClient) -> None:
    """What routers report of a pod adds up; a pod that nobody reports is idle, and lies are clamped."""
    await serve(grove, pods=4)
    idle, busy, queue, both = sorted((pod.metadata.name for pod in await pods_of(grove)), reverse=True)
    answer = await grove.report_load(
        "chat", "r1", {busy: (2**31 - 1, 0), both: (3, 2), queue: (-5, 9), "gone-0": (1, 1)}
    )
    assert (answer.accepted, answer.unknown, answer.valid_for) == (3, 1, "15s")
    assert (await grove.report_load("chat", "r2", {both: (5, 0)})).accepted == 1
    assert (await grove.report_load("other", "r2", {idle: (9, 9)})).unknown == 1
    for size, left in ((3, {busy, queue, both}), (2, {busy, both}), (1, {busy})):
        await grove.pod_cliques.scale("chat-0-web", size)
        seen = await shown(grove, lambda seen, size=size: len(seen) == size)  # type: ignore[misc]  # mypy does not infer the default
        assert {pod.metadata.name for pod in seen} == left


async def test_announce_acknowledge_stop(server: ServerProcess, grove: GroveClient) -> None:
    """A drain is announced with all a router needs, seen by everybody, and over the moment the router has answered."""
    await serve(grove)
    async with Router(server.address, "r1", "chat") as router:
        await scale_in(grove)
        (name,) = await router.until_told("ADDED", 1)
        drain = next(step.object for step in router.steps if step.type == "ADDED")
        pod = await grove.pods.get(name)
        assert (drain.pod_clique_set, drain.clique, drain.reason) == ("chat", "web", "ScaleIn")
        assert (drain.address, drain.uid, drain.node) == (
            pod.status.pod_ip,
            pod.metadata.uid,
            pod.spec.fields["nodeName"].string_value,
        )
        lasts = datetime.fromisoformat(drain.deadline) - datetime.fromisoformat(drain.started_at)
        assert lasts.total_seconds() == 300
        assert is_true(pod, "Ready")
        assert is_true(pod, "Draining")
        clique = await grove.pod_cliques.get("chat-0-web")
        assert (clique.status.replicas, clique.status.ready_replicas) == (2, 2)
        answer = await router.acknowledge(name, "no-such-pod")
        assert (list(answer.acknowledged), list(answer.gone)) == ([name], ["no-such-pod"])
        await router.until_told("DELETED", 1)
        await count(grove, 2)
        answer = await router.acknowledge(name)
        assert list(answer.gone) == [name]
        assert [step.type for step in router.steps if step.type != "BOOKMARK"][:2] == ["SYNCED", "ADDED"]
        assert router.told("DELETED") == [name]


@pytest.mark.parametrize("act", [scale_in, delete_one])
async def test_a_set_without_routers_stops_at_once(
    grove: GroveClient, act: Callable[[GroveClient], Awaitable[None]]
) -> None:
    """Nobody is waited for if nobody ever watched, whatever the timeout says."""
    await serve(grove)
    before = {pod.metadata.uid for pod in await pods_of(grove)}
    await act(grove)
    await shown(grove, lambda seen: len(before & {pod.metadata.uid for pod in seen}) == 2)


async def test_a_router_that_never_answers(server: ServerProcess, grove: GroveClient) -> None:
    """At the deadline the pod stops although a router watches it go, and an event says who was silent."""
    await serve(grove, drain="300ms")
    async with Router(server.address, "mute", "chat") as router:
        await scale_in(grove)
        (name,) = await router.until_told("DELETED", 1)
        await count(grove, 2)
        events = await until_seen(
            lambda: _events_of(grove, name), lambda seen: "DrainDeadlinePassed" in seen, lambda seen: f"events {seen}"
        )
        assert events["DrainDeadlinePassed"].endswith(": mute")


async def _events_of(grove: GroveClient, name: str) -> dict[str, str]:
    return {event.reason: event.message async for event in grove.events.list() if event.involved_object.name == name}


async def test_two_routers(server: ServerProcess, grove: GroveClient) -> None:
    """Both have to answer; each sees the other's answer; one that joins late sees the drain and has to answer, too."""
    await serve(grove)
    async with Router(server.address, "r1", "chat") as one, Router(server.address, "r2", "") as two:
        await scale_in(grove)
        (name,) = await one.until_told("ADDED", 1)
        assert await two.until_told("ADDED", 1) == [name]
        async with Router(server.address, "late", "chat") as late:
            assert late.told("ADDED") == [name]
            await one.acknowledge(name)
            await two.acknowledge(name)
            await late.until_told("MODIFIED", 2)
            assert list(late.steps[-1].object.acknowledged_by) == ["r1", "r2"]
            assert is_true(await grove.pods.get(name), "Draining")
            await late.acknowledge(name)
            await one.until_told("DELETED", 1)
        await count(grove, 2)


async def test_a_router_that_leaves_and_one_that_dies(server: ServerProcess, grove: GroveClient) -> None:
    """Goodbye ends the wait at once; a router that hangs up is waited for as long as its lease lasts, not longer."""
    await serve(grove)
    async with Router(server.address, "polite", "chat") as polite:
        async with Router(server.address, "dead", "chat"):
            await scale_in(grove)
            (name,) = await polite.until_told("ADDED", 1)
            await polite.acknowledge(name)
        assert await polite.leave()
        assert not await polite.leave()
        assert is_true(await grove.pods.get(name), "Draining")
        await count(grove, 2)


async def test_a_lease_without_a_watch(server: ServerProcess, grove: GroveClient) -> None:
    """A router that only renews is waited for like one that watches, and may answer."""
    await serve(grove)
    async with Router(server.address, "other", "") as other:
        poller = Router(server.address, "poller", "chat")
        poller.stub = other.stub
        first, again = await poller.renew(), await poller.renew()
        assert (first.lease, first.registered, again.registered) == ("15s", True, False)
        await scale_in(grove)
        (name,) = await other.until_told("ADDED", 1)
        await other.acknowledge(name)
        await other.until_told("MODIFIED", 1)
        assert is_true(await grove.pods.get(name), "Draining")
        await poller.acknowledge(name)
        await count(grove, 2)


async def test_kill_in_the_middle_of_a_drain(server: ServerProcess, grove: GroveClient) -> None:
    """After kill -9 the drain goes on where it was: same pod, same deadline, answers kept, the lease counted anew."""
    await serve(grove)
    async with Router(server.address, "r1", "chat") as one, Router(server.address, "r2", "chat") as two:
        await scale_in(grove)
        (name,) = await one.until_told("ADDED", 1)
        await one.acknowledge(name)
        await two.until_told("MODIFIED", 1)
        before = two.steps[-1].object
        server.kill()
        await asyncio.gather(one._task, two._task)
    server.start()
    async with grove_client.connect(server.address) as again:
        # Nobody watches now. Both are registered still, so the pod goes on draining.
        assert is_true(await again.pods.get(name), "Draining")
        async with Router(server.address, "r2", "chat", token=two.token) as back:
            await until_seen(
                lambda: again.pods.get(name), lambda pod: is_true(pod, "Draining"), lambda _: "it drains still"
            )
            assert back.told("DELETED") == []
            async with Router(server.address, "r3", "chat") as fresh:
                assert fresh.steps[0].object == before
                await fresh.acknowledge(name)
            await back.acknowledge(name)
            assert await back.until_told("DELETED", 1) == [name]
        await count(again, 2)


async def test_resuming_a_watch(server: ServerProcess, grove: GroveClient) -> None:
    """What ended while a router was away comes as DELETED after it resumed, what began as ADDED, nothing twice."""
    await serve(grove, pods=4)
    async with Router(server.address, "r1", "chat") as router:
        await grove.pod_cliques.scale("chat-0-web", 3)
        (first,) = await router.until_told("ADDED", 1)
    async with Router(server.address, "r2", "chat") as other:
        await grove.pod_cliques.scale("chat-0-web", 2)
        second = next(name for name in await other.until_told("ADDED", 2) if name != first)
        stand_in = Router(server.address, "r1", "chat")
        stand_in.stub = other.stub
        await stand_in.acknowledge(first)
        await other.acknowledge(first)
        assert await other.until_told("DELETED", 1) == [first]
        await count(grove, 3)
        async with Router(server.address, "r1", "chat", token=router.token) as resumed:
            assert resumed.told("DELETED") == [first]
            assert resumed.told("ADDED") == [second]
            await resumed.acknowledge(second)
            await other.acknowledge(second)
            assert await resumed.until_told("DELETED", 2) == [first, second]


async def test_answers_that_nobody_waits_for(server: ServerProcess, grove: GroveClient) -> None:
    """An answer for a pod that does not drain is told apart; one of a router that is not registered is refused."""
    await serve(grove)
    (serving, *_) = sorted(pod.metadata.name for pod in await pods_of(grove))
    async with Router(server.address, "r1", "chat") as router:
        answer = await router.acknowledge(serving)
        assert list(answer.not_draining) == [serving]
        await scale_in(grove)
        (name,) = await router.until_told("ADDED", 1)
        stranger = Router(server.address, "misspelt", "chat")
        stranger.stub = router.stub
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stranger.acknowledge(name)
        assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await router.acknowledge(name, name)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        for bad in ("", "No Name", "a/b"):
            stranger.name = bad
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stranger.renew()
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_deleting_pods_drains_them(server: ServerProcess, grove: GroveClient) -> None:
    """A deleted pod drains like any other, its successor comes at once; deleting it again changes nothing."""
    await serve(grove)
    async with Router(server.address, "r1", "chat") as router:
        await delete_one(grove)
        (name,) = await router.until_told("ADDED", 1)
        assert router.steps[-1].object.reason == "Deleted"
        await shown(grove, lambda seen: len(seen) == 4 and all(is_true(pod, "Ready") for pod in seen))
        deadline = router.steps[-1].object.deadline
        await grove.pods.delete([name])
        pod = await grove.pods.get(name)
        draining = condition(pod, "Draining")
        assert draining is not None
        assert deadline in draining.message
        assert not pod.metadata.deletion_timestamp
        await router.acknowledge(name)
        await count(grove, 3)
        assert router.told("MODIFIED") in ([], [name])


async def test_deleting_pods_without_waiting(server: ServerProcess, grove: GroveClient) -> None:
    """Whoever cannot wait stops a pod at once, whether it serves or drains; grovectl says --now."""
    await serve(grove)
    async with Router(server.address, "r1", "chat") as router:
        await delete_one(grove)
        (draining,) = await router.until_told("ADDED", 1)
        await grove.pods.delete_now([draining])
        await router.until_told("DELETED", 1)
        await count(grove, 3)
        (serving, *_) = sorted(pod.metadata.name for pod in await pods_of(grove) if pod.metadata.name != draining)
        result = await grovectl(server.address, "delete", "pod", serving, "--now")
        assert result == f"pod/{serving} deleted\n"
        await shown(grove, lambda seen: len(seen) == 3 and all(pod.metadata.name != serving for pod in seen))
        assert router.told("ADDED") == [draining]


async def grovectl(address: str, *words: str) -> str:
    """Run the command and return what it prints."""
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "grovectl", "--server", address, *words, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await program.communicate()
    assert program.returncode == 0
    return out.decode()


async def test_what_people_see(server: ServerProcess, grove: GroveClient) -> None:
    """A draining pod is called so in the table; who is waited for can be asked."""
    await serve(grove)
    async with Router(server.address, "r1", "chat") as router, Router(server.address, "r2", ""):
        await scale_in(grove)
        (name,) = await router.until_told("ADDED", 1)
        table = await grovectl(server.address, "get", "pods")
        assert [line.split()[2] for line in table.splitlines() if line.startswith(name)] == ["Draining"]
        request = pb.EndpointServiceListRoutersRequest(pod_clique_set="chat")
        known = (await router.stub.ListRouters(request)).routers
        assert [(one.name, one.pod_clique_set, one.watches, one.lease_left) for one in known] == [
            ("r1", "chat", 1, "15s"),
            ("r2", "", 1, "15s"),
        ]


async def test_an_update_drains_each_pod(server: ServerProcess, grove: GroveClient) -> None:
    """Every pod of the old revision drains before it stops, one after the other, and serves until it is left."""
    await serve(grove, pods=2)
    old = {pod.metadata.name for pod in await pods_of(grove)}
    async with Router(server.address, "r1", "chat") as router:
        await grove.apply_manifest(SET.format(pods=2, copies=1, timeout="5m", image="web:2"))
        for number in (1, 2):
            name = (await router.until_told("ADDED", number))[-1]
            assert router.steps[-1].object.reason == "Update"
            ready = [pod for pod in await pods_of(grove) if is_true(pod, "Ready")]
            assert len(ready) >= 2, "the draining pod serves until the router has left it"
            await router.acknowledge(name)
            await router.until_told("DELETED", number)
        await shown(grove, lambda seen: len(seen) == 2 and not old & {pod.metadata.name for pod in seen})
        assert set(router.told("ADDED")) == old


async def test_removing_a_set_drains_it(server: ServerProcess, grove: GroveClient) -> None:
    """All pods of a deleted set drain; the set is gone when the router has left them."""
    await serve(grove, pods=2, copies=2)
    async with Router(server.address, "r1", "chat") as router:
        await grove.pod_clique_sets.delete(["chat"])
        names = await router.until_told("ADDED", 4)
        assert (await grove.pod_clique_sets.get("chat")).metadata.deletion_timestamp
        await router.acknowledge(*names)
        await until_seen(
            lambda: _set_names(grove), lambda seen: not seen, lambda seen: f"the set is gone, seen {sorted(seen)}"
        )
        assert sorted(await router.until_told("DELETED", 4)) == sorted(names)


async def _set_names(grove: GroveClient) -> set[str]:
    return {item.metadata.name async for item in grove.pod_clique_sets.list()}
