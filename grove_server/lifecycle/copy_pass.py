"""One pass over one copy of a set: from what is to what should be, as one plan.

The pass is level-triggered: it looks at the state alone, so it may run at any time, any number of times. Start order,
gang termination and rolling updates will decide here too; their decisions come between the sizes and the statuses.
"""

from __future__ import annotations

from dataclasses import replace

from grove_server.lifecycle.availability import PodCounts
from grove_server.lifecycle.blueprint import Blueprint, CliqueBlueprint, GroupBlueprint
from grove_server.lifecycle.clique_pass import CliqueTarget, plan_clique, remove_pod, with_status
from grove_server.lifecycle.copy import CliqueState, CopySummary, CopyView
from grove_server.lifecycle.gang_pass import plan_gangs
from grove_server.lifecycle.group_pass import is_group_available, plan_group, with_group_status
from grove_server.lifecycle.plan import Plan
from grove_server.lifecycle.start_order import parents_of
from grove_server.resources.names import (
    base_gang,
    headless_service,
    member_clique,
    scaled_gang,
    standalone_clique,
)
from grove_server.resources.workload import (
    NO_GROUP_REPLICA,
    CliqueIdentity,
    GangSummary,
    PodCliqueScalingGroup,
    PodGang,
)


def plan_copy(blueprint: Blueprint, view: CopyView, *, now: float) -> tuple[Plan, CopySummary]:
    """Return what to do for one wanted copy, and its summary after the plan is carried out."""
    plan = Plan()
    owner = blueprint.pod_clique_set
    copy = view.copy
    planned: set[str] = set()
    standalone = [_plan_standalone(plan, blueprint, view, c, now) for c in blueprint.standalone]
    planned.update(state.clique.metadata.name for state in standalone)
    groups: dict[str, dict[int, list[CliqueState]]] = {}
    group_objects = []
    for group_blueprint in blueprint.groups:
        observed = view.groups.get(group_blueprint.name)
        group = plan_group(plan, group_blueprint, observed, owner, copy, now)
        replicas = {
            j: [_plan_member(plan, blueprint, view, group, group_blueprint, c, j, now) for c in group_blueprint.cliques]
            for j in range(group.replicas)
        }
        planned.update(state.clique.metadata.name for states in replicas.values() for state in states)
        group = with_group_status(group, replicas, now=now)
        if observed is None:
            plan.creates.append(group)
        elif group is not observed:
            plan.updates.append(group)
        groups[group_blueprint.name] = replicas
        group_objects.append(group)
    _remove_cliques(plan, view, keep=planned, now=now)
    gangs = plan_gangs(plan, blueprint, view, standalone, groups, now=now)
    return plan, _summarise(copy, standalone, groups, group_objects, gangs)


def plan_removal(view: CopyView, *, now: float) -> tuple[Plan, CopySummary]:
    """Return what to do for a copy that is no longer wanted: pods first, then what they belonged to."""
    plan = Plan()
    _remove_cliques(plan, view, keep=set(), now=now)
    if not any(pod.node for pods in view.pods.values() for pod in pods):
        plan.deletes.extend(view.gangs.values())
        plan.deletes.extend(view.groups.values())
        return plan, CopySummary(copy=view.copy, exists=False)
    return plan, CopySummary(copy=view.copy, exists=True)


def _remove_cliques(plan: Plan, view: CopyView, *, keep: set[str], now: float) -> None:
    """Remove cliques that are not wanted: their pods are asked to stop; a clique goes when none is left."""
    for name in sorted(view.cliques.keys() | view.pods.keys()):
        if name in keep:
            continue
        pods = view.pods.get(name, ())
        for pod in pods:
            remove_pod(plan, pod, now)
        clique = view.cliques.get(name)
        if clique is None:
            continue
        stopping = sum(1 for pod in pods if pod.node)
        if not stopping:
            plan.deletes.append(clique)
            continue
        told = with_status(clique, PodCounts(terminating=stopping), now)
        if told is not clique:
            plan.updates.append(told)


