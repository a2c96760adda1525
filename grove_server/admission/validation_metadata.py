"""Rules for names, labels and annotations that a user gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from grove_server.admission.findings import Findings
from grove_server.admission.validation_affinity import check_spread
from grove_server.admission.validation_gpus import warn_of_gpu_share
from grove_server.resources.duration import DurationError, format_duration, parse_duration
from grove_server.resources.labels import (
    ANNOTATIONS_SIZE_MAX_BYTES,
    BASE_POD_GANG,
    COMPONENT,
    DRAIN_TIMEOUT,
    DRAIN_TIMEOUT_MAX_S,
    MANAGED_BY,
    MNNVL_GROUP,
    MNNVL_NONE,
    NAME,
    PART_OF,
    POD_CLIQUE,
    POD_GANG,
    POD_INDEX,
    POD_TEMPLATE_HASH,
    SCALING_GROUP,
    SCALING_GROUP_REPLICA_INDEX,
    SET_REPLICA_INDEX,
    STUCK_POLICIES,
    STUCK_TERMINATING_POLICY,
    label_key_problem,
    label_value_problem,
)
from grove_server.resources.manifest import ManifestMetadata
from grove_server.resources.names import dns_label_problem
from grove_server.resources.violations import Reason

# On cliques and pods the server writes these itself.
_RESERVED: Final = frozenset(
    {
        BASE_POD_GANG,
        COMPONENT,
        MANAGED_BY,
        NAME,
        PART_OF,
        POD_CLIQUE,
        POD_GANG,
        POD_INDEX,
        POD_TEMPLATE_HASH,
        SCALING_GROUP,
        SCALING_GROUP_REPLICA_INDEX,
        SET_REPLICA_INDEX,
    }
)


def check_metadata(metadata: ManifestMetadata, labels_max: int, findings: Findings) -> None:
    """Check what a manifest says about the object itself, but for its name."""
    if metadata.namespace is not None:
        problem = dns_label_problem(metadata.namespace)
        if problem is not None:
            findings.invalid("metadata.namespace", problem)
    if metadata.labels:
        check_labels(metadata.labels, "metadata.labels", labels_max, findings)
    if metadata.annotations:
        check_annotations(metadata.annotations, "metadata.annotations", labels_max, findings)
        warn_of_gpu_share(metadata.annotations, "metadata.annotations", findings)
        check_spread(metadata.annotations, findings)
        if DRAIN_TIMEOUT in metadata.annotations:
            _check_drain_timeout(metadata.annotations[DRAIN_TIMEOUT], findings)
        policy = metadata.annotations.get(STUCK_TERMINATING_POLICY)
        if policy is not None and policy not in STUCK_POLICIES:
            findings.not_supported(f"metadata.annotations[{STUCK_TERMINATING_POLICY}]", policy, STUCK_POLICIES)
    if metadata.finalizers:
        findings.warn("metadata.finalizers is ignored")


def check_labels(labels: Mapping[str, str], path: str, labels_max: int, findings: Findings) -> None:
    """Check keys and values of labels."""
    if len(labels) > labels_max:
        findings.too_many(path, len(labels), labels_max)
        return
    for key, value in labels.items():
        problem = label_key_problem(key)
        if problem is not None:
            findings.invalid(f"{path}[{key}]", f"is no valid label key: {problem}")
        problem = label_value_problem(value)
        if problem is not None:
            findings.invalid(f"{path}[{key}]", f"has no valid label value: {problem}")


def check_clique_labels(labels: Mapping[str, str], path: str, labels_max: int, findings: Findings) -> None:
    """Check the labels of a clique, whose pods carry the server's own labels too."""
    check_labels(labels, path, labels_max, findings)
    for key in labels:
        if key in _RESERVED:
            findings.warn(
                f"{path}[{key}] is overwritten on cliques and pods, because the server sets this label itself"
            )


def check_annotations(annotations: Mapping[str, str], path: str, annotations_max: int, findings: Findings) -> None:
    """Check keys of annotations and the size of all together; values are free."""
    if len(annotations) > annotations_max:
        findings.too_many(path, len(annotations), annotations_max)
        return
    size_bytes = 0
    for key, value in annotations.items():
        # Kubernetes compares annotation keys without regard to case, which no valid key is spoiled by.
        problem = label_key_problem(key)
        if problem is not None:
            findings.invalid(f"{path}[{key}]", f"is no valid annotation key: {problem}")
        size_bytes += len(key.encode()) + len(value.encode())
    if size_bytes > ANNOTATIONS_SIZE_MAX_BYTES:
        message = f"must have at most {ANNOTATIONS_SIZE_MAX_BYTES} bytes together, has {size_bytes}"
        findings.add(path, Reason.TOO_LONG, message)
    mnnvl = annotations.get(MNNVL_GROUP)
    if mnnvl is not None and mnnvl != MNNVL_NONE:
        problem = dns_label_problem(mnnvl)
        if problem is not None:
            findings.invalid(f"{path}[{MNNVL_GROUP}]", f"names no NVLink group and is not {MNNVL_NONE!r}: {problem}")


def _check_drain_timeout(text: str, findings: Findings) -> None:
    """Check how long pods may drain: a wait without a bound would keep a pod for ever."""
    path = f"metadata.annotations[{DRAIN_TIMEOUT}]"
    try:
        timeout_s = parse_duration(text)
    except DurationError as error:
        findings.invalid(path, f"is no duration: {error}")
        return
    if not 0 <= timeout_s <= DRAIN_TIMEOUT_MAX_S:
        findings.invalid(path, f"must be between 0s and {format_duration(DRAIN_TIMEOUT_MAX_S)}, is {text}")
