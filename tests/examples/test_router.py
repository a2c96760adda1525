"""The autoscaling example as real processes: load goes to both roles, and no request is lost when pods come and go."""

from __future__ import annotations

import os
import signal

from tests.examples.elastic import clients, scaled, served, started
from tests.examples.programs import ask
from tests.onebox.box import Box, processes_of
from tests.waiting import until_seen


async def test_a_drain_loses_no_request(box: Box) -> None:
    """Decode and prefill grow and shrink under load: new pods get requests, and every request gets its whole answer."""
    router = await started(box)
    async with clients(router, 12) as load:
        await load.go_on(20)
        for role, most in (("decode", 3), ("prefill", 2)):
            pods = await scaled(box, role, most)
            for pod in pods:
                await until_seen(lambda pod=pod: served(pod), lambda n: n > 0, lambda n: f"it has answered {n}")  # type: ignore[misc]  # mypy cannot infer a lambda with a default
            await scaled(box, role, 1)
            await load.go_on(40)
        assert load.failures == []
    async for event in box.grove.events.list(namespace=box.namespace):
        assert event.reason != "DrainDeadlinePassed", event.message


async def test_a_crash_costs_another_try(box: Box) -> None:
    """A decode engine that is killed under load is asked no more, and what it had is answered by the other one."""
    router = await started(box)
    victim = (await scaled(box, "decode", 2))[0]
    async with clients(router, 8, output=40) as load:
        await load.go_on(20)
        for process in processes_of(victim):
            if "examples.engine" in process.command:
                os.kill(process.pid, signal.SIGKILL)
        await load.go_on(60)
        assert load.failures == []


async def test_what_engines_refuse_is_told_to_the_client(box: Box) -> None:
    """A request that no engine can hold is the client's error, word for word, and is not tried again."""
    router = await started(box)
    status, answer = await ask(router.status.pod_ip, 8000, 100, 100_000)
    assert status == 400
    assert "100100 tokens" in answer["error"]["message"]
