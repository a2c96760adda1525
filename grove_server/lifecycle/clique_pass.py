"""One clique's part of a pass: how many pods, which indices, who goes, and what is true of it now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from grove_server.lifecycle.availability import PodCounts, clique_conditions, count_pods
from grove_server.lifecycle.blueprint import CliqueBlueprint
from grove_server.lifecycle.copy import CliqueState
from grove_server.lifecycle.evacuation import NO_EVACUATION, Evacuation
from grove_server.lifecycle.identifiers import derive_uid
from grove_server.lifecycle.orders import CopyOrders
from grove_server.lifecycle.plan import EVENT_WARNING, Note, Plan
from grove_server.lifecycle.removal import StopReason, continue_drains, staying, stop_pod
from grove_server.lifecycle.rollout.child_progress import with_clique_progress
from grove_server.lifecycle.rollout.copy_rollout import NO_ROLLOUT, CliqueRollout, is_outdated
from grove_server.lifecycle.stuck import remove_stuck
from grove_server.lifecycle.victims import victim_order
from grove_server.resources.labels import SET_REVISION, clique_labels, pod_labels, selector_of_clique
from grove_server.resources.meta import Kind, Metadata, with_condition
from grove_server.resources.names import pod_name
from grove_server.resources.reference import SharedTemplate
from grove_server.resources.replacing import replace
from grove_server.resources.workload import (
    CliqueIdentity,
    Pod,
    PodClique,
    PodCliqueStatus,
    PodPhase,
    ScaleOwner,
)

GATED_REASON = "SchedulingGated"
GATED_MESSAGE = "waiting for its gang to be placed"

# Kubelet's back-off for containers, used here for pods that failed for good and are replaced: the first replacement
# comes at once, repetitions wait, and a pod that ran long enough counts as the first.
REPLACEMENT_DELAY_FIRST_S = 10.0
REPLACEMENT_DELAY_MAX_S = 300.0
REPLACEMENT_FORGOTTEN_S = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CliqueTarget:
    """What a clique should be in this copy.

    Pods are made from ``template`` and belong to ``revision`` of the set; ``rollout`` is what an update under way asks.
    A ``recycle_count`` above 0 says that all its pods are replaced now, and which recycle in a row that is.
    ``is_over_at_once`` says that an update stops nothing. ``evacuation`` names pods that leave their nodes.
    ``is_displaced``: its gang had to leave for another one and has no places yet.
    """

    blueprint: CliqueBlueprint
    identity: CliqueIdentity
    starts_after: tuple[str, ...]
    owner_uid: str
    template: SharedTemplate
    revision: str
    recycle_count: int = 0
    rollout: CliqueRollout = NO_ROLLOUT
    is_updating: bool = False
    is_over_at_once: bool = False
    evacuation: Evacuation = NO_EVACUATION
    is_displaced: bool = False


def plan_clique(
    plan: Plan,
    target: CliqueTarget,
    observed: PodClique | None,
    pods: Sequence[Pod],
    *,
    orders: CopyOrders,
    now: float,
) -> CliqueState:
    """Plan one clique: add or remove pods, compute what it should be and its status.

    Changes of pods are appended to *plan*; that of the clique is left to ``record_clique``.
    """
    clique = _create_clique(target, now) if observed is None else _follow_template(plan, target, staying(observed))
    if target.recycle_count:
        clique = _recycled(clique, target.recycle_count, now)
    active = [pod for pod in pods if pod.is_active]
    going = [pod for pod in pods if pod.is_terminating or pod.is_draining]
    finished = (
        [pod for pod in pods if not pod.is_active and pod not in going] if len(active) + len(going) < len(pods) else []
    )
    if going:
        remove_unplaced_terminating(plan, going)
        going = remove_stuck(plan, going, orders, now)
        continue_drains(plan, going, orders, now)
    selected = [pod.metadata.name for pod in active if pod.is_ready and pod.metadata.name in target.rollout.stop]
    sized = _size(plan, target, clique, active, finished, going, orders, now)
    clique, active = sized.clique, sized.active
    active.sort(key=_by_index)
    counts = count_pods(active, target.blueprint.pod_template.hash)
    if counts.updated < counts.active:
        active = _relabel(plan, clique, active)
        counts = count_pods(active, target.blueprint.pod_template.hash)
    # Counted as it is after the plan: a plan is complete, so nobody would come back to correct it.
    counts.terminating = sum(1 for pod in going if pod.node) + sized.stopping
    counts.failed = sum(1 for pod in sized.waiting if pod.phase is PodPhase.FAILED)
    counts.succeeded = len(sized.waiting) - counts.failed
    clique = with_status(clique, counts, now, is_updating=target.is_updating, is_displaced=target.is_displaced)
    clique = with_clique_progress(
        clique,
        active,
        counts,
        selected=selected,
        present={pod.metadata.name for pod in going}.union(selected),
        is_over_at_once=target.is_over_at_once,
        now=now,
    )
    return CliqueState(clique=clique, pods=tuple(active), counts=counts)


def record_clique(plan: Plan, observed: PodClique | None, clique: PodClique) -> None:
    """Append to *plan* what became of a clique when everything is known of it."""
    if observed is None:
        plan.creates.append(clique)
    elif clique is not observed:
        plan.updates.append(clique)


def with_status(
    clique: PodClique, counts: PodCounts, now: float, *, is_updating: bool = False, is_displaced: bool = False
) -> PodClique:
    """Return *clique* with the status that *counts* make true; the same object if nothing changed."""
    old = clique.status
    generation = clique.metadata.generation
    conditions = old.conditions
    for condition in clique_conditions(
        counts,
        replicas=clique.replicas,
        min_available=clique.min_available,
        generation=generation,
        now=now,
        is_updating=is_updating,
        is_displaced=is_displaced,
    ):
        conditions = with_condition(conditions, condition)
    first = None if old.first_scheduled_at is None else min(old.first_scheduled_at, now)
    if first is None and 0 < min(clique.min_available, clique.replicas) <= counts.scheduled:
        first = now
    status = PodCliqueStatus(
        observed_generation=generation,
        replicas=counts.active,
        ready_replicas=counts.ready,
        updated_replicas=counts.updated,
        schedule_gated_replicas=counts.active - counts.scheduled,
        scheduled_replicas=counts.scheduled,
        terminating_replicas=counts.terminating,
        # Members of a group are not meant to be scaled by an autoscaler of their own, so they publish no selector.
        hpa_pod_selector=old.hpa_pod_selector
        or ("" if clique.identity.group else selector_of_clique(clique.identity.set_name, clique.identity.name)),
        conditions=conditions,
        current_set_hash=old.current_set_hash,
        current_pod_template_hash=old.current_pod_template_hash,
        update_progress=old.update_progress,
        first_scheduled_at=first,
        recycled_at=None if old.recycled_at is None else min(old.recycled_at, now),
        recycle_count=old.recycle_count,
    )
    return clique if status == old else replace(clique, status=status)


def _recycled(clique: PodClique, count: int, now: float) -> PodClique:
    """Return a clique whose pods gang termination replaces: whether it ever worked is to be seen anew."""
    status = replace(clique.status, first_scheduled_at=None, recycled_at=now, recycle_count=count)
    return replace(clique, status=status)


def remove_unplaced_terminating(plan: Plan, pods: Sequence[Pod]) -> None:
    """Forget pods that somebody deleted before they had a node, since nobody runs them."""
    plan.deletes.extend(pod for pod in pods if pod.is_terminating and not pod.node)


def free_indices(used: set[int], count: int) -> list[int]:
    """Return the *count* lowest indices that are not in *used*."""
    found: list[int] = []
    candidate = 0
    while len(found) < count:
        if candidate not in used:
            found.append(candidate)
        candidate += 1
    return found


def _by_index(pod: Pod) -> int:
    return pod.index


def _create_clique(target: CliqueTarget, now: float) -> PodClique:
    blueprint = target.blueprint
    identity = target.identity
    template = target.template
    return PodClique(
        metadata=Metadata(
            name=identity.name,
            namespace=blueprint.pod_template.metadata.namespace,
            uid=derive_uid(target.owner_uid, identity.name, repr(now)),
            created_at=now,
            labels=clique_labels(identity, template.labels, template.hash, target.revision),
            annotations=template.annotations,
            owner_uid=target.owner_uid,
        ),
        identity=identity,
        template=template,
        role_name=blueprint.template.spec.role_name or "",
        replicas=blueprint.replicas,
        min_available=blueprint.min_available,
        starts_after=target.starts_after,
        auto_scaling_config=blueprint.template.spec.auto_scaling_config,
        topology_constraint=blueprint.template.topology_constraint,
        template_replicas=blueprint.replicas,
    )


def _follow_template(plan: Plan, target: CliqueTarget, observed: PodClique) -> PodClique:
    """Return *observed* with what the template now says; its live size follows only an edit of the template's size."""
    blueprint = target.blueprint
    template = target.template
    replicas, owner = observed.replicas, observed.scale_owner
    if blueprint.replicas != observed.template_replicas:
        if owner is ScaleOwner.AUTOSCALER:
            plan.notes.append(scale_kept_note(observed, blueprint.replicas, replicas))
        else:
            replicas, owner = blueprint.replicas, ScaleOwner.SPEC
    config = blueprint.template.spec.auto_scaling_config
    is_of_revision = observed.metadata.labels.get(SET_REVISION, "") == target.revision
    is_same = (
        replicas == observed.replicas
        and blueprint.replicas == observed.template_replicas
        and template.hash == observed.template.hash
        and config == observed.auto_scaling_config
        and target.identity == observed.identity
        and blueprint.template.topology_constraint == observed.topology_constraint
    )
    if is_same and is_of_revision:
        return observed
    return replace(
        observed,
        metadata=replace(
            observed.metadata,
            generation=observed.metadata.generation + (not is_same),
            labels=clique_labels(observed.identity, template.labels, template.hash, target.revision),
            annotations=template.annotations,
        ),
        identity=target.identity,
        template=template,
        replicas=replicas,
        scale_owner=owner,
        template_replicas=blueprint.replicas,
        auto_scaling_config=config,
        topology_constraint=blueprint.template.topology_constraint,
    )


