"""Rules for a set as a whole, its cliques and its groups; the rules of each subject stand in a module of their own."""

from __future__ import annotations

from typing import Final

from grove_server.admission.context import AdmissionContext, Limits
from grove_server.admission.findings import Findings
from grove_server.admission.naming import INDEX_MARK, check_collisions, check_lengths
from grove_server.admission.startup import check_start_order
from grove_server.admission.validation_affinity import check_near
from grove_server.admission.validation_gpus import check_gpu_share, warn_of_gpu_share
from grove_server.admission.validation_metadata import check_annotations, check_clique_labels
from grove_server.admission.validation_pod_spec import check_pod_spec
from grove_server.admission.validation_sharing import check_claims_and_sharing
from grove_server.admission.validation_sizes import check_count, check_pod_count, check_scaling, check_sizes
from grove_server.admission.validation_updates import check_updates
from grove_server.resources.duration import DurationError, parse_duration_ns
from grove_server.resources.manifest import (
    STARTUP_TYPES,
    TERMINATION_NEVER,
    CliqueTemplate,
    PodCliqueSetSpec,
    PodCliqueSetTemplate,
    ScalingGroupTemplate,
)
from grove_server.resources.names import SUBDOMAIN_LENGTH_MAX, dns_label_problem, dns_subdomain_problem
from grove_server.resources.violations import Reason, quoted

_CLIQUES: Final = "spec.template.cliques"
_GROUPS: Final = "spec.template.podCliqueScalingGroups"
# Pods that restart or move are away for about as long; a delay below that recycles what would have come back.
_TERMINATION_DELAY_NS_USUAL_MIN: Final = 1_000_000_000


def check_set(
    name: str, spec: PodCliqueSetSpec, old: PodCliqueSetSpec | None, context: AdmissionContext, findings: Findings
) -> None:
    """Check a defaulted spec against every rule that holds at creation and at update alike."""
    limits, template = context.limits, spec.template
    if not _check_list_sizes(template, limits, findings):
        return
    name_problem = dns_label_problem(name)
    if name_problem is not None:
        findings.invalid("metadata.name", name_problem)
    _check_scalars(spec, findings)
    old_pod_specs = {} if old is None else {clique.name: clique.spec.pod_spec for clique in old.template.cliques}
    names: set[str] = set()
    roles: set[str] = set()
    for index, clique in enumerate(template.cliques):
        path = f"{_CLIQUES}[{index}]"
        _check_name(clique.name, f"{path}.name", names, findings)
        _check_role(clique.spec.role_name or "", f"{path}.spec.roleName", roles, findings)
        _check_clique(clique, path, limits, findings)
        pod_spec = clique.spec.pod_spec
        check_pod_spec(pod_spec, old_pod_specs.get(clique.name), f"{path}.spec.podSpec", limits, findings)
    _check_groups(template, limits, findings)
    check_updates(spec, findings)
    _check_pod_specs_together(template, context, findings)
    check_near(template, _CLIQUES, findings)
    check_start_order(template, findings)
    check_claims_and_sharing(template, limits, findings)
    check_pod_count(spec, limits, "spec.replicas", findings)
    if name_problem is None:
        check_lengths(name, spec, findings)
    if name_problem is None or (0 < len(name) <= SUBDOMAIN_LENGTH_MAX and INDEX_MARK not in name):
        # Which parts get the same names does not depend on what is wrong with the set's.
        check_collisions(name, spec, context, findings)


def _check_list_sizes(template: PodCliqueSetTemplate, limits: Limits, findings: Findings) -> bool:
    """Check how many cliques and groups there are, before anything is done for each of them."""
    cliques, groups = len(template.cliques), len(template.pod_clique_scaling_groups)
    if cliques == 0:
        findings.required(_CLIQUES, "must have at least one clique")
    if cliques > limits.cliques_max:
        findings.too_many(_CLIQUES, cliques, limits.cliques_max, "cliques")
    if groups > limits.groups_max:
        findings.too_many(_GROUPS, groups, limits.groups_max, "groups")
    return cliques <= limits.cliques_max and groups <= limits.groups_max


def _check_scalars(spec: PodCliqueSetSpec, findings: Findings) -> None:
    template = spec.template
    assert spec.replicas is not None  # Defaulting filled it in.
    check_count(spec.replicas, "spec.replicas", findings)
    if template.clique_startup_type not in STARTUP_TYPES:
        findings.not_supported("spec.template.cliqueStartupType", template.clique_startup_type, STARTUP_TYPES)
    if template.priority_class_name:
        problem = dns_subdomain_problem(template.priority_class_name)
        if problem is not None:
            findings.invalid("spec.template.priorityClassName", problem)
    assert template.termination_delay is not None  # Defaulting filled it in.
    _check_delay(template.termination_delay, "spec.template.terminationDelay", findings)


def _check_delay(delay: str, path: str, findings: Findings) -> None:
    if delay == TERMINATION_NEVER:
        return
    try:
        delay_ns = parse_duration_ns(delay)
        if delay_ns <= 0:
            findings.invalid(path, f"must be more than 0, got {quoted(delay)}")
        elif delay_ns < _TERMINATION_DELAY_NS_USUAL_MIN:
            findings.warn(f"{path} is {delay}: what is below its minimum for less than a second is recycled already")
    except DurationError as error:
        findings.invalid(path, f"{error}, or {TERMINATION_NEVER!r}; got {quoted(delay)}")


