"""Wanted and ready sizes per clique and group, as series that come and go with their sets.

The control loops only write into a dictionary; the series are made when somebody reads the page. All copies of a set
are added up under the template's name, so the number of series follows what people write, not what runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

# 4 series per entry; beyond this the page would cost more to read than it tells.
ENTRIES_MAX: Final = 20_000

Scope = Literal["clique", "group"]
_HELP: Final = {
    ("clique", "desired"): "Pods wanted, all copies of the set together.",
    ("clique", "ready"): "Pods ready, all copies of the set together.",
    ("group", "desired"): "Group replicas wanted, all copies of the set together.",
    ("group", "ready"): "Group replicas available, all copies of the set together.",
}


class ReplicaSeries(Collector):
    """Holds (desired, ready) per scope, namespace, set and template name; the loops own its content."""

    def __init__(self) -> None:
        self.enabled = True
        self._sizes: dict[tuple[str, str], dict[tuple[Scope, str], tuple[int, int]]] = {}
        self._count = 0
        self.dropped_count = 0

    def show(self, scope: Scope, namespace: str, set_name: str, template: str, *, desired: int, ready: int) -> None:
        """Publish the size of one clique or group template; dropped and counted when there are too many."""
        if not self.enabled:
            return
        sizes = self._sizes.setdefault((namespace, set_name), {})
        key = (scope, template)
        if key not in sizes:
            if self._count >= ENTRIES_MAX:
                self.dropped_count += 1
                return
            self._count += 1
        sizes[key] = (desired, ready)

    def forget_set(self, namespace: str, set_name: str) -> None:
        """Remove the series of a set that is gone."""
        self._count -= len(self._sizes.pop((namespace, set_name), ()))

    def forget(self, scope: Scope, namespace: str, set_name: str, template: str) -> None:
        """Remove the series of one template that its set no longer has."""
        sizes = self._sizes.get((namespace, set_name))
        if sizes is not None and sizes.pop((scope, template), None) is not None:
            self._count -= 1

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Return the series of this moment."""
        families = {
            key: GaugeMetricFamily(f"grove_{key[0]}_{key[1]}_replicas", text, labels=("namespace", "set", key[0]))
            for key, text in _HELP.items()
        }
        # Copies, because the page is made in a thread beside the loops that write.
        for (namespace, set_name), sizes in list(self._sizes.items()):
            for (scope, template), (desired, ready) in list(sizes.items()):
                labels = (namespace, set_name, template)
                families[scope, "desired"].add_metric(labels, desired)
                families[scope, "ready"].add_metric(labels, ready)
        yield from families.values()
        dropped = GaugeMetricFamily(
            "grove_replica_series_dropped", "Times a size was not shown because there were too many series."
        )
        dropped.add_metric((), self.dropped_count)
        yield dropped
