"""Waiting until a pod may start, for those who run pods themselves."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from grove.v1 import start_order_pb2 as pb
from grove_server.resources.workload import WAITING_FOR_PARENTS, Pod
from tests.rpc.harness import Harness, refused
from tests.unit.runtime.simulated import pod

MESSAGE = "waiting for chat-0-prefill (0/2)"


def held() -> Pod:
    """Return a pod on a node that start order holds back."""
    return pod("p", is_ordered=True, waiting_reason=WAITING_FOR_PARENTS, waiting_message=MESSAGE)


async def test_a_waiting_call_ends_when_the_pod_is_released(rpc: Harness) -> None:
    """The caller learns for whom the pod waits, each change of that, and at last that it may start."""
    await rpc.put(held())
    told = aiter(rpc.start_order.Wait(pb.StartOrderServiceWaitRequest(pod="p"), timeout=20))
    first = await anext(told)
    assert (first.released, first.message) == (False, MESSAGE)
    await rpc.put(replace(held(), waiting_message="waiting for chat-0-prefill (1/2)"))
    assert (await anext(told)).message == "waiting for chat-0-prefill (1/2)"
    await rpc.put(replace(held(), released_at=1_000.0))
    rest = [message async for message in told]
    assert [(message.released, message.message) for message in rest] == [(True, "")]
    assert rest[0].released_at == "1970-01-01T00:16:40.000Z"


async def test_a_pod_that_may_start_is_not_waited_for(rpc: Harness) -> None:
    """Without an order, or when it is released already, the answer comes at once."""
    await rpc.put(pod("p"))
    stream = rpc.start_order.Wait(pb.StartOrderServiceWaitRequest(pod="p"), timeout=20)
    assert [message.released async for message in stream] == [True]


async def test_a_pod_that_goes_ends_the_wait(rpc: Harness) -> None:
    """Who waits for a pod that does not exist, stops or goes is told so."""
    await rpc.put(held())
    assert (await refused(rpc.start_order.Wait(pb.StartOrderServiceWaitRequest(pod="q")).read())).reason == "NOT_FOUND"
    stream = rpc.start_order.Wait(pb.StartOrderServiceWaitRequest(pod="p"), timeout=20)
    await stream.read()
    await rpc.put(pod("p", is_ordered=True, deleted_at=1.0))
    assert (await refused(asyncio.wait_for(stream.read(), 20))).reason == "BEING_DELETED"
