"""When a gang has to be asked for again."""

from __future__ import annotations

from grove_server.resources.workload import PodGang


def asks_differ(one: PodGang, other: PodGang) -> bool:
    """Return whether placement would be asked something else; a change of the status alone is none."""
    return (
        (one.pod_groups is not other.pod_groups and one.pod_groups != other.pod_groups)
        or one.topology_constraint != other.topology_constraint
        or one.topology_groups != other.topology_groups
        or one.topology_error != other.topology_error
        or (one.priority, one.preemption_policy) != (other.priority, other.preemption_policy)
    )
