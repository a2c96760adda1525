"""Admission of a set: default, validate, and say what is to be stored.

Everything that is wrong is reported at once, and nothing is stored of what is wrong in part. Admission decides about
one document; that several go in together or not at all is the caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from grove_server.admission.context import AdmissionContext
from grove_server.admission.defaulting import default_spec
from grove_server.admission.findings import Admitted, Findings
from grove_server.admission.immutability import check_annotation, check_immutable
from grove_server.admission.partial import with_findings
from grove_server.admission.topology import check_domains, check_form, scopes_of
from grove_server.admission.validation_metadata import check_metadata
from grove_server.admission.validation_queue import check_turn
from grove_server.admission.validation_scaling_target import warn_of_policies
from grove_server.admission.validation_set import check_set
from grove_server.resources.manifest import (
    CliqueTemplate,
    ManifestMetadata,
    PodCliqueSetManifest,
    PodCliqueSetSpec,
    PodCliqueSetTemplate,
)
from grove_server.resources.meta import EMPTY_MAP, Kind, Metadata
from grove_server.resources.queues import named_queue
from grove_server.resources.revision import revision_of
from grove_server.resources.rollout import with_restarts_kept
from grove_server.resources.schema import Rest, SchemaError, parse_pod_clique_set
from grove_server.resources.workload import PodCliqueSet, ScaleOwner

# Keys of PodCliqueSet.applied_replicas.
SET_TARGET = ""
GROUP_TARGET = "group/"
CLIQUE_TARGET = "clique/"


def admit_pod_clique_set(
    manifest: PodCliqueSetManifest, old: PodCliqueSet | None, context: AdmissionContext
) -> Admitted[PodCliqueSet]:
    """Return the resource a manifest makes of *old* (None: there is none yet); raise InvalidResourceError."""
    findings = Findings()
    admitted = _admit(manifest, old, context, findings)
    findings.raise_if_any(Kind.POD_CLIQUE_SET, manifest.metadata.name)
    assert admitted is not None  # Without violations there is a result.
    return admitted


def read_pod_clique_set(
    data: bytes, context: AdmissionContext, find_old: Callable[[ManifestMetadata], PodCliqueSet | None] | None = None
) -> PodCliqueSetManifest:
    """Parse *data*; if it is wrong in part, report what breaks rules in the rest of it too.

    *find_old* looks up what is stored under the manifest's name; without it the rules of a creation are checked.
    Raises SchemaError with everything that is wrong.
    """
    try:
        return parse_pod_clique_set(data)
    except SchemaError as error:

        def check(rest: Rest, findings: Findings) -> None:
            manifest = rest.manifest
            assert isinstance(manifest, PodCliqueSetManifest), "it was read as one"
            is_named = not (rest.gaps.cover("metadata.name") or rest.gaps.cover("metadata.namespace"))
            old = find_old(manifest.metadata) if find_old is not None and is_named else None
            _admit(manifest, old, context, findings)

        raise with_findings(error, check) from error


def _admit(
    manifest: PodCliqueSetManifest, old: PodCliqueSet | None, context: AdmissionContext, findings: Findings
) -> Admitted[PodCliqueSet] | None:
    spec, metadata = manifest.spec, manifest.metadata
    applied = applied_replicas(spec)
    replicas, owner = _size_of_set(spec, old, findings)
    defaulted = default_spec(spec, replicas, None if old is None else old.spec, findings)
    check_metadata(metadata, context.limits.labels_max, findings)
    check_set(metadata.name, defaulted, None if old is None else old.spec, context, findings)
    check_turn(metadata, defaulted.template, context, findings)
    scopes = tuple(scopes_of(defaulted.template))
    if scopes:
        check_form(scopes, on_create=old is None, findings=findings)
    if old is not None:
        check_immutable(defaulted.template, old.spec.template, context, findings)
        check_annotation(metadata.annotations or EMPTY_MAP, old.metadata.annotations, "metadata.annotations", findings)
        _check_uid(metadata, old, findings)
    if scopes and (old is None or tuple(scopes_of(old.spec.template)) != scopes):
        check_domains(scopes, context.bindings, findings)
    if findings.violations:
        return None
    _warn_of_misfits(metadata, defaulted.template, context, findings)
    warn_of_policies(
        metadata.namespace or context.default_namespace, metadata.name, defaulted.template, context, findings
    )
    if old is None:
        return Admitted(
            resource=_created(metadata, defaulted, applied, context), warnings=findings.warnings, changed=True
        )
    resource = _updated(metadata, defaulted, applied, owner, old, context.now)
    return Admitted(resource=resource, warnings=findings.warnings, changed=resource != old)


def _warn_of_misfits(
    metadata: ManifestMetadata, template: PodCliqueSetTemplate, context: AdmissionContext, findings: Findings
) -> None:
    """Warn of cliques that no nodes could hold, and of a base gang that its queue can never let run."""
    pods = [(each.spec.pod_spec, each.annotations, _minimum(each, template)) for each in template.cliques]
    for clique, wanted in zip(template.cliques, pods, strict=True):
        problem = context.misfit(*wanted)
        if problem:
            findings.warn(f"clique {clique.name}: as the cluster is, {problem}")
    queue = named_queue(metadata.labels, metadata.annotations, template.cliques)
    problem = context.beyond_limits(queue, context.queues, pods)
    if problem:
        findings.warn(problem)


def _minimum(clique: CliqueTemplate, template: PodCliqueSetTemplate) -> int:
    """Return how many pods of a clique must run together in a copy, those of its group's minimum taken together."""
    group = template.group_of(clique.name)
    return (clique.spec.min_available or 1) * (1 if group is None else group.min_available or 1)


