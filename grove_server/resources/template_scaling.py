"""What Grove's ``autoScalingConfig`` and ``scaleConfig`` ask for, as a ScalingPolicy that one autoscaler follows.

Grove makes a HorizontalPodAutoscaler of each: bounds and metrics copied, no ``behavior``. So the policy has HPA's own
rules for speed, and without metrics HPA's default, 80 % CPU. A role that a ScalingPolicy scales is left to it.

Metrics are read from Prometheus: resources as cAdvisor and kube-state-metrics name them, others by the name that the
manifest gives. An ``Object`` metric, and what only an adapter could resolve, is left out and said so; a role that has
nothing else is left out as a whole, since HPA would not move it either.

Sources: autoscaling/v2 (defaults and metric specs), Grove's operator (one HPA for each clique and group).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from grove_server.resources import scaling_policy as schema
from grove_server.resources.manifest import AutoScalingConfig, PodCliqueSetTemplate
from grove_server.resources.quantity import QuantityError, parse_quantity
from grove_server.resources.scaling_policy import (
    BehaviorSpec,
    RolePolicySpec,
    RoleSpec,
    ScalingPolicySpec,
    ScalingRateSpec,
    ScalingRulesSpec,
    SignalSpec,
)

CPU_DEFAULT_PERCENT: Final = 80
_METRIC_NAME: Final = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL_NAME: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_USAGE: Final[Mapping[str, str]] = {
    "cpu": "rate(container_cpu_usage_seconds_total{%s}[2m])",
    "memory": "container_memory_working_set_bytes{%s}",
}
# HPA's defaults: up by the larger of double and four pods in 15 s, down at once to the safest of five minutes.
_AS_HPA: Final = BehaviorSpec(
    scale_up=ScalingRulesSpec(
        stabilization_window_seconds=0,
        policies=(
            ScalingRateSpec(type=schema.RATE_PERCENT, value=100, period_seconds=15),
            ScalingRateSpec(type=schema.RATE_PODS, value=4, period_seconds=15),
        ),
        tolerance=0.1,
    ),
    scale_down=ScalingRulesSpec(
        stabilization_window_seconds=300,
        policies=(ScalingRateSpec(type=schema.RATE_PERCENT, value=100, period_seconds=15),),
        tolerance=0.1,
    ),
    burst_memory="0s",
    cooldown_after_up="0s",
)
_DEFAULT_METRIC: Final[Mapping[str, Any]] = {
    "type": "Resource",
    "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": CPU_DEFAULT_PERCENT}},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateScaling:
    """The policy that a template asks for, None if it asks for nothing, and what of it cannot be followed, in words."""

    spec: ScalingPolicySpec | None = None
    left_out: tuple[str, ...] = ()


class _UnreadableMetricError(ValueError):
    """A metric cannot be followed; the text says why."""


def template_scaling(
    namespace: str, set_name: str, template: PodCliqueSetTemplate, *, taken: Collection[str] = ()
) -> TemplateScaling:
    """Return the policy of a set's template; *taken* are the cliques and groups that ScalingPolicies scale."""
    roles: list[RoleSpec] = []
    signals: dict[str, SignalSpec] = {}
    left_out: list[str] = []
    for name, config, is_group in _configured(template):
        if name in taken or config.max_replicas is None:
            continue
        policies = []
        for index, metric in enumerate(config.metrics or (_DEFAULT_METRIC,)):
            signal_name = f"{re.sub(r'[^a-z0-9]', '_', name)}_{index}"
            try:
                policy, signal = _followed(metric, namespace, name, signal_name)
            except _UnreadableMetricError as error:
                left_out.append(f"{name}: metrics[{index}] {error}")
                continue
            policies.append(policy)
            signals[signal_name] = signal
        if policies:
            roles.append(_role(name, config, tuple(policies), is_group=is_group))
    if not roles:
        return TemplateScaling(left_out=tuple(left_out))
    spec = ScalingPolicySpec(
        pod_clique_set=set_name, mode=schema.MODE_APPLY, engine="custom", roles=tuple(roles), signals=signals
    )
    return TemplateScaling(spec=spec, left_out=tuple(left_out))


def _configured(template: PodCliqueSetTemplate) -> list[tuple[str, AutoScalingConfig, bool]]:
    """Return name, configuration and whether it is a group, of each that has a configuration."""
    cliques = [
        (each.name, each.spec.auto_scaling_config, False)
        for each in template.cliques
        if each.spec.auto_scaling_config is not None
    ]
    groups = [
        (each.name, each.scale_config, True)
        for each in template.pod_clique_scaling_groups
        if each.scale_config is not None
    ]
    return cliques + groups


