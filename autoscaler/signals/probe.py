"""What a Prometheus has of a dialect: which names, under which labels pods are named, which edges histograms have.

Found out at the start and again every few minutes, because engines come after the autoscaler and names change when they
are updated; shown in status, so that a rename is seen and not guessed. A probe asks for names only, never for values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from autoscaler.engines.dialect import Dialect, Form
from autoscaler.signals.edges import edge_of
from autoscaler.signals.prometheus import Prometheus
from autoscaler.signals.queries import Ground, edges_query, names_selector, sources_present

# How far back a name counts as there: Prometheus's own look-back for values.
LOOK_BACK_S: Final = 300.0
EDGES_MAX: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What was found at ``at``. ``labels`` is None if no series of the dialect names a pod.

    ``edges`` are a histogram's by measure: the texts that ``le`` has, by their values, ascending.
    """

    at: float
    dialect: Dialect
    labels: tuple[str, str] | None = None
    present: frozenset[str] = frozenset()
    edges: Mapping[str, Mapping[float, str]] = field(default_factory=dict)

    @property
    def is_found(self) -> bool:
        """Whether anything of the dialect is there."""
        return self.labels is not None

    def sources(self, measure: str) -> tuple[str, ...]:
        """Return the metrics that a measure comes from, by preference."""
        return sources_present(self.dialect.measures[measure], self.present)

    def ground(self, namespaces: Sequence[str], window_s: float) -> Ground:
        """Return what queries stand on."""
        assert self.labels is not None, "asked only of what was found"
        return Ground(labels=self.labels, namespaces=namespaces, present=self.present, window_s=window_s)


async def probe(
    prometheus: Prometheus, dialect: Dialect, namespaces: Sequence[str], *, at: float, timeout_s: float
) -> Probe:
    """Return what *prometheus* has of a dialect in some namespaces. Raises SourceError."""
    for labels in dialect.pod_labels:
        match = names_selector(dialect, labels, namespaces)
        found = await prometheus.names([match], start=at - LOOK_BACK_S, end=at, timeout_s=timeout_s)
        present = found & frozenset(dialect.metric_names())
        if not present:
            continue
        ground = Ground(labels=labels, namespaces=namespaces, present=present, window_s=0)
        edges = {
            name: await _edges(prometheus, query, at=at, timeout_s=timeout_s)
            for name, measure in dialect.measures.items()
            if measure.form is Form.BUCKETS and (query := edges_query(measure, ground))
        }
        return Probe(at=at, dialect=dialect, labels=labels, present=present, edges=edges)
    return Probe(at=at, dialect=dialect)


async def _edges(prometheus: Prometheus, query: str, *, at: float, timeout_s: float) -> Mapping[float, str]:
    vector = await prometheus.instant(query, at=at, timeout_s=timeout_s)
    found: dict[float, str] = {}
    for labels, _ in vector.series[:EDGES_MAX]:
        text = labels.get("le", "")
        value = edge_of(text)
        if value is not None:
            found.setdefault(value, text)
    return dict(sorted(found.items()))
