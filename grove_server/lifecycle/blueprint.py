"""What one copy of a set looks like, computed once per template and shared by the passes over all copies.

Source of the rules: Grove's expansion (standalone cliques, scaling groups, base and scaled gangs). Different on
purpose: constraints of set, group and clique add up instead of replacing each other, and a constraint that cannot be
translated is an error that keeps gangs waiting instead of being dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from grove_server.resources.gang_parts import LevelConstraint
from grove_server.resources.manifest import CliqueTemplate, ScalingGroupTemplate, TopologyConstraint, TopologyLevel
from grove_server.resources.priority import PriorityClass, ResolvedPriority, resolve_priority
from grove_server.resources.workload import PodCliqueSet, PodTemplate

TopologyLevels = Mapping[str, tuple[TopologyLevel, ...]]

NO_CLASSES: Final[Mapping[str, PriorityClass]] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class CliqueBlueprint:
    """One clique of every copy; ``group_pod_offset`` is the number of pods in its group's earlier cliques."""

    template: CliqueTemplate
    pod_template: PodTemplate
    group: str
    replicas: int
    min_available: int
    constraint: LevelConstraint | None
    group_pod_offset: int = 0

    @property
    def name(self) -> str:
        """Name of the clique template."""
        return self.template.name


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupBlueprint:
    """One scaling group of every copy; ``pod_count`` is the template's number of pods in one group replica."""

    template: ScalingGroupTemplate
    cliques: tuple[CliqueBlueprint, ...]
    replicas: int
    min_available: int
    pod_count: int
    constraint: LevelConstraint | None

    @property
    def name(self) -> str:
        """Name of the group template."""
        return self.template.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Blueprint:
    """One copy of a set; ``topology_error`` says why constraints cannot be translated, empty if they can."""

    pod_clique_set: PodCliqueSet
    standalone: tuple[CliqueBlueprint, ...]
    groups: tuple[GroupBlueprint, ...]
    constraint: LevelConstraint | None
    topology_name: str
    topology_error: str
    priority_class_name: str
    priority: ResolvedPriority


def draw_blueprint(
    pod_clique_set: PodCliqueSet,
    templates: Mapping[str, PodTemplate],
    topologies: TopologyLevels,
    classes: Mapping[str, PriorityClass] = NO_CLASSES,
) -> Blueprint:
    """Return the blueprint of *pod_clique_set*.

    *templates* maps each clique name to its current PodTemplate; *topologies* maps each ClusterTopologyBinding's name
    to its levels, broadest first; *classes* are the priority classes by name.
    """
    template = pod_clique_set.spec.template
    translator = _Translator(topologies, _topology_name(pod_clique_set))
    groups = []
    members: set[str] = set()
    for group in template.pod_clique_scaling_groups:
        cliques = []
        offset = 0
        for name in group.clique_names:
            clique = template.clique(name)
            assert clique is not None, f"admission let group {group.name} name an unknown clique {name}"
            cliques.append(_draw_clique(clique, templates, translator, group.name, offset))
            offset += filled(clique.spec.replicas)
            members.add(name)
        groups.append(
            GroupBlueprint(
                template=group,
                cliques=tuple(cliques),
                replicas=filled(group.replicas),
                min_available=filled(group.min_available),
                pod_count=offset,
                constraint=translator.translate(group.topology_constraint),
            )
        )
    return Blueprint(
        pod_clique_set=pod_clique_set,
        standalone=tuple(
            _draw_clique(c, templates, translator, "", 0) for c in template.cliques if c.name not in members
        ),
        groups=tuple(groups),
        constraint=translator.translate(template.topology_constraint),
        topology_name=translator.topology_name if translator.used else "",
        topology_error=translator.error,
        priority_class_name=template.priority_class_name or "",
        priority=resolve_priority(template.priority_class_name or "", classes),
    )


def filled(value: int | None) -> int:
    """Return a count that admission has defaulted."""
    assert value is not None, "admission fills every count"
    return value


def _draw_clique(
    clique: CliqueTemplate, templates: Mapping[str, PodTemplate], translator: _Translator, group: str, offset: int
) -> CliqueBlueprint:
    return CliqueBlueprint(
        template=clique,
        pod_template=templates[clique.name],
        group=group,
        replicas=filled(clique.spec.replicas),
        min_available=filled(clique.spec.min_available),
        constraint=translator.translate(clique.topology_constraint),
        group_pod_offset=offset,
    )


def _topology_name(pod_clique_set: PodCliqueSet) -> str:
    """Return the one topology name used in the set (admission allows a single one)."""
    template = pod_clique_set.spec.template
    constraints = [template.topology_constraint]
    constraints += [group.topology_constraint for group in template.pod_clique_scaling_groups]
    constraints += [clique.topology_constraint for clique in template.cliques]
    for constraint in constraints:
        if constraint is not None and constraint.topology_name:
            return constraint.topology_name
    return ""


class _Translator:
    """Turns abstract domains into node label keys, remembering the first thing that was missing."""

    def __init__(self, topologies: TopologyLevels, topology_name: str) -> None:
        self.topology_name = topology_name
        self.error = ""
        self.used = False
        levels = topologies.get(topology_name)
        self._keys = None if levels is None else {level.domain: level.key for level in levels}

    def translate(self, constraint: TopologyConstraint | None) -> LevelConstraint | None:
        if constraint is None:
            return None
        required = (constraint.pack.required if constraint.pack else None) or constraint.pack_domain
        preferred = constraint.pack.preferred if constraint.pack else None
        if required is None and preferred is None:
            return None
        self.used = True
        return LevelConstraint(required=self._key(required), preferred=self._key(preferred))

    def _key(self, domain: str | None) -> str | None:
        if domain is None:
            return None
        if self._keys is None:
            self.error = self.error or f"ClusterTopologyBinding {self.topology_name!r} does not exist"
            return None
        if domain not in self._keys:
            self.error = self.error or f"ClusterTopologyBinding {self.topology_name!r} has no level {domain!r}"
            return None
        return self._keys[domain]
