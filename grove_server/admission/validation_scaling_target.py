"""Rules for a ScalingPolicy against its set, its budget, and the other policies of its namespace.

A role is a standalone clique or a scaling group: members of a group are scaled with it, as in Grove. A role never goes
below ``minAvailable``, since its gang would break, and one target belongs to one policy. A template that is not there
binds nobody; the answer then warns.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from grove_server.admission.context import AdmissionContext
from grove_server.admission.findings import Findings
from grove_server.resources.manifest import CliqueTemplate, PodCliqueSetSpec, PodCliqueSetTemplate, ScalingGroupTemplate
from grove_server.resources.names import dns_subdomain_problem
from grove_server.resources.quantity import QuantityError, parse_quantity
from grove_server.resources.scaling_policy import RoleSpec, ScalingPolicySpec
from grove_server.resources.violations import quoted

_GPU: Final = "nvidia.com/gpu"


def check_targets(
    namespace: str, name: str, spec: ScalingPolicySpec, context: AdmissionContext, findings: Findings
) -> None:
    """Check what a policy's roles are in its set, that they are its alone, and that the budget holds their minimum."""
    if dns_subdomain_problem(spec.pod_clique_set) is not None:
        return
    target = context.sets.get(f"{namespace}/{spec.pod_clique_set}")
    if target is None:
        findings.warn(
            f"spec.podCliqueSet: there is no PodCliqueSet {spec.pod_clique_set}: nothing is scaled until then"
        )
    else:
        for index, role in enumerate(spec.roles):
            _check_target(role, f"spec.roles[{index}]", target.template, findings)
    _check_alone(namespace, name, spec, context.scaling_policies, findings)
    _check_budget(spec, target, findings)


def warn_of_policies(
    namespace: str, set_name: str, template: PodCliqueSetTemplate, context: AdmissionContext, findings: Findings
) -> None:
    """Warn where a set lacks what a policy scales, or needs more of it than the policy's least."""
    prefix = f"{namespace}/"
    for key, spec in sorted(context.scaling_policies.items()):
        if not key.startswith(prefix) or spec.pod_clique_set != set_name:
            continue
        broken = Findings()
        for index, role in enumerate(spec.roles):
            _check_target(role, f"spec.roles[{index}]", template, broken)
        for violation in broken.violations:
            findings.warn(f"ScalingPolicy {key.removeprefix(prefix)} does not fit: {violation}")


def _check_target(role: RoleSpec, path: str, template: PodCliqueSetTemplate, findings: Findings) -> None:
    if role.pod_clique is not None:
        clique = template.clique(role.pod_clique)
        where = f"{path}.podClique"
        if clique is None:
            findings.not_found(where, f"there is no clique {quoted(role.pod_clique)} in the set's template")
            return
        group = template.group_of(clique.name)
        if group is not None:
            message = f"is a member of scaling group {group.name}: scale the group, with podCliqueScalingGroup"
            findings.forbidden(where, message)
            return
        minimum, config = _least_of_clique(clique), clique.spec.auto_scaling_config
        config_name = f"cliques[{clique.name}].spec.autoScalingConfig"
    elif role.pod_clique_scaling_group is not None:
        found = _group(template, role.pod_clique_scaling_group)
        if found is None:
            message = f"there is no scaling group {quoted(role.pod_clique_scaling_group)} in the set's template"
            findings.not_found(f"{path}.podCliqueScalingGroup", message)
            return
        minimum, config = found.min_available or 1, found.scale_config
        config_name = f"podCliqueScalingGroups[{found.name}].scaleConfig"
    else:
        return
    if 0 < role.min_replicas < minimum:
        message = f"must be at least minAvailable ({minimum}), or the gang breaks; got {role.min_replicas}"
        findings.invalid(f"{path}.minReplicas", message)
    if role.max_replicas < minimum:
        findings.invalid(f"{path}.maxReplicas", f"must be at least minAvailable ({minimum}), got {role.max_replicas}")
    if config is not None:
        findings.warn(f"{path}: the set's {config_name} is not followed while this policy scales the same")


