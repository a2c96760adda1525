"""Rules for a ScalingPolicy by itself: choices, ranges, and values that are in the wrong unit.

A share is written as 0.5, never as 50, and a percentage as 50, never as 0.5: a policy that means one and says the other
would scale by a factor of a hundred, so both are refused (AIBrix' documentation warns of it). Bounds of HPA's fields
are HPA's. Not here: the parts of a role (``validation_scaling_role``), and what the set says
(``validation_scaling_target``).
"""

from __future__ import annotations

import re
from typing import Final

from grove_server.admission.findings import Findings
from grove_server.admission.validation_scaling_role import check_between, check_choice, check_duration, check_role
from grove_server.admission.validation_scaling_times import check_schedules
from grove_server.resources import scaling_policy as schema
from grove_server.resources.duration import parse_duration_ns
from grove_server.resources.names import dns_label_problem, dns_subdomain_problem
from grove_server.resources.scaling_policy import ScalingPolicySpec, SignalSpec
from grove_server.resources.scaling_signals import ITL_EDGES_S, SIGNAL_UNITS, TTFT_EDGES_S, nearest_edges
from grove_server.resources.violations import Reason, quoted

QUERY_LENGTH_MAX: Final = 4_096
SLO_MAX_S: Final = 3_600.0
DAY_S: Final = 86_400.0
PAUSES: Final = (schema.PAUSED_IN, schema.PAUSED_OUT)
_SIGNAL_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_NAMESPACE_PINNED: Final = re.compile(r"namespace\s*=~?\s*[\"'`](?!\.[*+]|[\"'`])")
_UNKNOWN_AS_ZERO: Final = re.compile(r"\bor\s+(?:on\s*\(\s*\)\s*)?vector\s*\(\s*0", re.IGNORECASE)
_GPUS_MAX: Final = 1_000_000
_PRIORITY_MAX: Final = 1_000_000


def check_policy(spec: ScalingPolicySpec, findings: Findings) -> None:
    """Check all fields of a policy."""
    problem = dns_subdomain_problem(spec.pod_clique_set)
    if problem is not None:
        findings.invalid("spec.podCliqueSet", problem)
    check_choice(spec.mode, schema.MODES, "spec.mode", findings)
    check_choice(spec.engine, schema.ENGINES, "spec.engine", findings)
    if isinstance(spec.paused, str):
        check_choice(spec.paused, PAUSES, "spec.paused", findings)
    _check_slo(spec, findings)
    _check_signals(spec, findings)
    _check_roles(spec, findings)
    _check_ratio(spec, findings)
    _check_budget(spec, findings)
    check_schedules(spec, findings)
    _check_rest(spec, findings)


def _check_slo(spec: ScalingPolicySpec, findings: Findings) -> None:
    slo = spec.slo
    if slo is None:
        return
    for name, text, edges in (("ttft", slo.ttft, TTFT_EDGES_S), ("itl", slo.itl, ITL_EDGES_S)):
        path = f"spec.slo.{name}"
        if text is not None and check_duration(text, path, findings, least_s=0.000_001, most_s=SLO_MAX_S):
            _warn_off_edge(text, path, edges.get(spec.engine, ()), findings)
    check_between(slo.percentile, "spec.slo.percentile", findings, above=0.0, below=1.0)
    check_between(slo.attainment, "spec.slo.attainment", findings, above=0.0, below=1.0)
    check_duration(slo.ttft_per_1k_tokens, "spec.slo.ttftPer1kTokens", findings, most_s=SLO_MAX_S)
    if slo.ttft is None and slo.itl is None:
        findings.warn("spec.slo has neither ttft nor itl: nothing is measured against it")


def _warn_off_edge(text: str, path: str, edges: tuple[float, ...], findings: Findings) -> None:
    """Warn of a time that no histogram of the engine can show."""
    around = nearest_edges(edges, parse_duration_ns(text) / 10**9)
    if around:
        told = " and ".join(f"{edge:g}s" for edge in around)
        findings.warn(
            f"{path}: {text} is no edge of the engine's histogram (next are {told}): attainment is estimated in between"
        )


def _check_signals(spec: ScalingPolicySpec, findings: Findings) -> None:
    if len(spec.signals) > schema.SIGNALS_MAX:
        findings.too_many("spec.signals", len(spec.signals), schema.SIGNALS_MAX)
        return
    if spec.engine == "custom" and not spec.signals:
        findings.required("spec.signals", "is required for the engine custom, which has no signals of its own")
    roles = {role.name for role in spec.roles}
    for name, signal in sorted(spec.signals.items()):
        path = f"spec.signals[{name}]"
        if _SIGNAL_NAME.fullmatch(name) is None:
            findings.invalid(path, "must be named by a letter or _, then letters, digits and _, at most 63")
        _check_signal(name, signal, path, findings)
        if signal.role is not None and signal.role not in roles:
            findings.not_found(f"{path}.role", f"there is no role {quoted(signal.role)} in spec.roles")


