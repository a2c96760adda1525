"""Admission of a Queue: its own fields, and its place in the tree.

The tree is looked at as it will be when all documents of the text are stored, so that a parent may come after its
children. A queue's limit and guarantee hold for all below it, which is why a guarantee over the limit is refused, and
guarantees below a queue that add up to more than its own are only warned of: the difference is borrowed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from grove_server.admission.cluster_scoped import FindOld, check_identity, new_metadata, read_in_part
from grove_server.admission.context import INT32_MAX, AdmissionContext
from grove_server.admission.findings import Admitted, Findings
from grove_server.admission.validation_resources import check_amounts
from grove_server.resources.duration import DurationError, canonical_duration, parse_duration_ns
from grove_server.resources.labels import PREEMPTION_DELAY
from grove_server.resources.meta import EMPTY_MAP, Kind
from grove_server.resources.names import dns_label_problem
from grove_server.resources.quantity import ZERO, Quantity, QuantityError, parse_quantity
from grove_server.resources.queues import (
    BLOCKINGS,
    DEFAULT_QUEUE,
    DEPTH_MAX,
    EARMARK_AFTER_DEFAULT,
    EARMARK_NEVER,
    QUEUES_MAX,
    SKIP_AHEAD,
    Queue,
    QueueSpec,
    lineage,
)
from grove_server.resources.scheduling import QueueManifest, QueueManifestSpec
from grove_server.resources.schema import parse_queue
from grove_server.resources.violations import Reason, quoted

WEIGHT_MIN: Final = 0.001
WEIGHT_MAX: Final = 10_000.0
DELAY_MAX_S: Final = 24 * 3_600
RESOURCES_MAX: Final = 64


def admit_queue(manifest: QueueManifest, old: Queue | None, context: AdmissionContext) -> Admitted[Queue]:
    """Return the resource a manifest makes of *old* (None: there is none yet); raise InvalidResourceError."""
    findings = Findings()
    metadata = manifest.metadata
    _check(manifest, old, context, findings)
    findings.raise_if_any(Kind.QUEUE, metadata.name)
    spec = queue_spec(manifest.spec)
    if old is None:
        resource = Queue(metadata=new_metadata(metadata, context), spec=spec)
        return Admitted(resource=resource, warnings=findings.warnings, changed=True)
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


def read_queue(data: bytes, context: AdmissionContext, find_old: FindOld[Queue] | None = None) -> QueueManifest:
    """Parse *data*; if it is wrong in part, report what breaks rules in the rest too. Raises SchemaError."""

    def check(manifest: QueueManifest, old: Queue | None, findings: Findings) -> None:
        _check(manifest, old, context, findings)

    return read_in_part(parse_queue, QueueManifest, check, data, find_old)


def queue_spec(spec: QueueManifestSpec) -> QueueSpec:
    """Return what a manifest asks for, defaults filled in and spelled canonically; amounts that are none are left out.

    Of a manifest with violations this is what can be said of it to the queues around it, and never stored.
    """
    try:
        earmark_after = EARMARK_AFTER_DEFAULT if spec.earmark_after is None else _canonical_earmark(spec.earmark_after)
    except DurationError:
        earmark_after = EARMARK_NEVER
    return QueueSpec(
        parent=spec.parent,
        guarantee=_canonical(spec.guarantee),
        limit=_canonical(spec.limit),
        weight=1.0 if spec.weight is None else float(spec.weight),
        priority=spec.priority or 0,
        blocking=spec.blocking or SKIP_AHEAD,
        earmark_after=earmark_after,
    )


def _canonical(amounts: Mapping[str, Any] | None) -> Mapping[str, str]:
    canonical: dict[str, str] = {}
    for name, amount in sorted((amounts or {}).items()):
        try:
            canonical[name] = str(parse_quantity(str(amount)))
        except QuantityError:
            continue
    return canonical or EMPTY_MAP


def _canonical_earmark(text: str) -> str:
    return text if text == EARMARK_NEVER else canonical_duration(text)


def _check(manifest: QueueManifest, old: Queue | None, context: AdmissionContext, findings: Findings) -> None:
    name, spec = manifest.metadata.name, manifest.spec
    check_identity(manifest.metadata, old, Kind.QUEUE, context, findings)
    problem = dns_label_problem(name)
    if problem is not None and not any(each.path == "metadata.name" for each in findings.violations):
        # Sets name their queue in a label, whose value holds 63 characters.
        findings.invalid("metadata.name", problem)
    _check_amounts(spec, findings)
    if spec.weight is not None and spec.weight != 0 and not WEIGHT_MIN <= spec.weight <= WEIGHT_MAX:
        message = f"must be 0, or between {WEIGHT_MIN:g} and {WEIGHT_MAX:g}, got {spec.weight:g}"
        findings.invalid("spec.weight", message)
    if spec.priority is not None and not -INT32_MAX - 1 <= spec.priority <= INT32_MAX:
        message = f"must be between {-INT32_MAX - 1} and {INT32_MAX}, got {spec.priority}"
        findings.invalid("spec.priority", message)
    if spec.blocking and spec.blocking not in BLOCKINGS:
        findings.not_supported("spec.blocking", spec.blocking, BLOCKINGS)
    _check_earmark(spec.earmark_after, findings)
    _check_delay((manifest.metadata.annotations or {}).get(PREEMPTION_DELAY), findings)
    _check_place(name, spec.parent, context, findings)
    if old is None and len(context.queues.keys() | {name}) > QUEUES_MAX:
        findings.add("", Reason.TOO_MANY, f"there must be at most {QUEUES_MAX} queues")


def _check_delay(text: str | None, findings: Findings) -> None:
    """Check how long gangs wait before others leave for them."""
    if text is None:
        return
    path = f"metadata.annotations[{PREEMPTION_DELAY}]"
    try:
        delay_s = parse_duration_ns(text) / 10**9
    except DurationError as error:
        findings.invalid(path, str(error))
        return
    if not 0 <= delay_s <= DELAY_MAX_S:
        findings.invalid(path, f"must be between 0s and 24h, got {quoted(text)}")


def _check_amounts(spec: QueueManifestSpec, findings: Findings) -> None:
    for path, amounts in (("spec.guarantee", spec.guarantee), ("spec.limit", spec.limit)):
        if amounts is not None and len(amounts) > RESOURCES_MAX:
            findings.too_many(path, len(amounts), RESOURCES_MAX, "resources")
            return
    guarantee = check_amounts(spec.guarantee, "spec.guarantee", findings)
    limit = check_amounts(spec.limit, "spec.limit", findings)
    for name, amount in guarantee.items():
        if name in limit and amount > limit[name]:
            findings.invalid(f"spec.guarantee[{name}]", f"must be at most the limit ({limit[name]}), got {amount}")


def _check_earmark(text: str | None, findings: Findings) -> None:
    if text is None or text == EARMARK_NEVER:
        return
    try:
        if parse_duration_ns(text) < 0:
            findings.invalid("spec.earmarkAfter", f"must not be negative, got {quoted(text)}")
    except DurationError as error:
        findings.invalid("spec.earmarkAfter", f"{error}, or {EARMARK_NEVER!r}; got {quoted(text)}")


def _check_place(name: str, parent: str, context: AdmissionContext, findings: Findings) -> None:
    """Check that a way leads from the queue to the top, and warn of what its guarantees promise together."""
    queues = context.queues
    if parent == DEFAULT_QUEUE:
        message = f"must not be {DEFAULT_QUEUE}: sets that name no queue are in it, and sets are in leaves"
        findings.invalid("spec.parent", message)
    elif parent == name:
        findings.invalid("spec.parent", "must not be the queue itself")
    elif parent and name == DEFAULT_QUEUE:
        findings.forbidden("spec.parent", f"may not be set: {DEFAULT_QUEUE} stands at the top")
    elif parent and parent not in queues:
        findings.not_found("spec.parent", f"there is no Queue {quoted(parent)}")
    elif parent and _ends_in_itself(name, parent, queues):
        findings.invalid("spec.parent", f"makes a circle: {quoted(parent)} is below {quoted(name)}")
    elif parent and _is_too_deep(name, parent, queues):
        findings.invalid("spec.parent", f"is too deep: at most {DEPTH_MAX} queues may stand above each other")
    else:
        _warn_of_promises(name, queues, findings)
        _warn_of_promises(parent, queues, findings)


def _is_too_deep(name: str, parent: str, queues: Mapping[str, QueueSpec]) -> bool:
    """Return whether the queue, or one below it, has too many above; a parent that has has its own complaint."""
    above = lineage(parent, queues)
    if above is None:
        return False
    children: dict[str, list[str]] = {}
    for each, spec in queues.items():
        children.setdefault(spec.parent, []).append(each)
    depth, here = len(above), [name]
    while here and depth <= DEPTH_MAX:
        depth += 1
        here = [child for each in here for child in children.get(each, ())]
    return depth > DEPTH_MAX


def _ends_in_itself(name: str, parent: str, queues: Mapping[str, QueueSpec]) -> bool:
    seen: set[str] = set()
    while parent and parent in queues and parent not in seen:
        if parent == name:
            return True
        seen.add(parent)
        parent = queues[parent].parent
    return False


def _warn_of_promises(name: str, queues: Mapping[str, QueueSpec], findings: Findings) -> None:
    """Warn where the queues below one are promised more than it is itself."""
    if name not in queues:
        return
    totals: dict[str, Quantity] = {}
    for spec in queues.values():
        if spec.parent == name:
            for resource, amount in spec.guarantee.items():
                totals[resource] = totals.get(resource, ZERO) + parse_quantity(amount)
    for resource, total in sorted(totals.items()):
        own = parse_quantity(queues[name].guarantee.get(resource, "0"))
        if total > own:
            findings.warn(
                f"the queues below {name} are guaranteed {total} of {resource}, {name} itself {own}: "
                "what is missing is borrowed, and may be taken back by others"
            )
