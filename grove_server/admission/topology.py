"""Topology constraints of a set: their form, their domains, and how those of parents and children fit together.

The four messages about form are Grove's, word for word, because its users' tooling matches them. A name is inherited
downwards, from set to group to clique, and one set uses one name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from grove_server.admission.findings import Findings
from grove_server.resources.manifest import PodCliqueSetTemplate, TopologyConstraint
from grove_server.resources.violations import quoted

NEEDS_PACK: Final = "topologyConstraint must specify pack or deprecated packDomain"
NEEDS_DOMAIN: Final = "pack must specify at least one of required or preferred"
BOTH_FORMS: Final = "must not set both pack.required and deprecated packDomain"
DEPRECATED_FORM: Final = "packDomain is deprecated and cannot be used on new workloads; use pack.required"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """One place of a set that may carry a constraint; parents from the set downwards."""

    path: str
    constraint: TopologyConstraint
    parents: tuple[Scope, ...]

    @property
    def required(self) -> str | None:
        """The domain all pods must share."""
        pack = self.constraint.pack
        return pack.required if pack is not None and pack.required is not None else self.constraint.pack_domain

    @property
    def required_path(self) -> str:
        """Where that domain is written."""
        pack = self.constraint.pack
        return f"{self.path}.packDomain" if pack is None or pack.required is None else f"{self.path}.pack.required"

    @property
    def preferred(self) -> str | None:
        """The domain all pods should share."""
        pack = self.constraint.pack
        return pack.preferred if pack is not None else None

    @property
    def topology_name(self) -> str | None:
        """The name in force here: its own, or the nearest parent's."""
        for scope in (self, *reversed(self.parents)):
            if scope.constraint.topology_name:
                return scope.constraint.topology_name
        return None


def topology_name_of(template: PodCliqueSetTemplate) -> str | None:
    """Return the name of the ClusterTopologyBinding a valid set uses, None if it has no constraints."""
    for scope in scopes_of(template):
        name = scope.topology_name
        if name is not None:
            return name
    return None


def scopes_of(template: PodCliqueSetTemplate) -> Iterator[Scope]:
    """Yield every constraint of a set: its own, the groups', the cliques'."""
    base: tuple[Scope, ...] = ()
    if template.topology_constraint is not None:
        own = Scope(path="spec.template.topologyConstraint", constraint=template.topology_constraint, parents=())
        base = (own,)
        yield own
    parents_of_members: dict[str, tuple[Scope, ...]] = {}
    for index, group in enumerate(template.pod_clique_scaling_groups):
        if group.topology_constraint is None:
            continue
        path = f"spec.template.podCliqueScalingGroups[{index}].topologyConstraint"
        scope = Scope(path=path, constraint=group.topology_constraint, parents=base)
        for name in group.clique_names:
            parents_of_members[name] = (*base, scope)
        yield scope
    for index, clique in enumerate(template.cliques):
        if clique.topology_constraint is not None:
            yield Scope(
                path=f"spec.template.cliques[{index}].topologyConstraint",
                constraint=clique.topology_constraint,
                parents=parents_of_members.get(clique.name, base),
            )


def check_form(scopes: Sequence[Scope], *, on_create: bool, findings: Findings) -> None:
    """Check what holds without knowing any topology."""
    for scope in scopes:
        constraint, pack = scope.constraint, scope.constraint.pack
        if pack is None and constraint.pack_domain is None:
            findings.invalid(scope.path, NEEDS_PACK)
        if pack is not None and pack.required is None and pack.preferred is None:
            findings.invalid(f"{scope.path}.pack", NEEDS_DOMAIN)
        if pack is not None and pack.required is not None and constraint.pack_domain is not None:
            findings.invalid(scope.path, BOTH_FORMS)
        if constraint.pack_domain is not None and on_create:
            findings.forbidden(f"{scope.path}.packDomain", DEPRECATED_FORM)


def check_domains(scopes: Sequence[Scope], bindings: Mapping[str, Sequence[str]], findings: Findings) -> None:
    """Check names and domains against the ClusterTopologyBindings that exist.

    Only for constraints that are new: a binding may be deleted under a running set, which is not the set's mistake.
    """
    names = _check_names(scopes, findings)
    for scope in scopes:
        name = scope.topology_name
        if name is None or name != names[0]:
            continue
        if name not in bindings:
            if scope.constraint.topology_name or not any(parent.constraint.topology_name for parent in scope.parents):
                findings.not_found(f"{scope.path}.topologyName", f"there is no ClusterTopologyBinding {quoted(name)}")
            continue
        _check_levels(scope, name, bindings[name], findings)


def _check_names(scopes: Sequence[Scope], findings: Findings) -> list[str]:
    names: list[str] = []
    for scope in scopes:
        name = scope.topology_name
        if name is None:
            findings.required(f"{scope.path}.topologyName", "is required, here or at a parent of this constraint")
        elif name not in names:
            if names:
                message = (
                    f"must be {quoted(names[0])} as elsewhere in this set, which can use one only, got {quoted(name)}"
                )
                findings.invalid(f"{scope.path}.topologyName", message)
            names.append(name)
    return names


def _check_levels(scope: Scope, name: str, levels: Sequence[str], findings: Findings) -> None:
    depths = {domain: depth for depth, domain in enumerate(levels)}
    for domain, path in ((scope.required, scope.required_path), (scope.preferred, f"{scope.path}.pack.preferred")):
        if domain is not None and domain not in depths:
            message = f"must be a level of topology {quoted(name)} ({', '.join(levels)}), got {quoted(domain)}"
            findings.invalid(path, message)
    required, preferred = depths.get(scope.required or ""), depths.get(scope.preferred or "")
    if required is not None and preferred is not None and preferred < required:
        findings.warn(
            f"{scope.path}.pack.preferred ({scope.preferred}) is broader than required ({scope.required}) "
            "and therefore has no effect"
        )
    for parent in scope.parents:
        above = depths.get(parent.required or "")
        if required is not None and above is not None and above > required:
            message = f"is broader than {quoted(parent.required)}, which {parent.path} requires of all its children"
            findings.invalid(scope.required_path, message)
        above = depths.get(parent.preferred or "")
        if preferred is not None and above is not None and above > preferred:
            message = f"is broader than {quoted(parent.preferred)}, which {parent.path} prefers for all its children"
            findings.invalid(f"{scope.path}.pack.preferred", message)
