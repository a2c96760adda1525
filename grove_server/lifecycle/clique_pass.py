"""One clique's part of a pass: how many pods, which indices, who goes, and what is true of it now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from grove_server.lifecycle.availability import PodCounts, clique_conditions, count_pods
from grove_server.lifecycle.blueprint import CliqueBlueprint
from grove_server.lifecycle.copy import CliqueState
from grove_server.lifecycle.identifiers import derive_uid
from grove_server.lifecycle.plan import EVENT_WARNING, Note, Plan
from grove_server.resources.labels import clique_labels, pod_labels, selector_of_clique
from grove_server.resources.meta import Kind, Metadata, with_condition
from grove_server.resources.names import pod_name
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
# comes at once, repetitions wait.
REPLACEMENT_DELAY_FIRST_S = 10.0
REPLACEMENT_DELAY_MAX_S = 300.0

_ORDER_OF_PHASES = {PodPhase.PENDING: 0, PodPhase.RUNNING: 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class CliqueTarget:
    """What a clique should be in this copy."""

    blueprint: CliqueBlueprint
    identity: CliqueIdentity
    starts_after: tuple[str, ...]
    owner_uid: str


def plan_clique(
    plan: Plan, target: CliqueTarget, observed: PodClique | None, pods: Sequence[Pod], *, now: float
) -> CliqueState:
    """Plan one clique: create or adjust it, add or remove pods, compute its status. Append the changes to *plan*."""
    clique = _create_clique(target, now) if observed is None else _follow_template(plan, target, observed)
    failed = [pod for pod in pods if pod.phase in (PodPhase.FAILED, PodPhase.SUCCEEDED) and not pod.is_terminating]
    active = [pod for pod in pods if pod.is_active]
    removed = remove_unplaced_terminating(plan, pods)
    clique, active = _size(plan, target, clique, active, failed, now)
    active.sort(key=_by_index)
    counts = count_pods(active, target.blueprint.pod_template.hash)
    counts.terminating = sum(1 for pod in pods if pod.is_terminating) - removed
    counts.failed = sum(1 for pod in failed if pod.phase is PodPhase.FAILED)
    counts.succeeded = len(failed) - counts.failed
    clique = with_status(clique, counts, now)
    if observed is None:
        plan.creates.append(clique)
    elif clique is not observed:
        plan.updates.append(clique)
    return CliqueState(clique=clique, pods=tuple(active), counts=counts)


def with_status(clique: PodClique, counts: PodCounts, now: float) -> PodClique:
    """Return *clique* with the status that *counts* make true; the same object if nothing changed."""
    old = clique.status
    generation = clique.metadata.generation
    conditions = old.conditions
    for condition in clique_conditions(
        counts, replicas=clique.replicas, min_available=clique.min_available, generation=generation, now=now
    ):
        conditions = with_condition(conditions, condition)
    first = old.first_scheduled_at
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
        current_pod_template_hash=clique.template.hash,
        first_scheduled_at=first,
    )
    return clique if status == old else replace(clique, status=status)


def remove_pod(plan: Plan, pod: Pod, now: float) -> None:
    """Stop *pod*: at once if it never had a node, else by asking whoever runs it."""
    if not pod.node:
        plan.deletes.append(pod)
    elif not pod.is_terminating:
        plan.updates.append(replace(pod, metadata=replace(pod.metadata, deleted_at=now)))


def remove_unplaced_terminating(plan: Plan, pods: Sequence[Pod]) -> int:
    """Forget pods that somebody deleted before they had a node, since nobody runs them; return how many."""
    gone = [pod for pod in pods if pod.is_terminating and not pod.node]
    plan.deletes.extend(gone)
    return len(gone)


def victim_order(pod: Pod, template_hash: str) -> tuple[bool, int, bool, bool, float, str]:
    """Return the sort key of scale-in: unplaced, pending, not ready, old revision, youngest first (Grove §2.10)."""
    return (
        pod.node != "",
        _ORDER_OF_PHASES.get(pod.phase, 0),
        pod.ready_at is not None,
        pod.template.hash == template_hash,
        -pod.metadata.created_at,
        pod.metadata.name,
    )


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
    template = blueprint.pod_template
    return PodClique(
        metadata=Metadata(
            name=identity.name,
            namespace=template.metadata.namespace,
            uid=derive_uid(target.owner_uid, identity.name, repr(now)),
            created_at=now,
            labels=clique_labels(identity, template.labels, template.hash),
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
    template = blueprint.pod_template
    replicas, owner = observed.replicas, observed.scale_owner
    if blueprint.replicas != observed.template_replicas:
        if owner is ScaleOwner.AUTOSCALER:
            plan.notes.append(scale_kept_note(observed, blueprint.replicas, replicas))
        else:
            replicas, owner = blueprint.replicas, ScaleOwner.SPEC
    config = blueprint.template.spec.auto_scaling_config
    if (
        replicas == observed.replicas
        and blueprint.replicas == observed.template_replicas
        and template.hash == observed.template.hash
        and config == observed.auto_scaling_config
        and blueprint.template.topology_constraint == observed.topology_constraint
    ):
        return observed
    return replace(
        observed,
        metadata=replace(
            observed.metadata,
            generation=observed.metadata.generation + 1,
            labels=clique_labels(observed.identity, template.labels, template.hash),
            annotations=template.annotations,
        ),
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


def _size(
    plan: Plan, target: CliqueTarget, clique: PodClique, active: list[Pod], failed: list[Pod], now: float
) -> tuple[PodClique, list[Pod]]:
    """Add missing pods and stop those beyond the size; return the clique (its serial grows) and its active pods."""
    template_hash = target.blueprint.pod_template.hash
    missing = clique.replicas - len(active)
    if missing > 0:
        created = _create_pods(plan, clique, active, failed, missing, now)
        return replace(clique, pod_serial=clique.pod_serial + len(created)) if created else clique, active + created
    for pod in failed:
        remove_pod(plan, pod, now)
    if missing < 0:
        active.sort(key=lambda pod: victim_order(pod, template_hash))
        for pod in active[:-missing]:
            remove_pod(plan, pod, now)
        active = active[-missing:]
    return clique, active


def _create_pods(
    plan: Plan, clique: PodClique, active: list[Pod], failed: list[Pod], missing: int, now: float
) -> list[Pod]:
    """Create the missing pods; a failed pod's place is refilled only after its back-off."""
    attempts: dict[int, int] = {}
    blocked: set[int] = set()
    for pod in failed:
        ready_at = _replacement_due_at(pod)
        if ready_at > now:
            blocked.add(pod.index)
            plan.wake(ready_at)
        else:
            attempts[pod.index] = max(attempts.get(pod.index, 0), pod.attempt + 1)
            remove_pod(plan, pod, now)
    used = {pod.index for pod in active} | blocked
    created = []
    labels = clique.metadata.labels
    identity = clique.identity
    uid = clique.metadata.uid
    for serial, index in enumerate(free_indices(used, missing - len(blocked)), start=clique.pod_serial):
        name = pod_name(identity.name, uid, serial)
        created.append(
            Pod(
                metadata=Metadata(
                    name=name,
                    namespace=clique.metadata.namespace,
                    uid=derive_uid(uid, name, str(serial)),
                    created_at=now,
                    labels=pod_labels(labels, identity.name, index),
                    annotations=clique.metadata.annotations,
                    owner_uid=uid,
                ),
                identity=identity,
                index=index,
                attempt=attempts.get(index, 0),
                template=clique.template,
                waiting_reason=GATED_REASON,
                waiting_message=GATED_MESSAGE,
            )
        )
    plan.creates.extend(created)
    return created


def _replacement_due_at(pod: Pod) -> float:
    """Return when a finished pod may be replaced (epoch seconds): at once the first time, then later and later."""
    if pod.attempt == 0 or pod.finished_at is None:
        return 0.0
    return pod.finished_at + min(REPLACEMENT_DELAY_FIRST_S * 2.0 ** (pod.attempt - 1), REPLACEMENT_DELAY_MAX_S)
