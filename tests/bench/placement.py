"""Placement's figures: what a decision costs, alone, on clusters of up to 10,240 nodes.

Each function builds its cluster, warms it up, and returns plain numbers; occupancy comes from a fixed seed, so two runs
decide the same gangs. Decisions are timed one by one with the collector off, for a pause of it is not a decision.
"""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Mapping

from grove_server.placement import (
    GPU_RESOURCE,
    CliqueRequest,
    Cluster,
    GangRequest,
    GroupRequest,
    NodeState,
    Placement,
    PodShape,
    Taint,
    Verdict,
    place,
)

TOPOLOGY = ("topology/zone", "topology/block", "topology/rack", "kubernetes.io/hostname")
ONE_GPU = PodShape(requests=(("cpu", 4_000), ("memory", 32 * 2**30), (GPU_RESOURCE, 1)))
ALL_GPUS = PodShape(requests=(("cpu", 32_000), ("memory", 256 * 2**30), (GPU_RESOURCE, 8)))
HALF_GPUS = PodShape(requests=(("cpu", 16_000), ("memory", 128 * 2**30), (GPU_RESOURCE, 4)))
NO_GPU = PodShape(requests=(("cpu", 2_000), ("memory", 4 * 2**30)))


def tree_cluster(
    zones: int, blocks: int, racks: int, hosts: int, *, used: float, seed: int = 1, gpu_count: int = 8
) -> Cluster:
    """Return servers in a tree (counts per parent), every 50th tainted, a share of all GPUs in use."""
    nodes = []
    for index in range(zones * blocks * racks * hosts):
        rack, block, zone = index // hosts, index // (hosts * racks), index // (hosts * racks * blocks)
        name = f"node-{index:06}"
        labels = dict(zip(TOPOLOGY, (f"zone-{zone}", f"block-{block:03}", f"rack-{rack:04}", name), strict=True))
        nodes.append(
            NodeState(
                name=name,
                labels=labels,
                allocatable={"cpu": 128_000, "memory": 2**40, "pods": 110, GPU_RESOURCE: gpu_count},
                taints=(Taint(key="dedicated", value="train"),) if index % 50 == 49 else (),
            )
        )
    cluster = Cluster(nodes)
    chance = random.Random(seed)
    for node in nodes:
        for _ in range(sum(chance.random() < used for _ in range(gpu_count))):
            cluster.bind_pod(node.name, ONE_GPU)
    return cluster


def place_1000x10k(rounds: int = 300) -> dict[str, float]:
    """Return p50 and p99 in ms for a gang of 1,000 one-GPU pods on 10,240 nodes, rack preferred."""
    cluster = tree_cluster(4, 8, 16, 20, used=0.5)
    request = gang(CliqueRequest(name="worker", shape=ONE_GPU, minimum=1_000), preferred=TOPOLOGY[2])
    (first,) = millis_of(lambda: _placed(place(cluster, request)), 1)
    times = millis_of(lambda: _placed(place(cluster, request)), rounds)
    return {"p50_ms": percentile(times, 50), "p99_ms": percentile(times, 99), "cold_ms": first}


def place_1000x10k_impossible(rounds: int = 100) -> dict[str, float]:
    """Return p50 and p99 in ms for the proof that 1,000 pods do not fit one rack, explanation included."""
    cluster = tree_cluster(4, 8, 16, 20, used=0.5)
    request = gang(CliqueRequest(name="worker", shape=ONE_GPU, minimum=1_000), required=TOPOLOGY[2])
    _proven(place(cluster, request))
    times = millis_of(lambda: _proven(place(cluster, request)), rounds)
    return {"p50_ms": percentile(times, 50), "p99_ms": percentile(times, 99)}


def tree206(rounds: int = 50) -> dict[str, float]:
    """Return p50 and p99 in ms for 206 pods in 40 groups: zone on the gang, rack on each group, on 10,240 nodes.

    Groups are of four kinds with one or two cliques each; one clique has no GPUs.
    """
    cluster = tree_cluster(4, 8, 16, 20, used=0.5)
    groups = [group for index in range(10) for group in four_groups(index)]
    request = gang(CliqueRequest(name="router", shape=NO_GPU, minimum=6), *groups, required=TOPOLOGY[0])
    _placed(place(cluster, request))
    times = millis_of(lambda: _placed(place(cluster, request)), rounds)
    return {"p50_ms": percentile(times, 50), "p99_ms": percentile(times, 99)}


