"""Placement over generated clusters and gangs: promises kept, state exact, refusals compared with brute force."""

from __future__ import annotations

import itertools
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from grove_server.placement import (
    Budget,
    Cluster,
    GangRequest,
    Placement,
    PodBinding,
    PodShape,
    Verdict,
    VerdictCode,
    place,
)
from grove_server.placement.requests import minimum_of
from grove_server.placement.violations import violations
from tests.placement_cases import (
    BLOCK,
    HOST,
    TOPOLOGY,
    ZONE,
    clique,
    clusters,
    gang,
    gangs,
    gpu_node,
    gpus,
    node_states,
    shapes,
)
from tests.placement_oracle import is_possible


@settings(max_examples=150, deadline=None)
@given(clusters(nodes_max=12), st.lists(gangs(pods_max=4), min_size=1, max_size=4))
def test_answers_keep_every_promise_and_can_be_reserved(cluster: Cluster, requests: list[GangRequest]) -> None:
    """Each placement respects capacity, minimums, levels and GPU ids; deciding changes nothing; reserving succeeds."""
    for request in requests:
        before = _amounts(cluster)
        result = place(cluster, request)
        assert violations(cluster, request, result) == []
        assert _amounts(cluster) == before
        if isinstance(result, Placement):
            cluster.reserve(result)
        else:
            assert result.sentence()


@settings(max_examples=60, deadline=None)
@given(clusters(nodes_max=10), gangs(pods_max=4))
def test_equal_questions_get_equal_answers(cluster: Cluster, request: GangRequest) -> None:
    """Asking twice, asking a copy and asking a cluster that was filled in another order give the same answer."""
    states = [cluster.node(name) for name in cluster.node_names()]
    other = Cluster(reversed(states))
    first = place(cluster, request)
    assert place(cluster, request) == first
    assert place(cluster.fork(), request) == first
    assert replace(place(other, request), generation=first.generation) == first


@settings(max_examples=200, deadline=None)
@given(clusters(nodes_max=6), gangs(pods_max=3))
def test_refusals_and_proofs_agree_with_brute_force(cluster: Cluster, request: GangRequest) -> None:
    """What is placed is possible, what is proven impossible is impossible."""
    result = place(cluster, request, budget=Budget(steps_max=2_000))
    if isinstance(result, Verdict) and minimum_of(request):
        assert result.proof is False or not is_possible(cluster, request), result.sentence()
        assert result.proof or result.code == VerdictCode.BUDGET_EXHAUSTED


@settings(max_examples=200, deadline=None)
@given(clusters(nodes_max=7), gangs(pods_max=4, plain=True))
def test_one_shape_gangs_are_decided_exactly(cluster: Cluster, request: GangRequest) -> None:
    """For one shape a refusal is always a proof, and brute force finds nothing either."""
    result = place(cluster, request)
    if isinstance(result, Verdict):
        assert result.proof
        if minimum_of(request):
            assert not is_possible(cluster, request)


