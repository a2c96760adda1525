"""The limit of pods in a set holds for calls that arrive together, and while the set is still being made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path

import grpc
import pytest

from grove.v1 import pod_clique_pb2, pod_clique_scaling_group_pb2
from grove.v1 import pod_clique_set_pb2 as pb
from grove_server.resources.workload import PodClique, PodCliqueScalingGroup, PodCliqueSet
from tests.rpc.harness import Harness, read_refusal, refused, sample_set, serving
from tests.waiting import until

LIMIT = 20
EIGHT = [f"c{number}" for number in range(8)]
GROUPED = """\
apiVersion: grove.io/v1alpha1
kind: PodCliqueSet
metadata: {name: demo}
spec:
  replicas: 2
  template:
    cliques:
      - {name: router, spec: {roleName: router, replicas: 1, podSpec: {containers: [{name: main, image: i}]}}}
      - {name: worker, spec: {roleName: worker, replicas: 2, podSpec: {containers: [{name: main, image: i}]}}}
    podCliqueScalingGroups:
      - {name: model, cliqueNames: [worker], replicas: 1, minAvailable: 1}
"""


@pytest.fixture
async def bounded(tmp_path: Path) -> AsyncIterator[Harness]:
    """Give a server that lets a set have 20 pods; its loops stand still until a test starts them."""
    async with serving(tmp_path, "--pods-per-set-max", str(LIMIT)) as rpc:
        yield rpc
        await rpc.plane.stop()


def clique(rpc: Harness, name: str, replicas: int) -> Awaitable[pod_clique_pb2.PodCliqueServiceScaleResponse]:
    """Scale a clique."""
    return rpc.cliques.Scale(pod_clique_pb2.PodCliqueServiceScaleRequest(name=name, replicas=replicas))


def group(
    rpc: Harness, name: str, replicas: int
) -> Awaitable[pod_clique_scaling_group_pb2.PodCliqueScalingGroupServiceScaleResponse]:
    """Scale a group."""
    request = pod_clique_scaling_group_pb2.PodCliqueScalingGroupServiceScaleRequest(name=name, replicas=replicas)
    return rpc.groups.Scale(request)


def whole(rpc: Harness, replicas: int) -> Awaitable[pb.PodCliqueSetServiceScaleResponse]:
    """Scale the set."""
    return rpc.sets.Scale(pb.PodCliqueSetServiceScaleRequest(name="demo", replicas=replicas))


async def outcomes(*calls: Awaitable[object]) -> list[bool]:
    """Make all calls at once and return which of them went well; the others are refused for the limit."""

    async def is_done(call: Awaitable[object]) -> bool:
        try:
            await call
        except grpc.aio.AioRpcError as error:
            refusal = read_refusal(error)
            assert refusal.fields == ["replicas"]
            assert f"more than the {LIMIT} a set may have" in str(refusal.details)
            return False
        return True

    return list(await asyncio.gather(*(is_done(call) for call in calls)))


async def made(rpc: Harness, cliques: int) -> None:
    """Let the loops make the children of the set, then stop them."""
    rpc.plane.start()
    reader = rpc.store.read()
    await until(lambda: len(reader.list(PodClique)) == cliques and rpc.plane.is_idle, f"{cliques} cliques, idle loops")
    await rpc.plane.stop()


async def test_calls_that_arrive_together_do_not_pass_the_limit(bounded: Harness) -> None:
    """Of seven calls that each add nine pods to eight, only one fits into twenty."""
    spec = sample_set(cliques=EIGHT)
    for each in spec.spec.template.cliques:
        each.spec.replicas = 1
    await bounded.sets.Apply(pb.PodCliqueSetServiceApplyRequest(pod_clique_set=spec))
    await made(bounded, 8)
    done = await outcomes(*(clique(bounded, f"demo-0-{name}", 10) for name in EIGHT[:7]))
    assert sum(done) == 1
    assert sum(each.replicas for each in bounded.store.read().list(PodClique)) == 17


async def test_calls_of_all_three_levels_count_each_other(bounded: Harness) -> None:
    """Six pods: a set, a group and a clique that each ask for ten or twelve more cannot all have them."""
    await bounded.apply_text(GROUPED)
    await made(bounded, 4)
    calls = (whole(bounded, 6), group(bounded, "demo-0-model", 6), clique(bounded, "demo-0-router", 13))
    done = await outcomes(*calls)
    assert sum(done) == 1
    reader = bounded.store.read()
    owner = reader.list(PodCliqueSet)[0]
    router = next(each for each in reader.list(PodClique) if each.metadata.name == "demo-0-router")
    model = next(each for each in reader.list(PodCliqueScalingGroup) if each.metadata.name == "demo-0-model")
    assert 3 * (owner.spec.replicas or 0) + 2 * (model.replicas - 1) + router.replicas - 1 <= LIMIT


async def test_pods_still_to_be_made_count(bounded: Harness) -> None:
    """A set of as many pods as it may have cannot grow in the moment after it was applied."""
    await bounded.apply(replicas=5)
    refusal = await refused(whole(bounded, 6))
    assert refusal.fields == ["replicas"]
    assert (await whole(bounded, 4)).replicas == 4
    assert (await whole(bounded, 5)).replicas == 5


async def test_sizes_of_copies_that_are_leaving_count_when_they_come_back(bounded: Harness) -> None:
    """A copy that is scaled in and out again before it was gone still has the size that was given to its clique."""
    await bounded.apply(replicas=2)
    await made(bounded, 4)
    await clique(bounded, "demo-1-worker", 14)
    assert (await whole(bounded, 1)).replicas == 1
    assert (await clique(bounded, "demo-0-worker", 14)).replicas == 14
    assert (await refused(whole(bounded, 2))).fields == ["replicas"]


async def test_a_refused_call_leaves_nothing_behind(bounded: Harness) -> None:
    """What was refused does not count for the next call, nor does what was done count twice."""
    await bounded.apply(replicas=1)
    await made(bounded, 2)
    assert (await refused(clique(bounded, "demo-0-worker", 19))).fields == ["replicas"]
    assert (await clique(bounded, "demo-0-worker", 18)).replicas == 18
    assert (await clique(bounded, "demo-0-worker", 2)).replicas == 2
    assert (await clique(bounded, "demo-0-router", 18)).replicas == 18


def grouped(*, router: int = 1, worker: int = 2, copies: int = 2) -> str:
    """Return the grouped manifest with other sizes."""
    text = GROUPED.replace("roleName: router, replicas: 1", f"roleName: router, replicas: {router}")
    text = text.replace("roleName: worker, replicas: 2", f"roleName: worker, replicas: {worker}")
    return text.replace("  replicas: 2\n  template", f"  replicas: {copies}\n  template")


async def is_applied(rpc: Harness, text: str) -> bool:
    """Apply manifests; return whether that went well, False if it is refused for the limit."""
    try:
        await rpc.apply_text(text)
    except grpc.aio.AioRpcError as error:
        refusal = read_refusal(error)
        assert refusal.fields == ["document[1].spec"]
        assert f"more than the {LIMIT} a set may have" in str(refusal.details)
        return False
    return True


async def test_a_larger_template_counts_what_was_scaled(bounded: Harness) -> None:
    """An edit that would give the set too many pods, live sizes included, is refused; a smaller one is not."""
    await bounded.apply_text(GROUPED)
    await made(bounded, 4)
    await clique(bounded, "demo-0-router", 14)
    assert not await is_applied(bounded, grouped(worker=3))
    assert not await is_applied(bounded, grouped(copies=3))
    assert await is_applied(bounded, grouped(copies=1))
    assert await is_applied(bounded, grouped(copies=2))


@pytest.mark.parametrize("is_scale_first", [True, False])
@pytest.mark.parametrize("scale", ["clique", "group"])
async def test_a_larger_template_and_a_scale_that_arrive_together(
    bounded: Harness, scale: str, *, is_scale_first: bool
) -> None:
    """Six pods: twelve more by the template and twelve more by a scale call cannot both be had."""
    await bounded.apply_text(GROUPED)
    await made(bounded, 4)
    scaled = (
        outcomes(clique(bounded, "demo-0-router", 13))
        if scale == "clique"
        else outcomes(group(bounded, "demo-0-model", 7))
    )
    edited = is_applied(bounded, grouped(worker=8))
    if is_scale_first:
        ((is_scaled,), is_edited) = await asyncio.gather(scaled, edited)
    else:
        (is_edited, (is_scaled,)) = await asyncio.gather(edited, scaled)
    assert is_scaled + is_edited == 1


async def test_a_group_is_judged_by_the_template_that_is_on_its_way(bounded: Harness) -> None:
    """Group replicas are larger with the template that is being applied, so fewer of them may be asked for."""
    await bounded.apply_text(GROUPED)
    await made(bounded, 4)
    is_edited, (is_scaled,) = await asyncio.gather(
        is_applied(bounded, grouped(worker=5)), outcomes(group(bounded, "demo-0-model", 4))
    )
    assert is_edited + is_scaled == 1