def applied_replicas(spec: PodCliqueSetSpec) -> Mapping[str, int | None]:
    """Return, for each scale target, the size the manifest gives, None where it gives none."""
    applied: dict[str, int | None] = {SET_TARGET: spec.replicas}
    for clique in spec.template.cliques:
        applied[CLIQUE_TARGET + clique.name] = clique.spec.replicas
    for group in spec.template.pod_clique_scaling_groups:
        applied[GROUP_TARGET + group.name] = group.replicas
    return applied


def _size_of_set(spec: PodCliqueSetSpec, old: PodCliqueSet | None, findings: Findings) -> tuple[int, ScaleOwner]:
    """Return the set's size, and who decided it: the manifest only where it asks for something new."""
    wanted = spec.replicas
    if old is None:
        if wanted is None:
            findings.warn("spec.replicas is not set and defaults to 0: nothing will run until the set is scaled")
        return wanted or 0, ScaleOwner.SPEC
    live = old.spec.replicas or 0
    if wanted is None or wanted == old.applied_replicas.get(SET_TARGET):
        return live, old.scale_owner
    if old.scale_owner is ScaleOwner.AUTOSCALER and wanted != live:
        findings.warn(f"spec.replicas ({wanted}) is not followed, because an autoscaler owns the size ({live})")
        return live, old.scale_owner
    return wanted, ScaleOwner.SPEC


def _check_uid(metadata: ManifestMetadata, old: PodCliqueSet, findings: Findings) -> None:
    if metadata.uid and metadata.uid != old.metadata.uid:
        findings.immutable("metadata.uid", f"is that of another object: the one stored has {old.metadata.uid}")


def _created(
    metadata: ManifestMetadata, spec: PodCliqueSetSpec, applied: Mapping[str, int | None], context: AdmissionContext
) -> PodCliqueSet:
    return PodCliqueSet(
        metadata=Metadata(
            name=metadata.name,
            namespace=metadata.namespace or context.default_namespace,
            uid=context.uid,
            created_at=context.now,
            labels=metadata.labels or EMPTY_MAP,
            annotations=metadata.annotations or EMPTY_MAP,
        ),
        spec=spec,
        revision=revision_of(spec.template),
        revised_at=context.now,
        applied_replicas=applied,
    )


def _updated(
    metadata: ManifestMetadata,
    spec: PodCliqueSetSpec,
    applied: Mapping[str, int | None],
    owner: ScaleOwner,
    old: PodCliqueSet,
    now: float,
) -> PodCliqueSet:
    spec = replace(spec, template=with_restarts_kept(spec.template, old.spec.template))
    is_same = spec == old.spec
    revision = old.revision if is_same else revision_of(spec.template)
    return replace(
        old,
        metadata=replace(
            old.metadata,
            generation=old.metadata.generation if is_same else old.metadata.generation + 1,
            labels=metadata.labels or EMPTY_MAP,
            annotations=metadata.annotations or EMPTY_MAP,
        ),
        spec=old.spec if is_same else spec,
        revision=revision,
        revised_at=old.revised_at if revision.hash == old.revision.hash else now,
        rolled_back_from=old.rolled_back_from if revision.hash == old.revision.hash else "",
        applied_replicas=applied,
        scale_owner=owner,
    )
