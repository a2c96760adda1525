"""Grove's gang scheduling cases GS1 to GS6 and GS8, with the exact number of pods at each step.

On this cluster a node holds one pod, so "nodes in play minus cordoned" is the number of pods that can run. Every step
also proves that nothing more happens, and checks what must hold of every resource then (`observation.check`).
"""

from __future__ import annotations

from typing import Final

from tests.conformance.observation import Observation, node_of
from tests.conformance.scene import Scene
from tests.tidy.sources import ROOT

CLUSTER: Final = ROOT / "examples" / "clusters" / "one-pod-per-node.yaml"


def own_nodes(seen: Observation) -> None:
    """Check that each ready pod has a node of its own."""
    assert len({node_of(pod) for pod in seen.ready}) == len(seen.ready)


async def test_gs1_a_gang_waits_for_its_last_node(scene: Scene) -> None:
    """Ten pods with nine nodes all wait; with the tenth node all ten run."""
    await scene.limit_nodes(10, cordoned=1)
    await scene.apply("workload1")
    seen = await scene.settles(pods=10, ready=0)
    assert all(pod.status.conditions[0].reason == "Unschedulable" for pod in seen.pending)
    event = await scene.gang_event("workload1-0", "Unschedulable")
    assert event.type == "Warning"
    assert event.message
    await scene.uncordon(1)
    own_nodes(await scene.settles(pods=10, ready=10))


async def test_gs2_a_group_scales_out_as_a_gang(scene: Scene) -> None:
    """A third group replica waits as a whole and then runs as a whole."""
    await scene.limit_nodes(14, cordoned=5)
    await scene.apply("workload1")
    await scene.settles(pods=10, ready=0)
    await scene.uncordon(1)
    await scene.settles(pods=10, ready=10)
    await scene.scale_group("workload1-0-sg-x", 3)
    await scene.settles(pods=14, ready=10)
    await scene.gang_event("workload1-0-sg-x-0", "Unschedulable")
    await scene.uncordon(4)
    own_nodes(await scene.settles(pods=14, ready=14))


async def test_gs3_a_set_scales_out_as_a_gang(scene: Scene) -> None:
    """A second copy waits as a whole and then runs as a whole."""
    await scene.limit_nodes(20, cordoned=11)
    await scene.apply("workload1")
    await scene.settles(pods=10, ready=0)
    await scene.uncordon(1)
    await scene.settles(pods=10, ready=10)
    await scene.scale_set("workload1", 2)
    await scene.settles(pods=20, ready=10)
    await scene.gang_event("workload1-1", "Unschedulable")
    await scene.uncordon(10)
    own_nodes(await scene.settles(pods=20, ready=20))


async def test_gs4_sets_and_groups_scale_out_in_turn(scene: Scene) -> None:
    """Group, set, and the group of the new copy: each step waits as a whole and then runs as a whole."""
    await scene.limit_nodes(28, cordoned=19)
    await scene.apply("workload1")
    await scene.settles(pods=10, ready=0)
    await scene.uncordon(1)
    await scene.settles(pods=10, ready=10)
    await scene.scale_group("workload1-0-sg-x", 3)
    await scene.settles(pods=14, ready=10)
    await scene.uncordon(4)
    await scene.settles(pods=14, ready=14)
    await scene.scale_set("workload1", 2)
    await scene.settles(pods=24, ready=14)
    await scene.uncordon(10)
    await scene.settles(pods=24, ready=24)
    await scene.scale_group("workload1-1-sg-x", 3)
    await scene.settles(pods=28, ready=24)
    await scene.uncordon(4)
    own_nodes(await scene.settles(pods=28, ready=28))


async def test_gs5_the_minimum_comes_first(scene: Scene) -> None:
    """Two nodes are not enough for the minimum of three; three start exactly the minimum; seven more the rest."""
    await scene.limit_nodes(10, cordoned=8)
    await scene.apply("workload2")
    await scene.settles(pods=10, ready=0)
    await scene.gang_event("workload2-0", "Unschedulable")
    await scene.uncordon(1)
    seen = await scene.settles(pods=10, ready=3)
    assert seen.ready_by_clique() == {
        "workload2-0-pc-a": 1,
        "workload2-0-sg-x-0-pc-b": 1,
        "workload2-0-sg-x-0-pc-c": 1,
    }
    await scene.uncordon(7)
    own_nodes(await scene.settles(pods=10, ready=10))


async def test_gs6_a_scaled_gang_starts_with_its_minimum(scene: Scene) -> None:
    """A third group replica starts with two of its four pods when there are two nodes."""
    await scene.limit_nodes(14, cordoned=12)
    await scene.apply("workload2")
    await scene.settles(pods=10, ready=0)
    await scene.uncordon(1)
    await scene.settles(pods=10, ready=3)
    await scene.uncordon(7)
    await scene.settles(pods=10, ready=10)
    await scene.scale_group("workload2-0-sg-x", 3)
    await scene.settles(pods=14, ready=10)
    await scene.uncordon(2)
    seen = await scene.settles(pods=14, ready=12)
    ready = seen.ready_by_clique()
    assert (ready["workload2-0-sg-x-2-pc-b"], ready["workload2-0-sg-x-2-pc-c"]) == (1, 1)
    await scene.uncordon(2)
    own_nodes(await scene.settles(pods=14, ready=14))


async def test_gs8_scaled_gangs_go_before_surplus(scene: Scene) -> None:
    """Of a set scaled out while it waits: the base minimum, then the minimum of each scaled gang, then the surplus."""
    await scene.limit_nodes(14, cordoned=12)
    await scene.apply("workload2")
    await scene.settles(pods=10, ready=0)
    await scene.scale_group("workload2-0-sg-x", 3)
    await scene.settles(pods=14, ready=0)
    await scene.uncordon(1)
    await scene.settles(pods=14, ready=3)
    await scene.uncordon(4)
    seen = await scene.settles(pods=14, ready=7)
    assert seen.ready_by_clique() == {
        "workload2-0-pc-a": 1,
        **{f"workload2-0-sg-x-{replica}-pc-{clique}": 1 for replica in range(3) for clique in "bc"},
    }
    await scene.uncordon(7)
    own_nodes(await scene.settles(pods=14, ready=14))
