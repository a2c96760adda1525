"""Start order at work: who is held, who is released, and what is said of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from grove_server.lifecycle.start_order import COUNTED_PODS_MAX
from grove_server.resources.workload import Pod, PodClique, PodPhase
from tests.lifecycle_cases import World, bound, clique, condition, group, lost, ready, world

IN_ORDER: dict[str, Any] = {"cliqueStartupType": "CliqueStartupTypeInOrder"}
EXPLICIT: dict[str, Any] = {"cliqueStartupType": "CliqueStartupTypeExplicit"}


def placed(made: World) -> World:
    """Return the world after all pods have nodes and a pass has looked at them."""
    made.settle()
    made.change_pods(bound)
    made.settle()
    return made


def serve(made: World) -> None:
    """Start every pod that may start, as a runtime does."""
    made.change_pods(lambda pod: pod if pod.is_held or pod.is_ready else ready(pod, made.now))
    made.settle()


def serving(made: World) -> set[str]:
    """Return the cliques all of whose pods serve."""
    return {c.metadata.name for c in made.of(PodClique) if all(p.is_ready for p in made.pods(c.metadata.name))}


def test_any_order_holds_nobody() -> None:
    """Without an order pods may start from the moment they exist."""
    made = world([clique("a"), clique("b")])
    made.settle()
    assert all(not pod.is_held and pod.released_at == made.now for pod in made.pods())


def test_in_order_one_clique_after_the_other() -> None:
    """InOrder: both a before the first b, all b before the first c; what waits says for whom and how far that is."""
    made = placed(world([clique("a", 2), clique("b", 2), clique("c", 6)], **IN_ORDER))
    assert [(p.waiting_reason, p.waiting_message) for p in made.pods("s-0-b")] == [
        ("WaitingForParents", "waiting for s-0-a (0/2)")
    ] * 2
    made.run(made.pods("s-0-a")[:1])
    made.settle()
    assert {p.waiting_message for p in made.pods("s-0-b")} == {"waiting for s-0-a (1/2)"}
    assert serving(made) == set()
    for expected in ({"s-0-a"}, {"s-0-a", "s-0-b"}, {"s-0-a", "s-0-b", "s-0-c"}):
        serve(made)
        assert serving(made) == expected
    assert {p.waiting_reason for p in made.pods()} == {""}


def test_the_minimum_of_a_parent_is_enough() -> None:
    """A parent is satisfied when its minimum serves, not all of its pods."""
    made = placed(world([clique("a", 3, 1), clique("b")], **IN_ORDER))
    assert all(pod.is_held for pod in made.pods("s-0-b"))
    made.run(made.pods("s-0-a")[:1])
    made.settle()
    assert not any(pod.is_held for pod in made.pods("s-0-b"))


def test_explicit_order_against_the_order_of_the_template() -> None:
    """Explicit: a parent may come later in the template, and be in another group."""
    made = placed(
        world(
            [clique("c", startsAfter=["b"]), clique("a"), clique("b", startsAfter=["a"])],
            [group("g", ["b"])],
            **EXPLICIT,
        )
    )
    seen = []
    for _ in range(3):
        serve(made)
        seen.append(serving(made))
    assert seen == [{"s-0-a"}, {"s-0-a", "s-0-g-0-b"}, {"s-0-a", "s-0-g-0-b", "s-0-c"}]


def test_replicas_of_a_group_start_independently_in_scaled_gangs() -> None:
    """A scaled gang's members wait for their own replica and for the base's parents outside the group."""
    made = placed(
        world(
            [clique("a"), clique("b", startsAfter=["a"]), clique("c", startsAfter=["b"])],
            [group("g", ["b", "c"], 2, 1)],
            **EXPLICIT,
        )
    )
    assert {p.waiting_message for p in made.pods("s-0-g-1-b")} == {"waiting for s-0-a (0/1)"}
    serve(made)
    made.run(made.pods("s-0-g-1-b"))
    made.settle()
    assert [p.is_held for p in made.pods("s-0-g-1-c")] == [False]
    assert [p.is_held for p in made.pods("s-0-g-0-c")] == [True]


def test_a_parent_at_size_zero_is_satisfied() -> None:
    """Nobody waits for what is at size 0, whether a clique or a group."""
    made = placed(
        world([clique("a", 0), clique("b"), clique("x", startsAfter=["a", "b"])], [group("g", ["b"], 0)], **EXPLICIT)
    )
    assert [p.is_held for p in made.pods("s-0-x")] == [False]


@pytest.mark.parametrize("order", ["InOrder", "Explicit"])
def test_the_order_goes_through_a_clique_at_size_zero(order: str) -> None:
    """What starts after a clique at size 0 waits for whom that clique would wait for."""
    after = {"b": ["a"], "c": ["b"], "d": ["c"]} if order == "Explicit" else {}
    fields: dict[str, dict[str, Any]] = {name: {"startsAfter": parents} for name, parents in after.items()}
    template = [clique(name, 0 if name in "bc" else 1, **fields.get(name, {})) for name in "abcd"]
    made = placed(world(template, cliqueStartupType=f"CliqueStartupType{order}"))
    assert [(p.is_held, p.waiting_message) for p in made.pods("s-0-d")] == [(True, "waiting for s-0-a (0/1)")]
    serve(made)
    assert [p.is_held for p in made.pods("s-0-d")] == [False]


def test_the_order_goes_through_a_group_at_size_zero() -> None:
    """A group at size 0 has no cliques; who starts after them waits for those before them, in another group too."""
    made = placed(
        world(
            [clique("a"), clique("b"), clique("c"), clique("d")],
            [group("f", ["a"], 2, 2), group("g", ["b", "c"], 0, 2), group("h", ["d"], 2, 1)],
            **IN_ORDER,
        )
    )
    expected = "waiting for s-0-f-0-a (0/1), s-0-f-1-a (0/1)"
    assert {p.waiting_message for name in ("s-0-h-0-d", "s-0-h-1-d") for p in made.pods(name)} == {expected}
    serve(made)
    assert not any(p.is_held for p in made.pods())


def test_a_scaled_gang_waits_through_its_own_empty_clique() -> None:
    """In a scaled gang whose parent in the replica is at size 0, the order goes on to that parent's parents."""
    made = placed(world([clique("a"), clique("b", 0), clique("c")], [group("g", ["b", "c"], 2, 1)], **IN_ORDER))
    assert {p.waiting_message for p in made.pods("s-0-g-1-c")} == {"waiting for s-0-a (0/1)"}


