"""Rules for a clique's pod spec: what the server acts on must make sense, what it would have to overrule is refused.

A pod spec is Kubernetes' and arrives as plain JSON. Its own fields and those of its containers are known by name, so
that a typing mistake is found; what lies deeper is looked at where the server uses it, and otherwise left to
Kubernetes. Nothing a user wrote is replaced in silence: it is kept, kept with a warning, or refused with a reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from grove_server.admission.context import Limits
from grove_server.admission.findings import Findings
from grove_server.admission.validation_container import check_containers
from grove_server.admission.validation_resources import check_resources
from grove_server.admission.validation_scheduling import check_affinity, check_node_selector, check_tolerations
from grove_server.resources.names import dns_subdomain_problem
from grove_server.resources.quantity import QuantityError, parse_quantity

# Kubernetes 1.35, core/v1 PodSpec.
_FIELDS: Final = frozenset(
    {
        "activeDeadlineSeconds",
        "affinity",
        "automountServiceAccountToken",
        "containers",
        "dnsConfig",
        "dnsPolicy",
        "enableServiceLinks",
        "ephemeralContainers",
        "hostAliases",
        "hostIPC",
        "hostNetwork",
        "hostPID",
        "hostUsers",
        "hostname",
        "hostnameOverride",
        "imagePullSecrets",
        "initContainers",
        "nodeName",
        "nodeSelector",
        "os",
        "overhead",
        "preemptionPolicy",
        "priority",
        "priorityClassName",
        "readinessGates",
        "resourceClaims",
        "resources",
        "restartPolicy",
        "runtimeClassName",
        "schedulerName",
        "schedulingGates",
        "schedulingGroup",
        "securityContext",
        "serviceAccount",
        "serviceAccountName",
        "setHostnameAsFQDN",
        "shareProcessNamespace",
        "subdomain",
        "terminationGracePeriodSeconds",
        "tolerations",
        "topologySpreadConstraints",
        "volumes",
        "workloadRef",
    }
)
_RESTART_POLICIES: Final = ("Always", "OnFailure", "Never")
_REFUSED: Final[Mapping[str, str]] = {
    "nodeName": "may not be set: the server decides where pods run",
    "topologySpreadConstraints": "may not be set: use topologyConstraint",
    "schedulingGates": "may not be set: the server decides when pods run, and would never open a gate of others",
    "hostname": "may not be set: each pod is named after its clique and index",
    "hostnameOverride": "may not be set: each pod is named after its clique and index",
    "subdomain": "may not be set: the pods of a copy share its headless service",
    "ephemeralContainers": "may not be set in a template",
}


def check_pod_spec(
    pod_spec: Mapping[str, Any], old: Mapping[str, Any] | None, path: str, limits: Limits, findings: Findings
) -> None:
    """Check the pod spec at *path*; *old* is the stored one, whose refused fields may stay as they are."""
    for name in pod_spec:
        if name not in _FIELDS:
            findings.unknown(f"{path}.{name}")
        elif name in _REFUSED and pod_spec[name] and (old is None or old.get(name) != pod_spec[name]):
            findings.forbidden(f"{path}.{name}", _REFUSED[name])
    _check_policies(pod_spec, path, findings)
    check_containers(pod_spec, path, limits, findings)
    if (resources := pod_spec.get("resources")) is not None:
        check_resources(resources, f"{path}.resources", findings)
    if (overhead := pod_spec.get("overhead")) is not None:
        _check_overhead(overhead, f"{path}.overhead", findings)
    if (selector := pod_spec.get("nodeSelector")) is not None:
        check_node_selector(selector, f"{path}.nodeSelector", findings)
    if (tolerations := pod_spec.get("tolerations")) is not None:
        check_tolerations(tolerations, f"{path}.tolerations", findings)
    if (affinity := pod_spec.get("affinity")) is not None:
        check_affinity(affinity, f"{path}.affinity", findings)


def _check_policies(pod_spec: Mapping[str, Any], path: str, findings: Findings) -> None:
    policy = pod_spec.get("restartPolicy")
    if policy not in _RESTART_POLICIES:
        findings.not_supported(f"{path}.restartPolicy", policy, _RESTART_POLICIES)
    elif policy != "Always":
        findings.warn(f"{path}.restartPolicy is {policy}: a pod that ends is replaced, because a clique keeps its size")
    grace_s = pod_spec.get("terminationGracePeriodSeconds")
    if not isinstance(grace_s, int) or isinstance(grace_s, bool):
        findings.wrong_type(f"{path}.terminationGracePeriodSeconds", "a whole number", grace_s)
    elif grace_s < 0:
        findings.invalid(f"{path}.terminationGracePeriodSeconds", f"must not be negative, got {grace_s}")
    scheduler = pod_spec.get("schedulerName")
    if scheduler is not None and not isinstance(scheduler, str):
        findings.wrong_type(f"{path}.schedulerName", "a string", scheduler)
    elif scheduler and (problem := dns_subdomain_problem(scheduler)) is not None:
        findings.invalid(f"{path}.schedulerName", problem)


def _check_overhead(overhead: object, path: str, findings: Findings) -> None:
    if not isinstance(overhead, dict):
        findings.wrong_type(path, "a map", overhead)
        return
    for name, amount in overhead.items():
        try:
            if parse_quantity(str(amount)).nano < 0:
                findings.invalid(f"{path}[{name}]", "must not be negative")
        except QuantityError as error:
            findings.invalid(f"{path}[{name}]", str(error))
