"""Why a gang is in its domain and in no other, counted by hand."""

from __future__ import annotations

from grove_server.placement import Cluster, place
from grove_server.placement.alternatives import alternatives
from tests.placement_cases import RACK, clique, gang, gpu_node, gpus, placed


def racks(*used: int) -> Cluster:
    """Return racks r0, r1, … of two 8-GPU nodes, with so many GPUs of the first node of each in use."""
    cluster = Cluster(
        gpu_node(f"n{at}{i}", zone="z", block="b", rack=f"r{at}") for at in range(len(used)) for i in (0, 1)
    )
    for at, count in enumerate(used):
        if count:
            cluster.bind_pod(f"n{at}0", gpus(count))
    return cluster


def test_the_next_domains_are_told_with_what_they_lost_by() -> None:
    """The tightest rack is taken; a fuller one does not fit, a freer one is kept, and the cluster is left as it was."""
    cluster = racks(4, 8, 0)
    request = gang(clique("c", 6, gpus(2)), required=RACK)
    result = placed(place(cluster, request))
    [choice] = [each for each in result.domains if each.level == RACK]
    assert choice.value == "r0"
    generation = cluster.generation
    found = alternatives(cluster, request, choice.path)
    assert cluster.generation == generation
    assert [(each.domain, each.fits) for each in found] == [("r2", True), ("r1", False)]
    assert found[0].why == "fits, but has room for 2 more pods, which is kept for larger gangs"
    assert found[0].left_over == 2
    assert found[1].why.startswith("does not fit")


def test_of_equals_the_first_by_name_is_told() -> None:
    """Racks that are alike lost by their names."""
    cluster = racks(0, 0)
    request = gang(clique("c", 1, gpus(8)), required=RACK)
    [choice] = [each for each in placed(place(cluster, request)).domains if each.level == RACK]
    [other] = alternatives(cluster, request, choice.path)
    assert (other.domain, other.why) == ("r1", "fits as well; of equals the first by name is taken")


def test_there_are_bounds_and_no_choice_means_no_answer() -> None:
    """So many domains as asked for; none for a gang without a domain, with one that is gone, or bound to its own."""
    cluster = racks(0, 0, 0, 0, 0)
    request = gang(clique("c", 1, gpus(8)), required=RACK)
    [choice] = [each for each in placed(place(cluster, request)).domains if each.level == RACK]
    assert len(alternatives(cluster, request, choice.path)) == 3
    assert len(alternatives(cluster, request, choice.path, count_max=1)) == 1
    assert alternatives(cluster, request, ()) == ()
    assert alternatives(cluster, request, ((RACK, "gone"),)) == ()
    bound = gang(clique("c", 1, gpus(8)), required=RACK, within=choice.path)
    assert alternatives(cluster, bound, choice.path) == ()