def _check_name(name: str, path: str, seen: set[str], findings: Findings) -> None:
    """Check one of several names; without dots, because hostnames are made of it."""
    problem = dns_label_problem(name)
    if problem is not None:
        findings.invalid(path, problem)
    elif name in seen:
        findings.duplicate(path, name)
    seen.add(name)


def _check_role(role: str, path: str, seen: set[str], findings: Findings) -> None:
    if role in seen:
        findings.duplicate(path, role)
    seen.add(role)


def _check_clique(clique: CliqueTemplate, path: str, limits: Limits, findings: Findings) -> None:
    if clique.labels:
        check_clique_labels(clique.labels, f"{path}.labels", limits.labels_max, findings)
    if clique.annotations:
        check_annotations(clique.annotations, f"{path}.annotations", limits.labels_max, findings)
    spec = clique.spec
    check_gpu_share(clique.annotations, spec.pod_spec, path, findings)
    check_sizes(spec.replicas, spec.min_available, f"{path}.spec", findings)
    if spec.auto_scaling_config is not None:
        sizes = (spec.replicas, spec.min_available)
        check_scaling(spec.auto_scaling_config, sizes, f"{path}.spec.autoScalingConfig", limits, findings)
    if len(spec.starts_after) > limits.cliques_max:
        findings.too_many(f"{path}.spec.startsAfter", len(spec.starts_after), limits.cliques_max)


def _check_groups(template: PodCliqueSetTemplate, limits: Limits, findings: Findings) -> None:
    cliques = {clique.name: index for index, clique in enumerate(template.cliques)}
    names: set[str] = set()
    group_of: dict[str, str] = {}
    for index, group in enumerate(template.pod_clique_scaling_groups):
        path = f"{_GROUPS}[{index}]"
        _check_name(group.name, f"{path}.name", names, findings)
        if group.annotations:
            check_annotations(group.annotations, f"{path}.annotations", limits.labels_max, findings)
            warn_of_gpu_share(group.annotations, f"{path}.annotations", findings)
        check_sizes(group.replicas, group.min_available, path, findings)
        if group.termination_delay is not None:
            _check_delay(group.termination_delay, f"{path}.terminationDelay", findings)
        if group.scale_config is not None:
            sizes = (group.replicas, group.min_available)
            check_scaling(group.scale_config, sizes, f"{path}.scaleConfig", limits, findings)
        _check_members(group, path, cliques, group_of, findings)
    for name, owner in group_of.items():
        position = cliques[name]
        if template.cliques[position].spec.auto_scaling_config is not None:
            path = f"{_CLIQUES}[{position}].spec.autoScalingConfig"
            findings.forbidden(path, f"may not be set on a clique of a group: scale group {owner!r} as a whole")


def _check_members(
    group: ScalingGroupTemplate, path: str, known: dict[str, int], group_of: dict[str, str], findings: Findings
) -> None:
    """Check a group's members, and note in *group_of* which group each clique is in."""
    if not group.clique_names:
        findings.required(f"{path}.cliqueNames", "must name at least one clique")
    if len(group.clique_names) > len(known) * 2:
        findings.too_many(f"{path}.cliqueNames", len(group.clique_names), len(known), "cliques")
        return
    own: set[str] = set()
    for index, name in enumerate(group.clique_names):
        at = f"{path}.cliqueNames[{index}]"
        if name not in known:
            findings.not_found(at, f"there is no clique {quoted(name)} in this set")
        elif name in own:
            findings.duplicate(at, name)
        elif name in group_of:
            findings.invalid(at, f"clique {name!r} is in group {group_of[name]!r} already, and can be in one only")
        else:
            group_of[name] = group.name
        own.add(name)


def _check_pod_specs_together(template: PodCliqueSetTemplate, context: AdmissionContext, findings: Findings) -> None:
    """Check what must be the same in all cliques: the scheduler and the priority class."""
    wanted: str | None = None
    for index, clique in enumerate(template.cliques):
        path = f"{_CLIQUES}[{index}].spec.podSpec"
        scheduler = clique.spec.pod_spec.get("schedulerName") or context.scheduler_name
        if not isinstance(scheduler, str):
            # The pod spec's own check reports it.
            continue
        if wanted is None:
            wanted = scheduler
        elif scheduler != wanted:
            message = f"must be the same for all cliques of a set: {quoted(wanted)}, got {quoted(scheduler)}"
            findings.invalid(f"{path}.schedulerName", message)
        priority_class = clique.spec.pod_spec.get("priorityClassName")
        if priority_class and priority_class != template.priority_class_name:
            message = "must be left out, or equal spec.template.priorityClassName, which all pods of a set share"
            findings.add(f"{path}.priorityClassName", Reason.FORBIDDEN, message)
    if wanted is not None and wanted != context.scheduler_name:
        findings.warn(f"schedulerName {quoted(wanted)} is kept as it is, but this server places the pods itself")