class _Churn:
    """A cluster that lives through random events, and the plain book that says what it should hold."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.pods: list[tuple[PodShape, PodBinding]] = []

    def rebuilt(self) -> Cluster:
        fresh = Cluster(self.cluster.node(name) for name in self.cluster.node_names())
        for shape, binding in self.pods:
            if binding.node in fresh.node_names():
                fresh.bind_pod(binding.node, shape, binding.gpu_ids)
        return fresh


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_state_kept_by_events_equals_state_built_from_scratch(data: st.DataObject) -> None:
    """After any mix of node and pod events the cluster answers as one that was built anew from the same facts."""
    churn = _Churn(data.draw(clusters(nodes_max=8)))
    cluster = churn.cluster
    known = data.draw(st.lists(shapes(), min_size=1, max_size=3))
    for _ in range(data.draw(st.integers(1, 12))):
        for shape in known:  # Keeps classes alive, so that the incremental path is what is tested.
            cluster.request_class(shape, cluster.layout(TOPOLOGY))
        _step(data, churn)
    fresh = churn.rebuilt()
    assert _amounts(cluster) == _amounts(fresh)
    for shape in known:
        kept = cluster.request_class(shape, cluster.layout(TOPOLOGY))
        anew = fresh.request_class(shape, fresh.layout(TOPOLOGY))
        assert [level.tolist() for level in kept.everywhere] == [level.tolist() for level in anew.everywhere]
        assert (kept.first_choice or kept.everywhere)[0].tolist() == (anew.first_choice or anew.everywhere)[0].tolist()
    request = data.draw(gangs(pods_max=3))
    answer = place(cluster, request)
    assert replace(place(fresh, request), generation=answer.generation) == answer


def _step(data: st.DataObject, churn: _Churn) -> None:
    """Let one random event happen."""
    cluster, names = churn.cluster, churn.cluster.node_names()
    match data.draw(st.sampled_from(["place", "release", "upsert", "cordon", "remove"])):
        case "place":
            result = place(cluster, data.draw(gangs(pods_max=3)))
            if isinstance(result, Placement):
                cluster.reserve(result)
                churn.pods += [(clique.shape, each) for clique in result.cliques for each in clique.bindings]
        case "release" if churn.pods:
            shape, binding = churn.pods.pop(data.draw(st.integers(0, len(churn.pods) - 1)))
            cluster.release_pod(binding.node, shape, binding.gpu_ids)
        case "upsert":
            cluster.upsert_node(data.draw(node_states(f"n{data.draw(st.integers(0, 9))}")))
        case "cordon" if names:
            some = data.draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
            cluster.set_schedulable(some, schedulable=data.draw(st.booleans()))
        case "remove" if len(names) > 1:
            cluster.remove_node(data.draw(st.sampled_from(names)))
        case _:
            pass


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_waiting_gang_need_not_be_tried_until_something_grew_for_it(data: st.DataObject) -> None:
    """While `may_help` says no, trying again gets a proven refusal again."""
    churn = _Churn(data.draw(clusters(nodes_max=6)))
    request = data.draw(gangs(pods_max=3, plain=True))
    for _ in range(data.draw(st.integers(1, 8))):
        result = place(churn.cluster, request)
        if isinstance(result, Placement):
            return
        _step(data, churn)
        if not churn.cluster.may_help(request, result.generation):
            assert isinstance(place(churn.cluster, request), Verdict)


def _amounts(cluster: Cluster) -> dict[str, tuple[dict[str, int], tuple[int, ...], dict[int, int]]]:
    return {
        name: (
            {key: value for key, value in cluster.free_of(name).items() if value},
            cluster.gpus_free_of(name),
            cluster.gpu_shares_of(name),
        )
        for name in cluster.node_names()
    }


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 8), min_size=12, max_size=12), st.integers(1, 30))
def test_one_shape_takes_the_fewest_racks_and_hosts(free: list[int], pods: int) -> None:
    """Within a block the racks are as few as can be, and the hosts as few as any choice of so few racks allows."""
    cluster = Cluster(
        gpu_node(f"n{i:02}", gpu_count=count, zone="z", block="b", rack=f"r{i // 3}") for i, count in enumerate(free)
    )
    result = place(cluster, gang(clique("w", pods, gpus(1)), required=BLOCK))
    if not isinstance(result, Placement):
        assert pods > sum(free)
        return
    used = {int(node[1:]) for node, _ in result.cliques[0].bindings}
    racks, hosts = _fewest(free, pods)
    assert len({index // 3 for index in used}) == racks
    if pods >= 8:  # Fewer pods are not worth comparing tied racks for.
        assert len(used) <= hosts + 1


def _fewest(free: list[int], pods: int) -> tuple[int, int]:
    """Return the least (racks, hosts) in this order, by trying every set of racks."""
    options = []
    for count in range(1, 5):
        for racks in itertools.combinations(range(4), count):
            rooms = sorted((free[rack * 3 + i] for rack in racks for i in range(3)), reverse=True)
            if sum(rooms) >= pods:
                hosts = next(i for i in range(1, len(rooms) + 1) if sum(rooms[:i]) >= pods)
                options.append((count, hosts))
    return min(options)


def test_the_oracle_tells_possible_from_impossible() -> None:
    """Brute force finds the one way there is, and none where there is none."""
    cluster = Cluster([gpu_node("a", gpu_count=2, zone="0"), gpu_node("b", gpu_count=1, zone="0")])
    assert is_possible(cluster, gang(clique("c", 3, gpus(1)), required=ZONE))
    assert not is_possible(cluster, gang(clique("c", 3, gpus(1)), required=HOST))
    assert not is_possible(cluster, gang(clique("c", 4, gpus(1))))
