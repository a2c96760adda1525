"""Pods that serve HTTP are replaced and taken away under load: a client that follows the router's API loses nothing.

The worker ends the moment it gets SIGTERM, whatever it is answering, so each request that is under way when a pod is
stopped is a failed one. The client follows pods and drains as docs/draining.md says, and counts.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

from grove.v1.pod_pb2 import Pod
from tests.conformance.drains import Router
from tests.onebox.box import Box, clique, condition, get, health_probe, is_ready, worker
from tests.waiting import until

SENDERS: Final = 6
# Requests after a change, so that what it broke shows.
AFTERWARDS: Final = 60


class Balancer:
    """Sends requests to the ready pods of a namespace, in turn, and leaves those that drain."""

    def __init__(self, box: Box, router: Router) -> None:
        self._box = box
        self._router = router
        self._pods: dict[str, Pod] = {}
        self.left: set[str] = set()
        self._under_way: Counter[str] = Counter()
        self._turn = 0
        self._taken = 0
        self.answers: Counter[str] = Counter()
        self.failures: list[str] = []

    @property
    def pods(self) -> list[Pod]:
        """The pods that take requests now."""
        return [pod for uid, pod in sorted(self._pods.items()) if uid not in self.left]

    async def follow_pods(self) -> None:
        """Know which pods are ready."""
        async for change in self._box.grove.pods.watch(namespace=self._box.namespace):
            pod = change.object
            if pod is None:
                continue
            uid = pod.metadata.uid
            if change.type != "DELETED" and is_ready(pod) and condition(pod, "Draining")[0] != "True":
                self._pods[uid] = pod
            else:
                self._pods.pop(uid, None)

    async def follow_drains(self) -> None:
        """Leave pods that drain, and say so once nothing is under way there."""
        while True:
            await until(self._is_told_more, "there is another drain", within_s=600)
            step = self._router.steps[self._taken]
            self._taken += 1
            if step.type in ("ADDED", "MODIFIED") and self._router.name not in step.object.acknowledged_by:
                self.left.add(step.object.uid)
                await until(partial(self._is_idle, step.object.uid), "its requests are answered")
                await self._router.acknowledge(step.object.pod)

    def _is_told_more(self) -> bool:
        return len(self._router.steps) > self._taken

    def _is_idle(self, uid: str) -> bool:
        return self._under_way[uid] == 0

    async def send(self) -> None:
        """Send one request after the other."""
        while True:
            await until(lambda: bool(self.pods), "a pod is there")
            self._turn += 1
            pod = self.pods[self._turn % len(self.pods)]
            uid = pod.metadata.uid
            self._under_way[uid] += 1
            try:
                status, _ = await get(pod, "/slow")
            except OSError as error:
                status = 0
                self.failures.append(f"{pod.metadata.name} {uid}: {error}")
            else:
                if status != 200:
                    self.failures.append(f"{pod.metadata.name} {uid}: answer {status}")
            finally:
                self._under_way[uid] -= 1
            self.answers[uid] += 1


@asynccontextmanager
async def balanced(box: Box, set_name: str) -> AsyncIterator[Balancer]:
    """Send requests as long as this is entered."""
    async with Router(box.server.address, "balancer", set_name, namespace=box.namespace) as router:
        balancer = Balancer(box, router)
        tasks = [asyncio.create_task(work()) for work in (balancer.follow_pods, balancer.follow_drains)]
        tasks += [asyncio.create_task(balancer.send()) for _ in range(SENDERS)]
        try:
            yield balancer
            assert [task for task in tasks if task.done()] == [], "who follows and who sends goes on"
        finally:
            for task in tasks:
                task.cancel()
            for task in tasks:
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            await router.leave()


def server_clique(journal: Path, replicas: int, version: str) -> Any:  # noqa: ANN401 -- a piece of a manifest
    """Return a clique of HTTP servers."""
    probe = {"readinessProbe": health_probe()}
    made = clique("server", worker(journal, container=probe, VERSION=version), replicas=replicas)
    made["spec"]["minAvailable"] = 1
    return made


async def served_through(box: Box, count: int, change: Callable[[], Awaitable[object]], journal: Path) -> None:
    """Run *count* pods under load, make *change* and wait for it; no request fails, and nobody was cut off."""
    await box.apply("web", server_clique(journal, 3, "1"))
    old = {pod.metadata.uid for pod in await box.ready(3)}
    async with balanced(box, "web") as balancer:
        await until(lambda: all(balancer.answers[uid] for uid in old), "all of them answer")
        await change()
        await box.see(
            lambda pods: (
                len(pods) == count and all(map(is_ready, pods)) and not any(condition(p, "Draining")[0] for p in pods)
            ),
            "the change is made",
            within_s=60.0,
        )
        answered = balancer.answers.total()
        await until(lambda: balancer.answers.total() >= answered + AFTERWARDS, "requests go on")
        assert balancer.failures == []
        now = {pod.metadata.uid for pod in await box.pods()}
        assert {pod.metadata.uid for pod in balancer.pods} == now
        assert all(balancer.answers[uid] for uid in now)
        left = balancer.left
        assert left == old - now


async def test_a_rolling_update_loses_no_request(box: Box, journal_path: Path) -> None:
    """All pods are replaced under load, and every request is answered."""

    async def change() -> None:
        await box.apply("web", server_clique(journal_path, 3, "2"))
        await box.see(lambda pods: not old & {pod.metadata.uid for pod in pods}, "all are replaced", within_s=60.0)

    await box.apply("web", server_clique(journal_path, 3, "1"))
    old = {pod.metadata.uid for pod in await box.ready(3)}
    await served_through(box, 3, change, journal_path)


async def test_a_scale_in_loses_no_request(box: Box, journal_path: Path) -> None:
    """Pods are taken away under load, and every request is answered."""

    async def change() -> None:
        await box.grove.pod_cliques.scale("web-0-server", 1, namespace=box.namespace)

    await served_through(box, 1, change, journal_path)
