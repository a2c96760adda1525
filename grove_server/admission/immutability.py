"""What cannot change after creation, because running pods and gangs were built on it.

Compared are defaulted specs, so writing a default down, or leaving it out, is no change. Two repairs of topology
constraints are allowed: ``packDomain`` may become ``pack.required`` of the same value, and a missing ``topologyName``
may be added.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from grove_server.admission.context import AdmissionContext
from grove_server.admission.findings import Findings
from grove_server.resources.labels import MNNVL_GROUP
from grove_server.resources.manifest import (
    STARTUP_ANY_ORDER,
    CliqueTemplate,
    PackConstraint,
    PodCliqueSetTemplate,
    ScalingGroupTemplate,
    TopologyConstraint,
)

_CLIQUES = "spec.template.cliques"
_GROUPS = "spec.template.podCliqueScalingGroups"


def check_immutable(
    template: PodCliqueSetTemplate, old: PodCliqueSetTemplate, context: AdmissionContext, findings: Findings
) -> None:
    """Check that nothing immutable differs between *template* and *old*, both defaulted."""
    if template.clique_startup_type != old.clique_startup_type:
        findings.immutable("spec.template.cliqueStartupType", _was(old.clique_startup_type))
    if template.resource_claim_templates != old.resource_claim_templates:
        findings.immutable("spec.template.resourceClaimTemplates")
    if template.resource_sharing != old.resource_sharing:
        findings.immutable("spec.template.resourceSharing")
    path = "spec.template.topologyConstraint"
    _check_constraint(template.topology_constraint, old.topology_constraint, path, findings)
    _check_cliques(template, old, context, findings)
    _check_groups(template, old, findings)


def check_annotation(new: Mapping[str, str], old: Mapping[str, str], path: str, findings: Findings) -> None:
    """Check that the NVLink group is the same: compute domains cannot follow it."""
    if new.get(MNNVL_GROUP) != old.get(MNNVL_GROUP):
        findings.immutable(f"{path}[{MNNVL_GROUP}]")


def without_repairs(new: TopologyConstraint, old: TopologyConstraint) -> TopologyConstraint:
    """Return *new* with the two allowed repairs of *old* undone."""
    pack = new.pack
    if old.pack_domain is not None and new.pack_domain is None and pack is not None:
        preferred = old.pack.preferred if old.pack is not None else None
        if pack == PackConstraint(required=old.pack_domain, preferred=preferred):
            new = replace(new, pack_domain=old.pack_domain, pack=old.pack)
    if not old.topology_name and new.topology_name:
        new = replace(new, topology_name=old.topology_name)
    return new


def _check_constraint(
    new: TopologyConstraint | None, old: TopologyConstraint | None, path: str, findings: Findings
) -> None:
    if new == old:
        return
    if new is None or old is None or without_repairs(new, old) != old:
        findings.immutable(path)


def _check_cliques(
    template: PodCliqueSetTemplate, old: PodCliqueSetTemplate, context: AdmissionContext, findings: Findings
) -> None:
    stored = {clique.name: clique for clique in old.cliques}
    names = [clique.name for clique in template.cliques]
    for index, clique in enumerate(template.cliques):
        before = stored.get(clique.name)
        if before is None:
            findings.immutable(f"{_CLIQUES}[{index}]", f"clique {clique.name!r} cannot be added after creation")
        else:
            _check_clique(clique, before, f"{_CLIQUES}[{index}]", context, findings)
    for clique in old.cliques:
        if clique.name not in names:
            findings.immutable(_CLIQUES, f"clique {clique.name!r} cannot be removed after creation")
    ordered = old.clique_startup_type != STARTUP_ANY_ORDER
    if ordered and sorted(names) == sorted(stored) and names != list(stored):
        findings.immutable(_CLIQUES, f"must stay in the order {', '.join(stored)}, because they start in an order")


def _check_clique(
    clique: CliqueTemplate, old: CliqueTemplate, path: str, context: AdmissionContext, findings: Findings
) -> None:
    new_spec, old_spec = clique.spec, old.spec
    if new_spec.role_name != old_spec.role_name:
        findings.immutable(f"{path}.spec.roleName", _was(old_spec.role_name))
    if new_spec.min_available != old_spec.min_available:
        findings.immutable(f"{path}.spec.minAvailable", _was(old_spec.min_available))
    if new_spec.starts_after != old_spec.starts_after:
        findings.immutable(f"{path}.spec.startsAfter")
    scheduler = old_spec.pod_spec.get("schedulerName") or context.scheduler_name
    if (new_spec.pod_spec.get("schedulerName") or context.scheduler_name) != scheduler:
        findings.immutable(f"{path}.spec.podSpec.schedulerName", _was(scheduler))
    if clique.resource_sharing != old.resource_sharing:
        findings.immutable(f"{path}.resourceSharing")
    _check_constraint(clique.topology_constraint, old.topology_constraint, f"{path}.topologyConstraint", findings)
    check_annotation(clique.annotations, old.annotations, f"{path}.annotations", findings)


def _check_groups(template: PodCliqueSetTemplate, old: PodCliqueSetTemplate, findings: Findings) -> None:
    stored = {group.name: group for group in old.pod_clique_scaling_groups}
    names = {group.name for group in template.pod_clique_scaling_groups}
    for index, group in enumerate(template.pod_clique_scaling_groups):
        before = stored.get(group.name)
        if before is None:
            findings.immutable(f"{_GROUPS}[{index}]", f"group {group.name!r} cannot be added after creation")
        else:
            _check_group(group, before, f"{_GROUPS}[{index}]", findings)
    for group in old.pod_clique_scaling_groups:
        if group.name not in names:
            findings.immutable(_GROUPS, f"group {group.name!r} cannot be removed after creation")


def _check_group(group: ScalingGroupTemplate, old: ScalingGroupTemplate, path: str, findings: Findings) -> None:
    if group.clique_names != old.clique_names:
        findings.immutable(f"{path}.cliqueNames", _was(", ".join(old.clique_names)))
    if group.min_available != old.min_available:
        findings.immutable(f"{path}.minAvailable", _was(old.min_available))
    if group.resource_sharing != old.resource_sharing:
        findings.immutable(f"{path}.resourceSharing")
    _check_constraint(group.topology_constraint, old.topology_constraint, f"{path}.topologyConstraint", findings)
    check_annotation(group.annotations, old.annotations, f"{path}.annotations", findings)


def _was(value: object) -> str:
    return f"cannot be changed after creation, and is {value}"