def test_a_restart_is_checked_again_through_what_is_empty() -> None:
    """What starts again after its parent was scaled to nothing waits for the parent's parent."""
    made = placed(world([clique("a"), clique("b"), clique("c")], **IN_ORDER))
    for _ in range(3):
        serve(made)
    made.scale_clique("s-0-b", 0)
    made.change_pods(lost, made.pods("s-0-a"))
    made.change_pods(crashed, made.pods("s-0-c"))
    made.settle()
    assert [p.waiting_message for p in made.pods("s-0-c")] == ["waiting for s-0-a (0/1)"]
    made.run(made.pods("s-0-a"))
    made.settle()
    assert [p.is_held for p in made.pods("s-0-c")] == [False]


def test_what_runs_keeps_running_when_a_parent_breaks() -> None:
    """The order holds starts: a parent that is lost stops nobody, and nobody is said to wait."""
    made = placed(world([clique("a"), clique("b")], **IN_ORDER))
    serve(made)
    serve(made)
    made.change_pods(lost, made.pods("s-0-a"))
    made.settle()
    assert all(pod.is_ready for pod in made.pods("s-0-b"))
    assert condition(made.one(PodClique, "s-0-b"), "StartOrderSatisfied").status == "True"


def crashed(pod: Pod) -> Pod:
    """Return an ordered pod after its containers ended, as a runtime reports it."""
    return replace(lost(pod), started_at=None, released_at=None, waiting_reason="CrashLoopBackOff")


def test_a_restart_is_checked_again() -> None:
    """A pod that has to start again waits if a parent does not serve any more, and goes on when it does."""
    made = placed(world([clique("a"), clique("b")], **IN_ORDER))
    serve(made)
    serve(made)
    made.change_pods(crashed, made.pods("s-0-b"))
    made.settle()
    assert [(p.is_held, p.waiting_reason) for p in made.pods("s-0-b")] == [(False, "CrashLoopBackOff")]
    made.change_pods(lost, made.pods("s-0-a"))
    made.change_pods(crashed, made.pods("s-0-b"))
    made.settle()
    assert [(p.is_held, p.waiting_reason) for p in made.pods("s-0-b")] == [(True, "WaitingForParents")]
    made.run(made.pods("s-0-a"))
    made.settle()
    assert [(p.is_held, p.waiting_reason) for p in made.pods("s-0-b")] == [(False, "CrashLoopBackOff")]


