"""Rolling updates of 10,000 pods, with the availability budget looked at after every change.

Pods start and stop without delay, so the figures are the control plane's. The sampler hears of each change in the step
in which it becomes visible, before anybody else could act on it: a moment in which too many are missing cannot hide
between two samples. A budget is broken by a clique with fewer serving pods than its size less ``maxUnavailable``, or by
a set with more than one copy in pieces.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from typing import Final

from grove_server.app import Server
from grove_server.resources.workload import Pod, PodCliqueSet
from grove_server.store.interface import ChangeType, Notice
from tests.bench.figures import Figure, Target, figure
from tests.bench.hosted import DEADLINE_S, Json, apply, hosted, manifest, until_available
from tests.waiting import until

PODS: Final = 10_000
PODS_PER_S_MIN: Final = 500


class Sampler:
    """Counts serving pods by clique as changes become visible, and remembers the moments that broke the budget."""

    def __init__(self, server: Server, *, size: int, unavailable_max: int) -> None:
        self._size = size
        self._least = size - unavailable_max
        self._serving: Counter[tuple[str, str]] = Counter()
        self._in_pieces: dict[str, set[str]] = {}
        self.broken = 0
        self.samples = 0
        self.least_seen = size
        for pod in server.store.read().list(Pod):
            self._serving[pod.identity.set_name, pod.identity.name] += _serves(pod)
        self.stop = server.store.subscribe(self._observe)

    def _observe(self, notices: Sequence[Notice]) -> None:
        touched = set()
        for notice in notices:
            pod = notice.resource
            if not isinstance(pod, Pod):
                continue
            clique = (pod.identity.set_name, pod.identity.name)
            before = isinstance(notice.previous, Pod) and _serves(notice.previous)
            after = notice.kind is not ChangeType.DELETED and _serves(pod)
            if before != after:
                self._serving[clique] += after - before
                touched.add(clique)
        for clique in touched:
            self._sample(clique)

    def _sample(self, clique: tuple[str, str]) -> None:
        serving = self._serving[clique]
        in_pieces = self._in_pieces.setdefault(clique[0], set())
        if serving < self._size:
            in_pieces.add(clique[1])
        else:
            in_pieces.discard(clique[1])
        self.samples += 1
        self.least_seen = min(self.least_seen, serving)
        self.broken += serving < self._least or len(in_pieces) > 1


def _serves(pod: Pod) -> bool:
    return pod.is_ready and pod.is_active


async def _update(name: str, *, sets: int, copies: int, pods: int, unavailable: int) -> list[Figure]:
    def wanted(image: str) -> list[Json]:
        budget: Json = {"maxUnavailable": unavailable}
        return [manifest(f"set-{i}", copies=copies, pods=pods, image=image, budget=budget) for i in range(sets)]

    async with hosted() as server:
        await apply(server, wanted("bench:1"))
        await until_available(server)
        before = {pod.metadata.uid for pod in server.store.read().list(Pod)}
        sampler = Sampler(server, size=pods, unavailable_max=unavailable)
        started_s = time.perf_counter()
        await apply(server, wanted("bench:2"))
        await until(lambda: _is_over(server), "all sets are updated", within_s=DEADLINE_S)
        took_s = time.perf_counter() - started_s
        sampler.stop()
        after = {pod.metadata.uid for pod in server.store.read().list(Pod) if pod.is_ready}
        assert len(after) == PODS, "an update changes no size"
        assert not before & after, "every pod was replaced"
    assert sampler.samples, "nothing was sampled"
    return [
        figure(name, PODS / took_s, "pods/s", better="higher", target=Target(bound=PODS_PER_S_MIN)),
        figure(f"{name}.broken", sampler.broken, "samples", better="lower", target=Target(bound=0)),
    ]


def _is_over(server: Server) -> bool:
    for owner in server.store.read().list(PodCliqueSet):
        status = owner.status
        progress = status.update_progress
        if status.current_generation_hash != owner.revision.hash or progress is None or progress.is_active:
            return False
    return True


async def _all() -> list[Figure]:
    return [
        *await _update("life.update10k.sets", sets=100, copies=1, pods=100, unavailable=10),
        *await _update("life.update10k.large", sets=1, copies=10, pods=1_000, unavailable=100),
        *await _update("life.update10k.copies", sets=1, copies=1_000, pods=10, unavailable=2),
    ]


def run() -> list[Figure]:
    """Measure it for many sets, for few large copies and for many small copies of one set."""
    return asyncio.run(_all())
