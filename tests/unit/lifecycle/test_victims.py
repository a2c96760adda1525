"""Whom scale-in takes: each rule decides only where the ones before it leave a tie."""

from __future__ import annotations

import itertools
from dataclasses import replace

from grove_server.lifecycle.orders import CopyOrders
from grove_server.lifecycle.victims import victim_order
from grove_server.resources.workload import Pod
from tests.lifecycle_cases import NOW, World, bound, clique, ready, world


def five() -> tuple[World, list[Pod]]:
    """Return a clique of five pods and the pods, all alike but for index and name."""
    made = world([clique("a", 5, 1)])
    made.step()
    return made, made.pods()


def test_the_order_of_victims() -> None:
    """No node, not running, not ready, old revision, least loaded, youngest, name: every later rule yields."""
    _, (one, *_) = five()
    serving = ready(one)
    template = one.template.hash
    other = world([clique("a", labels={"is": "old"})])
    other.step()
    stale = replace(serving, template=other.pods()[0].template)
    young = replace(serving, metadata=replace(one.metadata, created_at=NOW + 1, name="young"))
    busy = replace(serving, metadata=replace(one.metadata, created_at=NOW + 2, name="busy"))
    expected = [one, bound(one), replace(serving, ready_at=None), stale, young, serving, busy]
    for order in itertools.permutations(expected):
        assert sorted(order, key=lambda pod: victim_order(pod, template, {"busy": 1.5})) == expected


def test_scale_in_takes_the_idle_pod() -> None:
    """Of pods that are equal otherwise, those go that routers report the least load for; unreported ones are idle."""
    made, pods = five()
    made.run()
    made.step()
    busy = {pods[4].metadata.name: 2.0, pods[1].metadata.name: 1.0, pods[0].metadata.name: 7.0}
    made.orders = CopyOrders(loads=busy)
    made.scale_clique("s-0-a", 2)
    made.step()
    assert [pod.index for pod in made.pods()] == [0, 4]