def _plan_standalone(
    plan: Plan, blueprint: Blueprint, view: CopyView, clique: CliqueBlueprint, now: float
) -> CliqueState:
    metadata = blueprint.pod_clique_set.metadata
    name = standalone_clique(metadata.name, view.copy, clique.name)
    observed = view.cliques.get(name)
    identity = (
        observed.identity
        if observed
        else CliqueIdentity(
            set_name=metadata.name,
            set_uid=metadata.uid,
            copy=view.copy,
            clique=clique.name,
            name=name,
            gang=base_gang(metadata.name, view.copy),
            headless_service=headless_service(metadata.name, view.copy),
        )
    )
    target = CliqueTarget(
        blueprint=clique,
        identity=identity,
        starts_after=observed.starts_after if observed else parents_of(blueprint, view.copy, clique, NO_GROUP_REPLICA),
        owner_uid=metadata.uid,
    )
    return plan_clique(plan, target, observed, view.pods.get(name, ()), now=now)


def _plan_member(
    plan: Plan,
    blueprint: Blueprint,
    view: CopyView,
    group: PodCliqueScalingGroup,
    group_blueprint: GroupBlueprint,
    clique: CliqueBlueprint,
    group_replica: int,
    now: float,
) -> CliqueState:
    name = member_clique(group.metadata.name, group_replica, clique.name)
    observed = view.cliques.get(name)
    target = CliqueTarget(
        blueprint=clique,
        identity=_with_group_counts(observed.identity, group_blueprint, clique)
        if observed
        else _member_identity(blueprint, view.copy, group, group_blueprint, clique, group_replica),
        starts_after=observed.starts_after if observed else parents_of(blueprint, view.copy, clique, group_replica),
        owner_uid=group.metadata.uid,
    )
    return plan_clique(plan, target, observed, view.pods.get(name, ()), now=now)


def _member_identity(
    blueprint: Blueprint,
    copy: int,
    group: PodCliqueScalingGroup,
    group_blueprint: GroupBlueprint,
    clique: CliqueBlueprint,
    group_replica: int,
) -> CliqueIdentity:
    metadata = blueprint.pod_clique_set.metadata
    group_name = group.metadata.name
    base = base_gang(metadata.name, copy)
    in_base = group_replica < group_blueprint.min_available
    return CliqueIdentity(
        set_name=metadata.name,
        set_uid=metadata.uid,
        copy=copy,
        group=group_blueprint.name,
        group_name=group_name,
        group_replica=group_replica,
        clique=clique.name,
        name=member_clique(group_name, group_replica, clique.name),
        gang=base if in_base else scaled_gang(group_name, group_replica, group_blueprint.min_available),
        base_gang="" if in_base else base,
        headless_service=headless_service(metadata.name, copy),
        group_pod_count=group_blueprint.pod_count,
        group_pod_offset=clique.group_pod_offset,
    )


def _with_group_counts(
    identity: CliqueIdentity, group_blueprint: GroupBlueprint, clique: CliqueBlueprint
) -> CliqueIdentity:
    """Return *identity* with the template's present counts, which new pods find in their environment."""
    pod_count, offset = group_blueprint.pod_count, clique.group_pod_offset
    if identity.group_pod_count == pod_count and identity.group_pod_offset == offset:
        return identity
    return replace(identity, group_pod_count=pod_count, group_pod_offset=offset)


def _summarise(
    copy: int,
    standalone: list[CliqueState],
    groups: dict[str, dict[int, list[CliqueState]]],
    group_objects: list[PodCliqueScalingGroup],
    gangs: list[PodGang],
) -> CopySummary:
    members = [state for replicas in groups.values() for states in replicas.values() for state in states]
    states = standalone + members
    return CopySummary(
        copy=copy,
        exists=True,
        available=all(s.is_scheduled and s.is_available for s in standalone)
        and all(is_group_available(group) for group in group_objects),
        updated=all(s.is_updated for s in states),
        gangs=tuple(
            GangSummary(
                name=gang.metadata.name,
                phase=gang.status.phase,
                reason=gang.status.reason,
                conditions=gang.status.conditions,
            )
            for gang in gangs
        ),
        sizes=_sizes(states, group_objects),
    )


def _sizes(states: list[CliqueState], groups: list[PodCliqueScalingGroup]) -> dict[tuple[str, str], tuple[int, int]]:
    sizes: dict[tuple[str, str], tuple[int, int]] = {}
    for state in states:
        key = ("clique", state.clique.identity.clique)
        wanted, ready = sizes.get(key, (0, 0))
        sizes[key] = (wanted + state.clique.replicas, ready + state.counts.ready)
    for group in groups:
        sizes["group", group.group] = (group.replicas, group.status.available_replicas)
    return sizes
