"""Rules between pods in the running loops: who is kept apart from whom, who wakes when a pod comes or goes."""

from __future__ import annotations

from typing import Any

from tests.lifecycle_cases import Json, clique, group, manifest
from tests.planes import Plane, binding, worker

HOST, RACK, BLOCK = "example.com/host", "example.com/rack", "example.com/block"
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


def _affine(kind: str, app: str, key: str = RACK) -> Json:
    """Return a pod spec with one required term about pods of an app."""
    term = {
        "topologyKey": key,
        "labelSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": [app]}]},
    }
    return {
        "containers": [{"name": "main", "image": "registry.example/app:1"}],
        "affinity": {kind: {REQUIRED: [term]}},
    }


def _app(name: str, replicas: int = 1, app: str = "", **fields: Any) -> Json:  # noqa: ANN401 -- any field of a clique
    return clique(name, replicas, labels={"app": app or name}, **fields)


def _racks(plane: Plane, prefix: str = "") -> list[str]:
    """Return the racks of the pods of a set with nodes."""
    return sorted(
        f"r{int(pod.node[1:]) // 2}" for pod in plane.pods() if pod.node and pod.metadata.name.startswith(prefix)
    )


async def _running(plane: Plane, count: int) -> None:
    await plane.until(lambda: plane.ready_count() == count, f"{count} pods run")
    await plane.until_quiet()


async def test_pods_of_two_sets_keep_apart_both_ways(plane: Plane) -> None:
    """A pod with anti-affinity is not put beside those it names, nor one of these beside it later."""
    await plane.put(*(worker(i, pods=4) for i in range(4)))
    await plane.apply(manifest([_app("a", app="x")], name="one"), uid="one")
    await _running(plane, 1)
    await plane.apply(manifest([_app("b", podSpec=_affine("podAntiAffinity", "x"))], name="two"), uid="two")
    await _running(plane, 2)
    assert len(set(_racks(plane))) == 2
    await plane.apply(manifest([_app("c", 3, app="x")], name="three"), uid="three")
    await _running(plane, 5)
    [apart] = _racks(plane, "two")
    assert apart not in _racks(plane, "three")
    await plane.apply(manifest([_app("d", podSpec=_affine("podAntiAffinity", "x", BLOCK))], name="four"), uid="four")
    await plane.until(lambda: any(pod.waiting_reason == "Unschedulable" for pod in plane.pods()), "it waits")
    [message] = [pod.waiting_message for pod in plane.pods() if pod.waiting_message]
    assert "4 closed by pods of app=x (anti-affinity on block)" in message


async def test_copies_decided_together_see_each_other(plane: Plane) -> None:
    """Copies of one set that are placed in the same round keep apart too."""
    await plane.put(*(worker(i, pods=9) for i in range(8)))
    await plane.apply(manifest([_app("a", 2, app="x", podSpec=_affine("podAntiAffinity", "x", HOST))], replicas=4))
    await _running(plane, 8)
    assert len({pod.node for pod in plane.pods()}) == 8


async def test_who_keeps_apart_wakes_when_the_pod_goes(plane: Plane) -> None:
    """A gang that waits because of a pod elsewhere in the rack is placed when that pod is gone."""
    await plane.put(worker(0), worker(1))
    await plane.apply(manifest([_app("a", app="x")], name="one"), uid="one")
    await _running(plane, 1)
    await plane.apply(manifest([_app("b", podSpec=_affine("podAntiAffinity", "x"))], name="two"), uid="two")
    await plane.until(lambda: any(pod.waiting_reason for pod in plane.pods()), "the second waits")
    taken = next(pod.node for pod in plane.pods() if pod.node)
    await plane.set_nodes(taken, unschedulable=True)
    await plane.delete_set("one")
    await plane.until(lambda: [pod.identity.clique for pod in plane.pods() if pod.node] == ["b"], "the second runs")


async def test_who_follows_wakes_when_the_pod_comes(plane: Plane) -> None:
    """A gang that has to be near pods that do not exist waits for them, and then goes where they are."""
    await plane.put(*(worker(i, pods=4) for i in range(8)))
    await plane.apply(manifest([_app("b", 2, podSpec=_affine("podAffinity", "x"))], name="two"), uid="two")
    await plane.until(lambda: all(pod.waiting_reason for pod in plane.pods()), "both wait")
    await plane.apply(manifest([_app("a", app="x")], name="one"), uid="one")
    await _running(plane, 3)
    assert len(set(_racks(plane))) == 1


async def test_pods_in_another_namespace_are_strangers(plane: Plane) -> None:
    """A term without namespaces is about its own namespace, so it closes nothing for pods of other labels."""
    await plane.put(worker(0, pods=4))
    spec = _affine("podAntiAffinity", "x")
    spec["affinity"]["podAntiAffinity"][REQUIRED][0]["namespaces"] = ["elsewhere"]
    await plane.apply(manifest([_app("a", 3, app="x", podSpec=spec)]))
    await _running(plane, 3)


async def test_copies_lie_in_domains_of_their_own(plane: Plane) -> None:
    """With spread-copies-required a rack holds one copy, so that its loss costs one; one copy too many waits."""
    await plane.put(binding(), *(worker(i, pods=2) for i in range(6)))
    document = manifest([_app("a", 2), _app("b", 1)], replicas=4)
    document["metadata"]["annotations"] = {"grove.io/spread-copies": "rack", "grove.io/spread-copies-required": "true"}
    await plane.apply(document)
    await _running(plane, 9)
    racks = {
        copy: {f"r{int(p.node[1:]) // 2}" for p in plane.pods() if p.identity.copy == copy and p.node}
        for copy in range(4)
    }
    assert sorted(len(each) for each in racks.values()) == [0, 1, 1, 1]
    assert len(set().union(*racks.values())) == 3


async def test_copies_prefer_the_domain_with_fewest_others(plane: Plane) -> None:
    """With spread-copies alone copies go to the least loaded rack first, and share racks when there are no others."""
    await plane.put(binding(), *(worker(i, pods=9) for i in range(4)))
    document = manifest([_app("a", 2)], replicas=4)
    document["metadata"]["annotations"] = {"grove.io/spread-copies": "rack"}
    await plane.apply(document)
    await _running(plane, 8)
    assert _racks(plane) == ["r0"] * 4 + ["r1"] * 4


async def test_a_clique_is_put_near_the_group_it_names(plane: Plane) -> None:
    """Pods near a group share its rack, also those that are scaled in later."""
    await plane.put(binding(), *(worker(i, pods=6) for i in range(8)), worker(9, pods=2))
    cliques = [clique("router", 1, annotations={"grove.io/near": "decode"}), clique("leader", 3), clique("worker", 3)]
    await plane.apply(manifest(cliques, [group("decode", ["leader", "worker"])]))
    await _running(plane, 7)
    await plane.scale_clique("s-0-router", 3)
    await _running(plane, 9)
    assert len(set(_racks(plane))) == 1
