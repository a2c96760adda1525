"""The set's own pass: thin, over the totals of its copies' summaries; never over its pods."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from grove_server.lifecycle.availability import AVAILABLE
from grove_server.lifecycle.copy_totals import CopyTotals
from grove_server.lifecycle.identifiers import derive_uid
from grove_server.lifecycle.machine import SetObservation, next_set_phase
from grove_server.lifecycle.rollout.deadline import progressing
from grove_server.lifecycle.rollout.progress import Advance
from grove_server.resources.labels import selector_of_set
from grove_server.resources.manifest import CliqueTemplate
from grove_server.resources.meta import Condition, Metadata, with_condition
from grove_server.resources.replacing import replace
from grove_server.resources.revision import restart_hash
from grove_server.resources.workload import GangPhase, PodCliqueSet, PodCliqueSetStatus, PodTemplate

TOPOLOGY_LEVELS_UNAVAILABLE: Final = "TopologyLevelsUnavailable"

# Gangs listed in the status of a set; the rest is counted. Kubernetes refuses objects of over 1.5 MiB, and a reader
# of a status looks for what is wrong: gangs that do not run are listed first.
GANG_STATUSES_MAX: Final = 100


def pod_template(owner: PodCliqueSet, clique: CliqueTemplate, now: float) -> PodTemplate:
    """Return the PodTemplate of one clique at the set's current revision."""
    hash_ = owner.revision.clique_hashes[clique.name]
    name = f"{owner.metadata.name}-{clique.name}-{hash_}"
    return PodTemplate(
        metadata=Metadata(
            name=name,
            namespace=owner.metadata.namespace,
            uid=derive_uid(owner.metadata.uid, f"template/{name}", repr(now)),
            created_at=now,
            owner_uid=owner.metadata.uid,
        ),
        clique=clique.name,
        hash=hash_,
        restart_hash=restart_hash(clique, owner.spec.template.priority_class_name),
        labels=clique.labels,
        annotations=clique.annotations,
        pod_spec=clique.spec.pod_spec,
        priority_class_name=owner.spec.template.priority_class_name or "",
    )


def observe(owner: PodCliqueSet, totals: CopyTotals) -> SetObservation:
    """Return what the copies look like together."""
    if owner.metadata.deleted_at is not None:
        return SetObservation.DELETED
    wanted = owner.spec.replicas or 0
    if wanted == 0:
        return SetObservation.EMPTY
    sums = totals.within(wanted)
    if sums.available >= wanted:
        # Copies of no pods are available, but nothing runs in them.
        has_pods = any(kind == "clique" and pods for (kind, _), (pods, _) in totals.sizes.items())
        return SetObservation.AVAILABLE if has_pods else SetObservation.EMPTY
    if sums.available and not sums.lost:
        return SetObservation.GROWING
    placed = sum(count for phase, count in totals.gang_phases.items() if phase != GangPhase.PENDING)
    return SetObservation.PARTLY if sums.available or placed else SetObservation.UNPLACED


def with_set_status(
    owner: PodCliqueSet,
    totals: CopyTotals,
    topology: Condition | None,
    update: Advance | None = None,
    *,
    now: float,
) -> PodCliqueSet:
    """Return *owner* with the status its copies make true; the same object if nothing changed.

    *topology* is the TopologyLevelsUnavailable condition, None if the set asks for no topology; *update* is where its
    update stands, None if that is as it was.
    """
    old = owner.status
    wanted = owner.spec.replicas or 0
    sums = totals.within(wanted)
    available, updated = sums.available, sums.updated
    all_available = available >= wanted
    conditions = with_condition(
        old.conditions,
        Condition(
            type=AVAILABLE,
            status="True" if all_available else "False",
            reason="AllCopiesAvailable" if all_available else "CopiesUnavailable",
            message=f"{available} of {wanted} copies are available",
            last_transition_at=now,
            observed_generation=owner.metadata.generation,
        ),
    )
    if topology is not None:
        conditions = with_condition(conditions, topology)
    if update is not None:
        progressed = progressing(owner, update.progress, updated, now, is_awaited=update.is_awaited)
        conditions = conditions if progressed is None else with_condition(conditions, progressed)
    status = PodCliqueSetStatus(
        observed_generation=owner.metadata.generation,
        phase=next_set_phase(old.phase, observe(owner, totals)),
        conditions=conditions,
        replicas=wanted,
        available_replicas=available,
        updated_replicas=updated,
        hpa_pod_selector=selector_of_set(owner.metadata.name),
        current_generation_hash=update.target_hash if update else old.current_generation_hash,
        current_clique_hashes=update.clique_hashes if update else old.current_clique_hashes,
        update_progress=update.progress if update else old.update_progress,
        pod_gang_statuses=totals.listed_gangs(GANG_STATUSES_MAX),
        pod_gang_phase_counts=dict(sorted(totals.gang_phases.items())),
    )
    if owner.resumed_at is not None and owner.resumed_at > now:
        # The clock was set back: what is counted from the resumption is counted from now.
        return replace(owner, status=status, resumed_at=now)
    return owner if status == old else replace(owner, status=status)


def topology_condition(error: str, *, binding_exists: bool, generation: int, now: float) -> Condition:
    """Return TopologyLevelsUnavailable with Grove's reasons; *error* is empty when all levels are there."""
    if not error:
        status, reason = "False", "AllClusterTopologyLevelsAvailable"
    elif binding_exists:
        status, reason = "True", "ClusterTopologyLevelsUnavailable"
    else:
        status, reason = "Unknown", "ClusterTopologyNotFound"
    return Condition(
        type=TOPOLOGY_LEVELS_UNAVAILABLE,
        status=status,
        reason=reason,
        message=error,
        last_transition_at=now,
        observed_generation=generation,
    )


def stale_templates(templates: Mapping[str, PodTemplate], used: set[str], current: set[str]) -> list[PodTemplate]:
    """Return the templates of a set that neither a pod nor the current revision refers to, by name."""
    return [template for name, template in sorted(templates.items()) if name not in used and name not in current]
