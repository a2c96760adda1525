"""Who starts after whom: the cliques of a copy that one clique depends on, as object names.

Rules are Grove's (§2.6) for what is in the base gang. In a scaled gang a dependency in the same group means the same
group replica; other dependencies are kept and mean those of the base gang, where Grove drops them. Holding pods back
until their parents serve is not decided here.
"""

from __future__ import annotations

from grove_server.lifecycle.blueprint import Blueprint, CliqueBlueprint
from grove_server.resources.manifest import STARTUP_EXPLICIT, STARTUP_IN_ORDER
from grove_server.resources.names import member_clique, scaling_group, standalone_clique


def parents_of(blueprint: Blueprint, copy: int, clique: CliqueBlueprint, group_replica: int) -> tuple[str, ...]:
    """Return the names of the PodCliques that *clique* starts after; ``group_replica`` is -1 outside groups."""
    template = blueprint.pod_clique_set.spec.template
    if template.clique_startup_type == STARTUP_EXPLICIT:
        parents = clique.template.spec.starts_after
    elif template.clique_startup_type == STARTUP_IN_ORDER:
        names = [c.name for c in template.cliques]
        position = names.index(clique.name)
        parents = (names[position - 1],) if position else ()
    else:
        return ()
    return tuple(name for parent in parents for name in _instances(blueprint, copy, clique, group_replica, parent))


def _instances(blueprint: Blueprint, copy: int, clique: CliqueBlueprint, group_replica: int, parent: str) -> list[str]:
    set_name = blueprint.pod_clique_set.metadata.name
    group = next((g for g in blueprint.groups if any(c.name == parent for c in g.cliques)), None)
    if group is None:
        return [standalone_clique(set_name, copy, parent)]
    group_name = scaling_group(set_name, copy, group.name)
    own = next((g for g in blueprint.groups if g.name == clique.group), None)
    if own is group and group_replica >= group.min_available:
        return [member_clique(group_name, group_replica, parent)]
    return [member_clique(group_name, j, parent) for j in range(group.min_available)]
