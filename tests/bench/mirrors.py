"""Other schedulers' published cases, mirrored: decision and reservation alone, in memory (W1 to W11 of the notes).

Their figures hold an API server and binding, so no ratio is given: what is measured here is the part that is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from grove_server.placement import (
    GPU_RESOURCE,
    CliqueRequest,
    Cluster,
    GangRequest,
    GroupRequest,
    PodShape,
    Verdict,
    place,
)
from tests.bench.figures import Figure, Target, figure
from tests.bench.placement import (
    ALL_GPUS,
    NO_GPU,
    ONE_GPU,
    TOPOLOGY,
    four_groups,
    gang,
    millis_of,
    percentile,
    reserved,
    tree_cluster,
)

ZONE, _, RACK, _ = TOPOLOGY
TWO_GPUS = PodShape(requests=(("cpu", 8_000), ("memory", 64 * 2**30), (GPU_RESOURCE, 2)))


def run() -> Iterator[Figure]:
    """Measure all of them."""
    yield from _kube_gangs()
    yield from _kube_topology()
    yield from _kube_composites()
    yield from _kai()
    yield from _volcano()
    yield from _grove()


def _kube_gangs() -> Iterator[Figure]:
    """W1: 5,000 nodes without topology; many gangs of 3, some of 1,000, and 50,000 pods in ten."""
    rates = [_rate(lambda: _plain(1, 1, 50, 100), count, lambda _: _one(3)) for count in (1_000, 2_000, 3_000)]
    yield figure("place.w1", min(rates), "gangs/s", better="higher", target=Target(bound=3_000))
    slowest = 0.0
    for count in (3, 6, 9):
        slowest = max(slowest, *_series(_plain(1, 1, 50, 100), count, lambda _: _one(1_000)))
    yield figure("place.w1.large", slowest, "ms max", better="lower", target=Target(bound=5))
    huge = _series(_plain(1, 1, 50, 100), 10, lambda _: _one(5_000))
    yield figure("place.w1.huge", max(huge), "ms max", better="lower", target=Target(bound=25))


def _kube_topology() -> Iterator[Figure]:
    """W2: the same nodes in 50 racks, each gang in one rack."""
    rate = _rate(lambda: _plain(1, 1, 50, 100), 2_250, lambda _: _one(4, required=RACK))
    yield figure("place.w2", rate, "gangs/s", better="higher", target=Target(bound=3_000))
    large = _series(_plain(1, 1, 50, 100), 9, lambda _: _one(1_000, required=RACK))
    yield figure("place.w2.large", max(large), "ms max", better="lower", target=Target(bound=5))


def _kube_composites() -> Iterator[Figure]:
    """W3: composites of two groups, zone on the parent, rack on each child; many small ones, a few large ones."""
    rate = _rate(lambda: _plain(5, 1, 10, 100), 1_500, lambda _: _composite(3))
    yield figure("place.w3", rate, "composites/s", better="higher")
    large = _series(_plain(5, 1, 10, 100), 3, lambda _: _composite(1_500))
    yield figure("place.w3.large", max(large), "ms max", better="lower", target=Target(bound=25))


def _kai() -> Iterator[Figure]:
    """W7: one gang of 512 pods in 4 x 8 x 8 x 2 nodes; W8: a gang that misses by one node is refused with a proof."""
    cluster = tree_cluster(4, 8, 8, 2, used=0)
    request = gang(CliqueRequest(name="worker", shape=TWO_GPUS, minimum=512), preferred=RACK)
    yield figure("place.w7", _decision(cluster, request), "ms p50", better="lower", target=Target(bound=5))
    cluster = tree_cluster(1, 1, 50, 10, used=0)
    for index, name in enumerate(cluster.node_names()):
        if index % 50:
            cluster.bind_pod(name, ONE_GPU)
    free = int(cluster.request_class(ALL_GPUS, cluster.layout(TOPOLOGY)).everywhere[0][0])
    request = gang(CliqueRequest(name="worker", shape=ALL_GPUS, minimum=free + 1))
    refusal = place(cluster, request)
    assert isinstance(refusal, Verdict)
    assert refusal.proof
    yield figure("place.w8.miss_by_one", _decision(cluster, request), "ms p50", better="lower", target=Target(bound=1))


def _volcano() -> Iterator[Figure]:
    """W10: one job of 100 partitions of 10 pods, each in one of 100 racks; W11: 6,000 nodes in 9,600 domains."""
    cluster = tree_cluster(1, 1, 100, 10, used=0)
    partitions = [
        GroupRequest(
            name=f"partition-{index}",
            required=RACK,
            members=(CliqueRequest(name=f"partition-{index}-worker", shape=HALF, minimum=10),),
        )
        for index in range(100)
    ]
    yield figure("place.w10", _decision(cluster, gang(*partitions)), "ms p50", better="lower", target=Target(bound=50))
    cluster = tree_cluster(100, 5, 6, 2, used=0.5)
    yield figure(
        "place.w11", _decision(cluster, _one(8, required=RACK)), "ms p50", better="lower", target=Target(bound=1)
    )


HALF = PodShape(requests=(("cpu", 16_000), ("memory", 128 * 2**30), (GPU_RESOURCE, 4)))


def _grove() -> Iterator[Figure]:
    """A tree of 92 pods in 14 groups on 10,240 nodes, and a warm gang of 1,000 on 102,400."""
    groups = [group for index in range(4) for group in four_groups(index)][:14]
    pods = sum(member.minimum for group in groups for member in group.members if isinstance(member, CliqueRequest))
    router = CliqueRequest(name="router", shape=NO_GPU, minimum=max(0, 92 - pods))
    request = gang(router, *groups, required=ZONE)
    cluster = tree_cluster(4, 8, 16, 20, used=0.5)
    yield figure("place.tree92", _decision(cluster, request), "ms p50", better="lower", target=Target(bound=10))
    cluster = tree_cluster(10, 16, 32, 20, used=0.5)
    request = gang(CliqueRequest(name="worker", shape=ONE_GPU, minimum=1_000), preferred=RACK)
    yield figure("place.1000x100k", _decision(cluster, request), "ms p50", better="lower", target=Target(bound=5))


def _one(pods: int, *, required: str | None = None) -> GangRequest:
    return gang(CliqueRequest(name="worker", shape=ONE_CORE, minimum=pods), required=required)


ONE_CORE = PodShape(requests=(("cpu", 1_000), ("memory", 2**30)))


def _composite(pods: int) -> GangRequest:
    groups = [
        GroupRequest(
            name=f"half-{half}",
            required=RACK,
            members=(CliqueRequest(name=f"half-{half}-worker", shape=ONE_CORE, minimum=pods),),
        )
        for half in range(2)
    ]
    return gang(*groups, required=ZONE)


def _plain(zones: int, blocks: int, racks: int, hosts: int) -> Cluster:
    """Return empty servers without GPUs."""
    return tree_cluster(zones, blocks, racks, hosts, used=0, gpu_count=0)


def _series(cluster: Cluster, count: int, make: Callable[[int], GangRequest]) -> list[float]:
    """Return the milliseconds of each of some gangs, decided and reserved one after the other."""
    requests = iter([make(index) for index in range(count)])
    place(cluster, make(0))  # A server knows its nodes and shapes long before.
    return millis_of(lambda: reserved(cluster, next(requests)), count)


def _rate(build: Callable[[], Cluster], count: int, make: Callable[[int], GangRequest]) -> float:
    return 1_000 * count / sum(_series(build(), count, make))


def _decision(cluster: Cluster, request: GangRequest, rounds: int = 30) -> float:
    """Return the median milliseconds of a warm decision."""
    place(cluster, request)
    return percentile(millis_of(lambda: place(cluster, request), rounds), 50)


if __name__ == "__main__":
    for each in run():
        print(each.name, round(each.value, 3), each.unit, each.target or "", each.met)
