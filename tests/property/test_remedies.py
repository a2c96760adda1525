"""What to free is the least there is: enough where the verdict says, and no smaller amount anywhere, by trying all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import NamedTuple

from hypothesis import assume, given
from hypothesis import strategies as st

from grove_server.placement import GPU_RESOURCE, Cluster, NodeState, PodShape, RemedyKind, VerdictCode, place
from tests.placement_cases import RACK, clique, gang, placed, refused

CPU = "cpu"


class Box(NamedTuple):
    """A node: its rack, and (has, taken) of GPUs and of cpu."""

    rack: str
    gpus: tuple[int, int]
    cpus: tuple[int, int]


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    """Draw a node with part of it taken."""
    gpus, cpus = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    return Box(draw(st.sampled_from("ab")), (gpus, draw(st.integers(0, gpus))), (cpus, draw(st.integers(0, cpus))))


def _cluster(nodes: Sequence[Box]) -> Cluster:
    cluster = Cluster(
        NodeState(
            name=f"n{i}",
            labels={RACK: box.rack},
            allocatable={"pods": 110, GPU_RESOURCE: box.gpus[0], CPU: box.cpus[0]},
        )
        for i, box in enumerate(nodes)
    )
    for i, box in enumerate(nodes):
        taken = PodShape(requests=((CPU, box.cpus[1]), (GPU_RESOURCE, box.gpus[1])))
        cluster.bind_pod(f"n{i}", taken)
    return cluster


def _fits(nodes: Sequence[Box], freed: Sequence[tuple[int, int]], shape: tuple[int, int], *, by_rack: bool) -> int:
    """Return the most pods that fit one domain when (GPUs, cpu) are freed by node."""
    rooms: dict[str, int] = {}
    for box, (gpus, cpus) in zip(nodes, freed, strict=True):
        frees = (box.gpus[0] - box.gpus[1] + gpus, box.cpus[0] - box.cpus[1] + cpus)
        room = min(free // asked for free, asked in zip(frees, shape, strict=True) if asked)
        domain = box.rack if by_rack else ""
        rooms[domain] = rooms.get(domain, 0) + room
    return max(rooms.values())


def _ways(nodes: Sequence[Box]) -> Iterator[tuple[tuple[int, int], ...]]:
    for gpus in product(*(range(box.gpus[1] + 1) for box in nodes)):
        for cpus in product(*(range(box.cpus[1] + 1) for box in nodes)):
            yield tuple(zip(gpus, cpus, strict=True))


@given(
    nodes=st.lists(boxes(), min_size=1, max_size=3),
    pods=st.integers(1, 6),
    shape=st.tuples(st.integers(0, 3), st.integers(0, 3)).filter(any),
    by_rack=st.booleans(),
)
def test_what_to_free_is_the_least(nodes: list[Box], pods: int, shape: tuple[int, int], *, by_rack: bool) -> None:
    """Freeing exactly what is said, where it is said, lets the gang in; no smaller amount does; else it is hopeless."""
    nothing = [(0, 0)] * len(nodes)
    assume(_fits(nodes, nothing, shape, by_rack=by_rack) < pods)
    wanted = PodShape(requests=((CPU, shape[1]), (GPU_RESOURCE, shape[0])))
    request = gang(clique("w", pods, wanted), required=RACK if by_rack else None, topology=(RACK,))
    verdict = refused(place(_cluster(nodes), request))
    enough = [way for way in _ways(nodes) if _fits(nodes, way, shape, by_rack=by_rack) >= pods]
    remedies = [each for each in verdict.remedies if each.kind == RemedyKind.FREE_RESOURCES]
    if not enough:
        assert remedies == []
        assert verdict.code in {
            VerdictCode.CLUSTER_TOO_SMALL,
            VerdictCode.DOMAIN_TOO_SMALL,
            VerdictCode.POD_TOO_LARGE,
        }
        return
    (remedy,) = remedies
    assert remedy.is_certain
    said = {name: dict(amounts) for name, amounts in remedy.spots}
    freed = [(said.get(f"n{i}", {}).get(GPU_RESOURCE, 0), said.get(f"n{i}", {}).get(CPU, 0)) for i in range(len(nodes))]
    total = (sum(gpus for gpus, _ in freed), sum(cpus for _, cpus in freed))
    assert dict(remedy.amounts) == {key: n for key, n in zip((GPU_RESOURCE, CPU), total, strict=True) if n}
    assert total == min((sum(g for g, _ in way), sum(c for _, c in way)) for way in enough)
    after = [
        Box(box.rack, (box.gpus[0], box.gpus[1] - gpus), (box.cpus[0], box.cpus[1] - cpus))
        for box, (gpus, cpus) in zip(nodes, freed, strict=True)
    ]
    placed(place(_cluster(after), request))
