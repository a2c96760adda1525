"""Random hierarchical gangs on half-full clusters (W13 of the project's design notes), by seed.

Three blocks of four racks of six 8-GPU hosts, partly used; a gang bound to one block, of three to seven sub-groups
bound to one rack each, of one to three kinds of pods with a random amount of CPU per GPU. About two thirds have a
place; a walk that takes sub-groups in the given order finds about four fifths of those.
"""

from __future__ import annotations

import random
from typing import Final

from grove_server.placement import GPU_RESOURCE, CliqueRequest, Cluster, GangRequest, GroupRequest, NodeState, PodShape
from tests.placement_cases import BLOCK, HOST, RACK

BLOCKS, RACKS, HOSTS = 3, 4, 6
LEVELS: Final = (BLOCK, RACK, HOST)
HOST_CPU: Final = 96
"""Cores of a host with 8 GPUs: twelve for each GPU, so pods with more leave GPUs behind."""


def half_full_cluster(chance: random.Random, *, hosts_per_rack: int = HOSTS) -> Cluster:
    """Return the cluster of one instance; how full it is differs from one to the next."""
    fullness = chance.uniform(0.0, 0.45)
    nodes = []
    for index in range(BLOCKS * RACKS * hosts_per_rack):
        rack = index // hosts_per_rack
        name = f"host-{index:03}"
        labels = {BLOCK: f"block-{rack // RACKS}", RACK: f"rack-{rack:02}", HOST: name}
        allocatable = {"cpu": HOST_CPU, "pods": 110, GPU_RESOURCE: 8}
        nodes.append(NodeState(name=name, labels=labels, allocatable=allocatable))
    cluster = Cluster(nodes)
    for node in nodes:
        used = sum(chance.random() < fullness for _ in range(8))
        for _ in range(used):
            cluster.bind_pod(node.name, PodShape(requests=(("cpu", chance.choice((4, 8, 12))), (GPU_RESOURCE, 1))))
    return cluster


def hierarchical_gang(chance: random.Random) -> GangRequest:
    """Return the gang of one instance."""
    groups = []
    for number in range(chance.randint(3, 7)):
        kinds = [
            CliqueRequest(name=f"g{number}-{kind}", shape=_shape(chance), minimum=chance.randint(1, 3))
            for kind in range(chance.randint(1, 3))
        ]
        groups.append(GroupRequest(name=f"g{number}", members=tuple(kinds), required=RACK))
    return GangRequest(name="gang", members=tuple(groups), topology=LEVELS, required=BLOCK)


def instance(seed: int) -> tuple[Cluster, GangRequest]:
    """Return cluster and gang of a seed."""
    chance = random.Random(seed)
    return half_full_cluster(chance), hierarchical_gang(chance)


def _shape(chance: random.Random) -> PodShape:
    gpu_count = chance.choice((1, 1, 2, 2, 4, 8))
    cpu = max(1, gpu_count * chance.choice((4, 8, 12, 16)))
    return PodShape(requests=(("cpu", min(cpu, HOST_CPU)), (GPU_RESOURCE, gpu_count)))


def planted_instance(seed: int, *, filled: float = 0.9) -> tuple[Cluster, GangRequest]:
    """Return a harder instance of a seed that has a place for certain: one that nearly fills a block.

    Pods of random shapes are put on the hosts of one block until `filled` of its free GPUs are used; those of one rack
    are dealt to one or two sub-groups, at most three kinds each. Only the request comes out, not the places.
    """
    chance = random.Random(f"planted {seed}")
    cluster = half_full_cluster(chance)
    block = chance.randrange(BLOCKS)
    groups: list[GroupRequest] = []
    for rack in range(block * RACKS, (block + 1) * RACKS):
        hosts = [cluster.free_of(f"host-{index:03}") for index in range(rack * HOSTS, (rack + 1) * HOSTS)]
        for part in range(chance.randint(1, 2)):
            counts = _carve(chance, hosts, filled if part else filled / 2)
            name = f"g{len(groups)}"
            members = tuple(
                CliqueRequest(name=f"{name}-{kind}", shape=shape, minimum=count)
                for kind, (shape, count) in enumerate(counts.items())
            )
            if members:
                groups.append(GroupRequest(name=name, members=members, required=RACK))
    chance.shuffle(groups)
    return cluster, GangRequest(name="gang", members=tuple(groups), topology=LEVELS, required=BLOCK)


def _carve(chance: random.Random, hosts: list[dict[str, int]], filled: float) -> dict[PodShape, int]:
    """Take pods of up to three shapes off the hosts until a share of their GPUs is gone; return how many of each."""
    left = sum(host[GPU_RESOURCE] for host in hosts) * (1 - filled)
    shapes = [_shape(chance) for _ in range(chance.randint(1, 3))]
    counts: dict[PodShape, int] = {}
    while sum(host[GPU_RESOURCE] for host in hosts) > left:
        fitting = [
            (shape, host)
            for shape in shapes
            for host in hosts
            if all(host[resource] >= amount for resource, amount in shape.requests)
        ]
        if not fitting:
            break
        shape, host = chance.choice(fitting)
        counts[shape] = counts.get(shape, 0) + 1
        for resource, amount in shape.requests:
            host[resource] -= amount
    return counts
