"""One pass over one copy of a set: from what is to what should be, as one plan.

The pass is level-triggered: it looks at the state alone, so it may run at any time, any number of times. What a pass
knows of the set's level comes as orders.
"""

from __future__ import annotations

from collections.abc import Mapping

from grove_server.lifecycle.availability import PodCounts
from grove_server.lifecycle.blueprint import Blueprint, CliqueBlueprint, GroupBlueprint
from grove_server.lifecycle.clique_pass import CliqueTarget, plan_clique, record_clique, with_status
from grove_server.lifecycle.copy import CliqueState, CopySummary, CopyView
from grove_server.lifecycle.evacuation import plan_evacuation
from grove_server.lifecycle.gang_pass import plan_gangs
from grove_server.lifecycle.gang_status import is_displaced
from grove_server.lifecycle.group_numbers import number_pods
from grove_server.lifecycle.group_pass import is_group_available, plan_group, with_group_status
from grove_server.lifecycle.orders import NO_ORDERS, CopyOrders
from grove_server.lifecycle.plan import Plan
from grove_server.lifecycle.removal import StopReason, continue_drains, leaving, stop_pod
from grove_server.lifecycle.rollout.child_progress import with_group_progress
from grove_server.lifecycle.rollout.copy_rollout import plan_rollout, source_of
from grove_server.lifecycle.rollout.publishing import publish_revision, with_pods
from grove_server.lifecycle.start_order import keep_order, parents_of
from grove_server.lifecycle.stuck import remove_stuck
from grove_server.lifecycle.termination import NO_TERMINATION, Termination, decide_termination, recycle_note
from grove_server.resources.names import (
    base_gang,
    headless_service,
    member_clique,
    scaled_gang,
    standalone_clique,
)
from grove_server.resources.replacing import replace
from grove_server.resources.workload import (
    CliqueIdentity,
    GangSummary,
    Pod,
    PodCliqueScalingGroup,
    PodGang,
)

_Groups = dict[str, dict[int, list[CliqueState]]]


def plan_copy(
    blueprint: Blueprint, view: CopyView, orders: CopyOrders = NO_ORDERS, *, now: float
) -> tuple[Plan, CopySummary]:
    """Return what to do for one wanted copy, and its summary after the plan is carried out."""
    return _CopyPass(blueprint, view, orders, now).run()


def plan_removal(view: CopyView, orders: CopyOrders = NO_ORDERS, *, now: float) -> tuple[Plan, CopySummary]:
    """Return what to do for a copy that is no longer wanted: pods first, then what they belonged to."""
    plan = Plan()
    if not remove_cliques(plan, view, set(), orders, now):
        plan.deletes.extend(view.gangs.values())
        plan.deletes.extend(view.groups.values())
        return plan, CopySummary(copy=view.copy, exists=False)
    plan.updates.extend(leaving(gang, now) for gang in view.gangs.values() if gang.metadata.deleted_at is None)
    plan.updates.extend(leaving(group, now) for group in view.groups.values() if group.metadata.deleted_at is None)
    return plan, CopySummary(copy=view.copy, exists=True)


def remove_cliques(plan: Plan, view: CopyView, keep: set[str], orders: CopyOrders, now: float) -> int:
    """Remove cliques that are not wanted: their pods are stopped; a clique goes when none is left, and says so before.

    Return how many pods are still to stop.
    """
    left = 0
    for name in sorted(view.cliques.keys() | view.pods.keys()):
        if name in keep:
            continue
        pods = remove_stuck(plan, view.pods.get(name, ()), orders, now)
        continue_drains(plan, pods, orders, now)
        for pod in pods:
            stop_pod(plan, pod, StopReason.SCALE_IN, orders, now)
        stopping = sum(1 for pod in pods if pod.node)
        left += stopping
        clique = view.cliques.get(name)
        if clique is None:
            continue
        if not stopping:
            plan.deletes.append(clique)
            continue
        told = with_status(leaving(clique, now), PodCounts(terminating=stopping), now)
        if told is not clique:
            plan.updates.append(told)
    return left


