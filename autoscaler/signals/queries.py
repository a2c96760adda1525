"""PromQL for the measures of a dialect: one query each, over all pods of the namespaces asked for. Pure.

Each names its namespaces: a query without them would add up other tenants' pods. Each answers one series per pod (and
bucket), with two labels, and the pod's first source in order of preference. A mean without requests has no series,
rather than NaN; nothing is ever ``or vector(0)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from autoscaler.engines.dialect import Dialect, Form, Match, Measure, Source, series_names


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What a query stands on: the labels that name the pod, the namespaces, the window of rates, what exists.

    ``present`` are the names that the source of the series has; sources without any are left out.
    """

    labels: tuple[str, str]
    namespaces: Sequence[str]
    present: AbstractSet[str]
    window_s: float


def measure_query(measure: Measure, ground: Ground, *, edges: Sequence[str] = ()) -> str:
    """Return the query for a measure, "" if nothing says it. *edges* are texts of ``le``; none means all buckets."""
    parts = [
        f"({_expression(measure, source, ground, edges)}){'' if source.scale == 1 else f' * {source.scale:g}'}"
        for source in measure.sources
        if any(name in ground.present for name in series_names(measure.form, source))
    ]
    return " or ".join(parts)


def heartbeat_query(dialect: Dialect, ground: Ground) -> str:
    """Return the query for when each pod was last heard, "" if nothing says it."""
    by = ",".join(ground.labels)
    names = [name for name in dialect.heartbeat if name in ground.present]
    # After a rename of those any other will do, but one with few series.
    names = names or sorted(name for name in ground.present if not name.endswith("_bucket"))[:1]
    return " or ".join(f"(max by ({by}) (timestamp({_selector((name,), (), ground)})))" for name in names)


def edges_query(measure: Measure, ground: Ground) -> str:
    """Return the query for the edges of a histogram, "" if nothing says it."""
    return " or ".join(
        f"(group by (le) ({_selector(series_names(measure.form, source), source.where, ground)}))"
        for source in measure.sources
        if any(name in ground.present for name in series_names(measure.form, source))
    )


def names_selector(dialect: Dialect, labels: tuple[str, str], namespaces: Sequence[str]) -> str:
    """Return the selector of all series of a dialect that name a pod in these labels."""
    ground = Ground(labels=labels, namespaces=namespaces, present=frozenset(), window_s=0)
    return _selector(dialect.metric_names(), (), ground)


def sources_present(measure: Measure, present: AbstractSet[str]) -> tuple[str, ...]:
    """Return the names of the sources that exist, for people, by preference."""
    return tuple(
        source.name for source in measure.sources if any(name in present for name in series_names(measure.form, source))
    )


def _expression(measure: Measure, source: Source, ground: Ground, edges: Sequence[str]) -> str:
    by = f"by ({','.join(ground.labels)})"
    window = f"[{ground.window_s:g}s]"
    names = series_names(measure.form, source)
    where = source.where
    match measure.form:
        case Form.GAUGE:
            return f"{measure.within} {by} ({_selector(names, where, ground)})"
        case Form.SLOPE:
            return f"sum {by} (deriv({_selector(names[:1], where, ground)}{window}))"
        case Form.RATE:
            return f"sum {by} (rate({_selector(names[:1], where, ground)}{window}))"
        case Form.MEAN:
            total, count = (f"sum {by} (rate({_selector((name,), where, ground)}{window}))" for name in names)
            return f"{total} / ({count} > 0)"
        case Form.BUCKETS:
            if edges:
                where = (*where, Match(label="le", operator="=~", value="|".join(map(_escaped, edges))))
            by = f"by ({','.join((*ground.labels, 'le'))})"
            return f"sum {by} (rate({_selector(names, where, ground)}{window}))"


def _selector(names: Sequence[str], where: Sequence[Match], ground: Ground) -> str:
    namespace_label, pod_label = ground.labels
    conditions = [f'{match.label}{match.operator}"{_quoted(match.value)}"' for match in where]
    if len(ground.namespaces) == 1:
        conditions.append(f'{namespace_label}="{_quoted(ground.namespaces[0])}"')
    else:
        pattern = "|".join(map(_escaped, ground.namespaces))
        conditions.append(f'{namespace_label}=~"{_quoted(pattern)}"')
    conditions.append(f'{pod_label}!=""')
    if len(names) == 1:
        return f"{names[0]}{{{','.join(conditions)}}}"
    return f'{{__name__=~"{"|".join(names)}",{",".join(conditions)}}}'


def _escaped(text: str) -> str:
    """Return a pattern that matches the text alone; namespaces and edges have no other special letters than these."""
    return text.replace("\\", r"\\").replace(".", r"\.").replace("+", r"\+")


def _quoted(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
