"""How broken up the free GPUs of a cluster are, and the largest gang that still fits at each level.

Rules: GPUs are counted in milli over all nodes that are there; a GPU that is broken is no capacity, one that is
promised counts as allocated. A node or domain is *partly used* if some of its GPUs are held and some are free. A GPU is
unusable for a shape if it is free on a node that takes no pod of that shape, or too small a rest of a GPU; over a mix
that is averaged by weight. For pods of one shape the sum over a domain is exactly what fits there, so the largest gang
is no estimate.
Sources: node fragmentation ratio as Kant's GFR; unusable GPUs as in fragmentation gradient descent (Weng et al.,
"Beware of Fragmentation", USENIX ATC 2023).

Not here: pictures (`picture`), moving what runs so that it gets better (`consolidation`, `clearing`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from grove_server.placement.cluster import Cluster
from grove_server.placement.ledger import GPU_ROW
from grove_server.placement.requests import GPU_RESOURCE, PodShape, Toleration
from grove_server.placement.stranding import Mix
from grove_server.placement.topology import IntArray, Layout
from grove_server.resources.gpu_annotations import GPU_MILLI

PROBE_GPU_COUNTS: Final = (1, 2, 4, 8)
"""GPUs per pod of the shapes that are asked for when nobody names any."""

SHAPES_MAX: Final = 64
"""Most shapes of one question; each costs one pass over the nodes."""


def probe(gpu_count: int) -> PodShape:
    """Return a pod of so many GPUs and nothing else, which tolerates the taint that GPU nodes commonly have."""
    return PodShape(
        requests=((GPU_RESOURCE, gpu_count),), tolerations=(Toleration(key=GPU_RESOURCE, operator="Exists"),)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelUse:
    """The domains with GPUs of one level ("" = single nodes): how many are empty, partly used and full."""

    level: str
    empty: int
    partly_used: int
    full: int

    @property
    def fragmentation_ratio(self) -> float:
        """Return the share of the domains that are partly used; 0 if there are none."""
        total = self.empty + self.partly_used + self.full
        return self.partly_used / total if total else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fragmentation:
    """GPUs in milli: all that work, those allocated, and the free ones that a mix could not use on average.

    `unusable_milli` is None without a mix. `levels`: each level of the topology above single nodes, then the nodes.
    """

    node_count: int
    gpu_milli: int
    allocated_milli: int
    unusable_milli: int | None
    levels: tuple[LevelUse, ...]

    @property
    def idle_milli(self) -> int:
        """Return what is free of GPUs."""
        return self.gpu_milli - self.allocated_milli

    @property
    def allocation_ratio(self) -> float:
        """Return allocated GPUs over all (GAR); 0 if there are none."""
        return self.allocated_milli / self.gpu_milli if self.gpu_milli else 0.0

    @property
    def node_fragmentation_ratio(self) -> float:
        """Return the share of the nodes with GPUs that are partly used."""
        return self.levels[-1].fragmentation_ratio

    @property
    def unusable_share(self) -> float | None:
        """Return unusable GPUs over all; None without a mix."""
        if self.unusable_milli is None:
            return None
        return self.unusable_milli / self.gpu_milli if self.gpu_milli else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LargestGang:
    """The most pods of a shape that fit into one domain of a level now ("" = anywhere, or one node at the end)."""

    shape: PodShape
    level: str
    is_node: bool
    domain: str
    pod_count: int


def fragmentation(cluster: Cluster, topology: tuple[str, ...], mix: Mix | None = None) -> Fragmentation:
    """Return how the GPUs of a cluster are used: O(nodes) per shape of the mix. ValueError for too many shapes."""
    if mix is not None and len(mix.shapes) > SHAPES_MAX:
        raise ValueError(f"a mix to measure by has at most {SHAPES_MAX} shapes, not {len(mix.shapes)}")
    layout = cluster.layout(topology)
    usable, idle = gpu_milli_of(cluster, layout)
    return Fragmentation(
        node_count=len(layout.slots),
        gpu_milli=int(usable.sum()),
        allocated_milli=int((usable - idle).sum()),
        unusable_milli=None if mix is None else _unusable(cluster, layout, idle, mix),
        levels=tuple(_uses(layout, usable, idle)),
    )


def gpu_milli_of(cluster: Cluster, layout: Layout) -> tuple[IntArray, IntArray]:
    """Return (milli of GPUs that work, milli that are free) by position, int64[N] each."""
    ledger = cluster.ledger
    slots = layout.slots
    usable = np.array([ledger.gpu_usable[slot].bit_count() for slot in slots.tolist()], dtype=np.int64) * GPU_MILLI
    idle: IntArray = np.minimum(ledger.gpu_milli_free(slots), usable)
    return usable, idle


def largest_gangs(cluster: Cluster, topology: tuple[str, ...], shapes: Sequence[PodShape]) -> tuple[LargestGang, ...]:
    """Return for each shape and level the largest gang of one clique that fits into one domain as things are.

    Levels from the whole cluster down to single nodes; domains without a name are left out, as gangs are never put
    there. ValueError for too many shapes.
    """
    if len(shapes) > SHAPES_MAX:
        raise ValueError(f"at most {SHAPES_MAX} shapes are looked at, not {len(shapes)}")
    layout = cluster.layout(topology)
    return tuple(each for shape in shapes for each in _largest(cluster, layout, shape))


def _largest(cluster: Cluster, layout: Layout, shape: PodShape) -> Iterator[LargestGang]:
    if not len(layout.slots):
        return
    request_class = cluster.request_class(shape, layout)
    for index in range(layout.leaf_level + 1):
        level = layout.levels[index]
        counts = np.where(level.is_named, request_class.everywhere[index], -1)
        best = int(counts.argmax())
        most = max(0, int(counts[best]))
        yield LargestGang(
            shape=shape,
            level=level.key,
            is_node=index == layout.leaf_level > 0,
            domain=domain_name(cluster, layout, index, best) if most and index else "",
            pod_count=most,
        )


def domain_name(cluster: Cluster, layout: Layout, level: int, domain: int) -> str:
    """Return a domain's label value, or the name of the node that it is; "" for a domain without a name."""
    if level < layout.leaf_level:
        return layout.value_of(level, domain)
    state = cluster.rules.states[int(layout.slots[domain])]
    return "" if state is None else state.name


