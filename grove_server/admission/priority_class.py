"""Admission of a PriorityClass, by Kubernetes' rules.

Users give values up to a thousand million; what is above, and names that begin with "system-", are the server's own. A
class never changes its value or preemption policy, because what was placed by them stays. One class at most is the
default of those that name none; of classes that come in the same text, all count.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from grove_server.admission.cluster_scoped import FindOld, check_identity, new_metadata, read_in_part
from grove_server.admission.context import AdmissionContext
from grove_server.admission.findings import Admitted, Findings
from grove_server.resources.meta import EMPTY_MAP, Kind
from grove_server.resources.priority import (
    PREEMPTION_POLICIES,
    SYSTEM_PREFIX,
    USER_VALUE_MAX,
    VALUE_MIN,
    PriorityClass,
    is_built_in_class,
)
from grove_server.resources.scheduling import PriorityClassManifest
from grove_server.resources.schema import parse_priority_class
from grove_server.resources.violations import Reason, quoted
from grove_server.resources.workload import PREEMPT_LOWER

DESCRIPTION_LENGTH_MAX: Final = 4_096


def admit_priority_class(
    manifest: PriorityClassManifest, old: PriorityClass | None, context: AdmissionContext
) -> Admitted[PriorityClass]:
    """Return the resource a manifest makes of *old* (None: there is none yet); raise InvalidResourceError."""
    findings = Findings()
    metadata = manifest.metadata
    _check(manifest, old, context, findings)
    findings.raise_if_any(Kind.PRIORITY_CLASS, metadata.name)
    if old is None:
        resource = PriorityClass(
            metadata=new_metadata(metadata, context),
            value=manifest.value,
            global_default=manifest.global_default,
            description=manifest.description,
            preemption_policy=_policy(manifest),
        )
        return Admitted(resource=resource, warnings=findings.warnings, changed=True)
    is_same = (manifest.global_default, manifest.description) == (old.global_default, old.description)
    resource = replace(
        old,
        metadata=replace(
            old.metadata,
            generation=old.metadata.generation + (0 if is_same else 1),
            labels=metadata.labels or EMPTY_MAP,
            annotations=metadata.annotations or EMPTY_MAP,
        ),
        global_default=manifest.global_default,
        description=manifest.description,
    )
    return Admitted(resource=resource, warnings=findings.warnings, changed=resource != old)


def read_priority_class(
    data: bytes, context: AdmissionContext, find_old: FindOld[PriorityClass] | None = None
) -> PriorityClassManifest:
    """Parse *data*; if it is wrong in part, report what breaks rules in the rest too. Raises SchemaError."""

    def check(manifest: PriorityClassManifest, old: PriorityClass | None, findings: Findings) -> None:
        _check(manifest, old, context, findings)

    return read_in_part(parse_priority_class, PriorityClassManifest, check, data, find_old)


def _policy(manifest: PriorityClassManifest) -> str:
    return manifest.preemption_policy or PREEMPT_LOWER


def _check(
    manifest: PriorityClassManifest, old: PriorityClass | None, context: AdmissionContext, findings: Findings
) -> None:
    name = manifest.metadata.name
    check_identity(manifest.metadata, old, Kind.PRIORITY_CLASS, context, findings)
    if is_built_in_class(name):
        findings.forbidden("metadata.name", f"names a class that is built in and cannot be changed: {name}")
        return
    if name.startswith(SYSTEM_PREFIX):
        findings.forbidden("metadata.name", f"must not begin with {quoted(SYSTEM_PREFIX)}: such names are the server's")
    if len(manifest.description) > DESCRIPTION_LENGTH_MAX:
        message = f"must have at most {DESCRIPTION_LENGTH_MAX} characters, has {len(manifest.description)}"
        findings.add("description", Reason.TOO_LONG, message)
    if not VALUE_MIN <= manifest.value <= USER_VALUE_MAX:
        findings.invalid("value", f"must be between {VALUE_MIN} and {USER_VALUE_MAX}, got {manifest.value}")
    elif old is not None and manifest.value != old.value:
        findings.immutable("value", f"cannot be changed after creation: it is {old.value}; make another class")
    if _policy(manifest) not in PREEMPTION_POLICIES:
        findings.not_supported("preemptionPolicy", manifest.preemption_policy, PREEMPTION_POLICIES)
    elif old is not None and _policy(manifest) != old.preemption_policy:
        findings.immutable("preemptionPolicy", f"cannot be changed after creation: it is {old.preemption_policy}")
    if manifest.global_default:
        _check_only_default(name, context.global_defaults, findings)


def _check_only_default(name: str, defaults: Mapping[str, bool], findings: Findings) -> None:
    """Check that no other class, stored or coming in the same text, is the default."""
    others = sorted(each for each, is_default in defaults.items() if is_default and each != name)
    if others:
        findings.forbidden("globalDefault", f"may be true of one class only, and is of {others[0]}")
