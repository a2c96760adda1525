"""Queues: what makes a tree, limits, guarantees, fair shares, turns, and who waits behind whom."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grove_server.placement import GPU_RESOURCE, Cluster, NodeState, PodShape
from grove_server.placement.fair_share import fair_shares
from grove_server.placement.queues import (
    Blocking,
    InvalidQueuesError,
    QueueSpec,
    QueueTree,
    check_queues,
)
from grove_server.placement.requests import GPU_SHARE
from grove_server.placement.turns import HeadsOfLine, WaitingGang, order_gangs
from tests.placement_cases import clique, gang


def _queue(name: str, parent: str = "", **more: object) -> QueueSpec:
    return QueueSpec(name=name, parent=parent, **more)  # type: ignore[arg-type]  # passed on as given


def test_every_problem_is_told_at_once() -> None:
    """A cycle, an unknown parent, a name twice, bad amounts and weights: one error names them all."""
    specs = [
        _queue("a", "b"),
        _queue("b", "a"),
        _queue("c", "nobody"),
        _queue("d"),
        _queue("d"),
        _queue("e", guarantee={"cpu": 5}, limit={"cpu": 4}, weight=-1.0),
        _queue("f", limit={"cpu": -1}, earmark_after_s=-1.0),
        _queue("g", weight=float("nan"), earmark_after_s=float("nan")),
    ]
    with pytest.raises(InvalidQueuesError) as caught:
        QueueTree(specs)
    told = {(each.queue, each.message.split()[1]) for each in caught.value.problems}
    assert {each.queue for each in caught.value.problems} == set("abcdefg")
    assert ("a", "is") in told
    assert len([each for each in caught.value.problems if each.queue in "eg"]) == 4


def test_a_sum_of_guarantees_over_the_parents_is_a_warning() -> None:
    """The tree works; the difference is borrowed."""
    specs = [_queue("top", guarantee={"gpu": 8}), *(_queue(f"q{i}", "top", guarantee={"gpu": 5}) for i in range(2))]
    (problem,) = check_queues(specs)
    assert (problem.queue, problem.is_error) == ("top", False)
    assert QueueTree(specs).lineage("q1") == ["q1", "top"]


def test_the_limit_of_every_ancestor_counts() -> None:
    """What two queues use together must not exceed what the one above them may; who refuses is said."""
    tree = QueueTree([_queue("top", limit={"gpu": 10}), _queue("a", "top", limit={"gpu": 8}), _queue("b", "top")])
    used = {"a": {"gpu": 4}, "b": {"gpu": 4}}
    assert tree.admits("a", {"gpu": 2}, used) == ()
    (refusal,) = tree.admits("b", {"gpu": 3}, used)
    assert refusal.sentence() == "queue top would use 11 of gpu, its limit is 10"
    assert [each.queue for each in tree.admits("a", {"gpu": 5}, used)] == ["a", "top"]
    assert tree.admits("a", {"cpu": 10**9}, used) == ()


def test_a_guarantee_has_to_cover_all_that_is_asked_for_and_guaranteed() -> None:
    """A queue is within its guarantee, or the one above it is."""
    tree = QueueTree(
        [_queue("top", guarantee={"gpu": 10}), _queue("a", "top", guarantee={"gpu": 2}), _queue("b", "top")]
    )
    used = {"a": {"gpu": 2}}
    assert tree.is_within_guarantee("a", {"gpu": 8, "cpu": 4}, used)
    assert tree.is_within_guarantee("b", {"gpu": 8}, used)
    assert not tree.is_within_guarantee("a", {"gpu": 9}, used)
    assert not tree.is_within_guarantee("a", {"cpu": 1}, used)


def test_what_one_does_not_want_others_borrow_by_weight() -> None:
    """100 units: guarantees first, the rest by weight, no more than is wanted or allowed."""
    tree = QueueTree(
        [
            _queue("idle", guarantee={"gpu": 40}),
            _queue("one", guarantee={"gpu": 10}, weight=1.0),
            _queue("three", guarantee={"gpu": 10}, weight=3.0),
            _queue("capped", limit={"gpu": 5}),
            _queue("never", weight=0.0, guarantee={"gpu": 3}),
        ]
    )
    wanted = {"idle": {"gpu": 4}, **{name: {"gpu": 1_000} for name in ("one", "three", "capped", "never")}}
    shares = {name: share["gpu"] for name, share in fair_shares(tree, {"gpu": 100}, wanted).items()}
    # 4 + 3 are fixed and 5 is the cap: of 88 that are left 20 are guaranteed and 68 are poured 1 : 3.
    assert shares == pytest.approx({"idle": 4, "one": 27, "three": 61, "capped": 5, "never": 3})


def test_shares_follow_the_tree() -> None:
    """A department divides its own share, whatever the wishes of the queues below it."""
    tree = QueueTree([_queue("x"), _queue("y"), *(_queue(f"x{i}", "x") for i in range(3)), _queue("y0", "y")])
    wanted = {name: {"gpu": 90} for name in ("x0", "x1", "x2", "y0")}
    shares = fair_shares(tree, {"gpu": 60}, wanted)
    assert [round(shares[name]["gpu"]) for name in ("x", "y", "x0", "x1", "x2", "y0")] == [30, 30, 10, 10, 10, 30]


@given(st.data())
def test_shares_are_max_min_fair(data: st.DataObject) -> None:
    """Nobody gets more than it wants or may, all is given out if it is wanted, and who got less than it wants has at
    least as much over its guarantee, by weight, as anybody else.
    """
    count = data.draw(st.integers(1, 6))
    numbers = st.integers(0, 50)
    specs = [
        _queue(
            f"q{at}",
            guarantee={"gpu": data.draw(st.integers(0, 10))},
            weight=data.draw(st.sampled_from([0.5, 1.0, 2.0])),
        )
        for at in range(count)
    ]
    wanted = {spec.name: {"gpu": data.draw(numbers)} for spec in specs}
    capacity = data.draw(st.integers(0, 150))
    shares = {name: share["gpu"] for name, share in fair_shares(QueueTree(specs), {"gpu": capacity}, wanted).items()}
    wishes = {name: wanted[name]["gpu"] for name in wanted}
    assert all(shares[name] <= wishes[name] + 1e-6 for name in shares)
    assert sum(shares.values()) == pytest.approx(min(capacity, sum(wishes.values())), abs=1e-6)
    floors = {spec.name: min(spec.guarantee["gpu"], wishes[spec.name]) for spec in specs}
    if sum(floors.values()) > capacity:
        return
    over = {spec.name: (shares[spec.name] - floors[spec.name]) / spec.weight for spec in specs}
    for name, share in shares.items():
        assert share >= floors[name] - 1e-6
        if share < wishes[name] - 1e-6:
            assert over[name] >= max(over.values()) - 1e-6


def _waiting(name: str, queue: str, priority: int = 0, gpus: int = 1) -> WaitingGang:
    return WaitingGang(name=name, queue=queue, priority=priority, order=(name,), amounts={"gpu": gpus})


def test_queues_take_turns_by_dominant_share() -> None:
    """The queue that has least of its due is next; inside a queue priority goes first, then Grove's order."""
    tree = QueueTree([_queue("a"), _queue("b")])
    fair = {"a": {"gpu": 10.0}, "b": {"gpu": 5.0}}
    gangs = [_waiting(f"a{i}", "a") for i in range(4)] + [_waiting(f"b{i}", "b", priority=i) for i in range(2)]
    order = [each.name for each in order_gangs(tree, fair, {"a": {"gpu": 1}}, gangs)]
    assert order == ["b1", "a0", "a1", "b0", "a2", "a3"]


