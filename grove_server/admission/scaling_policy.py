"""Admission of a ScalingPolicy: its own fields, and what it says of its set and beside other policies.

The set need not exist: manifests come in any order, and a policy of a set that is gone scales nothing; the answer warns
of it. What the set's template does say is binding: a role is a part of it, and its least size keeps the gang whole.
Texts are stored as they were written, durations too: a part of a nanosecond counts in a profile.
"""

from __future__ import annotations

from dataclasses import replace

from grove_server.admission.cluster_scoped import FindOld, read_in_part
from grove_server.admission.context import AdmissionContext
from grove_server.admission.findings import Admitted, Findings
from grove_server.admission.validation_metadata import check_metadata
from grove_server.admission.validation_scaling import check_policy
from grove_server.admission.validation_scaling_target import check_targets
from grove_server.resources.meta import EMPTY_MAP, Kind, Metadata
from grove_server.resources.names import dns_subdomain_problem
from grove_server.resources.scaling_policy import ScalingPolicy, ScalingPolicyManifest
from grove_server.resources.schema import parse_scaling_policy


def admit_scaling_policy(
    manifest: ScalingPolicyManifest, old: ScalingPolicy | None, context: AdmissionContext
) -> Admitted[ScalingPolicy]:
    """Return the resource a manifest makes of *old* (None: there is none yet); raise InvalidResourceError."""
    findings = Findings()
    metadata, spec = manifest.metadata, manifest.spec
    _check(manifest, old, context, findings)
    findings.raise_if_any(Kind.SCALING_POLICY, metadata.name)
    if old is None:
        created = ScalingPolicy(
            metadata=Metadata(
                name=metadata.name,
                namespace=metadata.namespace or context.default_namespace,
                uid=context.uid,
                created_at=context.now,
                labels=metadata.labels or EMPTY_MAP,
                annotations=metadata.annotations or EMPTY_MAP,
            ),
            spec=spec,
        )
        return Admitted(resource=created, warnings=findings.warnings, changed=True)
    is_same = spec == old.spec
    resource = replace(
        old,
        metadata=replace(
            old.metadata,
            generation=old.metadata.generation + (0 if is_same else 1),
            labels=metadata.labels or EMPTY_MAP,
            annotations=metadata.annotations or EMPTY_MAP,
        ),
        spec=old.spec if is_same else spec,
    )
    return Admitted(resource=resource, warnings=findings.warnings, changed=resource != old)


def read_scaling_policy(
    data: bytes, context: AdmissionContext, find_old: FindOld[ScalingPolicy] | None = None
) -> ScalingPolicyManifest:
    """Parse *data*; if it is wrong in part, report what breaks rules in the rest too. Raises SchemaError."""

    def check(manifest: ScalingPolicyManifest, old: ScalingPolicy | None, findings: Findings) -> None:
        _check(manifest, old, context, findings)

    return read_in_part(parse_scaling_policy, ScalingPolicyManifest, check, data, find_old)


def _check(
    manifest: ScalingPolicyManifest, old: ScalingPolicy | None, context: AdmissionContext, findings: Findings
) -> None:
    metadata, spec = manifest.metadata, manifest.spec
    problem = dns_subdomain_problem(metadata.name)
    if problem is not None:
        findings.invalid("metadata.name", problem)
    check_metadata(metadata, context.limits.labels_max, findings)
    if old is not None and metadata.uid and metadata.uid != old.metadata.uid:
        findings.immutable("metadata.uid", f"is that of another object: the one stored has {old.metadata.uid}")
    check_policy(spec, findings)
    check_targets(metadata.namespace or context.default_namespace, metadata.name, spec, context, findings)
