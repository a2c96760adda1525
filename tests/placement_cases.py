"""Clusters, shapes and gangs for placement's tests: the workers of Grove's own tests, and random small ones."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import strategies as st

from grove_server.placement import (
    GPU_RESOURCE,
    CliqueRequest,
    Cluster,
    GangRequest,
    GroupRequest,
    NodeState,
    Placement,
    PodShape,
    Taint,
    Toleration,
    Verdict,
)

MIB = 2**20
ZONE, BLOCK, RACK, HOST = "kubernetes.io/zone", "kubernetes.io/block", "kubernetes.io/rack", "kubernetes.io/hostname"
TOPOLOGY = (ZONE, BLOCK, RACK, HOST)
WORKER = PodShape(requests=(("memory", 80 * MIB),))
"""Grove's test pod: two of them do not fit one worker of 150 Mi."""


def worker(index: int, *, unschedulable: bool = False, memory_mib: int = 150) -> NodeState:
    """Return worker node `index` of Grove's test cluster: 28 per zone, 14 per block, 7 per rack."""
    name = f"worker-{index:02}"
    labels = {ZONE: f"zone-{index // 28}", BLOCK: f"block-{index // 14}", RACK: f"rack-{index // 7}", HOST: name}
    allocatable = {"cpu": 4000, "memory": memory_mib * MIB, "pods": 110}
    return NodeState(name=name, labels=labels, allocatable=allocatable, unschedulable=unschedulable)


def workers(count: int = 28, *, cordoned: int = 0, memory_mib: int = 150) -> Cluster:
    """Return Grove's test cluster, the first nodes of it cordoned."""
    return Cluster(worker(i, unschedulable=i < cordoned, memory_mib=memory_mib) for i in range(count))


def gpu_node(name: str, *, gpu_count: int = 8, **labels: str) -> NodeState:
    """Return a GPU server with labels by short name (zone, block, rack)."""
    keys = {"zone": ZONE, "block": BLOCK, "rack": RACK}
    return NodeState(
        name=name,
        labels={HOST: name, **{keys[key]: value for key, value in labels.items()}},
        allocatable={"cpu": 64_000, "memory": 2**39, "pods": 110, GPU_RESOURCE: gpu_count},
    )


def gpus(count: int, *, cpu: int = 1000) -> PodShape:
    """Return a pod that wants whole GPUs."""
    return PodShape(requests=(("cpu", cpu), (GPU_RESOURCE, count)))


def clique(name: str, minimum: int, shape: PodShape = WORKER, **more: object) -> CliqueRequest:
    """Return a clique of Grove's test pods unless a shape is given."""
    return CliqueRequest(name=name, shape=shape, minimum=minimum, **more)  # type: ignore[arg-type]  # passed on as given


def gang(*members: CliqueRequest | GroupRequest, name: str = "gang", **more: object) -> GangRequest:
    """Return a gang over the test topology."""
    return GangRequest(name=name, members=members, **{"topology": TOPOLOGY, **more})  # type: ignore[arg-type]  # passed on as given


def placed(result: Placement | Verdict) -> Placement:
    """Return the placement, or fail with the verdict's sentence."""
    assert isinstance(result, Placement), result.sentence()
    return result


def refused(result: Placement | Verdict) -> Verdict:
    """Return the verdict, or fail."""
    assert isinstance(result, Verdict), "the gang should not fit"
    return result


def nodes_of(result: Placement, name: str) -> list[str]:
    """Return the nodes of a clique's pods in rank order."""
    return [binding.node for each in result.cliques if each.name == name for binding in each.bindings]


# -- random small clusters and gangs -----------------------------------------------------------------------------------

DEDICATED = Taint(key="dedicated", value="train")
SPOT = Taint(key="spot", effect="PreferNoSchedule")


@st.composite
def node_states(draw: st.DrawFn, name: str) -> NodeState:
    """Draw a small node: few of everything, sometimes without a label, tainted, cordoned or down."""
    labels = {HOST: name}
    for key in (ZONE, BLOCK, RACK):
        value = draw(st.sampled_from(["0", "0", "1", "1", None]))
        if value is not None:
            labels[key] = value
    rare = st.sampled_from([False] * 9 + [True])
    return NodeState(
        name=name,
        labels=labels,
        allocatable={
            "cpu": draw(st.integers(0, 6)),
            "pods": draw(st.sampled_from([4, 4, 1])),
            GPU_RESOURCE: draw(st.sampled_from([0, 0, 2, 4])),
        },
        taints=tuple(taint for taint in (DEDICATED, SPOT) if draw(rare)),
        unschedulable=draw(rare),
        ready=not draw(rare),
        gpu_busy=frozenset({1}) if draw(rare) else frozenset(),
        gpu_islands=draw(st.sampled_from([(), (), ((0, 1), (2, 3)), ((0, 2), (1,))])),
    )


@st.composite
def clusters(draw: st.DrawFn, *, nodes_max: int) -> Cluster:
    """Draw a cluster of up to `nodes_max` small nodes."""
    count = draw(st.integers(1, nodes_max))
    return Cluster([draw(node_states(f"n{i}")) for i in range(count)])


def shapes() -> st.SearchStrategy[PodShape]:
    """Draw small shapes: whole GPUs, a share of one, or none; some with tolerations and selectors."""
    return st.builds(
        _shape,
        cpu=st.integers(0, 3),
        gpu=st.sampled_from([0, 0, 1, 2, 0.5, 0.3, 0.7]),
        node_selector=st.sampled_from([(), (), (), ((ZONE, "0"),)]),
        tolerations=st.sampled_from([(), (), (Toleration(operator="Exists"),)]),
    )


def _shape(
    cpu: int, gpu: float, node_selector: tuple[tuple[str, str], ...], tolerations: tuple[Toleration, ...]
) -> PodShape:
    whole = int(gpu)
    return PodShape(
        requests=(("cpu", cpu), (GPU_RESOURCE, whole)),
        node_selector=node_selector,
        tolerations=tolerations,
        gpu_milli=round(1000 * (gpu - whole)),
    )


_LEVELS = st.sampled_from([None, None, *TOPOLOGY])


@st.composite
def gangs(draw: st.DrawFn, *, pods_max: int, shape_count: int = 2, plain: bool = False) -> GangRequest:
    """Draw a gang of up to four cliques, some of them in groups; `plain` gangs are one clique."""
    pool = draw(st.lists(shapes(), min_size=1, max_size=shape_count))
    names = (f"c{i}" for i in range(8))
    if plain:
        members: list[CliqueRequest | GroupRequest] = [draw(_cliques(names, pool, pods_max))]
    else:
        members = []
        for i in range(draw(st.integers(1, 2))):
            inner = tuple(draw(_cliques(names, pool, pods_max)) for _ in range(draw(st.integers(1, 2))))
            is_group = draw(st.booleans())
            group = GroupRequest(name=f"g{i}", members=inner, required=draw(_LEVELS), preferred=draw(_LEVELS))
            members.extend([group] if is_group else inner)
    within = draw(st.sampled_from([(), (), (), ((ZONE, "0"),)]))
    return gang(*members, required=draw(_LEVELS), preferred=draw(_LEVELS), within=within)


@st.composite
def _cliques(draw: st.DrawFn, names: Iterator[str], pool: list[PodShape], pods_max: int) -> CliqueRequest:
    return CliqueRequest(
        name=next(names),
        shape=draw(st.sampled_from(pool)),
        minimum=draw(st.integers(0, pods_max)),
        optional=draw(st.sampled_from([0, 0, 1, 2])),
        required=draw(_LEVELS),
        preferred=draw(_LEVELS),
    )