class _CopyPass:
    """The pass over one wanted copy; used once.

    Whether something is recycled follows from the states that a pass ends with. So that pass is then made again from
    the beginning, knowing what is recycled.
    """

    def __init__(
        self,
        blueprint: Blueprint,
        view: CopyView,
        orders: CopyOrders,
        now: float,
        termination: Termination = NO_TERMINATION,
    ) -> None:
        self._termination = termination
        self._blueprint = blueprint
        self._owner = blueprint.pod_clique_set
        self._view = view
        self._orders = orders
        self._now = now
        self._plan = Plan()
        self._evacuation = plan_evacuation(blueprint, view, orders, now)
        self._displaced = {name for name, gang in view.gangs.items() if is_displaced(gang)}
        # What leaves its node serves nobody any more: the update has what that leaves of the budget.
        left = self._evacuation.after(view, now) if self._evacuation.pods else view
        self._rollout = plan_rollout(blueprint, left, orders.update, orders.loads)

    def run(self) -> tuple[Plan, CopySummary]:
        plan, view, now = self._plan, self._view, self._now
        if self._evacuation.wake_at is not None:
            plan.wake(self._evacuation.wake_at)
        standalone = [self._standalone(clique) for clique in self._blueprint.standalone]
        sized = {
            drawn.name: plan_group(plan, drawn, view.groups.get(drawn.name), self._owner, view.copy, now)
            for drawn in self._blueprint.groups
        }
        groups: _Groups = {
            drawn.name: {
                j: [self._member(sized[drawn.name], drawn, c, j) for c in drawn.cliques]
                for j in range(sized[drawn.name].replicas + self._rollout.surge.get(drawn.name, 0))
            }
            for drawn in self._blueprint.groups
        }
        numbered = number_pods(plan, self._blueprint, groups)
        standalone, groups = self._in_order(*self._published(standalone, _with_pods(groups, numbered)))
        planned = set()
        for state in _all_states(standalone, groups):
            name = state.clique.metadata.name
            planned.add(name)
            record_clique(plan, view.cliques.get(name), state.clique)
        group_objects = [self._group(sized[name], replicas) for name, replicas in groups.items()]
        remove_cliques(plan, view, planned, self._orders, now)
        gangs = plan_gangs(plan, self._blueprint, view, standalone, groups, self._termination, now=now)
        whole = {group.group: (group, groups[group.group]) for group in group_objects}
        decided = decide_termination(self._blueprint, standalone, whole, now)
        if decided.units and not self._termination.units:
            return _CopyPass(self._blueprint, view, self._orders, now, decided).run()
        if decided.wake_at is not None:
            plan.wake(decided.wake_at)
        if self._rollout.goes_on and not plan.is_empty:
            # NB: a pass that changes nothing must not ask for another at once, or it would be made for ever.
            plan.wake(now)
        return plan, _summarise(self._blueprint, view.copy, standalone, groups, group_objects, gangs)

    def _published(self, standalone: list[CliqueState], groups: _Groups) -> tuple[list[CliqueState], _Groups]:
        """Let pods that an update does not replace say that they belong to the set's revision."""
        changed = publish_revision(self._plan, standalone, groups, self._owner.revision.hash)
        if not changed:
            return standalone, groups
        return [with_pods(state, changed) for state in standalone], _with_pods(groups, changed)

    def _in_order(self, standalone: list[CliqueState], groups: _Groups) -> tuple[list[CliqueState], _Groups]:
        """Let those pods start whose parents serve."""
        states = _all_states(standalone, groups)
        kept = iter(keep_order(self._plan, self._blueprint, self._view.copy, states, self._now))
        return [next(kept) for _ in standalone], {
            name: {j: [next(kept) for _ in states] for j, states in replicas.items()}
            for name, replicas in groups.items()
        }

    def _group(self, sized: PodCliqueScalingGroup, replicas: dict[int, list[CliqueState]]) -> PodCliqueScalingGroup:
        observed = self._view.groups.get(sized.group)
        updating = any(self._rollout.is_updating(name) for name in sized.clique_names)
        group = with_group_status(sized, replicas, self._termination, now=self._now, is_updating=updating)
        group = with_group_progress(
            group,
            replicas,
            self._owner.revision.hash,
            selected=self._rollout.chosen.get(group.group, ()),
            has_turn=self._rollout.order is not None,
            is_over_at_once=self._rollout.is_over_at_once,
            now=self._now,
        )
        for record in self._termination.of_group(group.group):
            self._plan.notes.append(recycle_note(group, record))
        if observed is None:
            self._plan.creates.append(group)
        elif group is not observed:
            self._plan.updates.append(group)
        return group

    def _standalone(self, clique: CliqueBlueprint) -> CliqueState:
        metadata, copy = self._owner.metadata, self._view.copy
        name = standalone_clique(metadata.name, copy, clique.name)
        observed = self._view.cliques.get(name)
        identity = (
            observed.identity
            if observed
            else CliqueIdentity(
                set_name=metadata.name,
                set_uid=metadata.uid,
                copy=copy,
                clique=clique.name,
                name=name,
                gang=base_gang(metadata.name, copy),
                headless_service=headless_service(metadata.name, copy),
            )
        )
        return self._clique(clique, identity, metadata.uid)

    def _member(
        self, group: PodCliqueScalingGroup, drawn: GroupBlueprint, clique: CliqueBlueprint, group_replica: int
    ) -> CliqueState:
        observed = self._view.cliques.get(member_clique(group.metadata.name, group_replica, clique.name))
        identity = (
            _with_group_counts(observed.identity, drawn, clique)
            if observed
            else _member_identity(self._blueprint, self._view.copy, group, drawn, clique, group_replica)
        )
        return self._clique(clique, identity, group.metadata.uid)

    def _clique(self, clique: CliqueBlueprint, identity: CliqueIdentity, owner_uid: str) -> CliqueState:
        view = self._view
        observed = view.cliques.get(identity.name)
        source = source_of(self._rollout, view, identity.name, clique, self._owner.revision.hash)
        target = CliqueTarget(
            blueprint=clique,
            identity=identity,
            starts_after=observed.starts_after
            if observed
            else parents_of(self._blueprint, view.copy, clique, identity.group_replica),
            owner_uid=owner_uid,
            recycle_count=self._termination.count_of(identity.name),
            template=source.template,
            revision=source.revision,
            rollout=self._rollout.of(identity.name),
            is_updating=self._rollout.is_updating(clique.name),
            is_over_at_once=self._rollout.is_over_at_once,
            evacuation=self._evacuation,
            is_displaced=identity.gang in self._displaced,
        )
        pods = view.pods.get(identity.name, ())
        return plan_clique(self._plan, target, observed, pods, orders=self._orders, now=self._now)


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


