"""Rules between pods and preemption in the running loops: nobody leaves for a gang that a rule keeps out."""

from __future__ import annotations

from dataclasses import replace

from grove_server.control.seats import key_of_name
from grove_server.placement.waiting import WAITING_FOR_VICTIMS
from grove_server.resources.cluster import Node
from grove_server.resources.meta import Kind
from grove_server.resources.workload import Pod, PodGang
from tests.lifecycle_cases import Json, clique, manifest
from tests.planes import Plane, worker
from tests.unit.control.test_preemption import HIGH, LOW, acknowledge, classes, of_set, reason, until_runs, with_router

RACK = "example.com/rack"


def ruled(name: str, priority: str, app: str, kind: str = "", about: str = "", size: int = 1) -> Json:
    """Return a set of one clique with a label, and perhaps a required term about pods of another."""
    spec: Json = {"containers": [{"name": "main", "image": "registry.example/app:1"}]}
    if kind:
        term = {"topologyKey": RACK, "labelSelector": {"matchLabels": {"app": about}}}
        spec["affinity"] = {kind: {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    return manifest([clique("a", size, labels={"app": app}, podSpec=spec)], name=name, priorityClassName=priority)


def nodes_of(plane: Plane, name: str) -> list[str]:
    """Return the nodes of a set's active pods, "" for one without."""
    return sorted(pod.node for pod in of_set(plane, name))


def node_of(plane: Plane, name: str) -> Node:
    """Return a node."""
    return next(node for node in plane.all(Node) if node.metadata.name == name)


async def until_waits(plane: Plane, gang: str) -> None:
    """Wait until a gang waits for those who leave for it."""
    await plane.until(lambda: reason(plane, gang) == WAITING_FOR_VICTIMS, f"{gang} waits for victims")


async def test_whom_a_gang_keeps_apart_from_leaves_for_it(plane: Plane) -> None:
    """With room beside a pod of low priority that it must not be near, a gang displaces that pod, and only that one."""
    await plane.put(*classes(), worker(0, pods=2), worker(2, pods=1))
    await plane.apply(ruled("y", LOW, "y"), uid="y")
    await until_runs(plane, "y", 1)
    await plane.set_nodes(nodes_of(plane, "y")[0], unschedulable=True)
    await plane.apply(ruled("x", LOW, "x"), uid="x")
    await until_runs(plane, "x", 1)
    [there] = nodes_of(plane, "x")
    await plane.apply(ruled("t", HIGH, "t", "podAntiAffinity", "x"), uid="t")
    await until_runs(plane, "t", 1)
    assert nodes_of(plane, "t") == [there]
    assert nodes_of(plane, "x") == [""]
    assert sum(pod.is_ready for pod in of_set(plane, "y")) == 1


async def test_places_are_kept_while_those_a_rule_is_about_still_leave(plane: Plane) -> None:
    """A pod elsewhere in the rack that drains keeps the gang waiting for its place, and is not in vain."""
    await plane.put(*classes(), worker(0), worker(1))
    await plane.apply(ruled("x", LOW, "x", size=2), uid="x")
    await until_runs(plane, "x", 2)
    await with_router(plane, "x")
    await plane.apply(ruled("t", HIGH, "t", "podAntiAffinity", "x"), uid="t")
    await until_waits(plane, "t-0")
    await plane.until_quiet()
    # One of two goes; the other, in the same rack, still keeps the gang away.
    first, _ = sorted(pod.metadata.name for pod in plane.all(Pod) if pod.is_draining)
    await plane.put(*(replace(pod, drain_acks=("r",)) for pod in plane.all(Pod) if pod.metadata.name == first))
    await plane.until(lambda: plane.get(Pod, first) is None, "the first is gone")
    await plane.until_quiet()
    assert nodes_of(plane, "t") == [""]
    assert reason(plane, "t-0") == WAITING_FOR_VICTIMS
    await acknowledge(plane)
    await until_runs(plane, "t", 1)


async def test_nobody_comes_near_places_that_are_kept(plane: Plane) -> None:
    """While a gang's victims leave, pods that it keeps apart from are not put into the rack of its places."""
    await plane.put(*classes(), worker(0), worker(1))
    await plane.apply(ruled("y", LOW, "y", size=1), uid="y")
    await until_runs(plane, "y", 1)
    await plane.apply(ruled("z", HIGH, "z", size=1), uid="z")
    await until_runs(plane, "z", 1)
    await with_router(plane, "y")
    await plane.apply(ruled("t", HIGH, "t", "podAntiAffinity", "x"), uid="t")
    await until_waits(plane, "t-0")
    await plane.delete_set("z")
    await plane.apply(ruled("x", LOW, "x"), uid="x")
    await plane.until(lambda: plane.get(PodGang, "x-0") is not None, "it is asked for")
    await plane.until_quiet()
    assert nodes_of(plane, "x") == [""]
    await acknowledge(plane)
    await until_runs(plane, "t", 1)
    assert nodes_of(plane, "x") == [""]


async def test_a_kept_place_is_given_up_when_its_domain_is_another(plane: Plane) -> None:
    """A node that moves to the rack of pods that the gang keeps apart from is not waited for any more."""
    await plane.put(*classes(), worker(0), worker(2))
    await plane.apply(ruled("x", HIGH, "x"), uid="x")
    await until_runs(plane, "x", 1)
    [taken] = nodes_of(plane, "x")
    await plane.apply(ruled("y", LOW, "y"), uid="y")
    await until_runs(plane, "y", 1)
    await with_router(plane, "y")
    await plane.apply(ruled("t", HIGH, "t", "podAntiAffinity", "x"), uid="t")
    await until_waits(plane, "t-0")
    [moving] = {"n0", "n2"} - {taken}
    node, other = node_of(plane, moving), node_of(plane, taken)
    labels = {**node.metadata.labels, RACK: other.metadata.labels[RACK]}
    await plane.put(replace(node, metadata=replace(node.metadata, labels=labels)))
    await plane.until(lambda: reason(plane, "t-0") != WAITING_FOR_VICTIMS, "the place is given up")
    assert key_of_name("default/t-0", Kind.POD_GANG) not in set(plane.control.placement.room.nominations)