def test_gangs_of_unknown_queues_come_last_and_none_is_lost() -> None:
    """Every gang has its turn exactly once, whichever queue it names, parents' own gangs included."""
    tree = QueueTree([_queue("top"), _queue("a", "top"), _queue("b", "top")])
    gangs = [_waiting(f"g{i}", ("a", "b", "top", "?")[i % 4]) for i in range(20)]
    order = order_gangs(tree, {}, {}, gangs)
    assert sorted(each.name for each in order) == sorted(each.name for each in gangs)
    assert [each.queue for each in order[-5:]] == ["?"] * 5


def test_a_strict_queue_blocks_only_what_competes_for_the_same_nodes() -> None:
    """A gang that waits for one kind of GPU holds back the next of its queue for that kind, and no others."""
    nodes = [
        NodeState(name=f"{kind}-{at}", labels={"gpu": kind}, allocatable={"cpu": 8, "pods": 9, GPU_RESOURCE: 8})
        for kind in ("b200", "b300")
        for at in range(2)
    ]
    tree = QueueTree([_queue("strict", blocking=Blocking.STRICT), _queue("loose")])

    def wants(kind: str | None, gpus: int = 1) -> PodShape:
        return PodShape(requests=((GPU_RESOURCE, gpus),), node_selector=(("gpu", kind),) if kind else ())

    heads = HeadsOfLine(Cluster(nodes), tree)
    big = gang(clique("w", 9, wants("b300", 8)), name="big")
    heads.wait("big", "strict", big)
    heads.wait("big", "loose", big)
    assert heads.blocker_of("strict", gang(clique("w", 1, wants("b300")))) == "big"
    assert heads.blocker_of("strict", gang(clique("w", 1, wants(None)))) == "big"
    assert heads.blocker_of("strict", gang(clique("w", 1, wants("b200")))) is None
    assert heads.blocker_of("strict", gang(clique("w", 1, wants("b300", 0)))) is None
    assert heads.blocker_of("loose", gang(clique("w", 1, wants("b300")))) is None


