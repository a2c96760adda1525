"""Figures of preemption, reclaim and consolidation: what a plan costs, alone, on clusters in memory.

Mirrors of published harnesses: KAI's reclaim scaling (one gang of N/10 pods x 8 GPUs over N x 8 running one-GPU pods)
and its scale test (a gang of N/2 and of N pods over a full cluster; consolidation for pods of 5, then 6 GPUs on 8-GPU
nodes, read as: four one-GPU pods run on every node, so half of the GPUs is free and no node has room); kube-scheduler's
preemption of groups (100 nodes; one gang of 100 pods, ten gangs that displace 1,000 pods, 5 to 50 low gangs).
Every plan is checked for what it promises before its times count. Nothing is carried out.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from grove_server.placement import (
    GPU_RESOURCE,
    CliqueRequest,
    Cluster,
    GangRequest,
    NodeState,
    PodShape,
    Verdict,
    place,
)
from grove_server.placement.consolidation import ConsolidationLimits, Moves, plan_consolidation
from grove_server.placement.occupancy import GangFacts, Occupancy, Seat
from grove_server.placement.preemption import Preemption, plan_preemption
from grove_server.placement.queues import QueueSpec, QueueTree
from grove_server.placement.reclaim import plan_reclaim
from grove_server.placement.thresholds import Thresholds, ways_within_limits
from grove_server.placement.violations import violations
from tests.bench.figures import Figure, Target, figure
from tests.bench.placement import ALL_GPUS, ONE_GPU, TOPOLOGY, millis_of, percentile

SIZES = (10, 50, 100, 200, 500, 1_000)


class Full:
    """A cluster of 8-GPU nodes and the gangs that run on it; `requests` by gang."""

    def __init__(self, node_count: int) -> None:
        self.cluster = Cluster(
            NodeState(
                name=f"node-{at:05}",
                labels=dict(zip(TOPOLOGY, ("z", f"block-{at // 160}", f"rack-{at // 20:03}", f"n{at}"), strict=True)),
                allocatable={"cpu": 128_000, "memory": 2**40, "pods": 110, GPU_RESOURCE: 8},
            )
            for at in range(node_count)
        )
        self.occupancy = Occupancy()
        self.requests: dict[str, GangRequest] = {}

    def run(self, gang: str, shape: PodShape, nodes: list[str], **facts: object) -> None:
        """Let one pod of a gang run on each of some nodes (a node may be named several times)."""
        known = GangFacts(name=gang, minimums=(("worker", len(nodes)),), **facts)  # type: ignore[arg-type]  # as given
        self.occupancy.set_gang(known)
        self.requests[gang] = gang_of(gang, shape, len(nodes))
        self.occupancy.add_pods(
            Seat(
                pod=f"{gang}-{at}",
                gang=gang,
                clique="worker",
                index=at,
                node=node,
                shape=shape,
                gpu_ids=self.cluster.bind_pod(node, shape),
            )
            for at, node in enumerate(nodes)
        )

    def check(self, plan: Preemption | Verdict, request: GangRequest) -> Preemption:
        """Return a plan that keeps what it promises; fail otherwise."""
        assert isinstance(plan, Preemption), plan.sentence()
        after = self.cluster.fork()
        for pod in plan.pods:
            seat = self.occupancy.seat(self.occupancy.pods[pod])
            after.release_pod(seat.node, seat.shape, seat.gpu_ids)
        assert violations(after, request, plan.placement) == []
        return plan


def gang_of(name: str, shape: PodShape, pods: int, *, required: str | None = None) -> GangRequest:
    """Return a gang of one clique."""
    clique = CliqueRequest(name="worker", shape=shape, minimum=pods)
    return GangRequest(name=name, members=(clique,), topology=TOPOLOGY, required=required)


def small_pods(node_count: int, per_node: int = 8, *, queue: str = "", seed: int | None = None) -> Full:
    """Return nodes with one-GPU gangs; with a seed these started at different times."""
    full, chance = Full(node_count), random.Random(seed)
    for node in full.cluster.node_names():
        for at in range(per_node):
            started = 0.0 if seed is None else chance.random()
            full.run(f"low-{node}-{at}", ONE_GPU, [node], queue=queue, started_at_s=started)
    return full


TREE = QueueTree(
    [QueueSpec(name="owner", guarantee={GPU_RESOURCE: 10**9}), QueueSpec(name="borrower", guarantee={GPU_RESOURCE: 0})]
)


def reclaim_times(full: Full, pods: int, rounds: int) -> tuple[list[float], Preemption]:
    """Return milliseconds of reclaiming 8 GPUs for each of some pods, and the plan."""
    request = gang_of("high", ALL_GPUS, pods)
    place(full.cluster, request)  # Its verdict is why reclaim is asked for; the layout is there by then.
    plan = full.check(plan_reclaim(full.cluster, full.occupancy, request, queue="owner", tree=TREE), request)
    assert plan.cost.pods == 8 * pods
    times = millis_of(
        lambda: _keep(plan_reclaim(full.cluster, full.occupancy, request, queue="owner", tree=TREE)), rounds
    )
    return times, plan


def preemption_times(full: Full, request: GangRequest, rounds: int) -> tuple[list[float], Preemption]:
    """Return milliseconds of preempting for a gang, and the plan."""
    plan = full.check(plan_preemption(full.cluster, full.occupancy, request, priority=10), request)
    return millis_of(lambda: _keep(plan_preemption(full.cluster, full.occupancy, request, priority=10)), rounds), plan


def w9_reclaim() -> Iterator[Figure]:
    """Reclaim for one gang of N/10 pods x 8 GPUs, N up to 1,000; once more where all victims differ in age."""
    for nodes in SIZES:
        times, _ = reclaim_times(small_pods(nodes, queue="borrower"), max(1, nodes // 10), 15)
        target = Target(bound=20) if nodes == SIZES[-1] else None
        yield figure(f"place.reclaim{nodes}", percentile(times, 50), "ms p50", better="lower", target=target)
        if target is not None:
            yield figure(f"place.reclaim{nodes}.p99", percentile(times, 99), "ms p99", better="lower")
    times, _ = reclaim_times(small_pods(1_000, queue="borrower", seed=1), 100, 10)
    yield figure("place.reclaim1000.ages", percentile(times, 50), "ms p50", better="lower", target=Target(bound=20))


def w8_reclaim() -> Iterator[Figure]:
    """Reclaim for gangs of N/2 and N pods x 8 GPUs on 500 full nodes, and one that misses by one pod."""
    full = small_pods(500, queue="borrower")
    for name, pods in (("half", 250), ("all", 500)):
        times, _ = reclaim_times(full, pods, 10)
        yield figure(f"place.w8.reclaim_{name}", percentile(times, 50), "ms p50", better="lower")
    request = gang_of("high", ALL_GPUS, 501)
    times = millis_of(
        lambda: _refuse(plan_reclaim(full.cluster, full.occupancy, request, queue="owner", tree=TREE)), 10
    )
    yield figure("place.w8.reclaim_fails_by_one", percentile(times, 50), "ms p50", better="lower")


def queue_limits() -> Iterator[Figure]:
    """One gang of one queue leaves while 10,000 gangs of 100 queues wait for limits: finding who is asked again."""
    names = [f"q{at:02}" for at in range(100)]
    tree = QueueTree(
        [
            QueueSpec(name="top", limit={GPU_RESOURCE: 900}),
            *(QueueSpec(name=name, parent="top", limit={GPU_RESOURCE: 8}) for name in names),
        ]
    )
    waiting: Thresholds[int] = Thresholds()
    used = dict.fromkeys(names, 8_000) | {"top": 800_000}

    def total(queue: str, _resource: str) -> int:
        return used[queue]

    for at in range(10_000):
        amounts = {GPU_RESOURCE: 1 + at // 100 % 8}
        waiting.file(at, ways_within_limits(tree, names[at % 100], amounts), total, order=(at,))
    used["q03"] -= 1_000
    assert waiting.woken(total) == [3]
    times = millis_of(lambda: _one(waiting.woken(total)), 50)
    yield figure("place.queue_limit.10k", percentile(times, 50), "ms p50", better="lower")


def _one(found: list[int]) -> None:
    assert len(found) == 1


def w4_preemption() -> Iterator[Figure]:
    """Preemption on 100 nodes: one gang of 100 over 800 gangs; ten gangs over 1,000 pods; 5 to 50 low gangs."""
    times, _ = preemption_times(small_pods(100), gang_of("high", ALL_GPUS, 100), 10)
    yield figure("place.w4.gang100", percentile(times, 50), "ms p50", better="lower")
    yield figure("place.w4.ten_gangs", _ten_gangs(), "ms each", better="lower")
    for low_gangs in (5, 20, 50):
        full = Full(100)
        names = full.cluster.node_names()
        for at in range(low_gangs):
            full.run(f"low-{at:02}", ALL_GPUS, names[at * 100 // low_gangs : (at + 1) * 100 // low_gangs])
        size = 100 // low_gangs
        times, plan = preemption_times(full, gang_of("high", ALL_GPUS, size), 20)
        assert plan.cost.gangs_broken == 1
        yield figure(f"place.w4.low{low_gangs}", percentile(times, 50), "ms p50", better="lower")


def _ten_gangs() -> float:
    """Return milliseconds per gang for ten that displace 1,000 pods of one CPU-bound gang each, carried out in turn."""
    full, shape = Full(100), PodShape(requests=(("cpu", 12_800),))
    for node in full.cluster.node_names():
        for at in range(10):
            full.run(f"low-{node}-{at}", shape, [node])
    total = 0.0
    for at in range(10):
        request = gang_of(f"high-{at}", shape, 100)
        plans: list[Preemption | Verdict] = []
        total += sum(
            millis_of(
                lambda: plans.append(plan_preemption(full.cluster, full.occupancy, request, priority=10)),  # noqa: B023 -- run at once
                1,
            )
        )
        plan = full.check(plans[0], request)
        assert plan.cost.pods == 100
        for pod in plan.pods:
            seat = full.occupancy.seat(full.occupancy.pods[pod])
            full.cluster.release_pod(seat.node, seat.shape, seat.gpu_ids)
        full.occupancy.remove_pods(plan.pods)
        full.cluster.reserve(plan.placement)
    return total / 10


def w8_consolidation() -> Iterator[Figure]:
    """Consolidation on 500 nodes with four one-GPU pods each: room for 41 pods of 5 GPUs, then of 6."""
    full = small_pods(500, 4)
    limits = ConsolidationLimits(pods_max=1_000, gangs_max=1_000)
    for gpu_count in (5, 6):
        shape = PodShape(requests=(("cpu", 20_000), ("memory", 160 * 2**30), (GPU_RESOURCE, gpu_count)))
        request = gang_of("target", shape, 41)

        def plan_moves(request: GangRequest = request) -> Moves:
            plan = plan_consolidation(
                full.cluster,
                full.occupancy,
                request,
                request_of=lambda gang, _: full.requests[gang],
                limits=limits,
            )
            assert isinstance(plan, Moves), plan.sentence()
            return plan

        assert len(plan_moves().moves) == 41 * (gpu_count - 4)
        times = millis_of(lambda: _done(plan_moves()), 5)
        yield figure(f"place.w8.consolidate{gpu_count}", percentile(times, 50), "ms p50", better="lower")


def _done(_: Moves) -> None:
    """Drop a plan whose making was measured."""


def _keep(plan: Preemption | Verdict) -> None:
    assert isinstance(plan, Preemption)


def _refuse(plan: Preemption | Verdict) -> None:
    assert isinstance(plan, Verdict)


def run() -> Iterator[Figure]:
    """Measure all of them."""
    measures: tuple[Callable[[], Iterator[Figure]], ...] = (
        w9_reclaim,
        w8_reclaim,
        queue_limits,
        w4_preemption,
        w8_consolidation,
    )
    for measure in measures:
        yield from measure()


if __name__ == "__main__":
    for found in run():
        print(f"{found.name:34} {found.value:10.3f} {found.unit}")