def scale_kept_note(resource: PodClique, wanted: int, kept: int) -> Note:
    """Return the warning that an edit of a template's size did nothing because the autoscaler owns the size."""
    return Note(
        kind=Kind.POD_CLIQUE,
        namespace=resource.metadata.namespace,
        name=resource.metadata.name,
        uid=resource.metadata.uid,
        reason="ScaleOwnedByAutoscaler",
        message=f"the template now says {wanted} replicas, but the autoscaler owns the size: it stays {kept}",
        type=EVENT_WARNING,
    )


class _Before(NamedTuple):
    """What a new pod takes over from its predecessor at the index: the freed place, and how often in a row it ended."""

    node: str = ""
    attempt: int = 0


_NOBODY: Final = _Before()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sized:
    """A clique at its size: ``stopping`` pods were asked to stop, ``waiting`` finished ones keep their place so far."""

    clique: PodClique
    active: list[Pod]
    waiting: list[Pod]
    stopping: int


def _size(
    plan: Plan,
    target: CliqueTarget,
    clique: PodClique,
    active: list[Pod],
    finished: list[Pod],
    going: list[Pod],
    orders: CopyOrders,
    now: float,
) -> _Sized:
    """Add missing pods, stop those beyond the size, and replace finished ones when their back-off is over."""
    recycled: list[Pod] = []
    if target.recycle_count:
        recycled, active, finished = [*active, *finished], [], []
    leaving: list[tuple[Pod, StopReason]] = [(pod, StopReason.RECYCLED) for pod in recycled]
    if target.rollout.stop or target.rollout.surplus or target.evacuation.pods:
        leaving += _leaving(plan, clique, target, active)
        out = {pod.metadata.name for pod, _ in leaving}
        active = [pod for pod in active if pod.metadata.name not in out]
    missing = clique.replicas + target.rollout.surge - len(active)
    waiting = _waiting(plan, target, finished, missing, now) if finished and missing > 0 else []
    leaving += [(pod, StopReason.REPLACED) for pod in finished if pod not in waiting] if finished else []
    if missing < 0:
        template_hash = target.blueprint.pod_template.hash
        active.sort(key=lambda pod: victim_order(pod, template_hash, orders.loads))
        leaving += [(pod, StopReason.SCALE_IN) for pod in active[:-missing]]
        active = active[-missing:]
    elif missing > len(waiting):
        before = {pod.index: _Before(node=_place(pod)) for pod in going if pod.stop_reason != StopReason.SCALE_IN}
        for pod, why in leaving:
            attempt = _next_attempt(target, pod) if why is StopReason.REPLACED else 0
            before[pod.index] = _Before(node=_place(pod), attempt=attempt)
        plan.because(f"{clique.metadata.name} lacks {missing - len(waiting)} of {clique.replicas} pods")
        used = {pod.index for pod in active} | {pod.index for pod in waiting}
        indices = free_indices(used, missing - len(waiting))
        for index in indices if orders.freed else ():
            if index not in before and (node := orders.freed.get((clique.metadata.uid, index))):
                before[index] = _Before(node=node)
        templates = _templates(target, active, len(indices))
        created = _create_pods(plan, clique, indices, before, templates, target.rollout.old_revision, now)
        clique = replace(clique, pod_serial=clique.pod_serial + len(created))
        active = active + created
    for pod, why in leaving:
        stop_pod(plan, pod, why, orders, now)
    return _Sized(clique=clique, active=active, waiting=waiting, stopping=sum(1 for pod, _ in leaving if pod.node))


