"""Queues that take back from each other, on virtual time: it comes to an end, and no guarantee is hurt by it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from grove_server.lifecycle.removal import StopReason
from grove_server.resources.cluster import Node
from grove_server.resources.queues import QUEUE, Queue
from grove_server.resources.workload import Pod
from grove_server.store.interface import ChangeType, Notice
from tests.lifecycle_cases import Json, clique, manifest, pack
from tests.planes import binding, worker
from tests.property.test_said_and_done import CLASSES, GPU, owner_of
from tests.unit.control.test_queues import queue
from tests.virtual_plane import VirtualPlane

LEAVES = ("qa", "qb", "qc", "default")
REST_S = 120.0


@st.composite
def trees(draw: st.DrawFn) -> list[Queue]:
    """Draw two queues below one, and one beside it."""

    def kept(most: int) -> dict[str, str]:
        amount = draw(st.integers(0, most))
        return {GPU: str(amount)} if amount else {}

    top = {GPU: str(draw(st.integers(8, 12)))} if draw(st.booleans()) else {}
    return [
        queue("top", guarantee=kept(8), limit=top),
        queue("qa", parent="top", guarantee=kept(6), weight=draw(st.sampled_from([1.0, 3.0]))),
        queue("qb", parent="top", guarantee=kept(4)),
        queue("qc", guarantee=kept(6)),
    ]


@st.composite
def gangs(draw: st.DrawFn, name: str) -> Json:
    """Draw a set of one clique, often with surplus, sometimes bound to a rack."""
    size = draw(st.integers(1, 4))
    container = {"name": "main", "image": "registry.example/app:1", "resources": {"limits": {GPU: "1"}}}
    fields: Json = {"annotations": {"fake.grove.io/stop-delay": draw(st.sampled_from(["0s", "3s"]))}}
    if draw(st.sampled_from([True, False, False])):
        fields["topologyConstraint"] = pack(required="rack")
    priority = draw(st.sampled_from(["", "", "high"]))
    template: Json = {"priorityClassName": priority} if priority else {}
    small = clique("c", size, draw(st.integers(1, size)), podSpec={"containers": [container]}, **fields)
    document = manifest([small], name=name, **template)
    document["metadata"]["labels"] = {QUEUE: draw(st.sampled_from(LEAVES))}
    return document


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tree=trees(), data=st.data())
def test_taking_back_ends_and_hurts_no_guarantee(tree: Sequence[Queue], data: st.DataObject) -> None:
    """After each set that comes the server comes to rest; who was within a guarantee lost nothing of it to others."""
    plane = VirtualPlane()
    try:
        plane.put(binding(), *CLASSES, *tree, *_machines())
        kept = {each.metadata.name: int(each.spec.guarantee.get(GPU, "0")) for each in tree}
        in_queue: dict[str, str] = {}
        taken: list[Pod] = []
        plane.store.subscribe(lambda notices: taken.extend(_taken_back(notices)))
        for number in range(data.draw(st.integers(3, 9))):
            document = data.draw(gangs(f"s{number}"))
            in_queue[f"s{number}"] = document["metadata"]["labels"][QUEUE]
            before = _used(plane, in_queue)
            taken.clear()
            plane.put(owner_of(plane, document))
            count = len(taken)
            plane.pass_time(REST_S)
            assert len(taken) == count, "who lost something takes it back"
            losers = {in_queue[pod.identity.set_name] for pod in taken}
            after = _used(plane, in_queue)
            for name in losers:
                assert after.get(name, 0) >= min(before.get(name, 0), kept.get(name, 0)), name
        assert not plane.loop.problems
    finally:
        plane.end()


def _machines() -> list[Node]:
    nodes = [worker(index, pods=8) for index in range(8)]
    return [replace(node, allocatable={**node.allocatable, GPU: "2"}) for node in nodes]


def _taken_back(notices: Sequence[Notice]) -> list[Pod]:
    found = []
    for notice in notices:
        pod, before = notice.resource, notice.previous
        is_change = notice.kind is ChangeType.MODIFIED and isinstance(pod, Pod) and isinstance(before, Pod)
        if is_change and isinstance(pod, Pod) and isinstance(before, Pod) and before.is_active and not pod.is_active:
            found += [pod] if pod.stop_reason == StopReason.RECLAIMED else []
    return found


def _used(plane: VirtualPlane, in_queue: dict[str, str]) -> dict[str, int]:
    """Return the GPUs of each queue's pods that have nodes and stay."""
    used: dict[str, int] = {}
    for pod in plane.all(Pod):
        if pod.node and pod.is_active:
            used[in_queue[pod.identity.set_name]] = used.get(in_queue[pod.identity.set_name], 0) + 1
    return used
