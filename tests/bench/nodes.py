"""What a node that changes costs: the event and the next decision of one gang, on 10,240 nodes, in CPU time.

The layout is made anew when a node comes, goes or gets other labels; what else changes touches that node alone.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from grove_server.placement import CliqueRequest, Cluster, place
from tests.bench.figures import Figure, Target, figure
from tests.bench.placement import ONE_GPU, TOPOLOGY, gang, percentile, tree_cluster

HOSTNAME = TOPOLOGY[-1]
_ROUNDS = 60


def run() -> Iterator[Figure]:
    """Measure one kind of event after the other."""
    cluster = tree_cluster(4, 8, 16, 20, used=0.5)
    events = _Events(cluster)
    kinds = {
        "cordon": events.cordon,
        "relabel": events.relabel,
        "add": events.add,
        "remove": events.remove,
    }
    worst = 0.0
    for name, happen in kinds.items():
        millis = percentile(_cpu_millis(cluster, happen), 50)
        worst = max(worst, millis)
        yield figure(f"place.node_churn.{name}", millis, "ms CPU p50", better="lower")
    yield figure("place.node_churn", worst, "ms CPU p50", better="lower", target=Target(bound=5))


class _Events:
    """Single changes of nodes that lie far from each other; `index` counts up."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.names = cluster.node_names()

    def _name(self, index: int) -> str:
        return self.names[index * 131 % len(self.names)]

    def cordon(self, index: int) -> None:
        """Cordon a node, or uncordon it."""
        self.cluster.set_schedulable([self._name(index // 2)], schedulable=bool(index % 2))

    def relabel(self, index: int) -> None:
        """Move a node into the rack of another."""
        state, other = self.cluster.node(self._name(index)), self.cluster.node(self._name(index + 7))
        self.cluster.upsert_node(replace(state, labels={**other.labels, HOSTNAME: state.name}))

    def add(self, index: int) -> None:
        """Add a node to a rack."""
        other = self.cluster.node(self._name(index))
        name = f"new-{index:03}"
        self.cluster.upsert_node(replace(other, name=name, labels={**other.labels, HOSTNAME: name}))

    def remove(self, index: int) -> None:
        """Take a node out."""
        self.cluster.remove_node(self._name(index))


def _cpu_millis(cluster: Cluster, happen: Callable[[int], None]) -> list[float]:
    request = gang(CliqueRequest(name="worker", shape=ONE_GPU, minimum=16), required=TOPOLOGY[2])
    place(cluster, request)
    times = []
    gc.collect()
    gc.disable()
    try:
        for index in range(_ROUNDS):
            start = time.process_time()
            happen(index)
            place(cluster, request)
            times.append(1_000 * (time.process_time() - start))
    finally:
        gc.enable()
    return times


if __name__ == "__main__":
    for each in run():
        print(each.name, round(each.value, 3), each.unit, each.target or "", each.met)
