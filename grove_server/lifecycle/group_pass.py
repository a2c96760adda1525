"""One scaling group's part of a pass: its live size and its status, counted in group replicas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from grove_server.lifecycle.availability import MIN_AVAILABLE_BREACHED, UPDATE_IN_PROGRESS
from grove_server.lifecycle.blueprint import GroupBlueprint
from grove_server.lifecycle.copy import CliqueState
from grove_server.lifecycle.identifiers import derive_uid
from grove_server.lifecycle.plan import EVENT_WARNING, Note, Plan
from grove_server.lifecycle.removal import staying
from grove_server.lifecycle.termination import NO_TERMINATION, RecycledUnit, Termination, with_record
from grove_server.resources.labels import scaling_group_labels, selector_of_group
from grove_server.resources.meta import Condition, Kind, Metadata, find_condition, with_condition
from grove_server.resources.names import scaling_group
from grove_server.resources.replacing import replace
from grove_server.resources.workload import (
    PodCliqueScalingGroup,
    PodCliqueSet,
    ScaleOwner,
    ScalingGroupStatus,
)

GANG_TERMINATION_IN_PROGRESS = "GangTerminationInProgress"


def plan_group(
    plan: Plan,
    blueprint: GroupBlueprint,
    observed: PodCliqueScalingGroup | None,
    owner: PodCliqueSet,
    copy: int,
    now: float,
) -> PodCliqueScalingGroup:
    """Return the group as it should be now; its status comes when its cliques are known."""
    if observed is None:
        return _create_group(blueprint, owner, copy, now)
    observed = staying(observed)
    replicas, scale_owner = observed.replicas, observed.scale_owner
    if blueprint.replicas != observed.template_replicas:
        if scale_owner is ScaleOwner.AUTOSCALER:
            plan.notes.append(_scale_kept(observed, blueprint.replicas))
        else:
            replicas, scale_owner = blueprint.replicas, ScaleOwner.SPEC
    changed = replace(
        observed,
        replicas=replicas,
        scale_owner=scale_owner,
        template_replicas=blueprint.replicas,
        scale_config=blueprint.template.scale_config,
        topology_constraint=blueprint.template.topology_constraint,
    )
    if changed == observed:
        return observed
    return replace(changed, metadata=replace(observed.metadata, generation=observed.metadata.generation + 1))


def with_group_status(
    group: PodCliqueScalingGroup,
    replicas: Mapping[int, Sequence[CliqueState]],
    termination: Termination = NO_TERMINATION,
    *,
    now: float,
    is_updating: bool = False,
) -> PodCliqueScalingGroup:
    """Return *group* with the status its cliques make true; the same object if nothing changed.

    *replicas* maps each group replica's index to the states of its cliques. At size 0 the group is absent: never
    breached. *termination* is what of the copy is recycled in this pass.
    """
    scheduled = sum(1 for states in replicas.values() if all(s.is_scheduled for s in states))
    available = sum(1 for states in replicas.values() if all(s.is_scheduled and s.is_available for s in states))
    updated = sum(1 for states in replicas.values() if all(s.is_updated for s in states))
    healthy = sum(1 for states in replicas.values() if not any(_is_breached(s) for s in states))
    minimum = min(group.min_available, group.replicas)
    breached = healthy < minimum
    old = group.status
    generation = group.metadata.generation
    conditions = with_condition(
        old.conditions,
        Condition(
            type=MIN_AVAILABLE_BREACHED,
            status="Unknown" if is_updating else "True" if breached else "False",
            reason=UPDATE_IN_PROGRESS
            if is_updating
            else "InsufficientAvailablePodCliqueScalingGroupReplicas"
            if breached
            else "SufficientAvailablePodCliqueScalingGroupReplicas",
            message=f"{healthy} of at least {minimum} group replicas are whole",
            last_transition_at=now,
            observed_generation=generation,
        ),
    )
    first = None if old.first_available_at is None else min(old.first_available_at, now)
    if termination.copy is not None:
        first = None
    elif first is None and minimum > 0 and not breached:
        first = now
    conditions = _with_termination(conditions, termination.copy, breached, generation, now)
    status = ScalingGroupStatus(
        observed_generation=generation,
        # As in a Deployment, those that are there for the time of an update count.
        replicas=len(replicas),
        scheduled_replicas=scheduled,
        available_replicas=available,
        updated_replicas=updated,
        selector=old.selector or selector_of_group(group.set_name, group.metadata.name),
        conditions=conditions,
        current_set_hash=old.current_set_hash,
        update_progress=old.update_progress,
        first_available_at=first,
        recycles=with_record(old.recycles, termination.of_group(group.group)) if termination.units else old.recycles,
    )
    return group if status == old else replace(group, status=status)


def _with_termination(
    conditions: tuple[Condition, ...],
    recycled: RecycledUnit | None,
    breached: bool,  # noqa: FBT001 -- the status of a condition
    generation: int,
    now: float,
) -> tuple[Condition, ...]:
    """Say that the copy was recycled and the group is not back yet; a group that never was says nothing."""
    if recycled is not None:
        status, reason, message = "True", "GangTerminationActive", recycled.record.message
    else:
        active = find_condition(conditions, GANG_TERMINATION_IN_PROGRESS)
        if active is None or active.status != "True" or breached:
            return conditions
        status, reason, message = "False", "GangTerminationOver", "the group has its minimum again"
    return with_condition(
        conditions,
        Condition(
            type=GANG_TERMINATION_IN_PROGRESS,
            status=status,
            reason=reason,
            message=message,
            last_transition_at=now,
            observed_generation=generation,
        ),
    )


def is_group_available(group: PodCliqueScalingGroup) -> bool:
    """Return whether enough group replicas serve; a group at size 0 asks for none."""
    return group.status.available_replicas >= min(group.min_available, group.replicas)


def _is_breached(state: CliqueState) -> bool:
    condition = find_condition(state.clique.status.conditions, MIN_AVAILABLE_BREACHED)
    return condition is not None and condition.status == "True"


def _create_group(blueprint: GroupBlueprint, owner: PodCliqueSet, copy: int, now: float) -> PodCliqueScalingGroup:
    set_name = owner.metadata.name
    name = scaling_group(set_name, copy, blueprint.name)
    return PodCliqueScalingGroup(
        metadata=Metadata(
            name=name,
            namespace=owner.metadata.namespace,
            uid=derive_uid(owner.metadata.uid, name, repr(now)),
            created_at=now,
            labels=scaling_group_labels(set_name, copy, name),
            owner_uid=owner.metadata.uid,
        ),
        set_name=set_name,
        set_uid=owner.metadata.uid,
        copy=copy,
        group=blueprint.name,
        clique_names=blueprint.template.clique_names,
        replicas=blueprint.replicas,
        min_available=blueprint.min_available,
        scale_config=blueprint.template.scale_config,
        topology_constraint=blueprint.template.topology_constraint,
        template_replicas=blueprint.replicas,
    )


def _scale_kept(group: PodCliqueScalingGroup, wanted: int) -> Note:
    return Note(
        kind=Kind.POD_CLIQUE_SCALING_GROUP,
        namespace=group.metadata.namespace,
        name=group.metadata.name,
        uid=group.metadata.uid,
        reason="ScaleOwnedByAutoscaler",
        message=f"the template now says {wanted} replicas, but the autoscaler owns the size: it stays {group.replicas}",
        type=EVENT_WARNING,
    )
