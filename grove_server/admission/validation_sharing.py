"""Rules for shared resource claims: the templates a set carries, and who shares what.

Only Kubernetes acts on them; they are checked and kept in every mode, so that a manifest means the same everywhere.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from grove_server.admission.context import Limits
from grove_server.admission.findings import Findings
from grove_server.resources.manifest import (
    SHARING_SCOPES,
    PodCliqueSetTemplate,
    ResourceSharing,
    SharingFilter,
)
from grove_server.resources.names import dns_label_problem, dns_subdomain_problem


def check_claims_and_sharing(template: PodCliqueSetTemplate, limits: Limits, findings: Findings) -> None:
    """Check ``resourceClaimTemplates`` and every ``resourceSharing`` of a set."""
    own = _check_claim_templates(template, limits, findings)
    cliques = {clique.name for clique in template.cliques}
    groups = {group.name for group in template.pod_clique_scaling_groups}
    path = "spec.template.resourceSharing"
    _check_entries(template.resource_sharing, path, own, limits, findings)
    for index, entry in enumerate(template.resource_sharing):
        if entry.filter is not None:
            _check_filter(entry.filter, f"{path}[{index}].filter", (cliques, groups), findings)
    for position, group in enumerate(template.pod_clique_scaling_groups):
        path = f"spec.template.podCliqueScalingGroups[{position}].resourceSharing"
        _check_entries(group.resource_sharing, path, own, limits, findings)
        for index, entry in enumerate(group.resource_sharing):
            if entry.filter is not None:
                _check_filter(entry.filter, f"{path}[{index}].filter", (group.clique_names, None), findings)
    for position, clique in enumerate(template.cliques):
        path = f"spec.template.cliques[{position}].resourceSharing"
        _check_entries(clique.resource_sharing, path, own, limits, findings)
        for index, entry in enumerate(clique.resource_sharing):
            if entry.filter is not None:
                findings.forbidden(f"{path}[{index}].filter", "may not be set on a clique, which has no children")


def _check_claim_templates(template: PodCliqueSetTemplate, limits: Limits, findings: Findings) -> frozenset[str]:
    """Check the set's claim templates and return their names."""
    path = "spec.template.resourceClaimTemplates"
    claims = template.resource_claim_templates
    if len(claims) > limits.sharing_entries_max:
        findings.too_many(path, len(claims), limits.sharing_entries_max)
        return frozenset()
    names: set[str] = set()
    for index, claim in enumerate(claims):
        problem = dns_label_problem(claim.name)
        if problem is not None:
            findings.invalid(f"{path}[{index}].name", problem)
        elif claim.name in names:
            findings.duplicate(f"{path}[{index}].name", claim.name)
        names.add(claim.name)
        _check_devices(claim.template_spec, f"{path}[{index}].templateSpec", findings)
    return frozenset(names)


def _check_devices(template_spec: Mapping[str, Any], path: str, findings: Findings) -> None:
    value: object = template_spec
    at = path
    for step in ("spec", "devices", "requests"):
        if not isinstance(value, dict):
            findings.wrong_type(at, "a map", value)
            return
        at = f"{at}.{step}"
        value = value.get(step)
        if value is None or value == []:
            findings.required(f"{path}.spec.devices.requests", "must ask for at least one device")
            return
    if not isinstance(value, list):
        findings.wrong_type(at, "a list", value)
        return
    for index, request in enumerate(value):
        if not isinstance(request, dict):
            findings.wrong_type(f"{at}[{index}]", "a map", request)
        elif not isinstance(request.get("name"), str):
            findings.required(f"{at}[{index}].name")


def _check_entries(
    entries: Sequence[ResourceSharing], path: str, own: Collection[str], limits: Limits, findings: Findings
) -> None:
    if len(entries) > limits.sharing_entries_max:
        findings.too_many(path, len(entries), limits.sharing_entries_max)
        return
    seen: set[str] = set()
    for index, entry in enumerate(entries):
        problem = dns_subdomain_problem(entry.name)
        if problem is not None:
            findings.invalid(f"{path}[{index}].name", problem)
        elif entry.name in seen:
            findings.duplicate(f"{path}[{index}].name", entry.name)
        seen.add(entry.name)
        if entry.scope not in SHARING_SCOPES:
            findings.not_supported(f"{path}[{index}].scope", entry.scope, SHARING_SCOPES)
        if not entry.namespace:
            continue
        if entry.name in own:
            message = f"must be empty: {entry.name} is a resourceClaimTemplate of this set"
            findings.forbidden(f"{path}[{index}].namespace", message)
        elif (problem := dns_label_problem(entry.namespace)) is not None:
            findings.invalid(f"{path}[{index}].namespace", problem)


def _check_filter(
    chosen: SharingFilter, path: str, known: tuple[Collection[str], Collection[str] | None], findings: Findings
) -> None:
    """Check a filter against the *known* cliques and groups; groups are None where a scope has none."""
    cliques, groups = known
    if not chosen.child_clique_names and not chosen.child_scaling_group_names:
        findings.required(path, "must name at least one child")
    _check_children(chosen.child_clique_names, f"{path}.childCliqueNames", cliques, findings)
    if groups is None:
        if chosen.child_scaling_group_names:
            findings.forbidden(
                f"{path}.childScalingGroupNames", "may not be set on a group, whose children are cliques"
            )
    else:
        _check_children(chosen.child_scaling_group_names, f"{path}.childScalingGroupNames", groups, findings)


def _check_children(names: Sequence[str], path: str, known: Collection[str], findings: Findings) -> None:
    seen: set[str] = set()
    for index, name in enumerate(names):
        if name in seen:
            findings.duplicate(f"{path}[{index}]", name)
        elif name not in known:
            findings.not_found(f"{path}[{index}]", f"there is no child {name!r} here")
        seen.add(name)