def test_a_share_of_a_gpu_counts_as_the_fraction_that_it_is() -> None:
    """Limits, guarantees and fair shares speak of GPUs; two halves are one of them."""
    tree = QueueTree(
        [_queue("q", limit={GPU_RESOURCE: 2}), _queue("r", guarantee={GPU_RESOURCE: 1}), _queue("s", weight=1.0)]
    )
    used = {"q": {GPU_RESOURCE: 1, GPU_SHARE: 500}}
    assert tree.admits("q", {GPU_SHARE: 500}, used) == ()
    (refusal,) = tree.admits("q", {GPU_SHARE: 600}, used)
    assert refusal.sentence() == "queue q would use 2.1 of nvidia.com/gpu, its limit is 2"
    (refusal,) = tree.admits("q", {GPU_RESOURCE: 1}, used)
    assert refusal.would_use == 2500
    assert tree.is_within_guarantee("r", {GPU_SHARE: 1000}, {})
    assert not tree.is_within_guarantee("r", {GPU_SHARE: 1000}, {"r": {GPU_SHARE: 1}})
    shares = fair_shares(tree, {GPU_RESOURCE: 4}, used | {"s": {GPU_RESOURCE: 9}})
    assert shares["q"][GPU_RESOURCE] == pytest.approx(1.5)
    assert shares["s"][GPU_RESOURCE] == pytest.approx(2.5)


def test_what_is_guaranteed_below_a_queue_is_in_its_share() -> None:
    """A parent without a guarantee of its own gets what those below it are promised; the difference is borrowed."""
    tree = QueueTree([_queue("top"), _queue("x", "top", guarantee={"gpu": 8}), _queue("other", weight=3.0)])
    shares = fair_shares(tree, {"gpu": 12}, {"x": {"gpu": 8}, "other": {"gpu": 12}})
    assert [shares[name]["gpu"] for name in ("top", "x", "other")] == pytest.approx([8, 8, 4])


def test_a_queue_wants_no_more_than_limits_below_it_allow() -> None:
    """The wishes of a queue that is capped leave the rest to others."""
    tree = QueueTree([_queue("top"), _queue("x", "top", limit={"gpu": 2}), _queue("other")])
    shares = fair_shares(tree, {"gpu": 12}, {"x": {"gpu": 90}, "other": {"gpu": 90}})
    assert [shares[name]["gpu"] for name in ("top", "x", "other")] == pytest.approx([2, 2, 10])