def _uses(layout: Layout, usable: IntArray, idle: IntArray) -> Iterator[LevelUse]:
    for index in range(1, layout.leaf_level):
        level = layout.levels[index]
        # Nodes without the label are in no domain.
        sums = (np.add.reduceat(amounts, level.starts[:-1])[level.is_named] for amounts in (usable, idle))
        yield _use(level.key, *sums)
    yield _use("", usable, idle)


def _use(level: str, usable: IntArray, idle: IntArray) -> LevelUse:
    has_gpus = usable > 0
    empty = int(np.count_nonzero(has_gpus & (idle == usable)))
    full = int(np.count_nonzero(has_gpus & (idle == 0)))
    return LevelUse(level=level, empty=empty, full=full, partly_used=int(np.count_nonzero(has_gpus)) - empty - full)


def _unusable(cluster: Cluster, layout: Layout, idle: IntArray, mix: Mix) -> int:
    """Return the milli that pods of the mix could not use, averaged over those of its shapes that want GPUs."""
    ledger = cluster.ledger
    shapes = [(shape, weight) for shape, weight in mix.shapes if weight and shape.needs_gpu]
    total = weights = 0
    for shape, weight in shapes:
        fits = cluster.request_class(shape, layout).everywhere[-1] > 0
        if shape.gpu_milli:
            shares = ledger.shares.rows(layout.slots)
            small = np.where(shares < shape.gpu_milli, shares, 0).sum(axis=1, dtype=np.int64)
        else:
            small = idle - np.maximum(ledger.free[GPU_ROW][layout.slots], 0) * GPU_MILLI
        total += weight * int(np.where(fits, np.clip(small, 0, idle), idle).sum())
        weights += weight
    return total // weights if weights else 0
