"""Admission of a scale call: to which size a set, clique or group may go, and what is then to be stored.

Members of a group may be scaled too; Grove only discourages it. Who asked is recorded, so that a later apply of an
unchanged manifest leaves the size alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from grove_server.admission.context import AdmissionContext
from grove_server.admission.findings import Admitted, Findings
from grove_server.admission.naming import check_clique_name, check_lengths, last_index
from grove_server.admission.validation_sizes import check_count, pods_per_copy
from grove_server.resources.manifest import PodCliqueSetSpec
from grove_server.resources.meta import Metadata
from grove_server.resources.names import member_clique
from grove_server.resources.violations import Reason
from grove_server.resources.workload import PodClique, PodCliqueScalingGroup, PodCliqueSet, ScaleOwner

_PATH = "replicas"


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveSet:
    """The set a scaled child belongs to: its spec, and the pods that all of its cliques together want now."""

    spec: PodCliqueSetSpec
    pod_count: int


def admit_scale_of_set(
    target: PodCliqueSet, replicas: int, context: AdmissionContext, *, owner: ScaleOwner, pod_count: int
) -> Admitted[PodCliqueSet]:
    """Return *target* at *replicas* copies; *pod_count* is what its cliques want now. Raise InvalidResourceError."""
    findings = Findings()
    size = target.spec.replicas or 0
    spec = replace(target.spec, replicas=replicas)
    if check_count(replicas, _PATH, findings):
        if replicas > context.limits.copies_max:
            findings.too_many(_PATH, replicas, context.limits.copies_max, "copies")
        else:
            added = (replicas - size) * pods_per_copy(spec.template)
            _check_pods(added, pod_count, context, findings)
            _check_names(target.metadata.name, spec, findings)
    findings.raise_if_any(target.kind, target.metadata.name)
    if replicas == size and owner is target.scale_owner:
        return Admitted(resource=target, changed=False)
    metadata = _next_generation(target.metadata, is_same=replicas == size)
    return Admitted(resource=replace(target, metadata=metadata, spec=spec, scale_owner=owner), changed=True)


def admit_scale_of_clique(
    target: PodClique, replicas: int, context: AdmissionContext, *, owner: ScaleOwner, live: LiveSet
) -> Admitted[PodClique]:
    """Return *target* at *replicas* pods; raise InvalidResourceError."""
    findings = Findings()
    if _check_size(replicas, target.min_available, findings):
        _check_pods(replicas - target.replicas, live.pod_count, context, findings)
        check_clique_name(target.metadata.name, last_index(replicas), _PATH, findings)
    findings.raise_if_any(target.kind, target.metadata.name)
    if replicas == target.replicas and owner is target.scale_owner:
        return Admitted(resource=target, changed=False)
    metadata = _next_generation(target.metadata, is_same=replicas == target.replicas)
    return Admitted(resource=replace(target, metadata=metadata, replicas=replicas, scale_owner=owner), changed=True)


def admit_scale_of_group(
    target: PodCliqueScalingGroup, replicas: int, context: AdmissionContext, *, owner: ScaleOwner, live: LiveSet
) -> Admitted[PodCliqueScalingGroup]:
    """Return *target* at *replicas* group replicas, new ones at the template's sizes; raise InvalidResourceError."""
    findings = Findings()
    if _check_size(replicas, target.min_available, findings):
        sizes = {clique.name: clique.spec.replicas or 0 for clique in live.spec.template.cliques}
        per_replica = sum(sizes.get(name, 0) for name in target.clique_names)
        _check_pods((replicas - target.replicas) * per_replica, live.pod_count, context, findings)
        for name in target.clique_names:
            clique = member_clique(target.metadata.name, last_index(replicas), name)
            check_clique_name(clique, last_index(sizes.get(name)), _PATH, findings)
    findings.raise_if_any(target.kind, target.metadata.name)
    if replicas == target.replicas and owner is target.scale_owner:
        return Admitted(resource=target, changed=False)
    metadata = _next_generation(target.metadata, is_same=replicas == target.replicas)
    return Admitted(resource=replace(target, metadata=metadata, replicas=replicas, scale_owner=owner), changed=True)


def _check_size(replicas: int, minimum: int, findings: Findings) -> bool:
    if not check_count(replicas, _PATH, findings):
        return False
    if 0 < replicas < minimum:
        findings.invalid(_PATH, f"must be 0 or at least minAvailable ({minimum}), got {replicas}")
        return False
    return True


def _check_pods(added: int, pod_count: int, context: AdmissionContext, findings: Findings) -> None:
    """Check the limit of pods in a set; making it smaller is always allowed."""
    limit = context.limits.pods_per_set_max
    if added > 0 and pod_count + added > limit:
        message = f"would give the set {pod_count + added} pods, more than the {limit} a set may have"
        findings.add(_PATH, Reason.TOO_MANY, message)


def _check_names(set_name: str, spec: PodCliqueSetSpec, findings: Findings) -> None:
    too_long = Findings()
    check_lengths(set_name, spec, too_long)
    for violation in too_long.violations:
        findings.add(_PATH, violation.reason, f"{violation.message} (from {violation.path})")


def _next_generation(metadata: Metadata, *, is_same: bool) -> Metadata:
    return metadata if is_same else replace(metadata, generation=metadata.generation + 1)
