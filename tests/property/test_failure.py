"""Random failures of pods and nodes: what is recycled, drained and held, whatever happens in whatever order."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from grove_server.lifecycle.orders import CopyOrders, NodeTrouble
from grove_server.resources.workload import Pod, PodClique
from tests.lifecycle_cases import World, bound, clique, deleted, group, lost, ready, world

NODES = ("n0", "n1", "n2", "n3")
ACTIONS = st.tuples(
    st.sampled_from(["place", "serve", "lose", "delete", "wait", "down", "drain", "heal", "reap"]),
    st.integers(min_value=0, max_value=11),
)
SHAPES: tuple[tuple[list[Any], list[Any]], ...] = (
    ([clique("a", 3, 2), clique("b", 2, 1)], []),
    ([clique("a", 1), clique("b"), clique("c", 2, 1)], [group("g", ["b", "c"], 3, 1)]),
)


@given(
    shape=st.sampled_from(SHAPES),
    order=st.sampled_from(["CliqueStartupTypeAnyOrder", "CliqueStartupTypeInOrder"]),
    actions=st.lists(ACTIONS, max_size=60),
)
@settings(max_examples=60, deadline=None)
def test_failures_in_any_order(shape: tuple[list[Any], list[Any]], order: str, actions: list[tuple[str, int]]) -> None:
    """Each plan is complete, drains keep their budget, only what worked is recycled, and held pods do not run."""
    made = world(*shape, terminationDelay="10s", cliqueStartupType=order)
    made.settle()
    for action, number in actions:
        act(made, action, number)
        check_step(made)


def act(made: World, action: str, number: int) -> None:
    """Let something happen to a pod, a node or the clock."""
    pods = made.pods()
    chosen = pods[number % len(pods)]
    node = NODES[number % len(NODES)]
    troubles = dict(made.orders.nodes)
    match action:
        case "place":
            made.change_pods(lambda pod: bound(replace(pod, node=pod.node or NODES[pod.index % len(NODES)])))
        case "serve":
            made.change_pods(lambda pod: ready(pod, made.now) if pod.node and not pod.is_held else pod)
        case "lose" if chosen.is_ready:
            made.change_pods(lost, [chosen])
        case "delete":
            made.change_pods(deleted, [chosen])
        case "wait":
            made.now += (1, 5, 10, 100)[number % 4]
        case "down":
            troubles[node] = NodeTrouble(not_ready_since=made.now)
            made.change_pods(lambda pod: lost(pod) if pod.is_ready and pod.node == node else pod)
        case "drain":
            troubles[node] = NodeTrouble(draining_since=made.now)
        case "heal":
            troubles.pop(node, None)
        case "reap":
            made.reap()
        case _:
            pass
    made.orders = CopyOrders(nodes=troubles)


def check_step(made: World) -> None:
    """Make one pass and check what it took."""
    worked = {c.metadata.name for c in made.of(PodClique) if c.status.first_scheduled_at is not None}
    before = made.pods()
    serving = Counter(pod.identity.name for pod in before if pod.is_ready)
    sizes = {c.metadata.name: c.replicas for c in made.of(PodClique)}
    made.step()
    stopped = [
        pod for pod in made.of(Pod) if pod.is_terminating and pod.metadata.name in {p.metadata.name for p in before}
    ]
    drained = Counter(pod.identity.name for pod in stopped if pod.stop_reason == "NodeDrained" and pod.is_ready)
    for name, count in drained.items():
        if not made.one(PodClique, name).identity.group:
            assert serving[name] - count >= sizes[name] - 1
    if any(note.reason == "GangTerminated" for note in made.last.notes):
        assert worked, "something was recycled that never worked"
    for pod in made.pods():
        assert not (pod.is_held and pod.is_ready)
    counts = Counter((pod.identity.name, pod.index) for pod in made.pods())
    assert all(count == 1 for count in counts.values())
    assert Counter(name for name, _ in counts) == Counter({name: size for name, size in sizes.items() if size})
