"""The autoscaling example on a server, and clients of its router that count what becomes of their requests."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from examples import wire
from grove.v1.pod_pb2 import Pod
from tests.examples.programs import ask
from tests.onebox.box import Box, is_ready
from tests.tidy.sources import ROOT
from tests.waiting import until

FOLDER: Final = ROOT / "examples" / "autoscaling"
SET: Final = FOLDER / "disaggregated.yaml"
POLICY: Final = FOLDER / "disaggregated-policy.yaml"
PORT: Final = 8000


async def started(box: Box) -> Pod:
    """Apply the example's set, wait until it serves, and return the router's pod."""
    # The example names the server's usual address; a test's server has another one.
    text = SET.read_text(encoding="utf-8")
    assert "127.0.0.1:50051" in text
    box.sets.append("elastic")
    await box.grove.apply_manifest(text.replace("127.0.0.1:50051", box.server.address), default_namespace=box.namespace)
    return next(pod for pod in await box.ready(3) if role_of(pod) == "router")


def role_of(pod: Pod) -> str:
    """Return which clique a pod is of."""
    return pod.metadata.labels["grove.io/podclique"].removeprefix("elastic-0-")


def of_role(pods: list[Pod], role: str) -> list[Pod]:
    """Return the pods of a clique."""
    return [pod for pod in pods if role_of(pod) == role]


async def scaled(box: Box, role: str, replicas: int) -> list[Pod]:
    """Scale a clique and return its pods once exactly so many are there, ready."""
    await box.grove.pod_cliques.scale(f"elastic-0-{role}", replicas, namespace=box.namespace)
    pods = await box.see(
        lambda pods: len(of_role(pods, role)) == replicas and all(map(is_ready, of_role(pods, role))),
        f"{role} has {replicas} pods",
        within_s=60.0,
    )
    return of_role(pods, role)


async def served(pod: Pod, what: str = "vllm:request_success_total") -> float:
    """Return how many requests an engine has finished whole."""
    async with wire.asked(pod.status.pod_ip, PORT, "GET", "/metrics") as answer:
        lines = (await answer.whole()).decode().splitlines()
    (value,) = (line.split()[-1] for line in lines if line.startswith(f"{what}{{") and '"abort"' not in line)
    return float(value)


class Clients:
    """Clients that ask one after the other; ``failures`` says what went wrong, ``answers`` counts whole answers."""

    def __init__(self, router: Pod, prompt: int, output: int) -> None:
        self._address = router.status.pod_ip
        self._prompt = prompt
        self._output = output
        self.answers: Counter[str] = Counter()
        self.failures: list[str] = []

    async def send(self) -> None:
        """Ask again and again."""
        while True:
            try:
                status, answer = await ask(self._address, PORT, self._prompt, self._output)
            except (OSError, wire.WireError, json.JSONDecodeError) as error:
                self.failures.append(f"{type(error).__name__}: {error}")
                continue
            if status != wire.OK or answer["usage"]["completion_tokens"] != self._output:
                self.failures.append(f"{status}: {answer}")
            self.answers["whole"] += 1

    async def go_on(self, count: int) -> None:
        """Return when so many more are answered."""
        goal = self.answers["whole"] + count
        await until(
            lambda: self.answers["whole"] >= goal or bool(self.failures), f"{count} more answers", within_s=60.0
        )


@asynccontextmanager
async def clients(router: Pod, count: int, *, prompt: int = 100, output: int = 20) -> AsyncIterator[Clients]:
    """Let so many clients ask as long as this is entered."""
    made = Clients(router, prompt, output)
    tasks = [asyncio.create_task(made.send()) for _ in range(count)]
    try:
        yield made
        assert not any(task.done() for task in tasks)
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