def _place(pod: Pod) -> str:
    """Return the node a pod has, or that its own predecessor had if it never got one."""
    return pod.node or pod.previous_node


def _leaving(plan: Plan, clique: PodClique, target: CliqueTarget, active: list[Pod]) -> list[tuple[Pod, StopReason]]:
    """Return the active pods that leave their nodes, and those that an update replaces, with why."""
    leaving: list[tuple[Pod, StopReason]] = []
    outdated = surplus = 0
    for pod in active:
        why = target.evacuation.because_of(pod)
        if why is not None:
            leaving.append((pod, why))
        elif pod.metadata.name in target.rollout.stop:
            leaving.append((pod, StopReason.UPDATE))
            outdated += 1
        elif pod.metadata.name in target.rollout.surplus:
            leaving.append((pod, StopReason.SCALE_IN))
            surplus += 1
    if outdated:
        plan.because(f"{clique.metadata.name} replaces {outdated} pods of an old revision")
    if (left := len(leaving) - outdated - surplus) > 0:
        plan.because(f"{clique.metadata.name} takes {left} pods off nodes that are lost or drained")
    return leaving


def _waiting(plan: Plan, target: CliqueTarget, finished: list[Pod], missing: int, now: float) -> list[Pod]:
    """Return the finished pods in back-off: at most as many as are missing, since no other has a place to keep."""
    waiting = []
    for pod in sorted(finished, key=_by_index)[:missing]:
        due_at = 0.0 if _is_superseded(target, pod) else _replacement_due_at(pod, now)
        if due_at > now:
            waiting.append(pod)
            plan.wake(due_at)
    return waiting


