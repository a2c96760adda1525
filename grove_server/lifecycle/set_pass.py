"""The set's own pass: thin, over the summaries of its copies; never over its pods.

Totals are kept up to date copy by copy, so that a set of thousands of copies costs the same as one of two.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from grove_server.lifecycle.availability import AVAILABLE
from grove_server.lifecycle.copy import CopySummary
from grove_server.lifecycle.identifiers import derive_uid
from grove_server.lifecycle.machine import SetObservation, next_set_phase
from grove_server.lifecycle.rollout.deadline import progressing
from grove_server.lifecycle.rollout.progress import Advance
from grove_server.resources.labels import selector_of_set
from grove_server.resources.manifest import CliqueTemplate
from grove_server.resources.meta import Condition, Metadata, with_condition
from grove_server.resources.revision import restart_hash
from grove_server.resources.workload import GangPhase, GangSummary, PodCliqueSet, PodCliqueSetStatus, PodTemplate

TOPOLOGY_LEVELS_UNAVAILABLE: Final = "TopologyLevelsUnavailable"

# Gangs listed in the status of a set; the rest is counted. Kubernetes refuses objects of over 1.5 MiB, and a reader
# of a status looks for what is wrong: gangs that do not run are listed first.
GANG_STATUSES_MAX: Final = 100


@dataclass(slots=True)
class CopyTotals:
    """Sums over the copies of one set, adjusted as summaries change."""

    copies: dict[int, CopySummary] = field(default_factory=dict)
    available: int = 0
    lost: int = 0
    updated: int = 0
    sizes: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    gang_phases: dict[str, int] = field(default_factory=dict)

    def put(self, summary: CopySummary) -> bool:
        """Take the newest summary of a copy; return whether anything changed."""
        old = self.copies.get(summary.copy)
        if old == summary or (old is None and not summary.exists):
            return False
        if old is not None:
            self._add(old, -1)
        if summary.exists:
            self.copies[summary.copy] = summary
            self._add(summary, 1)
        else:
            self.copies.pop(summary.copy, None)
        return True

    def within(self, wanted: int) -> tuple[int, int]:
        """Return (available, updated) of the first *wanted* copies; those beyond are on their way out."""
        beyond = [summary for copy, summary in self.copies.items() if copy >= wanted]
        return (
            self.available - sum(summary.available for summary in beyond),
            self.updated - sum(summary.updated for summary in beyond),
        )

    def lost_within(self, wanted: int) -> int:
        """Return how many of the first *wanted* copies served once and do not now."""
        return self.lost - sum(_is_lost(summary) for copy, summary in self.copies.items() if copy >= wanted)

    def _add(self, summary: CopySummary, sign: int) -> None:
        self.available += sign * summary.available
        self.lost += sign * _is_lost(summary)
        self.updated += sign * summary.updated
        for key, (wanted, ready) in summary.sizes.items():
            wanted_before, ready_before = self.sizes.get(key, (0, 0))
            self.sizes[key] = (wanted_before + sign * wanted, ready_before + sign * ready)
        for gang in summary.gangs:
            count = self.gang_phases.get(gang.phase, 0) + sign
            if count:
                self.gang_phases[gang.phase] = count
            else:
                self.gang_phases.pop(gang.phase, None)


def _is_lost(summary: CopySummary) -> bool:
    return summary.has_served and not summary.available


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
    available, _ = totals.within(wanted)
    if available >= wanted:
        # Copies of no pods are available, but nothing runs in them.
        has_pods = any(kind == "clique" and pods for (kind, _), (pods, _) in totals.sizes.items())
        return SetObservation.AVAILABLE if has_pods else SetObservation.EMPTY
    if available and not totals.lost_within(wanted):
        return SetObservation.GROWING
    placed = sum(count for phase, count in totals.gang_phases.items() if phase != GangPhase.PENDING)
    return SetObservation.PARTLY if available or placed else SetObservation.UNPLACED


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
    available, updated = totals.within(wanted)
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
        progressed = progressing(owner, update.progress, updated, now)
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
        pod_gang_statuses=_listed_gangs(totals.copies.values()),
        pod_gang_phase_counts=dict(sorted(totals.gang_phases.items())),
    )
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


def _listed_gangs(copies: Iterable[CopySummary]) -> tuple[GangSummary, ...]:
    """Return gangs by copy, at most GANG_STATUSES_MAX; beyond that, those that do not run come first."""
    ordered = sorted(copies, key=lambda summary: summary.copy)
    gangs = [gang for summary in ordered for gang in summary.gangs]
    if len(gangs) <= GANG_STATUSES_MAX:
        return tuple(gangs)
    gangs.sort(key=lambda gang: gang.phase is GangPhase.RUNNING)
    return tuple(gangs[:GANG_STATUSES_MAX])


def stale_templates(templates: Mapping[str, PodTemplate], used: set[str], current: set[str]) -> list[PodTemplate]:
    """Return the templates of a set that neither a pod nor the current revision refers to, by name."""
    return [template for name, template in sorted(templates.items()) if name not in used and name not in current]
