"""Metrics of the autoscaler, on a registry of its own.

Rules: as the server's (units last, labels bounded). Series of roles carry namespace, policy, copy and role; they are
read from the last decisions when the page is made, so that what is gone vanishes. ``docs/autoscaler.md`` lists them;
a test compares.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from autoscaler.acting.scaling import Outcome
from autoscaler.decision import Decision

REGISTRY: Final = CollectorRegistry(auto_describe=True)
ROLES_SHOWN_MAX: Final = 5_000
_TICK_BUCKETS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

TICK_SECONDS: Final = Histogram(
    "grove_autoscaler_tick_seconds", "Time of a tick, by part.", ("part",), buckets=_TICK_BUCKETS_S, registry=REGISTRY
)
TICKS: Final = Counter(
    "grove_autoscaler_ticks_total", "Ticks, by how they ended: done, late or failed.", ("result",), registry=REGISTRY
)
DECISIONS: Final = Counter(
    "grove_autoscaler_decisions_total",
    "Decisions about roles that change their size, by direction, reason and outcome.",
    ("direction", "reason", "outcome"),
    registry=REGISTRY,
)
PROBLEMS: Final = Counter(
    "grove_autoscaler_source_problems_total",
    "Questions to sources without an answer.",
    ("source", "failure"),
    registry=REGISTRY,
)
STRANGERS: Final = Gauge(
    "grove_autoscaler_strangers", "Series of pods that no policy has, at the last tick.", registry=REGISTRY
)
LEADS: Final = Gauge("grove_autoscaler_leads", "1 while this autoscaler leads.", registry=REGISTRY)
STATUS_WRITES: Final = Counter(
    "grove_autoscaler_status_writes_total", "Statuses of policies written, by result.", ("result",), registry=REGISTRY
)
BUILD: Final = Gauge("grove_autoscaler_build_info", "1, with the version.", ("version",), registry=REGISTRY)

_LABELS: Final = ("namespace", "policy", "copy", "role")
_SIZES: Final = ("current", "ready", "pending", "draining", "wanted", "desired")


class RoleSeries(Collector):
    """Gauges of the last decisions."""

    def __init__(self, last: Callable[[], Iterable[tuple[Decision, Outcome]]]) -> None:
        self._last = last

    def describe(self) -> Iterable[Metric]:
        """Return the families, empty."""
        return self._families().values()

    def collect(self) -> Iterator[Metric]:
        """Yield the families."""
        families = self._families()
        shown = 0
        for decision, _ in self._last():
            namespace, _, policy = decision.key.partition("/")
            scope = (namespace, policy, str(decision.copy))
            families["grove_autoscaler_gpus_held"].add_metric(scope, decision.gpus_held)
            if decision.ratio is not None:
                families["grove_autoscaler_ratio"].add_metric(scope, decision.ratio)
            for role in decision.roles:
                shown += 1
                if shown > ROLES_SHOWN_MAX:
                    continue
                labels = (*scope, role.name)
                sizes = (role.current, role.ready, role.pending, role.draining, role.wanted, role.replicas)
                for name, size in zip(_SIZES, sizes, strict=True):
                    families[f"grove_autoscaler_{name}_replicas"].add_metric(labels, size)
                ages = [judged.reading.age_s for judged in role.readings if judged.value is not None]
                if ages:
                    families["grove_autoscaler_signal_age_seconds"].add_metric(labels, max(ages))
                unknown = sum(1 for judged in role.readings if not judged.is_fresh)
                families["grove_autoscaler_signals_not_fresh"].add_metric(labels, unknown)
        yield from families.values()

    @staticmethod
    def _families() -> dict[str, GaugeMetricFamily]:
        told: dict[str, tuple[str, tuple[str, ...]]] = {
            f"grove_autoscaler_{name}_replicas": (f"Replicas of a role: {name}.", _LABELS) for name in _SIZES
        }
        told["grove_autoscaler_signal_age_seconds"] = ("Age of a role's oldest signal.", _LABELS)
        told["grove_autoscaler_signals_not_fresh"] = ("Signals of a role that are not fresh.", _LABELS)
        told["grove_autoscaler_gpus_held"] = ("GPUs that the roles of a copy hold.", _LABELS[:3])
        told["grove_autoscaler_ratio"] = ("Prefill by decode replicas as the mix of work has it.", _LABELS[:3])
        return {name: GaugeMetricFamily(name, text, labels=labels) for name, (text, labels) in told.items()}