def four_groups(index: int) -> list[GroupRequest]:
    """Return groups of four kinds with one or two cliques each, bound to a rack or preferring one."""
    rack = TOPOLOGY[2]
    return [
        GroupRequest(
            name=f"prefill-{index}",
            required=rack,
            members=(
                CliqueRequest(name=f"prefill-{index}-leader", shape=NO_GPU, minimum=1),
                CliqueRequest(name=f"prefill-{index}-worker", shape=ONE_GPU, minimum=7),
            ),
        ),
        GroupRequest(
            name=f"decode-{index}",
            required=rack,
            members=(CliqueRequest(name=f"decode-{index}-worker", shape=HALF_GPUS, minimum=4),),
        ),
        GroupRequest(
            name=f"expert-{index}",
            required=rack,
            members=(
                CliqueRequest(name=f"expert-{index}-leader", shape=ONE_GPU, minimum=1),
                CliqueRequest(name=f"expert-{index}-worker", shape=HALF_GPUS, minimum=3),
            ),
        ),
        GroupRequest(
            name=f"draft-{index}",
            preferred=rack,
            members=(CliqueRequest(name=f"draft-{index}-worker", shape=ONE_GPU, minimum=4),),
        ),
    ]


def small_gangs(gangs: int = 2_000) -> dict[str, float]:
    """Return microseconds per gang of two pods, decision and reservation, on 256 nodes that fill up meanwhile."""
    results = {}
    pair = CliqueRequest(name="pair", shape=ONE_GPU, minimum=2)
    for name, request in {
        "rack_us": gang(pair, required=TOPOLOGY[2]),
        "free_us": gang(pair),
        "cpu_us": gang(CliqueRequest(name="pair", shape=NO_GPU, minimum=2)),
        "two_cliques_us": gang(
            CliqueRequest(name="leader", shape=ONE_GPU, minimum=1),
            CliqueRequest(name="worker", shape=ONE_GPU, minimum=1),
        ),
    }.items():
        cluster = tree_cluster(2, 4, 4, 8, used=0.0)
        count = min(gangs, 900)
        results[name] = 1_000 * sum(millis_of(lambda: reserved(cluster, request), count)) / count  # noqa: B023 -- run at once
    return results


def gangs_5000(gangs: int = 2_000) -> dict[str, float]:
    """Return gangs per second of three pods with ten live shapes on 5,000 nodes, decision and reservation."""
    cluster = tree_cluster(2, 5, 10, 50, used=0.3)
    requests = [
        gang(
            CliqueRequest(
                name="trio", shape=PodShape(requests=(("cpu", 1_000 + 100 * k), (GPU_RESOURCE, 1))), minimum=3
            ),
            required=TOPOLOGY[2],
        )
        for k in range(10)
    ]
    turn = iter(range(gangs))
    times = millis_of(lambda: reserved(cluster, requests[next(turn) % 10]), gangs)
    return {"gangs_per_s": 1_000 * gangs / sum(times)}


def gang(
    *members: CliqueRequest | GroupRequest, required: str | None = None, preferred: str | None = None
) -> GangRequest:
    """Return a gang over the topology of the figures."""
    return GangRequest(name="bench", members=members, topology=TOPOLOGY, required=required, preferred=preferred)


def _placed(result: Placement | Verdict) -> None:
    assert isinstance(result, Placement), result.sentence()


def _proven(result: Placement | Verdict) -> None:
    assert isinstance(result, Verdict)
    assert result.proof


def reserved(cluster: Cluster, request: GangRequest) -> None:
    """Decide a gang, which has to fit, and make the decision real."""
    result = place(cluster, request)
    assert isinstance(result, Placement), result.sentence()
    cluster.reserve(result)


def millis_of(work: Callable[[], object], rounds: int) -> list[float]:
    """Return the milliseconds of each round."""
    times = []
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            start = time.perf_counter()
            work()
            times.append(1_000 * (time.perf_counter() - start))
    finally:
        gc.enable()
    return times


def percentile(times: list[float], percent: int) -> float:
    """Return a percentile, nearest rank."""
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


FIGURES: Mapping[str, Callable[[], dict[str, float]]] = {
    "place.1000x10k": place_1000x10k,
    "place.1000x10k.impossible": place_1000x10k_impossible,
    "place.tree206": tree206,
    "place.small": small_gangs,
    "place.gangs5000": gangs_5000,
}


if __name__ == "__main__":
    for figure, measure in FIGURES.items():
        print(figure, {key: round(value, 3) for key, value in measure().items()})
