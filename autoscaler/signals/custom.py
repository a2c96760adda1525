"""Signals that a policy asks for in its own words: one query each, joined with what the policy speaks of.

Rules: the answer must be what ``per`` says. Of "pod" each series names a pod, and pods that the policy does not have
fall away; of "clique" each names one of the policy's roles; of "set" there is one series. Anything else is ambiguous
and gives no value: adding up what nobody understands would count other tenants' load. Numbers that the unit cannot have
are a fault. An empty answer is unknown, or zero where the policy says so. How old samples are is known where the query
is a plain selector; an expression is computed at the time asked for and counts as new.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from autoscaler.engines.dialect import EXPORTED_POD_LABELS
from autoscaler.observation import MISSING_PODS_SHOWN_MAX, Fault, Reading
from autoscaler.signals.census import PodSeen, ScopeSeen
from autoscaler.signals.prometheus import Series, Vector
from grove_server.resources.scaling_policy import EMPTY_ZERO, SignalSpec

PER_POD: Final = "pod"
PER_CLIQUE: Final = "clique"
# Labels under which a series may name a role, ours first, then kube-state-metrics' and Prometheus's of pod labels.
_ROLE_LABELS: Final = ("role", "clique", "podclique", "label_grove_io_podclique", "grove_io_podclique")
_COPY_LABELS: Final = ("copy", "label_grove_io_podcliqueset_replica_index", "grove_io_podcliqueset_replica_index")
# A plain selector, perhaps with an offset: what timestamp() tells the truth of.
_SELECTOR: Final = re.compile(r"^\s*[a-zA-Z_:][a-zA-Z0-9_:]*\s*(\{[^{}]*\})?\s*$")
_HIGHEST: Final[Mapping[str, float]] = {"ratio": 1.001, "percent": 100.1}


def age_query(spec: SignalSpec) -> str:
    """Return the query for when the samples behind a signal were taken, "" if that cannot be asked."""
    return f"timestamp({spec.query.strip()})" if _SELECTOR.match(spec.query) else ""


def read_signal(
    spec: SignalSpec, scope: ScopeSeen, copies: int, answer: Vector, stamps: Vector | None, at: float
) -> Mapping[str, Reading]:
    """Return the readings of a signal by role, under "" for the scope itself.

    *copies* is how many copies of the set the policy has now: one series of "set" speaks of one copy only.
    """
    if spec.per == PER_POD:
        return _per_pod(spec, scope, answer, stamps, at)
    age_s = _age_s(stamps, at)
    if spec.per == PER_CLIQUE:
        return {
            role: _single(spec, _of_copy(_of_role(answer.series, scope, role), scope), answer, age_s)
            for role in _roles(spec, scope)
        }
    series = _of_copy(answer.series, scope)
    reading = _single(spec, series, answer, age_s)
    if copies > 1 and series and not _label(series[0][0], _COPY_LABELS):
        message = f"one series for {copies} copies; give it a label copy"
        reading = _unknown(spec, Fault.AMBIGUOUS, message)
    return {spec.role or "": reading}


def failed(spec: SignalSpec, scope: ScopeSeen, message: str) -> Mapping[str, Reading]:
    """Return the readings of a signal whose query failed."""
    roles = _roles(spec, scope) if spec.per in (PER_POD, PER_CLIQUE) else (spec.role or "",)
    return {role: _unknown(spec, Fault.ERROR, message) for role in roles}


def _roles(spec: SignalSpec, scope: ScopeSeen) -> tuple[str, ...]:
    return (spec.role,) if spec.role else tuple(scope.roles)


def _per_pod(
    spec: SignalSpec, scope: ScopeSeen, answer: Vector, stamps: Vector | None, at: float
) -> Mapping[str, Reading]:
    found: dict[str, list[float]] = {}
    for labels, value in answer.series:
        found.setdefault(_pod(labels, scope.namespace), []).append(value)
    ages = {} if stamps is None else {_pod(labels, scope.namespace): at - stamp for labels, stamp in stamps.series}
    return {
        role: _of_pods(spec, [pod for pod in scope.pods if pod.role == role], found, ages)
        for role in _roles(spec, scope)
    }


def _of_pods(
    spec: SignalSpec, pods: Sequence[PodSeen], found: Mapping[str, list[float]], ages: Mapping[str, float]
) -> Reading:
    expected = sorted(pod.name for pod in pods if pod.counts)
    there = [name for name in expected if name in found]
    missing = tuple(name for name in expected if name not in found)[:MISSING_PODS_SHOWN_MAX]
    if any(len(found[name]) > 1 for name in there):
        return _unknown(spec, Fault.AMBIGUOUS, "several series for one pod; add them up by namespace and pod")
    values = [found[name][0] for name in there]
    if not values and spec.empty == EMPTY_ZERO and not found and expected:
        return _known(spec, 0.0, 0.0, reporting=len(expected), expected=len(expected))
    if any(not _is_possible(spec, value) for value in values):
        return _unknown(spec, Fault.OUT_OF_RANGE, f"values that {spec.unit} cannot have")
    value = _aggregate(spec.agg, values) if values else None
    age_s = max((ages.get(name, 0.0) for name in there), default=0.0)
    return _known(spec, value, max(0.0, age_s), reporting=len(there), expected=len(expected), missing=missing)


def _single(spec: SignalSpec, series: Sequence[Series], answer: Vector, age_s: float) -> Reading:
    if len(series) > 1:
        return _unknown(spec, Fault.AMBIGUOUS, f"{len(series)} series where one is expected; aggregate them")
    if not series:
        if answer.not_finite:
            return _unknown(spec, Fault.NOT_FINITE, "the query answers NaN or infinity")
        return _known(spec, 0.0 if spec.empty == EMPTY_ZERO else None, 0.0)
    value = series[0][1]
    if not _is_possible(spec, value):
        return _unknown(spec, Fault.OUT_OF_RANGE, f"{value:g} is no {spec.unit}")
    return _known(spec, value, age_s)


def _known(
    spec: SignalSpec,
    value: float | None,
    age_s: float,
    *,
    reporting: int = 1,
    expected: int = 1,
    missing: tuple[str, ...] = (),
) -> Reading:
    return Reading(
        value=value,
        age_s=age_s,
        reporting=reporting,
        expected=expected,
        is_sum=spec.per == PER_POD and spec.agg == "sum",
        unit=spec.unit,
        source=spec.query,
        missing=missing,
    )


def _unknown(spec: SignalSpec, fault: Fault, message: str) -> Reading:
    return Reading(value=None, unit=spec.unit, fault=fault, message=message, source=spec.query, reporting=0)


def _is_possible(spec: SignalSpec, value: float) -> bool:
    return math.isfinite(value) and 0 <= value <= _HIGHEST.get(spec.unit, math.inf)


def _aggregate(how: str, values: Sequence[float]) -> float:
    match how:
        case "mean":
            return math.fsum(values) / len(values)
        case "max":
            return max(values)
        case "p90":
            return float(np.quantile(values, 0.9))
        case _:
            return math.fsum(values)


def _age_s(stamps: Vector | None, at: float) -> float:
    if stamps is None or not stamps.series:
        return 0.0
    return max(0.0, at - min(stamp for _, stamp in stamps.series))


def _pod(labels: Mapping[str, str], namespace: str) -> str:
    """Return the name of the pod that a series is of, "" if it is of another namespace or names none."""
    for namespace_label, pod_label in (*EXPORTED_POD_LABELS, ("namespace", "endpoint_name")):
        name = labels.get(pod_label, "")
        if name:
            # A query that pins its namespace may have aggregated the label away.
            return name if labels.get(namespace_label, namespace) == namespace else ""
    return ""


def _of_role(series: Sequence[Series], scope: ScopeSeen, role: str) -> list[Series]:
    """Return the series that name a role; one series without any name is the only role's."""
    if len(scope.roles) == 1 and len(series) == 1 and not _label(series[0][0], _ROLE_LABELS):
        return [*series]
    return [each for each in series if _label(each[0], _ROLE_LABELS) == role]


def _of_copy(series: Sequence[Series], scope: ScopeSeen) -> list[Series]:
    """Return the series of the scope's copy; those that name no copy are everybody's."""
    return [each for each in series if _label(each[0], _COPY_LABELS) in ("", str(scope.copy))]


def _label(labels: Mapping[str, str], names: Sequence[str]) -> str:
    return next((labels[name] for name in names if labels.get(name)), "")
