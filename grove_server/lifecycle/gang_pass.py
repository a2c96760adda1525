"""A copy's gangs: the base gang with everything the copy cannot do without, one scaled gang per further group replica.

Members and minimums are Grove's (§2.4). A clique or group at size 0 is absent, so it is in no gang. Constraints of set,
group and clique add up, in scaled gangs too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from grove_server.lifecycle.blueprint import Blueprint, GroupBlueprint
from grove_server.lifecycle.copy import CliqueState, CopyView
from grove_server.lifecycle.gang_status import PodGroupCounts, with_gang_status
from grove_server.lifecycle.identifiers import derive_uid
from grove_server.lifecycle.plan import Plan
from grove_server.lifecycle.removal import leaving, staying
from grove_server.lifecycle.termination import NO_TERMINATION, RecycledUnit, Termination, recycle_note, with_record
from grove_server.resources.gang_parts import PodGroup, TopologyGroup
from grove_server.resources.labels import gang_annotations, gang_labels
from grove_server.resources.meta import Metadata
from grove_server.resources.names import base_gang, scaled_gang, scaling_group, topology_group
from grove_server.resources.replacing import replace
from grove_server.resources.workload import NO_GROUP_REPLICA, Pod, PodGang

DEFAULT_SCHEDULER = "grove-scheduler"


@dataclass(frozen=True, slots=True, kw_only=True)
class GangMembers:
    """What belongs in one gang: clique states in template order, and the group replicas they come from."""

    name: str
    states: tuple[CliqueState, ...]
    topology_groups: tuple[TopologyGroup, ...]
    group: str = ""
    group_replica: int = NO_GROUP_REPLICA
    base: str = ""


def plan_gangs(
    plan: Plan,
    blueprint: Blueprint,
    view: CopyView,
    standalone: Sequence[CliqueState],
    groups: Mapping[str, Mapping[int, Sequence[CliqueState]]],
    termination: Termination = NO_TERMINATION,
    *,
    now: float,
) -> list[PodGang]:
    """Plan all gangs of a copy and return them, base gang first; gangs without members go, after their pods.

    If *termination* recycles the copy, its base gang keeps the record.
    """
    gangs = []
    for members in _members(blueprint, view.copy, standalone, groups):
        observed = view.gangs.get(members.name)
        gang = _gang(blueprint, members, observed, view.copy, now)
        gang = with_gang_status(gang, [_counts(s) for s in members.states if s.clique.replicas], now=now)
        if termination.copy is not None and not members.base:
            gang = _with_record(plan, gang, termination.copy)
        if observed is None:
            plan.creates.append(gang)
        elif gang is not observed:
            plan.updates.append(gang)
        gangs.append(gang)
    wanted = {gang.metadata.name for gang in gangs}
    _remove_gangs(plan, view, [gang for name, gang in view.gangs.items() if name not in wanted], now)
    return gangs


def _remove_gangs(plan: Plan, view: CopyView, gangs: Sequence[PodGang], now: float) -> None:
    """Remove gangs that are not wanted, after their last pod."""
    if not gangs:
        return
    gone = {resource.metadata.name for resource in plan.deletes if isinstance(resource, Pod)}
    held = {
        pod.identity.gang for pods in view.pods.values() for pod in pods if pod.node and pod.metadata.name not in gone
    }
    for gang in gangs:
        if gang.metadata.name not in held:
            plan.deletes.append(gang)
        elif gang.metadata.deleted_at is None:
            plan.updates.append(leaving(gang, now))


def _members(
    blueprint: Blueprint,
    copy: int,
    standalone: Sequence[CliqueState],
    groups: Mapping[str, Mapping[int, Sequence[CliqueState]]],
) -> list[GangMembers]:
    set_name = blueprint.pod_clique_set.metadata.name
    base_name = base_gang(set_name, copy)
    base_states = list(standalone)
    base_groups: list[TopologyGroup] = []
    scaled = []
    for group in blueprint.groups:
        group_name = scaling_group(set_name, copy, group.name)
        for replica, states in sorted(groups[group.name].items()):
            topology = _topology_group(group, group_name, replica, states)
            if replica < group.min_available:
                base_states.extend(states)
                base_groups.extend(topology)
            else:
                scaled.append(
                    GangMembers(
                        name=scaled_gang(group_name, replica, group.min_available),
                        states=tuple(states),
                        topology_groups=topology,
                        group=group.name,
                        group_replica=replica,
                        base=base_name,
                    )
                )
    base = GangMembers(name=base_name, states=tuple(base_states), topology_groups=tuple(base_groups))
    # What is at size 0 is absent; a gang of absent members would look as if it waited for something.
    return [members for members in (base, *scaled) if any(state.clique.replicas for state in members.states)]


def _topology_group(
    group: GroupBlueprint, group_name: str, replica: int, states: Sequence[CliqueState]
) -> tuple[TopologyGroup, ...]:
    if group.constraint is None:
        return ()
    return (
        TopologyGroup(
            name=topology_group(group_name, replica),
            pod_group_names=tuple(s.clique.metadata.name for s in states if s.clique.replicas),
            topology_constraint=group.constraint,
        ),
    )


def _with_record(plan: Plan, gang: PodGang, recycled: RecycledUnit) -> PodGang:
    status = replace(gang.status, recycles=with_record(gang.status.recycles, (recycled.record,)))
    plan.notes.append(recycle_note(gang, recycled.record))
    return replace(gang, status=status)


def _gang(blueprint: Blueprint, members: GangMembers, observed: PodGang | None, copy: int, now: float) -> PodGang:
    owner = blueprint.pod_clique_set
    constraints = {c.name: c.constraint for c in blueprint.standalone}
    for group in blueprint.groups:
        constraints.update({c.name: c.constraint for c in group.cliques})
    pod_groups = tuple(
        PodGroup(
            name=state.clique.metadata.name,
            pods=tuple(pod.metadata.name for pod in state.pods),
            min_replicas=state.minimum,
            topology_constraint=constraints[state.clique.identity.clique],
        )
        for state in members.states
        if state.clique.replicas
    )
    if observed is None:
        return PodGang(
            metadata=Metadata(
                name=members.name,
                namespace=owner.metadata.namespace,
                uid=derive_uid(owner.metadata.uid, f"gang/{members.name}", repr(now)),
                created_at=now,
                labels=gang_labels(owner.metadata.name, members.name, DEFAULT_SCHEDULER, owner.metadata.labels),
                annotations=gang_annotations(blueprint.topology_name, owner.metadata.annotations),
                owner_uid=owner.metadata.uid,
            ),
            set_name=owner.metadata.name,
            set_uid=owner.metadata.uid,
            copy=copy,
            group=members.group,
            group_replica=members.group_replica,
            base_gang=members.base,
            set_created_at=owner.metadata.created_at,
            pod_groups=pod_groups,
            topology_constraint=blueprint.constraint,
            topology_groups=members.topology_groups,
            topology_name=blueprint.topology_name,
            topology_error=blueprint.topology_error,
            priority_class_name=blueprint.priority_class_name,
            priority=blueprint.priority.value,
            preemption_policy=blueprint.priority.preemption_policy,
        )
    return _follow(blueprint, members, staying(observed), pod_groups)


def _follow(blueprint: Blueprint, members: GangMembers, observed: PodGang, pod_groups: tuple[PodGroup, ...]) -> PodGang:
    """Return *observed* with what changed; the same object if nothing did."""
    owner = blueprint.pod_clique_set
    labels = gang_labels(owner.metadata.name, members.name, DEFAULT_SCHEDULER, owner.metadata.labels)
    annotations = gang_annotations(blueprint.topology_name, owner.metadata.annotations)
    value, policy = _priority(blueprint, observed)
    same_spec = (
        pod_groups == observed.pod_groups
        and blueprint.constraint == observed.topology_constraint
        and members.topology_groups == observed.topology_groups
        and blueprint.topology_name == observed.topology_name
        and blueprint.topology_error == observed.topology_error
        and blueprint.priority_class_name == observed.priority_class_name
        and (value, policy) == (observed.priority, observed.preemption_policy)
    )
    if same_spec and labels == observed.metadata.labels and annotations == observed.metadata.annotations:
        return observed
    generation = observed.metadata.generation + (0 if same_spec else 1)
    return replace(
        observed,
        metadata=replace(observed.metadata, generation=generation, labels=labels, annotations=annotations),
        pod_groups=pod_groups,
        topology_constraint=blueprint.constraint,
        topology_groups=members.topology_groups,
        topology_name=blueprint.topology_name,
        topology_error=blueprint.topology_error,
        priority_class_name=blueprint.priority_class_name,
        priority=value,
        preemption_policy=policy,
    )


def _priority(blueprint: Blueprint, observed: PodGang) -> tuple[int, str]:
    """Return priority and preemption policy; those of a class that is gone stay, as pods' do in Kubernetes."""
    priority = blueprint.priority
    if not priority.is_known and observed.priority_class_name == blueprint.priority_class_name:
        return observed.priority, observed.preemption_policy
    return priority.value, priority.preemption_policy


def _counts(state: CliqueState) -> PodGroupCounts:
    counts = state.counts
    return PodGroupCounts(state.minimum, counts.active, counts.scheduled, counts.ready, counts.failed, counts.succeeded)
