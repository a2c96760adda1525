"""Defaults: the values a manifest may leave out.

Two rules stand behind all of them. What the user wrote is kept. And on a second apply, leaving out a size or an
immutable field means "as it is", not "as if it were new": otherwise applying a shorter manifest would scale, or be
refused for a change that nobody made.

Deliberately not here: sizes of children that were scaled. The template's sizes are only what was applied; the lifecycle
follows a change of them and otherwise leaves the live size alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from grove_server.admission.context import INT32_MAX
from grove_server.admission.findings import Findings
from grove_server.resources.duration import DurationError, canonical_duration
from grove_server.resources.manifest import (
    STARTUP_ANY_ORDER,
    TERMINATION_NEVER,
    AutoScalingConfig,
    CliqueTemplate,
    HeadlessServiceConfig,
    PodCliqueSetSpec,
    PodCliqueSetTemplate,
    ScalingGroupTemplate,
    UpdateStrategy,
)
from grove_server.resources.replacing import replace

RESTART_POLICY: Final = "Always"
GRACE_PERIOD_S: Final = 30
TERMINATION_DELAY: Final = "4h0m0s"
UPDATE_STRATEGY: Final = UpdateStrategy(type="RollingRecreate")
_HEADLESS_SERVICE: Final = HeadlessServiceConfig()


def default_spec(
    spec: PodCliqueSetSpec, replicas: int, old: PodCliqueSetSpec | None, findings: Findings
) -> PodCliqueSetSpec:
    """Return *spec* with every default filled in; *replicas* is the set's size, already decided."""
    strategy = spec.update_strategy
    if strategy is None or strategy.type is None:
        strategy = UPDATE_STRATEGY if strategy is None else replace(strategy, type=UPDATE_STRATEGY.type)
    template = _default_template(spec.template, None if old is None else old.template, findings)
    return PodCliqueSetSpec(replicas=replicas, update_strategy=strategy, template=template)


def _default_template(
    template: PodCliqueSetTemplate, old: PodCliqueSetTemplate | None, findings: Findings
) -> PodCliqueSetTemplate:
    old_cliques = {} if old is None else {clique.name: clique for clique in old.cliques}
    old_groups = {} if old is None else {group.name: group for group in old.pod_clique_scaling_groups}
    startup_type = template.clique_startup_type
    if startup_type is None:
        startup_type = STARTUP_ANY_ORDER if old is None else old.clique_startup_type
    return replace(
        template,
        cliques=tuple(_default_clique(clique, old_cliques.get(clique.name), findings) for clique in template.cliques),
        clique_startup_type=startup_type,
        headless_service_config=template.headless_service_config or _HEADLESS_SERVICE,
        termination_delay=_default_delay(template.termination_delay),
        pod_clique_scaling_groups=tuple(
            _default_group(group, old_groups.get(group.name)) for group in template.pod_clique_scaling_groups
        ),
    )


def _default_delay(delay: str | None) -> str:
    if delay is None:
        return TERMINATION_DELAY
    if delay == TERMINATION_NEVER:
        return delay
    try:
        return canonical_duration(delay)
    except DurationError:
        # Validation reports it, with its path.
        return delay


def _default_clique(clique: CliqueTemplate, old: CliqueTemplate | None, findings: Findings) -> CliqueTemplate:
    spec = clique.spec
    replicas = spec.replicas
    if replicas is None:
        replicas = 1 if old is None else old.spec.replicas
        if old is None:
            findings.warn(f"clique {clique.name}: replicas is not set and defaults to 1")
    minimum = spec.min_available
    if minimum is None:
        minimum = old.spec.min_available if old is not None else _minimum_of(replicas)
    role = spec.role_name
    if role is None:
        role = clique.name if old is None else old.spec.role_name
    return replace(
        clique,
        spec=replace(
            spec,
            role_name=role,
            pod_spec=_default_pod_spec(spec.pod_spec),
            replicas=replicas,
            min_available=minimum,
            auto_scaling_config=_default_scaling(spec.auto_scaling_config, replicas, minimum),
        ),
    )


def _minimum_of(replicas: int | None) -> int:
    """Return the minimum of a new clique: all of it; 1 where it is empty, or its size is wrong by itself."""
    return replicas if replicas is not None and 0 < replicas <= INT32_MAX else 1


def _default_pod_spec(pod_spec: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the pod spec with Grove's two defaults; an explicit null counts as left out."""
    missing: dict[str, Any] = {}
    if pod_spec.get("restartPolicy") is None:
        missing["restartPolicy"] = RESTART_POLICY
    if pod_spec.get("terminationGracePeriodSeconds") is None:
        missing["terminationGracePeriodSeconds"] = GRACE_PERIOD_S
    return {**pod_spec, **missing} if missing else pod_spec


def _default_group(group: ScalingGroupTemplate, old: ScalingGroupTemplate | None) -> ScalingGroupTemplate:
    replicas = group.replicas
    if replicas is None:
        replicas = 1 if old is None else old.replicas
    minimum = group.min_available
    if minimum is None:
        minimum = 1 if old is None else old.min_available
    return replace(
        group,
        replicas=replicas,
        min_available=minimum,
        scale_config=_default_scaling(group.scale_config, replicas, minimum),
        # Left out it is the set's.
        termination_delay=None if group.termination_delay is None else _default_delay(group.termination_delay),
    )


def _default_scaling(
    config: AutoScalingConfig | None, replicas: int | None, minimum: int | None
) -> AutoScalingConfig | None:
    """Return the configuration with its lower bound: the size, or the minimum where the size is 0."""
    if config is None or config.min_replicas is not None:
        return config
    return replace(config, min_replicas=replicas or minimum)
