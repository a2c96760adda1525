"""Admission of a ClusterTopologyBinding: the levels of a cluster, and the scheduler objects they are compared with.

Deleting a binding is always allowed, even while sets use it; they then wait or keep running with a condition. Which
backends are enabled is asked at creation only, so that switching one off does not freeze the bindings that name it.
The two texts about backends are Grove's, word for word.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from grove_server.admission.cluster_scoped import FindOld, check_identity, new_metadata, read_in_part
from grove_server.admission.context import AdmissionContext
from grove_server.admission.findings import Admitted, Findings
from grove_server.resources.cluster import ClusterTopologyBinding
from grove_server.resources.labels import label_key_problem
from grove_server.resources.manifest import ClusterTopologyBindingManifest, ClusterTopologyBindingSpec, TopologyLevel
from grove_server.resources.meta import EMPTY_MAP, Kind
from grove_server.resources.names import LABEL_LENGTH_MAX
from grove_server.resources.schema import parse_cluster_topology_binding
from grove_server.resources.violations import Reason, quoted

NOT_ENABLED: Final = "scheduler backend is not enabled in Grove"
NO_TOPOLOGY: Final = "scheduler backend does not implement topology-aware scheduling"

_DOMAIN: Final = re.compile(r"[a-z][a-z0-9-]*")
_BINDINGS: Final = "spec.schedulerTopologyBindings"


def admit_cluster_topology_binding(
    manifest: ClusterTopologyBindingManifest, old: ClusterTopologyBinding | None, context: AdmissionContext
) -> Admitted[ClusterTopologyBinding]:
    """Return the resource a manifest makes of *old* (None: there is none yet); raise InvalidResourceError."""
    findings = Findings()
    metadata, spec = manifest.metadata, manifest.spec
    _check(manifest, old, context, findings)
    findings.raise_if_any(Kind.CLUSTER_TOPOLOGY_BINDING, metadata.name)
    if old is None:
        return Admitted(
            resource=ClusterTopologyBinding(metadata=new_metadata(metadata, context), spec=spec),
            warnings=findings.warnings,
            changed=True,
        )
    is_same = spec == old.spec
    generation = old.metadata.generation if is_same else old.metadata.generation + 1
    resource = replace(
        old,
        metadata=replace(
            old.metadata,
            generation=generation,
            labels=metadata.labels or EMPTY_MAP,
            annotations=metadata.annotations or EMPTY_MAP,
        ),
        spec=old.spec if is_same else spec,
    )
    return Admitted(resource=resource, warnings=findings.warnings, changed=resource != old)


def read_cluster_topology_binding(
    data: bytes, context: AdmissionContext, find_old: FindOld[ClusterTopologyBinding] | None = None
) -> ClusterTopologyBindingManifest:
    """Parse *data*; if it is wrong in part, report what breaks rules in the rest too. Raises SchemaError."""

    def check(manifest: ClusterTopologyBindingManifest, old: ClusterTopologyBinding | None, findings: Findings) -> None:
        _check(manifest, old, context, findings)

    return read_in_part(parse_cluster_topology_binding, ClusterTopologyBindingManifest, check, data, find_old)


def _check(
    manifest: ClusterTopologyBindingManifest,
    old: ClusterTopologyBinding | None,
    context: AdmissionContext,
    findings: Findings,
) -> None:
    metadata, spec = manifest.metadata, manifest.spec
    check_identity(metadata, old, Kind.CLUSTER_TOPOLOGY_BINDING, context, findings)
    _check_levels(spec.levels, context.limits.topology_levels_max, findings)
    _check_schedulers(spec, context, on_create=old is None, findings=findings)


def _check_levels(levels: Sequence[TopologyLevel], levels_max: int, findings: Findings) -> None:
    if not levels:
        findings.required("spec.levels", "must have at least one level")
    if len(levels) > levels_max:
        findings.too_many("spec.levels", len(levels), levels_max, "levels")
        return
    domains: set[str] = set()
    keys: set[str] = set()
    for index, level in enumerate(levels):
        path = f"spec.levels[{index}]"
        if len(level.domain) > LABEL_LENGTH_MAX:
            message = f"must have at most {LABEL_LENGTH_MAX} characters, has {len(level.domain)}"
            findings.add(f"{path}.domain", Reason.TOO_LONG, message)
        elif _DOMAIN.fullmatch(level.domain) is None:
            message = "must consist of lower case letters, digits and '-', and start with a letter"
            findings.invalid(f"{path}.domain", f"{message}, got {quoted(level.domain)}")
        elif level.domain in domains:
            findings.duplicate(f"{path}.domain", level.domain)
        domains.add(level.domain)
        problem = label_key_problem(level.key)
        if problem is not None:
            findings.invalid(f"{path}.key", f"is no node label key: {problem}")
        elif level.key in keys:
            findings.duplicate(f"{path}.key", level.key)
        keys.add(level.key)


def _check_schedulers(
    spec: ClusterTopologyBindingSpec, context: AdmissionContext, *, on_create: bool, findings: Findings
) -> None:
    bindings = spec.scheduler_topology_bindings
    if len(bindings) > context.limits.scheduler_bindings_max:
        findings.too_many(_BINDINGS, len(bindings), context.limits.scheduler_bindings_max)
        return
    seen: set[str] = set()
    for index, binding in enumerate(bindings):
        path, name = f"{_BINDINGS}[{index}].schedulerName", binding.scheduler_name
        if not name:
            findings.required(path, "must not be empty")
        elif name in seen:
            findings.duplicate(path, name)
        elif on_create and name not in context.schedulers_enabled:
            findings.invalid(path, f"{NOT_ENABLED}, got {quoted(name)}")
        elif on_create and name not in context.schedulers_with_topology:
            findings.invalid(path, f"{NO_TOPOLOGY}, got {quoted(name)}")
        elif name != context.scheduler_name:
            findings.warn(f"{path} ({name}) is kept, but this server places the pods by the levels given here")
        seen.add(name)
        if not binding.topology_reference:
            findings.required(f"{_BINDINGS}[{index}].topologyReference", "must not be empty")
