"""Sizes: replicas, minimums, autoscaling bounds, and the number of pods they add up to.

The one rule at every level: a size is 0 or at least the minimum.
"""

from __future__ import annotations

from grove_server.admission.context import INT32_MAX, Limits
from grove_server.admission.findings import Findings
from grove_server.resources.manifest import AutoScalingConfig, PodCliqueSetSpec, PodCliqueSetTemplate
from grove_server.resources.violations import Reason


def check_sizes(replicas: int | None, minimum: int | None, path: str, findings: Findings) -> None:
    """Check ``replicas`` and ``minAvailable`` below *path*, after defaulting."""
    assert replicas is not None  # Defaulting filled it in.
    assert minimum is not None  # As above.
    size_fits = check_count(replicas, f"{path}.replicas", findings)
    if minimum < 1:
        findings.invalid(f"{path}.minAvailable", f"must be at least 1, got {minimum}")
    elif not check_count(minimum, f"{path}.minAvailable", findings):
        return
    elif size_fits and 0 < replicas < minimum:
        message = f"must be at most replicas ({replicas}), got {minimum}: a size is 0 or at least the minimum"
        findings.invalid(f"{path}.minAvailable", message)


def check_count(value: int, path: str, findings: Findings) -> bool:
    """Check that a count is not negative and fits 32 bits; return whether it does."""
    if 0 <= value <= INT32_MAX:
        return True
    findings.invalid(path, f"must be between 0 and {INT32_MAX}, got {value}")
    return False


def check_scaling(
    config: AutoScalingConfig, sizes: tuple[int | None, int | None], path: str, limits: Limits, findings: Findings
) -> None:
    """Check autoscaling bounds against *sizes* (replicas, minimum), and the shape of each metric."""
    replicas, minimum = sizes
    lower, upper = config.min_replicas, config.max_replicas
    assert replicas is not None  # Defaulting filled it in.
    assert minimum is not None  # As above.
    assert lower is not None  # As above.
    if check_count(lower, f"{path}.minReplicas", findings) and 0 < lower < minimum:
        findings.invalid(f"{path}.minReplicas", f"must be 0 or at least minAvailable ({minimum}), got {lower}")
    if upper is None:
        findings.required(f"{path}.maxReplicas")
    elif upper < 1:
        findings.invalid(f"{path}.maxReplicas", f"must be at least 1, got {upper}")
    elif check_count(upper, f"{path}.maxReplicas", findings):
        for name, bound in (("minReplicas", lower), ("replicas", replicas), ("minAvailable", minimum)):
            if upper < bound:
                findings.invalid(f"{path}.maxReplicas", f"must be at least {name} ({bound}), got {upper}")
                break
    if len(config.metrics) > limits.metrics_max:
        findings.too_many(f"{path}.metrics", len(config.metrics), limits.metrics_max)
        return
    for index, metric in enumerate(config.metrics):
        kind = metric.get("type")
        if kind is None:
            findings.required(f"{path}.metrics[{index}].type")
        elif kind not in ("Resource", "ContainerResource", "Pods", "Object", "External"):
            allowed = ("Resource", "ContainerResource", "Pods", "Object", "External")
            findings.not_supported(f"{path}.metrics[{index}].type", kind, allowed)


def pods_per_copy(template: PodCliqueSetTemplate) -> int:
    """Return the number of pods in one copy at the template's sizes."""
    sizes = {clique.name: _sane(clique.spec.replicas) for clique in template.cliques}
    count = 0
    for group in template.pod_clique_scaling_groups:
        # A clique counts in the first group that names it, so that a broken manifest gives a sane number too.
        count += _sane(group.replicas) * sum(sizes.pop(name, 0) for name in group.clique_names)
    return count + sum(sizes.values())


def _sane(size: int | None) -> int:
    """Return a size, or 0 for one that has a violation of its own."""
    return size if size is not None and 0 < size <= INT32_MAX else 0


def check_pod_count(spec: PodCliqueSetSpec, limits: Limits, path: str, findings: Findings) -> None:
    """Check the number of copies, and of pods in all of them at the template's sizes."""
    copies = _sane(spec.replicas)
    if copies > limits.copies_max:
        findings.too_many(path, copies, limits.copies_max, "copies")
        return
    per_copy = pods_per_copy(spec.template)
    # One copy counts even at size 0: a set that could never run one is refused when it is written.
    total = max(copies, 1) * per_copy
    if total > limits.pods_per_set_max:
        message = (
            f"makes {total} pods ({max(copies, 1)} copies of {per_copy}), "
            f"more than the {limits.pods_per_set_max} a set may have"
        )
        findings.add(path, Reason.TOO_MANY, message)
