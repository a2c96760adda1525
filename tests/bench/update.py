"""Rolling updates of 10,000 pods, with the availability budget looked at after every change.

Pods start and stop without delay, so the figures are the control plane's. The sampler hears of each change in the step
in which it becomes visible, before anybody else could act on it: a moment in which too many are missing cannot hide
between two samples. A budget is broken by a clique with fewer serving pods than its size less ``maxUnavailable``, or by
a set with more than one copy in pieces.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from grove_server.app import Server
from grove_server.resources.workload import Pod, PodCliqueSet
from grove_server.store.interface import ChangeType, Notice
from tests.bench.figures import Figure, Target, figure
from tests.bench.hosted import DEADLINE_S, Json, apply, hosted, manifest, until_available
from tests.tidy.sources import ROOT
from tests.waiting import until

PODS_PER_S_MIN: Final = 500
_SYNCS_TRIED: Final = 500
_PAGE: Final = bytes(4_096)


class Sampler:
    """Counts serving pods by clique as changes become visible, and remembers the moments that broke the budget."""

    def __init__(self, server: Server, *, size: int, unavailable_max: int) -> None:
        self._size = size
        self._least = size - unavailable_max
        self._serving: Counter[tuple[str, str]] = Counter()
        self._in_pieces: dict[str, set[str]] = {}
        self.broken = 0
        self.samples = 0
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
        self.broken += serving < self._least or len(in_pieces) > 1


def _serves(pod: Pod) -> bool:
    return pod.is_ready and pod.is_active


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What is updated: sets of copies of pods, with so many pods of a clique missing at the most.

    ``syncs`` is how many durable writes the update makes one after the other, since each waits for the last.
    """

    name: str
    sets: int
    copies: int
    pods: int
    unavailable: int
    syncs: int = 0

    @property
    def pod_count(self) -> int:
        """All pods together."""
        return self.sets * self.copies * self.pods

    def manifests(self, image: str) -> list[Json]:
        """Return the sets at a revision."""
        budget: Json = {"maxUnavailable": self.unavailable}
        return [
            manifest(f"set-{number}", copies=self.copies, pods=self.pods, image=image, budget=budget)
            for number in range(self.sets)
        ]


async def _update(shape: Shape) -> tuple[float, int]:
    """Return pods per second and how many samples broke the budget."""
    async with hosted() as server:
        await apply(server, shape.manifests("bench:1"))
        await until_available(server)
        before = {pod.metadata.uid for pod in server.store.read().list(Pod)}
        sampler = Sampler(server, size=shape.pods, unavailable_max=shape.unavailable)
        started_s = time.perf_counter()
        await apply(server, shape.manifests("bench:2"))
        await until(lambda: _is_over(server), "all sets are updated", within_s=DEADLINE_S)
        took_s = time.perf_counter() - started_s
        sampler.stop()
        after = {pod.metadata.uid for pod in server.store.read().list(Pod) if pod.is_ready}
    assert len(after) == shape.pod_count, "an update changes no size"
    assert not before & after, "every pod was replaced"
    assert sampler.samples, "nothing was sampled"
    return shape.pod_count / took_s, sampler.broken


def _bare_syncs_s(count: int) -> float:
    """Return the seconds that so many bare durable writes take one after the other, from some of them."""
    tried = min(count, _SYNCS_TRIED)
    with tempfile.TemporaryFile(dir=ROOT / "build") as file:
        started_s = time.perf_counter()
        for _ in range(tried):
            file.write(_PAGE)
            file.flush()
            os.fdatasync(file.fileno())
        return (time.perf_counter() - started_s) * count / tried


def _figures(shape: Shape, target: Target | None) -> list[Figure]:
    baseline = shape.pod_count / _bare_syncs_s(shape.syncs) if shape.syncs else None
    pods_per_s, broken = asyncio.run(_update(shape))
    return [
        figure(shape.name, pods_per_s, "pods/s", better="higher", baseline=baseline, target=target),
        figure(f"{shape.name}.broken", broken, "samples", better="lower", target=Target(bound=0)),
    ]


def _is_over(server: Server) -> bool:
    for owner in server.store.read().list(PodCliqueSet):
        status = owner.status
        progress = status.update_progress
        if status.current_generation_hash != owner.revision.hash or progress is None or progress.is_active:
            return False
    return True


def run() -> list[Figure]:
    """Measure it for many sets, few large copies, many small copies one after the other, and those in small steps.

    A copy that goes as a whole takes five durable writes in a row: its turn, the pods that stop and come, their nodes,
    that they run, the copy's status. In steps of two pods of ten it takes the middle three five times.
    """
    target = Target(bound=PODS_PER_S_MIN)
    name = "life.update10k"
    steps = Shape(name="life.update2k.steps", sets=1, copies=200, pods=10, unavailable=2, syncs=200 * 17)
    return [
        *_figures(Shape(name=f"{name}.sets", sets=100, copies=1, pods=100, unavailable=10), target),
        *_figures(Shape(name=f"{name}.large", sets=1, copies=10, pods=1_000, unavailable=100), target),
        *_figures(Shape(name=f"{name}.copies", sets=1, copies=1_000, pods=10, unavailable=10, syncs=1_000 * 5), target),
        *_figures(steps, None),
    ]