def _with_pods(groups: _Groups, changed: Mapping[str, Pod]) -> _Groups:
    if not changed:
        return groups
    return {
        name: {j: [with_pods(state, changed) for state in states] for j, states in replicas.items()}
        for name, replicas in groups.items()
    }


def _all_states(standalone: list[CliqueState], groups: _Groups) -> list[CliqueState]:
    """Return the states of all cliques: standalone ones first, then group by group, replica by replica."""
    return standalone + [state for replicas in groups.values() for states in replicas.values() for state in states]


def _summarise(
    blueprint: Blueprint,
    copy: int,
    standalone: list[CliqueState],
    groups: _Groups,
    group_objects: list[PodCliqueScalingGroup],
    gangs: list[PodGang],
) -> CopySummary:
    states = _all_states(standalone, groups)
    hashes = blueprint.pod_clique_set.revision.clique_hashes
    behind = any(s.clique.template.hash != hashes[s.clique.identity.clique] for s in states)
    return CopySummary(
        copy=copy,
        exists=True,
        available=all(s.is_scheduled and s.is_available for s in standalone)
        and all(is_group_available(group) for group in group_objects),
        # Only the base gang stands for the copy; a copy without one has nothing that could be lost.
        has_served=any(not gang.base_gang and gang.status.first_ready_at is not None for gang in gangs),
        updated=all(s.is_updated for s in states),
        revision=blueprint.pod_clique_set.revision.hash,
        is_behind=behind,
        has_old=behind or any(s.counts.updated < s.counts.active for s in states),
        has_surge=any(len(groups[group.group]) > group.replicas for group in group_objects),
        is_placed=any(s.counts.scheduled for s in states),
        reached=sum(s.counts.updated + s.counts.updated_ready for s in states),
        updated_cliques=sum(s.is_updated for s in standalone),
        updated_groups=sum(all(s.is_updated for m in replicas.values() for s in m) for replicas in groups.values()),
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