def _create_pods(
    plan: Plan,
    clique: PodClique,
    indices: Sequence[int],
    before: Mapping[int, _Before],
    templates: Sequence[SharedTemplate],
    old_revision: str,
    now: float,
) -> list[Pod]:
    """Create pods at *indices*, each from its template; *before* knows of their predecessors there.

    Those that are not made from the clique's own template belong to *old_revision* of the set.
    """
    created = []
    identity = clique.identity
    uid = clique.metadata.uid
    is_ordered = bool(clique.starts_after)
    labels, template = clique.metadata.labels, clique.template
    for serial, (index, own) in enumerate(zip(indices, templates, strict=True), start=clique.pod_serial):
        if own is not template:
            revision = (
                clique.metadata.labels.get(SET_REVISION, "") if own.hash == clique.template.hash else old_revision
            )
            labels, template = clique_labels(identity, own.labels, own.hash, revision), own
        name = pod_name(identity.name, uid, serial)
        predecessor = before.get(index, _NOBODY)
        created.append(
            Pod(
                metadata=Metadata(
                    name=name,
                    namespace=clique.metadata.namespace,
                    uid=derive_uid(uid, name, str(serial)),
                    created_at=now,
                    labels=pod_labels(labels, identity.name, index),
                    annotations=template.annotations,
                    owner_uid=uid,
                ),
                identity=identity,
                index=index,
                attempt=predecessor.attempt,
                previous_node=predecessor.node,
                template=template,
                is_ordered=is_ordered,
                released_at=None if is_ordered else now,
                waiting_reason=GATED_REASON,
                waiting_message=GATED_MESSAGE,
            )
        )
    plan.creates.extend(created)
    return created


