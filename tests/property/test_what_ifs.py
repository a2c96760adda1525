"""A what-if on an idle server says exactly what an apply then does, for any small cluster and sets of one priority."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from grove_server.resources.meta import Metadata
from grove_server.resources.queues import QUEUE, Queue, QueueSpec
from grove_server.resources.workload import PodGang
from tests.lifecycle_cases import Json, admitted, clique, group, manifest, pack
from tests.planes import Plane, binding, worker

REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
LEVELS = ("host", "rack", "block", "zone")


@st.composite
def pod_specs(draw: st.DrawFn) -> Json:
    """Draw a pod spec, sometimes with a rule about other pods."""
    spec: Json = {"containers": [{"name": "main", "image": "registry.example/app:1"}]}
    spec["containers"][0]["resources"] = {"requests": {"cpu": str(draw(st.sampled_from([1, 1, 20, 40])))}}
    kind = draw(st.sampled_from([None, None, "podAntiAffinity", "podAffinity"]))
    if kind is not None:
        term = {
            "topologyKey": f"example.com/{draw(st.sampled_from(LEVELS))}",
            "labelSelector": {"matchLabels": {"app": draw(st.sampled_from(["x", "y"]))}},
        }
        spec["affinity"] = {kind: {REQUIRED: [term]}}
    return spec


@st.composite
def sets(draw: st.DrawFn, name: str) -> Json:
    """Draw a set of one to three cliques, with or without a group, levels, spread copies and a queue.

    Surplus pods and several copies do not come together: which copy's surplus is there first is a matter of timing.
    """
    replicas = draw(st.sampled_from([1, 1, 2, 3]))
    cliques = []
    for number in range(draw(st.integers(1, 3))):
        size = draw(st.integers(1, 3))
        fields: dict[str, Any] = {"labels": {"app": draw(st.sampled_from(["x", "y", "z"]))}}
        if draw(st.booleans()):
            fields["topologyConstraint"] = pack(required=draw(st.sampled_from(LEVELS)))
        minimum = size if replicas > 1 else draw(st.integers(1, size))
        cliques.append(clique(f"c{number}", size, minimum, podSpec=draw(pod_specs()), **fields))
    groups = []
    if len(cliques) > 1 and draw(st.booleans()):
        groups.append(group("g", ["c0", "c1"], replicas=draw(st.integers(1, 3))))
    template: Json = {}
    if draw(st.booleans()):
        template["topologyConstraint"] = pack(required="zone")
    document = manifest(cliques, groups, name=name, replicas=replicas, **template)
    metadata = document["metadata"]
    if draw(st.booleans()):
        metadata["labels"] = {QUEUE: "q"}
    if draw(st.sampled_from([False, False, True])):
        metadata["annotations"] = {"grove.io/spread-copies": draw(st.sampled_from(["rack", "host"]))}
        if draw(st.booleans()):
            metadata["annotations"]["grove.io/spread-copies-required"] = "true"
    return document


Outcome = dict[str, object]


async def said_and_done(
    folder: Path, nodes: list[int], limit: int, documents: list[Json]
) -> list[tuple[Outcome, Outcome]]:
    """Ask about sets and apply them, one after the other; return by set what was said of its gangs, and what is."""
    plane = Plane(folder / "grove.db")
    await plane.start()
    try:
        queue = Queue(metadata=Metadata(name="q", uid="q"), spec=QueueSpec(limit={"pods": str(limit)}))
        await plane.put(binding(), queue, *(worker(i, pods=pods) for i, pods in enumerate(nodes)))
        await plane.until_quiet()
        return [await _said_and_done(plane, document) for document in documents]
    finally:
        await plane.stop()


async def _said_and_done(plane: Plane, document: Json) -> tuple[Outcome, Outcome]:
    name = document["metadata"]["name"]
    owner = admitted(document, uid=name, now=plane.clock.now())
    answer = await plane.control.planning.simulate([owner], [], gang_count_max=100)
    said: Outcome = {each.name: each.fits or each.decision.reason for each in answer.gangs}
    await plane.apply(document, uid=name)

    def is_decided() -> bool:
        done = _done(plane, name)
        return len(done) == len(said) and all(done.values())

    await plane.until(is_decided, "every gang is decided")
    await plane.until_quiet()
    return said, _done(plane, name)


def _done(plane: Plane, name: str) -> Outcome:
    """Return by gang of a set whether its minimum has nodes, or why not."""
    gangs = [gang for gang in plane.all(PodGang) if gang.set_name == name]
    return {gang.metadata.name: gang.status.scheduled_at is not None or gang.status.reason for gang in gangs}


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    nodes=st.lists(st.integers(1, 4), min_size=1, max_size=8),
    limit=st.integers(1, 12),
    documents=st.tuples(sets("s"), sets("t")),
)
def test_what_is_said_is_done(nodes: list[int], limit: int, documents: tuple[Json, Json]) -> None:
    """Gang by gang the same answer: it has its places, or the same reason why not."""
    with tempfile.TemporaryDirectory() as folder:
        for said, done in asyncio.run(said_and_done(Path(folder), nodes, limit, list(documents))):
            assert done == said