def _role(name: str, config: AutoScalingConfig, policies: tuple[RolePolicySpec, ...], *, is_group: bool) -> RoleSpec:
    return RoleSpec(
        name=name,
        role=schema.AGGREGATED,
        pod_clique=None if is_group else name,
        pod_clique_scaling_group=name if is_group else None,
        min_replicas=1 if config.min_replicas is None else config.min_replicas,
        max_replicas=config.max_replicas or 1,
        policies=policies,
        behavior=_AS_HPA,
    )


def _followed(
    metric: Mapping[str, Any], namespace: str, role: str, signal_name: str
) -> tuple[RolePolicySpec, SignalSpec]:
    """Return the policy and the signal of one MetricSpec. Raises _UnreadableMetricError."""
    match metric.get("type"):
        case "Resource" | "ContainerResource":
            return _resource(metric, namespace, role, signal_name)
        case "Pods":
            part = _part(metric, "pods")
            query = f"sum by (pod) ({_selected(part, namespace)})"
            target = _amount(_part(part, "target"), "averageValue")
            signal = SignalSpec(query=query, unit="count", per="pod", role=role, agg="mean")
            return _target(signal_name, target, schema.TARGET_PODS), signal
        case "External":
            part = _part(metric, "external")
            asked = _part(part, "target")
            signal = SignalSpec(query=f"sum({_selected(part, namespace)})", unit="count", per="set", role=role)
            if "averageValue" in asked:
                return _target(signal_name, _amount(asked, "averageValue"), schema.TARGET_AVERAGE), signal
            return _target(signal_name, _amount(asked, "value"), schema.TARGET_VALUE), signal
        case kind:
            raise _UnreadableMetricError(f"of type {kind} cannot be followed")


def _resource(
    metric: Mapping[str, Any], namespace: str, role: str, signal_name: str
) -> tuple[RolePolicySpec, SignalSpec]:
    kind = str(metric["type"])
    part = _part(metric, kind[0].lower() + kind[1:])
    resource, target = str(part.get("name")), _part(part, "target")
    if resource not in _USAGE:
        raise _UnreadableMetricError(f"is of the resource {resource}, which no exporter tells")
    container = part.get("container")
    which = f'container="{_quoted(container)}"' if isinstance(container, str) else 'container!=""'
    where = f'namespace="{_quoted(namespace)}",{which}'
    usage = f"sum by (pod) ({_USAGE[resource] % where})"
    if "averageUtilization" in target:
        requested = f'kube_pod_container_resource_requests{{resource="{resource}",{where}}}'
        signal = SignalSpec(
            query=f"100 * {usage} / sum by (pod) ({requested})", unit="percent", per="pod", role=role, agg="mean"
        )
        return _target(signal_name, _amount(target, "averageUtilization"), schema.TARGET_PODS), signal
    signal = SignalSpec(query=usage, unit="count", per="pod", role=role, agg="mean")
    return _target(signal_name, _amount(target, "averageValue"), schema.TARGET_PODS), signal


def _target(signal_name: str, target: float, target_type: str) -> RolePolicySpec:
    return RolePolicySpec(kind=schema.TARGET, signal=signal_name, target=target, target_type=target_type)


def _part(metric: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = metric.get(name)
    if not isinstance(part, Mapping):
        raise _UnreadableMetricError(f"has no {name}")
    return part


def _amount(target: Mapping[str, Any], name: str) -> float:
    try:
        amount = float(parse_quantity(str(target.get(name))).fraction())
    except QuantityError as error:
        raise _UnreadableMetricError(f"has no target.{name} that is an amount") from error
    if amount <= 0:
        raise _UnreadableMetricError(f"has a target.{name} that is not above 0")
    return amount


def _selected(part: Mapping[str, Any], namespace: str) -> str:
    """Return the selector of a metric that the manifest names, with its labels."""
    metric = _part(part, "metric")
    name = metric.get("name")
    if not isinstance(name, str) or _METRIC_NAME.fullmatch(name) is None:
        raise _UnreadableMetricError("names no metric of Prometheus")
    labels = {"namespace": namespace}
    selector = metric.get("selector")
    if isinstance(selector, Mapping):
        if selector.get("matchExpressions"):
            raise _UnreadableMetricError("selects by matchExpressions, which only an adapter resolves")
        for key, value in sorted((selector.get("matchLabels") or {}).items()):
            if _LABEL_NAME.fullmatch(str(key)) is None:
                raise _UnreadableMetricError(f"selects by {key}, which is no label of Prometheus")
            labels[str(key)] = str(value)
    inside = ",".join(f'{key}="{_quoted(value)}"' for key, value in labels.items())
    return f"{name}{{{inside}}}"


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