def test_a_replacement_waits_too() -> None:
    """A pod that replaces a lost one is held while the parents of its clique do not serve."""
    made = placed(world([clique("a"), clique("b", 2, 1)], **IN_ORDER))
    serve(made)
    serve(made)
    made.change_pods(lost, made.pods("s-0-a"))
    made.change_pods(lambda _: None, made.pods("s-0-b")[:1])
    made.settle()
    made.change_pods(bound, [p for p in made.pods("s-0-b") if not p.node])
    made.settle()
    assert [p.is_held for p in made.pods("s-0-b")] == [True, False]


def test_the_clique_says_that_it_waits_and_tells_once() -> None:
    """StartOrderSatisfied is False with the parents' counts while pods are held; one event tells it."""
    made = world([clique("a", 2), clique("b")], **IN_ORDER)
    made.settle()
    waits = condition(made.one(PodClique, "s-0-b"), "StartOrderSatisfied")
    assert (waits.status, waits.reason, waits.message) == ("False", "WaitingForParents", "waiting for s-0-a (0/2)")
    assert [(n.reason, n.name) for n in made.last.notes] == [("WaitingForParents", "s-0-b")]
    made.change_pods(bound)
    made.run(made.pods("s-0-a")[:1])
    assert made.step().notes == []
    assert condition(made.one(PodClique, "s-0-b"), "StartOrderSatisfied").message == "waiting for s-0-a (1/2)"
    made.run(made.pods("s-0-a"))
    made.settle()
    assert condition(made.one(PodClique, "s-0-b"), "StartOrderSatisfied").status == "True"


def test_many_waiting_pods_are_not_rewritten_with_every_count() -> None:
    """Past a number of waiting pods they name their parents only; the clique's condition has the counts."""
    made = placed(world([clique("a", 3), clique("b", COUNTED_PODS_MAX + 1)], **IN_ORDER))
    assert {p.waiting_message for p in made.pods("s-0-b")} == {"waiting for s-0-a"}
    made.run(made.pods("s-0-a")[:1])
    plan = made.step()
    assert [r.metadata.name for r in plan.updates if isinstance(r, Pod)] == []
    assert condition(made.one(PodClique, "s-0-b"), "StartOrderSatisfied").message == "waiting for s-0-a (1/3)"


@pytest.mark.parametrize(("parents", "expected"), [(3, ""), (5, " and 2 more")])
def test_a_sentence_names_few_parents(parents: int, expected: str) -> None:
    """A clique with many parents names three of them."""
    names = [f"a{number}" for number in range(parents)]
    made = placed(world([*(clique(name) for name in names), clique("b", startsAfter=names)], **EXPLICIT))
    (pod,) = made.pods("s-0-b")
    assert pod.waiting_message == f"waiting for s-0-a0 (0/1), s-0-a1 (0/1), s-0-a2 (0/1){expected}"


def test_a_node_that_is_down_stands_in_front() -> None:
    """A held pod on a node that is down keeps saying so, and is released all the same."""
    made = placed(world([clique("a"), clique("b")], **IN_ORDER))
    made.change_pods(lambda pod: replace(pod, waiting_reason="NodeNotReady"), made.pods("s-0-b"))
    made.settle()
    assert [(p.waiting_reason, p.is_held) for p in made.pods("s-0-b")] == [("NodeNotReady", True)]
    made.run(made.pods("s-0-a"))
    made.settle()
    assert [(p.waiting_reason, p.is_held) for p in made.pods("s-0-b")] == [("NodeNotReady", False)]


def test_rows_from_before_the_order_are_not_held() -> None:
    """A pod stored without a release, by a server that knew no order, may start."""
    made = placed(world([clique("a"), clique("b")], **IN_ORDER))
    old = replace(made.pods("s-0-b")[0], is_ordered=False, released_at=None, phase=PodPhase.PENDING)
    assert not old.is_held