def _check_signal(name: str, signal: SignalSpec, path: str, findings: Findings) -> None:
    query = signal.query
    if not query.strip():
        findings.required(f"{path}.query")
    elif len(query) > QUERY_LENGTH_MAX:
        message = f"must have at most {QUERY_LENGTH_MAX} characters, has {len(query)}"
        findings.add(f"{path}.query", Reason.TOO_LONG, message)
    elif _NAMESPACE_PINNED.search(query) is None:
        findings.invalid(
            f"{path}.query", 'must name its namespace (namespace="..."), or it would add up what others run'
        )
    if _UNKNOWN_AS_ZERO.search(query):
        findings.warn(f'{path}.query: "or vector(0)" makes an outage look like idleness: leave it out, use empty')
    check_choice(signal.unit, schema.UNITS, f"{path}.unit", findings)
    known = SIGNAL_UNITS.get(name)
    if known is not None and signal.unit in schema.UNITS and not _same_unit(signal.unit, known):
        findings.invalid(f"{path}.unit", f"must be {known}, as the signal {name} is, got {signal.unit}")
    check_choice(signal.per, schema.PERS, f"{path}.per", findings)
    check_choice(signal.agg, schema.AGGREGATIONS, f"{path}.agg", findings)
    check_choice(signal.empty, (schema.EMPTY_UNKNOWN, schema.EMPTY_ZERO), f"{path}.empty", findings)
    check_duration(signal.max_age, f"{path}.maxAge", findings, least_s=1.0, most_s=3_600.0)
    check_between(signal.min_coverage, f"{path}.minCoverage", findings, above=0.0, most=1.0)


def _same_unit(unit: str, known: str) -> bool:
    """Return whether the autoscaler can turn one into the other by itself."""
    return unit == known or {unit, known} == {"ratio", "percent"}


def _check_roles(spec: ScalingPolicySpec, findings: Findings) -> None:
    if not spec.roles:
        findings.required("spec.roles", "at least one role is required")
    if len(spec.roles) > schema.ROLES_MAX:
        findings.too_many("spec.roles", len(spec.roles), schema.ROLES_MAX)
        return
    names: set[str] = set()
    targets: set[tuple[str | None, str | None]] = set()
    for index, role in enumerate(spec.roles):
        path = f"spec.roles[{index}]"
        problem = dns_label_problem(role.name)
        if problem is not None:
            findings.invalid(f"{path}.name", problem)
        elif role.name in names:
            findings.duplicate(f"{path}.name", role.name)
        names.add(role.name)
        target = (role.pod_clique, role.pod_clique_scaling_group)
        if (role.pod_clique is None) == (role.pod_clique_scaling_group is None):
            findings.invalid(path, "must have one of podClique and podCliqueScalingGroup")
        elif target in targets:
            where = "podClique" if role.pod_clique is not None else "podCliqueScalingGroup"
            findings.duplicate(f"{path}.{where}", role.pod_clique or role.pod_clique_scaling_group)
        targets.add(target)
        check_role(role, path, spec, findings)


def _check_ratio(spec: ScalingPolicySpec, findings: Findings) -> None:
    if spec.ratio is None:
        return
    check_between(spec.ratio.band, "spec.ratio.band", findings, above=0.0, most=10.0)
    if spec.ratio.fixed is not None:
        check_between(spec.ratio.fixed, "spec.ratio.fixed", findings, above=0.0, most=1_000.0)
    if not {schema.PREFILL, schema.DECODE} <= {role.role for role in spec.roles}:
        findings.warn("spec.ratio has no effect without a role of each of prefill and decode")


def _check_budget(spec: ScalingPolicySpec, findings: Findings) -> None:
    budget = spec.budget
    if budget is None:
        return
    check_between(budget.gpus, "spec.budget.gpus", findings, least=1, most=_GPUS_MAX)
    check_between(budget.priority, "spec.budget.priority", findings, least=-_PRIORITY_MAX, most=_PRIORITY_MAX)
    problem = dns_label_problem(budget.name) if budget.name else None
    if problem is not None:
        findings.invalid("spec.budget.name", problem)


def _check_rest(spec: ScalingPolicySpec, findings: Findings) -> None:
    forecast, outage = spec.forecast, spec.outage
    check_choice(forecast.kind, schema.FORECASTS, "spec.forecast.kind", findings)
    check_between(forecast.quantile, "spec.forecast.quantile", findings, least=0.5, below=1.0)
    check_duration(forecast.period, "spec.forecast.period", findings, least_s=3_600.0, most_s=14 * DAY_S)
    check_choice(outage.action, schema.OUTAGES, "spec.outage.action", findings)
    check_duration(outage.grace, "spec.outage.grace", findings, most_s=3_600.0)
    if outage.replicas is not None:
        check_between(outage.replicas, "spec.outage.replicas", findings, least=0, most=schema.REPLICAS_MAX)
    elif outage.action == schema.OUTAGE_AT_LEAST:
        findings.required("spec.outage.replicas", f"is required for the action {schema.OUTAGE_AT_LEAST}")
    if outage.action == schema.OUTAGE_SCHEDULE and all(each.min_replicas is None for each in spec.schedules):
        findings.invalid("spec.outage.action", "needs a schedule with minReplicas")
    if spec.scale_to_zero is not None:
        check_duration(spec.scale_to_zero.after, "spec.scaleToZero.after", findings, least_s=60.0, most_s=7 * DAY_S)