def _templates(target: CliqueTarget, active: Sequence[Pod], count: int) -> list[SharedTemplate]:
    """Return what *count* new pods are made from: the clique's template; the old one where the update holds back."""
    rollout = target.rollout
    if rollout.old_template is None:
        return [target.template] * count
    running = sum(not is_outdated(pod.template, target.template) for pod in active)
    new = min(count, max(0, rollout.new_target - running))
    return [target.template] * new + [rollout.old_template] * (count - new)


def _relabel(plan: Plan, clique: PodClique, active: list[Pod]) -> list[Pod]:
    """Let pods take a template that differs in labels and annotations alone, where they are."""
    template = clique.template
    relabelled = []
    for pod in active:
        if pod.template.hash == template.hash or is_outdated(pod.template, template):
            relabelled.append(pod)
            continue
        labels = pod_labels(clique.metadata.labels, clique.identity.name, pod.index)
        if (own := pod.metadata.labels.get(SET_REVISION)) is not None:
            # It takes the set's revision together with others: see rollout.publishing.
            labels[SET_REVISION] = own
        metadata = replace(pod.metadata, labels=labels, annotations=template.annotations)
        changed = replace(pod, metadata=metadata, template=template)
        plan.updates.append(changed)
        relabelled.append(changed)
    return relabelled


def _is_superseded(target: CliqueTarget, pod: Pod) -> bool:
    """Return whether a replacement would run something else, so that what became of the pod says nothing about it."""
    return target.rollout.old_template is None and is_outdated(pod.template, target.template)


def _ran_long(pod: Pod) -> bool:
    """Return whether a finished pod ran long enough for what went wrong before it to be forgotten."""
    if pod.finished_at is None or pod.started_at is None:
        return False
    return pod.finished_at - pod.started_at >= REPLACEMENT_FORGOTTEN_S


def _next_attempt(target: CliqueTarget, pod: Pod) -> int:
    if _is_superseded(target, pod):
        return 0
    return 1 if _ran_long(pod) else pod.attempt + 1


def _replacement_due_at(pod: Pod, now: float) -> float:
    """Return when a finished pod may be replaced (epoch seconds): at once the first time, then later and later."""
    if pod.attempt == 0 or pod.finished_at is None or pod.finished_at > now or _ran_long(pod):
        # A pod that finished later than now did so before the clock was set back; nobody knows how long it waited.
        return 0.0
    # Past 2^5 the longest delay is reached; without the bound a pod that failed a thousand times would overflow.
    doublings = min(pod.attempt - 1, 5)
    return pod.finished_at + min(REPLACEMENT_DELAY_FIRST_S * 2.0**doublings, REPLACEMENT_DELAY_MAX_S)
