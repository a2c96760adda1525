"""Packing for a mix: which node few pods take, that nothing else changes, and that ties decide nothing."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from grove_server.placement import (
    GPU_RESOURCE,
    CliqueRequest,
    Cluster,
    GangRequest,
    Mix,
    NodeState,
    Placement,
    PodShape,
    Taint,
    Toleration,
    place,
)
from grove_server.placement.stranding import CANDIDATES_MAX, MIX_MAX, WEIGHT_MAX
from grove_server.placement.violations import violations
from tests.placement_cases import RACK, clique, gang, gpu_node, nodes_of, placed


def pod(cpu: int = 1000, *, whole: int = 0, milli: int = 0, memory: int = 0) -> PodShape:
    """Return a pod of whole GPUs or a share of one."""
    amounts = {"cpu": cpu, "memory": memory, GPU_RESOURCE: whole}
    return PodShape(requests=tuple((name, amount) for name, amount in amounts.items() if amount), gpu_milli=milli)


def mix(*shapes: PodShape, pods_max: int = 8) -> Mix:
    """Return a mix in which all shapes are as frequent."""
    return Mix(shapes=tuple((shape, 1) for shape in shapes), pods_max=pods_max)


def server(name: str, cpu: int, gpu_count: int, **more: object) -> NodeState:
    """Return a node."""
    return NodeState(name=name, allocatable={"cpu": cpu, "pods": 110, GPU_RESOURCE: gpu_count}, **more)  # type: ignore[arg-type]  # passed on as given


def node_for(cluster: Cluster, shape: PodShape, pods: int = 1) -> list[str]:
    """Return where pods of a shape go."""
    return nodes_of(placed(place(cluster, gang(clique("c", pods, shape), topology=()))), "c")


def test_cpu_that_gpus_need_is_left_to_them() -> None:
    """A pod with much CPU takes the node that has CPU to spare, though another one is tighter."""
    cluster = Cluster([server("poor", 8_000, 8), server("rich", 64_000, 2)])
    assert node_for(cluster, pod(6_000, whole=1)) == ["poor"]
    cluster.pack_for(mix(pod(1_000, whole=1)))
    assert node_for(cluster, pod(6_000, whole=1)) == ["rich"]
    cluster.pack_for(None)
    assert node_for(cluster, pod(6_000, whole=1)) == ["poor"]


def test_odd_shares_go_where_nothing_usual_fits() -> None:
    """With halves as the usual pods, a small share takes the hole that no half fits, on the emptier node."""
    cluster = Cluster([server("a", 8_000, 1), server("b", 8_000, 2)])
    cluster.bind_pod("a", pod(milli=500), (0,))
    cluster.bind_pod("b", pod(milli=600), (0,))
    assert node_for(cluster, pod(milli=200)) == ["a"]
    cluster.pack_for(mix(pod(milli=500)))
    assert node_for(cluster, pod(milli=200)) == ["b"]


def test_pods_that_strand_nothing_go_tightest_first_then_by_name() -> None:
    """Where no node loses anything the rule is the one without a mix."""
    cluster = Cluster([server(name, cpu, 0) for name, cpu in (("c", 4_000), ("a", 9_000), ("b", 4_000))])
    cluster.pack_for(mix(pod(whole=1)))
    assert node_for(cluster, pod(2_000)) == ["b"]


def test_the_reason_says_that_the_mix_decided() -> None:
    """Explain tells by which rule the node was chosen."""
    cluster = Cluster([server("a", 8_000, 8), server("b", 64_000, 2)])
    assert "tightest" in placed(place(cluster, gang(clique("c", 1, pod(whole=1))))).reasons[0].tie_break
    cluster.pack_for(mix(pod(whole=1)))
    assert "least GPU stranded" in placed(place(cluster, gang(clique("c", 1, pod(whole=1))))).reasons[0].tie_break


def test_more_pods_than_the_mix_is_for_are_placed_for_locality() -> None:
    """Up to pods_max pods follow the mix, more do not; nor do pods that no one node holds."""
    cluster = Cluster([server("poor", 8_000, 8), server("rich", 64_000, 4)])
    cluster.pack_for(mix(pod(1_000, whole=1), pods_max=2))
    assert node_for(cluster, pod(2_000, whole=1), 2) == ["rich", "rich"]
    assert node_for(cluster, pod(2_000, whole=1), 3) == ["poor"] * 3
    assert sorted(set(node_for(cluster, pod(2_000, whole=1), 8))) == ["poor", "rich"]


def test_inside_a_required_domain_the_mix_chooses_the_node() -> None:
    """The rack is still the tightest; its node is the one that strands the least."""
    cluster = Cluster(
        NodeState(
            name=name,
            labels={RACK: rack},
            allocatable={"cpu": cpu, "pods": 110, GPU_RESOURCE: gpu_count},
        )
        for name, rack, cpu, gpu_count in (
            ("a", "r0", 8_000, 4),
            ("b", "r0", 64_000, 4),
            ("c", "r1", 64_000, 8),
            ("d", "r1", 64_000, 8),
        )
    )
    request = gang(clique("c", 1, pod(4_000, whole=1)), topology=(RACK,), required=RACK)
    assert nodes_of(placed(place(cluster, request)), "c") == ["a"]
    cluster.pack_for(mix(pod(2_000, whole=1)))
    assert nodes_of(placed(place(cluster, request)), "c") == ["b"]


def test_what_was_counted_follows_the_cluster() -> None:
    """Seeded random events: a cluster that kept its counts decides as a copy of it that counts everything anew."""
    chance = random.Random(4)
    usual = mix(pod(2_000, whole=1), pod(1_000, milli=500), pod(4_000, whole=4), pod(500, milli=300, memory=5))
    cluster = Cluster([server(f"n{i}", 16_000, 1 + i % 4) for i in range(12)])
    cluster.pack_for(usual)
    shapes = [pod(500 * chance.randrange(1, 9), milli=chance.choice([0, 100, 300, 700])) for _ in range(6)]
    shapes += [pod(1_000 * chance.randrange(1, 5), whole=chance.randrange(1, 4)) for _ in range(3)]
    held: list[Placement] = []
    for turn in range(300):
        request = gang(clique("c", chance.randrange(1, 3), chance.choice(shapes)), topology=())
        fresh = cluster.fork()
        result = place(cluster, request)
        assert result == place(fresh, request)
        assert violations(cluster, request, result) == []
        if isinstance(result, Placement):
            cluster.reserve(result)
            held.append(result)
        if held and chance.random() < 0.4:
            cluster.release(held.pop(chance.randrange(len(held))))
        if turn % 7 == 0:
            cluster.set_schedulable([f"n{chance.randrange(12)}"], schedulable=chance.random() < 0.5)
        if turn % 50 == 20:
            name = f"n{turn}"
            cluster.upsert_node(server(name, 32_000, 2, taints=(Taint(key="t", effect="PreferNoSchedule"),)))
        if turn == 150:
            cluster.upsert_node(
                NodeState(name="m", allocatable={"cpu": 9_000, "pods": 9, GPU_RESOURCE: 1, "memory": 50})
            )


def test_a_large_cluster_compares_the_tightest_nodes_only() -> None:
    """With more nodes than are compared a place is found all the same, among the tightest ones."""
    nodes = [server(f"n{i:05}", 8_000, 8) for i in range(CANDIDATES_MAX + 100)]
    cluster = Cluster([*nodes, server("z", 3_000, 1)])
    cluster.pack_for(mix(pod(1_000, whole=1)))
    assert node_for(cluster, pod(1_000, whole=1)) == ["z"]
    cluster.bind_pod("z", pod(3_000))
    assert node_for(cluster, pod(1_000, whole=1)) == ["n00000"]


@pytest.mark.parametrize(
    "shapes",
    [((pod(whole=1), -1),), ((pod(whole=1), WEIGHT_MAX + 1),), ((pod(whole=1), 1),) * (MIX_MAX + 1)],
    ids=["negative", "heavy", "long"],
)
def test_a_mix_is_bounded(shapes: tuple[tuple[PodShape, int], ...]) -> None:
    """Weights and the number of shapes have limits."""
    with pytest.raises(ValueError, match=r"(?i)mix"):
        Mix(shapes=shapes)


def test_a_mix_without_gpus_changes_nothing() -> None:
    """Pods without GPUs use none, so no node is worth more than another."""
    cluster = Cluster([server("a", 8_000, 8), server("b", 64_000, 2)])
    cluster.pack_for(mix(pod(1_000)))
    assert node_for(cluster, pod(4_000, whole=1)) == ["a"]


def test_names_decide_little() -> None:
    """Ties go by name; under other names as much of the GPUs is in use at the end, and more than without a mix."""
    with_mix = [_saturated(names, with_mix=True) for names in range(4)]
    without = [_saturated(names, with_mix=False) for names in range(4)]
    assert max(with_mix) - min(with_mix) < 0.02
    assert min(with_mix) > max(without) + 0.02


def _saturated(names_seed: int, *, with_mix: bool) -> float:
    """Return the share of GPUs in use after a fixed order of pods, on nodes that are named by a seed."""
    chance = random.Random(1)
    kinds = [(48_000, 8)] * 8 + [(64_000, 2)] * 12
    names = [f"n{i:02}" for i in range(len(kinds))]
    random.Random(names_seed).shuffle(names)
    cluster = Cluster([server(name, *kind) for name, kind in zip(names, kinds, strict=True)])
    shapes = [pod(5_000, whole=1), pod(11_000, whole=1), pod(2_000, milli=700), pod(4_000, milli=300), pod(9_000)]
    if with_mix:
        cluster.pack_for(mix(*shapes))
    taken = 0
    for _ in range(400):
        shape = chance.choice(shapes)
        result = place(cluster, GangRequest(name="g", members=(CliqueRequest(name="c", shape=shape, minimum=1),)))
        if isinstance(result, Placement):
            cluster.reserve(result)
            taken += shape.gpu_milli + 1_000 * shape.amount(GPU_RESOURCE)
    return taken / (1_000 * sum(gpu_count for _, gpu_count in kinds))


def test_nodes_that_the_mix_may_not_use_are_worth_nothing_to_it() -> None:
    """A pod that tolerates a taint takes the node that keeps the usual pods out."""
    tainted = replace(gpu_node("b"), taints=(Taint(key="dedicated", value="x"),))
    cluster = Cluster([gpu_node("a"), tainted])
    tolerant = replace(pod(whole=1), tolerations=(Toleration(operator="Exists"),))
    assert node_for(cluster, tolerant) == ["a"]
    cluster.pack_for(mix(pod(whole=1)))
    assert node_for(cluster, tolerant) == ["b"]