def _group(template: PodCliqueSetTemplate, name: str) -> ScalingGroupTemplate | None:
    return next((group for group in template.pod_clique_scaling_groups if group.name == name), None)


def _least_of_clique(clique: CliqueTemplate) -> int:
    """Return the clique's minAvailable as defaulting fills it in."""
    if clique.spec.min_available is not None:
        return clique.spec.min_available
    return clique.spec.replicas or 1


def _check_alone(
    namespace: str, name: str, spec: ScalingPolicySpec, policies: Mapping[str, ScalingPolicySpec], findings: Findings
) -> None:
    """Check that no other policy scales the same."""
    taken: dict[tuple[str | None, str | None], str] = {}
    prefix = f"{namespace}/"
    for key, other in sorted(policies.items()):
        if key.startswith(prefix) and key != prefix + name and other.pod_clique_set == spec.pod_clique_set:
            for role in other.roles:
                taken.setdefault((role.pod_clique, role.pod_clique_scaling_group), key.removeprefix(prefix))
    for index, role in enumerate(spec.roles):
        owner = taken.get((role.pod_clique, role.pod_clique_scaling_group))
        if owner is not None:
            where = "podClique" if role.pod_clique is not None else "podCliqueScalingGroup"
            findings.forbidden(f"spec.roles[{index}].{where}", f"is scaled by ScalingPolicy {owner} already")


def _check_budget(spec: ScalingPolicySpec, target: PodCliqueSetSpec | None, findings: Findings) -> None:
    """Check that the minimums fit the budget, and warn of sizes that it never allows."""
    if spec.budget is None:
        return
    gpus = [gpus_of(role, None if target is None else target.template) for role in spec.roles]
    known = [(role, each) for role, each in zip(spec.roles, gpus, strict=True) if each is not None]
    least = sum(role.min_replicas * each for role, each in known)
    copies = max(target.replicas or 1, 1) if target is not None else 1
    if least > spec.budget.gpus:
        message = f"must be at least the {least:g} GPUs of all roles' minReplicas, got {spec.budget.gpus}"
        findings.invalid("spec.budget.gpus", message)
        return
    if least * copies > spec.budget.gpus:
        findings.warn(
            f"spec.budget.gpus ({spec.budget.gpus}) does not hold minReplicas of all {copies} copies "
            f"({least * copies:g})"
        )
    for role, each in known:
        most = least + (role.max_replicas - role.min_replicas) * each
        if most > spec.budget.gpus:
            findings.warn(
                f"role {role.name} never gets maxReplicas ({role.max_replicas}): with the minimum of the other roles "
                f"that is {most:g} GPUs, the budget has {spec.budget.gpus}"
            )


def gpus_of(role: RoleSpec, template: PodCliqueSetTemplate | None) -> float | None:
    """Return the GPUs of one replica of a role, None where that cannot be said."""
    if isinstance(role.gpus_per_replica, int):
        return float(role.gpus_per_replica)
    if template is None:
        return None
    if role.pod_clique is not None:
        clique = template.clique(role.pod_clique)
        return None if clique is None else _gpus_of_pod(clique.spec.pod_spec)
    group = _group(template, role.pod_clique_scaling_group or "")
    if group is None:
        return None
    members = [clique for clique in template.cliques if clique.name in group.clique_names]
    return sum(_gpus_of_pod(clique.spec.pod_spec) * (clique.spec.replicas or 1) for clique in members)


def _gpus_of_pod(pod_spec: Mapping[str, Any]) -> float:
    containers = pod_spec.get("containers")
    total = 0.0
    for container in containers if isinstance(containers, list | tuple) else ():
        resources = container.get("resources") if isinstance(container, dict) else None
        for part in ("limits", "requests"):
            amounts = resources.get(part) if isinstance(resources, dict) else None
            if isinstance(amounts, dict) and _GPU in amounts:
                total += _number(amounts[_GPU])
                break
    return total


def _number(amount: object) -> float:
    try:
        return float(parse_quantity(str(amount)).fraction())
    except QuantityError:
        return 0.0
